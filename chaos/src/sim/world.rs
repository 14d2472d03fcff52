//! The scheduler: real time, the network and its faults, crashes and pauses, and clients, random and adversarial.

use super::{
    Outcome,
    mutation::Mutation,
    node::{Context, LEASE_US, LocalClock, Node, Packet, Request, Wake},
    random::Random,
    replica::{Change, Replica, TERMS},
    scenario::{LateAcks, Scenario, Scene},
    trace::Trace,
};
use machine::{
    Name,
    allowance::BucketId,
    limit::{Quota, Rate, Rule, Window},
    member::NodeId,
    time::Wall,
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

const TICK_US: u64 = 5_000;
pub(super) const SECOND_US: u64 = 1_000_000;
/// How long the adversary lets a node sleep over the end of what it holds.
const SLEEP_US: u64 = 100_000;

pub(super) enum Event {
    Tick(NodeId),
    Packet {
        from: NodeId,
        to: NodeId,
        packet: Packet,
    },
    Wake {
        node: NodeId,
        wake: Wake,
    },
    Arrival,
    Fault,
    Restart(NodeId),
    Heal,
    Write,
    Adversary(Attack),
    Scene(Scene),
    /// One way of a link is cut.
    Cut(NodeId, NodeId),
}

/// What the adversary does next.
#[derive(Clone, Copy)]
pub(super) enum Attack {
    /// Makes a node hold much, its answers coming late.
    Warm { victim: NodeId, elsewhere: NodeId, until_us: u64 },
    /// Cuts it off and keeps it awake.
    Hold { victim: NodeId, until_us: u64 },
    /// Lets it sleep over the end of what it holds.
    Sleep { victim: NodeId, until_us: u64 },
    /// Spends all that it holds.
    Spend { victim: NodeId },
    /// Waits until the cluster has written off what it held.
    Expiry { node: NodeId, victim: NodeId, not_before_us: u64, patience_us: u64, touched: bool },
    /// Asks elsewhere, just after.
    Elsewhere { node: NodeId, until_us: u64 },
}

/// A run.
pub struct World {
    pub(super) real_us: u64,
    pub(super) random: Random,
    mutation: Option<Mutation>,
    pub(super) scenario: Scenario,
    pub(super) late_acks: Option<LateAcks>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) voters: Vec<NodeId>,
    learners: Vec<NodeId>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    numbers: u64,
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) down: BTreeSet<NodeId>,
    paused: BTreeMap<NodeId, u64>,
    loss: u64,
    duplication: u64,
    reorder: u64,
    pub(super) heals_us: u64,
    ends_us: u64,
    gap_us: u64,
    /// Half of what the limit lets through: a node that is served well is given much ahead.
    warm_gap_us: u64,
    buckets: Vec<BucketId>,
    pub(super) writes: u64,
    removes: bool,
    changes_limits: bool,
    hostile: bool,
    /// Whose answers come late.
    pub(super) slow: Option<NodeId>,
    /// Nobody but the adversary asks for anything.
    silent: bool,
    pub(super) trace: Trace,
    /// Of a steady load.
    pub(super) requests: u64,
}

/// What has been counted so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    pub(super) requests: u64,
    pub(super) admitted: u64,
    pub(super) unavailable: u64,
    pub(super) entries: u64,
    pub(super) asked: u64,
}

impl World {
    /// The world of a seed.
    pub fn new(scenario: Scenario, seed: u64, mutation: Option<Mutation>) -> Self {
        let mut random = Random::new(seed);
        // A scenario brings its own faults and nothing else.
        let by_chance = scenario == Scenario::Chance;
        let voter_count = if random.chance(250) && by_chance { 5 } else { 3 };
        let voters: Vec<NodeId> = (1..=voter_count).collect();
        let learner_count = random.between(0, 1);
        let learner_count = if by_chance { learner_count } else { 0 };
        let learners: Vec<NodeId> = (voter_count + 1..=voter_count + learner_count).collect();
        let all: Vec<NodeId> = voters.iter().chain(&learners).copied().collect();
        let hostile = random.chance(500) || !by_chance;
        let tokens = random.between(20, 150);
        let burst = random.between(tokens / 5 + 2, tokens * 2);
        let rate = match scenario {
            Scenario::Steady(load) => Rule::Rate(load.rate),
            _ => Rule::Rate(Rate { tokens, period_us: SECOND_US, burst }),
        };
        let narrow = Rule::Rate(Rate { tokens: 10, period_us: SECOND_US, burst: random.between(1, 30) });
        let quota = Rule::Quota(Quota { amount: random.between(30, 200), window: Window::Minute });
        let names = ["rate", "narrow", "quota"].map(|name| Name::new(name).ok());
        let limits: Vec<(Name, Rule)> =
            names.into_iter().zip([rate, narrow, quota]).filter_map(|(name, rule)| Some((name?, rule))).collect();
        // A window ends in the middle of the run.
        let wall = Wall(1_795_348_800_000 + 60_000 - random.between(4_000, 9_000));
        let initial = Replica::new(&limits, &all, wall);
        let mut nodes = BTreeMap::new();
        let extreme = random.chance(500);
        for id in &all {
            // Half of the assumed error: two machines differ by at most all of it.
            let rate_ppm = match (extreme, random.chance(500)) {
                _ if matches!(scenario, Scenario::Steady(_)) => 0,
                _ if scenario == Scenario::SlowClock => {
                    if *id == 1 {
                        5_000
                    } else {
                        -5_000
                    }
                }
                (true, true) => 5_000,
                (true, false) => -5_000,
                (false, _) => i64::try_from(random.between(0, 10_000)).unwrap_or(0) - 5_000,
            };
            let clock = LocalClock { rate_ppm, offset_us: random.between(0, 1 << 40) };
            let mut node = Node::new(*id, clock, &voters, &learners, initial.clone());
            node.publish_us = if random.chance(150) { 200_000 } else { 2_000 };
            node.stalls = if random.chance(500) && by_chance { random.between(1, 25) } else { 0 };
            if random.chance(150) && by_chance {
                node.utc_error_ms = i64::try_from(random.between(0, 1 << 38)).unwrap_or(0) - (1 << 37);
            }
            nodes.insert(*id, node);
        }
        let lossy = random.chance(400) && by_chance;
        let heals_us = random.between(7, 11) * SECOND_US;
        let heals_us = if matches!(scenario, Scenario::Steady(_)) { u64::MAX / 4 } else { heals_us };
        let subjects = |limit: &Name| BucketId { limit: limit.clone(), subject: b"anna".as_slice().into() };
        let mut world = Self {
            real_us: 0,
            mutation,
            scenario,
            late_acks: None,
            nodes,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            numbers: 0,
            cut: BTreeSet::new(),
            down: BTreeSet::new(),
            paused: BTreeMap::new(),
            loss: if lossy { random.between(1, 60) } else { 0 },
            duplication: if lossy { random.between(1, 100) } else { 0 },
            reorder: if by_chance { random.between(0, 30) } else { 0 },
            heals_us,
            ends_us: heals_us + 7 * SECOND_US,
            gap_us: SECOND_US / random.between(tokens / 3 + 1, tokens * 3),
            warm_gap_us: 2 * SECOND_US / tokens,
            buckets: limits.iter().map(|(name, _)| subjects(name)).collect(),
            writes: 0,
            removes: !learners.is_empty(),
            changes_limits: random.chance(200),
            hostile,
            slow: (random.chance(300) && by_chance).then(|| random.between(1, voter_count)),
            silent: !by_chance,
            trace: Trace::new(&limits),
            requests: 0,
            voters,
            learners,
            random,
        };
        for id in all {
            world.schedule(id * 300, Event::Tick(id));
        }
        world.schedule(1_500_000, Event::Arrival);
        if by_chance {
            world.schedule(1_800_000, Event::Write);
        }
        // Half of the adversaries work alone: other faults would only disturb them.
        if by_chance && (!hostile || world.random.chance(500)) {
            world.schedule(2_000_000, Event::Fault);
        }
        world.schedule(heals_us, Event::Heal);
        if let Some((at_us, scene)) = scenario.opening() {
            world.schedule(at_us, Event::Scene(scene));
        } else if hostile {
            world.schedule(1_500_000, Event::Adversary(Attack::Elsewhere { node: 1, until_us: 0 }));
        }
        world
    }

    /// Runs up to an instant.
    pub(super) fn run_until(&mut self, until_us: u64) {
        while let Some(Reverse((at_us, number))) = self.queue.peek().copied() {
            if at_us > until_us {
                return;
            }
            self.queue.pop();
            self.real_us = at_us;
            if let Some(event) = self.events.remove(&number) {
                self.handle(event);
            }
        }
    }

    pub(super) fn count(&self) -> Count {
        Count {
            requests: self.requests,
            admitted: self.trace.admits.len() as u64,
            unavailable: self.trace.unavailable,
            entries: self.trace.entries as u64,
            asked: self.trace.asked,
        }
    }

    pub(super) fn verdict(&self) -> Result<(), String> {
        self.trace.check()
    }

    /// Tokens that a node has in its hands, of the node that has most.
    pub(super) fn held_most(&self) -> u64 {
        self.voters.iter().map(|id| self.held_tokens(*id)).max().unwrap_or(0)
    }

    fn held_tokens(&self, id: NodeId) -> u64 {
        self.held(id).iter().map(|held| held.remaining).sum()
    }

    /// The node that does not lead and holds most goes away for good. Returns what it held.
    pub(super) fn crash_a_follower(&mut self) -> u64 {
        let followers = self.nodes.values().filter(|node| !node.is_ready_leader()).map(|node| node.id);
        let Some(id) = followers.max_by_key(|id| self.held_tokens(*id)) else { return 0 };
        self.down.insert(id);
        self.held_tokens(id)
    }

    /// Runs to the end and checks.
    pub fn run(mut self) -> Outcome {
        let mut admitted_before = 0;
        let measured_from_us = self.ends_us - 3 * SECOND_US;
        while let Some(Reverse((at_us, number))) = self.queue.pop() {
            if at_us > self.ends_us {
                break;
            }
            if at_us >= measured_from_us && self.real_us < measured_from_us {
                admitted_before = self.admitted_of_rate();
            }
            self.real_us = at_us;
            if let Some(event) = self.events.remove(&number) {
                self.handle(event);
            }
        }
        let verdict = self.trace.check().and_then(|()| self.full_rate_is_reached(admitted_before));
        Outcome {
            admits: self.trace.admits.len() as u64,
            refused: self.trace.refused,
            isolated: self.trace.isolated,
            unavailable: self.trace.unavailable,
            writes: self.trace.acknowledged.len() as u64,
            entries: self.trace.entries as u64,
            verdict,
        }
    }

    fn admitted_of_rate(&self) -> usize {
        self.trace.admits.iter().filter(|admit| admit.spent.iter().any(|(id, _)| id.limit.as_str() == "rate")).count()
    }

    /// Liveness: in the last three seconds, long after everything has healed and with more demand than the limit lets
    /// through, nearly the full rate is admitted: no token is lost for good.
    fn full_rate_is_reached(&self, admitted_before: usize) -> Result<(), String> {
        let Some(Rule::Rate(rate)) =
            self.buckets.first().and_then(|id| self.nodes.values().find_map(|node| node.rule(id)))
        else {
            return Ok(());
        };
        let admitted = self.admitted_of_rate().saturating_sub(admitted_before) as u64;
        let expected = rate.tokens * 3 * 88 / 100;
        // A burst of less than 20 ms of traffic cannot be used to the full; neither can one of a few tokens.
        if rate.burst >= rate.tokens / 10 && admitted + 3 < expected {
            return Err(format!("liveness: {admitted} admitted in three seconds of {}/s after healing", rate.tokens));
        }
        Ok(())
    }

    pub(super) fn schedule(&mut self, delay_us: u64, event: Event) {
        self.numbers += 1;
        self.queue.push(Reverse((self.real_us + delay_us, self.numbers)));
        self.events.insert(self.numbers, event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick(id) => {
                self.act(id, |node, context| node.tick(context));
                let delay_us = self.resumes_in(id).unwrap_or(0).max(TICK_US);
                self.schedule(delay_us, Event::Tick(id));
            }
            Event::Packet { from, to, packet } => match self.resumes_in(to) {
                Some(delay_us) => self.schedule(delay_us, Event::Packet { from, to, packet }),
                None => self.act(to, |node, context| node.receive(from, packet, context)),
            },
            Event::Wake { node, wake } => match self.resumes_in(node) {
                Some(delay_us) => self.schedule(delay_us, Event::Wake { node, wake }),
                None => self.act(node, |node, context| node.wake(wake, context)),
            },
            Event::Arrival => self.arrival(),
            Event::Fault => self.fault(),
            Event::Restart(id) => self.restart(id),
            Event::Heal => self.heal(),
            Event::Write => self.write(),
            Event::Adversary(attack) => self.attack(attack),
            Event::Scene(scene) => self.scene(scene),
            Event::Cut(from, to) => {
                self.cut.insert((from, to));
            }
        }
    }

    fn resumes_in(&self, id: NodeId) -> Option<u64> {
        self.paused.get(&id).filter(|until_us| **until_us > self.real_us).map(|until_us| until_us - self.real_us)
    }

    pub(super) fn act(&mut self, id: NodeId, what: impl FnOnce(&mut Node, &mut Context<'_>)) {
        if self.down.contains(&id) || self.resumes_in(id).is_some() {
            return;
        }
        let (mut out, mut later) = (Vec::new(), Vec::new());
        if let Some(node) = self.nodes.get_mut(&id) {
            let mut context = Context {
                real_us: self.real_us,
                random: &mut self.random,
                mutation: self.mutation,
                out: &mut out,
                later: &mut later,
                trace: &mut self.trace,
            };
            what(node, &mut context);
        }
        for (to, packet) in out {
            self.carry(id, to, packet);
        }
        for (delay_us, wake) in later {
            self.schedule(delay_us, Event::Wake { node: id, wake });
        }
    }

    fn carry(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        if from == to {
            return self.schedule(1, Event::Packet { from, to, packet });
        }
        if self.cut.contains(&(from, to)) || self.random.chance(self.loss) {
            return;
        }
        let copies = if self.random.chance(self.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let delay_us = if let Some(delay_us) = self.held_up_us(from, to, &packet) {
                delay_us
            } else if self.scenario == Scenario::Chance && self.slow == Some(to) && self.random.chance(800) {
                self.random.between(100_000, 1_500_000)
            } else if self.random.chance(self.reorder) {
                self.random.between(2_000, 400_000)
            } else {
                self.random.between(150, 1_500)
            };
            self.schedule(delay_us, Event::Packet { from, to, packet: packet.clone() });
        }
    }

    fn all(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    fn arrival(&mut self) {
        // While the adversary is at work, others leave the buckets to it; after healing, demand is above every limit.
        let healed = self.real_us >= self.heals_us;
        let quiet = self.hostile && !healed;
        let all = self.all();
        if let Some(node) = self.random.pick(&all).copied() {
            let combination: Vec<usize> = if quiet || healed {
                vec![0]
            } else {
                match self.random.between(0, 9) {
                    0 => vec![1],
                    1 => vec![0, 1],
                    2..=4 => vec![2],
                    _ => vec![0],
                }
            };
            if !quiet || (!self.silent && self.random.chance(30)) {
                self.request(node, &combination);
            }
        }
        let gap_us = if healed { self.gap_us.min(SECOND_US / 450) } else { self.gap_us };
        let next_us = self.random.between(1, gap_us * 2);
        self.schedule(next_us, Event::Arrival);
    }

    pub(super) fn request(&mut self, id: NodeId, combination: &[usize]) {
        self.request_with(id, combination, false);
    }

    pub(super) fn request_with(&mut self, id: NodeId, combination: &[usize], serves_isolated: bool) {
        let combination: Vec<BucketId> =
            combination.iter().filter_map(|place| self.buckets.get(*place).cloned()).collect();
        let started_us = self.real_us;
        self.act(id, |node, context| {
            let request = Request::new(node.process, started_us, combination, serves_isolated);
            node.go_on(request, context);
        });
    }

    fn fault(&mut self) {
        if self.real_us + SECOND_US / 2 >= self.heals_us {
            return;
        }
        let all = self.all();
        match self.random.between(0, 9) {
            0..=2 => {
                // A group is cut off, or only cannot send, or only cannot hear.
                let group: BTreeSet<NodeId> = all.iter().copied().filter(|_| self.random.chance(400)).collect();
                let way = self.random.between(0, 3);
                for from in &all {
                    for to in all.iter().filter(|to| group.contains(from) != group.contains(to)) {
                        if way >= 2 || (way == 0) == group.contains(from) {
                            self.cut.insert((*from, *to));
                        }
                    }
                }
            }
            3 => {
                // The leader, alone.
                let leader = self.nodes.values().find(|node| node.is_ready_leader()).map(|node| node.id);
                if let Some(leader) = leader {
                    self.isolate(leader);
                }
            }
            4 | 5 => self.cut.clear(),
            6 | 7 => {
                if let Some(id) = self.random.pick(&all).copied() {
                    self.down.insert(id);
                    let delay_us = self.random.between(100_000, 2_500_000);
                    self.schedule(delay_us, Event::Restart(id));
                }
            }
            _ => {
                if let Some(id) = self.random.pick(&all).copied() {
                    let until_us = self.real_us + self.random.between(100_000, 3_500_000);
                    self.paused.insert(id, until_us);
                }
            }
        }
        let next_us = self.random.between(200_000, 1_500_000);
        self.schedule(next_us, Event::Fault);
    }

    pub(super) fn isolate(&mut self, id: NodeId) {
        for other in self.all().into_iter().filter(|other| *other != id) {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    fn restart(&mut self, id: NodeId) {
        if !self.down.remove(&id) {
            return;
        }
        let jitter = self.random.next();
        if let Some(node) = self.nodes.get_mut(&id) {
            node.restart(&self.voters, &self.learners, self.real_us, jitter, self.mutation);
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
        self.slow = None;
        self.late_acks = None;
        self.loss = 0;
        self.duplication = 0;
        self.reorder = 0;
        self.paused.clear();
        for node in self.nodes.values_mut() {
            node.stalls = 0;
        }
        for id in self.all() {
            self.restart(id);
        }
    }

    fn write(&mut self) {
        if self.real_us >= self.heals_us {
            return;
        }
        // An old leader that does not know yet may be asked, too.
        let leaders: Vec<NodeId> =
            self.nodes.values().filter(|node| node.is_ready_leader()).map(|node| node.id).collect();
        if let Some(leader) = self.random.pick(&leaders).copied() {
            self.writes += 1;
            let write = self.writes;
            let change = self.change();
            self.act(leader, |node, context| node.write(write, change, context));
        }
        let next_us = self.random.between(50_000, 700_000);
        self.schedule(next_us, Event::Write);
    }

    fn change(&mut self) -> Change {
        if self.removes && self.real_us > 3 * SECOND_US && self.random.chance(300) {
            self.removes = false;
            if let Some(learner) = self.learners.first() {
                return Change::Remove(*learner);
            }
        }
        if self.changes_limits && self.random.chance(200) {
            let tokens = self.random.between(20, 150);
            let burst = self.random.between(tokens / 5 + 2, tokens * 2);
            if let Ok(name) = Name::new("rate") {
                return Change::SetLimit(name, Rule::Rate(Rate { tokens, period_us: SECOND_US, burst }));
            }
        }
        Change::Revoke
    }

    /// Spend everything just before it expires while cut off, and burst elsewhere just after. The adversary knows what
    /// every node holds, what time it is everywhere, and when the cluster writes something off.
    fn attack(&mut self, attack: Attack) {
        if self.real_us >= self.heals_us {
            return;
        }
        let (delay_us, next) = match attack {
            Attack::Warm { victim, elsewhere, until_us } => {
                self.slow = Some(victim);
                self.demand(victim, 1);
                if self.real_us < until_us {
                    (self.warm_gap_us, attack)
                } else {
                    self.silent = true;
                    self.isolate(victim);
                    let until_us = self.last_deadline_us(victim);
                    let sleeps = self.random.chance(300);
                    // Either as soon as the cluster has written it off, or when the victim spends it, if that is later.
                    let not_before_us = match (self.random.chance(500), sleeps) {
                        (false, _) => 0,
                        (true, false) => until_us.saturating_sub(1_000),
                        (true, true) => until_us + SLEEP_US,
                    };
                    let patience_us = until_us + TERMS.ttl_us;
                    let then = Attack::Expiry { node: elsewhere, victim, not_before_us, patience_us, touched: false };
                    self.schedule(1_000, Event::Adversary(then));
                    (1, if sleeps { Attack::Sleep { victim, until_us } } else { Attack::Hold { victim, until_us } })
                }
            }
            Attack::Hold { victim, until_us } => {
                if self.real_us + 2_000 >= until_us {
                    (0, Attack::Spend { victim })
                } else {
                    self.demand(victim, 1);
                    let rest_us = until_us.saturating_sub(self.real_us + 2_000).max(1);
                    (rest_us.min(200_000), attack)
                }
            }
            Attack::Sleep { victim, until_us } => {
                let wakes_us = until_us + SLEEP_US;
                self.paused.insert(victim, wakes_us);
                (wakes_us.saturating_sub(self.real_us), Attack::Spend { victim })
            }
            Attack::Spend { victim } => {
                let tokens: u64 = self.held(victim).iter().map(|held| held.remaining).sum();
                self.demand(victim, tokens.min(400));
                return;
            }
            Attack::Expiry { node, victim, not_before_us, patience_us, touched } => {
                let leader = self.nodes.values().find(|node| node.is_ready_leader());
                let bucket = self.buckets.first();
                let gone =
                    leader.zip(bucket).is_none_or(|(leader, id)| leader.has_written_off(id, victim, self.real_us));
                if (gone && self.real_us >= not_before_us) || self.real_us > patience_us {
                    (0, Attack::Elsewhere { node, until_us: self.real_us + 60_000 })
                } else {
                    if gone && !touched {
                        // One request makes the cluster look at the bucket: from now on its room refills.
                        self.demand(node, 1);
                    }
                    (500, Attack::Expiry { node, victim, not_before_us, patience_us, touched: gone })
                }
            }
            Attack::Elsewhere { node, until_us } => {
                if self.real_us < until_us {
                    self.demand(node, 40);
                    (2_000, attack)
                } else {
                    self.cut.clear();
                    self.silent = false;
                    let all = self.all();
                    let victim = self.random.pick(&all).copied().unwrap_or(1);
                    let others: Vec<NodeId> = all.into_iter().filter(|id| *id != victim).collect();
                    let elsewhere = self.random.pick(&others).copied().unwrap_or(1);
                    let until_us = self.real_us + self.random.between(300_000, 1_500_000);
                    (self.random.between(100_000, LEASE_US / 2), Attack::Warm { victim, elsewhere, until_us })
                }
            }
        };
        self.schedule(delay_us, Event::Adversary(next));
    }

    /// Requests to a route that serves when isolated: it gets round the lease, never round the limit.
    fn demand(&mut self, id: NodeId, requests: u64) {
        for _ in 0..requests {
            self.request_with(id, &[0], true);
        }
    }

    fn held(&self, id: NodeId) -> Vec<session::ledger::Held> {
        let Some((node, bucket)) = self.nodes.get(&id).zip(self.buckets.first()) else { return Vec::new() };
        node.held(bucket)
    }

    fn last_deadline_us(&self, id: NodeId) -> u64 {
        let Some(node) = self.nodes.get(&id) else { return 0 };
        let last = self.held(id).iter().filter(|held| held.remaining > 0).map(|held| held.deadline_us).max();
        last.map_or(0, |local_us| node.clock.real(local_us).min(self.real_us + TERMS.ttl_us * 2))
    }
}
