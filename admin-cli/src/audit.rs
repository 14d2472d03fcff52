//! `quoratectl audit`: who changed what, when, from which revision to which.

use crate::command_line::Audit;
use crate::exit::{Exit, Failure};
use crate::moment;
use crate::render::{Answer, Block};
use crate::session::Session;
use proto::admin::audit_client::AuditClient;
use proto::admin::{AuditEntry, ReadAuditRequest};
use serde::Serialize;
use tonic::Streaming;

#[derive(Serialize)]
struct EntryData {
    number: u64,
    at: Option<String>,
    actor: String,
    action: String,
    subject: String,
    from_revision: Option<u64>,
    to_revision: u64,
}

impl From<AuditEntry> for EntryData {
    fn from(entry: AuditEntry) -> Self {
        Self {
            number: entry.number,
            at: moment::text(entry.at_ms),
            actor: entry.actor,
            action: entry.action,
            subject: entry.subject,
            from_revision: entry.from_revision,
            to_revision: entry.to_revision,
        }
    }
}

/// What there is.
pub async fn read(session: &Session, audit: Audit) -> Result<Answer, Failure> {
    let mut entries = open(session, &audit, 0).await?;
    let (mut rows, mut data) = (Vec::new(), Vec::new());
    while let Some(entry) = tokio::time::timeout(session.client.timeout(), entries.message())
        .await
        .map_err(|_| Failure::new(Exit::Unreachable, "timed_out", "the entries broke off", "call it again"))?
        .map_err(|status| session.client.failure(&status))?
    {
        rows.push(vec![
            entry.number.to_string(),
            moment::text_or(entry.at_ms, "-"),
            entry.actor.clone(),
            entry.action.clone(),
            entry.subject.clone(),
            revisions(&entry),
        ]);
        data.push(EntryData::from(entry));
    }
    let columns = vec!["NUMBER", "AT", "ACTOR", "ACTION", "SUBJECT", "REVISION"];
    Ok(Answer::new(data, vec![Block::Table(columns, rows, "no entries")]))
}

/// What there is and what comes, a line each, until the program is stopped. Goes on at another node if one is lost.
pub async fn follow(session: &Session, audit: Audit) -> Result<(), Failure> {
    let mut after = 0;
    loop {
        let mut entries = open(session, &audit, after).await?;
        let ended = loop {
            match entries.message().await {
                Ok(Some(entry)) => {
                    after = after.max(entry.number);
                    let line = format!(
                        "{}  {:<16}  {:<20}  {}  {}",
                        moment::text_or(entry.at_ms, "-"),
                        entry.actor,
                        entry.action,
                        entry.subject,
                        revisions(&entry)
                    );
                    session.printer.item(&Answer::new(EntryData::from(entry), vec![Block::Text(line)]))?;
                }
                Ok(None) => break None,
                Err(status) => break Some(session.client.failure(&status)),
            }
        };
        if let Some(failure) = ended.filter(|failure| failure.exit != Exit::Unreachable) {
            return Err(failure);
        }
        session.client.elsewhere();
        // A node that ends each stream at once must not be asked in a busy loop.
        tokio::time::sleep(crate::client::PAUSE_MAX).await;
        session.client.restart();
    }
}

async fn open(session: &Session, audit: &Audit, after: u64) -> Result<Streaming<AuditEntry>, Failure> {
    let request = ReadAuditRequest {
        since_ms: audit.since.unwrap_or(0),
        actor: audit.actor.clone(),
        follow: audit.follow,
        after,
    };
    session.client.read(async |channel| AuditClient::new(channel).read(request.clone()).await).await
}

fn revisions(entry: &AuditEntry) -> String {
    match entry.from_revision {
        Some(from) => format!("{from} -> {}", entry.to_revision),
        None => format!("-> {}", entry.to_revision),
    }
}
