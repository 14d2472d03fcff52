//! How peers are reached: one channel to each, dialed when it is needed, shared by all who need it, and dialed again
//! after it broke. Who is where is known from the registry; until there is one, from raft's membership and from what
//! the join reply listed.

use crate::start::{Dial, DialError};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use machine::member::NodeId;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Code, Status, transport::Channel};

/// After a failed dial the next is refused for so long, twice as long each time.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// At most so long: a peer that comes back is found within this.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The channels to all peers.
pub(crate) struct Peers {
    dial: Dial,
    patience: Duration,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    addresses: Addresses,
    lines: BTreeMap<NodeId, Line>,
}

/// Where peers are, by how well it is known.
#[derive(Default)]
struct Addresses {
    registry: BTreeMap<NodeId, String>,
    membership: BTreeMap<NodeId, String>,
    told: BTreeMap<NodeId, String>,
}

impl Addresses {
    fn of(&self, node: NodeId) -> Option<&String> {
        [&self.registry, &self.membership, &self.told].into_iter().find_map(|map| map.get(&node))
    }
}

type Dialing = Shared<BoxFuture<'static, Result<Channel, DialError>>>;

/// The channel to one peer, or the attempt to get one.
struct Line {
    address: String,
    /// Tells a channel from the one before it: a late complaint must not cut a new channel.
    number: u64,
    dialing: Option<Dialing>,
    failures: u32,
    not_before: Option<Instant>,
}

/// A channel, and which one it is.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) channel: Channel,
    node: NodeId,
    number: u64,
}

impl Peers {
    pub(crate) fn new(dial: Dial, patience: Duration, told: Vec<(NodeId, String)>) -> Self {
        let addresses = Addresses { told: told.into_iter().collect(), ..Addresses::default() };
        Self { dial, patience, inner: Mutex::new(Inner { addresses, lines: BTreeMap::new() }) }
    }

    /// The registry's members, as they are now.
    pub(crate) fn set_registry(&self, members: BTreeMap<NodeId, String>) {
        self.lock().addresses.registry = members;
    }

    /// Raft's members, as they are now.
    pub(crate) fn set_membership(&self, members: BTreeMap<NodeId, String>) {
        self.lock().addresses.membership = members;
    }

    /// Where somebody said that a peer is.
    pub(crate) fn tell(&self, node: NodeId, address: String) {
        if node != 0 && !address.is_empty() {
            self.lock().addresses.told.insert(node, address);
        }
    }

    /// The channel to a peer. At most as long as dialing may take.
    pub(crate) async fn link(&self, node: NodeId) -> Result<Link, DialError> {
        let (dialing, number) = self.dialing(node)?;
        let dialed = dialing.await;
        let mut inner = self.lock();
        if let Some(line) = inner.lines.get_mut(&node).filter(|line| line.number == number) {
            match &dialed {
                Ok(_) => line.failures = 0,
                Err(_) if line.dialing.is_some() => line.fail(),
                // Somebody else who waited for the same attempt has noted it.
                Err(_) => {}
            }
        }
        Ok(Link { channel: dialed?, node, number })
    }

    /// A call over this channel has failed. If that was not the peer's own answer, a new channel may cure it.
    pub(crate) fn blame(&self, link: &Link, status: &Status) {
        use Code::{
            DataLoss, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted,
            Unauthenticated,
        };
        match status.code() {
            DataLoss | FailedPrecondition | InvalidArgument | NotFound | PermissionDenied | ResourceExhausted
            | Unauthenticated => {}
            _ => self.complain(link),
        }
    }

    /// The peer does not answer over this channel.
    pub(crate) fn complain(&self, link: &Link) {
        let mut inner = self.lock();
        if let Some(line) = inner.lines.get_mut(&link.node).filter(|line| line.number == link.number) {
            line.fail();
        }
    }

    fn dialing(&self, node: NodeId) -> Result<(Dialing, u64), DialError> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(address) = inner.addresses.of(node) else {
            return Err(DialError(format!("the address of node {node} is not known")));
        };
        let line = inner.lines.entry(node).or_insert_with(|| Line::to(address));
        if line.address != *address {
            *line = Line { number: line.number.wrapping_add(1), ..Line::to(address) };
        }
        if let Some(dialing) = &line.dialing {
            return Ok((dialing.clone(), line.number));
        }
        if line.not_before.is_some_and(|not_before| Instant::now() < not_before) {
            return Err(DialError(format!("node {node} at {address} did not answer a moment ago")));
        }
        let (dial, patience, to) = ((self.dial)(node, address.clone()), self.patience, address.clone());
        let attempt = async move {
            match tokio::time::timeout(patience, dial).await {
                Ok(dialed) => dialed,
                Err(_) => Err(DialError(format!("node {node} at {to} did not answer within {patience:?}"))),
            }
        };
        let dialing = attempt.boxed().shared();
        line.number = line.number.wrapping_add(1);
        line.dialing = Some(dialing.clone());
        Ok((dialing, line.number))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn to(address: &str) -> Self {
        Self { address: address.to_owned(), number: 0, dialing: None, failures: 0, not_before: None }
    }

    fn fail(&mut self) {
        self.dialing = None;
        let pause = BACKOFF_MIN.saturating_mul(1_u32 << self.failures.min(8)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    use tonic::transport::Endpoint;

    fn counting(fail: bool) -> (Dial, Arc<AtomicUsize>, Arc<Mutex<Vec<String>>>) {
        let (count, addresses) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (counted, seen) = (Arc::clone(&count), Arc::clone(&addresses));
        let dial: Dial = Arc::new(move |_, address| {
            counted.fetch_add(1, Ordering::SeqCst);
            seen.lock().unwrap().push(address);
            async move {
                tokio::task::yield_now().await;
                if fail {
                    Err(DialError("no".into()))
                } else {
                    Ok(Endpoint::from_static("http://[::1]:1").connect_lazy())
                }
            }
            .boxed()
        });
        (dial, count, addresses)
    }

    #[tokio::test]
    async fn all_who_need_a_channel_share_one() {
        let (dial, count, _) = counting(false);
        let peers = Peers::new(dial, Duration::from_secs(5), vec![(2, "two".into())]);
        let (a, b) = tokio::join!(peers.link(2), peers.link(2));
        let (a, b) = (a.unwrap(), b.unwrap());
        peers.link(2).await.unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 1);
        peers.complain(&a);
        peers.complain(&b);
        assert!(peers.link(2).await.is_err(), "not dialed again at once");
        tokio::time::sleep(BACKOFF_MIN * 2).await;
        peers.link(2).await.unwrap();
        peers.complain(&a);
        peers.link(2).await.unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 2, "a late complaint cuts nothing");
    }

    #[tokio::test]
    async fn the_registry_knows_best_and_a_new_address_is_dialed_at_once() {
        let (dial, _, addresses) = counting(true);
        let peers = Peers::new(dial, Duration::from_secs(5), vec![(2, "told".into())]);
        assert!(peers.link(2).await.is_err());
        assert!(peers.link(2).await.is_err(), "refused for a moment");
        peers.set_membership(BTreeMap::from([(2, "joined".to_owned())]));
        assert!(peers.link(2).await.is_err());
        peers.set_registry(BTreeMap::from([(2, "moved".to_owned())]));
        assert!(peers.link(2).await.is_err());
        assert_eq!(*addresses.lock().unwrap(), ["told", "joined", "moved"]);
        assert!(peers.link(7).await.is_err(), "nobody has told where 7 is");
    }
}
