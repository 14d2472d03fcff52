//! SIGKILL, and a start some time later: of one node, of the leader, of all nodes at once.

use super::{Fault, Healing, Took, Whom};
use crate::{run::cluster::Cluster, sim::random::Random};

struct Kill {
    whom: Option<Whom>,
    random: Random,
    killed: Vec<usize>,
}

/// One node.
pub(super) fn one(random: &mut Random) -> Box<dyn Fault> {
    Box::new(Kill { whom: Some(Whom::Any), random: random.clone(), killed: Vec::new() })
}

/// The leader.
pub(super) fn leader(random: &mut Random) -> Box<dyn Fault> {
    Box::new(Kill { whom: Some(Whom::Leader), random: random.clone(), killed: Vec::new() })
}

/// All nodes.
pub(super) fn all(random: &mut Random) -> Box<dyn Fault> {
    Box::new(Kill { whom: None, random: random.clone(), killed: Vec::new() })
}

impl Fault for Kill {
    fn about(&self) -> String {
        match self.whom {
            Some(Whom::Any) => "SIGKILL for a node".to_owned(),
            Some(Whom::Leader) => "SIGKILL for the leader".to_owned(),
            None => "SIGKILL for all nodes at once".to_owned(),
        }
    }

    fn install(&mut self, cluster: &mut Cluster) -> Took {
        let places = match self.whom {
            Some(whom) => match whom.find(cluster, &mut self.random) {
                Ok(place) => vec![place],
                Err(why) => return Took::NotNow(why),
            },
            None => cluster.free(),
        };
        if places.is_empty() {
            return Took::NotNow("every node is taken".to_owned());
        }
        let mut gone = Vec::new();
        for place in &places {
            match cluster.kill(*place) {
                Ok(process) => gone.push(process.to_string()),
                Err(error) => return Took::unknown(&error),
            }
            if let Ok(node) = cluster.node_mut(*place) {
                node.held_by = Some("kill".to_owned());
            }
            self.killed.push(*place);
        }
        let nodes = cluster.ids(&places);
        Took::Installed { nodes, proof: format!("no process {}", gone.join(", ")) }
    }

    fn heal(&mut self, cluster: &mut Cluster) -> Healing {
        while let Some(place) = self.killed.pop() {
            if let Ok(node) = cluster.node_mut(place) {
                node.held_by = None;
            }
            if let Err(error) = cluster.run(place) {
                return Healing::NotYet(format!("{error:#}"));
            }
        }
        Healing::Healed
    }

    fn spares_others(&self) -> bool {
        self.whom.is_some()
    }
}
