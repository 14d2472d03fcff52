//! Packets that get lost by chance: those between one node and all others, in both directions. Proved by the filter's counter.

use super::{Fault, Healing, Took, counted, shuffled};
use crate::{
    run::{cluster::Cluster, network::Bridge},
    sim::random::Random,
};
use std::time::{Duration, Instant};

/// Nodes that live say something several times a second.
const SOON: Duration = Duration::from_secs(6);

struct Loss {
    percent: u64,
    table: String,
    random: Random,
    at: Option<usize>,
}

/// Some percent of all packets.
pub(super) fn packets(random: &mut Random) -> Box<dyn Fault> {
    let table = format!("loss{}", random.between(0, u64::from(u32::MAX)));
    Box::new(Loss { percent: random.between(2, 40), table, random: random.clone(), at: None })
}

impl Loss {
    fn lose(&mut self, bridge: &Bridge, cluster: &Cluster, place: usize) -> anyhow::Result<u64> {
        let others: Vec<String> = cluster
            .members()
            .into_iter()
            .filter(|other| *other != place)
            .flat_map(|other| [bridge.host(other).to_string(), bridge.face(other).to_string()])
            .collect();
        let others = others.join(", ");
        let lost = format!("numgen random mod 100 < {} counter drop", self.percent);
        let chains = format!(
            "chain into {{ type filter hook input priority 0; ip saddr {{ {others} }} {lost}; }}\n\
             chain out {{ type filter hook output priority 0; ip daddr {{ {others} }} {lost}; }}"
        );
        bridge.filter(place, &self.table, &chains)?;
        self.at = Some(place);
        let began = Instant::now();
        loop {
            let dropped = bridge.dropped(place, &self.table)?;
            if dropped > 0 || began.elapsed() > SOON {
                return Ok(dropped);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Fault for Loss {
    fn about(&self) -> String {
        format!("{} % of the packets between a node and the others get lost", self.percent)
    }

    fn install(&mut self, cluster: &mut Cluster) -> Took {
        let bridge = match cluster.network.bridge() {
            Ok(bridge) => bridge,
            Err(why) => return Took::Skipped(why),
        };
        let places = shuffled(cluster.free(), &mut self.random);
        let Some(place) = places.first().copied() else { return Took::NotNow("every node is taken".to_owned()) };
        let lost = self.lose(bridge, cluster, place);
        counted(self, cluster, place, lost, "packets lost")
    }

    fn heal(&mut self, cluster: &mut Cluster) -> Healing {
        let (Ok(bridge), Some(place)) = (cluster.network.bridge(), self.at) else { return Healing::Healed };
        match bridge.unfilter(place, &self.table) {
            Ok(()) => {
                self.at = None;
                Healing::Healed
            }
            Err(error) => Healing::NotYet(format!("{error:#}")),
        }
    }
}
