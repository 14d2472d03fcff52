//! `quoratectl cluster`: the cluster as a whole.

use crate::command_line::{ClusterVerb, SettingsSet, SettingsVerb};
use crate::duration;
use crate::exit::Failure;
use crate::moment;
use crate::render::{Answer, Block};
use crate::session::Session;
use crate::written::Written;
use proto::admin::cluster_client::ClusterClient;
use proto::admin::{
    ClockRequest, CreateJoinTokenRequest, FinalizeUpgradeRequest, GetSettingsRequest, NodeStatus, PutSettingsRequest,
    StatusRequest, TransferLeaderRequest,
};
use serde::Serialize;
use std::time::Duration;

/// So long before the last admin's certificate ends, `cluster status` warns.
const ADMINS_END_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// Does one of its verbs.
pub async fn run(session: &Session, verb: ClusterVerb) -> Result<Answer, Failure> {
    match verb {
        ClusterVerb::Status => status(session).await,
        ClusterVerb::TransferLeader { to } => transfer_leader(session, to.unwrap_or(0)).await,
        ClusterVerb::JoinToken { expires } => join_token(session, expires).await,
        ClusterVerb::Clock => clock(session).await,
        ClusterVerb::Settings { verb: None | Some(SettingsVerb::Get) } => settings(session).await,
        ClusterVerb::Settings { verb: Some(SettingsVerb::Set(set)) } => put_settings(session, set).await,
        ClusterVerb::FinalizeUpgrade => finalize_upgrade(session).await,
    }
}

#[derive(Serialize)]
struct StatusData {
    leader: Option<u64>,
    term: u64,
    revision: u64,
    cluster: String,
    feature_level: u32,
    feature_level_max: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    admins_end: Option<String>,
    nodes: Vec<NodeData>,
}

#[derive(Serialize)]
struct NodeData {
    id: u64,
    name: String,
    role: String,
    reachable: bool,
    applied: u64,
    lag: u64,
    authority_ms: Option<u64>,
    version: String,
    address: String,
    clock_offset_ms: Option<i64>,
    zone: String,
}

impl From<NodeStatus> for NodeData {
    fn from(node: NodeStatus) -> Self {
        Self {
            id: node.id,
            name: node.name,
            role: node.role,
            reachable: node.reachable,
            applied: node.applied,
            lag: node.lag,
            authority_ms: node.authority_ms,
            version: node.version,
            address: node.address,
            clock_offset_ms: node.clock_offset_ms,
            zone: node.zone,
        }
    }
}

async fn status(session: &Session) -> Result<Answer, Failure> {
    let reply = session.client.read(async |channel| ClusterClient::new(channel).status(StatusRequest {}).await).await?;
    let rows = reply
        .nodes
        .iter()
        .map(|node| {
            vec![
                node.id.to_string(),
                node.name.clone(),
                node.role.clone(),
                if node.reachable { "yes" } else { "no" }.into(),
                node.applied.to_string(),
                node.lag.to_string(),
                node.authority_ms.map_or("-".into(), |ms| format!("{ms}ms")),
                node.clock_offset_ms.map_or("-".into(), signed_ms),
                node.version.clone(),
                node.address.clone(),
            ]
        })
        .collect();
    let columns = vec!["NODE", "NAME", "ROLE", "REACHABLE", "APPLIED", "LAG", "LEASE", "CLOCK", "VERSION", "ADDRESS"];
    let mut notices = Vec::new();
    if reply.leader == 0 {
        notices.push(
            "warning: there is no leader: nothing can be changed until a majority of voters agrees on one".into(),
        );
    }
    if reply.feature_level < reply.feature_level_max && reply.feature_level > 0 {
        notices.push("every node supports more: quoratectl cluster finalize-upgrade makes use of it".into());
    }
    if reply.admins_end_ms != 0 && reply.admins_end_ms < moment::now_ms().saturating_add(ADMINS_END_MS) {
        notices.push(format!(
            "warning: after {} nobody can administer this cluster: the last certificate of an admin ends, and there is no other way \
             in; make another now: quoratectl operators create NAME --role admin",
            moment::text_or(reply.admins_end_ms, "now"),
        ));
    }
    let mut pairs = vec![
        ("leader", if reply.leader == 0 { "none".into() } else { reply.leader.to_string() }),
        ("term", reply.term.to_string()),
        ("revision", reply.revision.to_string()),
        ("feature level", reply.feature_level.to_string()),
    ];
    if !reply.cluster.is_empty() {
        pairs.insert(0, ("cluster", reply.cluster.clone()));
    }
    let data = StatusData {
        leader: Some(reply.leader).filter(|leader| *leader != 0),
        term: reply.term,
        revision: reply.revision,
        cluster: reply.cluster,
        feature_level: reply.feature_level,
        feature_level_max: reply.feature_level_max,
        admins_end: moment::text(reply.admins_end_ms),
        nodes: reply.nodes.into_iter().map(NodeData::from).collect(),
    };
    Ok(Answer::new(data, vec![Block::Pairs(pairs), Block::Table(columns, rows, "no nodes")]).with_notices(notices))
}

async fn transfer_leader(session: &Session, to: u64) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Data {
        leader: u64,
        term: u64,
    }
    // Asking twice for the same leader is as good as once, so this needs no request id.
    let call = async |channel| ClusterClient::new(channel).transfer_leader(TransferLeaderRequest { to }).await;
    let reply = session.client.read(call).await?;
    let text = format!("Node {} leads, in term {}.", reply.leader, reply.term);
    Ok(Answer::new(Data { leader: reply.leader, term: reply.term }, vec![Block::Text(text)]))
}

async fn join_token(session: &Session, expires: Duration) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Data {
        token: String,
        expires_at: Option<String>,
        #[serde(flatten)]
        written: Written,
    }
    let reply = session
        .client
        .write("a token that was made and not shown can do nothing; make another", async |channel, write| {
            let request = CreateJoinTokenRequest { write: Some(write), ttl_ms: duration::millis(expires) };
            ClusterClient::new(channel).create_join_token(request).await
        })
        .await?;
    let written = Written::from_answer(reply.result)?;
    let people = vec![
        Block::Text(format!("{}\n", reply.token)),
        Block::Text(format!(
            "One node can join with it, until {}. It is not shown again.",
            moment::text_or(reply.expires_at_ms, "it is used")
        )),
    ];
    let notices = written.notices();
    let data = Data { token: reply.token, expires_at: moment::text(reply.expires_at_ms), written };
    Ok(Answer::new(data, people).with_notices(notices))
}

async fn clock(session: &Session) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Data {
        tick_us: u64,
        wall: Option<String>,
        wall_ms: u64,
        nodes: Vec<Node>,
    }
    #[derive(Serialize)]
    struct Node {
        node: u64,
        offset_ms: Option<i64>,
    }
    let reply = session.client.read(async |channel| ClusterClient::new(channel).clock(ClockRequest {}).await).await?;
    let wall = moment::text(reply.wall_ms);
    let pairs =
        vec![("wall", wall.clone().unwrap_or_else(|| "unknown".into())), ("tick", format!("{} µs", reply.tick_us))];
    let rows = reply
        .nodes
        .iter()
        .map(|node| vec![node.node.to_string(), node.offset_ms.map_or("unknown".into(), signed_ms)])
        .collect();
    let nodes = reply.nodes.iter().map(|node| Node { node: node.node, offset_ms: node.offset_ms }).collect();
    let data = Data { tick_us: reply.tick_us, wall, wall_ms: reply.wall_ms, nodes };
    Ok(Answer::new(data, vec![Block::Pairs(pairs), Block::Table(vec!["NODE", "OFFSET"], rows, "no nodes")]))
}

async fn settings(session: &Session) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Data {
        voters: u32,
        learner_expiry_ms: u64,
        audit_entries_max: u64,
        revision: u64,
    }
    let call = async |channel| ClusterClient::new(channel).get_settings(GetSettingsRequest {}).await;
    let reply = session.client.read(call).await?;
    let pairs = vec![
        ("voters", reply.voters.to_string()),
        ("learner expiry", duration::text(reply.learner_expiry_ms)),
        ("audit entries", reply.audit_entries_max.to_string()),
        ("revision", reply.revision.to_string()),
    ];
    let data = Data {
        voters: reply.voters,
        learner_expiry_ms: reply.learner_expiry_ms,
        audit_entries_max: reply.audit_entries_max,
        revision: reply.revision,
    };
    Ok(Answer::new(data, vec![Block::Pairs(pairs)]))
}

async fn put_settings(session: &Session, set: SettingsSet) -> Result<Answer, Failure> {
    let result = session
        .client
        .write("quoratectl cluster settings", async |channel, write| {
            let request = PutSettingsRequest {
                write: Some(write),
                voters: set.voters,
                learner_expiry_ms: set.learner_expiry.map(duration::millis),
                audit_entries_max: set.audit_entries,
            };
            ClusterClient::new(channel).put_settings(request).await
        })
        .await?;
    Ok(Written::from(result).answer("The settings are changed."))
}

async fn finalize_upgrade(session: &Session) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Data {
        feature_level: u32,
        #[serde(flatten)]
        written: Written,
    }
    session.confirm("After this, no node can go back to the release before. Go on?")?;
    let reply = session
        .client
        .write("quoratectl cluster status", async |channel, write| {
            ClusterClient::new(channel).finalize_upgrade(FinalizeUpgradeRequest { write: Some(write) }).await
        })
        .await?;
    let written = Written::from_answer(reply.result)?;
    let people = vec![
        Block::Text(format!("The cluster is at feature level {}.", reply.feature_level)),
        Block::Text(written.sentence()),
    ];
    let notices = written.notices();
    Ok(Answer::new(Data { feature_level: reply.feature_level, written }, people).with_notices(notices))
}

fn signed_ms(ms: i64) -> String {
    format!("{ms:+}ms")
}
