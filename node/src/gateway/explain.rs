//! What would become of a request, without sending it: the same stages in the same order, and what each of them saw.
//! For operators alone; it tells what clients must never learn.

mod counted;

pub use counted::Counted;

use super::{
    authorize,
    identify::{Caller, api_key},
    route,
};
use crate::resource::{
    compile::{Compiled, CompiledRoute, Guard},
    document::Authenticate,
    path,
    table::Found,
};
use http::{Method, Uri};
use machine::{Name, Registry, View, Wall, key::KeyId};
use std::{fmt, net::IpAddr};

/// A request that is only thought of.
#[derive(Clone, Copy, Debug)]
pub struct Imagined<'a> {
    /// What would be presented.
    pub credential: Presented<'a>,
    /// `GET`.
    pub method: &'a str,
    /// A whole URL, or a path.
    pub url: &'a str,
}

/// The credential of an imagined request.
#[derive(Clone, Copy)]
pub enum Presented<'a> {
    /// None.
    Nothing,
    /// A whole credential.
    Text(&'a str),
    /// The public part of a key, taken as if its newest secret had been shown.
    Id(KeyId),
}

/// What would become of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Whether it would be forwarded.
    pub allowed: bool,
    /// The stage that decides: `route`, `identify`, `authorize` or `forward`. What is left of a limit is not looked at.
    pub stage: &'static str,
    /// Why, for an operator.
    pub reason: String,
    /// The route that takes it.
    pub route: Option<Name>,
    /// Who calls.
    pub consumer: Option<Name>,
    /// The policies that decide.
    pub policies: Vec<String>,
    /// The limits that count it, if it comes so far.
    pub limits: Vec<Counted>,
    /// Where it would go.
    pub upstream: Option<Name>,
}

/// Says what would become of a request, without sending it. Its address is taken to be loopback.
#[must_use]
pub fn explain(registry: &Registry, now: Wall, request: &Imagined<'_>) -> Explanation {
    let compiled = Compiled::new(registry, &Compiled::default());
    let view = View { registry: registry.clone(), ..View::default() };
    let mut explanation = Explanation::default();
    match stages(&compiled, &view, now, request, &mut explanation) {
        Ok(reason) => {
            explanation.allowed = true;
            explanation.reason = reason;
        }
        Err(reason) => explanation.reason = reason,
    }
    explanation
}

fn stages(
    compiled: &Compiled,
    view: &View,
    now: Wall,
    request: &Imagined<'_>,
    explanation: &mut Explanation,
) -> Result<String, String> {
    explanation.stage = "route";
    let uri: Uri = request.url.parse().map_err(|error| format!("{:?} is not a URL: {error}", request.url))?;
    let method: Method = request.method.parse().map_err(|_| format!("{:?} is not a method", request.method))?;
    let host = match uri.authority() {
        Some(authority) => route::host_of(authority.as_str()).ok_or("the URL names no host")?.into_owned(),
        None => String::new(),
    };
    let path = path::canonical(uri.path()).map_err(|error| format!("400 bad-request: {error}"))?;
    let route = match compiled.find(&host, &path, &method) {
        Found::Route(index) => compiled.routes.get(index).ok_or("there is no such route")?,
        Found::OtherMethods(slot) => {
            let methods: Vec<&str> = slot.methods().map(Method::as_str).collect();
            return Err(format!("405 method-not-allowed: the path is there for {}", methods.join(", ")));
        }
        Found::Nothing => return Err(format!("404 no-route: no route takes {path:?} of the host {host:?}")),
    };
    explanation.route = Some(route.name.clone());
    let upstream = route.upstream.as_ref().map_err(|reason| format!("503 route-unavailable: {reason}"))?;
    explanation.upstream = Some(upstream.name.clone());

    explanation.stage = "identify";
    let caller = identify(route, view, now, request).map_err(|reason| format!("401 unauthenticated: {reason}"))?;
    explanation.consumer = caller.as_ref().map(|caller| caller.consumer.name.clone());

    explanation.stage = "authorize";
    let reason = match (&caller, &route.guard) {
        (None, _) => "the route is open".to_owned(),
        (Some(_), Guard::Open) => "the route leaves out policies".to_owned(),
        (Some(caller), Guard::Policies { set, context }) => {
            let scheme = uri.scheme_str().unwrap_or("http");
            let facts = authorize::Facts { host: &host, path: &path, scheme, client: IpAddr::from([127, 0, 0, 1]) };
            let verdict = authorize::decide(route, set, *context, caller, &method, &facts);
            explanation.policies.clone_from(&verdict.policies);
            let failures = if verdict.errors.is_empty() {
                String::new()
            } else {
                format!("; could not be evaluated: {}", verdict.errors.join("; "))
            };
            match (verdict.allowed, verdict.policies.is_empty()) {
                (true, _) => format!("permitted by {}{failures}", verdict.policies.join(", ")),
                (false, false) => return Err(format!("403 forbidden by {}{failures}", verdict.policies.join(", "))),
                (false, true) => return Err(format!("403 forbidden: no policy permits it{failures}")),
            }
        }
    };
    explanation.limits = counted::counted(&view.registry, &route.name, caller.as_ref());
    explanation.stage = "forward";
    Ok(reason)
}

fn identify(
    route: &CompiledRoute,
    view: &View,
    now: Wall,
    request: &Imagined<'_>,
) -> Result<Option<Caller>, &'static str> {
    match (route.authenticate, request.credential) {
        (Authenticate::Nobody, _) => Ok(None),
        (Authenticate::ApiKey, Presented::Nothing) => Err(api_key::reason::NONE),
        (Authenticate::ApiKey, Presented::Text(text)) => api_key::find(view, text, || now).map(Some),
        (Authenticate::ApiKey, Presented::Id(id)) => {
            let key = view.registry.keys.get(&id).ok_or(api_key::reason::UNKNOWN)?;
            api_key::check(view, key, None, || now).map(Some)
        }
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::Text(_) => f.write_str("Text(…)"),
            Self::Id(id) => write!(f, "Id({id})"),
        }
    }
}
