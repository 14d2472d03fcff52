//! The cluster as a command sees it: a call that finds a node that answers, within the deadline, and a write that is
//! done once however often it had to be sent. Connections are in `client/transport.rs`, the meaning of refusals in
//! `client/problem.rs`.

mod problem;
mod transport;

use crate::context::Context;
use crate::duration;
use crate::exit::{Exit, Failure};
use crate::request::RequestId;
use problem::Verdict;
use proto::admin::WriteOptions;
use std::cell::{Cell, RefCell};
use std::time::Duration;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;
use tonic::{Response, Status};

/// An answer may be a whole export.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// A node that does not even shake hands in this time is passed over while there are others.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Between rounds over all endpoints: an election takes about this long, and there is no use in hammering.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest of these pauses.
pub const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The longest that the cluster waits for its nodes before it answers a write.
const FENCE_MAX: Duration = Duration::from_secs(10);

/// How this invocation wants its writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// The revision that the thing must still have.
    pub if_revision: Option<u64>,
    /// Do not wait for the nodes.
    pub no_wait: bool,
}

/// Speaks to the cluster.
pub struct Client {
    endpoints: Vec<String>,
    tls: TlsConnector,
    timeout: Duration,
    deadline: Cell<Instant>,
    wishes: Wishes,
    current: RefCell<Current>,
}

/// The endpoint whose turn it is, and the connection to it.
#[derive(Default)]
struct Current {
    endpoint: usize,
    channel: Option<Channel>,
}

impl Client {
    /// A client for one command: the time starts to run. `endpoints` replace those of the context, if there are any.
    pub fn new(context: &Context, endpoints: Vec<String>, timeout: Duration, wishes: Wishes) -> Result<Self, Failure> {
        let endpoints = if endpoints.is_empty() { context.endpoints.clone() } else { endpoints };
        let deadline =
            Instant::now().checked_add(timeout).ok_or_else(|| Failure::usage("--timeout is too long", ""))?;
        let tls = transport::tls(context)?;
        Ok(Self { endpoints, tls, timeout, deadline: Cell::new(deadline), wishes, current: RefCell::default() })
    }

    /// Starts the time anew: for the next of several steps, or after a person was asked.
    pub fn restart(&self) {
        if let Some(deadline) = Instant::now().checked_add(self.timeout) {
            self.deadline.set(deadline);
        }
    }

    /// How long one step, or the silence between two pieces of a stream, may last.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Asks something that changes nothing.
    pub async fn read<T>(&self, call: impl AsyncFn(Channel) -> Result<Response<T>, Status>) -> Result<T, Failure> {
        self.ask(None, async |channel, _| call(channel).await).await
    }

    /// Changes something, once. `check` is the command line that shows whether it happened, should that stay unknown.
    pub async fn write<T>(
        &self,
        check: &str,
        call: impl AsyncFn(Channel, WriteOptions) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        self.ask(Some(check), call).await
    }

    /// Asks another node next: the one before broke off.
    pub fn elsewhere(&self) {
        self.current.borrow_mut().channel = None;
        self.pass_on();
    }

    /// A status that came in the middle of a stream.
    pub fn failure(&self, status: &Status) -> Failure {
        match problem::verdict(status) {
            Verdict::Final(failure) | Verdict::Unwelcome(failure) | Verdict::Outdated(failure, _) => failure,
            Verdict::Elsewhere { failure, .. } => Failure { exit: Exit::Unreachable, ..failure },
        }
    }

    async fn ask<T>(
        &self,
        check: Option<&str>,
        call: impl AsyncFn(Channel, WriteOptions) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let mut request = new_request(RequestId::new())?;
        let mut redated = false;
        // Whether the write was sent and may have happened. From then on the request id must not change: a second one
        // could do the thing a second time.
        let mut doubt = false;
        let mut pause = PAUSE_FIRST;
        // What the endpoints said when they were last asked.
        let mut reasons: Vec<Failure> = Vec::new();
        loop {
            let mut worth_waiting = doubt;
            let mut tried = 0;
            while tried < self.endpoints.len() {
                if self.remaining().is_zero() {
                    return Err(self.gave_up(check.filter(|_| doubt), reasons));
                }
                if tried == 0 {
                    reasons.clear();
                }
                let channel = match self.channel(self.endpoints.len() - tried).await {
                    Ok(channel) => channel,
                    Err(failure) => {
                        reasons.push(failure);
                        self.pass_on();
                        tried += 1;
                        continue;
                    }
                };
                let answer = tokio::time::timeout(self.remaining(), call(channel, self.options(request))).await;
                let verdict = match answer {
                    Ok(Ok(response)) => return Ok(response.into_inner()),
                    Ok(Err(status)) => problem::verdict(&status),
                    Err(_) => return Err(self.gave_up(check, reasons)),
                };
                match verdict {
                    Verdict::Outdated(failure, cluster_ms) => {
                        if redated || doubt || cluster_ms == 0 {
                            return Err(self.refusal(failure, doubt));
                        }
                        redated = true;
                        request = new_request(RequestId::at(cluster_ms))?;
                        continue;
                    }
                    Verdict::Final(failure) => return Err(self.refusal(failure, doubt)),
                    Verdict::Unwelcome(failure) => reasons.push(failure),
                    Verdict::Elsewhere { failure, doubt: unsure, broken } => {
                        doubt |= unsure && check.is_some();
                        worth_waiting = true;
                        reasons
                            .push(Failure { message: format!("{}: {}", self.endpoint(), failure.message), ..failure });
                        if broken {
                            self.current.borrow_mut().channel = None;
                        }
                    }
                }
                self.pass_on();
                tried += 1;
            }
            if !worth_waiting || self.remaining() <= pause {
                return Err(self.gave_up(check.filter(|_| doubt), reasons));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The connection to the endpoint whose turn it is; a new one leaves time for those that are still to be tried.
    async fn channel(&self, untried: usize) -> Result<Channel, Failure> {
        if let Some(channel) = self.current.borrow().channel.clone() {
            return Ok(channel);
        }
        let share = self.remaining() / u32::try_from(untried.max(1)).unwrap_or(u32::MAX);
        let channel = transport::connect(&self.endpoint(), &self.tls, share.min(CONNECT_TIMEOUT)).await?;
        self.current.borrow_mut().channel = Some(channel.clone());
        Ok(channel)
    }

    fn endpoint(&self) -> String {
        self.endpoints.get(self.current.borrow().endpoint).cloned().unwrap_or_default()
    }

    fn pass_on(&self) {
        if self.endpoints.len() > 1 {
            let mut current = self.current.borrow_mut();
            current.endpoint = (current.endpoint + 1) % self.endpoints.len();
            current.channel = None;
        }
    }

    fn remaining(&self) -> Duration {
        self.deadline.get().saturating_duration_since(Instant::now())
    }

    fn options(&self, request: RequestId) -> WriteOptions {
        // The cluster must answer before this side stops listening, or a write that is done looks lost.
        let fence = (self.remaining() * 2 / 3).min(FENCE_MAX);
        let mut options = WriteOptions {
            if_revision: self.wishes.if_revision,
            no_wait: self.wishes.no_wait,
            fence_timeout_ms: u32::try_from(duration::millis(fence).max(1)).unwrap_or(u32::MAX),
            ..WriteOptions::default()
        };
        request.put(&mut options);
        options
    }

    fn refusal(&self, failure: Failure, doubt: bool) -> Failure {
        if doubt {
            failure.with_hint("an earlier attempt of this command got no answer and may have taken effect")
        } else {
            failure
        }
    }

    /// `check` where a write may have happened.
    fn gave_up(&self, check: Option<&str>, reasons: Vec<Failure>) -> Failure {
        let told = told(&reasons);
        if let Some(check) = check {
            return Failure::new(
                Exit::Unreachable,
                "outcome_unknown",
                format!("the write was sent, but no answer came: it may have happened, or may yet happen{told}"),
                format!("check before you repeat it: {check}"),
            );
        }
        if let Some(unwelcome) = reasons.iter().find(|failure| failure.exit == Exit::NotPermitted) {
            return unwelcome.clone();
        }
        if reasons.iter().any(|failure| failure.kind == "no_leader") {
            return Failure::new(
                Exit::Unreachable,
                "no_leader",
                format!("the cluster has no leader, so nothing was done{told}"),
                "a majority of the voters must be running and must reach each other: quoratectl cluster status",
            );
        }
        if !reasons.is_empty() && reasons.iter().all(|failure| failure.kind == "unreachable") {
            return Failure::new(
                Exit::Unreachable,
                "unreachable",
                format!("no node of the cluster could be reached{told}"),
                "check the endpoints of the context (or --endpoint) and that the nodes are running",
            );
        }
        let timeout = duration::text(duration::millis(self.timeout));
        Failure::new(Exit::Unreachable, "timed_out", format!("no answer within {timeout}{told}"), "")
    }
}

fn new_request(request: Option<RequestId>) -> Result<RequestId, Failure> {
    request.ok_or_else(|| Failure::local("this system gives no random bytes"))
}

fn told(reasons: &[Failure]) -> String {
    reasons.iter().map(|failure| format!("\n  {}", failure.message)).collect()
}
