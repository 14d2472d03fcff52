//! Backups: saving one, and looking into one without a cluster.

use crate::shared::{Corner, dev};
use std::fs;
use tests::{
    cluster::quorate,
    json::{list, text},
};

#[test]
fn a_backup_says_what_it_holds_and_whether_it_is_whole() {
    let corner = Corner::make("backup");
    let ctl = dev().ctl();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backup.quorate");
    let path = file.to_str().unwrap();
    ctl.json(["snapshot", "save", path]);
    let status = ctl.json(["cluster", "status"]);

    let ran = quorate(&["snapshot", "inspect", path, "-o", "json"]);
    let found = ran.done();
    assert_eq!(found["whole"], true, "{found}");
    assert_eq!(found["cluster"], status["cluster"], "{found}");
    assert_eq!(found["bytes"], fs::metadata(&file).unwrap().len(), "{found}");
    assert!(found["revision"].as_u64().unwrap() > 0 && found["index"].as_u64().unwrap() > 0, "{found}");
    assert!(found["counts"]["keys"].as_u64().unwrap() >= 1, "{found}");
    assert!(found["counts"]["routes"].as_u64().unwrap() >= 1, "{found}");
    let members = list(&found, "members");
    assert_eq!(members.len(), list(&status, "nodes").len(), "{found}");
    assert!(members.iter().all(|member| member["voter"] == true), "{found}");
    // By the admin's program as well, for people and for programs; and it holds no secret.
    assert_eq!(ctl.json(["snapshot", "inspect", path]), found);
    let shown = ctl.run(["snapshot", "inspect", path]);
    assert_eq!(shown.code, 0, "{shown}");
    assert!(shown.stdout.contains(text(&found, "cluster")) && shown.stdout.contains("voter"), "{shown}");
    assert!(!shown.stdout.contains(&corner.key), "{shown}");

    // One bit, somewhere in the middle: by file and offset.
    let whole = fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&file, damaged).unwrap();
    let ran = quorate(&["snapshot", "inspect", path]);
    assert_eq!(ran.code, 1, "{ran}");
    assert!(ran.stdout.is_empty() && ran.stderr.contains(path) && ran.stderr.contains("damaged at byte"), "{ran}");
    let error = ctl.run_json(["snapshot", "inspect", path]).refused(1);
    assert!(text(&error, "message").contains("damaged at byte"), "{error}");
    // Cut short, and something else altogether.
    for bytes in [&whole[..whole.len() - 1], b"not a snapshot, although it is long enough to be one"] {
        fs::write(&file, bytes).unwrap();
        assert_eq!(quorate(&["snapshot", "inspect", path]).code, 1);
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(quorate(&["snapshot", "inspect", path]).code, 1);
}

/// The day on which nobody can administer any more is known before it comes.
#[test]
fn the_end_of_the_admins_is_told() {
    let status = dev().ctl().json(["cluster", "status"]);
    assert!(status["admins_end"].is_string(), "{status}");
    let metrics = dev().ops(1).send(tests::client::get("/metrics")).ok().text();
    assert!(metrics.contains("quorate_admin_access_expiry_timestamp_seconds"), "{metrics}");
}
