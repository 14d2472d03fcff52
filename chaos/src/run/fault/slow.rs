//! Slow links: everything between one node and the others takes longer, in both directions. By relays of the harness, to which the
//! nodes' connections are turned. Proved by bytes that were carried.

use super::{Fault, Healing, Took, counted, shuffled};
use crate::{
    run::{cluster::Cluster, network::Bridge, relay::Relay},
    sim::random::Random,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Until connections have broken and are made anew, through the relays.
const SOON: Duration = Duration::from_secs(8);

struct Slow {
    delay: Duration,
    table: String,
    random: Random,
    relays: Vec<Relay>,
    turned: Vec<usize>,
}

/// Milliseconds up to more than an election takes.
pub(super) fn links(random: &mut Random) -> Box<dyn Fault> {
    let delay = Duration::from_millis(if random.chance(700) { random.between(5, 80) } else { random.between(80, 400) });
    let table = format!("slow{}", random.between(0, u64::from(u32::MAX)));
    Box::new(Slow { delay, table, random: random.clone(), relays: Vec::new(), turned: Vec::new() })
}

impl Slow {
    fn turn(&mut self, bridge: &Bridge, cluster: &Cluster, place: usize) -> anyhow::Result<u64> {
        let mut rules: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for other in cluster.members().into_iter().filter(|other| *other != place) {
            for (from, to) in [(place, other), (other, place)] {
                let target: SocketAddr = cluster.node(to)?.cluster().parse()?;
                let relay = Relay::start(bridge, from, to, target, self.delay)?;
                let (host, port, here) = (target.ip(), target.port(), relay.address);
                rules
                    .entry(from)
                    .or_default()
                    .push(format!("ip daddr {host} tcp dport {port} counter dnat ip to {here}"));
                self.relays.push(relay);
            }
        }
        for (from, rules) in rules {
            // What is connected already is turned in the middle, which breaks it: it is made anew through the relay.
            let chain = format!("chain out {{ type nat hook output priority -100; {}; }}", rules.join("; "));
            bridge.filter(from, &self.table, &chain)?;
            self.turned.push(from);
        }
        let began = Instant::now();
        loop {
            let carried = self.relays.iter().map(Relay::carried).sum();
            if carried > 0 || began.elapsed() > SOON {
                return Ok(carried);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Fault for Slow {
    fn about(&self) -> String {
        format!("everything between a node and the others takes {} ms longer", self.delay.as_millis())
    }

    fn install(&mut self, cluster: &mut Cluster) -> Took {
        let bridge = match cluster.network.bridge() {
            Ok(bridge) => bridge,
            Err(why) => return Took::Skipped(why),
        };
        let places = shuffled(cluster.free(), &mut self.random);
        let Some(place) = places.first().copied() else { return Took::NotNow("every node is taken".to_owned()) };
        let carried = self.turn(bridge, cluster, place);
        counted(self, cluster, place, carried, "bytes carried by the relays")
    }

    fn heal(&mut self, cluster: &mut Cluster) -> Healing {
        if let Ok(bridge) = cluster.network.bridge() {
            while let Some(place) = self.turned.last() {
                if let Err(error) = bridge.unfilter(*place, &self.table) {
                    return Healing::NotYet(format!("{error:#}"));
                }
                self.turned.pop();
            }
        }
        self.relays.clear();
        Healing::Healed
    }
}
