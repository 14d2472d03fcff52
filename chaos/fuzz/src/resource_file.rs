//! Resource files: refused with places, or planned; what is planned is what the core takes, and what is exported from it
//! is a file that changes nothing.

use crate::base;
use machine::{Actor, Command, Entry, Name, Outcome, Proposal, Registry, RequestId, State, invariant};
use quorate::resource::{self, Imagined, Presented};

/// Words of the language.
pub const WORDS: &[&str] = &[
    "\n  ",
    "\n",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "&a",
    "*a",
    "<<",
    "|",
    "'",
    "\"",
    "consumers",
    "upstreams",
    "routes",
    "policies",
    "limits",
    "issuers",
    "defaults",
    "targets",
    "http://",
    "https://",
    "paths",
    "hosts",
    "methods",
    "upstream",
    "authenticate",
    "none",
    "rate",
    "quota",
    "burst",
    "per",
    "scope",
    "node",
    "key",
    "ip",
    "max_subjects",
    "/s",
    "/day",
    "roles",
    "attributes",
    "permit(",
    "principal",
    "action",
    "resource",
    " == ",
    " in ",
    "Route::\"orders\"",
    "when {",
    "context",
    "**",
    "/*",
    "1s",
    "null",
    "true",
    "1e99",
    "-1",
    "18446744073709551615",
    "\u{feff}",
    "é",
    "%YAML",
    "---",
];

/// A file that holds more than this is not read here: nodes take larger ones, with the same code.
const BYTES_MAX: usize = 64 * 1024;

/// A file for an empty cluster and for one that has a past, alone and in place of what is there.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes.get(..BYTES_MAX).unwrap_or(bytes)) else { return };
    let file = match resource::parse("fuzz.yaml", text) {
        Ok(file) => file,
        Err(places) => {
            assert!(!places.is_empty(), "a file is refused without a reason");
            return;
        }
    };
    for (state, prune) in [(fresh(), false), (base::state().clone(), false), (base::state().clone(), true)] {
        match resource::plan(&state.registry, &file, prune) {
            Ok(plan) => applied(state, plan.changes),
            Err(places) => assert!(!places.is_empty(), "a plan is refused without a reason"),
        }
    }
}

/// A cluster that was only just made.
fn fresh() -> State {
    let mut state = State::default();
    if let Some(first) = base::entries().first() {
        state.apply_entry(0, first);
    }
    state
}

fn applied(mut state: State, changes: Vec<machine::resource::Change>) {
    let mut at = state.at;
    at.wall = at.wall.plus_ms(1);
    let proposal = Proposal {
        request: RequestId { issued: at.wall, random: u128::MAX },
        actor: Actor::Operator(Name::new("root").expect("a name")),
        command: Command::ApplyResources { validated_against: state.registry.resources_revision, changes },
    };
    let entry = Entry { at, terms: Default::default(), proposals: vec![proposal], acquires: Vec::new() };
    let effects = state.apply_entry(1_000, &entry);
    assert_eq!(invariant::check(&state), Ok(()));
    let outcome = effects.applied.first().map(|applied| applied.outcome.clone());
    assert!(matches!(outcome, Some(Outcome::Done { .. })), "what was planned is refused: {outcome:?}\n{entry:?}");
    exported(&state.registry);
    for url in ["http://shop.example/orders/1", "/", "//x/%2e%2e/y"] {
        let imagined = Imagined { credential: Presented::Nothing, method: "GET", url };
        drop(resource::explain(&state.registry, at.wall, &imagined));
    }
}

fn exported(registry: &Registry) {
    let text = resource::export(registry);
    let file = match resource::parse("export.yaml", &text) {
        Ok(file) => file,
        Err(places) => panic!("an export cannot be read: {places:?}\n{text}"),
    };
    match resource::plan(registry, &file, true) {
        Ok(plan) => assert!(plan.changes.is_empty(), "an export changes what it came from: {:?}\n{text}", plan.listing),
        Err(places) => panic!("an export cannot be planned: {places:?}\n{text}"),
    }
}
