//! Resource files as operators write them, and what is said about them: each `.yaml` of `tests/resource_files` has its
//! `.expected` beside it. `UPDATE_EXPECTED=1` writes them anew; read the difference before you commit it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use machine::{
    Name, Registry, Tick,
    bucket::Limit,
    consumer::Consumer,
    resource::{Change, Document, Kind},
};
use quorate::resource::{self, Noun};
use std::{fmt::Write, fs, path::Path, sync::Arc};

/// Applies changes as the core would, without its rules.
fn apply(registry: &mut Registry, changes: &[Change]) {
    registry.resources_revision += 1;
    let revision = registry.resources_revision;
    for change in changes.iter().cloned() {
        match change {
            Change::PutDocument { kind, name, bytes } => {
                registry.documents.insert((kind, name), Document { bytes, revision });
            }
            Change::DeleteDocument { kind, name } => {
                registry.documents.remove(&(kind, name));
            }
            Change::PutConsumer { name, spec } => {
                let consumer = Consumer {
                    name: name.clone(),
                    roles: spec.roles,
                    attributes: spec.attributes,
                    enabled: true,
                    revision,
                };
                registry.consumers.insert(name, Arc::new(consumer));
            }
            Change::DeleteConsumer { name } => {
                registry.consumers.remove(&name);
            }
            Change::PutLimit { name, bytes, rule } => {
                registry.documents.insert((Kind::Limit, name.clone()), Document { bytes, revision });
                registry.limits.insert(name, Limit { rule, generation: 1, changed: Tick(0) });
            }
        }
    }
}

fn planned(registry: &Registry, file_name: &str, text: &str, prune: bool) -> (String, Vec<Change>) {
    let mut out = String::new();
    let plan = resource::parse(file_name, text).and_then(|file| resource::plan(registry, &file, prune));
    match plan {
        Ok(plan) => {
            for warning in &plan.warnings {
                writeln!(out, "warning: {warning}").unwrap();
            }
            for listing in &plan.listing {
                writeln!(out, "{} {} {}", listing.action.as_str(), listing.noun, listing.name).unwrap();
                out.push_str(&listing.diff);
            }
            (out, plan.changes)
        }
        Err(places) => {
            for place in places {
                writeln!(out, "{place}").unwrap();
            }
            (out, Vec::new())
        }
    }
}

/// A file may hold several steps, each applied to what the ones before left: `# --- step` or `# --- step, prune`.
fn run(file_name: &str, text: &str) -> String {
    let mut registry = Registry::default();
    let mut out = String::new();
    for (index, step) in text.split("# --- step").enumerate() {
        let (head, body) = if index == 0 { ("", step) } else { step.split_once('\n').unwrap_or((step, "")) };
        if index == 0 && body.trim().is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push_str("---\n");
        }
        let (said, changes) = planned(&registry, file_name, body, head.contains("prune"));
        out.push_str(&said);
        apply(&mut registry, &changes);
    }
    out
}

#[test]
fn files_are_read_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/resource_files");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = String::new();
    for path in files {
        let file_name = path.file_name().unwrap().to_str().unwrap();
        let said = run(file_name, &fs::read_to_string(&path).unwrap());
        let expected_path = path.with_extension("expected");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected_path, &said).unwrap();
        } else if fs::read_to_string(&expected_path).unwrap_or_default() != said {
            writeln!(wrong, "== {file_name}\n{said}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_is_needed_is_not_deleted() {
    let mut registry = Registry::default();
    let text = "upstreams: {u: {targets: [http://a]}}\nconsumers: {c: {}}\n\
                limits: {l: {rate: 5/s, per: key}, unused: {quota: 5/day, per: key, scope: node}}\n\
                routes: {r: {paths: [/], upstream: u, limits: [l]}}\n\
                policies: {p: 'permit(principal, action, resource == Route::\"r\");'}";
    let (said, changes) = planned(&registry, "f", text, false);
    assert!(!changes.is_empty(), "{said}");
    apply(&mut registry, &changes);
    let refused = |noun: &str, name| {
        let noun: Noun = noun.parse().unwrap();
        match resource::delete(&registry, noun, name) {
            Ok(changes) => format!("{} change", changes.len()),
            Err(resource::DeleteError::NotFound) => "not found".to_owned(),
            Err(resource::DeleteError::Referenced(places)) => {
                places.iter().map(|place| format!("{}: {}", place.field, place.message)).collect::<Vec<_>>().join("; ")
            }
        }
    };
    assert_eq!(refused("upstreams", "u"), "routes.r.upstream: needs the upstream \"u\"");
    assert_eq!(refused("route", "r"), "policies.p: needs the route \"r\"");
    assert_eq!(refused("limits", "l"), "routes.r.limits[0]: needs the limit \"l\"");
    assert_eq!(refused("limit", "unused"), "1 change");
    assert_eq!(refused("policy", "p"), "1 change");
    assert_eq!(refused("consumer", "c"), "1 change");
    assert_eq!(refused("consumer", "d"), "not found");
    assert_eq!(refused("route", "no such name!"), "not found");
}

#[test]
fn one_resource_is_shown_as_it_is_stored() {
    let mut registry = Registry::default();
    let text = "upstreams: {u: {targets: ['HTTP://A:80/'], response_timeout: 1000ms}}\nconsumers: {c: {env: prod, roles: [b, a]}}\n\
                limits: {rate: {per: [key], burst: 100, rate: 100/s}, quota: {mode: shadow, quota: 5/day, per: [ip, 'header:X-A'], max_subjects: 7}}\n\
                routes: {r: {paths: [/], upstream: u, limits: [rate, quota], cost: 2}}";
    let (_, changes) = planned(&registry, "f", text, false);
    apply(&mut registry, &changes);
    let json = |noun: &str, name| resource::document_json(&registry, noun.parse().unwrap(), name).map(|one| one.json);
    assert_eq!(json("upstream", "u").unwrap(), r#"{"targets":["http://a"],"response_timeout":"1s"}"#);
    assert_eq!(json("consumer", "c").unwrap(), r#"{"roles":["a","b"],"env":"prod"}"#);
    assert_eq!(json("limit", "rate").unwrap(), r#"{"rate":"100/s","per":"key"}"#);
    assert_eq!(
        json("limit", "quota").unwrap(),
        r#"{"quota":"5/day","per":["ip","header:x-a"],"mode":"shadow","max_subjects":7}"#
    );
    assert_eq!(json("route", "r").unwrap(), r#"{"paths":["/"],"upstream":"u","limits":["rate","quota"],"cost":2}"#);
    assert_eq!(json("route", "u"), None);
    assert!(Name::new("u").is_ok());
}

/// The core keeps a rule beside each document of a limit: whatever its scope, and whenever it changes.
#[test]
fn a_limit_comes_with_its_rule() {
    let mut registry = Registry::default();
    let mut rules = |text: &str, prune: bool| {
        let (said, changes) = planned(&registry, "f", text, prune);
        apply(&mut registry, &changes);
        let line = |change: &Change| match change {
            Change::PutLimit { name, rule, .. } => Some(format!("{name} {rule:?}")),
            Change::DeleteDocument { kind: Kind::Limit, name } => Some(format!("{name} goes")),
            Change::PutDocument { kind: Kind::Limit, name, .. } => panic!("{name} has no rule: {said}"),
            _ => None,
        };
        changes.iter().filter_map(line).collect::<Vec<_>>()
    };
    let text = "limits: {a: {rate: 30/min, per: key}, b: {quota: 7/month, per: route, scope: node}}";
    let a = "a Rate(Rate { tokens: 30, period_us: 60000000, burst: 1 })";
    let b = "b Quota(Quota { amount: 7, window: Month })";
    assert_eq!(rules(text, false), [a, b]);
    assert!(rules(text, false).is_empty());
    assert_eq!(rules("limits: {b: {quota: 7/month, per: route, mode: shadow}}", true), [b, "a goes"]);
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    /// Words of the grammar and characters of YAML, in any order.
    fn soup() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            prop::sample::select(vec![
                "defaults",
                "upstreams",
                "consumers",
                "routes",
                "policies",
                "limits",
                "targets",
                "paths",
                "hosts",
                "methods",
                "upstream",
                "authenticate",
                "api_key",
                "none",
                "u",
                "http://a",
                "/{*r}",
                "/{a}",
                "GET",
                "off",
                "rate",
                "quota",
                "burst",
                "per",
                "scope",
                "max_subjects",
                "5/s",
                "7/day",
                "ip",
                "header:x",
                "permit(",
                "principal",
                "action",
                "resource",
                ");",
                "Route::\"u\"",
                "1s",
                "10MiB",
                "-1",
                "1e400",
                "~",
                "null",
                "&a",
                "*a",
                "<<",
            ])
            .prop_map(str::to_owned),
            "[ \\n:,{}\\[\\]|>'\"#?!%@`\t-]{1,3}",
            "\\PC{0,3}",
        ];
        prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
        #[test]
        fn any_text_is_judged(text in soup()) {
            let registry = Registry::default();
            match resource::parse("f", &text).and_then(|file| resource::plan(&registry, &file, true)) {
                Ok(plan) => {
                    // What is accepted can be stored, shown and applied again.
                    let mut registry = registry;
                    apply(&mut registry, &plan.changes);
                    let again = resource::parse("f", &resource::export(&registry)).unwrap();
                    prop_assert!(resource::plan(&registry, &again, true).unwrap().changes.is_empty());
                }
                Err(places) => prop_assert!(!places.is_empty() && places.iter().all(|place| !place.message.is_empty())),
            }
        }
    }
}
