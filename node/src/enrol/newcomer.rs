//! What a node does that wants into a cluster: it makes a key, shows its token to a node whose certificate leads to the
//! authority that the token names, and keeps what it is given. Until the last file is written the directory stays new,
//! and trying again is the same request.

use super::{MESSAGE_BYTES_MAX, member_spec};
use crate::{
    clock::SystemClock,
    cluster_port::{PinnedError, dial_pinned},
    config::Settings,
    pki::{
        PkiError, authority,
        certificate::{Speaker, is_signed_by, read_all, speaker},
        identity::{Identity, Origin, Peer},
        pending::Pending,
        random,
        store::Store,
        token::JoinToken,
        trust::authorities_from_pem,
    },
};
use machine::Name;
use prost::Message;
use proto::{
    admin::Problem,
    peer::{JoinReply, JoinRequest, enrol_client::EnrolClient},
};
use serde::{Deserialize, Serialize};
use std::{path::Path, time::Duration};
use tonic::{Code, Status};
use zeroize::{Zeroize, Zeroizing};

/// How long dialing one peer may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one peer may take to answer: an election fits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Between rounds over all peers.
const PAUSE: Duration = Duration::from_secs(1);

/// How a node wants in.
#[derive(Clone, Debug)]
pub struct Join {
    /// `host:port` of the cluster listeners of members, at least one.
    pub peers: Vec<String>,
    /// What it shows.
    pub token: JoinToken,
    /// Never votes unless promoted.
    pub learner: bool,
    /// How long it goes on trying.
    pub patience: Duration,
}

/// Why a node did not get in.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The cluster answered, and the answer is no.
    #[error("the cluster refused: {0}")]
    Refused(String),
    /// No peer answered in time.
    #[error("no node of the cluster could be asked: {0}")]
    Unreachable(String),
    /// What the cluster answered does not fit together.
    #[error("the answer of the cluster cannot be used: {0}")]
    Answer(String),
    /// This node's files.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// A join that was begun: kept, so that a second try is the same request.
#[derive(Serialize, Deserialize)]
struct Begun {
    token_hash: String,
    name: Name,
    random: String,
    issued_ms: u64,
    key_pem: String,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.key_pem.zeroize();
    }
}

/// Joins, and writes everything that the node needs; `node.json` last.
///
/// # Errors
/// [`JoinError`]; the directory stays new.
pub async fn join(
    settings: &Settings,
    store: &Store,
    identity_file: &Path,
    join: &Join,
    clock: SystemClock,
) -> Result<Identity, JoinError> {
    let (begun, reply) = admission(settings, store, join, false, clock).await?;
    let identity = accept(settings, store, &begun, reply)?;
    identity.save(identity_file)?;
    store.forget_joining()?;
    Ok(identity)
}

/// Gets a number in a cluster whose certificates are signed outside, and keeps what is to become of this node.
///
/// # Errors
/// [`JoinError`]; the directory stays new.
pub async fn reserve(
    settings: &Settings,
    store: &Store,
    join: &Join,
    clock: SystemClock,
) -> Result<Pending, JoinError> {
    let (begun, reply) = admission(settings, store, join, true, clock).await?;
    if !reply.certificate_pem.is_empty() {
        return Err(JoinError::Answer("a certificate came with it".to_owned()));
    }
    authorities_from_pem(&reply.authorities_pem)?;
    let mut pending = Pending::new(identity(settings, &reply)?, reply.authorities_pem, &begun.key_pem);
    pending.token_hash = Some(begun.token_hash.clone());
    pending.save(store)?;
    store.forget_joining()?;
    Ok(pending)
}

/// Asks until the cluster has answered.
async fn admission(
    settings: &Settings,
    store: &Store,
    join: &Join,
    signed_outside: bool,
    clock: SystemClock,
) -> Result<(Begun, JoinReply), JoinError> {
    let mut begun = begin(settings, store, join, clock, None)?;
    let mut pause = tokio::time::interval(PAUSE);
    pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let deadline = tokio::time::Instant::now() + join.patience;
    let mut why = String::new();
    loop {
        pause.tick().await;
        for peer in &join.peers {
            let request = request(settings, join, signed_outside, &begun)?;
            match ask(peer, &join.token, request).await {
                Ok(reply) => return Ok((begun, reply)),
                Err(Asked::Again(error)) => why = format!("{peer}: {error}"),
                Err(Asked::Outdated(cluster_ms)) if cluster_ms > 0 => {
                    begun = begin(settings, store, join, clock, Some(cluster_ms))?;
                    "this machine's clock differs from the cluster's".clone_into(&mut why);
                }
                Err(Asked::Outdated(_)) => return Err(JoinError::Refused("the request is outdated".to_owned())),
                Err(Asked::Refused(error)) => return Err(JoinError::Refused(error)),
            }
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(JoinError::Unreachable(why));
        }
        tracing::info!(%why, "trying again to join");
    }
}

/// The join that was begun with this token and name, or a new one.
fn begin(
    settings: &Settings,
    store: &Store,
    join: &Join,
    clock: SystemClock,
    issued_ms: Option<u64>,
) -> Result<Begun, JoinError> {
    let token_hash = hex::encode(join.token.hash());
    if issued_ms.is_none()
        && let Some(text) = store.joining()?
        && let Ok(begun) = serde_json::from_str::<Begun>(&text)
        && begun.token_hash == token_hash
        && begun.name == settings.name
    {
        return Ok(begun);
    }
    let (key_pem, _) = authority::request()?;
    let random: [u8; 16] = random()?;
    let begun = Begun {
        token_hash,
        name: settings.name.clone(),
        random: hex::encode(random),
        issued_ms: issued_ms.unwrap_or_else(|| clock.utc_ms()),
        key_pem: key_pem.to_string(),
    };
    let text =
        serde_json::to_string(&begun).map(Zeroizing::new).map_err(|error| JoinError::Answer(error.to_string()))?;
    store.save_joining(&text)?;
    Ok(begun)
}

fn request(settings: &Settings, join: &Join, signed_outside: bool, begun: &Begun) -> Result<JoinRequest, JoinError> {
    let spec = serde_json::to_vec(&member_spec(settings)).map_err(|error| JoinError::Answer(error.to_string()))?;
    Ok(JoinRequest {
        token: join.token.text().to_string(),
        certificate_request_pem: authority::request_again(&begun.key_pem)?,
        spec: spec.into(),
        learner: join.learner,
        request_random: hex::decode(&begun.random).unwrap_or_default().into(),
        request_issued_ms: begun.issued_ms,
        signed_outside,
    })
}

/// What came of asking one peer.
enum Asked {
    /// Nothing: ask another one, or again.
    Again(String),
    /// The request is too old or too new for the cluster's clock, which this is.
    Outdated(u64),
    /// No, for good.
    Refused(String),
}

async fn ask(peer: &str, token: &JoinToken, request: JoinRequest) -> Result<JoinReply, Asked> {
    let channel = dial_pinned(peer.to_owned(), token, DIAL_TIMEOUT).await.map_err(|error| match error {
        PinnedError::OtherCluster => Asked::Refused(format!(
            "the certificate of the node at {peer} does not lead to the authority that the join token names ({}): the \
             token was mistyped, or is of another cluster",
            token.authority()
        )),
        PinnedError::Failed(error) => Asked::Again(error),
    })?;
    let mut client = EnrolClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    match tokio::time::timeout(ANSWER_TIMEOUT, client.join(request)).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(judge(&status)),
        Err(_) => Err(Asked::Again("did not answer in time".to_owned())),
    }
}

fn judge(status: &Status) -> Asked {
    let problem = Problem::decode(status.details()).ok().filter(|problem| !problem.r#type.is_empty());
    match (status.code(), problem) {
        (_, Some(problem)) if problem.r#type == "outdated_request" => Asked::Outdated(problem.cluster_wall_ms),
        (_, None) | (Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Internal, _) => {
            Asked::Again(status.message().to_owned())
        }
        (_, Some(problem)) if problem.hint.is_empty() => Asked::Refused(problem.message),
        (_, Some(problem)) => Asked::Refused(format!("{} ({})", problem.message, problem.hint)),
    }
}

/// Checks that the answer makes this node a member, and writes it down.
fn accept(settings: &Settings, store: &Store, begun: &Begun, reply: JoinReply) -> Result<Identity, JoinError> {
    let wrong = |what: &str| JoinError::Answer(what.to_owned());
    let identity = identity(settings, &reply)?;
    let authorities = authorities_from_pem(&reply.authorities_pem)?;
    let certificates = read_all(&reply.certificate_pem)?;
    let leaf = certificates.first().ok_or_else(|| wrong("there is no certificate"))?;
    if speaker(leaf) != Some(Speaker::Node { cluster: identity.cluster, id: identity.node }) {
        return Err(wrong("the certificate is not that of the node"));
    }
    if !authorities.iter().any(|authority| is_signed_by(leaf, &authority.certificate)) {
        return Err(wrong("the certificate is not signed by the cluster's authority"));
    }
    store.save_authorities(&reply.authorities_pem)?;
    store.save_node(&begun.key_pem, &reply.certificate_pem)?;
    Ok(identity)
}

/// Who the answer says that this node is.
fn identity(settings: &Settings, reply: &JoinReply) -> Result<Identity, JoinError> {
    let cluster: [u8; 16] = reply
        .cluster
        .as_ref()
        .try_into()
        .map_err(|_| JoinError::Answer("the cluster's id is not 16 bytes".to_owned()))?;
    let peers = reply.peers.iter().map(|peer| Peer { node: peer.node, address: peer.address.clone() }).collect();
    Ok(Identity::new(cluster, reply.node, settings.name.clone(), Origin::Join, peers))
}
