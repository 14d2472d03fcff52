//! From a gRPC status to what it means for a command: a refusal that stands, or a reason to ask another node. The
//! texts for people come from the cluster's problem details where there are any.

use crate::exit::{Exit, Failure};
use prost::Message;
use proto::admin::Problem;
use std::error::Error;
use tonic::{Code, Status};

/// What a failed call means for the command.
#[derive(Debug)]
pub enum Verdict {
    /// The cluster has answered, and the answer stands.
    Final(Failure),
    /// The request is too old or too new for the cluster's clock, which this is.
    Outdated(Failure, u64),
    /// This node could not answer, another one may.
    Elsewhere {
        /// Why.
        failure: Failure,
        /// Whether the write may have happened all the same.
        doubt: bool,
        /// Whether the connection is to be given up.
        broken: bool,
    },
    /// This node does not accept the operator's certificate. Nothing has happened.
    Unwelcome(Failure),
}

/// Problems by which a node says that it cannot act now and that it has done nothing.
const NOTHING_DONE: [&str; 5] = ["no_leader", "overloaded", "stopping", "behind", "disk_full"];

/// What a status means.
pub fn verdict(status: &Status) -> Verdict {
    if let Some(alert) = certificate_refused(status) {
        return Verdict::Unwelcome(alert);
    }
    let problem = problem(status);
    let failure = failure(status);
    match &problem {
        Some(problem) if problem.r#type == "outdated_request" => {
            return Verdict::Outdated(failure, problem.cluster_wall_ms);
        }
        _ => {}
    }
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => {
            let kind = problem.as_ref().map_or("", |problem| problem.r#type.as_str());
            let broken = problem.is_none();
            Verdict::Elsewhere { failure, doubt: !NOTHING_DONE.contains(&kind), broken }
        }
        // Without the cluster's details these come from the connection: it broke while the answer was awaited.
        Code::Unknown | Code::Internal | Code::Cancelled if problem.is_none() => {
            Verdict::Elsewhere { failure, doubt: true, broken: true }
        }
        _ => Verdict::Final(failure),
    }
}

/// A status as a failure, whatever it means.
pub fn failure(status: &Status) -> Failure {
    let code = status.code();
    let problem = problem(status);
    let kind = match &problem {
        Some(problem) if !problem.r#type.is_empty() => problem.r#type.clone(),
        _ => kind_of(code).to_owned(),
    };
    let exit = exit_of(code, &kind);
    match problem {
        Some(problem) => {
            let message = if problem.message.is_empty() { status.message().to_owned() } else { problem.message };
            Failure { exit, kind, message, hint: problem.hint, places: problem.places }
        }
        None => {
            let message = if status.message().is_empty() { code.description() } else { status.message() };
            let hint = match code {
                Code::Unimplemented => "the node is older than this quoratectl, or newer: compare their versions",
                _ => "",
            };
            Failure::new(exit, &kind, message, hint)
        }
    }
}

fn problem(status: &Status) -> Option<Problem> {
    let details = status.details();
    if details.is_empty() {
        return None;
    }
    Problem::decode(details).ok().filter(|problem| !(problem.r#type.is_empty() && problem.message.is_empty()))
}

fn exit_of(code: Code, kind: &str) -> Exit {
    match code {
        Code::PermissionDenied | Code::Unauthenticated => Exit::NotPermitted,
        Code::Aborted | Code::AlreadyExists => Exit::Conflict,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Exit::Unreachable,
        _ => match kind {
            "conflict" | "already_exists" => Exit::Conflict,
            "not_permitted" => Exit::NotPermitted,
            "no_leader" => Exit::Unreachable,
            _ => Exit::Refused,
        },
    }
}

fn kind_of(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "invalid",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::Aborted => "conflict",
        Code::PermissionDenied => "not_permitted",
        Code::Unauthenticated => "unauthenticated",
        Code::Unavailable => "unavailable",
        Code::DeadlineExceeded | Code::Cancelled => "timed_out",
        Code::Unimplemented => "unsupported",
        Code::ResourceExhausted | Code::OutOfRange => "too_much",
        Code::FailedPrecondition => "refused",
        _ => "internal",
    }
}

/// A certificate is refused after this side's handshake is over: the answer to the first call is an alert. The alert is
/// buried in the library's errors; there is no other way to tell it from a broken connection.
pub fn certificate_refused(error: &(dyn Error + 'static)) -> Option<Failure> {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = io
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .or_else(|| error.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = tls {
            use rustls::AlertDescription as Alert;
            let why = match alert {
                Alert::CertificateExpired => "it has expired",
                Alert::CertificateRevoked => "it is revoked",
                Alert::UnknownCA => "its authority is not one of the cluster's",
                Alert::BadCertificate
                | Alert::CertificateUnknown
                | Alert::UnsupportedCertificate
                | Alert::AccessDenied
                | Alert::CertificateRequired
                | Alert::DecryptError => "the node does not accept it",
                _ => return None,
            };
            return Some(Failure::new(
                Exit::NotPermitted,
                "certificate_refused",
                format!("the cluster refuses this operator's certificate: {why}"),
                "an admin can make a new one: quoratectl operators create NAME --role ROLE",
            ));
        }
        next = match io {
            // The standard library's wrapper skips its inner error when asked for a source.
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::admin::Place;

    fn refused(code: Code, kind: &str) -> Status {
        let problem =
            Problem { r#type: kind.into(), message: "m".into(), hint: "h".into(), cluster_wall_ms: 9, places: vec![] };
        Status::with_details(code, "raw", problem.encode_to_vec().into())
    }

    #[test]
    fn every_code_has_its_exit() {
        for (code, exit) in [
            (Code::InvalidArgument, Exit::Refused),
            (Code::FailedPrecondition, Exit::Refused),
            (Code::ResourceExhausted, Exit::Refused),
            (Code::NotFound, Exit::Refused),
            (Code::Unimplemented, Exit::Refused),
            (Code::Unavailable, Exit::Unreachable),
            (Code::DeadlineExceeded, Exit::Unreachable),
            (Code::PermissionDenied, Exit::NotPermitted),
            (Code::Unauthenticated, Exit::NotPermitted),
            (Code::Aborted, Exit::Conflict),
            (Code::AlreadyExists, Exit::Conflict),
        ] {
            assert_eq!(failure(&Status::new(code, "")).exit, exit, "{code:?}");
        }
        assert_eq!(failure(&refused(Code::FailedPrecondition, "conflict")).exit, Exit::Conflict);
    }

    #[test]
    fn the_clusters_words_are_used() {
        let failure = failure(&refused(Code::NotFound, "not_found"));
        assert_eq!((failure.kind.as_str(), failure.message.as_str(), failure.hint.as_str()), ("not_found", "m", "h"));
    }

    #[test]
    fn places_survive() {
        let place = Place { file: "f".into(), line: 1, column: 2, field: "x".into(), message: "m".into() };
        let problem = Problem { r#type: "invalid".into(), places: vec![place.clone()], ..Problem::default() };
        let status = Status::with_details(Code::InvalidArgument, "raw", problem.encode_to_vec().into());
        let failure = failure(&status);
        assert_eq!((failure.message.as_str(), failure.places), ("raw", vec![place]));
    }

    #[test]
    fn only_what_certainly_did_nothing_leaves_no_doubt() {
        let doubt = |status: &Status| match verdict(status) {
            Verdict::Elsewhere { doubt, .. } => Some(doubt),
            _ => None,
        };
        assert_eq!(doubt(&refused(Code::Unavailable, "no_leader")), Some(false));
        assert_eq!(doubt(&refused(Code::Unavailable, "unknown")), Some(true));
        assert_eq!(doubt(&refused(Code::DeadlineExceeded, "timed_out")), Some(true));
        assert_eq!(doubt(&Status::unavailable("gone")), Some(true));
        assert_eq!(doubt(&Status::unknown("transport error")), Some(true));
        assert_eq!(doubt(&Status::not_found("x")), None);
        assert_eq!(doubt(&refused(Code::Internal, "internal")), None);
    }

    #[test]
    fn hostile_details_are_no_problem() {
        let status = Status::with_details(Code::NotFound, "raw", vec![0xff; 64].into());
        assert_eq!(failure(&status).message, "raw");
    }

    #[test]
    fn an_outdated_request_carries_the_clusters_clock() {
        let verdict = verdict(&refused(Code::FailedPrecondition, "outdated_request"));
        assert!(matches!(verdict, Verdict::Outdated(_, 9)), "{verdict:?}");
    }

    #[test]
    fn an_alert_about_the_certificate_is_found_wherever_it_is() {
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateExpired);
        let io = std::io::Error::new(std::io::ErrorKind::InvalidData, alert);
        let outer = std::io::Error::other(io);
        assert!(certificate_refused(&outer).is_some_and(|failure| failure.message.contains("expired")));
        assert!(certificate_refused(&std::io::Error::other("reset")).is_none());
    }
}
