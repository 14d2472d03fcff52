//! Whether the caller may. Cedar decides by the policies that can apply to the route; nothing is permitted by default.
//! A decision that reads nothing of the request is remembered by this worker until a document or consumer changes.
//!
//! As Cedar defines it, a policy whose condition fails to evaluate (an attribute that is not there) does not apply; `has`
//! asks first. `explain` shows such failures.

use super::{
    identify::Caller,
    problem::{Problem, Refusal},
    worker::lock,
};
use crate::resource::{
    compile::{self, CompiledRoute, Guard},
    policy::{self, ContextUse},
};
use cedar_policy::{Authorizer, Context, Decision, Entities, PolicySet, Request, RestrictedExpression};
use http::Method;
use machine::{Name, key::Key};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex},
};

/// The stack of every thread that evaluates policies. One that is as deep as may be must be evaluated to its end: where Cedar finds no more
/// stack the policy does not apply, and if it forbids, that lets through. Address space alone, until it is used.
pub const STACK_BYTES: usize = 8 << 20;

/// Decisions that one worker remembers; beyond it, all are forgotten, which costs a few microseconds each.
const REMEMBERED_MAX: usize = 65_536;

/// What policies may read of a request as `context`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) scheme: &'a str,
    pub(crate) client: IpAddr,
}

/// Remembered decisions, by the name of the consumer.
#[derive(Default)]
pub(crate) struct Decisions {
    by_consumer: HashMap<Name, Vec<Remembered>>,
    count: usize,
}

struct Remembered {
    route: usize,
    method: Method,
    /// What the decision read.
    scopes: Option<Arc<BTreeSet<Name>>>,
    allowed: bool,
}

/// What Cedar said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) allowed: bool,
    /// The policies that decided.
    pub(crate) policies: Vec<String>,
    /// Policies that could not be evaluated.
    pub(crate) errors: Vec<String>,
}

/// Refuses a caller whom no policy permits, or one forbids.
pub(crate) fn authorize(
    decisions: &Mutex<Decisions>,
    route: &CompiledRoute,
    caller: &Caller,
    method: &Method,
    facts: &Facts<'_>,
) -> Result<(), Refusal> {
    let Guard::Policies { set, context } = &route.guard else { return Ok(()) };
    let scopes = if *context == ContextUse::Scopes { caller.key.scopes() } else { None };
    let may_remember = *context != ContextUse::Request;
    let remembered =
        may_remember.then(|| lock(decisions).recall(&caller.consumer.name, route.index, method, scopes)).flatten();
    let allowed = remembered.unwrap_or_else(|| {
        let allowed = decide(route, set, *context, caller, method, facts).allowed;
        if may_remember {
            lock(decisions).remember(&caller.consumer.name, route.index, method, scopes, allowed);
        }
        allowed
    });
    if allowed { Ok(()) } else { Err(Refusal::new(Problem::Forbidden, "not-permitted")) }
}

/// Asks Cedar.
pub(crate) fn decide(
    route: &CompiledRoute,
    set: &PolicySet,
    used: ContextUse,
    caller: &Caller,
    method: &Method,
    facts: &Facts<'_>,
) -> Verdict {
    if set.is_empty() {
        return Verdict::default();
    }
    let consumer = &caller.consumer;
    let principal = policy::consumer_uid(consumer.name.as_str());
    let roles: HashSet<_> = consumer.roles.iter().map(|role| policy::role_uid(role.as_str())).collect();
    let entities = [compile::entity(principal.clone(), &consumer.attributes, roles), route.entity.clone()];
    let asked = Entities::from_entities(entities, None).ok().zip(context_of(used, &caller.key, facts)).and_then(
        |(entities, context)| {
            let action = policy::action_uid(method.as_str());
            let request = Request::new(principal, action, route.uid.clone(), context, None).ok()?;
            Some((entities, request))
        },
    );
    // Names and text cannot fail to become entities; if they did, nothing would be permitted.
    let Some((entities, request)) = asked else { return Verdict::default() };
    let response = Authorizer::new().is_authorized(&request, set, &entities);
    let mut policies: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
    policies.sort();
    Verdict {
        allowed: response.decision() == Decision::Allow,
        policies,
        errors: response.diagnostics().errors().map(ToString::to_string).collect(),
    }
}

fn context_of(used: ContextUse, key: &Key, facts: &Facts<'_>) -> Option<Context> {
    let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
    let scopes = || {
        let names = key.scopes().into_iter().flat_map(|scopes| scopes.iter());
        ("scopes".to_owned(), RestrictedExpression::new_set(names.map(|name| text(name.as_str()))))
    };
    match used {
        ContextUse::Nothing => Some(Context::empty()),
        ContextUse::Scopes => Context::from_pairs([scopes()]).ok(),
        ContextUse::Request => Context::from_pairs([
            scopes(),
            ("key_id".to_owned(), text(&key.id.to_string())),
            ("host".to_owned(), text(facts.host)),
            ("path".to_owned(), text(facts.path)),
            ("scheme".to_owned(), text(facts.scheme)),
            ("client".to_owned(), RestrictedExpression::new_ip(facts.client.to_string())),
        ])
        .ok(),
    }
}

impl Decisions {
    fn recall(
        &self,
        consumer: &Name,
        route: usize,
        method: &Method,
        scopes: Option<&Arc<BTreeSet<Name>>>,
    ) -> Option<bool> {
        let known = self.by_consumer.get(consumer)?;
        known
            .iter()
            .find(|one| {
                one.route == route
                    && one.method == *method
                    && match (&one.scopes, scopes) {
                        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
                        (None, None) => true,
                        _ => false,
                    }
            })
            .map(|one| one.allowed)
    }

    fn remember(
        &mut self,
        consumer: &Name,
        route: usize,
        method: &Method,
        scopes: Option<&Arc<BTreeSet<Name>>>,
        allowed: bool,
    ) {
        if self.count >= REMEMBERED_MAX {
            self.by_consumer.clear();
            self.count = 0;
        }
        self.count += 1;
        let remembered = Remembered { route, method: method.clone(), scopes: scopes.cloned(), allowed };
        self.by_consumer.entry(consumer.clone()).or_default().push(remembered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{self, compile::Compiled, table::Found};
    use machine::{
        Registry, Wall,
        consumer::Consumer,
        key::{KeyFields, KeyId, KeyOrigin, Secret, SecretHash},
        resource::{Change, Document},
    };

    fn compiled(policies: &str) -> Compiled {
        let text = format!(
            "upstreams: {{u: {{targets: [http://a]}}}}
routes:
  a: {{paths: ['/a'], upstream: u, attributes: {{team: orders}}}}
  off: {{paths: ['/off'], upstream: u, policies: off}}
policies:
  p: |
    {}
",
            policies.replace('\n', "\n    ")
        );
        let mut registry = Registry::default();
        let file = resource::parse("f", &text).unwrap();
        for change in resource::plan(&registry, &file, false).unwrap().changes {
            if let Change::PutDocument { kind, name, bytes } = change {
                registry.documents.insert((kind, name), Document { bytes, revision: 1 });
            }
        }
        Compiled::new(&registry, &Compiled::default())
    }

    fn caller(name: &str, roles: &[&str], env: &str, scopes: &[&str]) -> Caller {
        let name = Name::new(name).unwrap();
        let names = |texts: &[&str]| texts.iter().map(|text| Name::new(text).unwrap()).collect::<BTreeSet<_>>();
        Caller {
            consumer: Arc::new(Consumer {
                name: name.clone(),
                roles: names(roles),
                attributes: [(Name::new("env").unwrap(), env.to_owned())].into(),
                enabled: true,
                revision: 1,
            }),
            key: Key::from(KeyFields {
                id: KeyId([0; 10]),
                consumer: name,
                label: None,
                scopes: (!scopes.is_empty()).then(|| Arc::new(names(scopes))),
                origin: KeyOrigin::Issued,
                current: Secret { hash: SecretHash([0; 32]), not_after: None },
                previous: None,
                created_at: Wall(0),
                revoked_at: None,
                revision: 1,
            }),
            shown: Secret { hash: SecretHash([0; 32]), not_after: None },
        }
    }

    struct Gate(Compiled, Mutex<Decisions>);

    impl Gate {
        fn new(policies: &str) -> Self {
            Self(compiled(policies), Mutex::default())
        }

        fn may(&self, caller: &Caller, method: &str, path: &str, client: &str) -> bool {
            let method: Method = method.parse().unwrap();
            let Found::Route(index) = self.0.find("", path, &method) else { panic!() };
            let facts = Facts { host: "h", path, scheme: "http", client: client.parse().unwrap() };
            authorize(&self.1, &self.0.routes[index], caller, &method, &facts).is_ok()
        }

        fn remembered(&self) -> usize {
            lock(&self.1).count
        }
    }

    #[test]
    fn roles_actions_and_attributes_decide() {
        let gate = Gate::new(
            "permit(principal in Role::\"reader\", action == Action::\"GET\", resource == Route::\"a\");
permit(principal, action, resource) when { principal.env == resource.team };
forbid(principal == Consumer::\"evil\", action, resource);",
        );
        let ip = "192.0.2.1";
        let reader = caller("acme", &["reader", "other"], "prod", &[]);
        assert!(gate.may(&reader, "GET", "/a", ip));
        assert!(!gate.may(&reader, "POST", "/a", ip));
        assert!(!gate.may(&caller("b", &[], "prod", &[]), "GET", "/a", ip));
        assert!(gate.may(&caller("c", &[], "orders", &[]), "DELETE", "/a", ip));
        assert!(!gate.may(&caller("evil", &["reader"], "orders", &[]), "GET", "/a", ip));
        assert!(gate.may(&caller("evil", &[], "", &[]), "GET", "/off", ip));
        assert_eq!(gate.remembered(), 5);
        assert!(gate.may(&reader, "GET", "/a", ip));
        assert!(!gate.may(&reader, "POST", "/a", ip));
        assert_eq!(gate.remembered(), 5);
    }

    #[test]
    fn nothing_is_permitted_by_default() {
        let gate = Gate::new("permit(principal, action, resource == Route::\"off\");");
        assert!(!gate.may(&caller("a", &["reader"], "x", &[]), "GET", "/a", "192.0.2.1"));
    }

    #[test]
    fn scopes_are_remembered_with_the_decision() {
        let gate = Gate::new("permit(principal, action, resource) when { context.scopes.contains(\"write\") };");
        let ip = "192.0.2.1";
        assert!(gate.may(&caller("a", &[], "", &["write", "x"]), "GET", "/a", ip));
        assert!(!gate.may(&caller("a", &[], "", &["read"]), "GET", "/a", ip));
        assert!(!gate.may(&caller("a", &[], "", &[]), "GET", "/a", ip));
        assert!(gate.may(&caller("a", &[], "", &["write", "x"]), "GET", "/a", ip));
        assert_eq!(gate.remembered(), 3);
    }

    #[test]
    fn what_reads_the_request_is_never_remembered() {
        let gate = Gate::new(
            "permit(principal, action, resource) when { context.client.isInRange(ip(\"192.0.2.0/24\")) && context.path == \"/a\" };",
        );
        let acme = caller("a", &[], "", &[]);
        assert!(gate.may(&acme, "GET", "/a", "192.0.2.1"));
        assert!(!gate.may(&acme, "GET", "/a", "192.0.3.1"));
        assert_eq!(gate.remembered(), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut decisions = Decisions::default();
        for number in 0..REMEMBERED_MAX + 10 {
            decisions.remember(&Name::new(&format!("c{number}")).unwrap(), 0, &Method::GET, None, true);
        }
        assert!(decisions.count <= REMEMBERED_MAX && decisions.by_consumer.len() <= REMEMBERED_MAX);
    }
}
