//! Leadership that is handed over again and again, to whomever. Proved by a term that another node leads.

use super::{Fault, Healing, Took};
use crate::{
    run::{
        cluster::{Cluster, Seats},
        operator::{Operator, within},
    },
    sim::random::Random,
};
use proto::admin::{TransferLeaderReply, TransferLeaderRequest, cluster_client::ClusterClient};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(3);

struct Storm {
    random: Random,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A storm of transfers.
pub(super) fn transfers(random: &mut Random) -> Box<dyn Fault> {
    Box::new(Storm { random: random.clone(), stop: Arc::default(), thread: None })
}

/// Hands over to one of the members, asked through another.
fn transfer(operator: &Operator, seats: &Seats, random: &mut Random) -> Result<TransferLeaderReply, String> {
    let living: Vec<(usize, u64)> =
        seats.0.iter().enumerate().map(|(place, seat)| (place, seat.id())).filter(|(_, id)| *id != 0).collect();
    let (through, _) = *random.pick(&living).ok_or("there is nobody")?;
    let (_, to) = *random.pick(&living).ok_or("there is nobody")?;
    let asked = operator.ask(through, PATIENCE, async |channel| {
        ClusterClient::new(channel).transfer_leader(within(TransferLeaderRequest { to }, PATIENCE)).await
    });
    asked.map_err(|failure| failure.to_string())
}

impl Fault for Storm {
    fn about(&self) -> String {
        "leadership is handed over again and again".to_owned()
    }

    fn install(&mut self, cluster: &mut Cluster) -> Took {
        let before = cluster.leader().and_then(|place| cluster.status(place)?["raft"]["term"].as_u64()).unwrap_or(0);
        let first = match transfer(&cluster.operator, &cluster.seats, &mut self.random) {
            Ok(reply) if reply.term > before => reply,
            Ok(_) => return Took::NotNow("the leader stays who it is".to_owned()),
            Err(why) => return Took::NotNow(why),
        };
        let (operator, seats, stop) = (cluster.operator.clone(), Arc::clone(&cluster.seats), Arc::clone(&self.stop));
        let mut random = self.random.clone();
        self.thread = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(random.between(50, 600)));
                // Some are refused, for there is no leader at the moment.
                let _ = transfer(&operator, &seats, &mut random);
            }
        }));
        let nodes = cluster.ids(&cluster.members());
        Took::Installed { nodes, proof: format!("node {} led in term {}, after {before}", first.leader, first.term) }
    }

    fn heal(&mut self, _: &mut Cluster) -> Healing {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        Healing::Healed
    }
}
