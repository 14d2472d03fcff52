//! SIGSTOP and SIGCONT: a node that stands still and does not know it, for less and for longer than a lease lasts.

use super::{Fault, Healing, Took, Whom};
use crate::{run::cluster::Cluster, sim::random::Random};
use std::time::Duration;

/// What a lease lasts at most, drift included.
const LEASE: Duration = Duration::from_millis(2_100);

struct Pause {
    whom: Whom,
    length: Length,
    random: Random,
    paused: Option<usize>,
}

/// How long, beside how long the schedule lets it last.
enum Length {
    /// Less than a lease, and over when it is installed.
    Short(Duration),
    /// Longer than a lease: until it is healed.
    Long,
}

/// Less than a lease.
pub(super) fn short(random: &mut Random) -> Box<dyn Fault> {
    let length = Length::Short(Duration::from_millis(random.between(100, 1_900)));
    Box::new(Pause { whom: Whom::Any, length, random: random.clone(), paused: None })
}

/// Longer than a lease.
pub(super) fn long(random: &mut Random) -> Box<dyn Fault> {
    Box::new(Pause { whom: Whom::Any, length: Length::Long, random: random.clone(), paused: None })
}

/// The leader, longer than a lease.
pub(super) fn leader(random: &mut Random) -> Box<dyn Fault> {
    Box::new(Pause { whom: Whom::Leader, length: Length::Long, random: random.clone(), paused: None })
}

impl Fault for Pause {
    fn about(&self) -> String {
        let whom = if self.whom == Whom::Leader { "the leader" } else { "a node" };
        match self.length {
            Length::Short(length) => format!("SIGSTOP for {whom}, SIGCONT after {} ms", length.as_millis()),
            Length::Long => format!("SIGSTOP for {whom}, for longer than a lease"),
        }
    }

    fn install(&mut self, cluster: &mut Cluster) -> Took {
        let place = match self.whom.find(cluster, &mut self.random) {
            Ok(place) => place,
            Err(why) => return Took::NotNow(why),
        };
        let nodes = cluster.ids(&[place]);
        self.paused = Some(place);
        if let Err(error) = cluster.pause(place, true) {
            return Took::unknown(&error);
        }
        let mut proof = "every thread is in state T".to_owned();
        match self.length {
            Length::Short(length) => {
                std::thread::sleep(length);
                match self.heal(cluster) {
                    Healing::Healed => proof += ", then none",
                    Healing::NotYet(why) => return Took::Unknown(why),
                }
            }
            Length::Long => {
                if let Ok(node) = cluster.node_mut(place) {
                    node.held_by = Some("pause".to_owned());
                }
                std::thread::sleep(LEASE);
            }
        }
        Took::Installed { nodes, proof }
    }

    fn heal(&mut self, cluster: &mut Cluster) -> Healing {
        let Some(place) = self.paused.take() else { return Healing::Healed };
        if let Ok(node) = cluster.node_mut(place) {
            node.held_by = None;
        }
        match cluster.pause(place, false) {
            Ok(()) => Healing::Healed,
            Err(error) => {
                self.paused = Some(place);
                Healing::NotYet(format!("{error:#}"))
            }
        }
    }

    fn spares_others(&self) -> bool {
        true
    }
}
