//! What a settings file may say, and what is said about one that is wrong.

use super::*;

fn error(text: &str) -> String {
    match parse(Path::new("node.toml"), text).and_then(settle) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_empty_file_is_a_node_with_defaults() {
    let settings = settle(parse(Path::new("node.toml"), "name = 'n1'").unwrap()).unwrap();
    assert_eq!(settings.name.as_str(), "n1");
    assert_eq!(settings.data_dir, Path::new("/var/lib/quorate"));
    assert_eq!(settings.cluster.bind.to_string(), "0.0.0.0:7400");
    assert_eq!(settings.gateway.plain.unwrap().bind.to_string(), "0.0.0.0:8080");
    assert!(settings.gateway.tls.is_none());
    assert_eq!(settings.ops.unwrap().bind.to_string(), "0.0.0.0:9400");
    assert_eq!(settings.voters, 3);
    assert!(settings.gateway.workers > 0);
}

#[test]
fn every_setting_can_be_written() {
    let text = r#"
        name = "n1"
        data_dir = "data"
        zone = "a"
        timing = "wan"
        voters = 5
        drain_delay = "1s"
        drain_timeout = "10s"
        disk_free_min = "1GiB"
        log_level = "info,raft=debug"
        log_format = "json"
        access_log = "./access.log"
        [gateway]
        bind = "127.0.0.1:80"
        advertise = "n1.example:80"
        workers = 3
        connections_max = 7
        headers_max = 50
        header_bytes_max = 16384
        body_bytes_max = "1MiB"
        header_timeout = "1s"
        idle_timeout = "2s"
        trusted_proxies = ["10.0.0.0/8", "fd00::/8"]
        node_header = false
        [gateway_tls]
        bind = "127.0.0.1:443"
        advertise = "n1.example:443"
        certificates = [{ certificate = "c.pem", key = "/k.pem" }]
        [cluster]
        bind = "127.0.0.1:7000"
        advertise = "n1.example:7000"
        [ops]
        bind = "off"
    "#;
    let settings = settle(parse(Path::new("/etc/q/node.toml"), text).unwrap()).unwrap();
    assert_eq!(settings.data_dir, Path::new("/etc/q/data"));
    assert_eq!(settings.access_log, AccessLog::File(PathBuf::from("/etc/q/./access.log")));
    let tls = settings.gateway.tls.unwrap();
    assert_eq!(tls.certificates[0].certificate, Path::new("/etc/q/c.pem"));
    assert_eq!(tls.certificates[0].key, Path::new("/k.pem"));
    assert_eq!(tls.listener.advertise, "n1.example:443");
    assert_eq!(settings.gateway.trusted_proxies.len(), 2);
    assert_eq!(settings.gateway.header_bytes_max, 16384);
    assert!(settings.ops.is_none());
}

#[test]
fn what_is_advertised_follows_from_what_is_bound() {
    let text =
        "name = 'n'\n[cluster]\nbind = '0.0.0.0:7400'\nadvertise = 'n.example:7400'\n[gateway]\nbind = '127.0.0.1:1'";
    let settings = settle(parse(Path::new("node.toml"), text).unwrap()).unwrap();
    assert_eq!(settings.gateway.plain.unwrap().advertise, "127.0.0.1:1");
    assert_eq!(settings.ops.unwrap().advertise, "n.example:9400");
}

#[test]
fn the_command_line_wins_over_the_file() {
    let file = parse(Path::new("node.toml"), "name = 'a'\nzone = 'z'\n[ops]\nbind = 'off'").unwrap();
    let over = Written { name: Some("b".to_owned()), ..Written::default() };
    let settings = settle(over.or(file)).unwrap();
    assert_eq!(settings.name.as_str(), "b");
    assert_eq!(settings.zone.as_deref(), Some("z"));
    assert!(settings.ops.is_none());
}

#[test]
fn errors_name_the_place() {
    let cases = [
        ("nmae = 'a'", "node.toml:1:1: unknown field `nmae`, expected one of "),
        ("name = 'a'\n[gateway]\nbnd = 'off'", "node.toml:3:1: unknown field `bnd`, expected one of "),
        ("name = 'a'\n\ndrain_delay = '5'", "node.toml:3:15: \"5\" is not a length of time"),
        ("drain_delay = 5", "node.toml:1:15: invalid type: integer `5`, expected a string"),
        ("[gateway]\nbind = ':80'", "node.toml:2:8: \":80\" is not an address to listen on"),
        ("name = 'a'\nname = 'b'", "node.toml:2:1: duplicate key"),
        ("name = ", "node.toml:1:8: "),
        ("[gateway_tls]\ncertificates = [{ certificate = 'a' }]", "node.toml:2:17: missing field `key`"),
        ("[gateway]\ntrusted_proxies = ['10.0.0.0/8', 'x']", "node.toml:2:34: "),
        ("timing = 'moon'", "node.toml:1:10: \"moon\" is not a timing profile"),
    ];
    for (text, expected) in cases {
        let found = error(text);
        assert!(found.starts_with(expected), "{text:?}: {found:?} should begin with {expected:?}");
    }
}

#[test]
fn settings_that_contradict_each_other() {
    let cases = [
        ("name = '-'", "name: a name is 1 to 128 characters"),
        ("name = 'a'\nvoters = 2", "voters: 2 nodes cannot vote"),
        ("name = 'a'\nlog_level = 'a=b=c'", "log_level: \"a=b=c\" is not a level"),
        ("name = 'a'\n[cluster]\nbind = 'off'", "cluster.bind: the cluster listener cannot be off"),
        ("name = 'a'\n[gateway_tls]\nbind = '0.0.0.0:1'", "gateway_tls.bind: HTTPS needs a certificate"),
        ("name = 'a'\n[ops]\nbind = '127.0.0.1:8080'", "ops.bind: 127.0.0.1:8080 is also gateway.bind"),
        ("name = 'a'\n[gateway]\nidle_timeout = '0s'", "gateway.idle_timeout: must be more than 0"),
        ("name = 'a'\n[gateway]\nheader_bytes_max = 1", "gateway.header_bytes_max: must be between"),
    ];
    for (text, expected) in cases {
        let found = error(text);
        assert!(found.starts_with(expected), "{text:?}: {found:?} should begin with {expected:?}");
    }
}
