//! Membership.

use super::{Admin, caller, cluster::role, problem::Problem, write::Write};
use machine::{
    Command, Registry,
    member::{NodeId, Standing},
};
use proto::admin::{
    ListMembersReply, ListMembersRequest, MemberInfo, MemberRequest, WriteResult, members_server::Members,
};
use std::collections::BTreeSet;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Members for Admin {
    async fn list(&self, _: Request<ListMembersRequest>) -> Result<Response<ListMembersReply>, Status> {
        let view = self.read().await?;
        let observation = self.raft().observe().await.map_err(Problem::from)?;
        let voters: BTreeSet<NodeId> =
            observation.members.iter().filter(|member| member.voter).map(|member| member.node).collect();
        let members = view
            .registry
            .members
            .values()
            .map(|member| MemberInfo {
                id: member.id,
                name: member.name.to_string(),
                role: role(member, observation.leader, voters.contains(&member.id)).to_owned(),
                address: member.address.clone(),
                gateway_address: member.gateway_address.clone(),
                gateway_tls_address: member.gateway_tls_address.clone(),
                ops_address: member.ops_address.clone(),
                zone: member.zone.clone().unwrap_or_default(),
                version: member.version.clone(),
                standing: standing(member.standing).to_owned(),
                joined_at_ms: member.joined_at.0,
                revision: member.revision,
            })
            .collect();
        Ok(Response::new(ListMembersReply { members }))
    }

    async fn promote(&self, request: Request<MemberRequest>) -> Result<Response<WriteResult>, Status> {
        Ok(self.set_standing(request, Standing::Eligible).await?)
    }

    async fn demote(&self, request: Request<MemberRequest>) -> Result<Response<WriteResult>, Status> {
        Ok(self.set_standing(request, Standing::Learner).await?)
    }

    async fn remove(&self, request: Request<MemberRequest>) -> Result<Response<WriteResult>, Status> {
        Ok(self.set_standing(request, Standing::Leaving).await?)
    }
}

impl Admin {
    async fn set_standing(
        &self,
        request: Request<MemberRequest>,
        standing: Standing,
    ) -> Result<Response<WriteResult>, Problem> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let write = Write::new(request.write)?;
        let view = self.read().await?;
        let id = find(&view.registry, &request.member)?;
        if let (Some(expected), Some(member)) = (write.if_revision, view.registry.members.get(&id))
            && member.revision != expected
        {
            let noun = machine::outcome::Noun::Member;
            return Err(machine::Refusal::Conflict { noun, expected, actual: member.revision }.into());
        }
        let done = self.write(&caller, &write, Command::SetStanding { id, standing }).await?;
        Ok(Response::new(done.result()))
    }
}

/// A member by its number or name. One that is leaving gives way to another of the same name.
pub(super) fn find(registry: &Registry, text: &str) -> Result<NodeId, Problem> {
    if let Ok(id) = text.parse::<NodeId>()
        && registry.members.contains_key(&id)
    {
        return Ok(id);
    }
    let named = || registry.members.values().filter(|member| member.name.as_str() == text);
    named().find(|member| !member.is_leaving()).or_else(|| named().next()).map(|member| member.id).ok_or_else(|| {
        Problem::not_found(format!("there is no member {text:?}")).hint("`quoratectl members list` lists them")
    })
}

/// As the protocol names it.
const fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Eligible => "eligible",
        Standing::Learner => "learner",
        Standing::Leaving => "leaving",
    }
}
