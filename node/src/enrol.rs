//! How nodes come in and stay: newcomers are admitted and signed, members renew, voters share the authority's key.
//!
//! Any member takes a request; only those that hold the private key of the active authority can sign, so the others ask
//! one of them. The key goes from voter to voter over mutual TLS and is never in the log.
//!
//! - `service`: the gRPC side, called by newcomers and members.
//! - `newcomer`: what a node does that wants in.
//! - `registrar` (here): signing, and finding who can sign.

pub mod newcomer;
pub mod service;

use crate::{
    clock::SystemClock,
    pki::{
        PkiError,
        authority::{Authority, Signed},
        identity::Identity,
        trust::{Trust, authorities_from_pem},
    },
};
use futures::future::BoxFuture;
use machine::{
    Name, View,
    authority::Phase,
    member::{Member, NodeId, Standing},
};
use proto::peer::{
    AuthorityKeyRequest, HoldAuthorityRequest, PrepareAuthorityRequest, RenewRequest, SignOperatorRequest,
    enrol_client::EnrolClient,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tonic::{Status, transport::Channel};
use zeroize::Zeroizing;

/// How long one member may take to answer before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer: a few certificates.
pub(crate) const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Signs for the cluster on this node, or finds a member that does. Clones are the same.
#[derive(Clone)]
pub struct Registrar {
    /// This node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: [u8; 16],
    /// Whether the cluster's certificates are signed outside: then nobody in it can sign.
    pub signed_outside: bool,
    raft: raft::Handle,
    trust: Trust,
    dial: raft::Dial,
    clock: SystemClock,
    /// Authorities whose keys are here, by fingerprint; read from disk once.
    held: Arc<Mutex<HashMap<[u8; 32], Arc<Authority>>>>,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// What was to be signed is no good.
    #[error("{0}")]
    Request(String),
    /// No member that holds the key could be asked.
    #[error("no reachable node holds the key of the cluster's authority: {0}")]
    Unreachable(String),
    /// Nobody in this cluster signs.
    #[error("the certificates of this cluster are signed outside: no node holds the key of its authority")]
    SignedOutside {
        /// What to do instead.
        instead: String,
    },
    /// This node's own keys are no good.
    #[error(transparent)]
    Pki(PkiError),
}

impl From<PkiError> for SignError {
    fn from(error: PkiError) -> Self {
        match error {
            PkiError::Request(_) => Self::Request(error.to_string()),
            error => Self::Pki(error),
        }
    }
}

impl Registrar {
    /// The registrar of a running node.
    #[must_use]
    pub fn new(identity: &Identity, raft: raft::Handle, trust: Trust, dial: raft::Dial, clock: SystemClock) -> Self {
        let Identity { node, cluster, signed_outside, .. } = *identity;
        Self { node, cluster, signed_outside, raft, trust, dial, clock, held: Arc::default() }
    }

    /// The raft that it reads the registry from.
    #[must_use]
    pub const fn raft(&self) -> &raft::Handle {
        &self.raft
    }

    /// The certificates in use.
    #[must_use]
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Milliseconds since the Unix epoch, for certificates: by the cluster's calendar as soon as it is known here, so that a
    /// machine with a wrong date signs nothing that nobody else accepts.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.raft.heard_wall().map_or_else(|| self.clock.utc_ms(), |wall| wall.0)
    }

    /// An authority whose key is here.
    ///
    /// # Errors
    /// Its file is damaged.
    pub fn held(&self, sha256: &[u8; 32]) -> Result<Option<Arc<Authority>>, PkiError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(authority) = held.get(sha256) {
            return Ok(Some(Arc::clone(authority)));
        }
        let authority = self.trust.store().authority(sha256)?;
        if let Some(authority) = &authority {
            held.insert(*sha256, Arc::clone(authority));
        }
        Ok(authority)
    }

    /// The active authority, if its key is here.
    ///
    /// # Errors
    /// Its file is damaged.
    pub fn active(&self, view: &View) -> Result<Option<Arc<Authority>>, PkiError> {
        active_sha256(view).map_or(Ok(None), |sha256| self.held(&sha256))
    }

    /// Keeps an authority with its key.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn hold(&self, authority: Authority) -> Result<Arc<Authority>, PkiError> {
        self.trust.store().save_authority(&authority)?;
        let authority = Arc::new(authority);
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(authority.sha256(), Arc::clone(&authority));
        Ok(authority)
    }

    /// Gives up the key of an authority.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn give_up(&self, sha256: &[u8; 32]) -> Result<(), PkiError> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(sha256);
        self.trust.store().forget_authority(sha256)
    }

    /// Signs a request of this node, here or by a member that holds the key; also the authorities to trust, in PEM.
    ///
    /// # Errors
    /// [`SignError`].
    pub async fn renew(&self, request_pem: &str) -> Result<String, SignError> {
        let view = self.raft.view();
        if let Some(authority) = self.active(&view)? {
            return Ok(authority.sign_node(request_pem, self.cluster, self.node, self.now_ms())?.pem);
        }
        let request = RenewRequest { certificate_request_pem: request_pem.to_owned() };
        self.ask_signers(&view, move |mut client| {
            let request = request.clone();
            Box::pin(async move { Ok(client.renew(request).await?.into_inner().certificate_pem) })
        })
        .await
    }

    /// Signs an operator's request, here or by a member that holds the key.
    ///
    /// # Errors
    /// [`SignError`].
    pub async fn sign_operator(&self, request_pem: &str, name: &Name, life: Duration) -> Result<Signed, SignError> {
        if self.signed_outside {
            let instead = format!(
                "have a certificate for CN={name}, OU=operator signed there, and give it with `quoratectl operators create \
                 {name} --certificate FILE`"
            );
            return Err(SignError::SignedOutside { instead });
        }
        let view = self.raft.view();
        if let Some(authority) = self.active(&view)? {
            return Ok(authority.sign_operator(request_pem, name, life, self.now_ms())?);
        }
        let request = SignOperatorRequest {
            name: name.to_string(),
            certificate_request_pem: request_pem.to_owned(),
            ttl_ms: u64::try_from(life.as_millis()).unwrap_or(u64::MAX),
        };
        let pem = self
            .ask_signers(&view, move |mut client| {
                let request = request.clone();
                Box::pin(async move { Ok(client.sign_operator(request).await?.into_inner().certificate_pem) })
            })
            .await?;
        Ok(Signed::from_pem(&pem)?)
    }

    /// Makes the authority that is to follow the active one, here or on a member that holds its key, which then holds
    /// the new one's too. Its certificate in PEM.
    ///
    /// # Errors
    /// [`SignError`].
    pub async fn prepare_authority(&self) -> Result<String, SignError> {
        self.refuse_if_signed_outside()?;
        let view = self.raft.view();
        if let Some(active) = self.active(&view)? {
            let next = self.hold(active.create_next(self.cluster, self.now_ms())?)?;
            return Ok(next.certificates_pem().to_owned());
        }
        self.ask_signers(&view, |mut client| {
            Box::pin(async move {
                Ok(client.prepare_authority(PrepareAuthorityRequest {}).await?.into_inner().certificate_pem)
            })
        })
        .await
    }

    /// Refuses what is only for clusters that have an authority's key.
    ///
    /// # Errors
    /// [`SignError::SignedOutside`].
    pub fn refuse_if_signed_outside(&self) -> Result<(), SignError> {
        if !self.signed_outside {
            return Ok(());
        }
        let instead = "there is no key to exchange; a node's certificate is renewed on the node, with `quorate certificate \
                       request` and `quorate certificate install`";
        Err(SignError::SignedOutside { instead: instead.to_owned() })
    }

    /// Fetches the key of an authority from a member that holds it, unless it is here.
    ///
    /// # Errors
    /// [`SignError`].
    pub async fn fetch(&self, sha256: &[u8; 32]) -> Result<Arc<Authority>, SignError> {
        if let Some(authority) = self.held(sha256)? {
            return Ok(authority);
        }
        let view = self.raft.view();
        let registered = view
            .registry
            .authorities
            .get(sha256)
            .ok_or_else(|| SignError::Request("the cluster does not know this authority".to_owned()))?;
        let request = AuthorityKeyRequest { sha256: sha256.to_vec().into() };
        let key = self
            .ask_signers(&view, move |mut client| {
                let request = request.clone();
                Box::pin(async move { Ok(Zeroizing::new(client.authority_key(request).await?.into_inner().key_pem)) })
            })
            .await?;
        let authority = Authority::from_pem(&registered.certificate_pem, &key)?;
        Ok(self.hold(authority)?)
    }

    /// Whether these members hold the key of an authority, as each says itself; they fetch it if they must.
    pub async fn ask_to_hold(&self, sha256: &[u8; 32], members: Vec<Arc<Member>>) -> Vec<(NodeId, bool)> {
        let request = HoldAuthorityRequest { sha256: sha256.to_vec().into() };
        let asking = members.into_iter().map(|member| {
            let dialed = (self.dial)(member.id, member.address.clone());
            let request = request.clone();
            async move {
                let asked = async {
                    let mut client = EnrolClient::new(dialed.await.ok()?);
                    Some(client.hold_authority(request).await.ok()?.into_inner().holds)
                };
                let holds = tokio::time::timeout(PATIENCE, asked).await;
                (member.id, holds == Ok(Some(true)))
            }
        });
        futures::future::join_all(asking).await
    }

    /// The authorities that the cluster trusts, in PEM and without bridges: what a client is to trust.
    ///
    /// # Errors
    /// The registry's certificates cannot be read.
    pub fn anchors_pem(view: &View) -> Result<String, PkiError> {
        let pem = authorities_pem(view);
        Ok(authorities_from_pem(&pem)?
            .iter()
            .map(|authority| crate::pki::certificate::to_pem(&authority.certificate))
            .collect())
    }

    /// Asks the members that may hold keys, one after the other, until one answers.
    async fn ask_signers<T>(
        &self,
        view: &View,
        ask: impl Fn(EnrolClient<Channel>) -> BoxFuture<'static, Result<T, Status>> + Send,
    ) -> Result<T, SignError> {
        let mut why = "there is no other voter".to_owned();
        let signers: Vec<Arc<Member>> = eligible(view, self.node);
        for member in signers {
            let dialed = (self.dial)(member.id, member.address.clone());
            let asked = async {
                let channel = dialed.await.map_err(|error| Status::unavailable(error.to_string()))?;
                ask(EnrolClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)).await
            };
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) if status.code() == tonic::Code::InvalidArgument => {
                    return Err(SignError::Request(status.message().to_owned()));
                }
                Ok(Err(status)) => why = format!("node {}: {}", member.id, status.message()),
                Err(_) => why = format!("node {} did not answer in time", member.id),
            }
        }
        Err(SignError::Unreachable(why))
    }
}

/// The fingerprint of the authority that signs.
#[must_use]
pub fn active_sha256(view: &View) -> Option<[u8; 32]> {
    view.registry
        .authorities
        .values()
        .find(|authority| authority.phase == Phase::Active)
        .map(|authority| authority.sha256)
}

/// Every authority that the cluster trusts, with bridges, in PEM.
#[must_use]
pub fn authorities_pem(view: &View) -> String {
    view.registry.authorities.values().map(|authority| authority.certificate_pem.as_str()).collect()
}

/// The members that are not on their way out, but for this one.
pub fn others(view: &View, node: NodeId) -> impl Iterator<Item = &Arc<Member>> {
    view.registry.members.values().filter(move |member| member.id != node && !member.is_leaving())
}

/// Those of them that may vote, and so may hold keys.
#[must_use]
pub fn eligible(view: &View, node: NodeId) -> Vec<Arc<Member>> {
    others(view, node).filter(|member| member.standing == Standing::Eligible).cloned().collect()
}

/// What a node tells the cluster of itself.
#[must_use]
pub fn member_spec(settings: &crate::config::Settings) -> machine::member::MemberSpec {
    let advertised = |listener: Option<&crate::config::Listener>| {
        listener.map(|listener| listener.advertise.clone()).unwrap_or_default()
    };
    machine::member::MemberSpec {
        name: settings.name.clone(),
        address: settings.cluster.advertise.clone(),
        gateway_address: advertised(settings.gateway.plain.as_ref()),
        gateway_tls_address: advertised(settings.gateway.tls.as_ref().map(|tls| &tls.listener)),
        ops_address: advertised(settings.ops.as_ref()),
        zone: settings.zone.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        feature_level_max: machine::FEATURE_LEVEL_MAX,
    }
}
