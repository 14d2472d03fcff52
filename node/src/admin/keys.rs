//! API keys. Secrets are made here, shown once, and only their hashes go on. What of a key may be known (its id) follows
//! from the request id, so that a retry whose first answer was lost finds the key that the first try made.

use super::{
    Admin, aside, caller,
    cluster::now,
    name,
    problem::Problem,
    write::{Done, Write},
};
use crate::credential::{Credential, same};
use machine::{
    Command, Name, View, Wall, cap,
    command::Precondition,
    key::{ImportedKey, Key, KeyId, KeyOrigin, KeyState, SecretHash},
};
use proto::admin::{
    CreateKeyReply, CreateKeyRequest, ImportKey, ImportKeysReply, ImportKeysRequest, KeyInfo, ListKeysReply,
    ListKeysRequest, RevokeKeyRequest, RotateKeyRequest, ShowKeyRequest, WriteResult, keys_server::Keys,
};
use raft::mutation::{self, Mutation};
use std::collections::BTreeSet;
use tonic::{Request, Response, Status};

/// Keys in one answer.
const PAGE_MAX: usize = 1_000;
/// The longest that two secrets of a key overlap.
const OVERLAP_MAX_MS: u64 = 366 * 24 * 60 * 60 * 1000;

#[tonic::async_trait]
impl Keys for Admin {
    async fn create(&self, request: Request<CreateKeyRequest>) -> Result<Response<CreateKeyReply>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let write = Write::new(request.write)?;
        let consumer = name(&request.consumer)?;
        let credential = generate(KeyId(write.derive("key id")))?;
        let not_after = (request.ttl_ms != 0).then(|| self.raft().time().wall.plus_ms(request.ttl_ms));
        let command = Command::CreateKey {
            id: credential.id(),
            consumer: consumer.clone(),
            label: label(request.name),
            scopes: scopes(&request.scopes)?,
            hash: credential.hash(),
            not_after,
        };
        if mutation::is(Mutation::LogsSecrets) {
            tracing::info!(key = %*credential.text(), "a key is made");
        }
        let done = self.write(&caller, &write, command).await?;
        let view = self.applied(done.index).await?;
        if holds(&view, &credential) {
            return Ok(Response::new(created(&done, &credential, &view)));
        }
        // An earlier try made the key, and its secret was lost with the answer: nobody has it, so it is replaced.
        let again =
            write.step(&hex::encode(crate::pki::random::<16>().map_err(|error| Problem::internal(error.to_string()))?));
        let command = Command::RotateKey {
            id: credential.id(),
            hash: credential.hash(),
            overlap_ms: 0,
            not_after: None,
            precondition: Precondition::Any,
        };
        let done = self.write(&caller, &again, command).await?;
        let view = self.applied(done.index).await?;
        Ok(Response::new(created(&done, &credential, &view)))
    }

    async fn list(&self, request: Request<ListKeysRequest>) -> Result<Response<ListKeysReply>, Status> {
        let request = request.into_inner();
        let consumer = (!request.consumer.is_empty()).then(|| name(&request.consumer)).transpose()?;
        let wanted = match request.state.as_str() {
            "" => None,
            text => Some(parse_state(text)?),
        };
        let after = match request.after.as_str() {
            "" => None,
            text => Some(key_id(text)?),
        };
        let limit = match usize::try_from(request.limit) {
            Ok(limit @ 1..=PAGE_MAX) => limit,
            _ => PAGE_MAX,
        };
        let view = self.read().await?;
        if let Some(consumer) = &consumer
            && !view.registry.consumers.contains_key(consumer)
        {
            return Err(Problem::not_found(format!("there is no consumer {:?}", consumer.as_str())).into());
        }
        let now = now(&view, self.raft());
        // With a rare state, all keys are looked at.
        let reply = aside(move || page(&view, now, consumer.as_ref(), wanted, after, limit)).await?;
        Ok(Response::new(reply))
    }

    async fn show(&self, request: Request<ShowKeyRequest>) -> Result<Response<KeyInfo>, Status> {
        let id = key_id(&request.into_inner().id)?;
        let view = self.read().await?;
        let key = view.registry.keys.get(&id).ok_or_else(|| Problem::not_found(format!("there is no key {id}")))?;
        Ok(Response::new(info(key, now(&view, self.raft()))))
    }

    async fn rotate(&self, request: Request<RotateKeyRequest>) -> Result<Response<CreateKeyReply>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let write = Write::new(request.write)?;
        let id = key_id(&request.id)?;
        if request.overlap_ms > OVERLAP_MAX_MS {
            return Err(Problem::invalid("two secrets of a key overlap for at most 366 days").into());
        }
        if self.read().await?.registry.keys.get(&id).is_some_and(|key| key.origin == KeyOrigin::Imported) {
            return Err(Problem::refused("imported_key", "a key that was imported has no secret here to rotate")
                .hint("create a new key, and revoke this one once it is not used any more")
                .into());
        }
        let credential = generate(id)?;
        let command = Command::RotateKey {
            id,
            hash: credential.hash(),
            overlap_ms: request.overlap_ms,
            not_after: None,
            precondition: write.precondition(),
        };
        let done = self.write(&caller, &write, command).await?;
        let view = self.applied(done.index).await?;
        if !holds(&view, &credential) {
            return Err(Problem::refused(
                "unknown_secret",
                "an earlier try of this request rotated the key, and the new secret was lost on the way",
            )
            .hint("the secret before it stays valid while the rotation overlaps: rotate again, which ends it")
            .into());
        }
        Ok(Response::new(created(&done, &credential, &view)))
    }

    async fn revoke(&self, request: Request<RevokeKeyRequest>) -> Result<Response<WriteResult>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let write = Write::new(request.write)?;
        let command = Command::RevokeKey { id: key_id(&request.id)?, precondition: write.precondition() };
        Ok(Response::new(self.write(&caller, &write, command).await?.result()))
    }

    async fn import(&self, request: Request<ImportKeysRequest>) -> Result<Response<ImportKeysReply>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let write = Write::new(request.write)?;
        if request.keys.len() > cap::KEYS_PER_IMPORT_MAX {
            return Err(Problem::invalid(format!("one import takes at most {} keys", cap::KEYS_PER_IMPORT_MAX)).into());
        }
        let keys = request
            .keys
            .into_iter()
            .enumerate()
            .map(|(place, key)| imported(&write, place, key))
            .collect::<Result<Vec<_>, _>>()?;
        let ids = keys.iter().map(|key| key.id.to_string()).collect();
        let done = self.write(&caller, &write, Command::ImportKeys(keys)).await?;
        Ok(Response::new(ImportKeysReply { result: Some(done.result()), ids }))
    }
}

fn generate(id: KeyId) -> Result<Credential, Problem> {
    Credential::generate_for(id).map_err(|error| Problem::internal(error.to_string()))
}

/// Whether the secret in force is this one.
fn holds(view: &View, credential: &Credential) -> bool {
    view.registry.keys.get(&credential.id()).is_some_and(|key| same(&key.current().hash, &credential.hash()))
}

fn created(done: &Done, credential: &Credential, view: &View) -> CreateKeyReply {
    let key = view.registry.keys.get(&credential.id());
    CreateKeyReply {
        result: Some(done.result()),
        id: credential.id().to_string(),
        key: credential.text().to_string(),
        consumer: key.map(|key| key.consumer().to_string()).unwrap_or_default(),
        expires_at_ms: key.and_then(|key| key.current().not_after).map_or(0, |end| end.0),
    }
}

pub(super) fn imported(write: &Write, place: usize, key: ImportKey) -> Result<ImportedKey, Problem> {
    let at = |problem: Problem| problem.prefix(&format!("key {}", place + 1));
    let mut hash = [0; 32];
    hex::decode_to_slice(&key.sha256, &mut hash)
        .map_err(|_| at(Problem::invalid("sha256 must be 64 hexadecimal digits")))?;
    Ok(ImportedKey {
        id: KeyId(write.derive(&format!("imported key {place}"))),
        consumer: name(&key.consumer).map_err(at)?,
        label: label(key.name),
        scopes: scopes(&key.scopes).map_err(at)?,
        hash: SecretHash(hash),
        not_after: (key.expires_at_ms != 0).then_some(Wall(key.expires_at_ms)),
    })
}

pub(super) fn label(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

pub(super) fn scopes(texts: &[String]) -> Result<BTreeSet<Name>, Problem> {
    texts.iter().map(|text| name(text)).collect()
}

pub(super) fn key_id(text: &str) -> Result<KeyId, Problem> {
    // People paste the whole key: that must not end up in a message.
    text.parse().map_err(|error: machine::key::InvalidKeyId| Problem::invalid(error.to_string()))
}

pub(super) fn parse_state(text: &str) -> Result<KeyState, Problem> {
    [KeyState::Active, KeyState::Rotating, KeyState::Expired, KeyState::Revoked]
        .into_iter()
        .find(|known| state(*known) == text)
        .ok_or_else(|| {
            Problem::invalid(format!(
                "{text:?} is not a state of a key: there are active, rotating, expired and revoked"
            ))
        })
}

const fn state(state: KeyState) -> &'static str {
    match state {
        KeyState::Active => "active",
        KeyState::Rotating => "rotating",
        KeyState::Expired => "expired",
        KeyState::Revoked => "revoked",
    }
}

pub(super) fn page(
    view: &View,
    now: Wall,
    consumer: Option<&Name>,
    wanted: Option<KeyState>,
    after: Option<KeyId>,
    limit: usize,
) -> ListKeysReply {
    let all: Box<dyn Iterator<Item = &Key>> = match consumer {
        Some(consumer) => Box::new(view.registry.keys_of(consumer).skip_while(move |key| Some(key.id) <= after)),
        None => match after {
            Some(after) => Box::new(view.registry.keys.from(&after).skip_while(move |key| key.id == after)),
            None => Box::new(view.registry.keys.iter()),
        },
    };
    let mut found = all.filter(|key| wanted.is_none_or(|wanted| key.state(now) == wanted));
    let keys = found.by_ref().take(limit).map(|key| info(key, now)).collect();
    ListKeysReply { keys, more: found.next().is_some() }
}

fn info(key: &Key, now: Wall) -> KeyInfo {
    KeyInfo {
        id: key.id.to_string(),
        consumer: key.consumer().to_string(),
        state: state(key.state(now)).to_owned(),
        name: key.label().unwrap_or_default().to_owned(),
        scopes: key.scopes().into_iter().flat_map(|scopes| scopes.iter()).map(ToString::to_string).collect(),
        created_at_ms: key.created_at().0,
        expires_at_ms: key.current().not_after.map_or(0, |end| end.0),
        revoked_at_ms: key.revoked_at().map_or(0, |at| at.0),
        previous_expires_at_ms: match key.previous() {
            Some(previous) if !previous.has_ended(now) => previous.not_after.map_or(0, |end| end.0),
            _ => 0,
        },
        revision: key.revision,
        imported: key.origin == KeyOrigin::Imported,
    }
}
