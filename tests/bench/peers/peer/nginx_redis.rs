//! nginx with Lua and Redis, which counts over all gateways: a window of a second (`INCR`), or a token bucket (a script).

use super::{Group, Peer, Program, Rule, Solution, Together, find, nginx::Wanted, redis, version};
use crate::{
    row::Stack,
    site::{RATE, Site, write},
};
use std::path::Path;

/// Where Debian puts modules.
const MODULES: &str = "/usr/lib/nginx/modules";
const LIMIT: &str = include_str!("limit.lua");

/// How it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NginxRedis {
    /// By `INCR`: cheap, and up to twice the limit around the end of a window.
    Window,
    /// By a script: what the limit says.
    Bucket,
}

impl Peer for NginxRedis {
    fn name(&self) -> &'static str {
        match self {
            Self::Window => "nginx-redis",
            Self::Bucket => "nginx-redis-bucket",
        }
    }

    fn version(&self) -> Option<String> {
        let nginx = version(&find("nginx", None)?, "-v")?;
        let redis = version(&find("redis-server", None)?, "--version")?;
        Path::new(MODULES).join("ngx_http_lua_module.so").is_file().then(|| format!("{nginx}, Lua; {redis}"))
    }

    fn install(&self) -> &'static str {
        "apt-get install nginx-light libnginx-mod-http-lua lua-resty-core lua-resty-lrucache redis-server"
    }

    fn solve(&self, stack: Stack, site: &Site) -> Option<Box<dyn Solution>> {
        let how = match (stack, self) {
            (Stack::GlobalLimit, Self::Window) => "INCR",
            (Stack::GlobalLimit, Self::Bucket) => "bucket in a script",
            (Stack::Full, Self::Window) => "map + INCR + access log",
            _ => return None,
        };
        let store = redis::program(site)?;
        let wanted = Wanted {
            tls: stack.is_tls(),
            keys: stack.checks_keys(),
            log: stack == Stack::Full,
            ..self.limit(RATE, RATE, Some("503"), &store, site)
        };
        Some(Box::new(wanted.configure(how, vec![store], site)))
    }

    /// As is commonly done, requests pass where Redis does not answer.
    fn together(&self, rule: &Rule, site: &Site, core: &str) -> Option<Result<Box<dyn Together>, String>> {
        let store = redis::program(site)?;
        let gateway =
            |_| self.limit(rule.rate, rule.burst, None, &store, site).configure("", Vec::new(), site).programs;
        let gateways = (0..rule.gateways).flat_map(gateway).collect();
        Some(Group::start(Some(store), gateways, core))
    }
}

impl NginxRedis {
    /// An nginx that keeps this limit; with what it answers where Redis does not.
    fn limit(self, rate: u64, burst: u64, without: Option<&str>, store: &Program, site: &Site) -> Wanted {
        let (host, port) = (store.address.ip().to_string(), store.address.port().to_string());
        let folder = site.folder("lua");
        write(&folder, "limit.lua", &LIMIT.replace("@HOST@", &host).replace("@PORT@", &port));
        let call = match self {
            Self::Window => format!("window(client, {rate})"),
            Self::Bucket => format!("bucket(client, {rate}, {burst})"),
        };
        let without = without.map(|status| format!("if admitted == nil then return ngx.exit({status}) end\n"));
        Wanted {
            main: format!("load_module {MODULES}/ndk_http_module.so; load_module {MODULES}/ngx_http_lua_module.so;\n"),
            http: format!("lua_package_path '{}/?.lua;/usr/share/lua/5.1/?.lua;;';\n", super::text(&folder)),
            location: format!(
                "access_by_lua_block {{\n\
                 local client = ngx.var.http_x_api_key or '-'\n\
                 local admitted = require('limit').{call}\n{}\
                 if admitted == false then return ngx.exit(429) end }}",
                without.unwrap_or_default()
            ),
            ..Wanted::default()
        }
    }
}
