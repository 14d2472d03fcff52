//! The cluster's certificate authorities, and how one follows another: the new one is trusted first, on every node that is
//! reachable; its key goes to every voter; then it signs, and nodes renew by it; at last the one before is forgotten.
//! Each step looks at where the rotation stands, so that a rotation that was interrupted is taken up where it was.

use super::{
    Admin, Caller, caller,
    problem::Problem,
    write::{Done, Write},
};
use crate::{
    enrol::{Registrar, active_sha256, eligible},
    pki::{certificate::validity, trust::authorities_from_pem},
};
use machine::{
    Command, View,
    authority::{Authority, Phase},
};
use proto::admin::{
    AuthorityInfo, CaFinishRequest, CaRotateReply, CaRotateRequest, CaStatusReply, CaStatusRequest, NodeCertificate,
    ca_server::Ca,
};
use raft::Observation;
use std::{collections::BTreeSet, sync::Arc};
use tonic::{Code, Request, Response, Status};

#[tonic::async_trait]
impl Ca for Admin {
    async fn status(&self, _: Request<CaStatusRequest>) -> Result<Response<CaStatusReply>, Status> {
        let view = self.read().await?;
        let observation = self.raft().observe().await.map_err(Problem::from)?;
        Ok(Response::new(status(&view, &observation)))
    }

    async fn rotate(&self, request: Request<CaRotateRequest>) -> Result<Response<CaRotateReply>, Status> {
        let caller = caller(&request)?;
        let write = Write::new(request.into_inner().write)?;
        self.registrar.refuse_if_signed_outside().map_err(Problem::from)?;
        let before = self.read().await?;
        if in_phase(&before, Phase::Incoming).is_none() && in_phase(&before, Phase::Retiring).is_some() {
            let command = Command::SetAuthorityPhase { sha256: NOBODY, phase: Phase::Active };
            if let Ok(done) = self.write(&caller, &write, command).await {
                return Ok(Response::new(self.reply(&done).await?));
            }
            return Err(Problem::refused(
                "authority_phase",
                "the rotation before this one is not finished: an authority is still retiring",
            )
            .hint("`quoratectl ca rotate --finish` ends it")
            .into());
        }
        let incoming = match in_phase(&before, Phase::Incoming) {
            Some(incoming) => incoming.sha256,
            None => match self.add_authority(&caller, &write).await? {
                Step::Added(sha256) => sha256,
                Step::DoneBefore(done) => return Ok(Response::new(self.reply(&done).await?)),
            },
        };
        self.spread_key(&incoming).await?;
        let command = Command::SetAuthorityPhase { sha256: incoming, phase: Phase::Active };
        let done = self.write(&caller, &write, command).await?;
        tracing::info!(authority = %hex::encode(incoming), operator = %caller.name, "a new authority signs");
        Ok(Response::new(self.reply(&done).await?))
    }

    async fn finish(&self, request: Request<CaFinishRequest>) -> Result<Response<CaRotateReply>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let write = Write::new(request.write)?;
        let view = self.read().await?;
        let retiring: Vec<[u8; 32]> = view
            .registry
            .authorities
            .values()
            .filter(|authority| authority.phase == Phase::Retiring)
            .map(|authority| authority.sha256)
            .collect();
        let Some((last, others)) = retiring.split_last() else {
            if let Ok(done) = self.write(&caller, &write, Command::RemoveAuthority { sha256: NOBODY }).await {
                return Ok(Response::new(self.reply(&done).await?));
            }
            return Err(
                Problem::refused("authority_phase", "no authority is retiring: there is nothing to finish").into()
            );
        };
        if !request.force {
            self.refuse_while_in_use(&view).await?;
        }
        for sha256 in others {
            let step = write.step(&format!("remove {}", hex::encode(sha256)));
            self.write(&caller, &step, Command::RemoveAuthority { sha256: *sha256 }).await?;
        }
        let done = self.write(&caller, &write, Command::RemoveAuthority { sha256: *last }).await?;
        tracing::info!(operator = %caller.name, "the authority before is trusted no more");
        Ok(Response::new(self.reply(&done).await?))
    }
}

/// No authority's fingerprint. A step that has nothing left to do is proposed for it: if the request was done before, and
/// its answer lost, that is what comes back; else it is refused.
const NOBODY: [u8; 32] = [0; 32];

/// What adding an authority came to.
enum Step {
    /// This one was added.
    Added([u8; 32]),
    /// An earlier try of the same request did all there was to do.
    DoneBefore(Done),
}

impl Admin {
    /// Makes an authority and has every reachable node trust it.
    async fn add_authority(&self, caller: &Caller, write: &Write) -> Result<Step, Problem> {
        let certificate_pem = self.registrar.prepare_authority().await?;
        let prepared = authorities_from_pem(&certificate_pem)
            .ok()
            .and_then(|authorities| authorities.first().map(|authority| authority.sha256))
            .ok_or_else(|| Problem::internal("the new authority cannot be read"))?;
        let command = Command::AddAuthority { sha256: prepared, certificate_pem };
        let done = self.write(caller, &write.step("add"), command).await?;
        let view = self.applied(done.index).await?;
        if view.registry.authorities.contains_key(&prepared) {
            return Ok(Step::Added(prepared));
        }
        // The request had been tried before: whatever that try added is what counts.
        self.registrar.give_up(&prepared).map_err(|error| Problem::internal(error.to_string()))?;
        let view = Self::read(self).await?;
        Ok(in_phase(&view, Phase::Incoming).map_or(Step::DoneBefore(done), |incoming| Step::Added(incoming.sha256)))
    }

    /// Gives the key of the authority that is to sign to every voter that can be reached: if it were on one node alone,
    /// losing that node would mean that nobody can sign.
    async fn spread_key(&self, sha256: &[u8; 32]) -> Result<(), Problem> {
        let view = self.read().await?;
        let observation = self.raft().observe().await?;
        let reachable: BTreeSet<u64> =
            observation.members.iter().filter(|member| member.reachable).map(|member| member.node).collect();
        let own = view.registry.members.get(&self.registrar.node);
        if own.is_some_and(|member| member.standing == machine::member::Standing::Eligible) {
            self.registrar.fetch(sha256).await?;
        }
        let voters: Vec<_> =
            eligible(&view, self.registrar.node).into_iter().filter(|member| reachable.contains(&member.id)).collect();
        let without: Vec<String> = self
            .registrar
            .ask_to_hold(sha256, voters)
            .await
            .into_iter()
            .filter(|(_, holds)| !holds)
            .map(|(node, _)| node.to_string())
            .collect();
        if without.is_empty() {
            return Ok(());
        }
        Err(Problem::new(
            Code::Unavailable,
            "authority_key",
            format!("the new authority's key did not reach node {}", without.join(", ")),
        )
        .hint("the new authority is trusted and does not sign yet: rotate again to go on"))
    }

    /// Refuses while some node still shows a certificate of an authority that is to be forgotten.
    async fn refuse_while_in_use(&self, view: &View) -> Result<(), Problem> {
        let active = active_sha256(view).ok_or_else(|| Problem::internal("the cluster has no authority"))?;
        let observation = self.raft().observe().await?;
        let behind: Vec<String> = view
            .registry
            .members
            .values()
            .filter(|member| !member.is_leaving())
            .filter(|member| {
                observation
                    .members
                    .iter()
                    .find(|observed| observed.node == member.id)
                    .is_none_or(|observed| observed.certificate_authority_sha256 != active)
            })
            .map(|member| format!("{} ({})", member.id, member.name))
            .collect();
        if behind.is_empty() {
            return Ok(());
        }
        Err(Problem::refused(
            "authority_in_use",
            format!("not known to have a certificate of the new authority yet: node {}", behind.join(", ")),
        )
        .hint("nodes renew within a minute; one that is gone for good is to be removed first, or use --force"))
    }

    async fn reply(&self, done: &Done) -> Result<CaRotateReply, Problem> {
        let view = self.applied(done.index).await?;
        // It is done: that the status cannot be had this moment must not look otherwise.
        let observation = self.raft().observe().await.ok();
        Ok(CaRotateReply {
            result: Some(done.result()),
            status: observation.map(|observation| status(&view, &observation)),
            authorities_pem: Registrar::anchors_pem(&view).map_err(|error| Problem::internal(error.to_string()))?,
        })
    }
}

fn in_phase(view: &View, phase: Phase) -> Option<&Arc<Authority>> {
    view.registry.authorities.values().find(|authority| authority.phase == phase)
}

fn status(view: &View, observation: &Observation) -> CaStatusReply {
    let authorities = view
        .registry
        .authorities
        .values()
        .map(|authority| AuthorityInfo {
            sha256: hex::encode(authority.sha256),
            phase: match authority.phase {
                Phase::Incoming => "incoming",
                Phase::Active => "active",
                Phase::Retiring => "retiring",
            }
            .to_owned(),
            added_at_ms: authority.added_at.0,
            expires_at_ms: authorities_from_pem(&authority.certificate_pem)
                .ok()
                .and_then(|known| known.first().and_then(|known| validity(&known.certificate).ok()))
                .map_or(0, |validity| validity.not_after_ms),
        })
        .collect();
    let nodes = view
        .registry
        .members
        .keys()
        .map(|id| {
            let observed = observation.members.iter().find(|observed| observed.node == *id);
            NodeCertificate {
                node: *id,
                reachable: observed.is_some_and(|observed| observed.reachable),
                authority_sha256: observed
                    .map(|observed| hex::encode(&observed.certificate_authority_sha256))
                    .unwrap_or_default(),
                expires_at_ms: observed.map_or(0, |observed| observed.certificate_not_after_ms),
            }
        })
        .collect();
    CaStatusReply { authorities, nodes }
}
