//! What is left of a limit for one subject. Buckets live beside the registry, so this asks consensus and no View.

use super::{Admin, cluster::now, name, problem::Problem};
use crate::resource::{
    document::{Limit, Resource, Scope},
    subject::{self, Named, WrongSubject},
    whole,
};
use machine::{Name, Registry, allowance::BucketId, resource::Kind};
use proto::admin::{LimitUsageReply, LimitUsageRequest, Outstanding};

/// What people read in place of a subject.
const OVERFLOW: &str = "(overflow)";

impl Admin {
    pub(super) async fn usage(&self, request: LimitUsageRequest) -> Result<LimitUsageReply, Problem> {
        let name = name(&request.name)?;
        let view = self.read().await?;
        let limit = find(&view.registry, &name)?;
        let subject = bucket_of(&name, &limit, &request, &view.registry)?;
        let id = BucketId { limit: name.clone(), subject: subject.bytes.into() };
        let usage = self.raft().usage(&id).await?;
        if usage.limit_value == 0 {
            // Deleted since it was found.
            return Err(missing(&name));
        }
        let now = now(&view, self.raft());
        Ok(LimitUsageReply {
            limit: name.to_string(),
            subject: subject.text,
            rule: limit.rule_text(),
            mode: limit.mode.as_str().to_owned(),
            limit_value: usage.limit_value,
            available: usage.available,
            outstanding: usage.outstanding.into_iter().map(|(node, amount)| Outstanding { node, amount }).collect(),
            window_end_ms: usage.window_end.map(|end| end.0),
            reset_ms: usage.window_end.map(|end| end.0.saturating_sub(now.0)),
        })
    }
}

fn missing(name: &Name) -> Problem {
    Problem::not_found(format!("there is no limit {name:?}"))
}

pub(super) fn find(registry: &Registry, name: &Name) -> Result<Limit, Problem> {
    let document = registry.document(Kind::Limit, name).ok_or_else(|| missing(name))?;
    match whole::stored(Kind::Limit, name, document) {
        Ok(Resource::Limit(limit)) => Ok(limit),
        Ok(_) => Err(missing(name)),
        Err(reason) => Err(Problem::refused("unreadable", format!("this node cannot read the limit: {reason}"))
            .hint("a newer release wrote it: ask a node of that release")),
    }
}

/// Which bucket of a limit is meant.
pub(super) fn bucket_of(
    name: &Name,
    limit: &Limit,
    request: &LimitUsageRequest,
    registry: &Registry,
) -> Result<Named, Problem> {
    if limit.scope == Scope::Node {
        let message = format!("the limit {name:?} is local to each node (scope: node): the cluster does not count it");
        return Err(Problem::refused("local_limit", message).hint("each node's metrics say what it refused"));
    }
    if request.overflow {
        if limit.max_subjects.is_none() {
            return Err(Problem::invalid(format!(
                "the limit {name:?} has no max_subjects: everyone has a bucket of their own"
            )));
        }
        return Ok(Named { bytes: subject::OVERFLOW.to_vec(), text: OVERFLOW.to_owned() });
    }
    subject::read(limit, &request.subject, registry).map_err(|error| {
        let message = format!("limit {name:?}: {error}");
        match error {
            WrongSubject::Count { .. } | WrongSubject::Part(_) => Problem::invalid(message)
                .hint(format!("name the subject by its parts in this order: {}", limit.per_text())),
            WrongSubject::NotFound { .. } => Problem::not_found(message),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::{Wall, resource::Document};
    use tonic::{Code, Status};

    fn asked(json: &str, subject: &[&str], overflow: bool) -> Result<String, (Code, String)> {
        let mut registry = Registry::default();
        let name = Name::new("l").unwrap();
        let document = Document { bytes: json.as_bytes().into(), revision: 1 };
        registry.documents.insert((Kind::Limit, name.clone()), document);
        let subject = subject.iter().map(|part| (*part).to_owned()).collect();
        let request = LimitUsageRequest { name: "l".to_owned(), subject, overflow };
        find(&registry, &name)
            .and_then(|limit| bucket_of(&name, &limit, &request, &registry))
            .map(|named| named.text)
            .map_err(|problem| {
                let status = Status::from(problem.at(Wall(0)));
                (status.code(), status.message().to_owned())
            })
    }

    #[test]
    fn only_what_the_cluster_counts_is_told() {
        let ip = r#"{"rate":"5/s","per":"ip","max_subjects":10}"#;
        assert_eq!(asked(ip, &["::ffff:192.0.2.1"], false), Ok("192.0.2.1".to_owned()));
        assert_eq!(asked(ip, &[], true), Ok("(overflow)".to_owned()));
        for (json, subject, overflow, code, says) in [
            (
                r#"{"rate":"5/s","per":"ip","scope":"node"}"#,
                vec!["::1"],
                false,
                Code::FailedPrecondition,
                "local to each",
            ),
            (r#"{"rate":"5/s","per":"key"}"#, vec![], true, Code::InvalidArgument, "no max_subjects"),
            (r#"{"rate":"5/s","per":["route","key"]}"#, vec![], false, Code::InvalidArgument, "counts by route,key"),
            (r#"{"rate":"5/s","per":"route"}"#, vec!["r"], false, Code::NotFound, "there is no route"),
            (
                r#"{"rate":"5/s","per":"route","phase":"moon"}"#,
                vec!["r"],
                false,
                Code::FailedPrecondition,
                "cannot read",
            ),
        ] {
            let (actual, said) = asked(json, &subject, overflow).unwrap_err();
            assert_eq!(actual, code, "{said}");
            assert!(said.contains(says), "{said}");
        }
    }
}
