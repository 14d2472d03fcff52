//! `quorate snapshot inspect FILE`: says what a snapshot file holds. How it is read is the business of `raft` and `storage`; here is
//! what people and programs see of it.

use crate::command_line::Output;
use raft::{InspectError, Inspected};
use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

/// Reads a snapshot file whole, and describes it.
///
/// # Errors
/// It cannot be read, or no node would take it in: the text says why, by file and offset.
pub fn report(file: &Path, output: Output) -> Result<String, InspectError> {
    let found = raft::inspect(file)?;
    Ok(match output {
        Output::Json => format!("{}\n", json(file, &found)),
        Output::Text => text(file, &found),
    })
}

fn json(file: &Path, found: &Inspected) -> serde_json::Value {
    let members: Vec<_> = found
        .members
        .iter()
        .map(|member| {
            serde_json::json!({
                "id": member.node,
                "name": member.name,
                "address": member.address,
                "voter": member.voter,
                "leaving": member.leaving,
            })
        })
        .collect();
    let counts: serde_json::Map<_, _> =
        found.counts.iter().map(|(noun, count)| ((*noun).to_owned(), (*count).into())).collect();
    serde_json::json!({
        "file": PathBuf::from(file),
        "whole": true,
        "format": found.format,
        "bytes": found.bytes,
        "cluster": hex::encode(found.cluster),
        "index": found.index,
        "term": found.term,
        "revision": found.revision,
        "at_ms": found.at.wall.0,
        "feature_level": found.feature_level,
        "members": members,
        "counts": counts,
    })
}

fn text(file: &Path, found: &Inspected) -> String {
    let mut text = format!(
        "{}: a whole snapshot, format {}, {} bytes\n\ncluster   {}\nrevision  {}\ntime      {}\nindex     {} (term {})\n\nMembers\n",
        file.display(),
        found.format,
        found.bytes,
        hex::encode(found.cluster),
        found.revision,
        time(found.at.wall.0),
        found.index,
        found.term,
    );
    for member in &found.members {
        let role = match (member.leaving, member.voter) {
            (true, _) => "leaving",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {:<4} {:<20} {:<8} {}", member.node, member.name, role, member.address);
    }
    text.push_str("\nHolds\n");
    for (noun, count) in &found.counts {
        let _ = writeln!(text, "  {:<14} {count}", noun.replace('_', " "));
    }
    text
}

fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{ms} ms"), |time| time.to_string())
}
