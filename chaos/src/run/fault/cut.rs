//! Cut cables: packets that do not pass from one node to another, in one direction or both, or between clients and a node. Proved by
//! an attempt to connect that gets no answer, and by the filter's own counter of what it has dropped.

use super::{Fault, Healing, Took, shuffled};
use crate::{
    run::{cluster::Cluster, network::Bridge},
    sim::random::Random,
};
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

/// Long enough for a handshake on one machine.
const KNOCK: Duration = Duration::from_millis(300);

struct Cut {
    shape: Shape,
    table: String,
    random: Random,
    filtered: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Pair,
    OneWay,
    Halves,
    Ring,
    Leader,
    Clients,
}

/// Two nodes do not hear each other.
pub(super) fn pair(random: &mut Random) -> Box<dyn Fault> {
    cut(Shape::Pair, random)
}

/// One node does not hear another, and is heard by it.
pub(super) fn one_way(random: &mut Random) -> Box<dyn Fault> {
    cut(Shape::OneWay, random)
}

/// A minority and a majority do not hear each other.
pub(super) fn halves(random: &mut Random) -> Box<dyn Fault> {
    cut(Shape::Halves, random)
}

/// Each node hears its two neighbours alone; of three nodes, one hears two others that do not hear each other.
pub(super) fn ring(random: &mut Random) -> Box<dyn Fault> {
    cut(Shape::Ring, random)
}

/// The leader hears nobody, and nobody hears it; clients reach it.
pub(super) fn leader(random: &mut Random) -> Box<dyn Fault> {
    cut(Shape::Leader, random)
}

/// Clients do not reach the leader; nodes and operators reach it.
pub(super) fn clients(random: &mut Random) -> Box<dyn Fault> {
    cut(Shape::Clients, random)
}

fn cut(shape: Shape, random: &mut Random) -> Box<dyn Fault> {
    let table = format!("cut{}", random.between(0, u64::from(u32::MAX)));
    Box::new(Cut { shape, table, random: random.clone(), filtered: Vec::new() })
}

impl Cut {
    /// From whom to whom nothing passes.
    fn directions(&mut self, cluster: &Cluster) -> Result<Vec<(usize, usize)>, String> {
        let members = shuffled(cluster.members(), &mut self.random);
        let both = |pairs: Vec<(usize, usize)>| pairs.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]).collect();
        let [first, second, ..] = members.as_slice() else { return Err("there are not two nodes".to_owned()) };
        Ok(match self.shape {
            Shape::Pair => both(vec![(*first, *second)]),
            Shape::OneWay => vec![(*first, *second)],
            Shape::Halves => {
                let (few, many) = members.split_at((members.len() - 1) / 2);
                both(few.iter().flat_map(|a| many.iter().map(|b| (*a, *b))).collect())
            }
            Shape::Ring => {
                let count = members.len();
                let numbered: Vec<_> = members.iter().copied().enumerate().collect();
                // In a ring of three everybody is everybody's neighbour: one link less.
                let apart =
                    |i: usize, j: usize| if count == 3 { (i, j) == (0, 1) } else { j - i != 1 && j - i != count - 1 };
                let pairs = numbered.iter().flat_map(|(i, a)| {
                    numbered.iter().filter(move |(j, _)| i < j && apart(*i, *j)).map(move |(_, b)| (*a, *b))
                });
                both(pairs.collect())
            }
            Shape::Leader | Shape::Clients => {
                let leader = cluster.leader().ok_or("there is no leader")?;
                if self.shape == Shape::Clients {
                    return Ok(vec![(leader, leader)]);
                }
                both(members.iter().filter(|place| **place != leader).map(|place| (leader, *place)).collect())
            }
        })
    }

    fn cut(&mut self, bridge: &Bridge, cluster: &Cluster, cuts: &[(usize, usize)]) -> anyhow::Result<String> {
        let mut deaf: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (from, to) in cuts {
            let rules = deaf.entry(*to).or_default();
            if self.shape == Shape::Clients {
                let gateway: SocketAddr = cluster.node(*to)?.gateway().parse()?;
                rules.push(format!("ip saddr {} tcp dport {} counter drop", bridge.own(), gateway.port()));
            } else {
                // Also what a relay brings in its name.
                rules.push(format!("ip saddr {{ {}, {} }} counter drop", bridge.host(*from), bridge.face(*from)));
            }
        }
        for (place, rules) in &deaf {
            let chain = format!("chain into {{ type filter hook input priority 0; {}; }}", rules.join("; "));
            bridge.filter(*place, &self.table, &chain)?;
            self.filtered.push(*place);
        }
        let mut proofs = Vec::new();
        for (from, to) in cuts {
            let dropped = if self.shape == Shape::Clients {
                let before = bridge.dropped(*to, &self.table)?;
                let address: SocketAddr = cluster.node(*to)?.gateway().parse()?;
                let reached = std::net::TcpStream::connect_timeout(&address, KNOCK).is_ok();
                let dropped = bridge.dropped(*to, &self.table)? - before;
                anyhow::ensure!(!reached && dropped > 0, "clients still reach {to}: {dropped} dropped");
                dropped
            } else {
                bridge.prove_cut(*from, *to, &self.table, KNOCK)?
            };
            proofs.push(format!("{from}>{to} {dropped} dropped"));
        }
        Ok(proofs.join(", "))
    }
}

impl Fault for Cut {
    fn about(&self) -> String {
        match self.shape {
            Shape::Pair => "two nodes do not hear each other",
            Shape::OneWay => "a node does not hear another, which hears it",
            Shape::Halves => "a minority and a majority do not hear each other",
            Shape::Ring => "each node hears its neighbours in a ring alone",
            Shape::Leader => "the leader and all others do not hear each other",
            Shape::Clients => "the leader is cut off from clients",
        }
        .to_owned()
    }

    fn install(&mut self, cluster: &mut Cluster) -> Took {
        let bridge = match cluster.network.bridge() {
            Ok(bridge) => bridge,
            Err(why) => return Took::Skipped(why),
        };
        let cuts = match self.directions(cluster) {
            Ok(cuts) => cuts,
            Err(why) => return Took::NotNow(why),
        };
        let mut places: Vec<usize> = cuts.iter().flat_map(|(from, to)| [*from, *to]).collect();
        places.sort_unstable();
        places.dedup();
        let nodes = cluster.ids(&places);
        match self.cut(bridge, cluster, &cuts) {
            Ok(proof) => Took::Installed { nodes, proof },
            Err(error) => Took::unknown(&error),
        }
    }

    fn heal(&mut self, cluster: &mut Cluster) -> Healing {
        let Ok(bridge) = cluster.network.bridge() else { return Healing::Healed };
        while let Some(place) = self.filtered.last() {
            if let Err(error) = bridge.unfilter(*place, &self.table) {
                return Healing::NotYet(format!("{error:#}"));
            }
            self.filtered.pop();
        }
        Healing::Healed
    }

    fn spares_others(&self) -> bool {
        self.shape == Shape::Clients
    }
}
