//! The harness: makes the cluster, does to it what the plan says, heals everything, and waits until it is as it was.

use super::{
    Mutation, check,
    clock::NodeClock,
    disk::Disk,
    life,
    plan::{Action, Plan},
    record::Known,
    run,
    seat::{Cluster, Order, Phase, Seat, lock},
};
use chaos::{
    history::{FullRate, Run, Text, What},
    sim::random::Random,
};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use storage::fs::Loss;
use tokio::sync::{Notify, watch};
use turmoil::Sim;

/// A step of the simulation.
const TICK: Duration = Duration::from_millis(1);

/// How long the cluster may take to be made, and to be as it was after the last fault.
const PATIENCE_MS: u64 = 60_000;

/// How long full demand is measured.
const DEMAND_MS: u64 = 2_000;

/// How often the harness looks after the nodes.
const LOOK_MS: u64 = 20;

/// A run under way.
pub(super) struct World<'a> {
    plan: Plan,
    sim: Sim<'a>,
    cluster: Arc<Cluster>,
    seats: Vec<Arc<Seat>>,
    /// When the process that is down is to be started, by node.
    down: BTreeMap<usize, Option<u64>>,
    random: Random,
    now_ms: u64,
}

impl World<'_> {
    /// A world in which nothing has happened.
    pub(super) fn new(seed: u64, mutation: Option<Mutation>) -> Self {
        let plan = Plan::of(seed, mutation);
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(seed)
            .epoch(std::time::UNIX_EPOCH)
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(3_600))
            .min_message_latency(Duration::ZERO)
            .max_message_latency(Duration::from_millis(plan.latency_ms))
            .tcp_capacity(16 * 1024);
        if plan.random_order {
            builder.enable_random_order();
        }
        let sim = builder.build();
        let cluster = Arc::new(Cluster {
            seed,
            mutation,
            record: Default::default(),
            phase: watch::Sender::new(Phase::Making),
            keys: Mutex::default(),
            unknown: Mutex::default(),
            requests: AtomicU64::new(1),
            founders: Mutex::default(),
            seats: Mutex::default(),
            voters: plan.voters,
            publish_us: plan.publish_us,
            idle_us: plan.idle_us,
        });
        let mut random = Random::new(seed ^ 0x5eed);
        let seats = (1..).zip(&plan.clocks).map(|(id, (ppm, utc_error_ms))| {
            let clock = NodeClock::new(random.between(1_000_000, 1 << 40), *ppm, *utc_error_ms);
            Arc::new(Seat {
                id,
                cluster: Arc::clone(&cluster),
                clock: Arc::new(clock),
                disk: Disk::new(random.next(), plan.disk_us, mutation),
                admitted: watch::Sender::new(id == 1),
                gone: AtomicBool::new(id != 1),
                may_end: AtomicBool::new(false),
                incarnation: AtomicU64::new(0),
                served: AtomicBool::new(false),
                applied: AtomicU64::new(0),
                leads: AtomicBool::new(false),
                orders: Mutex::default(),
                ordered: Notify::new(),
                random: Mutex::new(Random::new(random.next())),
                remembered: Mutex::default(),
            })
        });
        let seats: Vec<_> = seats.collect();
        let founders = usize::try_from(plan.founders).unwrap_or(3);
        *lock(&cluster.founders) = seats.iter().take(founders).skip(1).map(Arc::clone).collect();
        *lock(&cluster.seats) = seats.clone();
        Self { plan, sim, cluster, seats, down: BTreeMap::new(), random, now_ms: 0 }
    }

    /// Runs it to its end.
    pub(super) fn run(mut self) -> Known {
        let record = &self.cluster.record;
        record.event(What::Run(Run {
            seed: self.cluster.seed,
            nodes: (1..=self.plan.founders).collect(),
            lease_us: 2_000_000,
            election_us: 600_000,
        }));
        for seat in &self.seats {
            let (seat, name) = (Arc::clone(seat), seat.name());
            self.sim.host(name, move || life::live(Arc::clone(&seat)));
        }
        if let Err(what) = self.play()
            && !self.cluster.record.note(|known| known.is_broken())
        {
            self.cluster.record.violated(what);
        }
        // Whoever still waits for an answer does not know what became of what was asked.
        drop(self.sim);
        let record = &self.cluster.record;
        record.event(What::End);
        let mut known = record.take();
        known.violations.extend(check::all(&known));
        known
    }

    fn play(&mut self) -> Result<(), String> {
        let made = self.until("the cluster to be made", |world| world.cluster.phase() == Phase::Work)?;
        tracing::debug!(made_ms = made, "the work begins");
        let began_ms = self.now_ms;
        let mut actions = std::mem::take(&mut self.plan.actions).into_iter().peekable();
        while self.now_ms < began_ms + self.plan.work_ms {
            while let Some((_, action)) = actions.next_if(|(at_ms, _)| began_ms + at_ms <= self.now_ms) {
                self.act(action);
            }
            self.step()?;
        }
        self.heal();
        self.phase(Phase::Recover);
        self.cluster.record.event(What::Healed);
        self.until("every node to serve again", |world| {
            world.members().all(|seat| seat.served.load(Ordering::Relaxed))
        })?;
        self.phase(Phase::Quiet);
        self.until("every node to have the same state", |world| {
            let mut applied = world.members().map(|seat| seat.applied.load(Ordering::Relaxed));
            let first = applied.next();
            applied.all(|applied| Some(applied) == first)
        })?;
        let nodes = self.members().map(|seat| seat.id).collect();
        self.cluster.record.event(What::Settled { nodes });
        self.full_rate()
    }

    /// Under more demand than a limit allows, all of it is admitted.
    fn full_rate(&mut self) -> Result<(), String> {
        let limit = machine::Name::new("rate").map_err(|error| error.to_string())?;
        let view = self.cluster.record.note(|known| Arc::clone(&known.latest));
        let rule = view.registry.limits.get(&limit).map(|limit| limit.rule);
        let Some(machine::limit::Rule::Rate(rate)) = rule else { return Err("no limit to measure".to_owned()) };
        let keys = lock(&self.cluster.keys).clone();
        check::acknowledged_survives(&view, &keys)?;
        if !keys.iter().any(|key| key.made && !key.ending) {
            return Ok(());
        }
        self.phase(Phase::Demand);
        // The burst is spent first.
        self.wait(1_000)?;
        let before = self.cluster.record.note(|known| known.admits.len());
        self.wait(DEMAND_MS)?;
        let admitted = (self.cluster.record.note(|known| known.admits.len()) - before) as u64;
        let least = rate.tokens * DEMAND_MS / 1_000 * 4 / 10;
        let limit = Text::from("rate");
        self.cluster.record.event(What::FullRate(FullRate { limit, measured_us: DEMAND_MS * 1_000, admitted, least }));
        if admitted < least {
            return Err(format!("the full rate does not come back: {admitted} admitted where {least} are the least"));
        }
        Ok(())
    }

    fn phase(&self, phase: Phase) {
        self.cluster.phase.send_replace(phase);
    }

    fn members(&self) -> impl Iterator<Item = &Arc<Seat>> {
        self.seats.iter().filter(|seat| seat.is_admitted() && !seat.is_gone())
    }

    /// One tick, and a look after the nodes now and then.
    fn step(&mut self) -> Result<(), String> {
        self.sim.step().map_err(|error| format!("the simulation has ended: {error}"))?;
        self.now_ms += 1;
        if self.now_ms.is_multiple_of(LOOK_MS) {
            self.look_after();
            if self.cluster.record.note(|known| known.is_broken()) {
                return Err("a promise is broken: there is nothing to wait for".to_owned());
            }
        }
        if run::panicked() {
            return Err("something panicked: see above".to_owned());
        }
        if run::asked_too_late() {
            let ending = self.seats.iter().any(|seat| seat.may_end.load(Ordering::Relaxed));
            if !ending {
                return Err("a task asked a raft that has stopped, and no process was ending".to_owned());
            }
            self.cluster.record.note(|known| known.figures.asked_too_late += 1);
        }
        Ok(())
    }

    fn wait(&mut self, for_ms: u64) -> Result<(), String> {
        let until_ms = self.now_ms + for_ms;
        while self.now_ms < until_ms {
            self.step()?;
        }
        Ok(())
    }

    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<u64, String> {
        let began_ms = self.now_ms;
        while !holds(self) {
            if self.now_ms > began_ms + PATIENCE_MS {
                return Err(format!("waited in vain for {what}: {}", self.state()));
            }
            self.step()?;
        }
        Ok(self.now_ms - began_ms)
    }

    /// How every node stands, for people.
    fn state(&self) -> String {
        let state = self.seats.iter().map(|seat| {
            format!(
                "n{}: admitted {} gone {} served {} applied {} leads {}",
                seat.id,
                seat.is_admitted(),
                seat.is_gone(),
                seat.served.load(Ordering::Relaxed),
                seat.applied.load(Ordering::Relaxed),
                seat.leads.load(Ordering::Relaxed)
            )
        });
        state.collect::<Vec<_>>().join("; ")
    }

    /// Starts what ended by itself, as a supervisor does.
    fn look_after(&mut self) {
        for at in 0..self.seats.len() {
            let Some(seat) = self.seats.get(at).map(Arc::clone) else { continue };
            if self.down.get(&at).is_some_and(|at_ms| at_ms.is_some_and(|at_ms| at_ms <= self.now_ms)) {
                self.start(at);
            } else if !self.down.contains_key(&at) && !self.sim.is_host_running(seat.name()) {
                self.cluster.record.note(|known| known.figures.ended += 1);
                seat.disk.killed();
                seat.leads.store(false, Ordering::Relaxed);
                let again_ms = self.now_ms + self.random.between(50, 1_000);
                self.down.insert(at, Some(again_ms));
            }
        }
    }

    fn start(&mut self, at: usize) {
        if self.down.remove(&at).is_none() {
            return;
        }
        let Some(seat) = self.seats.get(at) else { return };
        lock(&seat.orders).clear();
        seat.may_end.store(false, Ordering::Relaxed);
        self.sim.bounce(seat.name());
    }

    /// Ends a process; it stays away until it is started.
    fn end(&mut self, at: usize, fate: impl FnOnce(&Disk)) -> bool {
        let Some(seat) = self.seats.get(at).filter(|seat| seat.is_admitted()) else { return false };
        if self.down.contains_key(&at) {
            return false;
        }
        seat.may_end.store(true, Ordering::Relaxed);
        fate(&seat.disk);
        self.sim.crash(seat.name());
        seat.leads.store(false, Ordering::Relaxed);
        self.down.insert(at, None);
        true
    }

    fn act(&mut self, action: Action) {
        tracing::debug!(now_ms = self.now_ms, ?action);
        self.cluster.record.note(|known| known.traced(&action));
        let counted = action.counted();
        if self.carry_out(action)
            && let Some(counted) = counted
        {
            self.cluster.record.note(|known| {
                known.figures.faults += 1;
                *counted(&mut known.figures) += 1;
            });
        }
    }

    /// Whether it took hold: nothing can be done to a process that is not there.
    fn carry_out(&mut self, action: Action) -> bool {
        match action {
            Action::Cut(pairs) => self.links(&pairs, |sim, a, b, holds| match holds {
                true => sim.hold(a, b),
                false => sim.partition(a, b),
            }),
            Action::CutOneWay(pairs) => self.links(&pairs, |sim, a, b, _| sim.partition_oneway(a, b)),
            Action::Join(pairs) => self.links(&pairs, |sim, a, b, holds| match holds {
                true => sim.release(a, b),
                false => sim.repair(a, b),
            }),
            Action::Latency(pairs, most_ms) => self.links(&pairs, |sim, a, b, _| {
                sim.set_link_max_message_latency(a, b, Duration::from_millis(most_ms));
            }),
            Action::Kill(at) => self.end(at, Disk::killed),
            Action::Power(at, loss) => self.cut_power(at, loss),
            Action::DiskDies(at, steps) => self.to_running(at, |seat| seat.disk.dies_after(steps)),
            Action::SyncFails(at, steps) => self.to_running(at, |seat| seat.disk.sync_fails(steps)),
            Action::Stop(at) => self.to_running(at, |seat| seat.order(Order::Stop)),
            Action::Start(at) => {
                self.start(at);
                true
            }
            Action::Disk(at, slowest_us) => self.to(at, |seat| seat.disk.slow(slowest_us)),
            Action::Rate(at, ppm) => self.to(at, |seat| seat.clock.run_at(ppm)),
            Action::Date(at, error_ms) => self.to(at, |seat| seat.clock.date_wrong_by(error_ms)),
            Action::Image(at) => self.to(at, |seat| seat.disk.keep_image()),
            Action::Transfer(at) => self.tell(Order::Transfer(at as u64 + 1)),
            Action::Stand(at, standing) => {
                self.seats.get(at).is_some_and(|seat| seat.is_admitted())
                    && self.tell(Order::Stand(at as u64 + 1, standing))
            }
            Action::Admit(at, learner) => {
                let newcomer = self.seats.get(at).map(Arc::clone);
                newcomer.is_some_and(|newcomer| self.tell(Order::Admit(newcomer, learner)))
            }
        }
    }

    fn cut_power(&mut self, at: usize, loss: Loss) -> bool {
        let Some(seat) = self.seats.get(at).map(Arc::clone).filter(|seat| seat.is_admitted()) else { return false };
        if let Entry::Occupied(mut down) = self.down.entry(at) {
            // Its process has ended before, perhaps because the disk died, which changes nothing.
            down.insert(None);
            seat.disk.power_cut(loss);
        } else {
            self.end(at, |disk| disk.power_cut(loss));
        }
        seat.clock.reboot(self.random.between(1_000_000, 1 << 40));
        true
    }

    fn to(&self, at: usize, change: impl FnOnce(&Arc<Seat>)) -> bool {
        self.seats.get(at).map(change).is_some()
    }

    /// Does something of which its process may end.
    fn to_running(&self, at: usize, change: impl FnOnce(&Arc<Seat>)) -> bool {
        let runs = |seat: &&Arc<Seat>| seat.is_admitted() && !self.down.contains_key(&at);
        let Some(seat) = self.seats.get(at).filter(runs) else { return false };
        seat.may_end.store(true, Ordering::Relaxed);
        change(seat);
        true
    }

    /// Tells some node that runs.
    fn tell(&mut self, order: Order) -> bool {
        let running: Vec<_> = (0..self.seats.len()).filter(|at| !self.down.contains_key(at)).collect();
        let chosen = self.random.pick(&running).and_then(|at| self.seats.get(*at));
        let Some(seat) = chosen.filter(|seat| seat.is_admitted()) else { return false };
        seat.order(order);
        true
    }

    fn links(&self, pairs: &[(usize, usize)], change: impl Fn(&Sim<'_>, String, String, bool)) -> bool {
        for (a, b) in pairs {
            if let (Some(a), Some(b)) = (self.seats.get(*a), self.seats.get(*b)) {
                change(&self.sim, a.name(), b.name(), self.plan.holds);
            }
        }
        !pairs.is_empty()
    }

    /// Ends every fault.
    fn heal(&mut self) {
        let all: Vec<_> = (0..self.seats.len()).flat_map(|b| (0..b).map(move |a| (a, b))).collect();
        let most_ms = self.plan.latency_ms;
        self.act(Action::Latency(all.clone(), most_ms));
        self.act(Action::Join(all));
        for at in 0..self.seats.len() {
            self.start(at);
            self.act(Action::Disk(at, self.plan.disk_us));
            self.act(Action::Date(at, 0));
        }
    }
}
