//! The one development cluster that all harmless tests share, and a corner of it for each of them: a host name, a consumer, a key
//! and routes of its own.

use std::sync::OnceLock;
use tests::{Ctl, Dev, DevOptions, json::text};

/// The shared cluster. It is killed when the test program ends.
pub fn dev() -> &'static Dev {
    static DEV: OnceLock<Dev> = OnceLock::new();
    DEV.get_or_init(|| Dev::start_beside(DevOptions::default()))
}

/// A corner of the shared cluster.
pub struct Corner {
    /// Its name: the consumer, the upstream, the beginning of each route's name.
    pub name: String,
    /// Its host name.
    pub host: String,
    /// Its consumer's key.
    pub key: String,
    /// The key's id.
    pub key_id: String,
}

impl Corner {
    /// Makes a corner with the routes of [`Corner::resources`]; the name must be its own.
    pub fn make(name: &str) -> Self {
        let ctl = dev().ctl();
        ctl.apply(&Self::resources(name, &dev_echo()));
        let made = ctl.json(["keys", "create", "--consumer", name]);
        Self {
            name: name.to_owned(),
            host: format!("{name}.test"),
            key: text(&made, "key").to_owned(),
            key_id: text(&made, "id").to_owned(),
        }
    }

    /// `/open/…` for everybody, `/guarded/…` for the consumer's GET and POST, `/closed/…` for nobody.
    pub fn resources(name: &str, upstream: &str) -> String {
        format!(
            r#"
upstreams:
  {name}: {{ targets: ["{upstream}"] }}
consumers:
  {name}: {{ roles: [{name}-caller], env: prod }}
routes:
  {name}-open: {{ hosts: ["{name}.test"], paths: ["/open/{{*rest}}"], upstream: {name}, authenticate: [none], policies: off }}
  {name}-guarded: {{ hosts: ["{name}.test"], paths: ["/guarded/{{*rest}}"], methods: [GET, POST], upstream: {name} }}
  {name}-closed: {{ hosts: ["{name}.test"], paths: ["/closed/{{*rest}}"], upstream: {name} }}
policies:
  {name}: |
    permit(principal in Role::"{name}-caller", action, resource == Route::"{name}-guarded");
"#
        )
    }

    /// A GET below `/guarded/` with the key.
    pub fn guarded(&self) -> tests::client::Call {
        self.guarded_with(&self.key)
    }

    /// A GET below `/guarded/` with some key.
    pub fn guarded_with(&self, key: &str) -> tests::client::Call {
        tests::client::get("/guarded/x").host(&self.host).key(key)
    }

    /// A GET below `/open/`.
    pub fn open(&self, rest: &str) -> tests::client::Call {
        tests::client::get(&format!("/open/{rest}")).host(&self.host)
    }
}

/// The operator's command line of the shared cluster.
pub fn ctl() -> Ctl {
    dev().ctl()
}

/// The echo's URL, as a resource file names it.
pub fn dev_echo() -> String {
    format!("http://{}", dev().ready().echo.as_deref().expect("dev runs an echo"))
}
