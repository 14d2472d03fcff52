//! The store of those who count over several gateways, in memory alone: nothing is written to a disk.

use super::{Program, find, free_address, text, words};
use crate::site::Site;

/// Where it is installed.
pub fn program(site: &Site) -> Option<Program> {
    let redis = find("redis-server", None)?;
    let folder = site.folder("redis");
    let address = free_address();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let command = words(&[
        text(&redis),
        "--port",
        &port,
        "--bind",
        &host,
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        text(&folder),
    ]);
    Some(Program { name: "redis", command, environment: Vec::new(), address, folder })
}
