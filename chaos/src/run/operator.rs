//! The admin API, asked of one node at a time, within a deadline. What a failure says about whether something was done is kept
//! apart: *unknown is not failed*.

use prost::Message as _;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tests::{admin, runtime::runtime};
use tonic::{Code, Request, Response, Status, transport::Channel};

/// A connection on which nothing comes for so long is made anew.
const SILENCE: Duration = Duration::from_secs(2);

/// An operator with a connection to each node. Clones share the connections.
#[derive(Clone, Debug)]
pub struct Operator {
    context: PathBuf,
    channels: Vec<Channel>,
}

/// Why there is no answer, or none that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Surely not done. The problem's stable type, and what it says.
    Refused(String, String),
    /// Not done, for a reason that says nothing about what was asked: another node, or later, may do it.
    NotNow(String),
    /// It may have been done, or may yet be.
    Unknown(String),
}

impl Operator {
    /// The operator of a context file, for nodes whose cluster listeners are these.
    #[must_use]
    pub fn new(context: &Path, addresses: &[String]) -> Self {
        let channels = addresses.iter().map(|address| admin::lazy(context, address, SILENCE)).collect();
        Self { context: context.to_owned(), channels }
    }

    /// The same operator with connections of its own: for who must not wait behind others.
    #[must_use]
    pub fn again(&self, addresses: &[String]) -> Self {
        Self::new(&self.context, addresses)
    }

    /// Asks the node at a place.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn ask<T>(
        &self,
        place: usize,
        patience: Duration,
        call: impl AsyncFnOnce(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let Some(channel) = self.channels.get(place).cloned() else {
            return Err(Failure::NotNow(format!("there is no node {place}")));
        };
        runtime().block_on(async {
            match tokio::time::timeout(patience, call(channel)).await {
                Ok(Ok(response)) => Ok(response.into_inner()),
                Ok(Err(status)) => Err(Failure::of(&status)),
                Err(_) => Err(Failure::Unknown("no answer in time".to_owned())),
            }
        })
    }
}

impl Failure {
    fn of(status: &Status) -> Self {
        let problem = proto::admin::Problem::decode(status.details()).unwrap_or_default();
        let text = format!("{:?}: {}", status.code(), status.message());
        match (status.code(), problem.r#type.as_str()) {
            // Not an answer of the product: the connection broke, or was never made.
            (Code::Unavailable, "") if is_unsent(status) => Self::NotNow(text),
            (_, "" | "unavailable" | "unknown_outcome" | "transfer_timed_out" | "internal") => Self::Unknown(text),
            (_, "no_leader" | "overloaded" | "behind" | "stopping" | "disk_full") => Self::NotNow(text),
            (_, kind) => Self::Refused(kind.to_owned(), text),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(kind, text) => write!(f, "refused ({kind}): {text}"),
            Self::NotNow(text) => write!(f, "not now: {text}"),
            Self::Unknown(text) => write!(f, "not known whether it was done: {text}"),
        }
    }
}

/// Whether no connection could be made, so that nothing was sent.
fn is_unsent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.to_string().contains("tcp connect error") || error.to_string().contains("connection refused") {
            return true;
        }
        source = error.source();
    }
    false
}

/// A request that carries its own deadline, so that a node does not go on with what nobody waits for.
pub fn within<T>(message: T, patience: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(patience);
    request
}
