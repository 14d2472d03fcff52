//! Reading a tree: fields that are known, values that are what they must be, and every mistake with its place. What
//! fields there are is said by [`grammar`].

mod grammar;
mod limit;

use super::{
    Place,
    quantity::{self, Span},
    tree::{Entry, Node, Spot, Value},
};
use machine::Name;
use std::{collections::HashMap, fmt};

/// Mistakes of one file that are told at once.
const PLACES_MAX: usize = 100;
/// Targets of an upstream, hosts and paths of a route.
const LIST_MAX: usize = 256;
/// A day: longer waits are mistakes.
const TIMEOUT_MAX: Span = Span::from_ms(86_400_000);

/// The field under which the text of a policy has its spot: no name of a field holds a space.
pub(crate) const POLICY_TEXT: &str = "the text";

/// Where a field is: `routes.orders.paths[0]`.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(parent, key) => {
                if !matches!(parent, Self::Root) {
                    write!(f, "{parent}.")?;
                }
                if key.contains('.') { write!(f, "{key:?}") } else { f.write_str(key) }
            }
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Gathers what is wrong, and where every field stands.
pub(crate) struct Reader<'a> {
    file: &'a str,
    pub(crate) places: Vec<Place>,
    /// Where each field is, by its path: for what is found wrong only when the file is seen as a whole.
    pub(crate) spots: HashMap<String, Spot>,
}

/// The fields of a map whose keys have been checked.
struct Fields<'n>(&'n [Entry]);

impl<'n> Fields<'n> {
    fn get(&self, key: &str) -> Option<&'n Node> {
        self.0.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(file: &'a str) -> Self {
        Self { file, places: Vec::new(), spots: HashMap::new() }
    }

    pub(crate) fn wrong(&mut self, spot: Spot, path: &Path<'_>, message: impl Into<String>) {
        if self.places.len() < PLACES_MAX {
            self.places.push(Place {
                file: self.file.to_owned(),
                line: spot.line,
                column: spot.column,
                field: path.to_string(),
                message: message.into(),
            });
        }
    }

    fn note(&mut self, spot: Spot, path: &Path<'_>) {
        if spot.line > 0 {
            self.spots.insert(path.to_string(), spot);
        }
    }

    /// The entries of a map, none of them twice. Nothing at all counts as an empty map.
    fn entries<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> Option<&'n [Entry]> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            other => {
                self.wrong(node.spot, path, format!("must be a map, not {}", other.describe()));
                return None;
            }
        };
        let mut seen: HashMap<&str, Spot> = HashMap::new();
        for entry in entries {
            if let Some(first) = seen.insert(&entry.key, entry.key_spot) {
                self.wrong(
                    entry.key_spot,
                    &Path::Key(path, &entry.key),
                    format!("is there twice: first on line {}", first.line),
                );
            }
        }
        Some(entries)
    }

    fn fields<'n>(&mut self, node: &'n Node, path: &Path<'_>, known: &[&str]) -> Option<Fields<'n>> {
        let entries = self.entries(node, path)?;
        for entry in entries {
            let path = Path::Key(path, &entry.key);
            if !known.contains(&entry.key.as_str()) {
                self.wrong(entry.key_spot, &path, format!("there is no such field; there are {}", known.join(", ")));
            }
        }
        Some(Fields(entries))
    }

    fn field<T>(
        &mut self,
        fields: &Fields<'_>,
        path: &Path<'_>,
        key: &str,
        read: impl FnOnce(&mut Self, &Node, &Path<'_>) -> Option<T>,
    ) -> Option<T> {
        let node = fields.get(key)?;
        let path = Path::Key(path, key);
        self.note(node.spot, &path);
        read(self, node, &path)
    }

    fn required<T>(
        &mut self,
        fields: &Fields<'_>,
        whole: &Node,
        path: &Path<'_>,
        key: &str,
        read: impl FnOnce(&mut Self, &Node, &Path<'_>) -> Option<T>,
    ) -> Option<T> {
        if fields.get(key).is_none() {
            self.wrong(whole.spot, &Path::Key(path, key), "is missing");
        }
        self.field(fields, path, key, read)
    }

    fn not_yet(&mut self, fields: &Fields<'_>, path: &Path<'_>, key: &str, message: &str) {
        if let Some(node) = fields.get(key) {
            self.wrong(node.spot, &Path::Key(path, key), message);
        }
    }

    fn list<T>(
        &mut self,
        node: &Node,
        path: &Path<'_>,
        mut item: impl FnMut(&mut Self, &Node, &Path<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Value::List(items) = &node.value else {
            self.wrong(node.spot, path, format!("must be a list, not {}", node.value.describe()));
            return None;
        };
        if items.len() > LIST_MAX {
            self.wrong(node.spot, path, format!("{} are too many: the most is {LIST_MAX}", items.len()));
            return None;
        }
        let mut list = Vec::with_capacity(items.len());
        for (index, node) in items.iter().enumerate() {
            let path = Path::Item(path, index);
            self.note(node.spot, &path);
            list.extend(item(self, node, &path));
        }
        (list.len() == items.len()).then_some(list)
    }

    /// A list in which nothing stands twice; `describe` says what does.
    fn without_doubles<T: PartialEq>(
        &mut self,
        node: &Node,
        path: &Path<'_>,
        list: &[T],
        describe: impl Fn(&T) -> String,
    ) {
        let Value::List(nodes) = &node.value else { return };
        for (index, (item, node)) in list.iter().zip(nodes).enumerate() {
            if list.iter().take(index).any(|other| other == item) {
                self.wrong(node.spot, &Path::Item(path, index), format!("{} is there twice", describe(item)));
            }
        }
    }

    fn text<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            other @ (Value::Bool(_) | Value::Integer(_) | Value::Number(_)) => {
                self.wrong(node.spot, path, format!("must be text, not {}: put it in quotes", other.describe()));
                None
            }
            other => {
                self.wrong(node.spot, path, format!("must be text, not {}", other.describe()));
                None
            }
        }
    }

    fn parsed<T>(&mut self, node: &Node, path: &Path<'_>, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match read(self.text(node, path)?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.wrong(node.spot, path, message);
                None
            }
        }
    }

    fn name(&mut self, node: &Node, path: &Path<'_>) -> Option<Name> {
        self.parsed(node, path, |text| Name::new(text).map_err(|error| error.to_string()))
    }

    fn integer(&mut self, node: &Node, path: &Path<'_>) -> Option<i64> {
        if let Value::Integer(number) = node.value {
            return Some(number);
        }
        self.wrong(node.spot, path, format!("must be a whole number, not {}", node.value.describe()));
        None
    }

    fn timeout(&mut self, node: &Node, path: &Path<'_>) -> Option<Span> {
        self.parsed(node, path, |text| {
            let span = Span::read(text)?;
            if span < Span::from_ms(1) || span > TIMEOUT_MAX {
                Err(format!("must be from 1ms to {TIMEOUT_MAX}"))
            } else {
                Ok(span)
            }
        })
    }

    fn bytes(&mut self, node: &Node, path: &Path<'_>) -> Option<u64> {
        match &node.value {
            Value::Integer(number) => {
                let number = u64::try_from(*number).ok();
                if number.is_none() {
                    self.wrong(node.spot, path, "must not be negative");
                }
                number
            }
            _ => self.parsed(node, path, quantity::read_bytes),
        }
    }

    fn one_of<T: Copy>(&mut self, node: &Node, path: &Path<'_>, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, path)?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.wrong(node.spot, path, format!("must be {}, not {text:?}", names.join(" or ")));
        }
        found
    }
}
