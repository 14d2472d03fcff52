//! The cluster as a whole.

use super::{Admin, caller, operators::admins_end, problem::Problem, write::Write};
use crate::{
    enrol::active_sha256,
    pki::token::{JoinToken, TOKEN_LIFE_MAX_MS, TOKEN_LIFE_MS},
};
use machine::{
    Command, Refusal, View, Wall,
    command::Precondition,
    member::{Member, Standing},
    outcome::Noun,
    settings::Settings as ClusterSettings,
};
use proto::admin::{
    ClockReply, ClockRequest, CreateJoinTokenReply, CreateJoinTokenRequest, FinalizeUpgradeReply,
    FinalizeUpgradeRequest, GetSettingsRequest, NodeClock, NodeStatus, PutSettingsRequest, Settings, StatusReply,
    StatusRequest, TransferLeaderReply, TransferLeaderRequest, WriteResult, cluster_server::Cluster,
};
use raft::{Observation, Observed};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Changes of settings that crossed another one are made again so often.
const ATTEMPTS_MAX: usize = 8;

#[tonic::async_trait]
impl Cluster for Admin {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let observation = self.raft().observe().await.ok();
        // Asked without a majority it says what this node knows, instead of nothing.
        let view = match &observation {
            Some(_) => self.raft().read().await.unwrap_or_else(|_| self.raft().view()),
            None => self.raft().view(),
        };
        let registry = &view.registry;
        let local = self.raft().local();
        let level_max = registry.members.values().filter(|member| !member.is_leaving());
        Ok(Response::new(StatusReply {
            leader: observation.as_ref().map_or(0, |observation| observation.leader),
            term: observation.as_ref().map_or(local.term, |observation| observation.term),
            revision: registry.revision,
            cluster: hex::encode(registry.cluster),
            feature_level: registry.feature_level,
            feature_level_max: level_max.map(|member| member.feature_level_max).min().unwrap_or(0),
            nodes: registry
                .members
                .values()
                .map(|member| match &observation {
                    Some(observation) => observed_status(member, observation),
                    None => lonely_status(member, &local),
                })
                .collect(),
            admins_end_ms: admins_end(registry).map_or(0, |end| end.0),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderReply>, Status> {
        let to = request.into_inner().to;
        let leader = self.raft().transfer_leader((to != 0).then_some(to)).await.map_err(Problem::from)?;
        let term = self.raft().observe().await.map_or_else(|_| self.raft().local().term, |observed| observed.term);
        Ok(Response::new(TransferLeaderReply { leader, term }))
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenReply>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut write = Write::new(request.write)?;
        let ttl_ms = match request.ttl_ms {
            0 => TOKEN_LIFE_MS,
            ttl_ms if ttl_ms <= TOKEN_LIFE_MAX_MS => ttl_ms,
            _ => return Err(Problem::invalid("a join token lasts at most 30 days").into()),
        };
        let view = self.read().await?;
        let authority = active_sha256(&view).ok_or_else(|| Problem::internal("the cluster has no authority"))?;
        let not_after = self.raft().time().wall.plus_ms(ttl_ms);
        for attempt in 0..ATTEMPTS_MAX {
            let token = JoinToken::create(authority).map_err(|error| Problem::internal(error.to_string()))?;
            let command = Command::CreateJoinToken { hash: token.hash(), not_after };
            let done = self.write(&caller, &write, command).await?;
            // A retry of a request whose answer was lost: that token is nobody's, and ends by itself.
            if self.applied(done.index).await?.registry.join_tokens.contains_key(&token.hash()) {
                return Ok(Response::new(CreateJoinTokenReply {
                    result: Some(done.result()),
                    token: token.text().to_string(),
                    expires_at_ms: not_after.0,
                }));
            }
            write = write.step(&format!("token {attempt}"));
        }
        Err(Problem::refused("unknown_outcome", "the request was repeated too often: send a new one").into())
    }

    async fn clock(&self, _: Request<ClockRequest>) -> Result<Response<ClockReply>, Status> {
        let observation = self.raft().observe().await.map_err(Problem::from)?;
        Ok(Response::new(ClockReply {
            tick_us: observation.at.tick.0,
            wall_ms: observation.at.wall.0,
            nodes: observation
                .members
                .iter()
                .map(|member| NodeClock { node: member.node, offset_ms: member.clock_offset_ms })
                .collect(),
        }))
    }

    async fn get_settings(&self, _: Request<GetSettingsRequest>) -> Result<Response<Settings>, Status> {
        let view = self.read().await?;
        let ClusterSettings { voters, learner_expiry_ms, audit_entries_max } = view.registry.settings;
        let revision = view.registry.settings_revision;
        Ok(Response::new(Settings { voters: u32::from(voters), learner_expiry_ms, audit_entries_max, revision }))
    }

    async fn put_settings(&self, request: Request<PutSettingsRequest>) -> Result<Response<WriteResult>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut write = Write::new(request.write.clone())?;
        for attempt in 0..ATTEMPTS_MAX {
            let view = self.read().await?;
            let present = &view.registry.settings;
            let settings = ClusterSettings {
                voters: match request.voters {
                    Some(voters) => u8::try_from(voters).unwrap_or(u8::MAX),
                    None => present.voters,
                },
                learner_expiry_ms: request.learner_expiry_ms.unwrap_or(present.learner_expiry_ms),
                audit_entries_max: request.audit_entries_max.unwrap_or(present.audit_entries_max),
            };
            // What the client left out must not undo what somebody else changed in between.
            let expected = write.if_revision.unwrap_or(view.registry.settings_revision);
            let command = Command::PutSettings { settings, precondition: Precondition::Revision(expected) };
            match self.write(&caller, &write, command).await {
                Err(problem) if problem.is_conflict() && write.if_revision.is_none() => {
                    write = write.step(&format!("settings {attempt}"));
                }
                written => return Ok(Response::new(written?.result())),
            }
        }
        Err(crossed(Noun::Settings).into())
    }

    async fn finalize_upgrade(
        &self,
        request: Request<FinalizeUpgradeRequest>,
    ) -> Result<Response<FinalizeUpgradeReply>, Status> {
        let caller = caller(&request)?;
        let write = Write::new(request.into_inner().write)?;
        let level = machine::FEATURE_LEVEL_MAX;
        let done = self.write(&caller, &write, Command::RaiseFeatureLevel { level }).await?;
        Ok(Response::new(FinalizeUpgradeReply { result: Some(done.result()), feature_level: level }))
    }
}

/// The refusal of a change that crossed others again and again.
pub(super) fn crossed(noun: Noun) -> Problem {
    Problem::from(Refusal::Conflict { noun, expected: 0, actual: 0 })
        .message(format!("the {noun} changed again and again while this was being done: try again"))
}

/// As the leader sees it.
fn observed_status(member: &Arc<Member>, observation: &Observation) -> NodeStatus {
    let unknown = Observed { node: member.id, ..Observed::default() };
    let observed = observation.members.iter().find(|observed| observed.node == member.id).unwrap_or(&unknown);
    NodeStatus {
        id: member.id,
        name: member.name.to_string(),
        role: role(member, observation.leader, observed.voter).to_owned(),
        reachable: observed.reachable,
        applied: observed.enforced,
        lag: observation.last_index.saturating_sub(observed.enforced),
        authority_ms: observed.authority_ms,
        version: member.version.clone(),
        address: member.address.clone(),
        clock_offset_ms: observed.clock_offset_ms,
        zone: member.zone.clone().unwrap_or_default(),
    }
}

/// As a node sees it that hears of no leader.
fn lonely_status(member: &Arc<Member>, local: &raft::LocalStatus) -> NodeStatus {
    let is_self = member.id == local.node;
    let voter = if is_self { local.voter } else { member.standing == Standing::Eligible };
    NodeStatus {
        id: member.id,
        name: member.name.to_string(),
        role: role(member, 0, voter).to_owned(),
        reachable: is_self,
        applied: if is_self { local.enforced } else { 0 },
        lag: if is_self { local.last_index.saturating_sub(local.enforced) } else { 0 },
        authority_ms: is_self.then_some(local.authority_ms),
        version: member.version.clone(),
        address: member.address.clone(),
        clock_offset_ms: None,
        zone: member.zone.clone().unwrap_or_default(),
    }
}

/// As the protocol names it.
pub(super) fn role(member: &Member, leader: u64, voter: bool) -> &'static str {
    if member.is_leaving() {
        "leaving"
    } else if member.id == leader {
        "leader"
    } else if voter {
        "voter"
    } else {
        "learner"
    }
}

/// The cluster's time, where the state has one that is later than what this node reckons.
pub(super) fn now(view: &View, raft: &raft::Handle) -> Wall {
    view.at.wall.max(raft.time().wall)
}
