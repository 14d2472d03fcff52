//! Contexts: which cluster, at which addresses, as which operator. Finds, reads and writes the files; connecting is
//! `client.rs`'s work.

use crate::exit::Failure;
use crate::file;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A context is a few certificates; anything larger is the wrong file.
const CONTEXT_BYTES_MAX: u64 = 1024 * 1024;
/// The context that is taken when none is named and there are several.
const DEFAULT_NAME: &str = "default";

/// A context as its file says it. Paths are relative to the file; each thing may instead be inline, as PEM.
#[derive(Default, Deserialize, Serialize)]
pub struct ContextFile {
    /// The cluster's id; for people.
    #[serde(default)]
    pub cluster: String,
    /// The operator's name; for people.
    #[serde(default)]
    pub operator: String,
    /// host:port of cluster listeners, tried in turn.
    pub endpoints: Vec<String>,
    /// A file with what the operator trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// A file with the operator's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// A file with the operator's private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// What the operator trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// The operator's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_pem: Option<String>,
    /// The operator's private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_pem: Option<String>,
}

/// A context, read and checked.
pub struct Context {
    /// Where it was read from.
    pub path: PathBuf,
    /// The cluster's id, empty if the file does not say.
    pub cluster: String,
    /// host:port of cluster listeners.
    pub endpoints: Vec<String>,
    /// The certificates that sign nodes.
    pub authorities: Vec<CertificateDer<'static>>,
    /// The operator's certificate and what is above it.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The operator's private key.
    pub key: PrivateKeyDer<'static>,
    authorities_path: Option<PathBuf>,
    authorities_pem: String,
}

/// What a new bundle of authorities does to the one in the context.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The bundle is trusted besides what is trusted already.
    Also,
    /// The bundle alone is trusted.
    Only,
}

impl Context {
    /// Finds and reads a context: a file, a name, or the one that there is.
    pub fn load(chosen: Option<&str>) -> Result<Self, Failure> {
        Self::read(&find(chosen, contexts_dir().as_deref())?)
    }

    /// Reads a context file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let (text, name) = file::read_text(path, CONTEXT_BYTES_MAX)?;
        let text = Zeroizing::new(text);
        // The parser's own error quotes the line, which may hold the key.
        let file: ContextFile = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(0, |span| text.get(..span.start).map_or(0, |s| s.matches('\n').count() + 1));
            Failure::usage(format!("{name}:{line}: {}", error.message()), "a context is a TOML file")
        })?;
        if file.endpoints.is_empty() {
            return Err(Failure::usage(format!("{name} names no endpoints"), "add endpoints = [\"host:port\"]"));
        }
        let base = path.parent().unwrap_or(Path::new(""));
        let authorities_path = file.ca.as_ref().filter(|_| file.ca_pem.is_none()).map(|ca| base.join(ca));
        let authorities_pem = pem(&name, "ca", base, file.ca_pem.map(Zeroizing::new), file.ca)?;
        let certificate_pem =
            pem(&name, "certificate", base, file.certificate_pem.map(Zeroizing::new), file.certificate)?;
        let key_pem = pem(&name, "key", base, file.key_pem.map(Zeroizing::new), file.key)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|_| Failure::usage(format!("the key of {name} is not a private key in PEM"), ""))?;
        Ok(Self {
            path: path.to_owned(),
            cluster: file.cluster,
            endpoints: file.endpoints,
            authorities: certificates(&name, "ca", &authorities_pem)?,
            certificates: certificates(&name, "certificate", &certificate_pem)?,
            key,
            authorities_path,
            authorities_pem: authorities_pem.to_string(),
        })
    }

    /// Writes what the cluster's nodes are to be trusted by into the context. Returns the file that was changed, or none
    /// if it said so already.
    pub fn trust(&self, bundle: &str, trust: Trust) -> Result<Option<PathBuf>, Failure> {
        let merged = merge(&self.authorities_pem, bundle, trust);
        if blocks(&merged).is_empty() {
            return Err(Failure::malformed("certificate authorities"));
        }
        if merged == self.authorities_pem {
            return Ok(None);
        }
        if let Some(path) = &self.authorities_path {
            file::replace(path, merged.as_bytes(), 0o644)?;
            return Ok(Some(path.clone()));
        }
        let (text, name) = file::read_text(&self.path, CONTEXT_BYTES_MAX)?;
        let text = Zeroizing::new(text);
        let mut table: toml::Table =
            toml::from_str(&text).map_err(|error| Failure::usage(format!("{name}: {}", error.message()), ""))?;
        table.insert("ca_pem".into(), toml::Value::String(merged));
        let text = toml::to_string_pretty(&table).map_err(|error| Failure::local(format!("{name}: {error}")))?;
        file::replace(&self.path, Zeroizing::new(text).as_bytes(), 0o600)?;
        Ok(Some(self.path.clone()))
    }
}

/// `$QUORATE_HOME/contexts`, or `~/.config/quorate/contexts`.
fn contexts_dir() -> Option<PathBuf> {
    let variable = |name: &str| -> Option<OsString> { std::env::var_os(name).filter(|value| !value.is_empty()) };
    let home = variable("QUORATE_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".config/quorate")))?;
    Some(home.join("contexts"))
}

/// Which file is meant. What has a slash or ends in `.toml` is a file, anything else a name.
fn find(chosen: Option<&str>, dir: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(chosen) = chosen.filter(|chosen| !chosen.is_empty()) {
        if chosen.contains('/') || chosen.ends_with(".toml") {
            return Ok(PathBuf::from(chosen));
        }
        let dir = dir.ok_or_else(|| Failure::usage("neither QUORATE_HOME nor HOME is set", "name a context file"))?;
        let path = dir.join(format!("{chosen}.toml"));
        if path.exists() {
            return Ok(path);
        }
        let there = names(dir);
        let hint = if there.is_empty() { "there are none".into() } else { format!("there are: {}", there.join(", ")) };
        return Err(Failure::usage(format!("no context `{chosen}` in {}", dir.display()), hint));
    }
    let hint = "name one with --context FILE or QUORATE_CONTEXT; `quorate init` and `quorate dev` write one";
    let Some(dir) = dir else { return Err(Failure::usage("no context is given", hint)) };
    match names(dir).as_slice() {
        [] => Err(Failure::usage(format!("no context is given and none is in {}", dir.display()), hint)),
        [only] => Ok(dir.join(format!("{only}.toml"))),
        several if several.iter().any(|name| name == DEFAULT_NAME) => Ok(dir.join(format!("{DEFAULT_NAME}.toml"))),
        several => Err(Failure::usage(
            "several contexts are there and none is given",
            format!("choose one with --context: {}", several.join(", ")),
        )),
    }
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".toml").map(str::to_owned))
        .collect();
    names.sort();
    names
}

fn pem(
    context: &str,
    what: &str,
    base: &Path,
    inline: Option<Zeroizing<String>>,
    path: Option<PathBuf>,
) -> Result<Zeroizing<String>, Failure> {
    match (inline, path) {
        (Some(text), _) => Ok(text),
        (None, Some(path)) => Ok(Zeroizing::new(file::read_text(&base.join(path), CONTEXT_BYTES_MAX)?.0)),
        (None, None) => Err(Failure::usage(format!("{context} has neither `{what}` nor `{what}_pem`"), "")),
    }
}

fn certificates(context: &str, what: &str, text: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let wrong = || Failure::usage(format!("`{what}` of {context} holds no certificate in PEM"), "");
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(|_| wrong())?;
    if found.is_empty() { Err(wrong()) } else { Ok(found) }
}

/// The certificates of a bundle, each with its text.
fn blocks(text: &str) -> Vec<(CertificateDer<'static>, String)> {
    const END: &str = "-----END CERTIFICATE-----";
    text.split_inclusive(END)
        .filter_map(|piece| {
            let block = piece.get(piece.find("-----BEGIN CERTIFICATE-----")?..)?;
            Some((CertificateDer::from_pem_slice(block.as_bytes()).ok()?, format!("{block}\n")))
        })
        .collect()
}

fn merge(trusted: &str, bundle: &str, trust: Trust) -> String {
    let mut kept: Vec<(CertificateDer<'static>, String)> = match trust {
        Trust::Also => blocks(trusted),
        Trust::Only => Vec::new(),
    };
    for (certificate, text) in blocks(bundle) {
        if !kept.iter().any(|(known, _)| *known == certificate) {
            kept.push((certificate, text));
        }
    }
    kept.into_iter().map(|(_, text)| text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn certificate(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        (made.cert.pem().replace("\r\n", "\n"), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_name_a_file_or_the_only_one() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!(find(Some("./x"), None).unwrap(), Path::new("./x"));
        assert_eq!(find(Some("x.toml"), None).unwrap(), Path::new("x.toml"));
        assert!(find(None, Some(dir)).unwrap_err().message.contains("none is in"));
        fs::write(dir.join("prod.toml"), "").unwrap();
        assert_eq!(find(None, Some(dir)).unwrap(), dir.join("prod.toml"));
        assert_eq!(find(Some("prod"), Some(dir)).unwrap(), dir.join("prod.toml"));
        assert_eq!(find(Some("test"), Some(dir)).unwrap_err().hint, "there are: prod");
        fs::write(dir.join("test.toml"), "").unwrap();
        assert!(find(None, Some(dir)).unwrap_err().hint.contains("prod, test"));
        fs::write(dir.join("default.toml"), "").unwrap();
        assert_eq!(find(None, Some(dir)).unwrap(), dir.join("default.toml"));
    }

    #[test]
    fn files_and_inline_texts_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, key) = certificate("ca");
        fs::write(dir.path().join("ca.pem"), &ca).unwrap();
        let path = dir.path().join("context.toml");
        let text = format!(
            "endpoints = ['a:1']\nca = 'ca.pem'\ncertificate_pem = '''\n{ca}'''\nkey_pem = '''\n{key}'''\nlater = 1\n"
        );
        fs::write(&path, text).unwrap();
        let context = Context::read(&path).unwrap();
        assert_eq!((context.authorities.len(), context.certificates.len()), (1, 1));
    }

    #[test]
    fn a_broken_context_says_where_and_never_shows_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("context.toml");
        fs::write(&path, "endpoints = ['a:1']\nkey_pem = 'SECRET\n").unwrap();
        let failure = Context::read(&path).err().unwrap();
        assert!(failure.message.contains("context.toml:2:"), "{}", failure.message);
        assert!(!failure.message.contains("SECRET"));
        fs::write(&path, "endpoints = []\n").unwrap();
        assert!(Context::read(&path).err().unwrap().message.contains("names no endpoints"));
        fs::write(&path, "endpoints = ['a:1']\n").unwrap();
        assert!(Context::read(&path).err().unwrap().message.contains("neither `ca` nor `ca_pem`"));
    }

    #[test]
    fn a_new_authority_is_added_and_an_old_one_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let (old, key) = certificate("old");
        let (new, _) = certificate("new");
        let inline = ContextFile {
            endpoints: vec!["a:1".into()],
            ca_pem: Some(old.clone()),
            certificate_pem: Some(old.clone()),
            key_pem: Some(key.clone()),
            ..ContextFile::default()
        };
        let path = dir.path().join("context.toml");
        fs::write(&path, toml::to_string_pretty(&inline).unwrap()).unwrap();
        assert_eq!(Context::read(&path).unwrap().trust(&old, Trust::Also).unwrap(), None);
        let both = format!("{old}{new}");
        assert_eq!(Context::read(&path).unwrap().trust(&both, Trust::Also).unwrap(), Some(path.clone()));
        assert_eq!(Context::read(&path).unwrap().authorities.len(), 2);
        Context::read(&path).unwrap().trust(&new, Trust::Only).unwrap();
        let context = Context::read(&path).unwrap();
        assert_eq!(context.authorities, certificates("", "", &new).unwrap());
        assert!(context.trust("nothing", Trust::Only).is_err());

        let ca = dir.path().join("ca.pem");
        fs::write(&ca, &old).unwrap();
        fs::write(dir.path().join("op.pem"), &old).unwrap();
        fs::write(dir.path().join("op.key"), &key).unwrap();
        let files = "endpoints = ['a:1']\nca = 'ca.pem'\ncertificate = 'op.pem'\nkey = 'op.key'\n";
        fs::write(&path, files).unwrap();
        assert_eq!(Context::read(&path).unwrap().trust(&new, Trust::Also).unwrap(), Some(ca));
        assert_eq!(fs::read_to_string(&path).unwrap(), files);
        assert_eq!(Context::read(&path).unwrap().authorities.len(), 2);
    }
}
