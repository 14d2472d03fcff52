//! Short ways into JSON answers.

pub use serde_json::{Value, json};

/// A field that must be a text.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field:?} in {value}"))
}

/// A field that must be a whole number.
pub fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no number {field:?} in {value}"))
}

/// A field that must be a list; or the value itself with an empty name.
pub fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    let list = if field.is_empty() { value } else { &value[field] };
    list.as_array().unwrap_or_else(|| panic!("no list {field:?} in {value}"))
}

/// The element of a list whose field has this value.
pub fn find<'a>(list: &'a [Value], field: &str, wanted: impl Into<Value>) -> Option<&'a Value> {
    let wanted = wanted.into();
    list.iter().find(|element| element[field] == wanted)
}
