//! What is done to the cluster: one file a family, one line in [`all`] a kind. A fault proves that it took hold; one that did not
//! makes the run void, and one that the machine does not permit is skipped, never passed.

mod clock;
mod cut;
mod disk;
mod kill;
mod loss;
mod member;
mod pause;
mod slow;
mod snapshot;
mod storm;

use super::cluster::Cluster;
use crate::sim::random::Random;

/// A fault, made by a seed. It is installed once and healed once.
pub trait Fault: Send {
    /// What it does, for people: with its figures, known before it is installed.
    fn about(&self) -> String;

    /// Does it, and proves that it is done: within seconds, for nothing else happens meanwhile.
    fn install(&mut self, cluster: &mut Cluster) -> Took;

    /// Undoes it. Called also after [`Took::Unknown`], for whatever is there.
    fn heal(&mut self, cluster: &mut Cluster) -> Healing;

    /// Whether the nodes that it does not touch must go on serving warm keys all the same: it takes away no majority, and
    /// slows nothing that they need.
    fn spares_others(&self) -> bool {
        false
    }
}

/// What became of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Took {
    /// It took hold.
    Installed {
        /// The numbers of the nodes that it touches.
        nodes: Vec<u64>,
        /// How that is known.
        proof: String,
    },
    /// What it needs is not there at the moment (no leader, no node that no other fault has): it is tried again.
    NotNow(String),
    /// The machine does not permit it.
    Skipped(String),
    /// It may have taken hold or not.
    Unknown(String),
}

/// What became of an attempt to heal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healing {
    /// It is over.
    Healed,
    /// It is not over yet, and needs the cluster for it: it is tried again, at last when every other fault is over.
    NotYet(String),
}

/// A kind of fault.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// As `--faults` and reports name it.
    pub name: &'static str,
    /// Makes one.
    pub make: fn(&mut Random) -> Box<dyn Fault>,
}

/// Every kind.
pub const ALL: &[Kind] = &[
    Kind { name: "kill", make: kill::one },
    Kind { name: "kill-leader", make: kill::leader },
    Kind { name: "kill-all", make: kill::all },
    Kind { name: "pause-short", make: pause::short },
    Kind { name: "pause-long", make: pause::long },
    Kind { name: "pause-leader", make: pause::leader },
    Kind { name: "cut-pair", make: cut::pair },
    Kind { name: "cut-one-way", make: cut::one_way },
    Kind { name: "cut-halves", make: cut::halves },
    Kind { name: "cut-ring", make: cut::ring },
    Kind { name: "cut-leader", make: cut::leader },
    Kind { name: "cut-clients", make: cut::clients },
    Kind { name: "loss", make: loss::packets },
    Kind { name: "slow", make: slow::links },
    Kind { name: "calendar-seconds", make: clock::seconds },
    Kind { name: "calendar-years", make: clock::years },
    Kind { name: "calendar-leader", make: clock::leader },
    Kind { name: "calendar-jumping", make: clock::jumping },
    Kind { name: "clock-rate", make: clock::rate },
    Kind { name: "leader-storm", make: storm::transfers },
    Kind { name: "member-add", make: member::add },
    Kind { name: "member-remove", make: member::remove },
    Kind { name: "member-replace", make: member::replace },
    Kind { name: "snapshot", make: snapshot::backup },
    Kind { name: "disk-full", make: disk::full::any },
    Kind { name: "disk-read-only", make: disk::read_only::any },
    Kind { name: "disk-slow-sync", make: disk::sync::slow },
    Kind { name: "disk-failing-sync", make: disk::sync::fails },
    Kind { name: "disk-flipped", make: disk::damage::flipped },
    Kind { name: "disk-torn", make: disk::damage::torn },
    Kind { name: "power-loss", make: disk::power::any },
];

impl Took {
    /// A failure of a step that may have done something.
    #[must_use]
    pub fn unknown(error: &anyhow::Error) -> Self {
        Self::Unknown(format!("{error:#}"))
    }
}

/// What became of a fault of one node that is proved by a count. None may be chance, or another fault that leaves nothing to count: it is
/// undone, and tried again later.
fn counted(
    fault: &mut impl Fault,
    cluster: &mut Cluster,
    place: usize,
    count: anyhow::Result<u64>,
    unit: &str,
) -> Took {
    match count {
        Ok(0) => match fault.heal(cluster) {
            Healing::Healed => Took::NotNow(format!("no {unit}")),
            Healing::NotYet(why) => Took::Unknown(why),
        },
        Ok(count) => Took::Installed { nodes: cluster.ids(&[place]), proof: format!("{count} {unit} so far") },
        Err(error) => Took::unknown(&error),
    }
}

/// Some places, in an order made by chance.
#[must_use]
pub fn shuffled(mut places: Vec<usize>, random: &mut Random) -> Vec<usize> {
    for last in (1..places.len()).rev() {
        let other = usize::try_from(random.between(0, last as u64)).unwrap_or(0);
        places.swap(last, other);
    }
    places
}

/// Whom a fault takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Anybody.
    Any,
    /// The leader.
    Leader,
}

impl Whom {
    /// A place whose process no other fault has.
    ///
    /// # Errors
    /// There is none at the moment.
    pub fn find(self, cluster: &Cluster, random: &mut Random) -> Result<usize, String> {
        let free = cluster.free();
        match self {
            Self::Any => random.pick(&free).copied().ok_or_else(|| "every node is taken".to_owned()),
            Self::Leader => match cluster.leader() {
                None => Err("there is no leader".to_owned()),
                Some(place) if free.contains(&place) => Ok(place),
                Some(_) => Err("another fault has the leader".to_owned()),
            },
        }
    }
}
