//! Load balancers of the machine with the configurations of `deploy/`: only addresses are replaced.

use crate::{cluster::Node, free_port::free_port, process::Process, programs};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// A running load balancer.
#[derive(Debug)]
pub struct Balancer {
    /// Where it takes requests.
    pub address: String,
    /// The same over TLS; only HAProxy does.
    pub tls_address: String,
    /// What signed its certificate.
    pub authority: PathBuf,
    /// Its process.
    pub process: Process,
    _directory: TempDir,
}

/// The addresses that the files of `deploy/` name.
const PLACES: [&str; 3] = ["10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.13:8080"];

impl Balancer {
    /// HAProxy, or `None` where it is not installed.
    pub fn haproxy(nodes: &[Node]) -> Option<Self> {
        Self::haproxy_changed(nodes, |_| {})
    }

    /// HAProxy that sends nothing twice but what it could not send at all.
    pub fn haproxy_that_repeats_connections_alone(nodes: &[Node]) -> Option<Self> {
        Self::haproxy_changed(nodes, |text| {
            replace(text, "retry-on conn-failure empty-response", "retry-on conn-failure")
        })
    }

    fn haproxy_changed(nodes: &[Node], change: impl FnOnce(&mut String)) -> Option<Self> {
        let program = programs::installed("haproxy")?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let address = format!("127.0.0.1:{}", free_port());
        let mut text = deployed("haproxy/haproxy.cfg");
        replace(&mut text, "bind :80\n", &format!("bind {address}\n"));
        let tls_address = format!("127.0.0.1:{}", free_port());
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let authority = directory.path().join("ca.pem");
        fs::write(&authority, made.cert.pem()).expect("a certificate file");
        let both = directory.path().join("both.pem");
        fs::write(&both, made.cert.pem() + &made.signing_key.serialize_pem()).expect("a certificate file");
        replace(&mut text, "# For TLS: bind :443 ", &format!("bind {tls_address} "));
        replace(&mut text, "crt /etc/haproxy/certs/", &format!("crt {}", both.display()));
        change(&mut text);
        for (place, node) in PLACES.iter().zip(nodes) {
            let port = node.ops.rsplit(':').next().expect("host:port");
            replace(&mut text, place, &format!("{} port {port}", node.gateway));
        }
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, text).expect("a configuration file");
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(file);
        Some(Self { tls_address, authority, ..Self::start(command, address, directory) })
    }

    /// nginx, or `None` where it is not installed.
    pub fn nginx(nodes: &[Node]) -> Option<Self> {
        let program = programs::installed("nginx")?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let address = format!("127.0.0.1:{}", free_port());
        let mut text = deployed("nginx/quorate.conf");
        replace(&mut text, "listen 80;", &format!("listen {address};"));
        for (place, node) in PLACES.iter().zip(nodes) {
            replace(&mut text, place, &node.gateway);
        }
        fs::write(directory.path().join("quorate.conf"), text).expect("a configuration file");
        let folder = directory.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {folder}/{name};\n"))
            .concat();
        let main = format!(
            "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}include {folder}/quorate.conf;\n}}\n"
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, main).expect("a configuration file");
        let mut command = Command::new(program);
        command.arg("-c").arg(file).arg("-p").arg(directory.path());
        Some(Self::start(command, address, directory))
    }

    fn start(command: Command, address: String, directory: TempDir) -> Self {
        let mut process = Process::start(command, &directory.path().join("balancer"));
        crate::eventually("the load balancer listens", || {
            assert!(process.ended().is_none(), "the load balancer ended\n{}", process.tail());
            std::net::TcpStream::connect(&address)
        });
        Self { address, tls_address: String::new(), authority: PathBuf::new(), process, _directory: directory }
    }
}

fn deployed(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn replace(text: &mut String, from: &str, to: &str) {
    assert!(text.contains(from), "the deployed file does not name {from:?}");
    *text = text.replace(from, to);
}
