//! Limits and the routes that name them.

use super::{Complaint, Findings, Whole, complaint};
use crate::resource::{
    Noun,
    document::{Authenticate, Limit, Per, Resource, Route, Scope},
};
use machine::{
    Name,
    limit::{Rate, Rule},
    resource::Kind,
};
use std::collections::BTreeSet;

/// A bucket that holds less than this of its rate's time is empty between two grants, so that less than the rate gets
/// through: the nodes report every 10 ms, and an answer takes its time.
const BURST_COVERS_US: u128 = 20_000;

impl Whole {
    pub(super) fn check_limits(&self, findings: &mut Findings) {
        let mut used: BTreeSet<&Name> = BTreeSet::new();
        for (name, route) in self.routes() {
            used.extend(&route.limits);
            self.check_limits_of(name, route, findings);
        }
        for (name, resource) in self.of_kind(Kind::Limit) {
            let Ok(Resource::Limit(limit)) = resource else { continue };
            if !used.contains(name) {
                findings.warning(Kind::Limit, name, "", "no route names it: it limits nothing".to_owned());
            }
            if let Some(message) = thin_burst(limit) {
                findings.warning(Kind::Limit, name, "burst", message);
            }
        }
    }

    fn check_limits_of(&self, name: &Name, route: &Route, findings: &mut Findings) {
        for (index, limit_name) in route.limits.iter().enumerate() {
            let field = format!("limits[{index}]");
            let mut wrong = |message: String| {
                findings.errors.push(Complaint {
                    other: Some((Noun::Document(Kind::Limit), limit_name.clone())),
                    ..complaint(Kind::Route, name, &field, message)
                });
            };
            let Some(limit) = self.documents.get(&(Kind::Limit, limit_name.clone())) else {
                wrong(format!("there is no limit {limit_name:?}"));
                continue;
            };
            let Ok(Resource::Limit(limit)) = limit else { continue };
            let needs_caller = limit.per.iter().find(|part| part.needs_caller());
            if let (Authenticate::Nobody, Some(part)) = (route.authenticate, needs_caller) {
                wrong(format!(
                    "the limit {limit_name:?} counts by {part}, which nobody has on an open route: count by {}, {} or a \
                     header, or let the route authenticate",
                    Per::Route,
                    Per::Ip
                ));
            }
            let most = limit.rule.burst();
            if route.cost > most {
                let what = if matches!(limit.rule, Rule::Rate(_)) { "burst" } else { "quota" };
                wrong(format!(
                    "a request costs {}, and the {what} of the limit {limit_name:?} is {most}: it would admit none",
                    route.cost
                ));
            }
        }
        if route.cost > 1 && route.limits.is_empty() {
            findings.warning(Kind::Route, name, "cost", "it means nothing on a route without limits".to_owned());
        }
    }
}

fn thin_burst(limit: &Limit) -> Option<String> {
    let (Rule::Rate(Rate { tokens, period_us, burst }), Scope::Cluster) = (&limit.rule, limit.scope) else {
        return None;
    };
    let enough = (u128::from(*tokens) * BURST_COVERS_US).div_ceil(u128::from(*period_us).max(1));
    let share = (100 * u128::from(*burst)).checked_div(enough).filter(|share| *share < 100)?;
    Some(format!(
        "a burst of {burst} is less than 20 ms of the rate: under full demand only about {share} % of the rate gets \
         through; with a burst of {enough} or more, all of it"
    ))
}
