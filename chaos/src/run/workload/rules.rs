//! The limits and routes that a run has: hot and cold buckets, many and few, rates and quotas, alone and together.

use crate::history::{Limit, Per, Recorder, Route, Rule, What};
use std::fmt::Write as _;

/// Consumers that have keys.
pub const CONSUMERS: [&str; 4] = ["c0", "c1", "c2", "c3"];
/// Consumers that are only changed and read.
pub const REGISTERS: [&str; 3] = ["reg0", "reg1", "reg2"];
/// Consumers that are only enabled and disabled.
pub const FLAGS: [&str; 2] = ["flag0", "flag1"];
/// The limit that is edited.
pub const EDITED: &str = "edited";
/// The limit whose full rate is measured at the end, its route, and its rate.
pub const HOT: (&str, &str, u64) = ("hot", "hot", 40);
/// A route without limits.
pub const FREE: &str = "free";

/// A limit as files say it and as the history does.
struct Known {
    name: &'static str,
    text: &'static str,
    rule: Rule,
    per: Per,
}

const SECOND_US: u64 = 1_000_000;

const LIMITS: [Known; 6] = [
    Known {
        name: HOT.0,
        text: "rate: 40/s, burst: 40, per: consumer",
        rule: Rule::Rate { tokens: HOT.2, period_us: SECOND_US, burst: 40 },
        per: Per::Consumer,
    },
    Known {
        name: "shared",
        text: "rate: 60/s, burst: 10, per: route",
        rule: Rule::Rate { tokens: 60, period_us: SECOND_US, burst: 10 },
        per: Per::Route,
    },
    Known {
        name: "cold",
        text: "rate: 30/min, burst: 3, per: key",
        rule: Rule::Rate { tokens: 30, period_us: 60 * SECOND_US, burst: 3 },
        per: Per::Key,
    },
    Known {
        name: "minute",
        text: "quota: 90/min, per: key",
        rule: Rule::Quota { amount: 90, window_us: 60 * SECOND_US },
        per: Per::Key,
    },
    Known {
        name: "hour",
        text: "quota: 2000/hour, per: consumer",
        rule: Rule::Quota { amount: 2_000, window_us: 3_600 * SECOND_US },
        per: Per::Consumer,
    },
    Known { name: EDITED, text: "rate: 20/s, burst: 20, per: key", rule: edited(20), per: Per::Key },
];

/// The rule of the edited limit at a rate.
#[must_use]
pub const fn edited(rate: u64) -> Rule {
    Rule::Rate { tokens: rate, period_us: SECOND_US, burst: rate }
}

/// A file that edits it.
#[must_use]
pub fn edited_file(rate: u64) -> String {
    format!("limits: {{ {EDITED}: {{ rate: {rate}/s, burst: {rate}, per: key }} }}\n")
}

/// The event of such an edit.
#[must_use]
pub fn edited_event(rate: u64, began_us: u64, known: bool) -> What {
    What::Limit(Limit { name: EDITED.into(), rule: edited(rate), per: Per::Key, began_us, known })
}

/// Routes, the limits that count their requests, and whether they serve while their node is isolated.
const ROUTES: [(&str, &[&str], bool); 8] = [
    (FREE, &[], false),
    (HOT.1, &[HOT.0], false),
    ("shared", &["shared"], false),
    ("cold", &["cold"], false),
    ("minute", &["minute"], false),
    ("both", &[HOT.0, "hour"], false),
    ("edited", &[EDITED], false),
    ("lax", &[HOT.0], true),
];

/// A route by a number, hot ones more often.
#[must_use]
pub fn route(number: u64) -> &'static str {
    const OFTEN: [&str; 14] = [
        FREE, FREE, FREE, "hot", "hot", "hot", "shared", "shared", "cold", "minute", "minute", "both", "edited", "lax",
    ];
    usize::try_from(number % OFTEN.len() as u64).ok().and_then(|place| OFTEN.get(place)).copied().unwrap_or(FREE)
}

/// The resource file of a run.
#[must_use]
pub fn file(upstream: &str) -> String {
    let mut text =
        format!("upstreams: {{ witness: {{ targets: ['{upstream}'], connections_max: 256 }} }}\nconsumers:\n");
    for name in CONSUMERS {
        let _ = writeln!(text, "  {name}: {{ roles: [caller] }}");
    }
    for name in FLAGS {
        let _ = writeln!(text, "  {name}: {{ roles: [flag] }}");
    }
    text += "policies:\n  callers: |\n    permit(principal in Role::\"caller\", action, resource);\nlimits:\n";
    for limit in &LIMITS {
        let _ = writeln!(text, "  {}: {{ {} }}", limit.name, limit.text);
    }
    text += "routes:\n";
    for (name, limits, serves) in ROUTES {
        let isolated = if serves { ", when_isolated: serve" } else { "" };
        let limits = limits.join(", ");
        let _ = writeln!(text, "  {name}: {{ paths: ['/{name}'], upstream: witness, limits: [{limits}]{isolated} }}");
    }
    text
}

/// Says what limits and routes there are, from when the file was first sent.
pub fn record(recorder: &Recorder, began_us: u64) {
    for Known { name, rule, per, .. } in LIMITS {
        recorder.record(What::Limit(Limit { name: name.into(), rule, per, began_us, known: true }));
    }
    for (name, limits, serves_isolated) in ROUTES {
        let limits = limits.iter().map(|name| (*name).into()).collect();
        recorder.record(What::Route(Route { name: name.into(), limits, cost: 1, serves_isolated }));
    }
}
