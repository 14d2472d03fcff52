//! What a simulated process does while it leads: book, confirm, answer, fence, in the order that the real one must keep.

use super::{
    mutation::Mutation,
    node::{Context, LEASE_US, Node, Packet, send},
    replica::{Change, Payload},
};
use machine::{
    allowance::{Acquire, Answer},
    member::NodeId,
};
use session::{
    book::{Book, Fence},
    clock::ClusterClock,
};
use std::{collections::BTreeMap, sync::Arc};

/// What the leader of a term keeps.
pub(super) struct Leading {
    pub(super) elected_us: u64,
    /// Once the first entry of the own term is applied.
    pub(super) clock: Option<ClusterClock>,
    pub(super) book: Book,
    pub(super) utc: BTreeMap<NodeId, (u64, u64)>,
    pub(super) unconfirmed: Vec<(u64, NodeId, Packet)>,
    pub(super) acquires: Vec<(NodeId, Acquire)>,
    pub(super) in_flight: Option<usize>,
    pub(super) fences: Vec<(u64, usize, Fence)>,
    pub(super) forgetting: Vec<NodeId>,
}

impl Node {
    pub(super) fn elected(&mut self, context: &mut Context<'_>) {
        let now_us = self.now(context);
        let members: Vec<NodeId> = match context.mutation {
            Some(Mutation::NoNewLeaderRule) => Vec::new(),
            _ => self.initial.members.iter().copied().collect(),
        };
        let book = match context.mutation {
            Some(Mutation::NoLeaseMargin) => Book::with_wait(LEASE_US, LEASE_US, now_us, members),
            _ => Book::elected(LEASE_US, now_us, members),
        };
        self.leading = Some(Leading {
            elected_us: now_us,
            clock: None,
            book,
            utc: BTreeMap::new(),
            unconfirmed: Vec::new(),
            acquires: Vec::new(),
            in_flight: None,
            fences: Vec::new(),
            forgetting: Vec::new(),
        });
        let mut out = Vec::new();
        self.consensus.propose(Payload::Nothing, &mut out);
        send(out, context);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one packet")]
    pub(super) fn serve(
        &mut self,
        from: NodeId,
        sequence: u64,
        process: u64,
        enforced: u64,
        utc_ms: u64,
        acquire: Option<Acquire>,
        context: &mut Context<'_>,
    ) {
        let now_us = self.now(context);
        let before_own_term = context.mutation == Some(Mutation::AuthorityBeforeOwnTerm);
        let ready = self.consensus.leads() && (self.consensus.has_committed_in_term() || before_own_term);
        let is_member = self.replica.members.contains(&from) && !self.replica.leaving.contains(&from);
        let read_index = self.consensus.commit() as u64;
        let mut out = Vec::new();
        let Some(leading) = self.leading.as_mut().filter(|_| ready && is_member) else { return };
        leading.utc.insert(from, (utc_ms, now_us));
        leading.book.report(from, enforced);
        // Book first, then take the read index, then confirm, then answer.
        if context.mutation != Some(Mutation::GrantBookedAfterReadIndex) {
            leading.book.grant(from, now_us);
        }
        let granted = Packet::Granted { sequence, process, ttl_us: leading.book.ttl_us(), read_index };
        if context.mutation == Some(Mutation::NoQuorumRound) {
            context.out.push((from, granted));
        } else {
            let round = self.consensus.begin_round(&mut out);
            leading.unconfirmed.push((round, from, granted));
        }
        leading.acquires.extend(acquire.map(|acquire| (from, acquire)));
        send(out, context);
        self.lead(context);
    }

    pub(super) fn applied_as_leader(
        &mut self,
        number: usize,
        payload: &Payload,
        answers: Vec<Answer>,
        context: &mut Context<'_>,
    ) {
        let now_us = self.now(context);
        let last = self.replica.at;
        let members: Vec<NodeId> = self.replica.members.iter().copied().collect();
        let Some(leading) = self.leading.as_mut() else { return };
        match payload {
            Payload::Nothing => {
                let mut last = last;
                if context.mutation == Some(Mutation::TickJumpsForward) {
                    last.tick.0 += 1_500_000;
                }
                leading.clock = Some(match context.mutation {
                    Some(Mutation::TickUnscaled) => ClusterClock::with_drift_percent(last, now_us, 0),
                    _ => ClusterClock::anchor(last, now_us),
                });
            }
            Payload::Acquires { acquires, .. } => {
                leading.in_flight = leading.in_flight.filter(|in_flight| *in_flight != number);
                for (acquire, answer) in acquires.iter().zip(answers) {
                    let process = acquire.incarnation;
                    context.out.push((acquire.node, Packet::Answered { request: acquire.request, process, answer }));
                }
            }
            Payload::Write { write, .. } => {
                let fence = leading.book.fence(number as u64, members);
                leading.fences.push((*write, number, fence));
            }
        }
    }

    /// What a leader does as time goes by and acknowledgements come in.
    pub(super) fn lead(&mut self, context: &mut Context<'_>) {
        if !self.consensus.leads() {
            self.leading = None;
            return;
        }
        self.follow(context);
        let now_us = self.now(context);
        let (confirmed, voters) = (self.consensus.confirmed_round(), self.voters);
        let Some(leading) = self.leading.as_mut() else { return };
        for (_, to, granted) in leading.unconfirmed.extract_if(.., |(round, _, _)| *round <= confirmed) {
            if context.mutation == Some(Mutation::GrantBookedAfterReadIndex) {
                leading.book.grant(to, now_us);
            }
            context.out.push((to, granted));
        }
        for (write, number, _) in leading.fences.extract_if(.., |(_, _, fence)| fence.poll(&leading.book, now_us)) {
            context.trace.acknowledged(write, number as u64, context.real_us);
        }
        let Some(clock) = leading.clock.as_mut() else { return };
        let utc: Vec<u64> = leading
            .utc
            .values()
            .filter(|(_, heard_us)| now_us.saturating_sub(*heard_us) < 2_000_000)
            .map(|(utc_ms, heard_us)| utc_ms + (now_us - heard_us) / 1_000)
            .collect();
        clock.steer(now_us, voters, &utc);
        let at = clock.now(now_us);
        let mut out = Vec::new();
        if leading.in_flight.is_none() && !leading.acquires.is_empty() {
            let acquires = std::mem::take(&mut leading.acquires).into_iter().map(|(_, acquire)| acquire).collect();
            leading.in_flight =
                Some(self.consensus.propose(Payload::Acquires { at, acquires: Arc::new(acquires) }, &mut out));
        }
        for node in self.replica.leaving.iter().filter(|node| self.replica.members.contains(*node)) {
            let over =
                leading.book.over_us(*node).is_none_or(|over_us| now_us >= over_us) && now_us > leading.elected_us;
            if over && !leading.forgetting.contains(node) {
                leading.forgetting.push(*node);
                let change = Change::Forget(*node);
                self.consensus.propose(Payload::Write { at, write: u64::MAX, change }, &mut out);
            }
        }
        send(out, context);
    }

    /// An admin write arrives at the leader.
    pub fn write(&mut self, write: u64, change: Change, context: &mut Context<'_>) {
        let now_us = self.now(context);
        let Some(clock) = self.leading.as_ref().and_then(|leading| leading.clock.as_ref()) else { return };
        let at = clock.now(now_us);
        let mut out = Vec::new();
        self.consensus.propose(Payload::Write { at, write, change }, &mut out);
        send(out, context);
    }
}
