//! Who is let in. What the node has no room for is closed before a byte of it is read: neither a TLS handshake nor an
//! answer is spent on it. Counted for all listeners of the node together.

use super::{connection::is_trusted, encrypted, plain, tls::Tls};
use crate::gateway::{Worker, worker::lock};
use arc_swap::ArcSwap;
use metrics::{Counter, Gauge, counter, gauge};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};

/// After an error that will not go away at once: no descriptors left, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Addresses are counted behind as many locks, so that workers seldom wait for one another.
const SHARDS: usize = 16;

/// Who is there.
#[derive(Default)]
pub(crate) struct Crowd {
    connections: AtomicUsize,
    /// Connections over TLS whose handshake is not done.
    handshakes: AtomicUsize,
    /// Connections by address, of those that have any.
    addresses: [Mutex<HashMap<u128, usize>>; SHARDS],
}

impl Crowd {
    /// Open client connections.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn shard(&self, address: u128) -> Option<&Mutex<HashMap<u128, usize>>> {
        // Neighbours differ in their last bits: those of IPv4 lie below, the networks of IPv6 above.
        let mixed = (address ^ (address >> 64)) as usize;
        self.addresses.get(mixed % SHARDS)
    }

    /// Counts one more connection of an address, unless it has as many as it may.
    fn enter(&self, address: u128, most: usize) -> bool {
        let Some(shard) = self.shard(address) else { return false };
        let mut shard = lock(shard);
        let count = shard.entry(address).or_default();
        if *count >= most {
            return false;
        }
        *count += 1;
        true
    }

    fn leave(&self, address: u128) {
        let Some(shard) = self.shard(address) else { return };
        let mut shard = lock(shard);
        if let Some(count) = shard.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&address);
            }
        }
    }
}

/// What is counted as one client: an IPv4 address, or the /64 that is the least that anybody with IPv6 has.
fn client(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() & !u128::from(u64::MAX),
    }
}

/// What every connection of a listener passes.
pub(super) struct Door {
    pub(super) worker: Arc<Worker>,
    tls: Option<Arc<ArcSwap<Tls>>>,
    open: Gauge,
    /// Refused, by what there was too much of.
    connections: Counter,
    of_address: Counter,
    handshakes: Counter,
    memory: Counter,
}

/// A connection that counts.
pub(super) struct Place {
    pub(super) worker: Arc<Worker>,
    open: Gauge,
    /// Of whom it counts, if that is bounded.
    address: Option<u128>,
}

/// A handshake that counts.
pub(super) struct Handshake(Arc<Worker>);

impl Door {
    pub(super) fn new(worker: Arc<Worker>, tls: Option<Arc<ArcSwap<Tls>>>) -> Self {
        let refused = |reason: &'static str| counter!("quorate_connections_refused_total", "reason" => reason);
        Self {
            open: gauge!("quorate_connections", "listener" => if tls.is_some() { "tls" } else { "plain" }),
            worker,
            tls,
            connections: refused("connections"),
            of_address: refused("address"),
            handshakes: refused("handshakes"),
            memory: refused("memory"),
        }
    }

    pub(super) async fn admit_all(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection, if there is room for it.
    pub(super) fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let place = match self.place(peer.ip()) {
            Ok(place) => place,
            Err(refused) => return refused.increment(1),
        };
        // Responses are written whole: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => drop(tokio::spawn(plain(place, stream, peer))),
            Some(tls) => match self.handshake() {
                Ok(handshake) => drop(tokio::spawn(encrypted(place, handshake, stream, peer, tls.load_full()))),
                Err(refused) => refused.increment(1),
            },
        }
    }

    fn place(&self, address: IpAddr) -> Result<Place, &Counter> {
        let shared = &self.worker.shared;
        let (caps, crowd) = (&shared.settings.caps, &shared.crowd);
        if shared.overload.is_short_of_memory() {
            return Err(&self.memory);
        }
        if crowd.connections.load(Ordering::Relaxed) >= caps.connections_max {
            return Err(&self.connections);
        }
        // A proxy brings everybody's connections.
        let counted = (!is_trusted(&self.worker, address.to_canonical())).then(|| client(address));
        if counted.is_some_and(|address| !crowd.enter(address, caps.connections_per_address_max)) {
            return Err(&self.of_address);
        }
        crowd.connections.fetch_add(1, Ordering::SeqCst);
        self.open.increment(1);
        Ok(Place { worker: Arc::clone(&self.worker), open: self.open.clone(), address: counted })
    }

    fn handshake(&self) -> Result<Handshake, &Counter> {
        let shared = &self.worker.shared;
        let before = shared.crowd.handshakes.fetch_add(1, Ordering::Relaxed);
        let handshake = Handshake(Arc::clone(&self.worker));
        if before < shared.settings.caps.handshakes_max { Ok(handshake) } else { Err(&self.handshakes) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.decrement(1);
        let shared = &self.worker.shared;
        if let Some(address) = self.address {
            shared.crowd.leave(address);
        }
        if shared.crowd.connections.fetch_sub(1, Ordering::SeqCst) == 1 {
            shared.draining.no_connection();
        }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.shared.crowd.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_and_gets_them_back() {
        let crowd = Crowd::default();
        let (one, other) = (client("192.0.2.1".parse().unwrap()), client("192.0.2.2".parse().unwrap()));
        assert!(crowd.enter(one, 2) && crowd.enter(one, 2) && !crowd.enter(one, 2));
        assert!(crowd.enter(other, 2));
        crowd.leave(one);
        assert!(crowd.enter(one, 2));
        for address in [one, one, other] {
            crowd.leave(address);
        }
        assert!(crowd.addresses.iter().all(|shard| lock(shard).is_empty()), "nothing is kept of who is gone");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let of = |text: &str| client(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
