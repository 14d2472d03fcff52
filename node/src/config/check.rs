//! `quorate check FILE`: says, without a cluster, whether a file is fit to be used. It tells by the content what kind of
//! file it is. What only a running cluster can say (whether a name that a file refers to exists there) is not checked.

use super::{ConfigError, parse, read, settle};
use crate::resource;
use std::{fmt, path::Path};

/// What a file that is in order turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Checked {
    /// Settings of a node.
    NodeSettings,
    /// A resource file with so many resources.
    Resources(usize),
}

/// What is wrong with a file: one line each, with its place.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong(pub Vec<String>);

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeSettings => f.write_str("node settings, in order"),
            Self::Resources(count) => write!(f, "a resource file with {count} resources, in order"),
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Checks a file.
///
/// # Errors
/// Everything that was found, with its place.
pub fn check(file: &Path) -> Result<Checked, Wrong> {
    let text = read(file).map_err(one)?;
    if is_toml(file, &text) { check_settings(file, &text) } else { check_resources(file, &text) }
}

/// By the name if that says so, else by whether it reads as TOML: a resource file never does.
fn is_toml(file: &Path, text: &str) -> bool {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => true,
        Some("yaml" | "yml" | "json") => false,
        _ => text.parse::<toml::Table>().is_ok(),
    }
}

fn check_settings(file: &Path, text: &str) -> Result<Checked, Wrong> {
    let settings = parse(file, text).and_then(settle).map_err(one)?;
    let clients = settings.gateway.tls.as_ref().and_then(|tls| tls.clients.as_ref());
    let missing: Vec<String> = settings
        .gateway
        .tls
        .iter()
        .flat_map(|tls| &tls.certificates)
        .flat_map(|files| [&files.certificate, &files.key])
        .map(|file| ("certificates", file))
        .chain(clients.iter().flat_map(|files| {
            let revoked = files.revoked.iter().map(|file| ("client_revoked", file));
            revoked.chain([("client_ca", &files.authorities)])
        }))
        .filter_map(|(setting, path)| {
            let error = std::fs::File::open(path).err()?;
            Some(format!("gateway_tls.{setting}: {}: {error}", path.display()))
        })
        .collect();
    if missing.is_empty() { Ok(Checked::NodeSettings) } else { Err(Wrong(missing)) }
}

fn check_resources(file: &Path, text: &str) -> Result<Checked, Wrong> {
    match resource::parse(&file.display().to_string(), text) {
        Ok(resources) => Ok(Checked::Resources(resources.len())),
        Err(places) => Err(Wrong(places.iter().map(ToString::to_string).collect())),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn one(error: ConfigError) -> Wrong {
    Wrong(vec![error.to_string()])
}
