//! nginx with Lua and Redis, which counts over all gateways: a window of a second (`INCR`), or a token bucket (a script).

use super::{Peer, Solution, find, nginx::Wanted, redis, version};
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
        let (host, port) = (store.address.ip().to_string(), store.address.port().to_string());
        let folder = site.folder("lua");
        write(&folder, "limit.lua", &LIMIT.replace("@HOST@", &host).replace("@PORT@", &port));
        let call = match self {
            Self::Window => format!("window(client, {RATE})"),
            Self::Bucket => format!("bucket(client, {RATE}, {RATE})"),
        };
        let wanted = Wanted {
            tls: stack.is_tls(),
            keys: stack.checks_keys(),
            log: stack == Stack::Full,
            main: format!("load_module {MODULES}/ndk_http_module.so; load_module {MODULES}/ngx_http_lua_module.so;\n"),
            http: format!("lua_package_path '{}/?.lua;/usr/share/lua/5.1/?.lua;;';\n", super::text(&folder)),
            // Commonly a request passes where Redis does not answer; here that must not pass for a measurement.
            location: format!(
                "access_by_lua_block {{\n\
                 local client = ngx.var.http_x_api_key or '-'\n\
                 local admitted = require('limit').{call}\n\
                 if admitted == nil then return ngx.exit(503) end\n\
                 if not admitted then return ngx.exit(429) end }}"
            ),
        };
        Some(Box::new(wanted.configure(how, vec![store], site)))
    }
}
