//! A client of one node: it asks again and again, as fast as its pace lets it, with a number of its own on every request.

use super::{Shared, credentials::Shown, rules};
use crate::{
    history::{Request, RequestOutcome, What},
    sim::random::Random,
};
use std::{sync::atomic::Ordering, time::Duration};
use tests::{
    Connection,
    client::{Answer, Client, get},
};

/// Longer than a lease and an allowance's wait together; a request that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks one node until the workload stops.
pub(super) fn work(shared: &Shared, place: usize, mut random: Random) {
    let Some(mut line) = Line::new(shared, place) else { return };
    while !shared.stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(random.between(shared.pace_ms / 2, shared.pace_ms * 3 / 2)));
        let Some(shown) = shared.credentials.show(&mut random) else { continue };
        line.ask(rules::route(random.next()), &shown);
    }
}

/// A connection to a node, made again when it breaks.
pub(crate) struct Line<'a> {
    shared: &'a Shared,
    place: usize,
    client: Client,
    connection: Option<Connection>,
}

impl<'a> Line<'a> {
    pub(crate) fn new(shared: &'a Shared, place: usize) -> Option<Self> {
        let seat = shared.seats.0.get(place)?;
        Some(Self { shared, place, client: Client::new(&seat.gateway).patience(PATIENCE), connection: None })
    }

    /// Sends a request, and records what came of it: its status, or none. Nothing if nobody is there.
    pub(crate) fn ask(&mut self, route: &str, shown: &Shown) -> Option<u16> {
        let shared = self.shared;
        let node = shared.seats.0.get(self.place)?.id();
        if node == 0 {
            self.connection = None;
            return None;
        }
        let request = shared.next_request.fetch_add(1, Ordering::Relaxed);
        let began_us = shared.recorder.now_us();
        let outcome = self.send(request, route, shown);
        let status = match &outcome {
            RequestOutcome::Answered { status, .. } => Some(*status),
            RequestOutcome::Lost { .. } => {
                self.connection = None;
                None
            }
        };
        let credential = shown.name.clone();
        shared.count(&match &outcome {
            RequestOutcome::Answered { status, problem: None } => format!("requests answered {status}"),
            RequestOutcome::Answered { status, problem: Some(problem) } => {
                format!("requests answered {status} {problem}")
            }
            RequestOutcome::Lost { unsent: true, .. } => "requests without a connection".to_owned(),
            RequestOutcome::Lost { .. } => "requests without an answer".to_owned(),
        });
        let route = route.into();
        shared.recorder.record(What::Request(Request { request, node, credential, route, began_us, outcome }));
        status
    }

    fn send(&mut self, request: u64, route: &str, shown: &Shown) -> RequestOutcome {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => match self.client.connect() {
                Ok(connection) => none.insert(connection),
                Err(why) => return RequestOutcome::Lost { why: why.into(), unsent: true },
            },
        };
        let call = get(&format!("/{route}")).key(&shown.text).header("x-request-id", &request.to_string());
        match connection.try_send(call) {
            Ok(answer) => RequestOutcome::Answered { status: answer.status, problem: problem(&answer).map(Into::into) },
            Err(why) => RequestOutcome::Lost { why: why.into(), unsent: false },
        }
    }
}

/// The type of a problem document, without what stands before its name.
fn problem(answer: &Answer) -> Option<String> {
    if answer.status < 400 {
        return None;
    }
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    problem["type"].as_str()?.rsplit(['/', ':']).next().map(str::to_owned)
}
