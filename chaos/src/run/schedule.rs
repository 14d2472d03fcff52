//! Which faults, when and for how long: planned from the seed before anything starts, so that a seed repeats them. Whom a fault takes is
//! decided when it is installed, by the same seed and by who leads then.
//!
//! Faults come in bouts, several at a time; between two bouts the cluster has a few seconds to get well, or nothing would ever be
//! admitted that could be counted.

use super::{
    cluster::Cluster,
    fault::{Fault, Healing, Kind, Took, shuffled},
};
use crate::{
    history::{Fault as Step, Phase, Recorder, What},
    sim::random::Random,
};
use std::time::{Duration, Instant};

/// Before the first fault: warm keys, and leases.
const HEAD: Duration = Duration::from_secs(5);
/// The most faults of one bout.
const BOUT_FAULTS_MAX: u64 = 4;
/// Between attempts at something that was not possible yet.
const AGAIN: Duration = Duration::from_millis(500);
/// After the last bout, for what still waits and for what needs a well cluster to be healed.
const TAIL_PATIENCE: Duration = Duration::from_secs(60);

/// A fault of the plan.
pub struct Planned {
    number: u64,
    kind: &'static str,
    fault: Box<dyn Fault>,
    at: Duration,
    lasts: Duration,
    life: Life,
    proof: String,
    doubt: Option<String>,
    members: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Life {
    /// Why it was not possible so far, once it was tried.
    Waits(Option<String>),
    /// Until it is to be healed, whom it touches, what it spares.
    Active(Duration, Vec<u64>, bool),
    Over(Ended),
}

/// How a fault of the plan ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It took hold, by this proof, and was healed.
    Healed(String),
    /// The machine does not permit it.
    Skipped(String),
    /// It is not known to have taken hold, or did not end: the run is void.
    Unknown(String),
}

/// All faults of a run.
pub struct Schedule {
    planned: Vec<Planned>,
    length: Duration,
}

/// How one fault of a run went.
#[derive(Clone, Debug)]
pub struct Went {
    /// Its kind.
    pub kind: &'static str,
    /// What it was.
    pub about: String,
    /// How it ended.
    pub ended: Ended,
}

impl Schedule {
    /// The plan of a seed.
    #[must_use]
    pub fn plan(seed: u64, length: Duration, kinds: &[Kind]) -> Self {
        let mut random = Random::new(seed ^ 0x5ced);
        let mut planned = Vec::new();
        let mut deck: Vec<usize> = Vec::new();
        let mut bout = HEAD;
        // What is left at the end is for the last bout to end in.
        while !kinds.is_empty() && bout + Duration::from_secs(8) < length {
            let span = Duration::from_millis(random.between(8_000, 18_000)).min(length.saturating_sub(bout));
            let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            for _ in 0..random.between(1, BOUT_FAULTS_MAX) {
                if deck.is_empty() {
                    // Every kind once before any comes again.
                    deck = shuffled((0..kinds.len()).collect(), &mut random);
                }
                let Some(kind) = deck.pop().and_then(|place| kinds.get(place)) else { break };
                let begins = random.between(0, millis / 2);
                let lasts = random.between(1_500, (millis - begins).max(1_501));
                planned.push(Planned {
                    number: planned.len() as u64 + 1,
                    kind: kind.name,
                    fault: (kind.make)(&mut Random::new(random.next())),
                    at: bout + Duration::from_millis(begins),
                    lasts: Duration::from_millis(lasts),
                    life: Life::Waits(None),
                    proof: String::new(),
                    doubt: None,
                    members: Vec::new(),
                });
            }
            bout += span + Duration::from_millis(random.between(4_000, 8_000));
        }
        planned.sort_by_key(|fault| fault.at);
        Self { planned, length }
    }

    /// How many faults are planned.
    #[must_use]
    pub fn len(&self) -> usize {
        self.planned.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.planned.is_empty()
    }

    /// Carries the plan out, and heals everything. `look` is called between two steps.
    pub fn carry_out(&mut self, cluster: &mut Cluster, mut look: impl FnMut(&mut Cluster)) -> Vec<Went> {
        let began = Instant::now();
        let recorder = cluster.recorder.clone();
        let members = cluster.ids(&cluster.members());
        self.planned.iter_mut().for_each(|fault| fault.members.clone_from(&members));
        while began.elapsed() < self.length {
            self.step(began.elapsed(), cluster, &recorder);
            look(cluster);
            std::thread::sleep(Duration::from_millis(50));
        }
        self.end(cluster, &recorder, &mut look);
        let planned = std::mem::take(&mut self.planned);
        let went = |fault: Planned| Went {
            kind: fault.kind,
            about: fault.fault.about(),
            ended: match fault.life {
                Life::Over(ended) => ended,
                Life::Waits(why) => Ended::Unknown(format!("never installed: {}", why.unwrap_or_default())),
                Life::Active(..) => Ended::Unknown("never healed".to_owned()),
            },
        };
        planned.into_iter().map(went).collect()
    }

    fn step(&mut self, now: Duration, cluster: &mut Cluster, recorder: &Recorder) {
        for fault in &mut self.planned {
            match &fault.life {
                Life::Waits(_) if now >= fault.at => fault.install(now, cluster, recorder),
                Life::Active(until, ..) if now >= *until => fault.heal(now, cluster, recorder),
                _ => {}
            }
        }
    }

    /// Heals all that is there; then, for a while, what could not begin or end before.
    fn end(&mut self, cluster: &mut Cluster, recorder: &Recorder, look: &mut impl FnMut(&mut Cluster)) {
        let began = Instant::now();
        while began.elapsed() < TAIL_PATIENCE {
            let now = self.length + began.elapsed();
            // First what hurts; what waits for a well cluster comes last.
            for fault in &mut self.planned {
                if let Life::Active(..) = fault.life {
                    fault.heal(now, cluster, recorder);
                }
            }
            let busy = |fault: &Planned| matches!(fault.life, Life::Active(..));
            if !self.planned.iter().any(busy) {
                let waiting = self.planned.iter_mut().find(|fault| matches!(fault.life, Life::Waits(_)));
                let Some(fault) = waiting else { return };
                fault.install(now, cluster, recorder);
                // It gets its time, alone.
                std::thread::sleep(fault.lasts.min(Duration::from_secs(3)));
            }
            look(cluster);
            std::thread::sleep(AGAIN);
        }
    }
}

impl Planned {
    fn record(&self, recorder: &Recorder, nodes: &[u64], spares: bool, phase: Phase) {
        recorder.record(What::Fault(Step {
            number: self.number,
            kind: self.kind.to_owned(),
            about: self.fault.about(),
            nodes: nodes.to_vec(),
            spares_others: spares,
            phase,
        }));
    }

    fn install(&mut self, now: Duration, cluster: &mut Cluster, recorder: &Recorder) {
        if self.life == Life::Waits(None) {
            self.record(recorder, &[], self.fault.spares_others(), Phase::Planned);
        }
        match self.fault.install(cluster) {
            Took::Installed { nodes, proof } => {
                // What is promised while others are in order is judged by the members of the start.
                let known = nodes.iter().all(|node| self.members.contains(node));
                let spares = known && self.fault.spares_others();
                self.record(recorder, &nodes, spares, Phase::Installed);
                super::report::say(&format!(
                    "{:>6.1} s  + {:<16} nodes {nodes:?}: {proof}",
                    now.as_secs_f64(),
                    self.kind
                ));
                self.life = Life::Active(now + self.lasts, nodes, spares);
                self.proof = proof;
            }
            Took::NotNow(why) => {
                self.at = now + AGAIN;
                self.life = Life::Waits(Some(why));
            }
            Took::Skipped(why) => {
                self.record(recorder, &[], false, Phase::Skipped { why: why.clone() });
                self.life = Life::Over(Ended::Skipped(why));
            }
            Took::Unknown(why) => {
                super::report::say(&format!("{:>6.1} s  ? {:<16} {why}", now.as_secs_f64(), self.kind));
                self.record(recorder, &[], false, Phase::Unknown { why: why.clone() });
                self.doubt = Some(why);
                self.life = Life::Active(now, Vec::new(), false);
            }
        }
    }

    fn heal(&mut self, now: Duration, cluster: &mut Cluster, recorder: &Recorder) {
        let Life::Active(_, nodes, spares) = self.life.clone() else { return };
        match self.fault.heal(cluster) {
            Healing::Healed => {
                self.record(recorder, &nodes, spares, Phase::Healed);
                super::report::say(&format!("{:>6.1} s  - {}", now.as_secs_f64(), self.kind));
                self.life = Life::Over(match self.doubt.take() {
                    Some(why) => Ended::Unknown(why),
                    None => Ended::Healed(std::mem::take(&mut self.proof)),
                });
            }
            Healing::NotYet(_) => self.life = Life::Active(now + AGAIN, nodes, spares),
        }
    }
}
