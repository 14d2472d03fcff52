//! `quoratectl ca`: the cluster's certificate authorities. A rotation changes the context too, so that this operator
//! goes on trusting the nodes.

use crate::command_line::CaVerb;
use crate::context::Trust;
use crate::exit::Failure;
use crate::moment;
use crate::render::{Answer, Block};
use crate::session::Session;
use crate::written::Written;
use proto::admin::ca_client::CaClient;
use proto::admin::{CaFinishRequest, CaRotateRequest, CaStatusReply, CaStatusRequest};
use serde::Serialize;

/// Enough of a digest to tell a few authorities apart.
const DIGEST_SHOWN: usize = 16;

/// Does one of its verbs.
pub async fn run(session: &Session, verb: CaVerb) -> Result<Answer, Failure> {
    match verb {
        CaVerb::Status => {
            let call = async |channel| CaClient::new(channel).status(CaStatusRequest {}).await;
            let reply = session.client.read(call).await?;
            let tables = tables(&reply);
            Ok(Answer::new(StatusData::from(reply), tables))
        }
        CaVerb::Rotate { finish: false, .. } => rotate(session, Step::Begin).await,
        CaVerb::Rotate { finish: true, force } => {
            session.confirm("Trust the authority before no more? What it signed is cut off.")?;
            rotate(session, Step::Finish { force }).await
        }
    }
}

#[derive(Clone, Copy)]
enum Step {
    Begin,
    Finish { force: bool },
}

async fn rotate(session: &Session, step: Step) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Data {
        #[serde(flatten)]
        status: StatusData,
        context_updated: Option<String>,
        #[serde(flatten)]
        written: Written,
    }
    let reply = session
        .client
        .write("quoratectl ca status", async |channel, write| {
            let (write, mut client) = (Some(write), CaClient::new(channel));
            match step {
                Step::Begin => client.rotate(CaRotateRequest { write }).await,
                Step::Finish { force } => client.finish(CaFinishRequest { write, force }).await,
            }
        })
        .await?;
    let (done, trust) = match step {
        Step::Begin => (
            "A new authority signs from now on, and nodes renew their certificates by it. The one before stays \
             trusted until `quoratectl ca rotate --finish`.",
            Trust::Also,
        ),
        Step::Finish { .. } => ("The authority before is trusted no more.", Trust::Only),
    };
    let written = Written::from_answer(reply.result)?;
    let notices = written.notices();
    // The cluster has changed whatever becomes of the context: that must not look like a failure of the rotation.
    let updated = match session.context.trust(&reply.authorities_pem, trust) {
        Ok(updated) => updated.map(|path| path.display().to_string()),
        Err(failure) => {
            let text = format!("warning: the context still trusts what it did before: {}", failure.message);
            session.printer.notice(&text);
            None
        }
    };
    let status = reply.status.unwrap_or_default();
    let mut people = vec![Block::Text(done.into())];
    people.extend(tables(&status));
    if let Some(path) = &updated {
        people.push(Block::Text(format!(
            "{path} now says what to trust. Other operators' contexts must be changed too, before --finish."
        )));
    }
    people.push(Block::Text(written.sentence()));
    let data = Data { status: status.into(), context_updated: updated, written };
    Ok(Answer::new(data, people).with_notices(notices))
}

#[derive(Serialize)]
struct StatusData {
    authorities: Vec<AuthorityData>,
    nodes: Vec<NodeData>,
}

#[derive(Serialize)]
struct AuthorityData {
    sha256: String,
    phase: String,
    added_at: Option<String>,
    expires_at: Option<String>,
}

#[derive(Serialize)]
struct NodeData {
    node: u64,
    reachable: bool,
    authority_sha256: String,
    expires_at: Option<String>,
}

impl From<CaStatusReply> for StatusData {
    fn from(reply: CaStatusReply) -> Self {
        let authorities = reply
            .authorities
            .into_iter()
            .map(|authority| AuthorityData {
                sha256: authority.sha256,
                phase: authority.phase,
                added_at: moment::text(authority.added_at_ms),
                expires_at: moment::text(authority.expires_at_ms),
            })
            .collect();
        let nodes = reply
            .nodes
            .into_iter()
            .map(|node| NodeData {
                node: node.node,
                reachable: node.reachable,
                authority_sha256: node.authority_sha256,
                expires_at: moment::text(node.expires_at_ms),
            })
            .collect();
        Self { authorities, nodes }
    }
}

fn tables(reply: &CaStatusReply) -> Vec<Block> {
    let authorities = reply
        .authorities
        .iter()
        .map(|authority| {
            vec![
                digest(&authority.sha256),
                authority.phase.clone(),
                moment::text_or(authority.added_at_ms, "-"),
                moment::text_or(authority.expires_at_ms, "never"),
            ]
        })
        .collect();
    let nodes = reply
        .nodes
        .iter()
        .map(|node| {
            vec![
                node.node.to_string(),
                if node.reachable { "yes" } else { "no" }.into(),
                digest(&node.authority_sha256),
                moment::text_or(node.expires_at_ms, "-"),
            ]
        })
        .collect();
    vec![
        Block::Table(vec!["AUTHORITY", "PHASE", "ADDED", "EXPIRES"], authorities, "no authorities"),
        Block::Table(vec!["NODE", "REACHABLE", "SIGNED BY", "CERTIFICATE EXPIRES"], nodes, "no nodes"),
    ]
}

fn digest(sha256: &str) -> String {
    if sha256.is_empty() { "-".into() } else { sha256.chars().take(DIGEST_SHOWN).collect() }
}
