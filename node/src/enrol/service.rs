//! The service `peer.v1.Enrol`. `Join` is open to anybody, so it costs an attacker more than it costs the cluster: few at
//! a time, everything bounded, and nothing is proposed for a token that the cluster does not know.

use super::{MESSAGE_BYTES_MAX, Registrar, SignError, authorities_pem, eligible, others};
use crate::{
    admin::problem::{Problem, refused},
    pki::{OPERATOR_LIFE_MAX, PEM_BYTES_MAX, PkiError, authority, token::JoinToken},
};
use machine::{
    Actor, Command, Name, Outcome, Refusal, RequestId, Wall,
    member::{MemberSpec, NodeId, Standing},
};
use proto::peer::{
    AuthorityKeyReply, AuthorityKeyRequest, HoldAuthorityReply, HoldAuthorityRequest, JoinReply, JoinRequest,
    PeerAddress, PrepareAuthorityReply, PrepareAuthorityRequest, RenewReply, RenewRequest, SignOperatorReply,
    SignOperatorRequest,
    enrol_client::EnrolClient,
    enrol_server::{Enrol, EnrolServer},
};
use raft::Fence;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status};

/// Joins at a time: they come by hand, or a handful when a deployment starts.
const JOINS_MAX: usize = 8;
/// A join that another member answers.
const FORWARD_PATIENCE: Duration = Duration::from_secs(15);
/// Marks a join that was passed on once, so that it is not passed on again.
const FORWARDED: &str = "quorate-forwarded";
/// Bytes of what a newcomer tells of itself.
const SPEC_BYTES_MAX: usize = 8 * 1024;

/// The service.
#[derive(Clone)]
pub struct EnrolService {
    registrar: Registrar,
    joins: Arc<Semaphore>,
}

impl EnrolService {
    /// The service of a running node.
    #[must_use]
    pub fn server(registrar: Registrar) -> EnrolServer<Self> {
        EnrolServer::new(Self { registrar, joins: Arc::new(Semaphore::new(JOINS_MAX)) })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The member that asks, which must not be on its way out.
    fn member<T>(&self, request: &Request<T>, voter: bool) -> Result<NodeId, Problem> {
        let refused = |message: &str| Problem::new(Code::PermissionDenied, "not_permitted", message);
        let raft::Caller(id) = request.extensions().get().copied().ok_or_else(|| refused("this is for members"))?;
        let view = self.registrar.raft().view();
        let standing = view.registry.members.get(&id).map(|member| member.standing);
        match standing {
            None | Some(Standing::Leaving) => Err(refused("this is for members")),
            Some(Standing::Learner) if voter => Err(refused("this is for members that may vote")),
            Some(Standing::Eligible | Standing::Learner) => Ok(id),
        }
    }

    /// A newcomer must know who signs before its token is spent.
    fn refuse_other_signing(&self, outside: bool) -> Result<(), Problem> {
        match (self.registrar.signed_outside, outside) {
            (true, false) => {
                Err(Problem::refused("signed_outside", "the certificates of this cluster are signed outside")
                    .hint("join with --csr-out FILE, and have that request signed; the token was not spent"))
            }
            (false, true) => {
                Err(Problem::refused("signed_inside", "this cluster signs the certificates of its nodes itself")
                    .hint("join without --csr-out; the token was not spent"))
            }
            _ => Ok(()),
        }
    }

    async fn admit(&self, request: Request<JoinRequest>) -> Result<JoinReply, Problem> {
        let _permit = self.joins.try_acquire().map_err(|_| {
            Problem::new(Code::ResourceExhausted, "overloaded", "too many nodes are joining at once: try again shortly")
        })?;
        let forwarded = request.metadata().contains_key(FORWARDED);
        let join = request.into_inner();
        let token: JoinToken = join.token.parse().map_err(|error| invalid_token(&error))?;
        let request_id = RequestId {
            issued: Wall(join.request_issued_ms),
            random: u128::from_be_bytes(
                join.request_random
                    .as_ref()
                    .try_into()
                    .map_err(|_| Problem::invalid("request_random must be 16 bytes"))?,
            ),
        };
        if join.spec.len() > SPEC_BYTES_MAX || join.certificate_request_pem.len() > PEM_BYTES_MAX {
            return Err(Problem::invalid("the request is too large"));
        }
        let spec: MemberSpec = serde_json::from_slice(&join.spec)
            .map_err(|error| Problem::invalid(format!("what the node tells of itself cannot be read: {error}")))?;
        authority::check_request(&join.certificate_request_pem).map_err(|error| Problem::invalid(error.to_string()))?;

        self.refuse_other_signing(join.signed_outside)?;

        let view = self.registrar.raft().read().await?;
        let authority = self.registrar.active(&view).map_err(internal)?;
        if authority.is_none() && !self.registrar.signed_outside {
            if forwarded {
                return Err(Problem::new(Code::Unavailable, "no_key", "this node cannot sign: ask a voter"));
            }
            return self.forward(&view, join).await;
        }
        match view.registry.join_tokens.get(&token.hash()) {
            None => return Err(refused(Refusal::TokenUnknown, view.at.wall)),
            Some(known) if known.used_by.is_none() && self.registrar.raft().time().wall >= known.not_after => {
                return Err(refused(Refusal::TokenExpired, view.at.wall));
            }
            Some(_) => {}
        }
        let command = Command::AdmitMember { token_hash: token.hash(), spec, learner: join.learner };
        let written =
            self.registrar.raft().propose(request_id, Actor::Node(self.registrar.node), command, Fence::None).await?;
        let id = match written.outcome {
            Outcome::Admitted { id, .. } => id,
            Outcome::Refused(refusal) => return Err(refused(refusal, self.registrar.raft().time().wall)),
            Outcome::Done { .. } => return Err(Problem::invalid("this request id was used for something else")),
        };
        let certificate_pem = match authority.filter(|_| !self.registrar.signed_outside) {
            Some(authority) => authority
                .sign_node(&join.certificate_request_pem, self.registrar.cluster, id, self.registrar.now_ms())
                .map(|signed| signed.pem)
                .map_err(internal)?,
            None => String::new(),
        };
        let peers =
            others(&view, id).map(|member| PeerAddress { node: member.id, address: member.address.clone() }).collect();
        tracing::info!(node = id, "a node has been admitted");
        Ok(JoinReply {
            node: id,
            cluster: self.registrar.cluster.to_vec().into(),
            certificate_pem,
            authorities_pem: authorities_pem(&view),
            peers,
        })
    }

    /// Passes a join on to a member that can sign.
    async fn forward(&self, view: &machine::View, join: JoinRequest) -> Result<JoinReply, Problem> {
        let mut last = Problem::new(Code::Unavailable, "no_key", "no node that can sign is reachable");
        for member in eligible(view, self.registrar.node) {
            let Ok(channel) = (self.registrar.dial)(member.id, member.address.clone()).await else { continue };
            let mut request = Request::new(join.clone());
            request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
            let mut client = EnrolClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            match tokio::time::timeout(FORWARD_PATIENCE, client.join(request)).await {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) if status.code() == Code::Unavailable => last = Problem::passed_on(&status),
                Ok(Err(status)) => return Err(Problem::passed_on(&status)),
                // It may have been done; the newcomer repeats the same request.
                Err(_) => {
                    last = Problem::new(Code::Unavailable, "unknown_outcome", "another node did not answer in time")
                }
            }
        }
        Err(last)
    }
}

#[tonic::async_trait]
impl Enrol for EnrolService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        Ok(Response::new(self.admit(request).await?))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let id = self.member(&request, false)?;
        let view = self.registrar.raft().view();
        let authority = self.registrar.active(&view).map_err(internal)?.ok_or_else(no_key)?;
        let signed = authority
            .sign_node(&request.get_ref().certificate_request_pem, self.registrar.cluster, id, self.registrar.now_ms())
            .map_err(|error| Problem::invalid(error.to_string()))?;
        Ok(Response::new(RenewReply { certificate_pem: signed.pem, authorities_pem: authorities_pem(&view) }))
    }

    async fn authority_key(
        &self,
        request: Request<AuthorityKeyRequest>,
    ) -> Result<Response<AuthorityKeyReply>, Status> {
        let id = self.member(&request, true)?;
        let sha256 = fingerprint(&request.get_ref().sha256)?;
        let authority = self.registrar.held(&sha256).map_err(internal)?.ok_or_else(no_key)?;
        tracing::info!(node = id, authority = %hex::encode(sha256), "handing the authority's key to a voter");
        Ok(Response::new(AuthorityKeyReply { key_pem: authority.key_pem().to_string() }))
    }

    async fn hold_authority(
        &self,
        request: Request<HoldAuthorityRequest>,
    ) -> Result<Response<HoldAuthorityReply>, Status> {
        self.member(&request, false)?;
        let sha256 = fingerprint(&request.get_ref().sha256)?;
        let holds = match self.registrar.fetch(&sha256).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, "the authority's key could not be fetched");
                false
            }
        };
        Ok(Response::new(HoldAuthorityReply { holds }))
    }

    async fn sign_operator(
        &self,
        request: Request<SignOperatorRequest>,
    ) -> Result<Response<SignOperatorReply>, Status> {
        self.member(&request, false)?;
        let view = self.registrar.raft().view();
        let authority = self.registrar.active(&view).map_err(internal)?.ok_or_else(no_key)?;
        let wanted = request.into_inner();
        let name = Name::new(&wanted.name).map_err(|error| Problem::invalid(error.to_string()))?;
        let life = Duration::from_millis(wanted.ttl_ms).min(OPERATOR_LIFE_MAX);
        let signed = authority
            .sign_operator(&wanted.certificate_request_pem, &name, life, self.registrar.now_ms())
            .map_err(|error| Problem::invalid(error.to_string()))?;
        Ok(Response::new(SignOperatorReply { certificate_pem: signed.pem }))
    }

    async fn prepare_authority(
        &self,
        request: Request<PrepareAuthorityRequest>,
    ) -> Result<Response<PrepareAuthorityReply>, Status> {
        self.member(&request, false)?;
        let active = self.registrar.active(&self.registrar.raft().view()).map_err(internal)?.ok_or_else(no_key)?;
        let next = active
            .create_next(self.registrar.cluster, self.registrar.now_ms())
            .and_then(|next| self.registrar.hold(next))
            .map_err(internal)?;
        Ok(Response::new(PrepareAuthorityReply { certificate_pem: next.certificates_pem().to_owned() }))
    }
}

fn fingerprint(bytes: &[u8]) -> Result<[u8; 32], Problem> {
    bytes.try_into().map_err(|_| Problem::invalid("sha256 must be 32 bytes"))
}

fn no_key() -> Problem {
    Problem::new(Code::Unavailable, "no_key", "this node does not hold the authority's key")
}

fn invalid_token(error: &crate::pki::token::InvalidToken) -> Problem {
    Problem::new(Code::InvalidArgument, "token_invalid", error.to_string())
}

/// This node's keys are no good: that is logged here, and is nobody else's business.
#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn internal(error: PkiError) -> Problem {
    tracing::error!(%error, "the node's keys cannot be used");
    Problem::internal("the node's keys cannot be used: its log says why")
}

impl From<SignError> for Problem {
    fn from(error: SignError) -> Self {
        match error {
            SignError::Request(message) => Self::invalid(message),
            SignError::Unreachable(_) => Self::new(Code::Unavailable, "no_key", error.to_string()),
            SignError::SignedOutside { ref instead } => {
                Self::refused("signed_outside", error.to_string()).hint(instead.clone())
            }
            SignError::Pki(error) => internal(error),
        }
    }
}
