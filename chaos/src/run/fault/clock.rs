//! Clocks that are wrong, one node's at a time: its calendar, by seconds or years, ahead or behind, jumping; and the rate of its clock
//! for durations, within what the guarantees assume. Injected where the node reads its clocks, proved by what it says they show.

use super::{Fault, Healing, Took, Whom};
use crate::{run::cluster::Cluster, sim::random::Random};
use std::time::{Duration, Instant};

/// Until a node has read the file again.
const TAKEN: Duration = Duration::from_secs(5);
/// Any two clocks of a cluster are within 1 % of each other: each is within a little less than half of that.
const RATE_PPM_MAX: u64 = 4_500;
const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1_000;

struct Calendar {
    whom: Whom,
    offsets_ms: Vec<i64>,
    random: Random,
    at: Option<usize>,
}

struct Rate {
    ppm: i64,
    random: Random,
    at: Option<usize>,
}

fn signed(random: &mut Random, low: u64, high: u64) -> i64 {
    let size = random.between(low, high).cast_signed();
    if random.chance(500) { size } else { -size }
}

fn calendar(whom: Whom, offsets_ms: Vec<i64>, random: &Random) -> Box<dyn Fault> {
    Box::new(Calendar { whom, offsets_ms, random: random.clone(), at: None })
}

/// By seconds.
pub(super) fn seconds(random: &mut Random) -> Box<dyn Fault> {
    let offset = signed(random, 200, 60_000);
    calendar(Whom::Any, vec![offset], random)
}

/// By years.
pub(super) fn years(random: &mut Random) -> Box<dyn Fault> {
    let offset = signed(random, YEAR_MS / 12, 20 * YEAR_MS);
    calendar(Whom::Any, vec![offset], random)
}

/// The leader's, by more than it may lead with.
pub(super) fn leader(random: &mut Random) -> Box<dyn Fault> {
    let offset = signed(random, 2_000, YEAR_MS);
    calendar(Whom::Leader, vec![offset], random)
}

/// Jumping both ways.
pub(super) fn jumping(random: &mut Random) -> Box<dyn Fault> {
    let offsets = (0..5).map(|_| signed(random, 500, 3_600_000)).collect();
    calendar(Whom::Any, offsets, random)
}

/// A rate that is wrong.
pub(super) fn rate(random: &mut Random) -> Box<dyn Fault> {
    let ppm = signed(random, RATE_PPM_MAX / 3, RATE_PPM_MAX);
    Box::new(Rate { ppm, random: random.clone(), at: None })
}

/// What a node says that its calendar is ahead, in milliseconds, and its clock for durations, in microseconds.
fn ahead(cluster: &Cluster, place: usize) -> Option<(i64, i64)> {
    let status = cluster.status(place)?;
    let wrong = &status["unsafe_test_faults"];
    Some((wrong["utc_ahead_ms"].as_i64()?, wrong["boot_ahead_us"].as_i64()?))
}

fn until(mut condition: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !condition() {
        if began.elapsed() > TAKEN {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    true
}

impl Fault for Calendar {
    fn about(&self) -> String {
        let whom = if self.whom == Whom::Leader { "the leader's" } else { "a node's" };
        let offsets: Vec<String> = self.offsets_ms.iter().map(|offset| format!("{offset} ms")).collect();
        format!("{whom} calendar is ahead by {}", offsets.join(", then "))
    }

    fn install(&mut self, cluster: &mut Cluster) -> Took {
        let place = match self.whom.find(cluster, &mut self.random) {
            Ok(place) => place,
            Err(why) => return Took::NotNow(why),
        };
        // What a majority believes is the date: of three nodes two may not be wrong, and of two that are left neither.
        if let Some(wrong) = cluster.nodes.iter().find(|node| node.utc_ahead_ms != 0) {
            return Took::NotNow(format!("the calendar of {} is wrong already", wrong.name));
        }
        if ahead(cluster, place).is_none() {
            return Took::NotNow("it does not say how wrong its clocks are".to_owned());
        }
        self.at = Some(place);
        let mut seen = Vec::new();
        for offset in self.offsets_ms.clone() {
            if let Err(error) = cluster.tell(place, |node| node.utc_ahead_ms = offset) {
                return Took::unknown(&error);
            }
            if !until(|| ahead(cluster, place).is_some_and(|(utc, _)| utc == offset)) {
                return Took::Unknown(format!("the node does not say that its calendar is ahead by {offset} ms"));
            }
            seen.push(offset.to_string());
        }
        // Its certificate may not hold by such a calendar: then it does not start, if another fault makes it.
        if let Ok(node) = cluster.node_mut(place) {
            node.may_end = true;
        }
        Took::Installed {
            nodes: cluster.ids(&[place]),
            proof: format!("its calendar was ahead by {} ms", seen.join(", ")),
        }
    }

    fn heal(&mut self, cluster: &mut Cluster) -> Healing {
        let Some(place) = self.at else { return Healing::Healed };
        if let Err(error) = cluster.tell(place, |node| node.utc_ahead_ms = 0) {
            return Healing::NotYet(format!("{error:#}"));
        }
        if let Ok(node) = cluster.node_mut(place) {
            node.may_end = false;
        }
        // If it had to end, it may start again.
        if let Err(error) = cluster.run_if_ended(place) {
            return Healing::NotYet(format!("{error:#}"));
        }
        Healing::Healed
    }
}

impl Fault for Rate {
    fn about(&self) -> String {
        format!("a node's clock for durations runs {} millionths too fast", self.ppm)
    }

    fn install(&mut self, cluster: &mut Cluster) -> Took {
        let place = match Whom::Any.find(cluster, &mut self.random) {
            Ok(place) => place,
            Err(why) => return Took::NotNow(why),
        };
        let before = ahead(cluster, place);
        let (Some((_, before_us)), Some(true)) = (before, cluster.nodes.get(place).map(|node| node.boot_rate_ppm == 0))
        else {
            return Took::NotNow("its rate is wrong already, or it does not say".to_owned());
        };
        self.at = Some(place);
        let ppm = self.ppm;
        if let Err(error) = cluster.tell(place, |node| node.boot_rate_ppm = ppm) {
            return Took::unknown(&error);
        }
        let mut grown = 0;
        let goes = until(|| {
            grown = ahead(cluster, place).map_or(0, |(_, now_us)| now_us - before_us);
            // A tenth of a second at this rate.
            grown.signum() == ppm.signum() && grown.abs() > ppm.abs() / 10
        });
        if !goes {
            return Took::Unknown(format!("its clock has gained {grown} us in {TAKEN:?}"));
        }
        Took::Installed { nodes: cluster.ids(&[place]), proof: format!("its clock has gained {grown} us so far") }
    }

    fn heal(&mut self, cluster: &mut Cluster) -> Healing {
        let Some(place) = self.at else { return Healing::Healed };
        match cluster.tell(place, |node| node.boot_rate_ppm = 0) {
            Ok(()) => Healing::Healed,
            Err(error) => Healing::NotYet(format!("{error:#}")),
        }
    }

    fn spares_others(&self) -> bool {
        true
    }
}
