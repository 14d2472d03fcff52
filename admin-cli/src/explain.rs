//! `quoratectl explain`: what would become of a request, and which part of the configuration decides.

use crate::command_line::Explain;
use crate::exit::Failure;
use crate::file;
use crate::render::{Answer, Block};
use crate::session::Session;
use proto::admin::resources_client::ResourcesClient;
use proto::admin::{ExplainRequest, LimitUse};
use serde::Serialize;
use std::path::Path;

/// A credential is a line.
const KEY_BYTES_MAX: u64 = 4096;

#[derive(Serialize)]
struct Data {
    allowed: bool,
    stage: String,
    reason: String,
    route: Option<String>,
    consumer: Option<String>,
    policies: Vec<String>,
    limits: Vec<LimitData>,
    upstream: Option<String>,
}

#[derive(Serialize)]
struct LimitData {
    limit: String,
    subject: String,
    per: String,
    rule: String,
    cost: u64,
    mode: String,
    scope: String,
}

/// Asks the cluster.
pub async fn run(session: &Session, explain: Explain) -> Result<Answer, Failure> {
    let key = match explain.key.as_deref() {
        Some("-") => file::read_text(Path::new("-"), KEY_BYTES_MAX)?.0.trim().to_owned(),
        other => other.unwrap_or_default().to_owned(),
    };
    session.client.restart();
    let request =
        ExplainRequest { key, key_id: explain.key_id.unwrap_or_default(), method: explain.method, url: explain.url };
    let call = async |channel| ResourcesClient::new(channel).explain(request.clone()).await;
    let reply = session.client.read(call).await?;
    let named = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let shown = |text: &str| named(text).unwrap_or_else(|| "-".into());
    let listed = |texts: &[String]| if texts.is_empty() { "-".into() } else { texts.join(", ") };
    let pairs = vec![
        ("allowed", if reply.allowed { "yes" } else { "no" }.into()),
        ("stage", shown(&reply.stage)),
        ("reason", shown(&reply.reason)),
        ("route", shown(&reply.route)),
        ("consumer", shown(&reply.consumer)),
        ("policies", listed(&reply.policies)),
        ("upstream", shown(&reply.upstream)),
    ];
    let rows = reply
        .limits
        .iter()
        .map(|one| {
            let LimitUse { limit, subject, per, rule, cost, mode, scope } = one.clone();
            vec![limit, rule, per, subject, cost.to_string(), mode, scope]
        })
        .collect();
    let columns = vec!["LIMIT", "RULE", "PER", "SUBJECT", "COST", "MODE", "SCOPE"];
    let none = if reply.allowed { "no limit counts it" } else { "no limit counts what is refused before" };
    let data = Data {
        allowed: reply.allowed,
        stage: reply.stage,
        reason: reply.reason,
        route: named(&reply.route),
        consumer: named(&reply.consumer),
        policies: reply.policies,
        limits: reply.limits.into_iter().map(LimitData::from).collect(),
        upstream: named(&reply.upstream),
    };
    Ok(Answer::new(data, vec![Block::Pairs(pairs), Block::Table(columns, rows, none)]))
}

impl From<LimitUse> for LimitData {
    fn from(used: LimitUse) -> Self {
        let LimitUse { limit, subject, per, rule, cost, mode, scope } = used;
        Self { limit, subject, per, rule, cost, mode, scope }
    }
}
