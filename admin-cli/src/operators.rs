//! `quoratectl operators`: who may administer. The key pair of a new operator is made here, and only its public half
//! leaves this machine; or its certificate was signed outside, and its key is not here at all.

use crate::command_line::OperatorsVerb;
use crate::context::ContextFile;
use crate::exit::Failure;
use crate::file::{self, Aside};
use crate::render::{Answer, Block};
use crate::session::Session;
use crate::written::Written;
use crate::{duration, moment};
use clap::ValueEnum;
use proto::admin::operators_client::OperatorsClient;
use proto::admin::{CreateOperatorReply, CreateOperatorRequest, ListOperatorsRequest, RevokeOperatorRequest};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::{Zeroize, Zeroizing};

/// A certificate, and whatever a tool writes around it.
const CERTIFICATE_BYTES_MAX: u64 = 16 * 1024;

/// Does one of its verbs.
pub async fn run(session: &Session, verb: OperatorsVerb) -> Result<Answer, Failure> {
    match verb {
        OperatorsVerb::Create { name, role, expires, certificate, out } => {
            let out = new_file(&name, out)?;
            let role = role.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            match certificate {
                Some(certificate) => register(session, name, role, &certificate, out).await,
                None => create(session, name, role, expires, out).await,
            }
        }
        OperatorsVerb::List => list(session).await,
        OperatorsVerb::Revoke { name } => {
            session.confirm(&format!("Revoke operator {name}?"))?;
            revoke(session, name).await
        }
    }
}

#[derive(Serialize)]
struct CreatedData {
    name: String,
    role: String,
    context: String,
    endpoints: Vec<String>,
    expires_at: Option<String>,
    #[serde(flatten)]
    written: Written,
}

/// The context file to be. Before anything is asked: a certificate whose key cannot be kept would be of no use to anyone.
fn new_file(name: &str, out: Option<PathBuf>) -> Result<(NewFile, PathBuf), Failure> {
    if out.is_none() && (name.is_empty() || name.contains(['/', '\0'])) {
        return Err(Failure::usage(format!("`{name}` is no file name"), "name the context file with --out"));
    }
    let path = out.unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
    Ok((NewFile::open(&path)?, path))
}

/// An operator whose key is made here.
async fn create(
    session: &Session,
    name: String,
    role: String,
    expires: Duration,
    (file, path): (NewFile, PathBuf),
) -> Result<Answer, Failure> {
    let (key, certificate_request_pem) = key_pair(&name)?;
    let check = format!("quoratectl operators list; if {name} is there, revoke it: its key was not kept");
    let request = CreateOperatorRequest {
        name: name.clone(),
        role: role.clone(),
        certificate_request_pem,
        ttl_ms: duration::millis(expires),
        ..CreateOperatorRequest::default()
    };
    let reply = ask(session, &check, &request).await?;
    let mut context = context(session, &name, &reply);
    context.key_pem = Some(key.to_string());
    let text = toml::to_string_pretty(&context).map_err(|error| Failure::local(format!("the context: {error}")))?;
    context.key_pem.zeroize();
    file.write(Zeroizing::new(text).as_bytes())?;
    let told = format!("Its context, with its private key: {}", path.display());
    answer(name, role, &path, context.endpoints, reply, &told)
}

/// An operator whose certificate was signed outside, and whose key is not here.
async fn register(
    session: &Session,
    name: String,
    role: String,
    certificate: &Path,
    (file, path): (NewFile, PathBuf),
) -> Result<Answer, Failure> {
    let (certificate_pem, _) = file::read_text(certificate, CERTIFICATE_BYTES_MAX)?;
    let request = CreateOperatorRequest {
        name: name.clone(),
        role: role.clone(),
        certificate_pem,
        ..CreateOperatorRequest::default()
    };
    let reply = ask(session, "quoratectl operators list", &request).await?;
    let key = format!("{name}.key");
    let mut context = context(session, &name, &reply);
    context.key = Some(PathBuf::from(&key));
    let text = toml::to_string_pretty(&context).map_err(|error| Failure::local(format!("the context: {error}")))?;
    file.write(text.as_bytes())?;
    let told = format!("Its context: {}; its private key belongs beside it, as {key}", path.display());
    answer(name, role, &path, context.endpoints, reply, &told)
}

async fn ask(session: &Session, check: &str, request: &CreateOperatorRequest) -> Result<CreateOperatorReply, Failure> {
    let call = async |channel, write| {
        let request = CreateOperatorRequest { write: Some(write), ..request.clone() };
        OperatorsClient::new(channel).create(request).await
    };
    session.client.write(check, call).await
}

/// A context without a key.
fn context(session: &Session, name: &str, reply: &CreateOperatorReply) -> ContextFile {
    let known = &session.context.endpoints;
    ContextFile {
        cluster: session.context.cluster.clone(),
        operator: name.to_owned(),
        endpoints: if reply.addresses.is_empty() { known } else { &reply.addresses }.clone(),
        ca_pem: Some(reply.authorities_pem.clone()),
        certificate_pem: Some(reply.certificate_pem.clone()),
        ..ContextFile::default()
    }
}

fn answer(
    name: String,
    role: String,
    path: &Path,
    endpoints: Vec<String>,
    reply: CreateOperatorReply,
    told: &str,
) -> Result<Answer, Failure> {
    let written = Written::from_answer(reply.result)?;
    let people = vec![
        Block::Text(format!(
            "Operator {name} ({role}) until {}.\n{told}",
            moment::text_or(reply.expires_at_ms, "for ever"),
        )),
        Block::Text(written.sentence()),
    ];
    let notices = written.notices();
    let data = CreatedData {
        name,
        role,
        context: path.display().to_string(),
        endpoints,
        expires_at: moment::text(reply.expires_at_ms),
        written,
    };
    Ok(Answer::new(data, people).with_notices(notices))
}

/// Where the context goes.
enum NewFile {
    /// A file that is not there yet.
    Aside(Aside),
    /// A device or a pipe, such as `/dev/stdout`.
    Stream(File, PathBuf),
}

impl NewFile {
    fn open(path: &Path) -> Result<Self, Failure> {
        match std::fs::metadata(path) {
            Ok(there) if there.file_type().is_char_device() || there.file_type().is_fifo() => {
                let opened = OpenOptions::new().write(true).open(path);
                opened.map(|file| Self::Stream(file, path.to_owned())).map_err(|error| file::unwritable(path, &error))
            }
            _ if path.symlink_metadata().is_ok() => {
                Err(Failure::usage(format!("{} exists already", path.display()), "name another file with --out"))
            }
            _ => Ok(Self::Aside(Aside::create(path, 0o600)?)),
        }
    }

    fn write(self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Aside(aside) => {
                aside.write(bytes)?;
                aside.publish()
            }
            Self::Stream(mut stream, path) => stream.write_all(bytes).map_err(|error| file::unwritable(&path, &error)),
        }
    }
}

/// A key pair, and the request to certify it.
fn key_pair(name: &str) -> Result<(Zeroizing<String>, String), Failure> {
    let made = || -> Result<_, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, name);
        subject.push(DnType::OrganizationalUnitName, "operator");
        params.distinguished_name = subject;
        let request = params.serialize_request(&key)?.pem()?;
        Ok((Zeroizing::new(key.serialize_pem()), request))
    };
    made().map_err(|error| Failure::local(format!("no key pair could be made: {error}")))
}

#[derive(Serialize)]
struct OperatorData {
    name: String,
    role: String,
    state: String,
    created_at: Option<String>,
    expires_at: Option<String>,
    certificate_sha256: String,
    revision: u64,
}

async fn list(session: &Session) -> Result<Answer, Failure> {
    let call = async |channel| OperatorsClient::new(channel).list(ListOperatorsRequest {}).await;
    let reply = session.client.read(call).await?;
    let rows = reply
        .operators
        .iter()
        .map(|operator| {
            vec![
                operator.name.clone(),
                operator.role.clone(),
                operator.state.clone(),
                moment::text_or(operator.created_at_ms, "-"),
                moment::text_or(operator.expires_at_ms, "never"),
            ]
        })
        .collect();
    let data: Vec<OperatorData> = reply
        .operators
        .into_iter()
        .map(|operator| OperatorData {
            name: operator.name,
            role: operator.role,
            state: operator.state,
            created_at: moment::text(operator.created_at_ms),
            expires_at: moment::text(operator.expires_at_ms),
            certificate_sha256: operator.certificate_sha256,
            revision: operator.revision,
        })
        .collect();
    let columns = vec!["NAME", "ROLE", "STATE", "CREATED", "EXPIRES"];
    Ok(Answer::new(data, vec![Block::Table(columns, rows, "no operators")]))
}

async fn revoke(session: &Session, name: String) -> Result<Answer, Failure> {
    let result = session
        .client
        .write("quoratectl operators list", async |channel, write| {
            let request = RevokeOperatorRequest { write: Some(write), name: name.clone() };
            OperatorsClient::new(channel).revoke(request).await
        })
        .await?;
    Ok(Written::from(result).answer(format!("Operator {name} is revoked.")))
}
