//! How scripts print a state: one line a thing.

use crate::language::START;
use machine::{
    Actor, State,
    allowance::BucketId,
    key::{KeyOrigin, Secret},
    time::{Tick, Wall},
};
use std::{collections::BTreeSet, fmt::Write};

/// Prints one part of the state.
pub(crate) fn show(state: &State, part: &str, out: &mut String) -> Result<(), String> {
    let registry = &state.registry;
    let before = out.len();
    match part {
        "cluster" => line(
            out,
            format_args!(
                "revision {}, resources {}, feature level {}, next member {}, at {}",
                registry.revision,
                registry.resources_revision,
                registry.feature_level,
                registry.next_member,
                instant(state.at.wall)
            ),
        ),
        "settings" => {
            let settings = &registry.settings;
            let (voters, audit) = (settings.voters, settings.audit_entries_max);
            line(out, format_args!("voters {voters}, audit entries {audit}, revision {}", registry.settings_revision));
        }
        "consumers" => registry.consumers.values().for_each(|consumer| {
            let enabled = if consumer.enabled { "enabled" } else { "disabled" };
            let keys = registry.keys_of(&consumer.name).count();
            let (name, roles, attributes) = (&consumer.name, &consumer.roles, &consumer.attributes);
            line(
                out,
                format_args!("{name} {roles:?} {attributes:?} {enabled}, {keys} keys, revision {}", consumer.revision),
            );
        }),
        "keys" => registry.keys.iter().for_each(|key| {
            let secrets = key.secrets().map(|it| secret(&it)).collect::<Vec<_>>().join(", ");
            let (id, consumer, state) = (key.id, key.consumer(), key.state(state.at.wall));
            let label = key.label().map_or_else(String::new, |label| format!(" {label:?}"));
            let scopes = key.scopes().map_or_else(String::new, |scopes| format!(" {scopes:?}"));
            let origin = key.origin;
            line(
                out,
                format_args!(
                    "{id} {consumer}{label}{scopes} {state:?} {origin:?} [{secrets}] revision {}",
                    key.revision
                ),
            );
        }),
        "hashes" => {
            let imported = registry.keys.iter().filter(|key| key.origin == KeyOrigin::Imported);
            let hashes: BTreeSet<_> = imported.flat_map(|key| key.secrets().map(|secret| secret.hash)).collect();
            for hash in hashes {
                let id = registry.key_of_hash(&hash).ok_or("a hash finds no key")?.id;
                line(out, format_args!("{} {id}", text(&hash.0)));
            }
        }
        "documents" => registry.documents.iter().for_each(|((kind, name), document)| {
            let bytes = String::from_utf8_lossy(&document.bytes);
            line(out, format_args!("{kind}/{name} {bytes} revision {}", document.revision));
        }),
        "operators" => registry.operators.values().for_each(|operator| {
            let revoked = if operator.revoked_at.is_some() { " revoked" } else { "" };
            let (name, role, end) = (&operator.name, operator.role.as_str(), instant(operator.not_after));
            line(out, format_args!("{name} {role} until {end}{revoked}, revision {}", operator.revision));
        }),
        "members" => registry.members.values().for_each(|member| {
            let zone = member.zone.as_deref().map_or_else(String::new, |zone| format!(" in {zone}"));
            let (id, name, address, standing) = (member.id, &member.name, &member.address, member.standing);
            let (level, version) = (member.feature_level_max, &member.version);
            let revision = member.revision;
            line(
                out,
                format_args!("{id} {name} {address}{zone} {version} (level {level}) {standing:?}, revision {revision}"),
            );
        }),
        "tokens" => registry.join_tokens.values().for_each(|token| {
            let used = token.used_by.map_or_else(String::new, |by| format!(", used by {by}"));
            line(out, format_args!("{} until {}{used}", text(&token.hash), instant(token.not_after)));
        }),
        "authorities" => registry.authorities.values().for_each(|authority| {
            line(
                out,
                format_args!("{} {:?}, revision {}", text(&authority.sha256), authority.phase, authority.revision),
            );
        }),
        "audit" => state.audit.iter().for_each(|(number, entry)| {
            let actor = match &entry.actor {
                Actor::Operator(name) => name.to_string(),
                Actor::Node(id) => format!("node {id}"),
                Actor::Bootstrap => "bootstrap".to_owned(),
            };
            let from = entry.from_revision.map_or_else(|| "nothing".to_owned(), |from| from.to_string());
            let (at, action, subject, to) = (instant(entry.at), &entry.action, &entry.subject, entry.to_revision);
            line(out, format_args!("{number} {at} {actor}: {action} {subject}, {from} -> {to}"));
        }),
        "requests" => state.requests.iter().for_each(|(request, remembered)| {
            let issued = instant(request.issued);
            line(
                out,
                format_args!("{issued} {}: {:?} by entry {}", request.random, remembered.outcome, remembered.index),
            );
        }),
        "limits" => registry.limits.iter().for_each(|(name, limit)| {
            let (rule, generation) = (limit.rule, limit.generation);
            line(out, format_args!("{name} {rule:?}, generation {generation}, changed {}", tick(limit.changed)));
        }),
        "buckets" => state.buckets.buckets.keys().for_each(|id| {
            // As it would be served now; what is stored may be older.
            let Some(bucket) = state.buckets.look(&registry.limits, state.at, id) else {
                return line(out, format_args!("{} without a limit", bucket_id(id)));
            };
            let (available, burst) = (bucket.available(), bucket.rule().burst());
            let ends = match bucket.window_end() {
                Wall(u64::MAX) => String::new(),
                end => format!(" until {}", instant(end)),
            };
            line(out, format_args!("{} {available} of {burst}{ends}", bucket_id(id)));
            for (number, allowance) in bucket.allowances().iter() {
                let (node, spent, granted) = (allowance.node, allowance.spent, allowance.granted);
                let expired = if allowance.expired { ", expired" } else { "" };
                let ends = tick(allowance.expires);
                line(out, format_args!("  {number} of node {node}: {spent} of {granted} spent, ends {ends}{expired}"));
            }
        }),
        _ => return Err(format!("{part} cannot be shown")),
    }
    if out.len() == before {
        line(out, format_args!("none"));
    }
    Ok(())
}

fn line(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(out, "{arguments}").unwrap();
}

/// The text that stands for a hash.
fn text(hash: &[u8]) -> String {
    String::from_utf8_lossy(hash).trim_end_matches('\0').to_owned()
}

fn secret(secret: &Secret) -> String {
    let end = secret.not_after.map_or_else(|| "for good".to_owned(), |end| format!("until {}", instant(end)));
    format!("{} {end}", text(&secret.hash.0))
}

pub(crate) fn bucket_id(id: &BucketId) -> String {
    format!("{}/{}", id.limit, String::from_utf8_lossy(&id.subject))
}

fn tick(tick: Tick) -> String {
    instant(Wall(START + tick.0 / 1_000))
}

/// Counted from the start of the script.
fn instant(at: Wall) -> String {
    let Some(seconds) = at.0.checked_sub(START).map(|ms| ms / 1000) else { return "the beginning".to_owned() };
    let (days, hours, minutes, seconds) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("+{days}d{hours:02}:{minutes:02}:{seconds:02}")
}
