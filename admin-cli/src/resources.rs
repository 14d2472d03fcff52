//! What all resources have in common: `list`, `get NAME`, `delete NAME`. Changing them is `apply`'s work
//! (`resource_file.rs`); what only consumers can do is in `consumers.rs`, what only limits can in `limits.rs`.

use crate::client;
use crate::command_line::ResourceVerb;
use crate::exit::Failure;
use crate::render::{Answer, Block};
use crate::session::Session;
use crate::written::Written;
use proto::admin::resources_client::ResourcesClient;
use proto::admin::{DeleteResourceRequest, GetResourceRequest, ListResourcesRequest, ResourceInfo};
use serde::Serialize;
use serde_json::Value;
use tonic::transport::Channel;

/// A list shows the beginning of what is long.
const CELL_CHARS_MAX: usize = 60;

/// The kinds of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who calls.
    Consumer,
    /// Which requests go where.
    Route,
    /// Where requests go.
    Upstream,
    /// How often they may.
    Limit,
    /// Who may what.
    Policy,
    /// Whose tokens are trusted.
    Issuer,
}

impl Kind {
    /// As the admin API calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consumer => "consumer",
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Limit => "limit",
            Self::Policy => "policy",
            Self::Issuer => "issuer",
        }
    }

    /// As a resource file and the command line call them.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Consumer => "consumers",
            Self::Route => "routes",
            Self::Upstream => "upstreams",
            Self::Limit => "limits",
            Self::Policy => "policies",
            Self::Issuer => "issuers",
        }
    }

    /// Columns of a list, each with the field it shows, and what holds where the field is left out.
    fn columns(self) -> &'static [(&'static str, &'static str, &'static str)] {
        match self {
            Self::Consumer => &[("ROLES", "roles", "-")],
            Self::Route => &[
                ("HOSTS", "hosts", "-"),
                ("PATHS", "paths", "-"),
                ("METHODS", "methods", "-"),
                ("UPSTREAM", "upstream", "-"),
                ("LIMITS", "limits", "-"),
            ],
            Self::Upstream => &[("TARGETS", "targets", "-")],
            Self::Limit => &[
                ("RATE", "rate", "-"),
                ("BURST", "burst", "-"),
                ("QUOTA", "quota", "-"),
                ("PER", "per", "-"),
                ("SCOPE", "scope", "cluster"),
                ("MODE", "mode", "enforce"),
            ],
            Self::Policy => &[],
            Self::Issuer => &[("ISSUER", "issuer", "-")],
        }
    }
}

/// The service, ready for large answers.
pub fn resources(channel: Channel) -> ResourcesClient<Channel> {
    ResourcesClient::new(channel).max_decoding_message_size(client::ANSWER_BYTES_MAX)
}

/// Does one of their verbs.
pub async fn run(session: &Session, kind: Kind, verb: ResourceVerb) -> Result<Answer, Failure> {
    match verb {
        ResourceVerb::List => list(session, kind).await,
        ResourceVerb::Get { name } => get(session, kind, name).await,
        ResourceVerb::Delete { name } => {
            session.confirm(&format!("Delete {} {name}?", kind.name()))?;
            delete(session, kind, name).await
        }
    }
}

#[derive(Serialize)]
struct ResourceData {
    kind: &'static str,
    name: String,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<u64>,
    spec: Value,
}

impl ResourceData {
    fn new(kind: Kind, info: ResourceInfo) -> Result<Self, Failure> {
        let consumer = kind == Kind::Consumer;
        let spec = if info.json.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&info.json).map_err(|_| Failure::malformed("readable resource"))?
        };
        Ok(Self {
            kind: kind.name(),
            name: info.name,
            revision: info.revision,
            enabled: consumer.then_some(info.enabled),
            keys: consumer.then_some(info.keys),
            spec,
        })
    }
}

async fn list(session: &Session, kind: Kind) -> Result<Answer, Failure> {
    let request = ListResourcesRequest { kind: kind.name().into() };
    let reply = session.client.read(async |channel| resources(channel).list(request.clone()).await).await?;
    let found = reply
        .resources
        .into_iter()
        .map(|info| ResourceData::new(kind, info))
        .collect::<Result<Vec<ResourceData>, Failure>>()?;
    let rows = found.iter().map(|resource| row(kind, resource)).collect();
    let mut columns = vec!["NAME"];
    if kind == Kind::Consumer {
        columns.extend(["ENABLED", "KEYS"]);
    }
    columns.extend(kind.columns().iter().map(|(column, ..)| *column));
    columns.push("REVISION");
    let none = match kind {
        Kind::Consumer => "no consumers",
        Kind::Route => "no routes",
        Kind::Upstream => "no upstreams",
        Kind::Limit => "no limits",
        Kind::Policy => "no policies",
        Kind::Issuer => "no issuers",
    };
    Ok(Answer::new(found, vec![Block::Table(columns, rows, none)]))
}

fn row(kind: Kind, resource: &ResourceData) -> Vec<String> {
    let mut row = vec![resource.name.clone()];
    row.extend(resource.enabled.map(|enabled| if enabled { "yes".to_owned() } else { "no".to_owned() }));
    row.extend(resource.keys.map(|keys| keys.to_string()));
    row.extend(kind.columns().iter().map(|(_, field, default)| cell(resource.spec.get(field), default)));
    row.push(resource.revision.to_string());
    row
}

fn cell(value: Option<&Value>, default: &str) -> String {
    let text = match value {
        None | Some(Value::Null) => default.into(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(|item| cell(Some(item), default)).collect();
            items.join(",")
        }
        Some(other) => other.to_string(),
    };
    if text.chars().count() <= CELL_CHARS_MAX {
        return text;
    }
    let start: String = text.chars().take(CELL_CHARS_MAX - 1).collect();
    format!("{start}…")
}

/// What a resource file would say of one.
pub async fn spec(session: &Session, kind: Kind, name: &str) -> Result<Value, Failure> {
    Ok(find(session, kind, name.to_owned()).await?.spec)
}

async fn find(session: &Session, kind: Kind, name: String) -> Result<ResourceData, Failure> {
    let request = GetResourceRequest { kind: kind.name().into(), name };
    let info = session.client.read(async |channel| resources(channel).get(request.clone()).await).await?;
    ResourceData::new(kind, info)
}

async fn get(session: &Session, kind: Kind, name: String) -> Result<Answer, Failure> {
    let resource = find(session, kind, name).await?;
    let mut pairs = vec![("name", resource.name.clone()), ("revision", resource.revision.to_string())];
    pairs.extend(resource.enabled.map(|enabled| ("enabled", if enabled { "yes" } else { "no" }.to_owned())));
    pairs.extend(resource.keys.map(|keys| ("keys", keys.to_string())));
    let spec = match &resource.spec {
        Value::String(text) => text.clone(),
        spec => serde_saphyr::to_string(spec).map_err(|error| Failure::local(error.to_string()))?,
    };
    Ok(Answer::new(resource, vec![Block::Pairs(pairs), Block::Text(spec)]))
}

async fn delete(session: &Session, kind: Kind, name: String) -> Result<Answer, Failure> {
    let result = session
        .client
        .write(&format!("quoratectl {} list", kind.plural()), async |channel, write| {
            let request = DeleteResourceRequest { write: Some(write), kind: kind.name().into(), name: name.clone() };
            resources(channel).delete(request).await
        })
        .await?;
    Ok(Written::from(result).answer(format!("The {} {name} is deleted.", kind.name())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_short_and_readable() {
        assert_eq!(cell(None, "-"), "-");
        assert_eq!(cell(Some(&json!(["a", "b"])), "-"), "a,b");
        assert_eq!(cell(Some(&json!({"a": 1})), "-"), "{\"a\":1}");
        assert_eq!(cell(Some(&json!("é".repeat(99))), "-").chars().count(), CELL_CHARS_MAX);
    }
}
