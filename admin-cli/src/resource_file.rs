//! `apply`, `diff`, `export` and `validate`: resource files. The cluster reads and checks them; here they are text.

use crate::command_line::{Apply, Diff, ResourceFile, Validate};
use crate::confirm;
use crate::exit::Failure;
use crate::file;
use crate::render::{Answer, Block, Format, PlaceData, place_text};
use crate::resources::resources;
use crate::session::Session;
use crate::written::Written;
use proto::admin::{self, ApplyReply, ApplyRequest, ExportRequest, Place, ValidateRequest};
use serde::Serialize;

/// More than a cluster takes in one file, so that its own message is what people see.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

#[derive(Serialize)]
struct ApplyData {
    changes: Vec<ChangeData>,
    warnings: Vec<PlaceData>,
    #[serde(flatten)]
    written: Written,
}

#[derive(Serialize)]
struct DiffData {
    revision: u64,
    changes: Vec<ChangeData>,
    warnings: Vec<PlaceData>,
}

#[derive(Serialize)]
struct ChangeData {
    kind: String,
    name: String,
    action: String,
    diff: String,
}

/// Applies a file.
pub async fn apply(session: &Session, apply: Apply) -> Result<Answer, Failure> {
    let file = read(&apply.file)?;
    session.client.restart();
    if apply.dry_run {
        return shown(plan(session, &file, apply.prune).await?);
    }
    if apply.prune && confirm::asks(session.yes) {
        let gone: Vec<String> = plan(session, &file, true)
            .await?
            .changes
            .iter()
            .filter(|change| change.action == "delete")
            .map(|change| format!("{} {}", change.kind, change.name))
            .collect();
        if !gone.is_empty() {
            session.confirm(&format!("This deletes {}. Go on?", gone.join(", ")))?;
        }
    }
    let check = format!("quoratectl diff -f {} (no changes: it was applied)", file.name);
    let reply = session
        .client
        .write(&check, async |channel, write| {
            let request =
                ApplyRequest { write: Some(write), file: Some(file.clone()), prune: apply.prune, dry_run: false };
            resources(channel).apply(request).await
        })
        .await?;
    let written = Written::from_answer(reply.result)?;
    let rows: Vec<Vec<String>> = reply
        .changes
        .iter()
        .map(|change| vec![change.action.clone(), change.kind.clone(), change.name.clone()])
        .collect();
    let mut people = vec![Block::Table(vec!["ACTION", "KIND", "NAME"], rows, "nothing to change")];
    people.push(Block::Text(written.sentence()));
    let mut notices = warnings(&reply.warnings);
    notices.extend(written.notices());
    let data = ApplyData { changes: changes(reply.changes), warnings: places(&reply.warnings), written };
    Ok(Answer::new(data, people).with_notices(notices))
}

/// Shows what applying a file would change.
pub async fn diff(session: &Session, diff: Diff) -> Result<Answer, Failure> {
    let file = read(&diff.file)?;
    session.client.restart();
    shown(plan(session, &file, diff.prune).await?)
}

/// Prints all resources. As YAML, which is also what people get, the cluster's own text; as JSON the same.
pub async fn export(session: &Session) -> Result<(), Failure> {
    let reply = session.client.read(async |channel| resources(channel).export(ExportRequest {}).await).await?;
    if session.printer.format() != Format::Json {
        return session.printer.raw(&reply.text);
    }
    // Strict, as `off` is no boolean in a resource file.
    let options = serde_saphyr::options! { strict_booleans: true, budget: None };
    let value: serde_json::Value = serde_saphyr::from_str_with_options(&reply.text, options)
        .map_err(|error| Failure::local(format!("the export cannot be turned into JSON: {error}")))?;
    session.printer.answer(&Answer::new(value, Vec::new()))
}

/// Checks a file.
pub async fn validate(session: &Session, validate: Validate) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Data {
        resources: u32,
        warnings: Vec<PlaceData>,
    }
    let file = read(&validate.file)?;
    session.client.restart();
    let request = ValidateRequest { file: Some(file.clone()) };
    let reply = session.client.read(async |channel| resources(channel).validate(request.clone()).await).await?;
    let text = format!("{}: {} resources, no mistakes.", file.name, reply.resources);
    let data = Data { resources: reply.resources, warnings: places(&reply.warnings) };
    Ok(Answer::new(data, vec![Block::Text(text)]).with_notices(warnings(&reply.warnings)))
}

fn read(file: &ResourceFile) -> Result<admin::ResourceFile, Failure> {
    let (text, name) = file::read_text(&file.file, FILE_BYTES_MAX)?;
    Ok(admin::ResourceFile { name, text })
}

async fn plan(session: &Session, file: &admin::ResourceFile, prune: bool) -> Result<ApplyReply, Failure> {
    let request = ApplyRequest { write: None, file: Some(file.clone()), prune, dry_run: true };
    session.client.read(async |channel| resources(channel).apply(request.clone()).await).await
}

fn shown(reply: ApplyReply) -> Result<Answer, Failure> {
    let revision = reply.result.as_ref().map_or(0, |result| result.revision);
    let mut people: Vec<Block> = reply
        .changes
        .iter()
        .map(|change| Block::Text(format!("{} {} {}\n{}", change.action, change.kind, change.name, change.diff)))
        .collect();
    if people.is_empty() {
        people.push(Block::Text("no changes".into()));
    }
    let notices = warnings(&reply.warnings);
    let data = DiffData { revision, warnings: places(&reply.warnings), changes: changes(reply.changes) };
    Ok(Answer::new(data, people).with_notices(notices))
}

fn changes(changes: Vec<admin::ResourceChange>) -> Vec<ChangeData> {
    changes
        .into_iter()
        .map(|change| ChangeData { kind: change.kind, name: change.name, action: change.action, diff: change.diff })
        .collect()
}

fn places(places: &[Place]) -> Vec<PlaceData> {
    places.iter().map(PlaceData::from).collect()
}

fn warnings(places: &[Place]) -> Vec<String> {
    places.iter().map(|place| format!("warning: {}", place_text(place))).collect()
}
