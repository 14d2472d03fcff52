//! Cedar policies: reading their text, and what can be known of them before any request comes. Evaluation is the
//! gateway's.
//!
//! The vocabulary: principal `Consumer::"name"`, in `Role::"name"`, with its attributes as text; action
//! `Action::"GET"`; resource `Route::"name"` with its attributes as text; context as [`ContextUse`] tells.

mod nesting;

use cedar_policy::{EntityId, EntityTypeName, EntityUid, PolicyId, PolicySet, ResourceConstraint, ffi::DetailedError};
use machine::Name;
use std::{str::FromStr, sync::LazyLock};

/// Statements of one document; each costs about a microsecond where it is evaluated.
const STATEMENTS_MAX: usize = 1_000;

/// For Cedar's parser, which takes some kilobytes a level of [`nesting::LEVELS_MAX`], and five times as many in a debug build.
const READING_STACK_BYTES: usize = 16 << 20;

/// A policy document that has been read.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) statements: Vec<Statement>,
}

/// One `permit` or `forbid`.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// Its id is the document's name, with `#n` if there are several.
    pub(crate) cedar: cedar_policy::Policy,
    pub(crate) scope: RouteScope,
    pub(crate) context: ContextUse,
}

/// Which routes a statement can apply to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RouteScope {
    Any,
    One(String),
    /// It names a resource that is no route.
    Never,
}

/// What a decision reads of the request beside who calls, the method and the route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ContextUse {
    /// Nothing: a decision can be remembered.
    #[default]
    Nothing,
    /// Only `context.scopes`: a decision can be remembered with them.
    Scopes,
    /// Something that differs between requests.
    Request,
}

/// Something wrong in the text of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Bytes from the beginning of the text.
    pub(crate) offset: Option<usize>,
    pub(crate) message: String,
}

/// A thing that a policy names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mention {
    Consumer(String),
    Role(String),
    Route(String),
    Action(String),
    /// Of a type that there is none of.
    Unknown(String),
}

impl Policy {
    /// # Errors
    /// Every fault that the parser could tell apart.
    pub(crate) fn read(name: &Name, text: &str) -> Result<Self, Vec<Fault>> {
        if let Some(offset) = nesting::too_deep(text) {
            let message = format!(
                "expressions lie in each other more than {} deep (every `&&` and `||` of a chain counts): divide the statement, or \
                 test membership of a set, as `[…].contains(…)` and `in`",
                nesting::LEVELS_MAX
            );
            return Err(vec![Fault { offset: Some(offset), message }]);
        }
        stacker::grow(READING_STACK_BYTES, || Self::parse(name, text))
    }

    fn parse(name: &Name, text: &str) -> Result<Self, Vec<Fault>> {
        let set = PolicySet::from_str(text).map_err(|errors| {
            let mut faults = Vec::new();
            gather(&DetailedError::from(&errors), &mut faults);
            faults
        })?;
        let fault = |message: &str| vec![Fault { offset: None, message: message.to_owned() }];
        if set.templates().next().is_some() {
            return Err(fault("templates (?principal, ?resource) have no meaning here: name what is meant"));
        }
        let mut policies: Vec<&cedar_policy::Policy> = set.policies().collect();
        if policies.is_empty() {
            return Err(fault("there is no permit or forbid in it"));
        }
        if policies.len() > STATEMENTS_MAX {
            return Err(fault("there are more than 1000 statements in it"));
        }
        // The parser numbers them in the order of the text: policy0, policy1, …
        let number = |policy: &&cedar_policy::Policy| {
            let id: &str = policy.id().as_ref();
            id.trim_start_matches("policy").parse::<usize>().unwrap_or(usize::MAX)
        };
        policies.sort_by_key(number);
        let alone = policies.len() == 1;
        let mut statements = Vec::with_capacity(policies.len());
        for (index, policy) in policies.into_iter().enumerate() {
            let id = if alone { name.to_string() } else { format!("{name}#{}", index + 1) };
            let json = policy.to_json().map_err(|error| fault(&error.to_string()))?;
            statements.push(Statement {
                scope: scope(&policy.resource_constraint()),
                context: context_use(&json),
                cedar: policy.new_id(PolicyId::new(id)),
            });
        }
        Ok(Self { statements })
    }

    /// What it names, each thing once.
    pub(crate) fn mentions(&self) -> Vec<Mention> {
        let mut mentions: Vec<Mention> = self
            .statements
            .iter()
            .flat_map(|statement| statement.cedar.entity_literals())
            .map(|uid| mention(&uid))
            .collect();
        mentions.sort();
        mentions.dedup();
        mentions
    }
}

impl RouteScope {
    pub(crate) fn includes(&self, route: &Name) -> bool {
        match self {
            Self::Any => true,
            Self::One(name) => name == route.as_str(),
            Self::Never => false,
        }
    }
}

impl Mention {
    /// As it stands in the text.
    pub(crate) fn literal(&self) -> String {
        match self {
            Self::Consumer(id) => format!("Consumer::{id:?}"),
            Self::Role(id) => format!("Role::{id:?}"),
            Self::Route(id) => format!("Route::{id:?}"),
            Self::Action(id) => format!("Action::{id:?}"),
            Self::Unknown(whole) => whole.clone(),
        }
    }
}

fn gather(error: &DetailedError, faults: &mut Vec<Fault>) {
    let message = match &error.help {
        Some(help) => format!("{} ({help})", error.message),
        None => error.message.clone(),
    };
    faults.push(Fault { offset: error.source_locations.first().map(|label| label.loc.start), message });
    for related in &error.related {
        gather(related, faults);
    }
}

fn scope(constraint: &ResourceConstraint) -> RouteScope {
    let is_route = |type_name: &EntityTypeName| *type_name == TYPES.route;
    let one = |uid: &EntityUid| {
        if is_route(uid.type_name()) { RouteScope::One(uid.id().unescaped().to_owned()) } else { RouteScope::Never }
    };
    match constraint {
        ResourceConstraint::Any => RouteScope::Any,
        // Routes have no parents, so `in` reaches the route itself alone.
        ResourceConstraint::In(uid) | ResourceConstraint::Eq(uid) => one(uid),
        ResourceConstraint::Is(type_name) if is_route(type_name) => RouteScope::Any,
        ResourceConstraint::IsIn(type_name, uid) if is_route(type_name) => one(uid),
        ResourceConstraint::Is(_) | ResourceConstraint::IsIn(..) => RouteScope::Never,
    }
}

/// Walks the policy's JSON form: `context.scopes` and `context has scopes` read the scopes, any other use of `context`
/// reads the request.
fn context_use(json: &serde_json::Value) -> ContextUse {
    match json {
        serde_json::Value::Object(fields) => {
            for operator in [".", "has"] {
                let Some(access) = fields.get(operator) else { continue };
                let of_context = access.pointer("/left/Var").and_then(serde_json::Value::as_str) == Some("context");
                let attribute = access.get("attr").and_then(serde_json::Value::as_str);
                if of_context && attribute == Some("scopes") {
                    return ContextUse::Scopes;
                }
            }
            if fields.get("Var").and_then(serde_json::Value::as_str) == Some("context") {
                return ContextUse::Request;
            }
            fields.values().map(context_use).max().unwrap_or_default()
        }
        serde_json::Value::Array(items) => items.iter().map(context_use).max().unwrap_or_default(),
        _ => ContextUse::Nothing,
    }
}

fn mention(uid: &EntityUid) -> Mention {
    let id = uid.id().unescaped().to_owned();
    let types = &*TYPES;
    match uid.type_name() {
        name if *name == types.consumer => Mention::Consumer(id),
        name if *name == types.role => Mention::Role(id),
        name if *name == types.route => Mention::Route(id),
        name if *name == types.action => Mention::Action(id),
        name => Mention::Unknown(format!("{name}::{id:?}")),
    }
}

struct Types {
    consumer: EntityTypeName,
    role: EntityTypeName,
    route: EntityTypeName,
    action: EntityTypeName,
}

#[expect(clippy::expect_used, reason = "four fixed words, which a test reads")]
static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let name = |text: &str| EntityTypeName::from_str(text).expect("an identifier");
    Types { consumer: name("Consumer"), role: name("Role"), route: name("Route"), action: name("Action") }
});

/// `Consumer::"name"`.
pub(crate) fn consumer_uid(name: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(TYPES.consumer.clone(), EntityId::new(name))
}

/// `Role::"name"`.
pub(crate) fn role_uid(name: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(TYPES.role.clone(), EntityId::new(name))
}

/// `Route::"name"`.
pub(crate) fn route_uid(name: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(TYPES.route.clone(), EntityId::new(name))
}

/// `Action::"GET"`.
pub(crate) fn action_uid(method: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(TYPES.action.clone(), EntityId::new(method))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cedar_policy::{Authorizer, Context, Entities, Request};

    fn read(text: &str) -> Result<Policy, Vec<Fault>> {
        Policy::read(&Name::new("p").unwrap(), text)
    }

    #[test]
    fn statements_are_named_in_the_order_of_the_text() {
        let many = (0..12)
            .map(|n| format!("permit(principal == Consumer::\"c{n}\", action, resource);\n"))
            .collect::<String>();
        let ids: Vec<String> = read(&many).unwrap().statements.iter().map(|one| one.cedar.id().to_string()).collect();
        assert_eq!(ids, (1..=12).map(|n| format!("p#{n}")).collect::<Vec<_>>());
        assert_eq!(read("permit(principal, action, resource);").unwrap().statements[0].cedar.id().to_string(), "p");
    }

    #[test]
    fn the_routes_of_a_statement_are_known() {
        for (resource, scope) in [
            ("resource", RouteScope::Any),
            ("resource is Route", RouteScope::Any),
            ("resource == Route::\"a\"", RouteScope::One("a".to_owned())),
            ("resource in Route::\"a\"", RouteScope::One("a".to_owned())),
            ("resource is Route in Route::\"a\"", RouteScope::One("a".to_owned())),
            ("resource == Consumer::\"a\"", RouteScope::Never),
            ("resource is Consumer", RouteScope::Never),
        ] {
            assert_eq!(read(&format!("permit(principal, action, {resource});")).unwrap().statements[0].scope, scope);
        }
    }

    #[test]
    fn what_is_read_of_the_context_is_known() {
        for (condition, used) in [
            ("principal.env == \"context\"", ContextUse::Nothing),
            ("context.scopes.contains(\"a\")", ContextUse::Scopes),
            ("context has scopes && context.scopes.containsAll([\"a\", \"b\"])", ContextUse::Scopes),
            ("context.path like \"/a/*\"", ContextUse::Request),
            ("context.scopes.contains(\"a\") || context.host == \"x\"", ContextUse::Request),
            ("context == {}", ContextUse::Request),
            ("[1, if context has path then 1 else 2].contains(2)", ContextUse::Request),
        ] {
            let text = format!("forbid(principal, action, resource) unless {{ {condition} }};");
            assert_eq!(read(&text).unwrap().statements[0].context, used, "{condition}");
        }
    }

    #[test]
    fn the_deepest_that_is_read_is_evaluated() {
        let thread = std::thread::Builder::new().stack_size(crate::gateway::STACK_BYTES);
        thread.spawn(evaluate_the_deepest).unwrap().join().unwrap();
    }

    fn evaluate_the_deepest() {
        let times = nesting::LEVELS_MAX - 5;
        for (open, middle, close) in [
            ("(", "true", ")"),
            ("[", "true", "].contains(true)"),
            ("{\"a\": ", "true", "}[\"a\"]"),
            ("if true then true else ", "true", ""),
            ("if ", "true", " then true else true"),
            ("", "true", " || context.b"),
            ("", "true", " && context.b"),
            ("", "true", " } when { true"),
            ("", "context", ".a"),
            ("!(", "true", ")"),
        ] {
            // Some of these have two levels in one.
            for times in [times, times / 2, times / 3] {
                let condition = format!("{}{middle}{}", open.repeat(times), close.repeat(times));
                let text = format!("permit(principal, action, resource) when {{ {condition} }};");
                let Ok(policy) = read(&text) else { continue };
                drop((policy.mentions(), policy.statements.clone()));
                let set = PolicySet::from_policies(policy.statements.into_iter().map(|one| one.cedar)).unwrap();
                let request =
                    Request::new(consumer_uid("c"), action_uid("GET"), route_uid("r"), Context::empty(), None);
                let response = Authorizer::new().is_authorized(&request.unwrap(), &set, &Entities::empty());
                let errors: Vec<String> = response.diagnostics().errors().map(ToString::to_string).collect();
                let is_bounded = errors.iter().any(|error| error.contains("recursion"));
                assert!(!is_bounded, "{open}{middle}{close} {times}: {errors:?}");
            }
            let condition = format!("{}{middle}{}", open.repeat(100_000), close.repeat(100_000));
            let faults = read(&format!("permit(principal, action, resource) when {{ {condition} }};")).unwrap_err();
            assert!(faults[0].message.contains("deep"), "{faults:?}");
        }
    }

    #[test]
    fn faults_have_offsets() {
        let text = "permit(principal, action, resource);\npermit(principal, action resource);\n";
        let faults = read(text).unwrap_err();
        assert_eq!(faults[0].offset, Some(text.rfind("resource").unwrap()), "{faults:?}");
        assert_eq!(read("").unwrap_err().len(), 1);
        assert_eq!(read("// nothing").unwrap_err().len(), 1);
        assert!(
            read("permit(principal == ?principal, action, resource);").unwrap_err()[0].message.contains("template")
        );
    }

    #[test]
    fn mentions_are_found_everywhere() {
        let text = "permit(principal in Role::\"r\", action in [Action::\"GET\", Action::\"PUT\"], resource == Route::\"a\")\
                    when { principal == Consumer::\"c\" || resource == Group::\"x\" };";
        let mentions = read(text).unwrap().mentions();
        let literals: Vec<String> = mentions.iter().map(Mention::literal).collect();
        assert_eq!(
            literals,
            ["Consumer::\"c\"", "Role::\"r\"", "Route::\"a\"", "Action::\"GET\"", "Action::\"PUT\"", "Group::\"x\""]
        );
    }
}
