//! Snapshots under load: backups are taken through a node while the nodes write snapshots of their own and cut their logs behind them.
//! Proved by the bytes of a backup, and by a snapshot of a node that is newer than before.

use super::{Fault, Healing, Took};
use crate::{
    run::{cluster::Cluster, operator::within},
    sim::random::Random,
};
use proto::admin::{SaveSnapshotRequest, snapshots_client::SnapshotsClient};
use std::{collections::BTreeMap, time::Duration};

const PATIENCE: Duration = Duration::from_secs(6);

struct Snapshots {
    random: Random,
    before: Option<BTreeMap<usize, u64>>,
}

/// A backup, and snapshots.
pub(super) fn backup(random: &mut Random) -> Box<dyn Fault> {
    Box::new(Snapshots { random: random.clone(), before: None })
}

fn snapshots(cluster: &Cluster) -> BTreeMap<usize, u64> {
    let of = |place: usize| Some((place, cluster.status(place)?["raft"]["snapshot"].as_u64()?));
    cluster.members().into_iter().filter_map(of).collect()
}

impl Fault for Snapshots {
    fn about(&self) -> String {
        "a backup is taken while nodes write snapshots and cut their logs".to_owned()
    }

    fn install(&mut self, cluster: &mut Cluster) -> Took {
        let before = self.before.get_or_insert_with(|| snapshots(cluster)).clone();
        let members = cluster.members();
        let Some(place) = self.random.pick(&members).copied() else {
            return Took::NotNow("nobody is there".to_owned());
        };
        let saved = cluster.operator.ask(place, PATIENCE, async |channel| {
            let mut stream =
                SnapshotsClient::new(channel).save(within(SaveSnapshotRequest {}, PATIENCE)).await?.into_inner();
            let mut bytes = 0;
            while let Some(piece) = stream.message().await? {
                bytes += piece.data.len();
            }
            Ok(tonic::Response::new(bytes))
        });
        let bytes = match saved {
            Ok(bytes) if bytes > 0 => bytes,
            Ok(_) => return Took::Unknown("a backup without a byte".to_owned()),
            Err(failure) => return Took::NotNow(failure.to_string()),
        };
        let newer =
            snapshots(cluster).into_iter().find(|(place, index)| before.get(place).is_some_and(|old| old < index));
        match newer {
            Some((place, index)) => Took::Installed {
                nodes: cluster.ids(&[place]),
                proof: format!("a backup of {bytes} bytes, and a snapshot of the log up to {index}"),
            },
            None => Took::NotNow("no node has written another snapshot yet".to_owned()),
        }
    }

    fn heal(&mut self, _: &mut Cluster) -> Healing {
        Healing::Healed
    }

    fn spares_others(&self) -> bool {
        true
    }
}
