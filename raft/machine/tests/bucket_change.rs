//! Properties of limits that change while nodes hold some of them, and of quotas over the ends of windows: whatever nodes
//! do, in whatever order they say it, nothing is admitted that no rule in force allowed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use imbl::OrdMap;
use machine::{
    At, Name, Tick, Wall,
    allowance::{Acquire, BucketId, Buckets, Part, Want},
    bucket::{Limit, Spent, Terms},
    limit::{Quota, Rate, Rule, Window},
};
use proptest::prelude::*;
use std::collections::BTreeMap;

const TERMS: Terms = Terms { ttl_us: 2_000_000, margin_us: 1_000 };
/// 30 s before a minute ends.
const START: Wall = Wall(1_795_348_830_000);

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Ask {
        node: u64,
        waiting: u64,
        ahead: u64,
    },
    Spend {
        node: u64,
        tokens: u64,
    },
    /// A node says what it has spent. It may be late, or old.
    Report {
        node: u64,
        close: bool,
        is_old: bool,
    },
    Change {
        tokens: u64,
        burst: u64,
    },
}

fn step(wait_max_us: u64) -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..wait_max_us).prop_map(Step::Wait),
        4 => (1..4_u64, 0..60_u64, 0..60_u64).prop_map(|(node, waiting, ahead)| Step::Ask { node, waiting, ahead }),
        4 => (1..4_u64, 0..60_u64).prop_map(|(node, tokens)| Step::Spend { node, tokens }),
        3 => (1..4_u64, any::<bool>(), any::<bool>())
            .prop_map(|(node, close, is_old)| Step::Report { node, close, is_old }),
        1 => (1..80_u64, 1..80_u64).prop_map(|(tokens, burst)| Step::Change { tokens, burst }),
    ]
}

#[derive(Clone, Copy)]
struct Holding {
    allowance: u64,
    node: u64,
    amount: u64,
    spent: u64,
    deadline_us: u64,
    is_closed: bool,
}

/// Three nodes and one bucket.
struct World {
    limits: OrdMap<Name, Limit>,
    buckets: Buckets,
    now_us: u64,
    requests: [u64; 4],
    held: Vec<Holding>,
}

fn id() -> BucketId {
    BucketId { limit: Name::new("l").unwrap(), subject: b"anna".as_slice().into() }
}

impl World {
    fn new(rule: Rule) -> Self {
        let limit = Limit { rule, generation: 1, changed: Tick(0) };
        Self {
            limits: [(Name::new("l").unwrap(), limit)].into_iter().collect(),
            buckets: Buckets::default(),
            now_us: 0,
            requests: [0; 4],
            held: Vec::new(),
        }
    }

    fn at(&self) -> At {
        At { tick: Tick(self.now_us), wall: START.plus_ms(self.now_us / 1_000) }
    }

    fn change(&mut self, rule: Rule) {
        let changed = Tick(self.now_us);
        let limit = self.limits.get_mut(&Name::new("l").unwrap()).unwrap();
        *limit = Limit { rule, generation: limit.generation + 1, changed };
    }

    fn acquire(&mut self, node: u64, wants: Vec<Want>, reports: Vec<(BucketId, Spent)>) {
        self.requests[node as usize] += 1;
        let acquire = Acquire { node, incarnation: node, request: self.requests[node as usize], reports, wants };
        let answers = self.buckets.acquire(&self.limits, self.at(), TERMS, &[acquire]);
        let deadline = |ttl_us| self.now_us + ttl_us;
        self.held.extend(answers[0].grants.iter().map(|grant| Holding {
            allowance: grant.allowance,
            node,
            amount: grant.amount,
            spent: 0,
            deadline_us: deadline(grant.ttl_us),
            is_closed: false,
        }));
    }

    fn ask(&mut self, node: u64, waiting: u64, ahead: u64) {
        let parts = vec![Part { bucket: id(), cost: 1 }];
        self.acquire(node, vec![Want { parts, waiting, ahead }], Vec::new());
    }

    /// Closed ones are reported again, too: a close can be late, and come twice.
    fn report(&mut self, node: u64, close: bool, is_old: bool) {
        let of_node = self.held.iter_mut().filter(|holding| holding.node == node);
        let mut reports = Vec::new();
        for holding in of_node {
            holding.is_closed |= close;
            let spent = if is_old && !close { holding.spent / 2 } else { holding.spent };
            reports.push((id(), Spent { allowance: holding.allowance, spent, close: holding.is_closed }));
        }
        self.acquire(node, Vec::new(), reports);
    }

    /// Returns how many were spent.
    fn spend(&mut self, node: u64, tokens: u64) -> u64 {
        let mut left = tokens;
        let now_us = self.now_us;
        let is_open = |holding: &&mut Holding| !holding.is_closed && now_us < holding.deadline_us;
        for holding in self.held.iter_mut().filter(|holding| holding.node == node).filter(is_open) {
            let spend = left.min(holding.amount - holding.spent);
            holding.spent += spend;
            left -= spend;
        }
        tokens - left
    }
}

fn rate(tokens: u64, burst: u64) -> Rate {
    Rate { tokens, period_us: 1_000_000, burst }
}

/// Drains at a rate; what is admitted fills it.
#[derive(Default)]
struct Leak {
    level: u128,
    at_us: u64,
}

impl Leak {
    fn admit(&mut self, tokens: u64, now_us: u64, per_second: u64) -> u128 {
        let drained = u128::from(now_us - self.at_us) * u128::from(per_second);
        self.level = self.level.saturating_sub(drained) + u128::from(tokens) * 1_000_000;
        self.at_us = now_us;
        self.level.div_ceil(1_000_000)
    }
}

proptest! {
    /// The largest rate and burst there were hold, and once what was granted by older rules is gone, the present one holds
    /// by itself. A raised burst begins anew: a bucket that is full is not stored, so that it is full by the new rule at
    /// once, and of what had been admitted before nothing is known.
    #[test]
    fn a_changed_rate_never_lets_through_more_than_the_larger(
        steps in prop::collection::vec(step(700_000), 1..150), first in (1..80_u64, 1..80_u64),
    ) {
        let mut rule = rate(first.0, first.1);
        let mut world = World::new(Rule::Rate(rule));
        let mut most = rule;
        let (mut of_all, mut of_present) = (Leak::default(), Leak::default());
        // From when on nothing of an older rule is held.
        let mut settled_us = 0;
        for step in steps {
            match step {
                Step::Wait(us) => world.now_us += us,
                Step::Ask { node, waiting, ahead } => world.ask(node, waiting, ahead),
                Step::Report { node, close, is_old } => world.report(node, close, is_old),
                Step::Change { tokens, burst } => {
                    if burst > rule.burst {
                        of_all = Leak { level: 0, at_us: world.now_us };
                    }
                    rule = rate(tokens, burst);
                    world.change(Rule::Rate(rule));
                    most = rate(most.tokens.max(tokens), most.burst.max(burst));
                    settled_us = world.now_us + TERMS.ttl_us;
                    of_present = Leak { level: 0, at_us: settled_us };
                }
                Step::Spend { node, tokens } => {
                    let spent = world.spend(node, tokens);
                    let level = of_all.admit(spent, world.now_us, most.tokens);
                    prop_assert!(level <= u128::from(most.burst), "{level} of {most:?}");
                    if world.now_us >= settled_us {
                        let level = of_present.admit(spent, world.now_us, rule.tokens);
                        prop_assert!(level <= u128::from(rule.burst), "{level} of {rule:?}");
                    }
                }
            }
            if let Some(bucket) = world.buckets.buckets.get(&id()) {
                let (available, outstanding) = (bucket.available(), bucket.outstanding());
                prop_assert!(available == 0 || available + outstanding <= bucket.rule().burst());
                prop_assert!(bucket.check(world.buckets.next_allowance, world.at()));
            }
        }
    }

    /// In no window of the calendar more than the largest amount in force in it, whatever is closed late, twice, or with
    /// old numbers, and nothing goes from one window into the next.
    #[test]
    fn a_quota_holds_in_every_window(
        steps in prop::collection::vec(step(9_000_000), 1..200), first in 1..80_u64,
    ) {
        let quota = |amount| Rule::Quota(Quota { amount, window: Window::Minute });
        let mut world = World::new(quota(first));
        let mut amount = first;
        let mut windows: BTreeMap<Wall, (u64, u64)> = BTreeMap::new();
        for step in steps {
            let window = Window::Minute.end(world.at().wall);
            let (admitted, most) = windows.entry(window).or_default();
            *most = amount.max(*most);
            match step {
                Step::Wait(us) => world.now_us += us,
                Step::Ask { node, waiting, ahead } => world.ask(node, waiting, ahead),
                Step::Report { node, close, is_old } => world.report(node, close, is_old),
                Step::Change { tokens, .. } => {
                    amount = tokens;
                    *most = amount.max(*most);
                    world.change(quota(amount));
                }
                Step::Spend { node, tokens } => {
                    *admitted += world.spend(node, tokens);
                    prop_assert!(*admitted <= *most, "{admitted} of {most} in the window that ends at {window:?}");
                }
            }
            if let Some(bucket) = world.buckets.buckets.get(&id()) {
                prop_assert!(bucket.check(world.buckets.next_allowance, world.at()));
            }
        }
    }

    /// From one kind of limit to the other: never more than the larger of both in the window, and nothing breaks.
    #[test]
    fn a_limit_that_becomes_another_kind_stays_sound(
        steps in prop::collection::vec(step(9_000_000), 1..150), first in (1..80_u64, 1..80_u64),
    ) {
        let mut world = World::new(Rule::Rate(rate(first.0, first.1)));
        for step in steps {
            match step {
                Step::Wait(us) => world.now_us += us,
                Step::Ask { node, waiting, ahead } => world.ask(node, waiting, ahead),
                Step::Report { node, close, is_old } => world.report(node, close, is_old),
                Step::Spend { node, tokens } => {
                    world.spend(node, tokens);
                }
                Step::Change { tokens, burst } => world.change(match burst % 3 {
                    0 => Rule::Quota(Quota { amount: tokens, window: Window::Minute }),
                    1 => Rule::Quota(Quota { amount: tokens, window: Window::Hour }),
                    _ => Rule::Rate(rate(tokens, burst)),
                }),
            }
            if let Some(bucket) = world.buckets.buckets.get(&id()) {
                prop_assert!(bucket.check(world.buckets.next_allowance, world.at()));
                let (available, outstanding) = (bucket.available(), bucket.outstanding());
                prop_assert!(available == 0 || available + outstanding <= bucket.rule().burst());
            }
        }
    }
}
