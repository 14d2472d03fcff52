//! `quoratectl keys import`: keys of which only the SHA-256 is known, from CSV or JSON lines. The whole file is read and
//! checked before anything is sent.

use super::keys;
use crate::exit::{Exit, Failure};
use crate::file;
use crate::moment;
use crate::render::{Answer, Block};
use crate::session::Session;
use crate::written::Written;
use proto::admin::{ImportKey, ImportKeysRequest, Place};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Two million keys, each on a line of this length, are as many as a cluster holds.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Keys a write. A cluster takes more, but a log entry should be short.
const BATCH_KEYS: usize = 2_000;
/// Mistakes that are told at once; after so many, the file is of another kind.
const PLACES_MAX: usize = 20;
const COLUMNS: [&str; 5] = ["sha256", "consumer", "name", "scopes", "expires"];

/// Imports a file.
pub async fn run(session: &Session, path: &Path) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Data {
        imported: usize,
        ids: Vec<String>,
        #[serde(flatten)]
        written: Written,
    }
    let (text, name) = file::read_text(path, FILE_BYTES_MAX)?;
    let found = parse(&text, &name)?;
    let total = found.len();
    let mut ids: Vec<String> = Vec::with_capacity(total);
    let mut last = None;
    for batch in found.chunks(BATCH_KEYS) {
        session.client.restart();
        let reply = session
            .client
            .write("quoratectl keys list", async |channel, write| {
                keys(channel).import(ImportKeysRequest { write: Some(write), keys: batch.to_vec() }).await
            })
            .await
            .map_err(|failure| partly(failure, ids.len(), total))?;
        ids.extend(reply.ids);
        last = Some(Written::from_answer(reply.result)?);
    }
    let written = last.ok_or_else(|| Failure::usage(format!("{name} holds no keys"), ""))?;
    let people = vec![Block::Text(format!("Keys imported: {}.", ids.len())), Block::Text(written.sentence())];
    let notices = written.notices();
    Ok(Answer::new(Data { imported: ids.len(), ids, written }, people).with_notices(notices))
}

fn partly(failure: Failure, done: usize, total: usize) -> Failure {
    if total <= BATCH_KEYS {
        return failure;
    }
    failure.with_hint(&format!(
        "the first {done} of {total} keys of the file are imported; each {BATCH_KEYS} are one write, all or nothing"
    ))
}

/// Reads either format: JSON lines begin with a brace.
fn parse(text: &str, file: &str) -> Result<Vec<ImportKey>, Failure> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut places = Vec::new();
    let found = if text.trim_start().starts_with('{') {
        parse_json_lines(text, &mut places)
    } else {
        parse_csv(text, &mut places)
    };
    if places.is_empty() {
        return Ok(found);
    }
    let count = places.len();
    places.truncate(PLACES_MAX);
    let places = places.into_iter().map(|place: Place| Place { file: file.to_owned(), ..place }).collect::<Vec<_>>();
    let hint = "nothing was imported; the columns are sha256,consumer,name,scopes,expires";
    let message = format!("{file} has {count} mistake{}", if count == 1 { "" } else { "s" });
    Err(Failure { places, ..Failure::new(Exit::Usage, "invalid", message, hint) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sha256: String,
    consumer: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    expires: Option<String>,
}

fn parse_json_lines(text: &str, places: &mut Vec<Place>) -> Vec<ImportKey> {
    let mut found = Vec::new();
    for (number, line) in (1u32..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str::<Line>(line) {
            Ok(line) => found.extend(checked(line, number, places)),
            Err(error) => {
                let column = u32::try_from(error.column()).unwrap_or(0);
                let message = error.to_string();
                let message = message.split(" at line ").next().unwrap_or_default().to_owned();
                places.push(Place { line: number, column, message, ..Place::default() });
            }
        }
    }
    found
}

fn parse_csv(text: &str, places: &mut Vec<Place>) -> Vec<ImportKey> {
    let mut found = Vec::new();
    let mut columns: Option<Vec<String>> = None;
    for (number, record) in csv_records(text, places) {
        let Some(names) = &columns else {
            let names: Vec<String> = record.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
            let strange = names.iter().find(|name| !COLUMNS.contains(&name.as_str()));
            let missing = ["sha256", "consumer"].iter().find(|name| !names.iter().any(|there| there == *name));
            let wrong = strange
                .map(|name| format!("unknown column `{name}`"))
                .or_else(|| missing.map(|name| format!("the header has no column `{name}`")));
            if let Some(message) = wrong {
                places.push(Place { line: number, message, ..Place::default() });
                return found;
            }
            columns = Some(names);
            continue;
        };
        if record.len() != names.len() {
            let message = format!("{} fields where the header has {}", record.len(), names.len());
            places.push(Place { line: number, message, ..Place::default() });
            continue;
        }
        let field = |wanted: &str| {
            let value = names.iter().zip(&record).find(|(name, _)| *name == wanted).map(|(_, value)| value.trim());
            value.unwrap_or_default().to_owned()
        };
        let scopes =
            field("scopes").split([' ', ';', ',', '|']).filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
        let line = Line {
            sha256: field("sha256"),
            consumer: field("consumer"),
            name: field("name"),
            scopes,
            expires: Some(field("expires")),
        };
        found.extend(checked(line, number, places));
    }
    found
}

fn checked(line: Line, number: u32, places: &mut Vec<Place>) -> Option<ImportKey> {
    let mut wrong = |field: &str, message: String| {
        places.push(Place { line: number, field: field.to_owned(), message, ..Place::default() });
    };
    let sha256 = line.sha256.to_ascii_lowercase();
    let mut good = true;
    if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        wrong("sha256", "not 64 hexadecimal digits".into());
        good = false;
    }
    if line.consumer.is_empty() {
        wrong("consumer", "empty".into());
        good = false;
    }
    let expires_at_ms = match moment::parse_expiry(line.expires.as_deref().unwrap_or_default()) {
        Ok(ms) => ms,
        Err(message) => {
            wrong("expires", message);
            good = false;
            0
        }
    };
    good.then_some(ImportKey { consumer: line.consumer, name: line.name, scopes: line.scopes, sha256, expires_at_ms })
}

/// The records of a CSV text, each with the line it begins on. Fields may be quoted, with quotes doubled inside.
fn csv_records(text: &str, places: &mut Vec<Place>) -> Vec<(u32, Vec<String>)> {
    let mut records = Vec::new();
    let (mut record, mut field) = (Vec::new(), String::new());
    let (mut line, mut began) = (1u32, 1u32);
    let (mut quoted, mut was_quoted) = (false, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\n' {
            line = line.saturating_add(1);
        }
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.trim().is_empty() && !was_quoted => {
                field.clear();
                (quoted, was_quoted) = (true, true);
            }
            ',' if !quoted => {
                record.push(std::mem::take(&mut field));
                was_quoted = false;
            }
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                push_record(&mut records, began, &mut record);
                (was_quoted, began) = (false, line);
            }
            '\r' if !quoted => {}
            c => field.push(c),
        }
    }
    if quoted {
        places.push(Place { line: began, message: "a quoted field does not end".into(), ..Place::default() });
    }
    record.push(field);
    push_record(&mut records, began, &mut record);
    records
}

/// Blank lines are no records.
fn push_record(records: &mut Vec<(u32, Vec<String>)>, line: u32, record: &mut Vec<String>) {
    let record = std::mem::take(record);
    if record.len() > 1 || record.iter().any(|field| !field.trim().is_empty()) {
        records.push((line, record));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    #[test]
    fn csv_in_any_order_with_quotes() {
        let text = format!(
            "consumer,sha256,name,scopes,expires\r\nacme,{SHA},\"a \"\"big\"\", key\",read write,2030-01-01T00:00:00Z\r\n\n\
             acme,{},,,\n",
            SHA.to_uppercase()
        );
        let found = parse(&text, "f").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[0],
            ImportKey {
                consumer: "acme".into(),
                name: "a \"big\", key".into(),
                scopes: vec!["read".into(), "write".into()],
                sha256: SHA.into(),
                expires_at_ms: 1_893_456_000_000,
            }
        );
        assert_eq!((found[1].sha256.as_str(), found[1].expires_at_ms), (SHA, 0));
    }

    #[test]
    fn json_lines() {
        let text = format!("{{\"sha256\":\"{SHA}\",\"consumer\":\"acme\",\"scopes\":[\"read\"]}}\n\n");
        assert_eq!(parse(&text, "f").unwrap()[0].scopes, ["read"]);
    }

    #[test]
    fn every_mistake_has_its_place() {
        let text = format!("sha256,consumer,name,scopes,expires\nxyz,acme,,,\n{SHA},,,,tomorrow\n{SHA},acme\n");
        let failure = parse(&text, "keys.csv").unwrap_err();
        let places: Vec<String> = failure.places.iter().map(crate::render::place_text).collect();
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(failure.message, "keys.csv has 4 mistakes");
        assert_eq!(places[0], "keys.csv:2: sha256: not 64 hexadecimal digits");
        assert_eq!(places[1], "keys.csv:3: consumer: empty");
        assert!(places[2].starts_with("keys.csv:3: expires: `tomorrow`"));
        assert_eq!(places[3], "keys.csv:4: 2 fields where the header has 5");
        for (text, wanted) in [
            ("a,b\n", "unknown column `a`"),
            ("sha256\n", "no column `consumer`"),
            ("sha256,consumer\n\"x", "does not end"),
            ("{\"sha256\":1}\n", "invalid type"),
            ("{\"sha256\":\"\",\"consumer\":\"\",\"x\":1}\n", "unknown field"),
        ] {
            let failure = parse(text, "f").unwrap_err();
            let places: String = failure.places.iter().map(crate::render::place_text).collect();
            assert!(places.contains(wanted), "{text}: {places}");
        }
    }

    #[test]
    fn many_mistakes_are_not_all_told() {
        let text = format!("sha256,consumer\n{}", "x,y\n".repeat(100));
        let failure = parse(&text, "f").unwrap_err();
        assert_eq!((failure.places.len(), failure.message.as_str()), (PLACES_MAX, "f has 100 mistakes"));
    }
}
