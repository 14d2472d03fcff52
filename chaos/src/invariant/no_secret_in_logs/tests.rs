//! Secrets in files made by hand.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use super::*;
use crate::history::Event;

const KEY: &str = "qk_abcdefghijklmnop_aaaaaaaabbbbbbbbccccccccddddddddeeeeeeeeffffffffggggggggha";
const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2\n\
    OF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r\n\
    1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G\n\
    -----END PRIVATE KEY-----\n";

fn judged(files: &[(&str, &[u8])]) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let secret = |name: &str, text: &str, may: &[&str]| Secret {
        name: name.to_owned(),
        text: text.to_owned(),
        may_be_in: may.iter().map(|part| (*part).to_owned()).collect(),
    };
    let history = History {
        events: Vec::<Event>::new(),
        complete: true,
        secrets: vec![secret("key k1#1", KEY, &[]), secret("authority key", PEM, &["/pki/"])],
        written: Some(folder.path().to_path_buf()),
    };
    NoSecretInLogs.check(&history)
}

#[track_caller]
fn leaks(files: &[(&str, &[u8])], what: &str) {
    match judged(files) {
        Verdict::Violated { why, .. } => assert!(why.contains(what), "{why}"),
        other => panic!("{other}"),
    }
}

#[test]
fn secrets_are_found_wherever_they_stand() {
    let line = format!("INFO made {KEY} for acme");
    leaks(&[("node-1/log", b"quiet\n"), ("node-2/log", line.as_bytes())], "key k1#1 stands in node-2/log at byte");
    let secret = KEY.rsplit('_').next().unwrap();
    leaks(&[("node-1/data/log/1", secret.as_bytes())], "key k1#1");
    let raw = BASE32_NOPAD.decode(secret.to_ascii_uppercase().as_bytes()).unwrap();
    leaks(&[("node-1/data/log/1", raw.as_slice())], "key k1#1");
    leaks(&[("node-1/data/log/1", PEM.as_bytes())], "authority key");
    leaks(&[("metrics", PEM.replace('\n', "\\n").as_bytes())], "authority key");
}

#[test]
fn a_secret_over_the_border_of_two_reads_is_found() {
    let mut bytes = vec![b'.'; CHUNK_BYTES - 20];
    bytes.extend_from_slice(KEY.as_bytes());
    bytes.extend_from_slice(&vec![b'.'; CHUNK_BYTES]);
    leaks(&[("log", bytes.as_slice())], &format!("at byte {}", CHUNK_BYTES - 20 + 20));
}

#[test]
fn a_secret_may_be_where_it_belongs() {
    let files: &[(&str, &[u8])] = &[("node-1/data/pki/ca.key", PEM.as_bytes()), ("node-1/log", b"qk_abcdefghijklmnop")];
    assert!(matches!(judged(files), Verdict::Held { .. }), "{}", judged(files));
    assert!(matches!(judged(&[("log", b"")]), Verdict::Vacuous { .. }));
}
