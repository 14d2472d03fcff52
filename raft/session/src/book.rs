//! The leader's lease book: to whom authority was granted and when, what each member enforces, and from these when a
//! write is enforced everywhere (the fence).
//!
//! The order matters to the letter. The leader books a grant *first*, then takes `read_index`, then confirms that it
//! still leads, and only then answers: booked at the answer instead, a fence could miss a lease in flight.

use crate::with_drift;
use machine::member::NodeId;
use std::collections::BTreeMap;

/// The leader's lease book. Made anew with each term.
#[derive(Clone, Debug)]
pub struct Book {
    /// How long a granted lease lasts for its holder, in microseconds.
    ttl_us: u64,
    /// How long a fence waits for it, by the leader's clock.
    wait_us: u64,
    members: BTreeMap<NodeId, Member>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    /// When a grant was last booked; `None` for one that was never granted any.
    granted_us: Option<u64>,
    /// The log index that all workers of the node enforce.
    enforced: u64,
}

/// What a fence waits for: the members as the book stood when the write was committed.
#[derive(Clone, Debug)]
pub struct Fence {
    index: u64,
    waits: Vec<Wait>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    node: NodeId,
    /// When its authority from before the write is surely over, by the leader's clock.
    over_us: u64,
    state: Option<Fenced>,
}

/// How a member came to enforce a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// It reported that it enforces the write.
    Applied,
    /// It can no longer hold authority from before the write.
    Expired,
}

impl Book {
    /// The book of a new leader, which assumes that every member was granted authority at the instant of its election:
    /// it cannot know what the leader before it granted.
    pub fn elected(ttl_us: u64, now_us: u64, members: impl IntoIterator<Item = NodeId>) -> Self {
        Self::with_wait(ttl_us, with_drift(ttl_us), now_us, members)
    }

    /// The same with another wait: for simulations that show why the margin is needed.
    pub fn with_wait(ttl_us: u64, wait_us: u64, now_us: u64, members: impl IntoIterator<Item = NodeId>) -> Self {
        let granted = Member { granted_us: Some(now_us), enforced: 0 };
        Self { ttl_us, wait_us, members: members.into_iter().map(|id| (id, granted)).collect() }
    }

    /// Books a grant of authority. Call it before `read_index` is taken.
    pub fn grant(&mut self, node: NodeId, now_us: u64) {
        let member = self.members.entry(node).or_default();
        member.granted_us = Some(member.granted_us.map_or(now_us, |before| before.max(now_us)));
    }

    /// A member reports what it enforces.
    pub fn report(&mut self, node: NodeId, enforced: u64) {
        let member = self.members.entry(node).or_default();
        member.enforced = member.enforced.max(enforced);
    }

    /// How long a lease lasts for its holder, in microseconds from before it asked.
    #[must_use]
    pub const fn ttl_us(&self) -> u64 {
        self.ttl_us
    }

    /// What a node enforces, as far as it has said.
    #[must_use]
    pub fn enforced(&self, node: NodeId) -> u64 {
        self.members.get(&node).map_or(0, |member| member.enforced)
    }

    /// When all authority that a node may hold is surely over; `None` if it never had any.
    #[must_use]
    pub fn over_us(&self, node: NodeId) -> Option<u64> {
        let granted_us = self.members.get(&node)?.granted_us?;
        Some(granted_us.saturating_add(self.wait_us))
    }

    /// What is left, at most, of the authority that a node may hold; `None` if it never had any.
    #[must_use]
    pub fn remaining_us(&self, node: NodeId, now_us: u64) -> Option<u64> {
        let granted_us = self.members.get(&node)?.granted_us?;
        Some(granted_us.saturating_add(self.ttl_us).saturating_sub(now_us))
    }

    /// A member has given up all authority that was granted to it until now, and uses no answer that is on the way.
    pub fn gave_up(&mut self, node: NodeId) {
        if let Some(member) = self.members.get_mut(&node) {
            member.granted_us = None;
        }
    }

    /// Forgets a member whose authority is over and that the replicated state has forgotten.
    pub fn forget(&mut self, node: NodeId) {
        self.members.remove(&node);
    }

    /// The fence of a write that has just been committed at `index`, over the members of the replicated state at that
    /// index, leaving ones included.
    ///
    /// What counts is the book as it stands now: a later grant carries a `read_index` that includes the write, and must
    /// not extend the wait, or a node that renews but is stuck in applying would hold every fence.
    pub fn fence(&self, index: u64, members: impl IntoIterator<Item = NodeId>) -> Fence {
        let wait = |node| Wait { node, over_us: self.over_us(node).unwrap_or(0), state: None };
        Fence { index, waits: members.into_iter().map(wait).collect() }
    }
}

impl Fence {
    /// Looks at the book again. Returns whether the write is enforced everywhere.
    pub fn poll(&mut self, book: &Book, now_us: u64) -> bool {
        for wait in self.waits.iter_mut().filter(|wait| wait.state.is_none()) {
            if book.enforced(wait.node) >= self.index {
                wait.state = Some(Fenced::Applied);
            } else if now_us >= wait.over_us || book.over_us(wait.node).is_none() {
                // Also who gave everything up since: what is granted to it later includes the write.
                wait.state = Some(Fenced::Expired);
            }
        }
        self.waits.iter().all(|wait| wait.state.is_some())
    }

    /// When to look again even if nobody reports: the next end of an authority that is waited for.
    #[must_use]
    pub fn next_us(&self) -> Option<u64> {
        self.waits.iter().filter(|wait| wait.state.is_none()).map(|wait| wait.over_us).min()
    }

    /// How each member stands; `None` for one that is still waited for.
    pub fn states(&self) -> impl Iterator<Item = (NodeId, Option<Fenced>)> {
        self.waits.iter().map(|wait| (wait.node, wait.state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: u64 = 2_000_000;

    #[test]
    fn a_write_waits_for_every_member_to_enforce_it_or_to_lose_its_authority() {
        let mut book = Book::elected(TTL, 0, [1, 2, 3]);
        book.grant(1, 500_000);
        book.grant(2, 600_000);
        let mut fence = book.fence(10, [1, 2, 3]);
        book.report(1, 10);
        book.report(2, 9);
        assert!(!fence.poll(&book, 700_000));
        book.report(2, 12);
        assert!(!fence.poll(&book, with_drift(TTL) - 1));
        assert!(fence.poll(&book, with_drift(TTL)));
        let states: Vec<_> = fence.states().collect();
        assert_eq!(states, [(1, Some(Fenced::Applied)), (2, Some(Fenced::Applied)), (3, Some(Fenced::Expired))]);
    }

    #[test]
    fn a_later_grant_does_not_extend_the_wait() {
        let mut book = Book::elected(TTL, 0, [1]);
        let mut fence = book.fence(10, [1]);
        book.grant(1, 1_900_000);
        assert!(fence.poll(&book, with_drift(TTL)));
    }

    #[test]
    fn a_member_that_gave_its_authority_up_is_not_waited_for() {
        let mut book = Book::elected(TTL, 0, [1]);
        let mut fence = book.fence(10, [1]);
        assert_eq!(book.remaining_us(1, 500_000), Some(1_500_000));
        book.gave_up(1);
        assert_eq!((book.over_us(1), book.remaining_us(1, 500_000)), (None, None));
        assert!(fence.poll(&book, 1));
        assert_eq!(fence.states().collect::<Vec<_>>(), [(1, Some(Fenced::Expired))]);
        book.grant(1, 700_000);
        assert!(!book.fence(11, [1]).poll(&book, 800_000), "it is back, and counts again");
    }

    #[test]
    fn a_member_that_was_never_granted_anything_holds_nothing_up() {
        let book = Book::elected(TTL, 0, [1]);
        let mut fence = book.fence(10, [9]);
        assert!(fence.poll(&book, 0));
    }
}
