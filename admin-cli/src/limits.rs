//! `quoratectl limits`: what all resources can do, and what is left of one. A subject is taken apart here, because a part
//! of it may be a key: its secret does not leave this program.

use crate::command_line::{LimitUsage, LimitsVerb};
use crate::exit::Failure;
use crate::moment;
use crate::render::{Answer, Block};
use crate::resources::{self, Kind, resources};
use crate::session::Session;
use proto::admin::{LimitUsageReply, LimitUsageRequest};
use serde::Serialize;
use serde_json::Value;

/// Characters of a key's id.
const KEY_ID_CHARS: usize = 16;

/// Does one of its verbs.
pub async fn run(session: &Session, verb: LimitsVerb) -> Result<Answer, Failure> {
    match verb {
        LimitsVerb::Resource(verb) => resources::run(session, Kind::Limit, verb).await,
        LimitsVerb::Usage(asked) => usage(session, asked).await,
    }
}

#[derive(Serialize)]
struct UsageData {
    limit: String,
    subject: String,
    rule: String,
    mode: String,
    available: u64,
    outstanding: Vec<OutstandingData>,
    limit_value: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset_ms: Option<u64>,
}

#[derive(Serialize)]
struct OutstandingData {
    node: u64,
    amount: u64,
}

async fn usage(session: &Session, asked: LimitUsage) -> Result<Answer, Failure> {
    let subject = if asked.overflow {
        Vec::new()
    } else {
        // The order of the parts is the limit's own affair.
        let spec = resources::spec(session, Kind::Limit, &asked.name).await?;
        let per = per(&spec).ok_or_else(|| Failure::malformed("`per` of the limit"))?;
        parts(&asked.name, &per, asked.subject)?
    };
    let request = LimitUsageRequest { name: asked.name, subject, overflow: asked.overflow };
    let reply = session.client.read(async |channel| resources(channel).limit_usage(request.clone()).await).await?;
    Ok(answer(reply))
}

fn answer(reply: LimitUsageReply) -> Answer {
    let window_end = reply.window_end_ms.and_then(moment::text);
    let mut pairs = vec![
        ("limit", reply.limit.clone()),
        ("rule", reply.rule.clone()),
        ("mode", reply.mode.clone()),
        ("subject", reply.subject.clone()),
        ("available", format!("{} of {}", reply.available, reply.limit_value)),
    ];
    pairs.extend(window_end.clone().map(|end| ("window ends", end)));
    let outstanding: Vec<OutstandingData> =
        reply.outstanding.into_iter().map(|one| OutstandingData { node: one.node, amount: one.amount }).collect();
    let rows = outstanding.iter().map(|one| vec![one.node.to_string(), one.amount.to_string()]).collect();
    let people = vec![Block::Pairs(pairs), Block::Table(vec!["NODE", "HOLDS"], rows, "no node holds any of it")];
    let data = UsageData {
        limit: reply.limit,
        subject: reply.subject,
        rule: reply.rule,
        mode: reply.mode,
        available: reply.available,
        outstanding,
        limit_value: reply.limit_value,
        window_end,
        reset_ms: reply.reset_ms,
    };
    Answer::new(data, people)
}

/// What a limit counts by, of its specification.
fn per(spec: &Value) -> Option<Vec<String>> {
    match spec.get("per")? {
        Value::String(only) => Some(vec![only.clone()]),
        Value::Array(parts) => parts.iter().map(|part| part.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// The parts of a subject, without secrets. What was written is repeated in no message: it may be a key.
fn parts(limit: &str, per: &[String], written: Vec<String>) -> Result<Vec<String>, Failure> {
    let wanted = per.len();
    let parts: Vec<String> = match written.as_slice() {
        // The last part may hold commas: it may be the value of a header.
        [only] => only.splitn(wanted, ',').map(str::to_owned).collect(),
        _ => written,
    };
    let counts = per.join(",");
    let hint = || format!("write --subject {}", example(per));
    if parts.is_empty() {
        return Err(Failure::usage(format!("limit {limit} counts by {counts}: whose bucket is meant?"), hint()));
    }
    if parts.len() != wanted {
        let noun = if wanted == 1 { "part" } else { "parts" };
        let message =
            format!("limit {limit} counts by {counts}: a subject of it has {wanted} {noun}, not {}", parts.len());
        return Err(Failure::usage(message, hint()));
    }
    per.iter().zip(parts).map(|(per, part)| if per == "key" { key_id(&part) } else { Ok(part) }).collect()
}

/// The id of a key, which may be given as a whole.
fn key_id(written: &str) -> Result<String, Failure> {
    let id = match written.strip_prefix("qk_") {
        Some(rest) => rest.split('_').next().unwrap_or_default(),
        None => written,
    };
    let is_id = id.len() == KEY_ID_CHARS && id.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'));
    if is_id {
        Ok(id.to_owned())
    } else {
        Err(Failure::usage(
            "a part of --subject is neither the id of a key nor a whole key",
            "the id is the part between the two underscores of a key; quoratectl keys list shows it",
        ))
    }
}

/// `CONSUMER,VALUE-OF-X-TENANT`.
fn example(per: &[String]) -> String {
    let parts: Vec<String> = per
        .iter()
        .map(|per| match per.strip_prefix("header:") {
            Some(header) => format!("VALUE-OF-{}", header.to_uppercase()),
            None if per == "key" => "KEY-ID".to_owned(),
            None => per.to_uppercase(),
        })
        .collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "abcdefghijklmn27";

    fn read(per: &[&str], written: &[&str]) -> Result<Vec<String>, String> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<String>>();
        parts("plan", &owned(per), owned(written)).map_err(|failure| format!("{} ({})", failure.message, failure.hint))
    }

    #[test]
    fn a_subject_is_taken_apart() {
        for (per, written, expected) in [
            (vec!["consumer"], vec!["acme"], vec!["acme"]),
            (vec!["consumer", "ip"], vec!["acme,::1"], vec!["acme", "::1"]),
            (vec!["consumer", "ip"], vec!["acme", "::1"], vec!["acme", "::1"]),
            (vec!["consumer", "header:x"], vec!["acme,a, b"], vec!["acme", "a, b"]),
            (vec!["header:x", "consumer"], vec!["a, b", "acme"], vec!["a, b", "acme"]),
            (vec!["consumer", "header:x"], vec!["acme,"], vec!["acme", ""]),
            (vec!["header:x"], vec![""], vec![""]),
        ] {
            assert_eq!(read(&per, &written).unwrap(), expected, "{written:?}");
        }
        assert_eq!(per(&json!({"per": "key"})).unwrap(), ["key"]);
        assert_eq!(per(&json!({"per": ["key", "ip"]})).unwrap(), ["key", "ip"]);
        assert_eq!(per(&json!({})), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (per, written, says) in [
            (vec!["route"], vec![], "limit plan counts by route: whose bucket is meant? (write --subject ROUTE)"),
            (
                vec!["key", "header:x-tenant"],
                vec![ID],
                "counts by key,header:x-tenant: a subject of it has 2 parts, not 1 \
                 (write --subject KEY-ID,VALUE-OF-X-TENANT)",
            ),
            (vec!["ip"], vec!["::1", "::2"], "a subject of it has 1 part, not 2"),
        ] {
            let said = read(&per, &written).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn a_secret_stays_here() {
        assert_eq!(read(&["key"], &[ID]).unwrap(), [ID]);
        assert_eq!(read(&["key"], &[&format!("qk_{ID}_secretsecret")]).unwrap(), [ID]);
        assert_eq!(read(&["ip", "key"], &[&format!("::1,qk_{ID}_secretsecret")]).unwrap(), ["::1", ID]);
        // The value of a header is whatever it is.
        assert_eq!(read(&["header:x"], &["qk_a_b"]).unwrap(), ["qk_a_b"]);
        for secret in ["sesame", "qk_sesame", "qk__sesame", "sesamesesamesesame"] {
            let said = read(&["key"], &[secret]).unwrap_err();
            assert!(!said.contains("sesame"), "{said}");
        }
    }
}
