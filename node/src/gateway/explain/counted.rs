//! Which limits would count an imagined request, and whom. What is left of them only the cluster knows, and it changes by
//! the millisecond: `limits usage` asks for that.

use crate::{
    gateway::identify::Caller,
    resource::{
        document::{Limit, Per, Resource, Route},
        subject::Part,
        whole,
    },
};
use machine::{Name, Registry, resource::Kind};

/// A limit that would count a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its name.
    pub limit: Name,
    /// Whom it counts, the parts in the order of `per`. What only a real request has stands in `<>`.
    pub subject: String,
    /// `consumer,route`.
    pub per: String,
    /// `100/s, burst 200`.
    pub rule: String,
    /// What the request takes of it.
    pub cost: u64,
    /// `enforce`, or `shadow`: it counts and never refuses.
    pub mode: &'static str,
    /// `cluster`, or `node`: each node counts by itself.
    pub scope: &'static str,
}

/// The limits of a route, in its order.
pub(super) fn counted(registry: &Registry, route_name: &Name, caller: Option<&Caller>) -> Vec<Counted> {
    let Some(route) = route_of(registry, route_name) else { return Vec::new() };
    let counts = |name: &Name| {
        let limit = limit_of(registry, name)?;
        let parts: Vec<String> = limit.per.iter().map(|per| part(per, route_name, caller)).collect();
        Some(Counted {
            limit: name.clone(),
            subject: parts.join(","),
            per: limit.per_text(),
            rule: limit.rule_text(),
            cost: route.cost,
            mode: limit.mode.as_str(),
            scope: limit.scope.as_str(),
        })
    };
    route.limits.iter().filter_map(counts).collect()
}

fn part(per: &Per, route: &Name, caller: Option<&Caller>) -> String {
    let known = match per {
        Per::Key => caller.map(|caller| Part::Key(caller.key.id)),
        Per::Consumer => caller.map(|caller| Part::Name(&caller.consumer.name)),
        Per::Route => Some(Part::Name(route)),
        Per::Ip | Per::Header(_) => None,
    };
    known.map_or_else(|| format!("<{per}>"), |part| part.to_string())
}

// A document that cannot be read closes its route, and that is explained before.
fn route_of(registry: &Registry, name: &Name) -> Option<Route> {
    match whole::stored(Kind::Route, name, registry.document(Kind::Route, name)?) {
        Ok(Resource::Route(route)) => Some(route),
        _ => None,
    }
}

fn limit_of(registry: &Registry, name: &Name) -> Option<Limit> {
    match whole::stored(Kind::Limit, name, registry.document(Kind::Limit, name)?) {
        Ok(Resource::Limit(limit)) => Some(limit),
        _ => None,
    }
}
