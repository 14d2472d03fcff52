//! What is left of a bucket by its rule: the level of a token bucket, or what a quota's window has given away. Whether
//! nodes have spent what they were given is not known here.

use crate::{
    cap::LIMIT_TOKENS_MAX,
    limit::{Quota, Rate, Rule},
    time::{At, Tick, Wall},
};
use serde::{Deserialize, Serialize};

/// What is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Meter {
    /// Of a token bucket.
    Rate {
        /// Its rule.
        rule: Rate,
        /// What can be granted, in parts: a token is [`Rate::period_us`] of them, so that a refill is exact.
        level: u128,
        /// Up to when time was credited.
        updated: Tick,
    },
    /// Of a quota.
    Quota {
        /// Its rule.
        rule: Quota,
        /// What was granted in this window and not given back. Counted up, not down, so that a change of the amount has
        /// nothing to convert: what is too much stays too much.
        used: u64,
        /// Where the window ends.
        window_end: Wall,
    },
}

impl Meter {
    /// A full one.
    pub(super) fn full(rule: Rule, at: At) -> Self {
        match rule {
            Rule::Rate(rule) => Self::Rate { rule, level: parts(rule.burst, &rule), updated: at.tick },
            Rule::Quota(rule) => Self::Quota { rule, used: 0, window_end: rule.window.end(at.wall) },
        }
    }

    pub(super) const fn rule(&self) -> Rule {
        match self {
            Self::Rate { rule, .. } => Rule::Rate(*rule),
            Self::Quota { rule, .. } => Rule::Quota(*rule),
        }
    }

    pub(super) const fn window_end(&self) -> Wall {
        match self {
            Self::Rate { .. } => Wall(u64::MAX),
            Self::Quota { window_end, .. } => *window_end,
        }
    }

    /// Whole tokens.
    pub(super) fn available(&self) -> u64 {
        match self {
            Self::Rate { rule, level, .. } => u64::try_from(level / part(rule)).unwrap_or(u64::MAX),
            Self::Quota { rule, used, .. } => rule.amount.saturating_sub(*used),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Rate { rule, level, .. } => *level == parts(rule.burst, rule),
            Self::Quota { used, .. } => *used == 0,
        }
    }

    /// Whether it can be so, with what nodes hold, and with that and what expired allowances may still give back.
    pub(super) fn check(&self, outstanding: u128, returnable: u128, at: At) -> bool {
        let fits = match self {
            Self::Rate { rule, level, updated } => {
                let room = u128::from(rule.burst).saturating_sub(outstanding);
                *updated <= at.tick && *level <= room.saturating_mul(part(rule))
            }
            Self::Quota { rule, used, window_end } => {
                let is_counted = returnable <= u128::from(*used) && *used <= LIMIT_TOKENS_MAX;
                is_counted && *window_end <= rule.window.end(at.wall)
            }
        };
        fits && self.rule().check().is_ok()
    }

    /// Credits the time up to an instant, as far as there is room beside what is outstanding.
    pub(super) fn credit(&mut self, until: Tick, outstanding: u64) {
        let Self::Rate { rule, level, updated } = self else { return };
        let elapsed_us = until.0.saturating_sub(updated.0);
        *updated = until.max(*updated);
        let refill = u128::from(elapsed_us) * u128::from(rule.tokens);
        *level = level.saturating_add(refill).min(room(rule, outstanding));
    }

    /// Goes over to another rule, which came into force at `changed`. Nothing is granted by it that the larger of both
    /// would not have: from rate to rate the tokens that are there are kept as far as there is room, and else what the
    /// old one had given away counts as given away by the new one. Returns whether the window is another one.
    pub(super) fn take_over(&mut self, rule: Rule, changed: Tick, at: At, outstanding: u64) -> bool {
        let gone = self.gone().max(outstanding);
        let (next, is_other_window) = match (&*self, rule) {
            (Self::Rate { rule: old, level, updated }, Rule::Rate(rule)) => {
                // A fraction of a token is a fraction of a token at any period.
                let level = level.saturating_mul(part(&rule)) / part(old);
                let level = level.min(room(&rule, outstanding));
                (Self::Rate { rule, level, updated: changed.max(*updated) }, false)
            }
            (Self::Quota { rule: old, used, window_end }, Rule::Quota(rule)) if old.window == rule.window => {
                (Self::Quota { rule, used: *used, window_end: *window_end }, false)
            }
            (_, Rule::Rate(rule)) => (Self::Rate { rule, level: room(&rule, gone), updated: changed }, true),
            (_, Rule::Quota(rule)) => (Self::Quota { rule, used: gone, window_end: rule.window.end(at.wall) }, true),
        };
        *self = next;
        is_other_window
    }

    /// Tokens that are not there, a part of one included.
    fn gone(&self) -> u64 {
        match self {
            Self::Rate { rule, .. } => rule.burst.saturating_sub(self.available()),
            Self::Quota { used, .. } => *used,
        }
    }

    pub(super) fn take(&mut self, tokens: u64) {
        match self {
            Self::Rate { rule, level, .. } => *level = level.saturating_sub(parts(tokens, rule)),
            Self::Quota { used, .. } => *used = used.saturating_add(tokens),
        }
    }

    /// Takes back what was not spent; `outstanding` is what is still out. A rate that was lowered meanwhile has no room
    /// for all of it.
    pub(super) fn give_back(&mut self, tokens: u64, outstanding: u64) {
        match self {
            Self::Rate { rule, level, .. } => {
                *level = level.saturating_add(parts(tokens, rule)).min(room(rule, outstanding));
            }
            Self::Quota { used, .. } => *used = used.saturating_sub(tokens),
        }
    }

    /// Begins the window that holds this instant.
    pub(super) fn begin_window(&mut self, at: At) {
        if let Self::Quota { rule, used, window_end } = self {
            *used = 0;
            *window_end = rule.window.end(at.wall);
        }
    }

    /// How long until so many tokens are there by the passing of time alone, in microseconds; `None` if it brings none
    /// within this window.
    pub(super) fn missing_us(&self, tokens: u64) -> Option<u64> {
        let Self::Rate { rule, level, .. } = self else { return None };
        let missing = parts(tokens, rule).saturating_sub(*level);
        Some(u64::try_from(missing.div_ceil(u128::from(rule.tokens.max(1)))).unwrap_or(u64::MAX))
    }
}

/// Parts of a token.
const fn part(rule: &Rate) -> u128 {
    // A period of nothing is refused where rules come in, and dividing by it must not end a process all the same.
    if rule.period_us == 0 { 1 } else { rule.period_us as u128 }
}

fn parts(tokens: u64, rule: &Rate) -> u128 {
    u128::from(tokens).saturating_mul(part(rule))
}

/// What a rate has room for beside what is outstanding, in parts.
fn room(rule: &Rate, outstanding: u64) -> u128 {
    parts(rule.burst.saturating_sub(outstanding), rule)
}
