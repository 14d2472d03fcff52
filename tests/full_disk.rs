//! A disk that runs full.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use tests::{
    Cluster, Upstream,
    client::get,
    cluster::Node,
    eventually,
    json::{find, list, text},
    process::Process,
    programs::{self, skip},
};

/// A node whose data lies on a small file system of its own: admin writes are refused before anything stops, reads and traffic go on,
/// and writes come back with the space. First it fills slowly, then from one instant to the next, under writes.
#[test]
fn a_disk_that_is_full() {
    if !can_mount() {
        return skip("mounting a small file system needs root");
    }
    let upstream = Upstream::echo();
    let mut cluster = Cluster::first("disk_free_min = \"32MiB\"\n");
    cluster.apply_example(&upstream.url());
    let filler = on_a_small_disk(cluster.node_mut(1));

    let ctl = cluster.ctl();
    let before = text(&ctl.json_soon(&["keys", "create", "--consumer", "acme"]), "key").to_owned();
    // Below the watermark: no wait until somebody has noticed.
    fill(&filler, 16 * 1024 * 1024);
    let refused = ctl.run_json(["keys", "create", "--consumer", "acme"]);
    assert_eq!(text(&refused.refused(1), "type"), "disk_full", "{refused}");
    // To the last byte: traffic and reads go on.
    fill(&filler, 0);
    ctl.run_json(["keys", "create", "--consumer", "acme"]).refused(1);
    let client = cluster.node(1).client();
    client.send(get("/guarded/x").key(&before)).ok();
    ctl.json(["cluster", "status"]);
    fs::remove_file(&filler).unwrap();
    let after = ctl.json_soon(&["keys", "create", "--consumer", "acme"]);
    client.send(get("/guarded/x").key(text(&after, "key"))).ok();

    // Several times, because it matters what the node is doing just then.
    for _ in 0..3 {
        let made = fill_under_writes(&cluster, &filler);
        for key in &made {
            client.send(get("/guarded/x").key(key)).ok();
        }
        fs::remove_file(&filler).unwrap();
        ctl.json_soon(&["keys", "create", "--consumer", "acme"]);
    }
    assert!(cluster.node_mut(1).process.as_mut().unwrap().ended().is_none());
}

/// Writes by several clients, while the disk fills as fast as memory does. Ends when they are refused; gives the keys that were
/// acknowledged.
fn fill_under_writes(cluster: &Cluster, filler: &Path) -> Vec<String> {
    let refused = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let write = || {
            let ctl = cluster.ctl();
            let mut made = Vec::new();
            let deadline = Instant::now() + Duration::from_secs(60);
            while !refused.load(Ordering::Relaxed) {
                assert!(Instant::now() < deadline, "nothing is refused on a full disk");
                let ran = ctl.run_json(["keys", "create", "--consumer", "acme"]);
                if ran.code == 0 {
                    made.push(text(&ran.done(), "key").to_owned());
                } else {
                    assert_eq!(text(&ran.refused(1), "type"), "disk_full", "{ran}");
                    refused.store(true, Ordering::Relaxed);
                }
            }
            made
        };
        let writers: Vec<_> = (0..3).map(|_| scope.spawn(write)).collect();
        fill(filler, 0);
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer")).collect()
    })
}

/// A follower whose disk is full takes no entries, and stays: the others go on, and it catches up once there is room.
#[test]
fn a_follower_whose_disk_is_full() {
    if !can_mount() {
        return skip("mounting a small file system needs root");
    }
    let mut cluster = Cluster::start(3);
    let place = (1..=3).find(|place| *place != cluster.leader()).unwrap();
    let filler = on_a_small_disk(cluster.node_mut(place));
    fill(&filler, 0);
    let ctl = cluster.ctl();
    let large = cluster.node(1).directory.join("large.yaml");
    // In all more than the reserve: each time some 3 MiB of another text.
    for round in 0..12 {
        let policies: String = (0..13)
            .map(|policy| {
                let line = format!("    // {round} {}\n", "x".repeat(1000));
                let text = line.repeat(230);
                format!("  p{policy}: |\n    permit(principal in Role::\"p{policy}\", action, resource);\n{text}")
            })
            .collect();
        fs::write(&large, format!("policies:\n{policies}")).unwrap();
        // On a starved machine such an entry can cost a leader its heartbeats; applying a file again changes nothing more.
        ctl.json_soon(&["apply", "--no-wait", "-f", large.to_str().unwrap()]);
    }
    let name = cluster.node(place).name.clone();
    assert!(cluster.node_mut(place).process.as_mut().unwrap().ended().is_none(), "it has stopped");
    let behind = || {
        let status = cluster.status();
        find(list(&status, "nodes"), "name", name.as_str()).expect("a member")["lag"].as_u64().unwrap_or(u64::MAX)
    };
    assert!(behind() > 0);
    fs::remove_file(&filler).unwrap();
    eventually("it catches up", || match behind() {
        0 => Ok(()),
        lag => Err(format!("{lag} entries behind")),
    });
}

/// Moves the data of a node to a file system of 160 MiB that only its process sees and that goes away with it, and starts it there.
/// Returns the place of a file on it, as seen from here.
fn on_a_small_disk(node: &mut Node) -> PathBuf {
    if node.process.is_some() {
        node.stop();
    }
    let data = node.data_dir();
    let script = "mount -t tmpfs -o size=160m tmpfs \"$0.small\" && cp -a \"$0/.\" \"$0.small/\" && \
                  mount --move \"$0.small\" \"$0\" && exec \"$@\"";
    fs::create_dir(data.with_extension("small")).unwrap();
    let mut inner = Command::new("unshare");
    inner.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(&data);
    inner.arg(programs::quorate()).args(["run", "--config"]).arg(node.config());
    node.process = Some(Process::start(inner, &node.directory.join("small")));
    node.wait_ready();
    let seen = PathBuf::from(format!("/proc/{}/root", node.process.as_ref().unwrap().pid()));
    seen.join(data.strip_prefix("/").unwrap()).join("filler")
}

fn can_mount() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--mount", "true"]).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Writes until the file system has no more free bytes than this.
fn fill(file: &Path, leave: u64) {
    let mut file =
        fs::File::options().create(true).append(true).open(file).expect("the node's file system is in sight");
    let piece = vec![0_u8; 64 * 1024];
    loop {
        let room = rustix::fs::fstatvfs(&file).expect("a file system");
        if room.f_bavail * room.f_frsize <= leave || file.write_all(&piece).is_err() {
            return;
        }
    }
}
