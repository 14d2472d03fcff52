//! A resource file, read: typed resources, and where in the text each of their fields stands.

use super::{
    Noun, Place,
    document::Resource,
    read::{POLICY_TEXT, Path, Reader},
    tree::{self, Spot},
};
use machine::Name;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

/// A resource file that has been read: every field known, every value in its range. References are not followed yet.
#[derive(Clone)]
pub struct ResourceFile {
    /// As the client named it.
    pub(crate) name: String,
    pub(crate) resources: BTreeMap<(Noun, Name), Resource>,
    spots: HashMap<String, Spot>,
    text: Arc<str>,
}

/// Reads a resource file, YAML or JSON.
///
/// # Errors
/// Every place that is wrong, as far as reading could go.
pub fn parse(file_name: &str, text: &str) -> Result<ResourceFile, Vec<Place>> {
    let root = tree::read(file_name, text).map_err(|place| vec![place])?;
    let mut reader = Reader::new(file_name);
    let resources = reader.file(&root);
    if !reader.places.is_empty() {
        reader.places.sort_by_key(|place| (place.line, place.column));
        return Err(reader.places);
    }
    let resources = resources.into_iter().map(|(noun, name, resource)| ((noun, name), resource)).collect();
    Ok(ResourceFile { name: file_name.to_owned(), resources, spots: reader.spots, text: Arc::from(text) })
}

impl ResourceFile {
    /// How many resources it names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether it names none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// The place of a field, or of what encloses it: `paths[1]` of a route, or an offset into the text of a policy.
    pub(crate) fn place(&self, noun: Noun, name: &Name, field: &str, offset: Option<usize>, message: String) -> Place {
        let whole = path_of(noun, name, field);
        let spot = match offset {
            Some(offset) => self.inside_policy(noun, name, offset),
            None => None,
        };
        let spot = spot.or_else(|| {
            let mut path = whole.as_str();
            loop {
                if let Some(spot) = self.spots.get(path) {
                    return Some(*spot);
                }
                path = path.get(..path.rfind(['.', '['])?)?;
            }
        });
        let spot = spot.unwrap_or_default();
        Place { file: self.name.clone(), line: spot.line, column: spot.column, field: whole, message }
    }

    /// Where a byte of a policy stands in the file. Exact where the file holds the text as it is (a block `|`, or a scalar
    /// of one line without escapes); else the beginning of the policy.
    fn inside_policy(&self, noun: Noun, name: &Name, offset: usize) -> Option<Spot> {
        let spot = *self.spots.get(&path_of(noun, name, POLICY_TEXT))?;
        let Some(Resource::Policy(policy)) = self.resources.get(&(noun, name.clone())) else { return Some(spot) };
        let before = policy.get(..offset.min(policy.len()))?;
        let line = before.matches('\n').count();
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let policy_line = policy.get(line_start..)?.lines().next().unwrap_or("");
        let line_number = spot.line.checked_add(u32::try_from(line).ok()?)?;
        let file_line = self.text.lines().nth(usize::try_from(line_number).ok()?.checked_sub(1)?)?;
        let Some(start) = file_line.find(policy_line.trim_end()) else { return Some(spot) };
        let start = file_line.get(..start)?.chars().count();
        let within = policy.get(line_start..offset.min(policy.len()))?.chars().count();
        Some(Spot { line: line_number, column: u32::try_from(start + within + 1).ok()?, offset: None })
    }
}

/// `routes.orders.paths[1]`.
pub(crate) fn path_of(noun: Noun, name: &Name, field: &str) -> String {
    let section = Path::Key(&Path::Root, noun.section());
    let resource = Path::Key(&section, name.as_str());
    let enclosing = if noun == Noun::Document(machine::resource::Kind::Defaults) { &section } else { &resource };
    if field.is_empty() { enclosing.to_string() } else { format!("{enclosing}.{field}") }
}

impl fmt::Debug for ResourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResourceFile({}, {} resources)", self.name, self.resources.len())
    }
}
