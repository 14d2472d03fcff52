//! Who may call what on the cluster port. Every request passes here, and what is not allowed by name is refused. A node
//! may call the services between nodes while it is a member, an operator the admin services that its role reaches, and
//! a newcomer nothing but `Enrol.Join`, where its token decides.

use super::{Peer, PeerCertificate};
use crate::{
    admin::{self, problem::Problem, role},
    pki::{
        certificate::Speaker,
        trust::{authorities_from_pem, sponsors},
    },
};
use machine::{Registry, View, Wall, member::NodeId};
use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    task::{Context, Poll},
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

/// Decides for every request of the cluster port.
#[derive(Clone, Debug)]
pub struct Gate {
    raft: raft::Handle,
    cluster: [u8; 16],
}

/// What a request is let in as.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Admitted {
    Anybody,
    Node(NodeId),
    Operator(admin::Caller),
}

impl Gate {
    /// The gate of a node of this cluster.
    #[must_use]
    pub const fn new(raft: raft::Handle, cluster: [u8; 16]) -> Self {
        Self { raft, cluster }
    }

    pub(super) const fn into_layer(self) -> GateLayer {
        GateLayer(self)
    }

    fn admit(&self, request: &mut http::Request<Body>) -> Result<(), Status> {
        let peer = request.extensions().get::<Peer>();
        let admitted = decide(request.uri().path(), peer, self.cluster, &self.raft.view(), self.raft.time().wall)?;
        match admitted {
            Admitted::Anybody => {}
            Admitted::Node(id) => {
                request.extensions_mut().insert(raft::Caller(id));
            }
            Admitted::Operator(caller) => {
                request.extensions_mut().insert(caller);
            }
        }
        Ok(())
    }
}

const JOIN: &str = "/quorate.peer.v1.Enrol/Join";

fn decide(path: &str, peer: Option<&Peer>, cluster: [u8; 16], view: &View, now: Wall) -> Result<Admitted, Problem> {
    if path == JOIN {
        return Ok(Admitted::Anybody);
    }
    let certificate = peer.and_then(|peer| peer.certificate.as_ref()).ok_or_else(|| {
        Problem::new(Code::Unauthenticated, "unauthenticated", "this needs a client certificate of the cluster")
            .hint("use the context file that `quorate init` or `quoratectl operators create` made")
    })?;
    // Authorities may have come and gone since the handshake.
    let is_trusted = certificate
        .sponsors
        .iter()
        .any(|authority| !view.registry.is_initialized() || view.registry.authorities.contains_key(authority))
        || is_sponsored_by_now(certificate, &view.registry);
    match &certificate.speaker {
        Some(Speaker::Node { cluster: of, id }) if *of == cluster && is_trusted => {
            if !path.starts_with("/quorate.peer.v1.") {
                return Err(not_permitted("a node's certificate does not administer the cluster"));
            }
            // A node that is leaving still takes part until raft has let it go; a newcomer may be known to others
            // before this node has applied its admission.
            if view.registry.is_initialized()
                && *id < view.registry.next_member
                && !view.registry.members.contains_key(id)
            {
                // By this code the node learns that it is to stop.
                return Err(Problem::new(Code::NotFound, "removed", format!("node {id} has been removed")));
            }
            Ok(Admitted::Node(*id))
        }
        Some(Speaker::Operator { name }) => {
            let needed = role::needed(path)
                .ok_or_else(|| not_permitted("an operator's certificate calls the admin services alone"))?;
            let operator = view
                .registry
                .operators
                .get(name)
                .filter(|operator| operator.certificate_sha256 == certificate.sha256)
                .ok_or_else(|| unknown("the cluster does not know this operator certificate"))?;
            if operator.revoked_at.is_some() {
                return Err(unknown(format!("the access of operator {name} has been revoked")));
            }
            if now >= operator.not_after {
                return Err(unknown(format!("the certificate of operator {name} has expired")));
            }
            if operator.role < needed {
                return Err(not_permitted(format!(
                    "this needs the role {}, and {name} is {}",
                    needed.as_str(),
                    operator.role.as_str()
                )));
            }
            Ok(Admitted::Operator(admin::Caller { name: name.clone(), role: operator.role }))
        }
        _ => Err(unknown("the client certificate is neither a node's nor an operator's of this cluster")),
    }
}

/// Whether the registry's authorities vouch for a certificate that came before they were known here. A newcomer replays
/// the log over a rotation: it was let in by the newest authority, knows only an older one for a while, and believes
/// the newest by the bridge that leads to it.
fn is_sponsored_by_now(certificate: &PeerCertificate, registry: &Registry) -> bool {
    let Some((leaf, others)) = certificate.chain.split_first() else { return false };
    let pem: String = registry.authorities.values().map(|authority| authority.certificate_pem.as_str()).collect();
    authorities_from_pem(&pem).is_ok_and(|authorities| {
        sponsors(leaf, others, &authorities).iter().any(|authority| registry.authorities.contains_key(authority))
    })
}

fn not_permitted(message: impl Into<String>) -> Problem {
    Problem::new(Code::PermissionDenied, "not_permitted", message)
}

fn unknown(message: impl Into<String>) -> Problem {
    Problem::new(Code::Unauthenticated, "unauthenticated", message)
        .hint("an admin can make another one with `quoratectl operators create`")
}

/// Puts the gate before the services.
#[derive(Clone, Debug)]
pub(super) struct GateLayer(Gate);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;
    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.0.clone(), inner }
    }
}

/// Services behind the gate.
#[derive(Clone, Debug)]
pub(super) struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match self.gate.admit(&mut request) {
            Ok(()) => Answer::Served(Box::pin(self.inner.call(request))),
            Err(status) => Answer::Refused(ready(Ok(status.into_http()))),
        }
    }
}

/// The service's answer, or the gate's.
pub(super) enum Answer<F> {
    Served(Pin<Box<F>>),
    Refused(Ready<Result<http::Response<Body>, Infallible>>),
}

impl<F: Future<Output = Result<http::Response<Body>, Infallible>>> Future for Answer<F> {
    type Output = F::Output;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Served(future) => future.as_mut().poll(cx),
            Self::Refused(answer) => Pin::new(answer).poll(cx),
        }
    }
}

#[cfg(test)]
mod tests;
