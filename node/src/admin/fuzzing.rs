//! Requests of the admin API, as bytes, turned into what they ask of the core: all that the services do with them before
//! the cluster is asked. Only built with the feature `fuzzing`.

use super::{keys, members, name, problem::Problem, resources, usage, write::Write};
use crate::{
    enrol::authorities_pem,
    pki::{PEM_BYTES_MAX, authority::check_request, outside::Holder, token::JoinToken},
    resource::{self, Imagined, Presented},
};
use machine::{
    Command, RequestId, View,
    key::{KeyId, SecretHash},
    member::{MemberSpec, Standing},
    operator::Role,
};
use prost::Message;
use proto::{
    admin::{
        CreateJoinTokenRequest, CreateKeyRequest, CreateOperatorRequest, DeleteResourceRequest, ExplainRequest,
        GetResourceRequest, ImportKeysRequest, LimitUsageRequest, ListKeysRequest, MemberRequest, RevokeKeyRequest,
        RotateKeyRequest, SetConsumerEnabledRequest,
    },
    peer::JoinRequest,
};

/// How many verbs [`admin_command`] knows.
pub const ADMIN_VERBS: u8 = 14;

/// What a request asks of the core, by the verb with this number; nothing, if it is refused before or only reads.
#[must_use]
pub fn admin_command(verb: u8, message: &[u8], view: &View) -> Option<(RequestId, Command)> {
    let asked = match verb % ADMIN_VERBS {
        0 => create_key(message),
        1 => import_keys(message),
        2 => rotate_key(message),
        3 => revoke_key(message),
        4 => create_operator(message, view),
        5 => set_enabled(message),
        6 => delete(message, view),
        7 => remove_member(message, view),
        8 => create_join_token(message),
        9 => join(message),
        reading => read(reading, message, view).map(|()| None),
    };
    asked.ok().flatten()
}

type Asked = Result<Option<(RequestId, Command)>, Problem>;

fn decode<T: Message + Default>(message: &[u8]) -> Result<T, Problem> {
    T::decode(message).map_err(|error| Problem::invalid(error.to_string()))
}

fn create_key(message: &[u8]) -> Asked {
    let request: CreateKeyRequest = decode(message)?;
    let write = Write::new(request.write)?;
    let command = Command::CreateKey {
        id: KeyId(write.derive("key id")),
        consumer: name(&request.consumer)?,
        label: keys::label(request.name),
        scopes: keys::scopes(&request.scopes)?,
        hash: SecretHash(write.derive("hash")),
        not_after: (request.ttl_ms != 0).then(|| machine::Wall(0).plus_ms(request.ttl_ms)),
    };
    Ok(Some((write.request, command)))
}

fn import_keys(message: &[u8]) -> Asked {
    let request: ImportKeysRequest = decode(message)?;
    let write = Write::new(request.write)?;
    let keys = request.keys.into_iter().enumerate().map(|(place, key)| keys::imported(&write, place, key));
    Ok(Some((write.request, Command::ImportKeys(keys.collect::<Result<_, _>>()?))))
}

fn rotate_key(message: &[u8]) -> Asked {
    let request: RotateKeyRequest = decode(message)?;
    let write = Write::new(request.write)?;
    let command = Command::RotateKey {
        id: keys::key_id(&request.id)?,
        hash: SecretHash(write.derive("hash")),
        overlap_ms: request.overlap_ms,
        not_after: None,
        precondition: write.precondition(),
    };
    Ok(Some((write.request, command)))
}

fn revoke_key(message: &[u8]) -> Asked {
    let request: RevokeKeyRequest = decode(message)?;
    let write = Write::new(request.write)?;
    let command = Command::RevokeKey { id: keys::key_id(&request.id)?, precondition: write.precondition() };
    Ok(Some((write.request, command)))
}

fn create_operator(message: &[u8], view: &View) -> Asked {
    let request: CreateOperatorRequest = decode(message)?;
    let write = Write::new(request.write)?;
    let name = name(&request.name)?;
    if request.certificate_pem.is_empty() {
        check_request(&request.certificate_request_pem).map_err(|error| Problem::invalid(error.to_string()))?;
    } else if request.certificate_pem.len() <= PEM_BYTES_MAX {
        // Nothing that is made up here was signed by an authority of the cluster.
        let taken = Holder::Operator(&name).take(&request.certificate_pem, None, &authorities_pem(view), 0);
        taken.map_err(|error| Problem::invalid(error.to_string()))?;
    }
    let command = Command::CreateOperator {
        name,
        role: Role::Operator,
        certificate_sha256: write.derive("certificate"),
        not_after: machine::Wall(request.ttl_ms),
    };
    Ok(Some((write.request, command)))
}

fn set_enabled(message: &[u8]) -> Asked {
    let request: SetConsumerEnabledRequest = decode(message)?;
    let write = Write::new(request.write)?;
    let command = Command::SetConsumerEnabled {
        name: name(&request.name)?,
        enabled: request.enabled,
        precondition: write.precondition(),
    };
    Ok(Some((write.request, command)))
}

fn delete(message: &[u8], view: &View) -> Asked {
    let request: DeleteResourceRequest = decode(message)?;
    let (noun, name) = (resources::noun(&request.kind)?, name(&request.name)?);
    let write = Write::new(request.write)?;
    let changes = resource::delete(&view.registry, noun, name.as_str())
        .map_err(|_| Problem::not_found("it does not exist, or is needed"))?;
    let command = Command::ApplyResources { validated_against: view.registry.resources_revision, changes };
    Ok(Some((write.request, command)))
}

fn remove_member(message: &[u8], view: &View) -> Asked {
    let request: MemberRequest = decode(message)?;
    let write = Write::new(request.write)?;
    let id = members::find(&view.registry, &request.member)?;
    Ok(Some((write.request, Command::SetStanding { id, standing: Standing::Leaving })))
}

fn create_join_token(message: &[u8]) -> Asked {
    let request: CreateJoinTokenRequest = decode(message)?;
    let write = Write::new(request.write)?;
    let command = Command::CreateJoinToken { hash: write.derive("token"), not_after: machine::Wall(request.ttl_ms) };
    Ok(Some((write.request, command)))
}

/// Of a newcomer, which nobody knows yet.
fn join(message: &[u8]) -> Asked {
    let request: JoinRequest = decode(message)?;
    let token: JoinToken = request.token.parse().map_err(|_| Problem::invalid("no token"))?;
    let spec: MemberSpec =
        serde_json::from_slice(&request.spec).map_err(|error| Problem::invalid(error.to_string()))?;
    check_request(&request.certificate_request_pem).map_err(|error| Problem::invalid(error.to_string()))?;
    let random = request.request_random.as_ref().try_into().map_err(|_| Problem::invalid("no id"))?;
    let id = RequestId { issued: machine::Wall(request.request_issued_ms), random: u128::from_be_bytes(random) };
    Ok(Some((id, Command::AdmitMember { token_hash: token.hash(), spec, learner: request.learner })))
}

/// What only reads: that it can be answered.
fn read(verb: u8, message: &[u8], view: &View) -> Result<(), Problem> {
    match verb {
        10 => {
            let request: ListKeysRequest = decode(message)?;
            let consumer = (!request.consumer.is_empty()).then(|| name(&request.consumer)).transpose()?;
            let after = (!request.after.is_empty()).then(|| keys::key_id(&request.after)).transpose()?;
            let wanted = (!request.state.is_empty()).then(|| keys::parse_state(&request.state)).transpose()?;
            drop(keys::page(view, view.at.wall, consumer.as_ref(), wanted, after, 3));
        }
        11 => {
            let request: GetResourceRequest = decode(message)?;
            drop(resources::info(&view.registry, resources::noun(&request.kind)?, &request.name));
        }
        12 => {
            let request: ExplainRequest = decode(message)?;
            let credential = match (request.key_id.as_str(), request.key.as_str()) {
                ("", "") => Presented::Nothing,
                ("", text) => Presented::Text(text),
                (id, _) => Presented::Id(keys::key_id(id)?),
            };
            let imagined = Imagined { credential, method: &request.method, url: &request.url };
            drop(resource::explain(&view.registry, view.at.wall, &imagined));
        }
        _ => {
            let request: LimitUsageRequest = decode(message)?;
            let name = name(&request.name)?;
            let limit = usage::find(&view.registry, &name)?;
            drop(usage::bucket_of(&name, &limit, &request, &view.registry)?);
        }
    }
    Ok(())
}
