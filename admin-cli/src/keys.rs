//! `quoratectl keys`: API keys. A secret is printed once, by the command that made it.

mod import;

use crate::command_line::{KeyState, KeysVerb};
use crate::exit::Failure;
use crate::render::{Answer, Block};
use crate::session::Session;
use crate::written::Written;
use crate::{client, duration, moment};
use clap::ValueEnum;
use proto::admin::keys_client::KeysClient;
use proto::admin::{
    CreateKeyReply, CreateKeyRequest, KeyInfo, ListKeysRequest, RevokeKeyRequest, RotateKeyRequest, ShowKeyRequest,
};
use serde::Serialize;
use std::time::Duration;
use tonic::transport::Channel;

/// Keys a call: large enough that a million take few calls, small enough that each is quick.
const PAGE_KEYS: u32 = 1_000;

/// Does one of its verbs.
pub async fn run(session: &Session, verb: KeysVerb) -> Result<Answer, Failure> {
    match verb {
        KeysVerb::Create { consumer, name, scopes, expires } => {
            create(session, consumer, name, scopes, expires.unwrap_or_default()).await
        }
        KeysVerb::List { consumer, state, limit } => list(session, consumer, state, limit.unwrap_or(usize::MAX)).await,
        KeysVerb::Show { id } => show(session, id).await,
        KeysVerb::Rotate { id, overlap } => rotate(session, id, overlap).await,
        KeysVerb::Revoke { id } => {
            session.confirm(&format!("Revoke key {id}?"))?;
            revoke(session, id).await
        }
        KeysVerb::Import { file } => import::run(session, &file).await,
    }
}

fn keys(channel: Channel) -> KeysClient<Channel> {
    KeysClient::new(channel).max_decoding_message_size(client::ANSWER_BYTES_MAX)
}

#[derive(Serialize)]
struct CreatedData {
    id: String,
    key: String,
    consumer: String,
    expires_at: Option<String>,
    #[serde(flatten)]
    written: Written,
}

async fn create(
    session: &Session,
    consumer: String,
    name: String,
    scopes: Vec<String>,
    expires: Duration,
) -> Result<Answer, Failure> {
    let check =
        format!("quoratectl keys list --consumer {consumer}; a key whose secret was not shown: rotate or revoke it");
    let reply = session
        .client
        .write(&check, async |channel, write| {
            let request = CreateKeyRequest {
                write: Some(write),
                consumer: consumer.clone(),
                name: name.clone(),
                scopes: scopes.clone(),
                ttl_ms: duration::millis(expires),
            };
            keys(channel).create(request).await
        })
        .await?;
    secret(reply, "Key")
}

async fn rotate(session: &Session, id: String, overlap: Duration) -> Result<Answer, Failure> {
    let check = format!("quoratectl keys show {id}; if its secret is new and was not shown, rotate it again");
    let reply = session
        .client
        .write(&check, async |channel, write| {
            let request =
                RotateKeyRequest { write: Some(write), id: id.clone(), overlap_ms: duration::millis(overlap) };
            keys(channel).rotate(request).await
        })
        .await?;
    secret(reply, "New secret of key")
}

fn secret(reply: CreateKeyReply, what: &str) -> Result<Answer, Failure> {
    let written = Written::from_answer(reply.result)?;
    let people = vec![
        Block::Text(format!("{}\n", reply.key)),
        Block::Text(format!(
            "{what} {} of {}, expires: {}. It is not shown again.",
            reply.id,
            reply.consumer,
            moment::text_or(reply.expires_at_ms, "never")
        )),
        Block::Text(written.sentence()),
    ];
    let notices = written.notices();
    let data = CreatedData {
        id: reply.id,
        key: reply.key,
        consumer: reply.consumer,
        expires_at: moment::text(reply.expires_at_ms),
        written,
    };
    Ok(Answer::new(data, people).with_notices(notices))
}

#[derive(Serialize)]
struct KeyData {
    id: String,
    consumer: String,
    state: String,
    name: String,
    scopes: Vec<String>,
    created_at: Option<String>,
    expires_at: Option<String>,
    revoked_at: Option<String>,
    previous_expires_at: Option<String>,
    imported: bool,
    revision: u64,
}

impl From<KeyInfo> for KeyData {
    fn from(key: KeyInfo) -> Self {
        Self {
            id: key.id,
            consumer: key.consumer,
            state: key.state,
            name: key.name,
            scopes: key.scopes,
            created_at: moment::text(key.created_at_ms),
            expires_at: moment::text(key.expires_at_ms),
            revoked_at: moment::text(key.revoked_at_ms),
            previous_expires_at: moment::text(key.previous_expires_at_ms),
            imported: key.imported,
            revision: key.revision,
        }
    }
}

async fn list(session: &Session, consumer: String, state: Option<KeyState>, limit: usize) -> Result<Answer, Failure> {
    let state = state.and_then(|state| state.to_possible_value()).map(|value| value.get_name().to_owned());
    let mut request = ListKeysRequest { consumer, state: state.unwrap_or_default(), ..ListKeysRequest::default() };
    let mut found: Vec<KeyData> = Vec::new();
    while found.len() < limit {
        let wanted = u32::try_from(limit.saturating_sub(found.len())).unwrap_or(u32::MAX);
        request.limit = wanted.min(PAGE_KEYS);
        let page = session.client.read(async |channel| keys(channel).list(request.clone()).await).await?;
        found.extend(page.keys.into_iter().map(KeyData::from));
        match found.last() {
            // A page that brings nothing new would come again for ever.
            Some(last) if page.more && last.id != request.after => request.after.clone_from(&last.id),
            _ => break,
        }
        session.client.restart();
    }
    let rows = found
        .iter()
        .map(|key| {
            vec![
                key.id.clone(),
                key.consumer.clone(),
                key.state.clone(),
                key.name.clone(),
                key.scopes.join(","),
                key.created_at.clone().unwrap_or_else(|| "-".into()),
                key.expires_at.clone().unwrap_or_else(|| "never".into()),
            ]
        })
        .collect();
    let columns = vec!["ID", "CONSUMER", "STATE", "NAME", "SCOPES", "CREATED", "EXPIRES"];
    Ok(Answer::new(found, vec![Block::Table(columns, rows, "no keys")]))
}

async fn show(session: &Session, id: String) -> Result<Answer, Failure> {
    let call = async |channel| keys(channel).show(ShowKeyRequest { id: id.clone() }).await;
    let key = KeyData::from(session.client.read(call).await?);
    let mut pairs = vec![
        ("id", key.id.clone()),
        ("consumer", key.consumer.clone()),
        ("state", key.state.clone()),
        ("name", key.name.clone()),
        ("scopes", key.scopes.join(", ")),
        ("created", key.created_at.clone().unwrap_or_else(|| "-".into())),
        ("expires", key.expires_at.clone().unwrap_or_else(|| "never".into())),
    ];
    pairs.extend(key.revoked_at.clone().map(|at| ("revoked", at)));
    pairs.extend(key.previous_expires_at.clone().map(|at| ("secret before good until", at)));
    pairs.push(("revision", key.revision.to_string()));
    Ok(Answer::new(key, vec![Block::Pairs(pairs)]))
}

async fn revoke(session: &Session, id: String) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Data {
        id: String,
        #[serde(flatten)]
        written: Written,
    }
    let check = format!("quoratectl keys show {id}; revoking it again does no harm");
    let result = session
        .client
        .write(&check, async |channel, write| {
            keys(channel).revoke(RevokeKeyRequest { write: Some(write), id: id.clone() }).await
        })
        .await?;
    let written = Written::from(result);
    let people = vec![Block::Text(format!("Key {id} is revoked.\n{}", written.sentence())), written.table()];
    let notices = written.notices();
    Ok(Answer::new(Data { id, written }, people).with_notices(notices))
}
