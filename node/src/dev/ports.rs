//! Ports on loopback: which are free, and keeping out of the way of others. The ones that are picked lie below those that
//! the kernel gives to outgoing connections, so that a node that is started again finds its port as it left it.

use super::DevError;
use crate::pki::random;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

const FIRST: u16 = 10_240;
const LAST: u16 = 32_000;

/// On loopback.
pub(super) const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Whether nobody listens there.
pub(super) fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

/// So many free ports: from `base` on, or, if that is 0, from a random place.
pub(super) fn pick(base: u16, count: usize) -> Result<Vec<u16>, DevError> {
    if base != 0 {
        return from(base, count);
    }
    let offset = u16::from_be_bytes(random()?) % (LAST - FIRST);
    // All are held until the last one is found, so that none is found twice.
    let mut held = Vec::with_capacity(count);
    let candidates = (FIRST + offset..LAST).chain(FIRST..FIRST + offset);
    for port in candidates {
        if held.len() == count {
            break;
        }
        if let Ok(listener) = TcpListener::bind(local(port)) {
            held.push((port, listener));
        }
    }
    if held.len() < count {
        return Err(DevError::NoPorts);
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

fn from(base: u16, count: usize) -> Result<Vec<u16>, DevError> {
    let mut ports = Vec::with_capacity(count);
    for offset in 0..count {
        let port = u16::try_from(offset)
            .ok()
            .and_then(|offset| base.checked_add(offset))
            .ok_or_else(|| DevError::Options(format!("--base-port {base} is too high for {count} ports")))?;
        if !is_free(local(port)) {
            return Err(DevError::PortInUse { address: local(port), wanted_by: "--base-port".to_owned() });
        }
        ports.push(port);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ports_are_free_and_differ() {
        let ports = pick(0, 13).unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 13);
        assert!(ports.iter().all(|port| (FIRST..LAST).contains(port)));
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind(local(0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = pick(port, 1).unwrap_err().to_string();
        assert!(error.contains(&format!("127.0.0.1:{port} is in use")), "{error}");
        assert!(pick(u16::MAX, 3).is_err());
    }
}
