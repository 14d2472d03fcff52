//! What only the leader can answer. Each of these is asked by this node's own handle and by other nodes' alike.

use crate::{
    batch::{ACQUIRE_BYTES_MAX, Declined, PROPOSAL_BYTES_MAX},
    mutation::{self, Mutation},
    node::Node,
    session::tenure::{SessionId, Tenure},
    status::{FenceState, Observation, Observed},
};
use machine::{
    At, Outcome, Proposal,
    allowance::{Acquire, Answer},
    member::NodeId,
};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

/// A voter may be handed leadership if so few entries of the log are missing there.
pub(crate) const NEARLY_THERE: u64 = 256;

/// A node whose UTC is off by more does not lead while another can: the cluster's calendar would rest on the others' word
/// about it alone.
const OFF_MS_MAX: u64 = 1_000;

/// A proposal that was committed and applied.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    pub(crate) outcome: Outcome,
    pub(crate) index: u64,
    pub(crate) fence: Vec<(NodeId, FenceState)>,
    /// This node has ceased to lead before the fence was settled: the next leader can settle it.
    pub(crate) fence_lost: bool,
}

/// Why leadership stays where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It was not this node's to give.
    NotLeader,
    /// It would be wrong, and why.
    Refused(String),
    /// Nobody else led in time.
    TimedOut,
}

/// A lease, as the leader answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) ttl_us: u64,
    pub(crate) read_index: u64,
}

/// Why a leader has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// This node does not lead, or no longer. Not done.
    NotLeader,
    /// Not done.
    Overloaded,
    /// Not done.
    DiskFull,
    /// Not done.
    TooLarge,
    /// Perhaps done.
    Unknown,
}

impl From<Declined> for Refused {
    fn from(declined: Declined) -> Self {
        match declined {
            Declined::NotLeader | Declined::Stopped => Self::NotLeader,
            Declined::Overloaded => Self::Overloaded,
            Declined::DiskFull => Self::DiskFull,
            Declined::Unknown => Self::Unknown,
        }
    }
}

impl Node {
    /// Has a proposal done, and waits for the fence.
    pub(crate) async fn lead_propose(
        &self,
        proposal: Proposal,
        bytes: usize,
        within: Duration,
        fence_within: Duration,
    ) -> Result<Committed, Refused> {
        let tenure = self.tenure().ok_or(Refused::NotLeader)?;
        if bytes > PROPOSAL_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        if self.disks_full(&tenure) {
            return Err(Refused::DiskFull);
        }
        // Not at once: without its first keys a run does not begin.
        if mutation::is(Mutation::AcknowledgesBeforeTheCommit) && self.applied().index() > 200 {
            return Ok(self.acknowledge_before_the_commit(&tenure, proposal, bytes, within));
        }
        let (outcome, index) = self.batcher.propose(proposal, bytes, within).await?;
        let mut committed = Committed { outcome, index, fence: Vec::new(), fence_lost: false };
        if mutation::is(Mutation::AcknowledgesBeforeTheFence) {
            let members = self.view().registry.members.keys().copied().collect::<Vec<_>>();
            committed.fence = members.into_iter().map(|member| (member, FenceState::Applied)).collect();
            return Ok(committed);
        }
        if !fence_within.is_zero() && !matches!(committed.outcome, Outcome::Refused(_)) {
            let began = Instant::now();
            // The tenure that lasts now that it is committed: in the book of one that had ended before, later grants from
            // before the write would be missing.
            let now = self.tenure();
            // All of them, leaving ones too; whoever joins later starts from a state that has this entry.
            let members: Vec<_> = self.view().registry.members.keys().copied().collect();
            let mut tenures = self.watch_tenure();
            let states = match &now {
                Some(tenure) => {
                    let over = tenures.wait_for(|now| now.as_ref().is_none_or(|now| now.reign != tenure.reign));
                    tokio::select! {
                        states = tenure.fence(index, &members, fence_within) => Some(states),
                        _ = over => None,
                    }
                }
                None => None,
            };
            committed.fence_lost = states.is_none();
            committed.fence =
                states.unwrap_or_else(|| members.iter().map(|member| (*member, FenceState::Pending)).collect());
            metrics::histogram!("quorate_raft_fence_seconds").record(began.elapsed().as_secs_f64());
        }
        Ok(committed)
    }

    /// A bug, see [`Mutation::AcknowledgesBeforeTheCommit`].
    fn acknowledge_before_the_commit(
        &self,
        tenure: &Tenure,
        proposal: Proposal,
        bytes: usize,
        within: Duration,
    ) -> Committed {
        let (applied, at) = (self.applied(), tenure.time(&self.standing().voters));
        let machine::Applied { outcome, index } = applied.state.clone().apply(applied.index() + 1, at, &proposal);
        let members = applied.state.registry.members.keys();
        let fence = members.map(|member| (*member, FenceState::Applied)).collect();
        let batcher = self.batcher.clone();
        tokio::spawn(async move { batcher.propose(proposal, bytes, within).await });
        Committed { outcome, index, fence, fence_lost: false }
    }

    /// Serves what a node asks of the limits.
    pub(crate) async fn lead_acquire(&self, acquire: Acquire, bytes: usize) -> Result<Answer, Refused> {
        if bytes > ACQUIRE_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        self.tenure().ok_or(Refused::NotLeader)?;
        Ok(self.batcher.acquire(acquire, bytes).await?)
    }

    /// Grants a member authority for what it reported just now, or `None` if it is to have none or no majority says that
    /// this node leads. The order of the steps is what the guarantee rests on.
    pub(crate) async fn lead_grant(&self, tenure: &Tenure, session: SessionId, member: NodeId) -> Option<Grant> {
        let stays = || {
            let view = self.view();
            view.registry.members.get(&member).is_some_and(|member| !member.is_leaving())
        };
        // What is booked for one that leaves would only put off the time at which it can be forgotten.
        if !stays() {
            return None;
        }
        // First the book: a fence that begins from here on waits for this grant, or is of a write that `read_index` has.
        tenure.grant(session, member);
        // Again: if it has not begun to leave by now, then whoever wants to forget it will find the grant.
        if !stays() {
            return None;
        }
        // Then the index, confirmed by a round that begins after the report has arrived.
        let patience = self.timing.silence / 2;
        let read_index = if mutation::is(Mutation::GrantsWithoutAMajority) {
            self.applied().index()
        } else {
            tokio::time::timeout(patience, self.engine.read_index()).await.ok()?.ok()?
        };
        // A tenure that has ended books for nobody: the next one assumes grants up to its own beginning alone.
        let lasts = self.tenure().is_some_and(|now| now.reign == tenure.reign);
        lasts.then(|| Grant { ttl_us: tenure.lease_us(), read_index })
    }

    /// Whether so many voters' disks are nearly full that the others are no majority, or this node's own is.
    fn disks_full(&self, tenure: &Tenure) -> bool {
        let voters = self.standing().voters.clone();
        let full = |node: &NodeId| tenure.heard(*node).is_some_and(|heard| heard.said.disk_low);
        self.disk_low() || voters.iter().filter(|node| full(node)).count() * 2 >= voters.len().max(1)
    }

    /// The index that a read must have applied; `None` if no majority says that this node leads.
    pub(crate) async fn lead_read_index(&self) -> Option<u64> {
        self.tenure()?;
        self.engine.read_index().await.ok()
    }

    /// What this node knows of the members as their leader. A leader that was cut off knows nothing of them any more,
    /// and may have a successor.
    pub(crate) fn lead_observe(&self) -> Option<Observation> {
        let tenure = self.tenure()?;
        self.engine.quorum_heard_ms().filter(|ms| u128::from(*ms) <= self.timing.silence.as_millis())?;
        let standing = self.standing();
        let at = tenure.time(&standing.voters);
        let view = self.view();
        let nodes: BTreeSet<NodeId> = view.registry.members.keys().chain(standing.peers.keys()).copied().collect();
        let voter = |node: &NodeId| standing.voters.contains(node);
        let members = nodes.iter().map(|node| observe(&tenure, *node, voter(node), at)).collect();
        Some(Observation {
            leader: self.id,
            term: standing.term,
            last_index: standing.last_index,
            at,
            settled: standing.settled && !standing.joint,
            held: self.held().to_owned(),
            members,
        })
    }

    /// Hands leadership over and waits until another leads.
    pub(crate) async fn lead_transfer(&self, to: Option<NodeId>) -> Result<NodeId, Kept> {
        let tenure = self.tenure().ok_or(Kept::NotLeader)?;
        let to = match to {
            Some(to) => self.fit(&tenure, to).map(|()| to).map_err(Kept::Refused)?,
            None => self
                .heir(&tenure)
                .ok_or_else(|| Kept::Refused("no other voter is reachable and up to date".to_owned()))?,
        };
        if to == self.id {
            return Ok(to);
        }
        tracing::info!(to, "handing over leadership");
        self.engine.transfer(to).await.map_err(|_| Kept::NotLeader)?;
        let mut standing = self.watch_standing();
        let led_by_another = standing.wait_for(|now| now.leader.is_some_and(|leader| leader != self.id));
        match tokio::time::timeout(self.timing.election_max * 4, led_by_another).await {
            Ok(Ok(now)) => Ok(now.leader.unwrap_or(to)),
            _ => Err(Kept::TimedOut),
        }
    }

    /// Why leadership cannot be handed to this node, if it cannot.
    fn fit(&self, tenure: &Tenure, to: NodeId) -> Result<(), String> {
        let standing = self.standing();
        if to == self.id {
            return Ok(());
        }
        if !standing.voters.contains(&to) {
            return Err(format!("node {to} has no vote"));
        }
        if !tenure.look(|table, now_us| table.reachable(to, now_us)) {
            return Err(format!("node {to} is not reachable"));
        }
        let behind = standing.last_index.saturating_sub(standing.matched.get(&to).copied().unwrap_or(0));
        if behind > NEARLY_THERE {
            return Err(format!("node {to} is {behind} log entries behind"));
        }
        Ok(())
    }

    /// Whether a member's date is wrong, by what a majority of the voters says.
    fn is_off(&self, tenure: &Tenure, node: NodeId) -> bool {
        let off_by_ms = tenure.off_by_ms(node, &self.standing().voters);
        off_by_ms.is_some_and(|off_by_ms| off_by_ms.unsigned_abs() > OFF_MS_MAX)
    }

    /// Hands leadership over if this node leads with a wrong date and another voter has the right one.
    pub(crate) async fn lead_with_right_date(&self) {
        let Some(tenure) = self.tenure().filter(|tenure| self.is_off(tenure, self.id)) else { return };
        let Some(heir) = self.heir(&tenure) else { return };
        tracing::error!("this node's date is off by more than a second from the other voters': it does not lead");
        if let Err(kept) = self.lead_transfer(Some(heir)).await {
            tracing::warn!(?kept, "leadership could not be handed over");
        }
    }

    /// The voter that may best take over.
    pub(crate) fn heir(&self, tenure: &Tenure) -> Option<NodeId> {
        let standing = self.standing();
        let view = self.view();
        let stays = |node: &NodeId| {
            let member = view.registry.members.get(node);
            member.is_none_or(|member| member.standing == machine::member::Standing::Eligible)
        };
        standing
            .voters
            .iter()
            .copied()
            .filter(|node| *node != self.id && stays(node) && self.fit(tenure, *node).is_ok())
            .filter(|node| !self.is_off(tenure, *node))
            .max_by_key(|node| standing.matched.get(node).copied().unwrap_or(0))
    }
}

fn observe(tenure: &Arc<Tenure>, node: NodeId, voter: bool, at: At) -> Observed {
    let heard = tenure.heard(node);
    let (reachable, now_us) = tenure.look(|table, now_us| (table.reachable(node, now_us), now_us));
    let authority_ms = tenure.authority_us(node).map(|us| us / 1000);
    let Some(heard) = heard else { return Observed { node, voter, authority_ms, ..Observed::default() } };
    let silent_us = now_us.saturating_sub(heard.at_us);
    let utc_ms = heard.said.utc_ms.saturating_add(silent_us / 1000);
    let offset = i128::from(utc_ms) - i128::from(at.wall.0);
    Observed {
        node,
        reachable,
        voter,
        enforced: heard.said.enforced,
        clock_offset_ms: i64::try_from(offset).ok(),
        certificate_authority_sha256: heard.said.authority_sha256,
        certificate_not_after_ms: heard.said.not_after_ms,
        silent_ms: Some(silent_us / 1000),
        authority_ms,
    }
}
