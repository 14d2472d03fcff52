//! Everything dies at once: what was acknowledged is there afterwards, in whatever order the nodes come back, and without what may be
//! rebuilt.

use std::sync::{Arc, Mutex};
use tests::{
    Cluster, Dev, DevOptions, Upstream,
    client::get,
    eventually,
    json::{number, text},
    load::Load,
};

#[test]
fn dev_resumes_what_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let options = DevOptions { data_dir: Some(directory.path().join("data")), ..Default::default() };
    let dev = Dev::start_with(options.clone());
    let echo = format!("http://{}", dev.ready().echo.as_deref().unwrap());
    dev.ctl().apply(&crate::shared::Corner::resources("kept", &echo));
    let example_key = dev.key().to_owned();
    dev.client(1).send(get("/echo/hello").key(&example_key)).ok();

    // Keys are made, one after the other, up to the instant of death: each one that was acknowledged must be there.
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let load = Load::start(2, |place| {
        let (ctl, log) = (dev.ctl_at(place as u64 + 1), Arc::clone(&acknowledged));
        move || {
            let ran = ctl.run_json(["--timeout", "3s", "keys", "create", "--consumer", "kept"]);
            if ran.code != 0 {
                return Err(ran.to_string());
            }
            let made = ran.done();
            log.lock().unwrap().push((text(&made, "key").to_owned(), text(&made, "id").to_owned()));
            Ok(())
        }
    });
    load.wait_for_more(6);
    let first = acknowledged.lock().unwrap()[0].1.clone();
    dev.ctl().json(["keys", "revoke", &first]);
    dev.kill_all();
    load.stop();

    let dev = Dev::start_with(options);
    assert_eq!(dev.key(), example_key, "the same key");
    dev.client(2).send(get("/echo/hello").key(&example_key)).ok();
    let acknowledged = acknowledged.lock().unwrap().clone();
    for (key, id) in &acknowledged {
        for node in 1..=3 {
            let answer = dev.client(node).send(get("/guarded/x").host("kept.test").key(key));
            if *id == first {
                answer.problem(401, "unauthenticated");
            } else {
                answer.ok();
            }
        }
    }
    // And it goes on.
    let made = dev.ctl().json_soon(&["keys", "create", "--consumer", "kept"]);
    dev.client(3).send(get("/guarded/x").host("kept.test").key(text(&made, "key"))).ok();
}

#[test]
fn dev_ends_with_its_children_on_sigterm() {
    let mut dev = Dev::start();
    assert_eq!(dev.process().stop(), Some(0));
    for node in dev.ready().nodes.clone() {
        eventually("its nodes have ended", || {
            if tests::process::is_alive(node.pid) { Err(format!("node {} lives", node.id)) } else { Ok(()) }
        });
    }
}

#[test]
fn all_nodes_restart_in_any_order() {
    let upstream = Upstream::echo();
    let mut cluster = Cluster::start(3);
    cluster.apply_example(&upstream.url());
    for order in [[3, 1, 2], [2, 3, 1]] {
        let made = cluster.ctl().json_soon(&["keys", "create", "--consumer", "acme"]);
        let revision = number(&cluster.status(), "revision");
        for place in 1..=3 {
            cluster.node_mut(place).kill();
        }
        for place in order {
            cluster.node_mut(place).run();
        }
        for place in order {
            cluster.node_mut(place).wait_ready();
            cluster.node(place).client().send(get("/guarded/x").key(text(&made, "key"))).ok();
        }
        assert_eq!(number(&cluster.status(), "revision"), revision, "nothing more, nothing less");
    }
    // In good order as well.
    for place in 1..=3 {
        assert_eq!(cluster.node_mut(place).stop(), Some(0));
    }
    for place in [2, 1, 3] {
        cluster.node_mut(place).run();
    }
    cluster.wait_until_voting(3);
}

#[test]
fn a_lost_or_damaged_checkpoint_is_rebuilt() {
    let upstream = Upstream::echo();
    let mut cluster = Cluster::start(3);
    cluster.apply_example(&upstream.url());
    let key = text(&cluster.ctl().json(["keys", "create", "--consumer", "acme"]), "key").to_owned();
    for (place, damage) in [(1, "deleted"), (2, "overwritten"), (3, "cut short")] {
        cluster.node_mut(place).stop();
        let folder = cluster.node(place).data_dir().join("checkpoint");
        assert!(folder.is_dir(), "the checkpoint is where the documentation says: {}", folder.display());
        match damage {
            "deleted" => std::fs::remove_dir_all(&folder).unwrap(),
            _ => {
                for file in files(&folder) {
                    let bytes = std::fs::read(&file).unwrap();
                    let damaged = if damage == "overwritten" {
                        bytes.iter().map(|byte| byte ^ 0x5a).collect()
                    } else {
                        bytes[..bytes.len() / 3].to_vec()
                    };
                    std::fs::write(&file, damaged).unwrap();
                }
            }
        }
        cluster.node_mut(place).run();
        cluster.node_mut(place).wait_ready();
        cluster.node(place).client().send(get("/guarded/x").key(&key)).ok();
    }
    // All of them at once: the log alone is the truth.
    for place in 1..=3 {
        cluster.node_mut(place).kill();
        let _ = std::fs::remove_dir_all(cluster.node(place).data_dir().join("checkpoint"));
    }
    for place in 1..=3 {
        cluster.node_mut(place).run();
    }
    for place in 1..=3 {
        cluster.node_mut(place).wait_ready();
        cluster.node(place).client().send(get("/guarded/x").key(&key)).ok();
    }
}

#[test]
fn a_damaged_log_stops_the_node_by_name_and_offset() {
    let upstream = Upstream::echo();
    let mut cluster = Cluster::start(3);
    cluster.apply_example(&upstream.url());
    cluster.node_mut(3).stop();
    let mut segments = files(&cluster.node(3).data_dir().join("log"));
    segments.sort_by_key(|file| std::cmp::Reverse(std::fs::metadata(file).unwrap().len()));
    let largest = &segments[0];
    let mut bytes = std::fs::read(largest).unwrap();
    // In the middle of what is written, not in its tail: nothing that a crash could have done.
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used / 4] ^= 0xff;
    std::fs::write(largest, bytes).unwrap();
    let run = cluster.node(3).quorate("run", &[]);
    assert_ne!(run.code, 0, "{run}");
    let name = largest.file_name().unwrap().to_str().unwrap();
    assert!(run.stderr.contains(name), "the damaged file {name} is not named: {run}");
    // The others do not care.
    cluster.ctl().json(["keys", "create", "--consumer", "acme"]);
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}
