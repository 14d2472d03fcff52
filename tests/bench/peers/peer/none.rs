//! No gateway at all: what the rows' clients and the upstream take by themselves. Latencies are compared to it.

use super::{Peer, Running, Solution};
use crate::{row::Stack, site::Site};
use std::net::SocketAddr;

/// See the file.
pub struct None;

impl Peer for None {
    fn name(&self) -> &'static str {
        "none"
    }

    fn version(&self) -> Option<String> {
        Some("the upstream itself".to_owned())
    }

    fn install(&self) -> &'static str {
        ""
    }

    fn solve(&self, stack: Stack, site: &Site) -> Option<Box<dyn Solution>> {
        (stack == Stack::Plain).then(|| Box::new(Direct(site.upstream)) as Box<dyn Solution>)
    }
}

struct Direct(SocketAddr);

impl Solution for Direct {
    fn how(&self) -> String {
        "no gateway".to_owned()
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn start(self: Box<Self>, _core: &str) -> Result<Running, String> {
        Ok(Running { address: self.0, processes: Vec::new(), checks_keys: false, _alive: Box::new(()) })
    }
}
