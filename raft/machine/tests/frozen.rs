//! Frozen bytes: what this release writes to logs, checkpoints and snapshots, the next ones must read. Each file of
//! `tests/frozen/` is the hexadecimal of one value of `frozen/values.rs`; a test that goes red here means that nodes of two
//! releases would not understand each other. A new variant needs a new value: `UPDATE_GOLDEN=1` writes missing files and
//! never touches one that is there.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "frozen/values.rs"]
mod values;

use bincode::config::standard;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeSet, fmt::Debug, fs, path::PathBuf};

/// Checks values against their files.
struct Frozen {
    folder: PathBuf,
    seen: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Frozen {
    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(&mut self, name: &str, value: &T) {
        let file = format!("{name}.hex");
        let path = self.folder.join(&file);
        let bytes = bincode::serde::encode_to_vec(value, standard()).unwrap();
        assert!(self.seen.insert(file), "two values are called {name}");
        if !path.exists() && std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
            fs::write(&path, to_hex(&bytes)).unwrap();
        }
        let Ok(text) = fs::read_to_string(&path) else {
            self.wrong.push(format!("{name}: there is no {}", path.display()));
            return;
        };
        let frozen = from_hex(&text);
        match bincode::serde::decode_from_slice::<T, _>(&frozen, standard()) {
            Ok((read, length)) if read == *value && length == frozen.len() => {}
            Ok((read, _)) => self.wrong.push(format!("{name}: reads as {read:?}")),
            Err(error) => self.wrong.push(format!("{name}: cannot be read: {error}")),
        }
        if bytes != frozen {
            self.wrong.push(format!("{name}: is written as\n{}", to_hex(&bytes)));
        }
    }

    /// Checks one value of each variant of an enum, in order.
    fn check_variants<T: Serialize + DeserializeOwned + PartialEq + Debug>(&mut self, name: &str, values: &[T]) {
        for (number, value) in values.iter().enumerate() {
            let bytes = bincode::serde::encode_to_vec(value, standard()).unwrap();
            assert_eq!(bytes.first().copied(), u8::try_from(number).ok(), "{name}: {value:?} is not variant {number}");
            self.check(&format!("{name}-{number:02}"), value);
        }
        // The number after the last names no variant, so none was left out.
        let mut next = vec![u8::try_from(values.len()).unwrap()];
        next.extend([0; 1024]);
        let read = bincode::serde::decode_from_slice::<T, _>(&next, standard());
        let problem = read.map(drop).expect_err(&format!("{name}: a variant has no value here")).to_string();
        assert!(problem.contains("variant"), "{name}: a variant has no value here: {problem}");
    }
}

#[test]
fn bytes_stay_what_they_are() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/frozen");
    let mut frozen = Frozen { folder, seen: BTreeSet::new(), wrong: Vec::new() };
    frozen.check("entry", &values::entry());
    frozen.check_variants("actor", &values::actors());
    frozen.check_variants("precondition", &values::preconditions());
    frozen.check_variants("command", &values::commands());
    frozen.check_variants("change", &values::changes());
    frozen.check_variants("outcome", &values::outcomes());
    frozen.check_variants("refusal", &values::refusals());
    frozen.check_variants("noun", &values::nouns());
    frozen.check_variants("field", &values::fields());
    frozen.check_variants("kind", &values::kinds());
    frozen.check_variants("role", &values::roles());
    frozen.check_variants("standing", &values::standings());
    frozen.check_variants("phase", &values::phases());
    frozen.check_variants("key_origin", &values::key_origins());
    frozen.check_variants("record_key", &values::record_keys());
    frozen.check_variants("record", &values::records());
    frozen.check("record-quota_bucket", &values::quota_bucket());
    frozen.check_variants("rule", &values::rules());
    frozen.check_variants("window", &values::windows());
    frozen.check("answer", &values::answer());
    for entry in fs::read_dir(&frozen.folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".hex") && !frozen.seen.contains(&name) {
            frozen.wrong.push(format!("{name}: no value belongs to it; what was once written must still be read"));
        }
    }
    assert!(frozen.wrong.is_empty(), "\n{}", frozen.wrong.join("\n"));
}

fn to_hex(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
