//! Histories made by hand, for the tests of the invariants.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use super::{Invariant, Verdict};
use crate::history::{
    Admin, AdminOutcome, Arrival, Credential, Event, Fault, Fenced, History, Limit, Logged, Observed, Operation, Per,
    Phase, Refused, Request, RequestOutcome, Route, Rule, Run, Version, What,
};

/// A second.
pub const S: u64 = 1_000_000;

/// A history that grows. Times are microseconds.
#[derive(Default)]
pub struct Script {
    pub events: Vec<Event>,
    next: u64,
}

impl Script {
    /// Three nodes, a key `k1` with its first secret, an open route `open`.
    pub fn new() -> Self {
        let mut script = Self::default();
        script.at(0, What::Run(Run { seed: 1, nodes: vec![1, 2, 3], lease_us: 2 * S, election_us: 600_000 }));
        script.credential("k1#1", "k1", "acme");
        script.route("open", &[], false);
        script
    }

    pub fn at(&mut self, at_us: u64, what: What) -> &mut Self {
        self.events.push(Event { at_us, what });
        self
    }

    pub fn credential(&mut self, name: &str, key: &str, consumer: &str) -> &mut Self {
        let key_id = format!("id-{key}").into();
        let credential = Credential { name: name.into(), key: key.into(), key_id, consumer: consumer.into() };
        self.at(0, What::Credential(credential))
    }

    pub fn route(&mut self, name: &str, limits: &[&str], serves_isolated: bool) -> &mut Self {
        let limits = limits.iter().map(|name| (*name).into()).collect();
        self.at(0, What::Route(Route { name: name.into(), limits, cost: 1, serves_isolated }))
    }

    pub fn limit(&mut self, name: &str, rule: Rule, began_us: u64, at_us: u64, known: bool) -> &mut Self {
        self.at(at_us, What::Limit(Limit { name: name.into(), rule, per: Per::Key, began_us, known }))
    }

    /// A request that was admitted and served.
    pub fn served(&mut self, node: u64, credential: &str, route: &str, began_us: u64, ended_us: u64) -> &mut Self {
        self.asked(node, credential, route, began_us, ended_us, 200, None);
        let request = self.next;
        self.at(ended_us, What::Arrival(Arrival { request, consumer: None }))
    }

    /// The line of the last request in the access log.
    pub fn logged(&mut self, node: u64, wall_ms: u64) -> &mut Self {
        let request = self.next;
        let (key_id, limit, tick_us) = (None, None, 0);
        let logged = Logged { node, request, allowed: true, key_id, limit, tick_us, wall_ms, decide_us: 10 };
        self.at(0, What::Logged(logged))
    }

    pub fn refused(&mut self, node: u64, credential: &str, began_us: u64, status: u16, problem: &str) -> &mut Self {
        self.asked(node, credential, "open", began_us, began_us + 1_000, status, Some(problem))
    }

    #[allow(clippy::too_many_arguments, reason = "a table of a test")]
    pub fn asked(
        &mut self,
        node: u64,
        credential: &str,
        route: &str,
        began_us: u64,
        ended_us: u64,
        status: u16,
        problem: Option<&str>,
    ) -> &mut Self {
        let outcome = RequestOutcome::Answered { status, problem: problem.map(Into::into) };
        self.outcome(node, credential, route, began_us, ended_us, outcome)
    }

    pub fn lost(&mut self, node: u64, credential: &str, began_us: u64) -> &mut Self {
        let outcome = RequestOutcome::Lost { why: "reset".into(), unsent: false };
        self.outcome(node, credential, "open", began_us, began_us + 1_000, outcome)
    }

    fn outcome(
        &mut self,
        node: u64,
        credential: &str,
        route: &str,
        began_us: u64,
        ended_us: u64,
        outcome: RequestOutcome,
    ) -> &mut Self {
        self.next += 1;
        let (request, credential, route) = (self.next, credential.into(), route.into());
        self.at(ended_us, What::Request(Request { request, node, credential, route, began_us, outcome }))
    }

    pub fn admin(&mut self, span_us: (u64, u64), operation: Operation, outcome: AdminOutcome) -> &mut Admin {
        self.next += 1;
        let request = if operation.is_read() { String::new() } else { format!("{:032x}", self.next) };
        let admin = Admin {
            client: 1,
            node: 1,
            began_us: span_us.0,
            attempts: 1,
            request,
            operation,
            ends: Vec::new(),
            audit: None,
            outcome,
        };
        self.at(span_us.1, What::Admin(admin));
        match &mut self.events.last_mut().unwrap().what {
            What::Admin(admin) => admin,
            _ => panic!("it was made above"),
        }
    }

    /// An observation with authority, in which the node enforces what it has applied.
    pub fn said(&mut self, node: u64, at_us: u64, applied: u64, revision: u64) -> &mut Observed {
        let observed = Observed {
            node,
            incarnation: 1,
            began_us: at_us.saturating_sub(100),
            applied,
            revision,
            enforced: applied,
            enforced_revision: Some(revision),
            authority: true,
            digests: Vec::new(),
        };
        self.at(at_us, What::Observed(observed));
        match &mut self.events.last_mut().unwrap().what {
            What::Observed(observed) => observed,
            _ => panic!("it was made above"),
        }
    }

    pub fn fault(&mut self, number: u64, node: u64, span_us: (u64, Option<u64>)) -> &mut Self {
        let step = |phase| {
            let (kind, about) = ("kill".to_owned(), String::new());
            What::Fault(Fault { number, kind, about, nodes: vec![node], spares_others: true, phase })
        };
        self.at(span_us.0, step(Phase::Planned));
        self.at(span_us.0 + 1_000, step(Phase::Installed));
        if let Some(healed_us) = span_us.1 {
            self.at(healed_us, step(Phase::Healed));
        }
        self
    }

    pub fn settled(&mut self, at_us: u64) -> &mut Self {
        self.at(at_us, What::Settled { nodes: vec![1, 2, 3] })
    }

    pub fn check(&self, invariant: &dyn Invariant) -> Verdict {
        invariant.check(&History::of(self.events.clone()))
    }

    #[track_caller]
    pub fn holds(&self, invariant: &dyn Invariant) -> u64 {
        match self.check(invariant) {
            Verdict::Held { checked } => checked,
            other => panic!("{other}"),
        }
    }

    #[track_caller]
    pub fn is_violated(&self, invariant: &dyn Invariant) -> String {
        match self.check(invariant) {
            Verdict::Violated { why, .. } => why,
            other => panic!("{other}"),
        }
    }

    #[track_caller]
    pub fn is_vacuous(&self, invariant: &dyn Invariant) {
        assert!(matches!(self.check(invariant), Verdict::Vacuous { .. }), "{}", self.check(invariant));
    }
}

pub fn read(object: &str) -> Operation {
    Operation::Read { object: object.to_owned() }
}

pub fn create(object: &str, value: &str) -> Operation {
    Operation::Create { object: object.to_owned(), value: value.to_owned() }
}

pub fn put(object: &str, value: &str) -> Operation {
    Operation::Put { object: object.to_owned(), value: value.to_owned(), expected: None }
}

pub fn change(object: &str, value: &str, expected: Option<u64>) -> Operation {
    Operation::Change { object: object.to_owned(), value: value.to_owned(), expected }
}

pub fn delete(object: &str) -> Operation {
    Operation::Delete { object: object.to_owned(), expected: None }
}

pub fn done(revision: u64) -> AdminOutcome {
    AdminOutcome::Done { revision, fence: (1..=3).map(|node| (node, Fenced::Applied)).collect() }
}

pub fn found(value: &str, revision: u64) -> AdminOutcome {
    AdminOutcome::Found(Some(Version { revision, value: value.to_owned() }))
}

pub fn unknown() -> AdminOutcome {
    AdminOutcome::Unknown { why: "no answer in time".to_owned() }
}

pub fn refused(why: Refused) -> AdminOutcome {
    AdminOutcome::Refused(why)
}
