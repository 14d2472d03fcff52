//! `quoratectl members`: the nodes that belong to the cluster. How they are doing is `cluster status`.

use crate::command_line::{Member, MembersVerb};
use crate::exit::Failure;
use crate::moment;
use crate::render::{Answer, Block};
use crate::session::Session;
use crate::written::Written;
use proto::admin::members_client::MembersClient;
use proto::admin::{ListMembersRequest, MemberRequest};
use serde::Serialize;

/// Does one of its verbs.
pub async fn run(session: &Session, verb: MembersVerb) -> Result<Answer, Failure> {
    match verb {
        MembersVerb::List => list(session).await,
        MembersVerb::Promote(member) => change(session, &member, Change::Promote).await,
        MembersVerb::Demote(member) => change(session, &member, Change::Demote).await,
        MembersVerb::Remove(member) => {
            session.confirm(&format!("Remove node {} from the cluster?", member.member))?;
            change(session, &member, Change::Remove).await
        }
    }
}

#[derive(Clone, Copy)]
enum Change {
    Promote,
    Demote,
    Remove,
}

#[derive(Serialize)]
struct MemberData {
    id: u64,
    name: String,
    role: String,
    standing: String,
    address: String,
    gateway_address: String,
    gateway_tls_address: String,
    ops_address: String,
    zone: String,
    version: String,
    joined_at: Option<String>,
    revision: u64,
}

async fn list(session: &Session) -> Result<Answer, Failure> {
    let reply =
        session.client.read(async |channel| MembersClient::new(channel).list(ListMembersRequest {}).await).await?;
    let rows = reply
        .members
        .iter()
        .map(|member| {
            vec![
                member.id.to_string(),
                member.name.clone(),
                member.role.clone(),
                member.standing.clone(),
                member.address.clone(),
                member.gateway_address.clone(),
                member.zone.clone(),
                member.version.clone(),
                moment::text_or(member.joined_at_ms, "-"),
            ]
        })
        .collect();
    let columns = vec!["NODE", "NAME", "ROLE", "STANDING", "ADDRESS", "GATEWAY", "ZONE", "VERSION", "JOINED"];
    let data: Vec<MemberData> = reply
        .members
        .into_iter()
        .map(|member| MemberData {
            id: member.id,
            name: member.name,
            role: member.role,
            standing: member.standing,
            address: member.address,
            gateway_address: member.gateway_address,
            gateway_tls_address: member.gateway_tls_address,
            ops_address: member.ops_address,
            zone: member.zone,
            version: member.version,
            joined_at: moment::text(member.joined_at_ms),
            revision: member.revision,
        })
        .collect();
    Ok(Answer::new(data, vec![Block::Table(columns, rows, "no members")]))
}

async fn change(session: &Session, member: &Member, change: Change) -> Result<Answer, Failure> {
    let result = session
        .client
        .write("quoratectl members list", async |channel, write| {
            let request = MemberRequest { write: Some(write), member: member.member.clone() };
            let mut client = MembersClient::new(channel);
            match change {
                Change::Promote => client.promote(request).await,
                Change::Demote => client.demote(request).await,
                Change::Remove => client.remove(request).await,
            }
        })
        .await?;
    let done = match change {
        Change::Promote => "may vote; it becomes a voter once it has caught up and there is room.",
        Change::Demote => "is to be a learner.",
        Change::Remove => "is leaving; it is forgotten once it can do no harm.",
    };
    Ok(Written::from(result).answer(format!("Node {} {done}", member.member)))
}
