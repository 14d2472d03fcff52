//! The membership loop: on the leader, it brings raft's membership to what the registry wants, one step at a time, and
//! tells the registry what follows from it. The next step is decided by [`plan`], a plain function; the loop only does
//! it and looks again.
//!
//! Nothing here takes a quorum away: no step leaves voters of whom a majority is not heard of. A removal that would
//! waits, and says so in the log, until more nodes are up or the operator has decided otherwise.

use crate::{adapt::engine::ChangeError, lead::NEARLY_THERE, node::Node, session::tenure::Tenure};
use machine::{
    Actor, Command, Outcome, Registry,
    member::{MemberSpec, NodeId, Standing},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// How often to look. Not at every entry: most have nothing to do with members, and members fall silent and catch up
/// without any.
const LOOK: Duration = Duration::from_millis(100);

/// After a step that was taken: what it has changed must be seen before the next.
const SETTLE: Duration = Duration::from_millis(20);

/// After a step that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What the leader sees of its cluster.
#[derive(Clone, Debug, Default)]
struct Sight {
    me: NodeId,
    /// What the operator wants, by member.
    wanted: BTreeMap<NodeId, Standing>,
    addresses: BTreeMap<NodeId, String>,
    /// How many shall vote.
    voters_wanted: usize,
    /// A silent learner is removed after this; 0 for never.
    learner_expiry_ms: u64,
    /// Who votes.
    voters: BTreeSet<NodeId>,
    /// Whom raft knows at all.
    known: BTreeSet<NodeId>,
    /// Two sets of voters, one about to replace the other.
    joint: bool,
    /// Raft's membership is committed.
    settled: bool,
    /// How many log entries each of raft's nodes lacks.
    behind: BTreeMap<NodeId, u64>,
    reachable: BTreeSet<NodeId>,
    silent_ms: BTreeMap<NodeId, u64>,
    /// Members that can hold no authority any more.
    over: BTreeSet<NodeId>,
    /// What members say that they are, where it differs from the registry.
    respecified: Vec<(NodeId, MemberSpec)>,
}

/// The next step towards what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// End a change of voters that was left half done.
    Settle,
    /// Let a newcomer follow.
    Follow(NodeId),
    /// Make these the voters.
    Vote(BTreeSet<NodeId>),
    /// Let go of these, who have no vote any more.
    LetGo(BTreeSet<NodeId>),
    /// This leader is not to vote any more: another must lead first.
    HandOver(NodeId),
    /// Propose, in the name of the node.
    Propose(NodeId, Command),
    /// Wait: the step would leave no majority that is heard of.
    Hold(&'static str),
}

/// Follows the registry until raft ends.
pub(crate) async fn follow(node: Arc<Node>) {
    let mut tenures = node.watch_tenure();
    loop {
        let tenure: Option<Arc<Tenure>> = tenures.borrow_and_update().clone();
        let mut pause = LOOK;
        if let Some(tenure) = tenure {
            let sight = sight(&node, &tenure);
            tenure.retain(|member| sight.wanted.contains_key(&member));
            match plan(&sight) {
                Some(Step::Hold(why)) => {
                    if node.hold(why) != why {
                        tracing::warn!("membership: {why}");
                    }
                }
                Some(step) => {
                    node.hold("");
                    tracing::info!(?step, "membership");
                    match take(&node, &tenure, &sight, step).await {
                        Ok(()) => pause = SETTLE,
                        Err(error) => {
                            tracing::warn!(%error, "membership: the step failed and is tried again");
                            pause = PAUSE;
                        }
                    }
                }
                None => drop(node.hold("")),
            }
        }
        tokio::select! {
            changed = tenures.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn sight(node: &Node, tenure: &Tenure) -> Sight {
    let standing = node.standing();
    let registry = &node.view().registry;
    let members: BTreeSet<NodeId> = registry.members.keys().chain(standing.peers.keys()).copied().collect();
    let (reachable, silent_ms) = tenure.look(|table, now_us| {
        let reachable = members.iter().copied().filter(|id| *id == node.id || table.reachable(*id, now_us)).collect();
        let silent = members.iter().map(|id| (*id, table.silent_us(*id, now_us) / 1000)).collect();
        (reachable, silent)
    });
    let behind = standing.peers.keys().map(|id| {
        let matched = if *id == node.id { Some(standing.last_index) } else { standing.matched.get(id).copied() };
        (*id, standing.last_index.saturating_sub(matched.unwrap_or(0)))
    });
    Sight {
        me: node.id,
        wanted: registry.members.iter().map(|(id, member)| (*id, member.standing)).collect(),
        addresses: registry.members.iter().map(|(id, member)| (*id, member.address.clone())).collect(),
        voters_wanted: usize::from(registry.settings.voters),
        learner_expiry_ms: registry.settings.learner_expiry_ms,
        voters: standing.voters.clone(),
        known: standing.peers.keys().copied().collect(),
        joint: standing.joint,
        settled: standing.settled,
        behind: behind.collect(),
        reachable,
        silent_ms,
        over: members.iter().copied().filter(|id| tenure.is_over(*id)).collect(),
        respecified: members
            .iter()
            .filter_map(|id| Some((*id, tenure.spec(*id)?)))
            .filter(|(id, spec)| differs(registry, *id, spec))
            .collect(),
    }
}

fn differs(registry: &Registry, id: NodeId, spec: &MemberSpec) -> bool {
    registry.members.get(&id).is_some_and(|member| {
        member.standing != Standing::Leaving
            && *spec
                != MemberSpec {
                    name: member.name.clone(),
                    address: member.address.clone(),
                    gateway_address: member.gateway_address.clone(),
                    gateway_tls_address: member.gateway_tls_address.clone(),
                    ops_address: member.ops_address.clone(),
                    zone: member.zone.clone(),
                    version: member.version.clone(),
                    feature_level_max: member.feature_level_max,
                }
    })
}

/// The next step, if any.
fn plan(sight: &Sight) -> Option<Step> {
    // Before the first entry there is nothing to follow; and one change at a time.
    if !sight.wanted.contains_key(&sight.me) || !sight.settled {
        return None;
    }
    if sight.joint {
        return Some(Step::Settle);
    }
    if let Some((id, spec)) = sight.respecified.first() {
        let command = Command::UpdateMember { id: *id, spec: spec.clone() };
        return Some(Step::Propose(*id, command));
    }
    let stays = |id: &NodeId| sight.wanted.get(id).is_some_and(|standing| *standing != Standing::Leaving);
    if let Some(newcomer) = sight.wanted.keys().find(|id| stays(id) && !sight.known.contains(id)) {
        return Some(Step::Follow(*newcomer));
    }
    voters(sight).or_else(|| forget(sight)).or_else(|| expire(sight))
}

/// Who shall vote, and who shall be let go.
fn voters(sight: &Sight) -> Option<Step> {
    let eligible = |id: &NodeId| sight.wanted.get(id) == Some(&Standing::Eligible);
    let leaves = |id: &NodeId| sight.wanted.get(id).is_none_or(|is| *is == Standing::Leaving);

    let mut keep: Vec<NodeId> = sight.voters.iter().copied().filter(eligible).collect();
    keep.sort_by_key(|id| (*id != sight.me, !sight.reachable.contains(id), *id));
    keep.truncate(sight.voters_wanted);
    let ready = |id: &NodeId| {
        eligible(id) && sight.reachable.contains(id) && sight.behind.get(id).is_some_and(|lack| *lack <= NEARLY_THERE)
    };
    let fresh = sight.known.iter().copied().filter(|id| !sight.voters.contains(id) && ready(id));
    let room = sight.voters_wanted.saturating_sub(keep.len());
    let voters: BTreeSet<NodeId> = keep.into_iter().chain(fresh.take(room)).collect();

    if voters == sight.voters {
        let let_go: BTreeSet<_> =
            sight.known.iter().copied().filter(|id| leaves(id) && !sight.voters.contains(id)).collect();
        return (!let_go.is_empty()).then_some(Step::LetGo(let_go));
    }
    if voters.is_empty() {
        return Some(Step::Hold("no eligible voter would be left: promote or add a node first"));
    }
    if voters.contains(&sight.me) {
        return Some(change(sight, voters));
    }
    if let Some(heir) = voters.iter().copied().find(|id| sight.voters.contains(id) && ready(id)) {
        return Some(Step::HandOver(heir));
    }
    // The heir must get a vote before this leader can hand over to it.
    let with_me: BTreeSet<NodeId> = voters.into_iter().chain([sight.me]).collect();
    if with_me == sight.voters {
        return Some(Step::Hold("no other voter is up to date and can take the lead"));
    }
    Some(change(sight, with_me))
}

/// The change, unless fewer than a majority of the voters after it are heard of.
fn change(sight: &Sight, voters: BTreeSet<NodeId>) -> Step {
    let heard = voters.intersection(&sight.reachable).count();
    if heard * 2 <= voters.len() {
        return Step::Hold("a removal waits: too few of the voters that would be left are reachable");
    }
    Step::Vote(voters)
}

/// A member on its way out that can do no harm any more.
fn forget(sight: &Sight) -> Option<Step> {
    let harmless = |id: &NodeId| !sight.known.contains(id) && sight.over.contains(id);
    let (gone, _) = sight.wanted.iter().find(|(id, standing)| **standing == Standing::Leaving && harmless(id))?;
    Some(Step::Propose(sight.me, Command::ForgetMember { id: *gone }))
}

/// A learner that has vanished.
fn expire(sight: &Sight) -> Option<Step> {
    if sight.learner_expiry_ms == 0 {
        return None;
    }
    let vanished = |id: &NodeId| sight.silent_ms.get(id).is_some_and(|silent| *silent > sight.learner_expiry_ms);
    let (gone, _) = sight
        .wanted
        .iter()
        .find(|(id, standing)| **standing != Standing::Leaving && !sight.voters.contains(id) && vanished(id))?;
    Some(Step::Propose(sight.me, Command::SetStanding { id: *gone, standing: Standing::Leaving }))
}

async fn take(node: &Node, tenure: &Tenure, sight: &Sight, step: Step) -> Result<(), ChangeError> {
    match step {
        Step::Settle => node.engine.settle().await,
        Step::Follow(id) => {
            let address = sight.addresses.get(&id).cloned().unwrap_or_default();
            node.engine.add_learner(id, address).await
        }
        Step::Vote(voters) => node.engine.set_voters(voters).await,
        Step::LetGo(learners) => node.engine.let_go(learners).await,
        Step::HandOver(heir) => {
            let handed = node.lead_transfer(Some(heir)).await;
            handed.map(drop).map_err(|why| ChangeError(format!("the lead was not handed over: {why:?}")))
        }
        Step::Propose(actor, command) => {
            let request = tenure.request(tenure.time(&sight.voters).wall);
            let forgotten = match &command {
                Command::ForgetMember { id } => Some(*id),
                _ => None,
            };
            let proposal = machine::Proposal { request, actor: Actor::Node(actor), command };
            let bytes = crate::codec::encode(&proposal).map_err(|error| ChangeError(error.to_string()))?.len();
            match node.lead_propose(proposal, bytes, node.timing.propose, Duration::ZERO).await {
                Ok(committed) => match committed.outcome {
                    Outcome::Refused(refusal) => {
                        // What a member says of itself and cannot be taken in must not hold up everything else.
                        tenure.forget_spec(actor);
                        Err(ChangeError(refusal.to_string()))
                    }
                    _ => {
                        if let Some(id) = forgotten {
                            tenure.forget(id);
                        }
                        Ok(())
                    }
                },
                Err(refused) => Err(ChangeError(format!("{refused:?}"))),
            }
        }
        Step::Hold(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes 1 to 3 vote, all is well, node 1 leads.
    fn three() -> Sight {
        let all = BTreeSet::from([1, 2, 3]);
        Sight {
            me: 1,
            wanted: all.iter().map(|id| (*id, Standing::Eligible)).collect(),
            voters_wanted: 3,
            learner_expiry_ms: 60_000,
            voters: all.clone(),
            known: all.clone(),
            settled: true,
            behind: all.iter().map(|id| (*id, 0)).collect(),
            reachable: all.clone(),
            silent_ms: all.iter().map(|id| (*id, 0)).collect(),
            ..Sight::default()
        }
    }

    fn newcomer(sight: &mut Sight, id: NodeId, standing: Standing) {
        sight.wanted.insert(id, standing);
        sight.known.insert(id);
        sight.reachable.insert(id);
        sight.behind.insert(id, 0);
        sight.silent_ms.insert(id, 0);
    }

    fn vote(voters: impl IntoIterator<Item = NodeId>) -> Option<Step> {
        Some(Step::Vote(voters.into_iter().collect()))
    }

    #[test]
    fn nothing_to_do() {
        assert_eq!(plan(&three()), None);
        assert_eq!(plan(&Sight::default()), None, "not even a first entry");
    }

    #[test]
    fn a_newcomer_follows_first_and_votes_when_it_is_up_to_date() {
        let mut sight = Sight { voters: [1, 2].into(), known: [1, 2].into(), ..three() };
        assert_eq!(plan(&sight), Some(Step::Follow(3)));
        sight.known.insert(3);
        sight.behind.insert(3, NEARLY_THERE + 1);
        assert_eq!(plan(&sight), None);
        sight.behind.insert(3, NEARLY_THERE);
        sight.reachable.remove(&3);
        assert_eq!(plan(&sight), None);
        sight.reachable.insert(3);
        assert_eq!(plan(&sight), vote([1, 2, 3]));
    }

    #[test]
    fn a_fourth_node_and_a_learner_do_not_vote() {
        let mut sight = three();
        newcomer(&mut sight, 4, Standing::Eligible);
        assert_eq!(plan(&sight), None);
        sight.wanted.insert(3, Standing::Learner);
        assert_eq!(plan(&sight), vote([1, 2, 4]), "demoted, and the fourth steps in");
        sight.wanted.insert(4, Standing::Learner);
        assert_eq!(plan(&sight), vote([1, 2]));
    }

    #[test]
    fn a_half_done_change_is_ended_first() {
        assert_eq!(plan(&Sight { joint: true, ..three() }), Some(Step::Settle));
        assert_eq!(plan(&Sight { joint: true, settled: false, ..three() }), None, "it is on its way");
    }

    #[test]
    fn who_leaves_is_replaced_let_go_and_forgotten() {
        let mut sight = three();
        newcomer(&mut sight, 4, Standing::Eligible);
        sight.wanted.insert(2, Standing::Leaving);
        assert_eq!(plan(&sight), vote([1, 3, 4]));
        sight.voters = [1, 3, 4].into();
        assert_eq!(plan(&sight), Some(Step::LetGo([2].into())));
        sight.known.remove(&2);
        sight.silent_ms.insert(2, 3_600_000);
        assert_eq!(plan(&sight), None, "it may still serve");
        sight.over.insert(2);
        assert_eq!(plan(&sight), Some(Step::Propose(1, Command::ForgetMember { id: 2 })));
    }

    #[test]
    fn a_removed_leader_hands_over_first() {
        let mut sight = three();
        sight.wanted.insert(1, Standing::Leaving);
        assert_eq!(plan(&sight), Some(Step::HandOver(2)));
        sight.behind.insert(2, 10_000);
        assert_eq!(plan(&sight), Some(Step::HandOver(3)));
        sight.reachable.remove(&3);
        assert!(matches!(plan(&sight), Some(Step::Hold(_))));
    }

    #[test]
    fn the_last_voter_stays_until_another_can_take_over() {
        let mut sight = Sight { voters: [1].into(), known: [1].into(), ..three() };
        sight.wanted = BTreeMap::from([(1, Standing::Leaving)]);
        assert!(matches!(plan(&sight), Some(Step::Hold(_))));
        newcomer(&mut sight, 2, Standing::Eligible);
        assert_eq!(plan(&sight), vote([1, 2]), "it gets a vote, and then the lead");
        sight.voters.insert(2);
        assert_eq!(plan(&sight), Some(Step::HandOver(2)));
    }

    #[test]
    fn a_removal_never_leaves_a_minority_that_is_heard_of() {
        let mut sight = three();
        sight.reachable.remove(&3);
        sight.wanted.insert(2, Standing::Leaving);
        assert!(matches!(plan(&sight), Some(Step::Hold(_))), "1 and 3 would be left, and 3 is not heard of");
        sight.wanted.insert(2, Standing::Eligible);
        sight.wanted.insert(3, Standing::Leaving);
        assert_eq!(plan(&sight), vote([1, 2]), "the one that is gone can go");
    }

    #[test]
    fn fewer_voters_wanted_keeps_the_leader_and_those_that_are_heard_of() {
        let mut sight = Sight { voters_wanted: 1, ..three() };
        assert_eq!(plan(&sight), vote([1]));
        for id in [4, 5] {
            newcomer(&mut sight, id, Standing::Eligible);
        }
        sight.voters = [1, 2, 3, 4, 5].into();
        sight.voters_wanted = 3;
        sight.reachable.remove(&2);
        assert_eq!(plan(&sight), vote([1, 3, 4]));
    }

    #[test]
    fn a_learner_that_vanished_is_removed_and_a_voter_never() {
        let mut sight = three();
        newcomer(&mut sight, 4, Standing::Learner);
        sight.silent_ms.extend([(2, 100_000), (4, 100_000)]);
        sight.reachable.remove(&4);
        let step = Step::Propose(1, Command::SetStanding { id: 4, standing: Standing::Leaving });
        assert_eq!(plan(&sight), Some(step));
        sight.learner_expiry_ms = 0;
        assert_eq!(plan(&sight), None);
    }

    #[test]
    fn a_member_that_moved_is_written_down() {
        let name = machine::Name::new("two").unwrap();
        let spec = MemberSpec {
            name,
            address: "two:7400".into(),
            gateway_address: String::new(),
            gateway_tls_address: String::new(),
            ops_address: String::new(),
            zone: None,
            version: "9".into(),
            feature_level_max: 1,
        };
        let sight = Sight { respecified: vec![(2, spec.clone())], ..three() };
        assert_eq!(plan(&sight), Some(Step::Propose(2, Command::UpdateMember { id: 2, spec })));
    }
}
