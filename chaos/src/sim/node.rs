//! One simulated process: the model of consensus, and around it the real session: book, lease, ledger, clocks.

use super::{
    consensus::{Consensus, Disk, ELECTION_MAX_US, Message},
    leader::Leading,
    mutation::Mutation,
    random::Random,
    replica::{Change, Payload, Replica, TERMS},
    trace::{Admit, Trace},
};
use machine::{
    allowance::{Acquire, Answer, BucketId, Grant},
    limit::Rule,
    member::NodeId,
    time::Wall,
};
use session::{
    lease::{Authority, Lease},
    ledger::{self, Ledger, Pace, Slot, Verdict},
};
use std::{collections::BTreeMap, sync::Arc};

/// How long a lease lasts: a renewal interval and three of the longest elections.
pub const LEASE_US: u64 = RENEWAL_US + 3 * ELECTION_MAX_US;
const RENEWAL_US: u64 = 500_000;
const REPEAT_US: u64 = 150_000;
const CYCLE_US: u64 = 4_000;
const ALLOWANCE_WAIT_US: u64 = 250_000;
const CLOCK_CACHE_US: u64 = 5_000;
const PACE: Pace = Pace {
    cycle_us: CYCLE_US,
    renew_us: 1_000_000,
    election_us: ELECTION_MAX_US,
    idle_us: 500_000,
    patience_us: TERMS.ttl_us,
    return_us: TERMS.ttl_us / 10,
};

/// What nodes send to each other.
#[derive(Clone, Debug)]
pub enum Packet {
    /// Of consensus.
    Raft(Message<Payload>),
    /// A node's report to the leader, which asks for a lease.
    Report { sequence: u64, process: u64, enforced: u64, utc_ms: u64, acquire: Option<Acquire> },
    /// A lease.
    Granted { sequence: u64, process: u64, ttl_us: u64, read_index: u64 },
    /// The answer to an acquire.
    Answered { request: u64, process: u64, answer: Answer },
}

/// What a node wants to happen later to itself.
#[derive(Clone, Debug)]
pub enum Wake {
    /// Its workers have taken over the View of this index.
    Published { process: u64, index: u64, report: bool },
    /// A stalled request goes on.
    Request(Request),
}

/// A clock: local microseconds for real ones.
#[derive(Clone, Copy, Debug)]
pub struct LocalClock {
    /// How wrong its rate is, in millionths; at most half of the assumed error between two machines.
    pub rate_ppm: i64,
    /// Local time at real time 0.
    pub offset_us: u64,
}

impl LocalClock {
    /// Local time.
    pub fn local(&self, real_us: u64) -> u64 {
        let scaled = i128::from(real_us) * (1_000_000 + i128::from(self.rate_ppm)) / 1_000_000;
        self.offset_us + u64::try_from(scaled).unwrap_or(0)
    }

    /// The first real time at which the clock shows this.
    pub fn real(&self, local_us: u64) -> u64 {
        let local = i128::from(local_us) - i128::from(self.offset_us);
        let rate = 1_000_000 + i128::from(self.rate_ppm);
        u64::try_from((local * 1_000_000 + rate - 1) / rate).unwrap_or(0)
    }
}

/// A request on its way through a node.
#[derive(Clone, Debug)]
pub struct Request {
    /// The process that took it.
    pub process: u64,
    /// Real time at which it started.
    pub started_us: u64,
    /// What it is limited by.
    pub combination: Vec<BucketId>,
    /// Its route serves without authority, too.
    serves_isolated: bool,
    stage: Stage,
    now_us: u64,
    view: u64,
    leased: bool,
    /// Local time at which it stops waiting, once it waits.
    gives_up_us: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Clock,
    Lease,
    View,
    Spend,
}

impl Request {
    /// A request that starts now.
    pub const fn new(process: u64, started_us: u64, combination: Vec<BucketId>, serves_isolated: bool) -> Self {
        Self {
            process,
            started_us,
            combination,
            serves_isolated,
            stage: Stage::Clock,
            now_us: 0,
            view: 0,
            leased: false,
            gives_up_us: None,
        }
    }
}

/// What a node needs of the world while it acts.
pub struct Context<'a> {
    /// Real time.
    pub real_us: u64,
    /// The run's random numbers.
    pub random: &'a mut Random,
    /// The bug that is put back.
    pub mutation: Option<Mutation>,
    /// Packets to send.
    pub out: &'a mut Vec<(NodeId, Packet)>,
    /// Things to come, with real delays.
    pub later: &'a mut Vec<(u64, Wake)>,
    /// What happened.
    pub trace: &'a mut Trace,
}

/// One simulated process.
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Its clock.
    pub clock: LocalClock,
    /// How wrong its UTC is.
    pub utc_error_ms: i64,
    /// How long its workers take to take over a View, at most.
    pub publish_us: u64,
    /// How often a request stalls between two steps, in thousandths.
    pub stalls: u64,
    /// Which process of the node this is: changes with each restart.
    pub process: u64,
    pub(super) consensus: Consensus<Payload>,
    pub(super) replica: Replica,
    pub(super) initial: Replica,
    pub(super) voters: usize,
    view: u64,
    authority: Authority,
    lease: Lease,
    ledger: Ledger,
    slots: BTreeMap<BucketId, Arc<Slot>>,
    waiting: Vec<Request>,
    sequence: u64,
    sent: BTreeMap<u64, u64>,
    reported_us: u64,
    acquire_sent_us: u64,
    first_sent_us: u64,
    session_leader: Option<NodeId>,
    cached_us: u64,
    pub(super) leading: Option<Leading>,
    /// Only with [`Mutation::AllowanceReusedAfterRestart`]: what a process finds of the grants of the one before it, with
    /// the local time at which each ends.
    remembered: Vec<(Grant, u64)>,
}

impl Node {
    /// A node with an empty disk.
    pub fn new(id: NodeId, clock: LocalClock, voters: &[NodeId], learners: &[NodeId], initial: Replica) -> Self {
        let consensus = Consensus::start(id, voters, learners, Disk::default(), clock.local(0), id * 77_777);
        Self {
            id,
            clock,
            utc_error_ms: 0,
            publish_us: 500,
            stalls: 0,
            process: id * 1_000,
            consensus,
            replica: initial.clone(),
            initial,
            voters: voters.len(),
            view: 0,
            authority: Authority::default(),
            lease: Lease::default(),
            ledger: Ledger::new(id, id * 1_000, PACE),
            slots: BTreeMap::new(),
            waiting: Vec::new(),
            sequence: 0,
            sent: BTreeMap::new(),
            reported_us: 0,
            acquire_sent_us: 0,
            first_sent_us: 0,
            session_leader: None,
            cached_us: clock.local(0),
            leading: None,
            remembered: Vec::new(),
        }
    }

    /// Begins a new process with what the disk holds.
    pub fn restart(
        &mut self,
        voters: &[NodeId],
        learners: &[NodeId],
        real_us: u64,
        jitter: u64,
        mutation: Option<Mutation>,
    ) {
        let disk = self.consensus.disk().clone();
        let mut next = Self::new(self.id, self.clock, voters, learners, self.initial.clone());
        next.consensus = Consensus::start(self.id, voters, learners, disk, self.clock.local(real_us), jitter);
        next.process = self.process + 1;
        next.ledger = Ledger::new(self.id, next.process, PACE);
        next.utc_error_ms = self.utc_error_ms;
        next.publish_us = self.publish_us;
        next.stalls = self.stalls;
        next.cached_us = self.clock.local(real_us);
        if mutation == Some(Mutation::AllowanceReusedAfterRestart) {
            next.remembered = std::mem::take(&mut self.remembered);
            next.hold_again(self.clock.local(real_us));
        }
        *self = next;
    }

    /// The bug: a ledger that begins with what another process was granted.
    fn hold_again(&mut self, now_us: u64) {
        let old = std::mem::take(&mut self.remembered);
        for (grant, ends_us) in old.into_iter().filter(|(_, ends_us)| *ends_us > now_us) {
            let slot = self.ledger.slot(&grant.bucket, 1_000, now_us);
            self.ledger.wait(&[(Arc::clone(&slot), 1)]);
            let asked = self.ledger.collect(now_us).map(|acquire| acquire.request);
            self.ledger.done_waiting(&[(slot, 1)]);
            let grant = Grant { ttl_us: ends_us - now_us, ..grant };
            let answer = Answer { grants: vec![grant.clone()], scarce: Vec::new() };
            self.ledger.accept(asked.unwrap_or(0), &answer, now_us);
            self.remembered.push((grant, ends_us));
        }
    }

    /// Whether it leads and may stamp entries.
    pub fn is_ready_leader(&self) -> bool {
        self.consensus.leads() && self.leading.as_ref().is_some_and(|leading| leading.clock.is_some())
    }

    /// As leader: whether nothing that another node holds of a bucket counts any more.
    pub fn has_written_off(&self, id: &BucketId, holder: NodeId, real_us: u64) -> bool {
        let Some(clock) = self.leading.as_ref().and_then(|leading| leading.clock.as_ref()) else { return true };
        let tick = clock.now(self.clock.local(real_us)).tick.0;
        let Some(bucket) = self.replica.buckets.buckets.get(id) else { return true };
        let mut of_holder = bucket.allowances().values().filter(|allowance| allowance.node == holder);
        of_holder.all(|allowance| allowance.expires.0 <= tick)
    }

    /// What is left of its authority.
    pub fn authority_us(&self, real_us: u64) -> u64 {
        self.authority.remaining_us(self.clock.local(real_us))
    }

    /// What it holds of a bucket.
    pub fn held(&self, id: &BucketId) -> Vec<ledger::Held> {
        self.slots.get(id).map(|slot| slot.held()).unwrap_or_default()
    }

    pub(super) fn now(&self, context: &Context<'_>) -> u64 {
        self.clock.local(context.real_us)
    }

    /// The timer thread: a few hundred times a second.
    pub fn tick(&mut self, context: &mut Context<'_>) {
        let now_us = self.now(context);
        if now_us >= self.cached_us + CLOCK_CACHE_US {
            self.cached_us = now_us;
        }
        let jitter = context.random.next();
        let mut out = Vec::new();
        self.consensus.tick(now_us, jitter, &mut out);
        send(out, context);
        self.follow(context);
        if now_us >= self.reported_us + RENEWAL_US {
            self.report(None, context);
        }
        self.ask(context);
        let (gone, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|request| request.gives_up_us.is_some_and(|end| now_us >= end));
        self.waiting = waiting;
        for request in gone {
            context.trace.unavailable += 1;
            let parts = self.parts(&request.combination, now_us);
            self.ledger.done_waiting(&parts);
        }
        self.lead(context);
    }

    /// A packet has arrived.
    pub fn receive(&mut self, from: NodeId, packet: Packet, context: &mut Context<'_>) {
        let now_us = self.now(context);
        match packet {
            Packet::Raft(message) => {
                let jitter = context.random.next();
                let mut out = Vec::new();
                let elected = self.consensus.receive(from, message, now_us, jitter, &mut out);
                send(out, context);
                if elected {
                    self.elected(context);
                }
                self.follow(context);
                self.lead(context);
            }
            Packet::Report { sequence, process, enforced, utc_ms, acquire } => {
                self.serve(from, sequence, process, enforced, utc_ms, acquire, context);
            }
            Packet::Granted { sequence, process, ttl_us, read_index } => {
                let Some(sent_us) = (process == self.process).then(|| self.sent.remove(&sequence)).flatten() else {
                    return;
                };
                let from_us = if context.mutation == Some(Mutation::LeaseFromReply) { now_us } else { sent_us };
                self.lease.granted(&self.authority, from_us, ttl_us, read_index);
            }
            Packet::Answered { request, process, answer } => {
                if process == self.process {
                    self.answered(request, answer, context);
                }
            }
        }
    }

    /// Something that was to come has come.
    pub fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        match wake {
            Wake::Published { process, index, report } => {
                if process == self.process && index > self.view {
                    self.view = index;
                    if context.mutation != Some(Mutation::AppliedBeforePublished) {
                        self.lease.enforced(&self.authority, index);
                    }
                    // Buckets are not in the View: only what changed it is worth a report of its own.
                    if report {
                        self.report(None, context);
                    }
                }
            }
            Wake::Request(request) => {
                if request.process == self.process {
                    self.go_on(request, context);
                }
            }
        }
    }

    // A request.

    /// A request goes through the steps of a worker: clock, lease, View, spend, in this order. It may stall between
    /// any two while the rest of the process goes on.
    pub fn go_on(&mut self, mut request: Request, context: &mut Context<'_>) {
        let view_first = context.mutation == Some(Mutation::ViewBeforeLease);
        loop {
            match request.stage {
                Stage::Clock => {
                    request.now_us = match context.mutation {
                        Some(Mutation::CachedClock) => self.cached_us,
                        _ => self.now(context),
                    };
                    if view_first {
                        request.view = self.view;
                    }
                    request.stage = Stage::Lease;
                }
                Stage::Lease => {
                    request.leased = if view_first {
                        // The bug with its real face: View, then clock and lease.
                        self.authority.is_valid(self.now(context))
                    } else {
                        self.authority.is_valid(request.now_us)
                    };
                    if !request.leased && !request.serves_isolated {
                        context.trace.isolated += 1;
                        return;
                    }
                    request.stage = Stage::View;
                }
                Stage::View => {
                    if !view_first {
                        request.view = self.view;
                    }
                    request.stage = Stage::Spend;
                }
                Stage::Spend => return self.spend(request, context),
            }
            if context.random.chance(self.stalls) {
                let delay_us = context.random.between(1_000, 3_000_000);
                context.later.push((delay_us, Wake::Request(request)));
                return;
            }
        }
    }

    fn spend(&mut self, mut request: Request, context: &mut Context<'_>) {
        let local_us = self.now(context);
        let parts = self.parts(&request.combination, local_us);
        let before: Vec<Vec<ledger::Held>> = parts.iter().map(|(slot, _)| slot.held()).collect();
        let now_us = match context.mutation {
            Some(Mutation::SpendAfterExpiry) => parts
                .iter()
                .flat_map(|(slot, _)| slot.held())
                .map(|held| held.deadline_us - 1)
                .chain([request.now_us])
                .min()
                .unwrap_or(0),
            _ => request.now_us,
        };
        let verdict = ledger::admit(&parts, now_us);
        match verdict {
            Verdict::Admitted { at_us } => {
                // The instant that counts cannot be before the clock that the worker should have read.
                let wrong_clock = matches!(context.mutation, Some(Mutation::SpendAfterExpiry | Mutation::CachedClock));
                let real_us = if wrong_clock { context.real_us } else { self.clock.real(at_us) };
                let mut spent = Vec::new();
                for ((slot, _), before) in parts.iter().zip(before) {
                    let after = slot.held();
                    let changed = after.iter().find(|held| before.iter().all(|old| old != *held));
                    spent.extend(changed.map(|held| (slot.id().clone(), held.allowance)));
                }
                context.trace.admits.push(Admit {
                    real_us,
                    started_us: request.started_us,
                    node: self.id,
                    view: request.view,
                    leased: request.leased && !request.serves_isolated,
                    spent,
                });
                self.stop_waiting(&request, &parts);
            }
            Verdict::Refused { .. } => {
                context.trace.refused += 1;
                self.stop_waiting(&request, &parts);
            }
            Verdict::Dry => {
                if request.gives_up_us.is_none() {
                    request.gives_up_us = Some(local_us + ALLOWANCE_WAIT_US);
                    self.ledger.wait(&parts);
                }
                request.stage = Stage::Clock;
                self.waiting.push(request);
                self.ask(context);
            }
        }
    }

    fn stop_waiting(&mut self, request: &Request, parts: &[(Arc<Slot>, u64)]) {
        if request.gives_up_us.is_some() {
            self.ledger.done_waiting(parts);
        }
    }

    fn parts(&mut self, combination: &[BucketId], now_us: u64) -> Vec<(Arc<Slot>, u64)> {
        let mut parts = Vec::new();
        for id in combination {
            let Some(limit) = self.replica.limits.get(&id.limit) else { continue };
            let slot = self.ledger.slot(id, limit.rule.burst(), now_us);
            self.slots.insert(id.clone(), Arc::clone(&slot));
            parts.push((slot, 1));
        }
        parts
    }

    // The node's side of the session.

    fn report(&mut self, acquire: Option<Acquire>, context: &mut Context<'_>) {
        let Some(leader) = self.consensus.leader() else { return };
        let now_us = self.now(context);
        self.sequence += 1;
        self.sent.insert(self.sequence, now_us);
        while self.sent.len() > 64 {
            self.sent.pop_first();
        }
        self.reported_us = now_us;
        let enforced = match context.mutation {
            Some(Mutation::AppliedBeforePublished) => self.replica.applied as u64,
            _ => self.view,
        };
        context.out.push((
            leader,
            Packet::Report {
                sequence: self.sequence,
                process: self.process,
                enforced,
                utc_ms: self.utc_ms(context),
                acquire,
            },
        ));
    }

    fn utc_ms(&self, context: &Context<'_>) -> u64 {
        let true_ms = self.initial.at.wall.0 + context.real_us / 1_000;
        true_ms.saturating_add_signed(self.utc_error_ms)
    }

    /// Sends what the ledger wants to send; again if the leader has changed or does not answer.
    fn ask(&mut self, context: &mut Context<'_>) {
        let now_us = self.now(context);
        if let Some(acquire) = self.ledger.collect(now_us) {
            context.trace.asked += 1;
            self.acquire_sent_us = now_us;
            self.first_sent_us = now_us;
            self.session_leader = self.consensus.leader();
            self.report(Some(acquire), context);
        } else if let Some(acquire) = self.ledger.under_way() {
            let changed = self.consensus.leader().is_some() && self.session_leader != self.consensus.leader();
            if changed || now_us >= self.acquire_sent_us + REPEAT_US {
                let again = acquire.clone();
                self.acquire_sent_us = now_us;
                self.session_leader = self.consensus.leader();
                self.report(Some(again), context);
            }
        }
    }

    fn answered(&mut self, request: u64, mut answer: Answer, context: &mut Context<'_>) {
        let now_us = self.now(context);
        let mut request = request;
        match context.mutation {
            Some(Mutation::DuplicateAnswerAccepted) => {
                request = self.ledger.under_way().map_or(request, |acquire| acquire.request);
            }
            Some(Mutation::AllowanceFromReply) => {
                answer.grants.iter_mut().for_each(|grant| grant.ttl_us += now_us.saturating_sub(self.first_sent_us));
            }
            Some(Mutation::AllowanceReusedAfterRestart) => {
                let ends = |grant: &Grant| (grant.clone(), self.first_sent_us + grant.ttl_us);
                self.remembered.extend(answer.grants.iter().map(ends));
                self.remembered.retain(|(_, ends_us)| *ends_us > now_us);
            }
            _ => {}
        }
        if self.ledger.accept(request, &answer, now_us) {
            for request in std::mem::take(&mut self.waiting) {
                self.go_on(request, context);
            }
        }
    }

    /// Applies what is committed, and lets the workers take it over a little later.
    pub(super) fn follow(&mut self, context: &mut Context<'_>) {
        let before = self.replica.applied;
        let mut report = false;
        while self.replica.applied < self.consensus.commit() {
            let number = self.replica.applied + 1;
            let Some(entry) = self.consensus.entry(number).map(Arc::clone) else { break };
            let answers = self.replica.apply(&entry.payload, context.mutation);
            report |= matches!(entry.payload, Payload::Write { .. });
            if let Payload::Write { change: Change::Remove(node), .. } = &entry.payload {
                self.consensus.stop_sending(*node);
            }
            self.trace_applied(number, &entry.payload, &answers, context);
            if self.consensus.leads() && entry.term == self.consensus.term() {
                self.applied_as_leader(number, &entry.payload, answers, context);
            }
        }
        if self.replica.applied > before {
            let index = self.replica.applied as u64;
            if context.mutation == Some(Mutation::AppliedBeforePublished) {
                self.lease.enforced(&self.authority, index);
            }
            let delay_us = context.random.between(1, self.publish_us.max(1));
            context.later.push((delay_us, Wake::Published { process: self.process, index, report }));
        }
    }

    fn trace_applied(&self, number: usize, payload: &Payload, answers: &[Answer], context: &mut Context<'_>) {
        for grant in answers.iter().flat_map(|answer| &answer.grants) {
            let window = self.replica.buckets.buckets.get(&grant.bucket).map_or(Wall(0), |bucket| bucket.window_end());
            context.trace.granted(grant, window);
        }
        context.trace.entry(number, payload);
    }

    /// What a rule allows at the most, for the checker: see [`Trace`].
    pub fn rule(&self, id: &BucketId) -> Option<Rule> {
        self.replica.limits.get(&id.limit).map(|limit| limit.rule)
    }
}

pub(super) fn send(out: Vec<(NodeId, Message<Payload>)>, context: &mut Context<'_>) {
    context.out.extend(out.into_iter().map(|(to, message)| (to, Packet::Raft(message))));
}
