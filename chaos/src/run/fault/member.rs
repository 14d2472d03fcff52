//! Members that come and go under load: one is added and leaves again; one is removed while it runs; one dies for good, and another
//! takes its place. Proved by the list of members, and by processes that run or have ended.

use super::{Fault, Healing, Took, Whom};
use crate::{
    run::{
        cluster::Cluster,
        operator::{Failure, within},
    },
    sim::random::Random,
};
use proto::admin::{ListMembersRequest, MemberRequest, members_client::MembersClient};
use std::time::{Duration, Instant};

/// For one step: nothing else is installed or healed meanwhile.
const PATIENCE: Duration = Duration::from_secs(8);
/// A node that was removed is told so, and ends.
const ENDS: Duration = Duration::from_secs(10);

struct Change {
    how: How,
    random: Random,
    at: Option<usize>,
    /// Who is to leave, until it has left.
    leaves: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Add,
    Remove,
    Replace,
}

/// One more, for a while.
pub(super) fn add(random: &mut Random) -> Box<dyn Fault> {
    change(How::Add, random)
}

/// One less, for a while.
pub(super) fn remove(random: &mut Random) -> Box<dyn Fault> {
    change(How::Remove, random)
}

/// One dies for good; another one comes.
pub(super) fn replace(random: &mut Random) -> Box<dyn Fault> {
    change(How::Replace, random)
}

fn change(how: How, random: &Random) -> Box<dyn Fault> {
    Box::new(Change { how, random: random.clone(), at: None, leaves: None })
}

/// Removes a member through some node; done as well if there is no such member any more.
fn let_go(cluster: &Cluster, name: &str) -> Result<(), String> {
    let mut last = "no node runs".to_owned();
    for place in cluster.free() {
        let asked = cluster.operator.ask(place, PATIENCE / 2, async |channel| {
            let write = Some(tests::admin::write_options());
            let message = MemberRequest { write, member: name.to_owned() };
            MembersClient::new(channel).remove(within(message, PATIENCE / 2)).await
        });
        match asked {
            Ok(_) => return Ok(()),
            Err(Failure::Refused(kind, _)) if kind == "not_found" || kind == "member_leaving" => return Ok(()),
            Err(failure) => last = failure.to_string(),
        }
    }
    Err(last)
}

/// The standing of a member by its name; `None` if it is not in the list.
fn standing(cluster: &Cluster, name: &str) -> Result<Option<String>, String> {
    let mut last = "no node runs".to_owned();
    for place in cluster.free() {
        let asked = cluster.operator.ask(place, PATIENCE / 2, async |channel| {
            MembersClient::new(channel).list(within(ListMembersRequest {}, PATIENCE / 2)).await
        });
        match asked {
            Ok(list) => {
                return Ok(list.members.into_iter().find(|member| member.name == name).map(|member| member.standing));
            }
            Err(failure) => last = failure.to_string(),
        }
    }
    Err(last)
}

/// Whether as many vote as at the start, by what they say themselves. A newcomer does not yet, for a moment: of two voters none may die
/// for good.
fn all_vote(cluster: &Cluster) -> bool {
    let votes = |place: &usize| cluster.status(*place).is_some_and(|status| status["raft"]["voter"] == true);
    // An odd number of voters.
    let wanted = cluster.size - (cluster.size + 1) % 2;
    cluster.members().iter().filter(|place| votes(place)).count() >= wanted
}

impl Change {
    fn name(&self) -> String {
        format!("member-{:?}", self.how).to_lowercase()
    }

    fn add(&mut self, cluster: &mut Cluster) -> Took {
        let Some(place) =
            cluster.nodes.iter().find(|node| node.id == 0 && node.process.is_none()).map(|node| node.place)
        else {
            return Took::NotNow("no place is free".to_owned());
        };
        match cluster.join(place, PATIENCE) {
            Ok(id) => {
                self.at = Some(place);
                let name = self.hold(cluster, place);
                match standing(cluster, &name) {
                    Ok(Some(standing)) => Took::Installed {
                        nodes: vec![id],
                        proof: format!("{name} is in the list of members: {standing}"),
                    },
                    Ok(None) => Took::Unknown(format!("{name} has joined and is not in the list of members")),
                    // That it has joined is known from its own process, which has its number.
                    Err(_) => Took::Installed { nodes: vec![id], proof: format!("{name} was given the number {id}") },
                }
            }
            Err(error) => {
                // Its number may have been given out, and its answer lost.
                let name = cluster.nodes.get(place).map(|node| node.name.clone()).unwrap_or_default();
                let _ = let_go(cluster, &name);
                Took::NotNow(format!("{error:#}"))
            }
        }
    }

    fn hold(&mut self, cluster: &mut Cluster, place: usize) -> String {
        let held = self.name();
        let Ok(node) = cluster.node_mut(place) else { return String::new() };
        if self.how != How::Add {
            node.held_by = Some(held);
        }
        self.leaves = Some(node.name.clone());
        node.name.clone()
    }

    fn take_away(&mut self, cluster: &mut Cluster) -> Took {
        let place = match self.at {
            Some(place) => place,
            None => match Whom::Any.find(cluster, &mut self.random) {
                Ok(place) => place,
                Err(why) => return Took::NotNow(why),
            },
        };
        let id = cluster.ids(&[place]);
        if self.at.is_none() {
            if cluster.members().len() < cluster.size {
                return Took::NotNow("there are fewer members than at the start already".to_owned());
            }
            if self.how == How::Replace {
                if !all_vote(cluster) {
                    return Took::NotNow("not as many vote as at the start".to_owned());
                }
                if let Err(error) = cluster.kill(place) {
                    return Took::unknown(&error);
                }
            }
            self.at = Some(place);
            self.hold(cluster, place);
        }
        let name = self.leaves.clone().unwrap_or_default();
        if let Ok(node) = cluster.node_mut(place) {
            // From now on it may hear of it at any time.
            node.removed = true;
        }
        match let_go(cluster, &name) {
            Ok(()) => Took::Installed { nodes: id, proof: format!("the cluster has let go of {name}") },
            Err(why) => Took::NotNow(why),
        }
    }

    /// Waits until the process of a removed node has ended, or ends it. Whether it did by itself.
    fn ends(cluster: &mut Cluster, place: usize) -> bool {
        let began = Instant::now();
        while began.elapsed() < ENDS {
            let ended = cluster
                .nodes
                .get_mut(place)
                .and_then(|node| node.process.as_mut())
                .is_none_or(|process| process.ended().is_some());
            if ended {
                if let Ok(node) = cluster.node_mut(place) {
                    node.process = None;
                }
                return true;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = cluster.kill(place);
        false
    }
}

impl Fault for Change {
    fn about(&self) -> String {
        match self.how {
            How::Add => "a node joins, and leaves again",
            How::Remove => "a node that runs is removed, and another one joins",
            How::Replace => "a node dies for good and is removed, and another one joins",
        }
        .to_owned()
    }

    fn install(&mut self, cluster: &mut Cluster) -> Took {
        let held = |by: &Option<String>| by.as_ref().is_some_and(|by| by.starts_with("member"));
        if self.at.is_none() && cluster.nodes.iter().any(|node| held(&node.held_by)) {
            return Took::NotNow("other members come and go".to_owned());
        }
        match self.how {
            How::Add => self.add(cluster),
            How::Remove | How::Replace => self.take_away(cluster),
        }
    }

    fn heal(&mut self, cluster: &mut Cluster) -> Healing {
        let Some(place) = self.at else { return Healing::Healed };
        if let Some(name) = self.leaves.clone() {
            if self.how == How::Add
                && let Ok(node) = cluster.node_mut(place)
            {
                if node.held_by.is_some() {
                    return Healing::NotYet("another fault has the node".to_owned());
                }
                node.held_by = Some("member-add".to_owned());
            }
            if let Ok(node) = cluster.node_mut(place) {
                node.removed = true;
            }
            if let Err(why) = let_go(cluster, &name) {
                if self.how == How::Add
                    && let Ok(node) = cluster.node_mut(place)
                {
                    node.held_by = None;
                }
                return Healing::NotYet(why);
            }
            Self::ends(cluster, place);
            cluster.empty(place);
            self.leaves = None;
        }
        if self.how != How::Add {
            let held = self.name();
            if let Err(error) = cluster.join(place, PATIENCE) {
                let name = cluster.nodes.get(place).map(|node| node.name.clone()).unwrap_or_default();
                let _ = let_go(cluster, &name);
                if let Ok(node) = cluster.node_mut(place) {
                    node.held_by = Some(held);
                }
                return Healing::NotYet(format!("{error:#}"));
            }
        }
        if let Ok(node) = cluster.node_mut(place) {
            node.held_by = None;
        }
        self.at = None;
        Healing::Healed
    }

    fn spares_others(&self) -> bool {
        true
    }
}
