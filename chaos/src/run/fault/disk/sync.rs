//! Syncs that take long, and syncs that fail. They are made so where storage calls the operating system, by the node itself: no file
//! system that can be made here without more than root lets a sync fail.
//!
//! A node whose sync has failed must stop: the kernel may have dropped what was to be saved and call the next sync a success. If it
//! does not stop, that is a finding, and its run is not green. A checkpoint's may fail: it is thrown away, and the log has everything.

use super::{give_back, stop, take};
use crate::{
    run::{
        cluster::Cluster,
        fault::{Fault, Healing, Took},
    },
    sim::random::Random,
};
use anyhow::bail;
use std::time::{Duration, Instant};

/// A node that is written to syncs many times in a second.
const SYNCS_WITHIN: Duration = Duration::from_secs(8);
/// After a sync has failed.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// What the error of a sync that a test lets fail says.
const FAILED: &str = "a test lets this sync fail";
/// What a node says that goes on without a checkpoint.
const NO_CHECKPOINT: &str = "no checkpoint could be written";

#[derive(Clone, Copy)]
enum How {
    Slow(u64),
    Fails,
}

struct Sync {
    how: How,
    random: Random,
    place: Option<usize>,
}

/// Slow, on any node.
pub(in super::super) fn slow(random: &mut Random) -> Box<dyn Fault> {
    let how = How::Slow(random.between(50, 1_500));
    Box::new(Sync { how, random: random.clone(), place: None })
}

/// Failing, on any node.
pub(in super::super) fn fails(random: &mut Random) -> Box<dyn Fault> {
    Box::new(Sync { how: How::Fails, random: random.clone(), place: None })
}

impl Fault for Sync {
    fn about(&self) -> String {
        match self.how {
            How::Slow(ms) => format!("every sync of a node takes {ms} ms longer"),
            How::Fails => "a sync of a node fails".to_owned(),
        }
    }

    fn install(&mut self, cluster: &mut Cluster) -> Took {
        let place = match take(cluster, &mut self.random, "sync") {
            Ok(place) => place,
            Err(took) => return took,
        };
        self.place = Some(place);
        let proof = match self.how {
            How::Slow(ms) => slowed(cluster, place, ms).map(Some),
            How::Fails => failed(cluster, place),
        };
        match proof {
            Ok(Some(proof)) => Took::Installed { nodes: cluster.ids(&[place]), proof },
            // Cut off, for instance: then it writes nothing.
            Ok(None) => match self.heal(cluster) {
                Healing::Healed => Took::NotNow("the node syncs nothing".to_owned()),
                Healing::NotYet(why) => Took::Unknown(why),
            },
            Err(error) => Took::unknown(&error),
        }
    }

    fn heal(&mut self, cluster: &mut Cluster) -> Healing {
        let Some(place) = self.place else { return Healing::Healed };
        let healed = cluster.tell(place, |node| (node.sync_delay_ms, node.sync_fails) = (0, false)).and_then(|()| {
            if let How::Fails = self.how {
                stop(cluster, place)?;
            }
            give_back(cluster, place)
        });
        healed.map_or_else(|error| Healing::NotYet(format!("{error:#}")), |()| Healing::Healed)
    }
}

/// What the node wrote to standard error after it had written so much.
fn said_since(cluster: &Cluster, place: usize, before: usize) -> String {
    let said = cluster.node(place).ok().and_then(|node| Some(node.process.as_ref()?.stderr()));
    said.and_then(|said| Some(said.get(before..)?.to_owned())).unwrap_or_default()
}

fn slowed(cluster: &mut Cluster, place: usize, ms: u64) -> anyhow::Result<String> {
    let before = said_since(cluster, place, 0).len();
    cluster.tell(place, |node| node.sync_delay_ms = ms)?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        if said_since(cluster, place, before).contains(&format!("sync_delay_ms: {ms}")) {
            return Ok("the node says that its syncs wait".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("the node does not say that its syncs wait")
}

/// Whether a sync has failed after which a node must end.
fn has_failed(said: &str) -> bool {
    said.lines().any(|line| line.contains(FAILED) && !line.contains(NO_CHECKPOINT))
}

/// The proof; `None` if no sync was made at all, or a checkpoint's alone.
fn failed(cluster: &mut Cluster, place: usize) -> anyhow::Result<Option<String>> {
    let before = said_since(cluster, place, 0).len();
    cluster.node_mut(place)?.may_end = true;
    cluster.tell(place, |node| node.sync_fails = true)?;
    let began = Instant::now();
    loop {
        let said = said_since(cluster, place, before);
        let has_failed = has_failed(&said);
        let node = cluster.node_mut(place)?;
        let Some(process) = node.process.as_mut() else { bail!("{} does not run", node.name) };
        if let Some(ended) = process.ended() {
            if !process.stderr().get(before..).unwrap_or_default().contains(FAILED) {
                bail!("{} ended ({ended}), and does not say that a sync failed: {}", node.name, process.tail());
            }
            node.process = None;
            return Ok(Some(format!("a sync failed, and the node ended: {ended}")));
        }
        if !has_failed && began.elapsed() > SYNCS_WITHIN {
            return Ok(None);
        }
        if began.elapsed() > ENDS_WITHIN {
            let name = node.name.clone();
            cluster.broken.push(format!("{name} goes on after a sync of it has failed"));
            bail!("{name} does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leader that is alone commits nothing, and tries to write a checkpoint every few seconds.
    #[test]
    fn a_checkpoint_that_cannot_be_synced_is_no_reason_to_end() {
        let checkpoint =
            "WARN no checkpoint could be written error=data/checkpoint/conf: cannot sync: a test lets this sync fail\n";
        assert!(!has_failed(checkpoint));
        let log = "quorate: data/log/17.log: cannot sync: a test lets this sync fail\n";
        assert!(has_failed(log));
        assert!(has_failed(&format!("{checkpoint}{log}")));
    }
}
