//! How an admin call is refused: a gRPC status whose details are an encoded `Problem`. The code says what a client may do
//! about it, the type is stable for scripts, message and hint are for people.

use machine::{Outcome, Refusal, Wall};
use prost::Message as _;
use proto::admin::{Place, Problem as Message};
use raft::{ProposeError, ReadError, TransferError};
use tonic::{Code, Status};

/// A refusal on its way to becoming a status.
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    message: Message,
}

impl Problem {
    /// A refusal with this code, stable type and message.
    #[must_use]
    pub fn new(code: Code, kind: &str, message: impl Into<String>) -> Self {
        Self { code, message: Message { r#type: kind.to_owned(), message: message.into(), ..Message::default() } }
    }

    /// What the client sent makes no sense.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, "invalid", message)
    }

    /// A resource file makes no sense at these places.
    #[must_use]
    pub fn invalid_places(message: impl Into<String>, places: Vec<Place>) -> Self {
        let mut problem = Self::invalid(message);
        problem.message.places = places;
        problem
    }

    /// The thing does not exist.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, "not_found", message)
    }

    /// The cluster is in no state for it.
    #[must_use]
    pub fn refused(kind: &str, message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, kind, message)
    }

    /// This node failed; nothing that the client did.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, "internal", message)
    }

    /// The refusal that another node answered.
    #[must_use]
    pub fn passed_on(status: &Status) -> Self {
        match Message::decode(status.details()) {
            Ok(message) if !message.r#type.is_empty() => Self { code: status.code(), message },
            _ => Self::new(status.code(), "unavailable", status.message()),
        }
    }

    /// Whether somebody else was faster.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code == Code::Aborted
    }

    /// Says it in other words.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message.message = message.into();
        self
    }

    /// Says first what it is about.
    #[must_use]
    pub fn prefix(mut self, about: &str) -> Self {
        self.message.message = format!("{about}: {}", self.message.message);
        self
    }

    /// Adds places in resources.
    #[must_use]
    pub fn places(mut self, places: Vec<Place>) -> Self {
        self.message.places = places;
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.message.hint = hint.into();
        self
    }

    /// Adds the cluster's time, so that a client with a wrong clock can make a request that is accepted.
    #[must_use]
    pub const fn at(mut self, wall: Wall) -> Self {
        self.message.cluster_wall_ms = wall.0;
        self
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let details = problem.message.encode_to_vec();
        Self::with_details(problem.code, problem.message.message, details.into())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (code, kind, hint) = match &refusal {
            Refusal::NotFound { .. } => (Code::NotFound, "not_found", ""),
            Refusal::AlreadyExists { .. } => (Code::AlreadyExists, "already_exists", ""),
            Refusal::Conflict { .. } => {
                (Code::Aborted, "conflict", "read it again, and repeat the change on what you find")
            }
            Refusal::CapReached { .. } => (Code::ResourceExhausted, "cap_reached", ""),
            Refusal::OutOfBounds { .. } => (Code::InvalidArgument, "out_of_bounds", ""),
            Refusal::KeyRevoked => (Code::FailedPrecondition, "key_revoked", ""),
            Refusal::TokenUnknown => (Code::FailedPrecondition, "token_unknown", ""),
            Refusal::TokenUsed { .. } => (Code::FailedPrecondition, "token_used", ""),
            Refusal::TokenExpired => (Code::FailedPrecondition, "token_expired", ""),
            Refusal::NotPermitted { .. } => (
                Code::PermissionDenied,
                "not_permitted",
                "an admin can give you an operator certificate with that role",
            ),
            Refusal::LastAdmin { .. } => (Code::FailedPrecondition, "last_admin", ""),
            Refusal::MemberLeaving { .. } => (Code::FailedPrecondition, "member_leaving", ""),
            Refusal::MemberNotLeaving { .. } => (Code::FailedPrecondition, "member_not_leaving", ""),
            Refusal::LastEligible { .. } => (Code::FailedPrecondition, "last_eligible", ""),
            Refusal::RequestOutdated => (Code::FailedPrecondition, "outdated_request", ""),
            Refusal::AlreadyInitialized => (Code::FailedPrecondition, "already_initialized", ""),
            Refusal::NotInitialized => (Code::FailedPrecondition, "not_initialized", ""),
            Refusal::FeatureLevel { .. } => {
                (Code::FailedPrecondition, "feature_level", "upgrade that node, or remove it, and try again")
            }
            Refusal::NeedsFeatureLevel { .. } => (Code::FailedPrecondition, "feature_level", ""),
            Refusal::LimitWithoutRule { .. } => (Code::InvalidArgument, "limit_without_rule", ""),
            Refusal::AuthorityPhase => {
                (Code::FailedPrecondition, "authority_phase", "`quoratectl ca status` shows where the rotation stands")
            }
        };
        Self::new(code, kind, refusal.to_string()).hint(hint)
    }
}

impl From<ProposeError> for Problem {
    fn from(error: ProposeError) -> Self {
        let message = error.to_string();
        match error {
            ProposeError::NoLeader => Self::new(Code::Unavailable, "no_leader", message)
                .hint("`quoratectl cluster status` shows which nodes are reachable"),
            ProposeError::Unknown => Self::new(Code::DeadlineExceeded, "unknown_outcome", message),
            ProposeError::Overloaded => Self::new(Code::Unavailable, "overloaded", message),
            ProposeError::DiskFull => Self::new(Code::ResourceExhausted, "disk_full", message)
                .hint("free some space on the disk of the data directory, on the leader first"),
            ProposeError::TooLarge { .. } => Self::new(Code::InvalidArgument, "too_large", message),
            ProposeError::Stopped => Self::new(Code::Unavailable, "stopping", message).hint("ask another node"),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let message = error.to_string();
        match error {
            ReadError::NoLeader => Self::new(Code::Unavailable, "no_leader", message)
                .hint("`quoratectl cluster status` shows which nodes are reachable"),
            ReadError::Behind => Self::new(Code::Unavailable, "behind", message).hint("ask another node"),
            ReadError::Snapshot(_) => Self::internal(message),
            ReadError::Stopped => Self::new(Code::Unavailable, "stopping", message).hint("ask another node"),
        }
    }
}

impl From<TransferError> for Problem {
    fn from(error: TransferError) -> Self {
        let message = error.to_string();
        match error {
            TransferError::NoLeader => Self::new(Code::Unavailable, "no_leader", message),
            TransferError::Refused(_) => Self::refused("transfer_refused", message),
            TransferError::TimedOut => Self::new(Code::DeadlineExceeded, "transfer_timed_out", message),
            TransferError::Stopped => Self::new(Code::Unavailable, "stopping", message).hint("ask another node"),
        }
    }
}

/// The revision of an outcome that is one.
///
/// # Errors
/// The refusal. That of an outdated request carries the cluster's time.
pub fn done(outcome: Outcome, wall: Wall) -> Result<u64, Problem> {
    match outcome {
        Outcome::Done { revision } | Outcome::Admitted { revision, .. } => Ok(revision),
        Outcome::Refused(refusal) => Err(refused(refusal, wall)),
    }
}

/// A refusal. That of an outdated request carries the cluster's time.
#[must_use]
pub fn refused(refusal: Refusal, wall: Wall) -> Problem {
    let outdated = refusal == Refusal::RequestOutdated;
    let problem = Problem::from(refusal);
    if outdated { problem.at(wall) } else { problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_the_problem() {
        let status = Status::from(refused(Refusal::RequestOutdated, Wall(77)));
        assert_eq!(status.code(), Code::FailedPrecondition);
        let problem = Message::decode(status.details()).unwrap();
        assert_eq!(problem.r#type, "outdated_request");
        assert_eq!(problem.cluster_wall_ms, 77);
        assert_eq!(problem.message, status.message());
    }
}
