//! From what the cluster holds to what answers a request: the table of routes, each with its policies and its upstream
//! at hand. Compiled anew only when a document or consumer changed; what did not change is taken over, so that upstream
//! connections and TLS settings outlive an edit elsewhere.
//!
//! A document that this release cannot read (a newer one wrote it) fails closed, and no further than it must: a route is
//! refused where it stands (503 `route-unavailable`), also if only its hosts and paths can be read; an upstream or limit
//! refuses the routes that use it; a policy refuses all routes that policies decide, because it could be a `forbid` for any of
//! them; the defaults refuse every route. [`Compiled::unreadable`] says which.

mod limit;
mod upstream;

pub(crate) use limit::CompiledLimit;
pub(crate) use upstream::{CompiledTarget, CompiledUpstream};

use super::{
    document::{Authenticate, Defaults, OnRevoke, PolicyMode, Resource, Route, WhenIsolated},
    policy::{self, ContextUse, Policy, Statement},
    read::{Path, Reader},
    table::{Found, Table},
    tree::{self, Value},
    whole,
};
use cedar_policy::{Entity, EntityUid, PolicySet, RestrictedExpression};
use http::Method;
use machine::{
    Name, Registry,
    resource::{Document, Kind},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

/// Everything that a worker needs to answer requests, beside the keys.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    /// The resources revision that this was compiled from.
    pub(crate) revision: u64,
    table: Table,
    pub(crate) routes: Vec<Arc<CompiledRoute>>,
    pub(crate) upstreams: Vec<Arc<CompiledUpstream>>,
    pub(crate) limits: Vec<Arc<CompiledLimit>>,
    policies: BTreeMap<Name, (u64, Arc<Policy>)>,
    defaults: Option<Defaults>,
    /// Documents that this release cannot read, and why.
    pub(crate) unreadable: Vec<String>,
    /// What the defaults say about a node without authority: it goes for what no route takes, too.
    pub(crate) serves_isolated: bool,
}

/// A route, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct CompiledRoute {
    pub(crate) name: Name,
    /// Its place in [`Compiled::routes`].
    pub(crate) index: usize,
    pub(crate) authenticate: Authenticate,
    pub(crate) guard: Guard,
    pub(crate) body_bytes_max: Option<u64>,
    pub(crate) response_timeout: Option<Duration>,
    /// Whether a node without authority serves it, by the state that it has.
    pub(crate) serves_isolated: bool,
    /// Whether what is in flight ends with its credential.
    pub(crate) cuts_on_revoke: bool,
    /// All of them must admit a request.
    pub(crate) limits: Vec<Arc<CompiledLimit>>,
    /// What a request takes of each.
    pub(crate) cost: u64,
    /// How long a request may wait for tokens.
    pub(crate) allowance_wait: Duration,
    /// Where it goes, or why it cannot.
    pub(crate) upstream: Result<Arc<CompiledUpstream>, Arc<str>>,
    pub(crate) uid: EntityUid,
    pub(crate) entity: Entity,
    /// What it was compiled from, and the revision of that.
    source: Source,
}

/// The revision of a route's document, and what it says.
type Source = (u64, Arc<Route>);

/// What decides whether an identified caller may.
#[derive(Clone)]
pub(crate) enum Guard {
    /// Whoever is identified may.
    Open,
    /// The policies that can apply to the route.
    Policies { set: Arc<PolicySet>, context: ContextUse },
}

impl Compiled {
    /// Compiles what the cluster holds; `before` lends what has not changed.
    pub(crate) fn new(registry: &Registry, before: &Self) -> Self {
        let mut unreadable = Vec::new();
        let defaults = defaults(registry, &mut unreadable);
        let policies = policies(registry, before, &mut unreadable);
        let upstreams = upstreams(registry, before, &mut unreadable);
        let limits = limits(registry, before, &mut unreadable);
        let by_name: HashMap<&Name, &Read<CompiledUpstream>> =
            upstreams.iter().map(|(name, upstream)| (name, upstream)).collect();
        let limits_by_name: HashMap<&Name, &Read<CompiledLimit>> =
            limits.iter().map(|(name, limit)| (name, limit)).collect();

        // A route that was fine before and has not changed is not read again; its policies are not looked for again unless
        // one of them, or what routes inherit, has changed. Of ten thousand routes an edit mostly touches one.
        let known: HashMap<&Name, &Arc<CompiledRoute>> =
            before.routes.iter().filter(|route| route.upstream.is_ok()).map(|route| (&route.name, route)).collect();
        let is_judged_as_before = defaults == before.defaults
            && policies.as_ref().is_some_and(|policies| {
                let revision = |(name, (revision, _)): (&Name, &(u64, _))| (name.clone(), *revision);
                policies.iter().map(revision).eq(before.policies.iter().map(revision))
            });
        let mut documents: Vec<(Name, Source, Option<Arc<str>>)> = Vec::new();
        let mut closed = 0;
        for (name, document) in registry.documents_of(Kind::Route) {
            if let Some(there) = known.get(name).filter(|there| there.source.0 == document.revision) {
                documents.push((name.clone(), there.source.clone(), None));
                continue;
            }
            match whole::stored(Kind::Route, name, document) {
                Ok(Resource::Route(route)) => {
                    documents.push((name.clone(), (document.revision, Arc::new(route)), None));
                }
                Ok(_) => {}
                Err(reason) => {
                    unreadable.push(format!("route {name}: {reason}"));
                    // First in the list: nothing vaguer may take its place.
                    if let Some(route) = place_of_unreadable(document) {
                        let source = (document.revision, Arc::new(route));
                        documents.insert(closed, (name.clone(), source, Some(reason.into())));
                        closed += 1;
                    }
                }
            }
        }

        let (table, _) = Table::build(documents.iter().map(|(_, (_, route), _)| &**route));
        let routes = documents
            .iter()
            .enumerate()
            .map(|(index, (name, source, refused))| {
                let route = &*source.1;
                let upstream = match (refused, &defaults, &policies, by_name.get(&route.upstream)) {
                    (Some(reason), ..) => Err(reason.clone()),
                    (None, None, ..) => Err("the defaults cannot be read".into()),
                    (None, Some(_), None, _) if is_judged(route) => Err("a policy cannot be read".into()),
                    (None, Some(_), _, Some(upstream)) => (*upstream).clone(),
                    (None, Some(_), _, None) => Err(format!("there is no upstream {:?}", route.upstream).into()),
                };
                let (upstream, limits) = match limits_of(route, &limits_by_name) {
                    Ok(limits) => (upstream, limits),
                    Err(reason) => (upstream.and(Err(reason)), Vec::new()),
                };
                let taken_over = known
                    .get(name)
                    .filter(|there| is_judged_as_before && refused.is_none() && there.source.0 == source.0);
                if let Some(there) = taken_over {
                    return Arc::new(CompiledRoute { index, upstream, limits, ..CompiledRoute::clone(there) });
                }
                let inherited = defaults.clone().unwrap_or_default();
                let statements =
                    policies.iter().flat_map(|policies| policies.values()).flat_map(|(_, one)| &one.statements);
                let mut compiled = compile_route(index, name, source, &inherited, upstream, statements);
                compiled.limits = limits;
                Arc::new(compiled)
            })
            .collect();
        Self {
            revision: registry.resources_revision,
            table,
            routes,
            upstreams: upstreams.iter().filter_map(|(_, upstream)| upstream.as_ref().ok().cloned()).collect(),
            limits: limits.iter().filter_map(|(_, limit)| limit.as_ref().ok().cloned()).collect(),
            policies: policies.unwrap_or_default(),
            serves_isolated: serves_isolated(None, &defaults.clone().unwrap_or_default()),
            defaults,
            unreadable,
        }
    }

    /// Finds the route of a request.
    pub(crate) fn find(&self, host: &str, path: &str, method: &Method) -> Found<'_> {
        self.table.find(host, path, method)
    }
}

fn defaults(registry: &Registry, unreadable: &mut Vec<String>) -> Option<Defaults> {
    let Some((name, document)) = registry.documents_of(Kind::Defaults).next() else {
        return Some(Defaults::default());
    };
    match whole::stored(Kind::Defaults, name, document) {
        Ok(Resource::Defaults(defaults)) => Some(defaults),
        Ok(_) => None,
        Err(reason) => {
            unreadable.push(format!("defaults: {reason}"));
            None
        }
    }
}

/// All policies, or none if one cannot be read.
fn policies(
    registry: &Registry,
    before: &Compiled,
    unreadable: &mut Vec<String>,
) -> Option<BTreeMap<Name, (u64, Arc<Policy>)>> {
    let mut policies = BTreeMap::new();
    let mut all_read = true;
    for (name, document) in registry.documents_of(Kind::Policy) {
        let taken_over = before.policies.get(name).filter(|(revision, _)| *revision == document.revision);
        if let Some(one) = taken_over {
            policies.insert(name.clone(), one.clone());
            continue;
        }
        let read = whole::stored(Kind::Policy, name, document).and_then(|resource| match resource {
            Resource::Policy(text) => Policy::read(name, &text)
                .map_err(|faults| faults.first().map(|fault| fault.message.clone()).unwrap_or_default()),
            _ => Err("it is no policy".to_owned()),
        });
        match read {
            Ok(policy) => drop(policies.insert(name.clone(), (document.revision, Arc::new(policy)))),
            Err(reason) => {
                unreadable.push(format!("policy {name}: {reason}"));
                all_read = false;
            }
        }
    }
    all_read.then_some(policies)
}

/// Something that routes need, or why this release cannot read it.
type Read<T> = Result<Arc<T>, Arc<str>>;

fn limits(registry: &Registry, before: &Compiled, unreadable: &mut Vec<String>) -> Vec<(Name, Read<CompiledLimit>)> {
    let known: HashMap<&Name, &Arc<CompiledLimit>> = before.limits.iter().map(|limit| (&limit.name, limit)).collect();
    registry
        .documents_of(Kind::Limit)
        .map(|(name, document)| {
            if let Some(limit) = known.get(name).filter(|limit| limit.revision == document.revision) {
                return (name.clone(), Ok(Arc::clone(limit)));
            }
            let compiled = whole::stored(Kind::Limit, name, document).and_then(|resource| match resource {
                Resource::Limit(limit) => Ok(Arc::new(CompiledLimit::new(name, document.revision, limit))),
                _ => Err("it is no limit".to_owned()),
            });
            let compiled = compiled.map_err(|reason| {
                unreadable.push(format!("limit {name}: {reason}"));
                format!("limit {name}: {reason}").into()
            });
            (name.clone(), compiled)
        })
        .collect()
}

/// The limits of a route, or why one of them cannot be had: then nothing passes.
fn limits_of(
    route: &Route,
    limits: &HashMap<&Name, &Read<CompiledLimit>>,
) -> Result<Vec<Arc<CompiledLimit>>, Arc<str>> {
    let one = |name: &Name| match limits.get(name) {
        Some(limit) => (*limit).clone(),
        None => Err(format!("there is no limit {name:?}").into()),
    };
    route.limits.iter().map(one).collect()
}

fn upstreams(
    registry: &Registry,
    before: &Compiled,
    unreadable: &mut Vec<String>,
) -> Vec<(Name, Read<CompiledUpstream>)> {
    let known: HashMap<&Name, &Arc<CompiledUpstream>> =
        before.upstreams.iter().map(|upstream| (&upstream.name, upstream)).collect();
    registry
        .documents_of(Kind::Upstream)
        .map(|(name, document)| {
            if let Some(upstream) = known.get(name).filter(|upstream| upstream.revision == document.revision) {
                return (name.clone(), Ok((*upstream).clone()));
            }
            let compiled = whole::stored(Kind::Upstream, name, document).and_then(|resource| match resource {
                Resource::Upstream(upstream) => CompiledUpstream::new(name, document.revision, &upstream),
                _ => Err("it is no upstream".to_owned()),
            });
            let compiled = compiled.map(Arc::new).map_err(|reason| {
                unreadable.push(format!("upstream {name}: {reason}"));
                format!("upstream {name}: {reason}").into()
            });
            (name.clone(), compiled)
        })
        .collect()
}

/// Where a route stands whose options this release does not know: its hosts, paths and methods alone, or its hosts and
/// paths for any method.
fn place_of_unreadable(document: &Document) -> Option<Route> {
    let json = serde_json::from_slice(&document.bytes).ok()?;
    let Value::Map(entries) = tree::from_json(json).value else { return None };
    [["hosts", "paths", "methods"].as_slice(), ["hosts", "paths"].as_slice()].into_iter().find_map(|kept| {
        let mut entries: Vec<_> = entries.iter().filter(|entry| kept.contains(&entry.key.as_str())).cloned().collect();
        let upstream = tree::from_json(serde_json::json!({"upstream": "unknown"}));
        if let Value::Map(upstream) = upstream.value {
            entries.extend(upstream);
        }
        let node = tree::Node { value: Value::Map(entries), spot: tree::Spot::default() };
        let mut reader = Reader::new("");
        match reader.resource(super::Noun::Document(Kind::Route), &node, node.spot, &Path::Root) {
            Some(Resource::Route(route)) => Some(route),
            _ => None,
        }
    })
}

/// What a route, or what no route takes, does without authority: deny, unless somebody said otherwise.
pub(super) fn serves_isolated(route: Option<&Route>, defaults: &Defaults) -> bool {
    let said = route.and_then(|route| route.when_isolated).or(defaults.when_isolated);
    said == Some(WhenIsolated::Serve)
}

fn is_judged(route: &Route) -> bool {
    route.policies == PolicyMode::On && route.authenticate != Authenticate::Nobody
}

fn compile_route<'p>(
    index: usize,
    name: &Name,
    source: &Source,
    defaults: &Defaults,
    mut upstream: Result<Arc<CompiledUpstream>, Arc<str>>,
    statements: impl Iterator<Item = &'p Statement>,
) -> CompiledRoute {
    let route = &*source.1;
    let uid = policy::route_uid(name.as_str());
    let guard = if is_judged(route) {
        let mut set = PolicySet::new();
        let mut context = ContextUse::Nothing;
        for statement in statements.filter(|statement| statement.scope.includes(name)) {
            context = context.max(statement.context);
            // Ids are made of names that are unique, so this cannot fail; if it did, a forbid could be lost.
            if let Err(error) = set.add(statement.cedar.clone()) {
                upstream = Err(error.to_string().into());
            }
        }
        Guard::Policies { set: Arc::new(set), context }
    } else {
        Guard::Open
    };
    CompiledRoute {
        name: name.clone(),
        index,
        authenticate: route.authenticate,
        guard,
        body_bytes_max: route.body_bytes_max.or(defaults.body_bytes_max),
        serves_isolated: serves_isolated(Some(route), defaults),
        cuts_on_revoke: route.on_revoke.or(defaults.on_revoke) != Some(OnRevoke::Finish),
        response_timeout: route.response_timeout.or(defaults.response_timeout).map(super::quantity::Span::duration),
        limits: Vec::new(),
        cost: route.cost,
        allowance_wait: defaults.allowance_wait.map_or(limit::ALLOWANCE_WAIT, super::quantity::Span::duration),
        upstream,
        entity: entity(uid.clone(), &route.attributes, HashSet::new()),
        uid,
        source: source.clone(),
    }
}

/// An entity with text attributes, as policies see it.
pub(crate) fn entity(uid: EntityUid, attributes: &BTreeMap<Name, String>, parents: HashSet<EntityUid>) -> Entity {
    let attributes = attributes
        .iter()
        .map(|(name, value)| (name.to_string(), RestrictedExpression::new_string(value.clone())))
        .collect();
    // Text cannot fail to evaluate; without its attributes an entity still is who it is.
    Entity::new(uid.clone(), attributes, parents.clone()).unwrap_or_else(|_| Entity::new_no_attrs(uid, parents))
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("Open"),
            Self::Policies { set, context } => write!(f, "Policies({}, {context:?})", set.num_of_policies()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource;
    use machine::resource::Change;

    fn registry(text: &str) -> Registry {
        let mut registry = Registry { resources_revision: 1, ..Registry::default() };
        let file = resource::parse("f", text).unwrap();
        for change in resource::plan(&registry, &file, false).unwrap().changes {
            if let Change::PutDocument { kind, name, bytes } = change {
                registry.documents.insert((kind, name), Document { bytes, revision: 1 });
            }
        }
        registry
    }

    fn put(registry: &mut Registry, kind: Kind, name: &str, json: &str) {
        registry.resources_revision += 1;
        let document = Document { bytes: json.as_bytes().into(), revision: registry.resources_revision };
        registry.documents.insert((kind, Name::new(name).unwrap()), document);
    }

    const TEXT: &str = "upstreams: {u: {targets: [http://a]}, v: {targets: [https://b]}}
routes:
  a: {paths: ['/a'], upstream: u}
  b: {paths: ['/b'], upstream: v, policies: off}
  all: {paths: ['/{*rest}'], upstream: u, authenticate: [none]}
policies:
  one: permit(principal, action, resource == Route::\"a\");
  any: forbid(principal, action, resource) when { context.path like \"/x*\" };
";

    fn state(compiled: &Compiled, path: &str) -> String {
        match compiled.find("", path, &Method::GET) {
            Found::Route(index) => {
                let route = &compiled.routes[index];
                assert_eq!(route.index, index);
                match &route.upstream {
                    Ok(upstream) => format!("{} to {} {:?}", route.name, upstream.name, route.guard),
                    Err(reason) => format!("{} refused: {reason}", route.name),
                }
            }
            Found::OtherMethods(_) => "other methods".to_owned(),
            Found::Nothing => "nothing".to_owned(),
        }
    }

    /// What is taken over from the compilation before makes no difference to what comes out, whatever was edited.
    #[test]
    fn an_edit_compiles_to_the_same_as_all_anew() {
        let mut registry = registry(TEXT);
        let route = |attributes: &str| {
            format!(r#"{{"paths":["/a"],"upstream":"u","authenticate":["api_key"],"attributes":{{{attributes}}}}}"#)
        };
        let edits: [(Kind, &str, String); 9] = [
            (Kind::Route, "a", route("")),
            (Kind::Route, "0", r#"{"paths":["/0"],"upstream":"v"}"#.to_owned()),
            (Kind::Policy, "any", r#""forbid(principal, action, resource == Route::\"b\");""#.to_owned()),
            (Kind::Policy, "new", r#""permit(principal, action, resource);""#.to_owned()),
            (Kind::Policy, "new", "7".to_owned()),
            (Kind::Policy, "new", r#""permit(principal, action, resource);""#.to_owned()),
            (Kind::Defaults, "defaults", r#"{"when_isolated":"serve"}"#.to_owned()),
            (Kind::Upstream, "u", r#"{"targets":["http://c"]}"#.to_owned()),
            (Kind::Upstream, "u", "7".to_owned()),
        ];
        let mut compiled = Compiled::new(&registry, &Compiled::default());
        for (kind, name, json) in edits {
            put(&mut registry, kind, name, &json);
            compiled = Compiled::new(&registry, &compiled);
            let anew = Compiled::new(&registry, &Compiled::default());
            let show = |compiled: &Compiled| {
                let one = |path: &&str| (state(compiled, path), compiled.serves_isolated);
                let isolated: Vec<bool> = compiled.routes.iter().map(|route| route.serves_isolated).collect();
                (["/0", "/a", "/b", "/c"].iter().map(one).collect::<Vec<_>>(), isolated)
            };
            assert_eq!(show(&compiled), show(&anew), "{kind:?} {name}");
        }
    }

    /// Run it by itself: `cargo test --release -p quorate --lib -- --ignored --nocapture routes_cost`.
    #[test]
    #[ignore = "it measures"]
    fn routes_cost_the_same_however_many_there_are() {
        const FINDS: usize = 200_000;
        /// Processor time of this thread, which others on the machine do not stretch.
        fn ran_ns() -> u64 {
            let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
            text.split(' ').next().unwrap().parse().unwrap()
        }
        println!("routes,find_ns,find_in_hosts_ns,compile_ms,edit_ms");
        for count in [10_u32, 100, 1_000, 10_000] {
            let mut registry = registry(
                "upstreams: {u: {targets: [http://a]}}\npolicies: {one: 'permit(principal, action, resource);'}",
            );
            for number in 0..count {
                let host =
                    if number % 2 == 0 { String::new() } else { format!(r#""hosts":["h{number}.example.com"],"#) };
                let path = format!("/service-{}/v1/items-{number}/{{id}}", number % 100);
                let json = format!(r#"{{{host}"paths":["{path}"],"upstream":"u"}}"#);
                put(&mut registry, Kind::Route, &format!("r{number:05}"), &json);
            }
            let start = ran_ns();
            let compiled = Compiled::new(&registry, &Compiled::default());
            let whole = ran_ns() - start;
            put(&mut registry, Kind::Route, "r00003", r#"{"paths":["/other"],"upstream":"u"}"#);
            let start = ran_ns();
            let compiled = Compiled::new(&registry, &compiled);
            let edit = ran_ns() - start;
            let wanted = |which: u32| -> Vec<(String, String)> {
                let turns =
                    (0..2_000).map(|turn: u32| (turn.wrapping_mul(2_654_435_761) % count / 2 * 2 + which) % count);
                turns
                    .filter(|number| *number != 3)
                    .map(|number| {
                        (format!("h{number}.example.com"), format!("/service-{}/v1/items-{number}/7", number % 100))
                    })
                    .collect()
            };
            let find = |wanted: &[(String, String)]| {
                // Linux adds up processor time in steps of milliseconds.
                let start = ran_ns();
                for (host, path) in wanted.iter().cycle().take(FINDS) {
                    assert!(matches!(compiled.find(host, path, &Method::GET), Found::Route(_)), "{host} {path}");
                }
                (ran_ns() - start) / FINDS as u64
            };
            let (any, hosts) = (find(&wanted(0)), find(&wanted(1)));
            println!("{count},{any},{hosts},{:.1},{:.1}", whole as f64 / 1e6, edit as f64 / 1e6);
        }
    }

    #[test]
    fn each_route_has_its_slice_of_the_policies() {
        let compiled = Compiled::new(&registry(TEXT), &Compiled::default());
        assert_eq!(state(&compiled, "/a"), "a to u Policies(2, Request)");
        assert_eq!(state(&compiled, "/b"), "b to v Open");
        assert_eq!(state(&compiled, "/c"), "all to u Open");
        assert_eq!(compiled.unreadable, Vec::<String>::new());
    }

    #[test]
    fn routes_know_their_limits_and_are_refused_without_them() {
        let text = TEXT.replace("upstream: v, policies: off}", "upstream: v, policies: off, limits: [y, x], cost: 3}");
        let limits = "limits: {x: {rate: 10/s, per: key}, y: {quota: 5/day, per: ip, scope: node, mode: shadow}}\n";
        let mut registry = registry(&format!("defaults: {{allowance_wait: 1s}}\n{limits}{text}"));
        for (change, json) in [
            ("x", r#"{"rate":"10/s","per":"key"}"#),
            ("y", r#"{"quota":"5/day","per":"ip","scope":"node","mode":"shadow"}"#),
        ] {
            put(&mut registry, Kind::Limit, change, json);
        }
        let before = Compiled::new(&registry, &Compiled::default());
        let route = before.routes.iter().find(|route| route.name.as_str() == "b").unwrap();
        let named: Vec<_> = route.limits.iter().map(|limit| (limit.name.as_str(), limit.is_enforced)).collect();
        assert_eq!(named, [("y", false), ("x", true)], "in the route's order");
        assert_eq!((route.cost, route.allowance_wait), (3, Duration::from_secs(1)));
        put(&mut registry, Kind::Limit, "y", r#"{"quota":"6/day","per":"ip","scope":"node"}"#);
        let after = Compiled::new(&registry, &before);
        assert!(Arc::ptr_eq(&after.limits[0], &before.limits[0]) && !Arc::ptr_eq(&after.limits[1], &before.limits[1]));
        put(&mut registry, Kind::Limit, "y", r#"{"quota":"6/day","per":"moon"}"#);
        let unread = Compiled::new(&registry, &after);
        assert!(state(&unread, "/b").starts_with("b refused: limit y:"), "{}", state(&unread, "/b"));
        assert!(unread.unreadable[0].starts_with("limit y:"));
        assert_eq!(state(&unread, "/c"), "all to u Open", "nothing else is");
        registry.documents.remove(&(Kind::Limit, Name::new("x").unwrap()));
        registry.documents.remove(&(Kind::Limit, Name::new("y").unwrap()));
        registry.resources_revision += 1;
        assert_eq!(state(&Compiled::new(&registry, &after), "/b"), "b refused: there is no limit \"y\"");
    }

    #[test]
    fn what_did_not_change_is_taken_over() {
        let mut registry = registry(TEXT);
        let before = Compiled::new(&registry, &Compiled::default());
        put(&mut registry, Kind::Upstream, "u", r#"{"targets":["http://c"]}"#);
        let after = Compiled::new(&registry, &before);
        let find = |compiled: &Compiled, name: &str| {
            compiled.upstreams.iter().find(|one| one.name.as_str() == name).cloned().unwrap()
        };
        assert!(!Arc::ptr_eq(&find(&before, "u"), &find(&after, "u")));
        assert!(Arc::ptr_eq(&find(&before, "v"), &find(&after, "v")));
        assert!(Arc::ptr_eq(&before.policies["one"].1, &after.policies["one"].1));
    }

    #[test]
    fn a_document_of_a_newer_release_fails_closed_where_it_stands() {
        let whole = registry(TEXT);

        let mut registry = whole.clone();
        put(&mut registry, Kind::Route, "b", r#"{"paths":["/b"],"methods":["GET"],"upstream":"v","quantum":true}"#);
        let compiled = Compiled::new(&registry, &Compiled::default());
        assert!(
            state(&compiled, "/b").starts_with("b refused: route.b.quantum: there is no such field"),
            "{}",
            state(&compiled, "/b")
        );
        assert_eq!(state(&compiled, "/a"), "a to u Policies(2, Request)");
        assert_eq!(compiled.unreadable.len(), 1);

        let mut registry = whole.clone();
        put(&mut registry, Kind::Upstream, "v", r#"{"targets":["quic://b"]}"#);
        let compiled = Compiled::new(&registry, &Compiled::default());
        assert!(state(&compiled, "/b").starts_with("b refused: upstream v"));
        assert_eq!(state(&compiled, "/c"), "all to u Open");

        let mut registry = whole.clone();
        put(&mut registry, Kind::Policy, "any", r#""forbid everything on sundays;""#);
        let compiled = Compiled::new(&registry, &Compiled::default());
        assert_eq!(state(&compiled, "/a"), "a refused: a policy cannot be read");
        assert_eq!(state(&compiled, "/b"), "b to v Open");

        let mut registry = whole;
        put(&mut registry, Kind::Defaults, "defaults", r#"{"gravity":"off"}"#);
        let compiled = Compiled::new(&registry, &Compiled::default());
        assert_eq!(state(&compiled, "/c"), "all refused: the defaults cannot be read");
    }
}
