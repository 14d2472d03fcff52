//! A disk that runs full.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tests::{
    Cluster, Upstream,
    client::get,
    eventually,
    json::text,
    process::Process,
    programs::{self, skip},
};

/// A node whose data lies on a small file system of its own: admin writes are refused before anything stops, reads and traffic go on,
/// and writes come back with the space.
#[test]
fn a_disk_that_is_full() {
    if !can_mount() {
        return skip("mounting a small file system needs root");
    }
    let upstream = Upstream::echo();
    let mut cluster = Cluster::first("disk_free_min = \"32MiB\"\n");
    cluster.apply_example(&upstream.url());
    cluster.node_mut(1).stop();
    // The data moves to a file system that only this process sees, and that goes away with it.
    let node = cluster.node_mut(1);
    let data = node.data_dir();
    let script = "mount -t tmpfs -o size=96m tmpfs \"$0.small\" && cp -a \"$0/.\" \"$0.small/\" && \
                  mount --move \"$0.small\" \"$0\" && exec \"$@\"";
    fs::create_dir(data.with_extension("small")).unwrap();
    let mut inner = Command::new("unshare");
    inner.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(&data);
    inner.arg(programs::quorate()).args(["run", "--config"]).arg(node.config());
    node.process = Some(Process::start(inner, &node.directory.join("small")));
    node.wait_ready();
    let seen = PathBuf::from(format!("/proc/{}/root", node.process.as_ref().unwrap().pid()));
    let filler = seen.join(data.strip_prefix("/").unwrap()).join("filler");

    let ctl = cluster.ctl();
    let before = text(&ctl.json_soon(&["keys", "create", "--consumer", "acme"]), "key").to_owned();
    // Below the watermark, as a disk that runs full gets there: not in one instant.
    fill(&filler, 16 * 1024 * 1024);
    let refused = eventually("writes are refused", || {
        let ran = ctl.run_json(["keys", "create", "--consumer", "acme"]);
        if ran.code == 0 { Err(format!("{ran}")) } else { Ok(ran) }
    });
    let error = refused.refused(1);
    assert!(text(&error, "message").contains("disk") || text(&error, "type").contains("disk"), "{error}");
    // To the last byte: traffic and reads go on.
    fill(&filler, 0);
    ctl.run_json(["keys", "create", "--consumer", "acme"]).refused(1);
    let client = cluster.node(1).client();
    client.send(get("/guarded/x").key(&before)).ok();
    ctl.json(["cluster", "status"]);
    fs::remove_file(&filler).unwrap();
    let after = ctl.json_soon(&["keys", "create", "--consumer", "acme"]);
    client.send(get("/guarded/x").key(text(&after, "key"))).ok();
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
