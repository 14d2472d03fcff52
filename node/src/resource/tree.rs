//! A YAML or JSON text as a tree whose every node knows its line and column. What the nodes mean is decided by
//! [`super::read`]; only size, depth and syntax are judged here.

use super::Place;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};
use std::fmt;

/// The longest text that is read: what fits one command, twice over for comments and layout.
const TEXT_BYTES_MAX: usize = 2 * machine::cap::APPLY_BYTES_MAX;
/// A resource file is four levels deep; the rest is room for mistakes that deserve a better message.
const DEPTH_MAX: usize = 16;
/// Scalars, lists and maps of one text; a file of the largest size allowed has fewer.
const NODES_MAX: usize = 1_000_000;
/// Anchors are for a handful of shared lines; more is an attack on memory.
const ALIASES_MAX: usize = 1_000;
/// What all aliases together may repeat.
const ALIAS_NODES_MAX: usize = 50_000;

/// A position in the text, in characters from 1; zero where there is no text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) line: u32,
    pub(crate) column: u32,
    /// Bytes from the beginning of the text, if known.
    pub(crate) offset: Option<usize>,
}

/// A node and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) spot: Spot,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    /// A number that is not an `i64`, as it prints.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text; the same key may stand twice.
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_spot: Spot,
    pub(crate) value: Node,
}

impl Value {
    /// What the value is, for messages.
    pub(crate) const fn describe(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Integer(_) | Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Reads a text. YAML includes JSON.
///
/// # Errors
/// The first place where the text is not YAML, or what is too large.
pub(crate) fn read(file: &str, text: &str) -> Result<Node, Place> {
    let place =
        |line, column, message: String| Place { file: file.to_owned(), line, column, field: String::new(), message };
    if text.len() > TEXT_BYTES_MAX {
        return Err(place(0, 0, format!("the file has {} bytes: the most is {TEXT_BYTES_MAX}", text.len())));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_events: 4 * NODES_MAX,
            max_nodes: NODES_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_merge_keys: ALIASES_MAX,
            max_recorded_anchor_events: ALIAS_NODES_MAX,
            max_recorded_anchor_bytes: TEXT_BYTES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: ALIAS_NODES_MAX,
            max_replay_stack_depth: DEPTH_MAX,
        },
        // Doubles are reported with their field, together with other mistakes.
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        reject_unsupported_tags: true,
        emit_comments: false,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options) {
        Ok(root) => Ok(Node { spot: spot(root.referenced), value: root.value }),
        Err(error) => {
            let spot = error.location().map(spot).unwrap_or_default();
            Err(place(spot.line, spot.column, message(error.without_snippet())))
        }
    }
}

/// A stored document as a tree without places.
pub(crate) fn from_json(json: serde_json::Value) -> Node {
    let value = match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(truth) => Value::Bool(truth),
        serde_json::Value::Number(number) => {
            number.as_i64().map_or_else(|| Value::Number(number.to_string()), Value::Integer)
        }
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Array(items) => Value::List(items.into_iter().map(from_json).collect()),
        serde_json::Value::Object(fields) => Value::Map(
            fields
                .into_iter()
                .map(|(key, value)| Entry { key, key_spot: Spot::default(), value: from_json(value) })
                .collect(),
        ),
    };
    Node { value, spot: Spot::default() }
}

fn spot(location: Location) -> Spot {
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Spot {
        line: number(location.line()),
        column: number(location.column()),
        offset: location.span().byte_offset().and_then(|offset| usize::try_from(offset).ok()),
    }
}

fn message(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::{Error, budget::BudgetBreach};
    match error {
        Error::MultipleDocuments { .. } | Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            "a resource file is one document: what follows '---' is another".to_owned()
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => "is nested too deeply".to_owned(),
        Error::Budget { .. } => "is more than a resource file may hold".to_owned(),
        other => {
            // The parser ends its messages with ` at line L, column C`; the place says that already.
            let text = other.to_string();
            text.rsplit_once(" at line ").map_or(text.as_str(), |(before, _)| before).to_owned()
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }
    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or_else(|_| Value::Number(value.to_string()), Value::Integer))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or_else(|_| Value::Number(value.to_string()), Value::Integer))
    }
    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or_else(|_| Value::Number(value.to_string()), Value::Integer))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }
    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Value, E> {
        Err(E::custom("binary values have no meaning here"))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            list.push(Node { spot: spot(item.referenced), value: item.value });
        }
        Ok(Value::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<Value>>()? {
            let text = match key.value {
                Value::Text(text) | Value::Number(text) => text,
                Value::Integer(number) => number.to_string(),
                Value::Bool(truth) => truth.to_string(),
                Value::Null | Value::List(_) | Value::Map(_) => return Err(A::Error::custom("a key must be text")),
            };
            let value = entries.next_value::<Spanned<Value>>()?;
            map.push(Entry {
                key: text,
                key_spot: spot(key.referenced),
                value: Node { spot: spot(value.referenced), value: value.value },
            });
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(node: &Node, path: &str, out: &mut Vec<String>) {
        out.push(format!("{path} {}:{} {}", node.spot.line, node.spot.column, node.value.describe()));
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    places(
                        &entry.value,
                        &format!("{path}.{}@{}:{}", entry.key, entry.key_spot.line, entry.key_spot.column),
                        out,
                    );
                }
            }
            Value::List(items) => items.iter().for_each(|item| places(item, &format!("{path}[]"), out)),
            _ => {}
        }
    }

    #[test]
    fn every_node_knows_its_place() {
        let text =
            "routes:\n  orders: { paths: [\"/a\", '/ü', b], upstream: 7 }\npolicies:\n  p: |\n    permit\n  q: off\n";
        let mut out = Vec::new();
        places(&read("f", text).unwrap(), "", &mut out);
        assert_eq!(
            out,
            [
                " 1:1 a map",
                ".routes@1:1 2:3 a map",
                ".routes@1:1.orders@2:3 2:11 a map",
                ".routes@1:1.orders@2:3.paths@2:13 2:20 a list",
                ".routes@1:1.orders@2:3.paths@2:13[] 2:21 text",
                ".routes@1:1.orders@2:3.paths@2:13[] 2:27 text",
                ".routes@1:1.orders@2:3.paths@2:13[] 2:33 text",
                ".routes@1:1.orders@2:3.upstream@2:37 2:47 a number",
                ".policies@3:1 4:3 a map",
                ".policies@3:1.p@4:3 5:5 text",
                ".policies@3:1.q@6:3 6:6 text",
            ]
        );
    }

    #[test]
    fn json_is_yaml() {
        let node = read("f", "{\"a\": [1, true, null, \"x\\u00fc\\ud83d\\ude00\"]}").unwrap();
        let Value::Map(entries) = node.value else { panic!() };
        let Value::List(items) = &entries[0].value.value else { panic!() };
        assert!(matches!(&items[3].value, Value::Text(text) if text == "xü😀"));
    }

    #[test]
    fn syntax_errors_have_a_place() {
        for (text, line) in
            [("a: [1, 2\nb: 3\n", 2), ("a:\n  b: 1\n c: 2\n", 3), ("a: 1\n---\nb: 2\n", 2), ("a: *x\n", 1)]
        {
            let place = read("f", text).unwrap_err();
            assert_eq!(place.line, line, "{text:?}: {place}");
        }
    }

    #[test]
    fn hostile_texts_are_bounded() {
        let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (this, before) in ('b'..='j').zip('a'..) {
            bomb.push_str(&format!("{this}: &{this} [*{before},*{before},*{before},*{before},*{before},*{before},*{before},*{before},*{before}]\n"));
        }
        assert!(read("f", &bomb).is_err());
        assert!(read("f", &"[".repeat(100_000)).is_err());
        assert!(read("f", &"- ".repeat(100_000)).is_err());
        assert!(read("f", &" ".repeat(TEXT_BYTES_MAX + 1)).is_err());
        assert!(read("f", "a: !ruby/object 1").is_err());
    }
}
