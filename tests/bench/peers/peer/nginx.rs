//! nginx by itself: keys in a `map`, a limit of its own by `limit_req`. Its configuration is also what `nginx_redis` adds to.

use super::{Group, Peer, Program, Programs, Rule, Solution, Together, find, free_address, text, version, words};
use crate::{
    row::Stack,
    site::{RATE, Site, write},
};
use std::{fmt::Write, fs};

/// See the file.
pub struct Nginx;

impl Peer for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn version(&self) -> Option<String> {
        version(&find("nginx", None)?, "-v")
    }

    fn install(&self) -> &'static str {
        "apt-get install nginx-light"
    }

    fn solve(&self, stack: Stack, site: &Site) -> Option<Box<dyn Solution>> {
        let mut wanted =
            Wanted { tls: stack.is_tls(), keys: stack.checks_keys(), log: stack == Stack::Full, ..Wanted::default() };
        if matches!(stack, Stack::LocalLimit | Stack::Full) {
            writeln!(wanted.http, "limit_req_zone $http_x_api_key zone=clients:10m rate={RATE}r/s;").expect("a String");
            wanted.location = "limit_req zone=clients burst=100000 nodelay; limit_req_status 429;".to_owned();
        }
        let how = match stack {
            Stack::Plain | Stack::Tls => "",
            Stack::Keys => "map",
            Stack::LocalLimit => "limit_req",
            Stack::GlobalLimit => return None,
            Stack::Full => "map + limit_req (local) + access log",
        };
        Some(Box::new(wanted.configure(how, Vec::new(), site)))
    }

    /// Each for itself.
    fn together(&self, rule: &Rule, site: &Site, core: &str) -> Option<Result<Box<dyn Together>, String>> {
        let gateway = |_| {
            let wanted = Wanted {
                http: format!("limit_req_zone $http_x_api_key zone=clients:10m rate={}r/s;\n", rule.rate),
                location: format!("limit_req zone=clients burst={} nodelay; limit_req_status 429;", rule.burst),
                ..Wanted::default()
            };
            wanted.configure("", Vec::new(), site).programs
        };
        Some(Group::start(None, (0..rule.gateways).flat_map(gateway).collect(), core))
    }
}

/// What an nginx is to do, besides passing on.
#[derive(Default)]
pub struct Wanted {
    /// TLS towards the client.
    pub tls: bool,
    /// Refuse who has no key.
    pub keys: bool,
    /// Keep an access log.
    pub log: bool,
    /// More at the top of the file.
    pub main: String,
    /// More in the `http` block.
    pub http: String,
    /// More in the only `location` block.
    pub location: String,
}

impl Wanted {
    /// Writes it down, with programs that must be there before.
    pub fn configure(mut self, how: &str, mut programs: Vec<Program>, site: &Site) -> Programs {
        let nginx = find("nginx", None).unwrap_or_else(|| "nginx".into());
        let folder = site.folder("nginx");
        let address = free_address();
        let mut server = String::new();
        if self.keys {
            let keys = site.key_file(&folder, "", " c#;");
            writeln!(
                self.http,
                "map_hash_max_size 131072; map_hash_bucket_size 128;\n\
                 map $http_x_api_key $client {{ default \"\"; include {}; }}",
                text(&keys)
            )
            .expect("a String");
            server.push_str("if ($client = \"\") { return 401; }\n");
        }
        if self.tls {
            writeln!(
                server,
                "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3; ssl_session_cache shared:s:1m;",
                text(&site.certificate),
                text(&site.key)
            )
            .expect("a String");
        }
        let log = if self.log { "access_log access.log combined buffer=64k flush=1s;" } else { "access_log off;" };
        // As root its workers would be somebody who may not read these folders.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let Self { main, http, location, .. } = self;
        let listen = if self.tls { "ssl http2" } else { "" };
        let upstream = site.upstream;
        let configuration = write(
            &folder,
            "nginx.conf",
            &format!(
                "{main}{user}
worker_processes 1; daemon off; pid nginx.pid; error_log error.log crit;
events {{ worker_connections 4096; }}
http {{
  {log} keepalive_requests 100000000; keepalive_timeout 300s;
  client_body_temp_path temporary/body; proxy_temp_path temporary/proxy; fastcgi_temp_path temporary/fastcgi;
  uwsgi_temp_path temporary/uwsgi; scgi_temp_path temporary/scgi;
  upstream up {{ server {upstream}; keepalive 256; keepalive_requests 100000000; }}
  {http}
  server {{
    listen {address} {listen} backlog=1024;
    {server}
    location / {{
      {location}
      proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\";
    }}
  }}
}}
"
            ),
        );
        fs::create_dir(folder.join("temporary")).expect("a folder");
        let prefix = format!("{}/", text(&folder));
        let command = words(&[text(&nginx), "-c", text(&configuration), "-p", &prefix, "-e", "error.log"]);
        let check = [command.clone(), words(&["-t"])].concat();
        programs.push(Program { name: "nginx", command, environment: Vec::new(), address, folder });
        Programs { how: how.to_owned(), programs, checks_keys: self.keys, check: Some(check) }
    }
}
