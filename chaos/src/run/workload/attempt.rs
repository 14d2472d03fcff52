//! One operation of the admin API: sent to one node after another with the same request id until it is answered, and recorded with its
//! interval. What may have been done and what was surely not done are kept apart.

use super::Shared;
use crate::{
    history::{Admin, AdminOutcome, Fenced, Operation, Refused, Text, Version, What},
    run::operator::{Failure, Operator, within},
    sim::random::Random,
};
use proto::admin::{WriteOptions, WriteResult};
use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};
use tonic::{Request, Response, Status, transport::Channel};

/// For one attempt; a fence waits for a lease at most.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the cluster may wait for its nodes before it answers.
const FENCE_MS: u32 = 3_500;
/// Until an operation is given up.
const GIVEN_UP: Duration = Duration::from_secs(20);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Who sends operations, one at a time.
pub(crate) struct Asker<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) number: u32,
    pub(crate) operator: Operator,
    pub(crate) random: Random,
}

/// What is to be done, beside the call itself.
pub(crate) struct Wish {
    pub(crate) operation: Operation,
    pub(crate) ends: Vec<Text>,
    pub(crate) audit: Option<(String, String)>,
}

impl Asker<'_> {
    /// Writes. Returns the answer, if there is one.
    pub(crate) fn write<T>(
        &mut self,
        wish: Wish,
        result: impl Fn(&T) -> Option<&WriteResult>,
        call: impl AsyncFn(Channel, WriteOptions) -> Result<Response<T>, Status>,
    ) -> (Option<T>, u64) {
        self.write_named(wish, result, |_| None, call)
    }

    /// The same for what has its name in the audit log only once it is done.
    pub(crate) fn write_named<T>(
        &mut self,
        mut wish: Wish,
        result: impl Fn(&T) -> Option<&WriteResult>,
        audit: impl Fn(&T) -> Option<(String, String)>,
        call: impl AsyncFn(Channel, WriteOptions) -> Result<Response<T>, Status>,
    ) -> (Option<T>, u64) {
        let mut options = tests::admin::write_options();
        options.fence_timeout_ms = FENCE_MS;
        options.if_revision = expected(&wish.operation);
        let request = options.request_random.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let asked = self.ask(async |channel| call(channel, options.clone()).await);
        let began_us = asked.began_us;
        let (outcome, answer) = match asked.ended {
            Ok(answer) => {
                wish.audit = wish.audit.or_else(|| audit(&answer));
                let result = result(&answer);
                let fence = result.iter().flat_map(|result| &result.fence).map(|node| (node.node, fenced(&node.state)));
                let revision = result.map_or(0, |result| result.revision);
                (AdminOutcome::Done { revision, fence: fence.collect() }, Some(answer))
            }
            Err(Failure::Unknown(why)) => (AdminOutcome::Unknown { why }, None),
            Err(Failure::NotNow(why)) => (AdminOutcome::Failed { why }, None),
            // An attempt before it may yet arrive.
            Err(Failure::Refused(kind, why)) if asked.doubt => {
                (AdminOutcome::Unknown { why: format!("{kind}: {why}") }, None)
            }
            Err(Failure::Refused(kind, why)) => (refused(&kind, &wish.operation, why), None),
        };
        self.record(asked.node, began_us, asked.attempts, request, wish, outcome);
        (answer, began_us)
    }

    /// Reads. Returns the version, if the object is there and was read.
    pub(crate) fn read<T>(
        &mut self,
        object: &str,
        version: impl Fn(&T) -> Option<Version>,
        call: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Option<Version> {
        let asked = self.ask(call);
        let outcome = match asked.ended {
            Ok(answer) => match version(&answer) {
                Some(version) => AdminOutcome::Found(Some(version)),
                None => AdminOutcome::Failed { why: "an answer that cannot be read".to_owned() },
            },
            Err(Failure::Refused(kind, _)) if kind == "not_found" => AdminOutcome::Found(None),
            Err(failure) => AdminOutcome::Failed { why: failure.to_string() },
        };
        let found = if let AdminOutcome::Found(found) = &outcome { found.clone() } else { None };
        let wish = Wish { operation: Operation::Read { object: object.to_owned() }, ends: Vec::new(), audit: None };
        self.record(asked.node, asked.began_us, asked.attempts, String::new(), wish, outcome);
        found
    }

    fn record(&self, node: u64, began_us: u64, attempts: u32, request: String, wish: Wish, outcome: AdminOutcome) {
        let kind = match &outcome {
            AdminOutcome::Found(_) => "found",
            AdminOutcome::Done { .. } => "done",
            AdminOutcome::Refused(_) => "refused",
            AdminOutcome::Failed { .. } => "surely not done",
            AdminOutcome::Unknown { .. } => "outcome not known",
        };
        self.shared.count(&format!("admin operations {kind}"));
        let Wish { operation, ends, audit } = wish;
        let client = self.number;
        let admin = Admin { client, node, began_us, attempts, request, operation, ends, audit, outcome };
        self.shared.recorder.record(What::Admin(admin));
    }

    /// Asks one node after another, in an order made by chance.
    fn ask<T>(&mut self, call: impl AsyncFn(Channel) -> Result<Response<T>, Status>) -> Asked<T> {
        let began_us = self.shared.recorder.now_us();
        let began = Instant::now();
        let (mut attempts, mut doubt) = (0, false);
        loop {
            let places: Vec<usize> = self
                .shared
                .seats
                .0
                .iter()
                .enumerate()
                .filter(|(_, seat)| seat.id() != 0)
                .map(|(place, _)| place)
                .collect();
            let place = self.random.pick(&places).copied().unwrap_or(0);
            let node = self.shared.seats.0.get(place).map_or(0, super::super::cluster::Seat::id);
            attempts += 1;
            let ended = self.operator.ask(place, PATIENCE, &call);
            let again = match &ended {
                Err(Failure::Unknown(_)) => {
                    doubt = true;
                    true
                }
                Err(Failure::NotNow(_)) => true,
                Ok(_) | Err(Failure::Refused(..)) => false,
            };
            if !again || began.elapsed() > GIVEN_UP {
                let ended = match ended {
                    // Not done this time, and perhaps by an attempt before.
                    Err(Failure::NotNow(why)) if doubt => Err(Failure::Unknown(why)),
                    other => other,
                };
                return Asked { began_us, node, attempts, doubt, ended };
            }
            std::thread::sleep(PAUSE);
        }
    }
}

struct Asked<T> {
    began_us: u64,
    node: u64,
    attempts: u32,
    doubt: bool,
    ended: Result<T, Failure>,
}

/// A message with a deadline of one attempt.
pub(crate) fn timed<T>(message: T) -> Request<T> {
    within(message, PATIENCE)
}

const fn expected(operation: &Operation) -> Option<u64> {
    match operation {
        Operation::Put { expected, .. } | Operation::Change { expected, .. } | Operation::Delete { expected, .. } => {
            *expected
        }
        Operation::Read { .. } | Operation::Create { .. } => None,
    }
}

fn refused(kind: &str, operation: &Operation, why: String) -> AdminOutcome {
    match kind {
        "already_exists" => AdminOutcome::Refused(Refused::AlreadyExists),
        "not_found" => AdminOutcome::Refused(Refused::NotFound),
        "key_revoked" => AdminOutcome::Refused(Refused::Revoked),
        // Without an expectation it is about other resources of the file.
        "conflict" if expected(operation).is_some() => AdminOutcome::Refused(Refused::Conflict { actual: None }),
        _ => AdminOutcome::Failed { why: format!("{kind}: {why}") },
    }
}

fn fenced(state: &str) -> Fenced {
    match state {
        "applied" => Fenced::Applied,
        "expired" => Fenced::Expired,
        "serving_isolated" => Fenced::ServingIsolated,
        _ => Fenced::Pending,
    }
}
