//! Versioned records: how anything typed becomes bytes, on disk and between nodes.
//!
//! A record is a version byte, a CRC-32 (little endian) of the version and the content, and the content in bincode.
//! bincode numbers fields and variants by position, so the types that are encoded are frozen: what changes gets a new
//! version, and `tests/frozen` holds bytes that must stay readable. openraft's types never meet bincode; `form` holds
//! our own shapes for them.

pub(crate) mod form;
#[cfg(test)]
mod frozen;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// The version that is written.
const VERSION: u8 = 1;

/// Version and checksum.
const HEAD_BYTES: usize = 5;

/// The most that one record may claim to hold: over the largest log entry, and a bound on what hostile bytes can make
/// a reader allocate.
pub const RECORD_BYTES_MAX: usize = 32 * 1024 * 1024;

const CONFIG: Configuration<LittleEndian, Varint, Limit<RECORD_BYTES_MAX>> =
    bincode::config::standard().with_limit::<RECORD_BYTES_MAX>();

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Fewer bytes than a record has at least.
    #[error("the record is cut short")]
    Short,
    /// Written by a release that is not known here.
    #[error("the record has version {found}, and this release reads version {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// The bytes are not those that were written.
    #[error("the record's checksum does not match")]
    Checksum,
    /// The content is not what was expected, or too large.
    #[error("the record's content: {0}")]
    Content(String),
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// Makes a record.
///
/// # Errors
/// [`CodecError::Content`] for what bincode cannot express, or what is larger than a record may be.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, CodecError> {
    let mut record = vec![VERSION, 0, 0, 0, 0];
    bincode::serde::encode_into_std_write(value, &mut record, CONFIG)
        .map_err(|error| CodecError::Content(error.to_string()))?;
    if record.len() > RECORD_BYTES_MAX {
        return Err(CodecError::Content(format!("{} bytes are more than a record may have", record.len())));
    }
    seal(&mut record);
    Ok(record.into())
}

/// Fills in the checksum.
fn seal(record: &mut [u8]) {
    let checksum = checksum(VERSION, record.get(HEAD_BYTES..).unwrap_or_default());
    if let Some(place) = record.get_mut(1..HEAD_BYTES) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
}

/// A record with this content, whatever it is.
#[cfg(feature = "fuzzing")]
pub(crate) fn record_of(content: &[u8]) -> Vec<u8> {
    let mut record = vec![VERSION, 0, 0, 0, 0];
    record.extend_from_slice(content);
    seal(&mut record);
    record
}

/// Reads a record, all of it.
///
/// # Errors
/// [`CodecError`]; hostile bytes end here too.
pub fn decode<T: DeserializeOwned>(record: &[u8]) -> Result<T, CodecError> {
    let (head, content) = record.split_at_checked(HEAD_BYTES).ok_or(CodecError::Short)?;
    let &[version, a, b, c, d] = head else { return Err(CodecError::Short) };
    if version != VERSION {
        return Err(CodecError::Version { found: version });
    }
    if u32::from_le_bytes([a, b, c, d]) != checksum(version, content) {
        return Err(CodecError::Checksum);
    }
    decode_plain(content)
}

/// Makes bytes without version and checksum: for keys, which must be the same bytes for ever and are covered by the
/// checksums of the files that hold them.
pub(crate) fn encode_plain<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(value, CONFIG).map_err(|error| CodecError::Content(error.to_string()))
}

/// Reads what [`encode_plain`] made.
pub(crate) fn decode_plain<T: DeserializeOwned>(content: &[u8]) -> Result<T, CodecError> {
    let (value, read) =
        bincode::serde::decode_from_slice(content, CONFIG).map_err(|error| CodecError::Content(error.to_string()))?;
    if read != content.len() {
        return Err(CodecError::Content(format!("{} bytes are left over", content.len().saturating_sub(read))));
    }
    Ok(value)
}

fn checksum(version: u8, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[version]);
    hasher.update(content);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_reads_back() {
        let record = encode(&(7_u64, "seven".to_owned())).unwrap();
        assert_eq!(decode::<(u64, String)>(&record), Ok((7, "seven".to_owned())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let record = encode(&vec![1_u64, 2, 3]).unwrap();
        assert_eq!(decode::<Vec<u64>>(&record[..4]), Err(CodecError::Short));
        let mut later = record.to_vec();
        later[0] = 9;
        assert_eq!(decode::<Vec<u64>>(&later), Err(CodecError::Version { found: 9 }));
        let mut flipped = record.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(decode::<Vec<u64>>(&flipped), Err(CodecError::Checksum));
        assert!(matches!(decode::<(Vec<u64>, u64)>(&record), Err(CodecError::Content(_))));
        assert!(matches!(decode::<u64>(&record), Err(CodecError::Content(_))));
    }

    #[test]
    fn a_claim_of_a_huge_list_allocates_nothing() {
        let mut content = encode_plain(&(u64::MAX / 2)).unwrap();
        content.extend([0; 16]);
        assert!(decode_plain::<Vec<u64>>(&content).is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<form::AppendForm>(&bytes);
            let _ = decode_plain::<form::EntryForm>(&bytes);
            let _ = decode_plain::<(machine::RecordKey, machine::Record)>(&bytes);
        }
    }
}
