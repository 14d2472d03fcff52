//! The kinds of value that a setting can have, as people write them: `5s`, `64KiB`, `0.0.0.0:8080`. Each is read the
//! same way from the file, the environment and the command line. Which setting has which kind is in `written`.

use serde::{Deserialize, Deserializer, de};
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// A text that is not a value of the kind that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(String);

/// A length of time: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A number of bytes: a whole number, alone or with one of `KiB`, `MiB`, `GiB`, `KB`, `MB`, `GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// Where to listen: an IP address and a port, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// On this address.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

/// How others reach a listener: a host name or IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(pub String);

/// Network conditions between the nodes; sets heartbeats and election timeouts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timing {
    /// One site: round trips below some 10 ms.
    #[default]
    Lan,
    /// Several sites: round trips up to some 150 ms.
    Wan,
}

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// To standard output.
    #[default]
    Stdout,
    /// To a file, which is opened again on SIGHUP.
    File(PathBuf),
    /// Nowhere.
    Off,
}

/// Whether clients of the HTTPS listener need a certificate, where one can be judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Who has none is refused.
    #[default]
    Required,
    /// Who has none is served all the same.
    Optional,
}

/// The form of the node's own log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The files of one certificate: in the file a table with `certificate` and `key`, elsewhere `chain.pem:key.pem`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The certificate chain in PEM, leaf first.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

impl FromStr for Span {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let wrong = || {
            InvalidValue(format!("{text:?} is not a length of time: write a number and ms, s, m, h or d, as in \"5s\""))
        };
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let ms = match unit {
            "ms" => Some(number),
            "s" => number.checked_mul(1000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            "d" => number.checked_mul(86_400_000),
            _ => None,
        };
        Ok(Self(Duration::from_millis(ms.ok_or_else(wrong)?)))
    }
}

impl FromStr for Bytes {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let wrong = || {
            InvalidValue(format!(
                "{text:?} is not a size: write a number of bytes, or one with KiB, MiB or GiB, as in \"64KiB\""
            ))
        };
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let factor = match unit.trim_start() {
            "" => 1,
            "KB" => 1000,
            "MB" => 1000 * 1000,
            "GB" => 1000 * 1000 * 1000,
            "KiB" => 1024,
            "MiB" => 1024 * 1024,
            "GiB" => 1024 * 1024 * 1024,
            _ => return Err(wrong()),
        };
        Ok(Self(number.checked_mul(factor).ok_or_else(wrong)?))
    }
}

impl FromStr for Bind {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| {
            InvalidValue(format!(
                "{text:?} is not an address to listen on: write an IP address and a port, as in \"0.0.0.0:8080\" or \"[::]:8080\", or \"off\""
            ))
        })
    }
}

impl FromStr for Address {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let wrong = || {
            InvalidValue(format!(
                "{text:?} is not an address: write a host and a port, as in \"node1.example.com:7400\""
            ))
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let is_ipv6 = host.starts_with('[') && host.ends_with(']');
        let host_is_fine = !host.is_empty()
            && (is_ipv6 || !host.contains(':'))
            && host.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'@' | b'"'));
        if !host_is_fine || port == 0 || (is_ipv6 && text.parse::<SocketAddr>().is_err()) {
            return Err(wrong());
        }
        if text.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified()) {
            return Err(InvalidValue(format!(
                "{text:?} names every address of a machine, and nobody can dial that: write the one that others use"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Timing {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "lan" => Ok(Self::Lan),
            "wan" => Ok(Self::Wan),
            _ => Err(InvalidValue(format!("{text:?} is not a timing profile: there are \"lan\" and \"wan\""))),
        }
    }
}

impl FromStr for ClientCertificates {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "required" => Ok(Self::Required),
            "optional" => Ok(Self::Optional),
            _ => Err(InvalidValue(format!("{text:?} is neither \"required\" nor \"optional\""))),
        }
    }
}

impl FromStr for LogFormat {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(InvalidValue(format!("{text:?} is not a log format: there are \"text\" and \"json\""))),
        }
    }
}

impl FromStr for AccessLog {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "stdout" => Ok(Self::Stdout),
            "off" => Ok(Self::Off),
            path if path.contains('/') => Ok(Self::File(PathBuf::from(path))),
            _ => Err(InvalidValue(format!(
                "{text:?} is not a target of the access log: write \"stdout\", \"off\", or the path of a file with a '/' in it"
            ))),
        }
    }
}

impl FromStr for CertificateFiles {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let (certificate, key) = text
            .split_once(':')
            .filter(|(certificate, key)| !certificate.is_empty() && !key.is_empty())
            .ok_or_else(|| InvalidValue(format!("{text:?} does not name two files: write CERTIFICATE.pem:KEY.pem")))?;
        Ok(Self { certificate: PathBuf::from(certificate), key: PathBuf::from(key) })
    }
}

impl CertificateFiles {
    /// With paths that are relative taken from a folder.
    pub(super) fn resolve(&mut self, folder: &Path) {
        self.certificate = folder.join(&self.certificate);
        self.key = folder.join(&self.key);
    }
}

impl Timing {
    /// As settings name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Wan => "wan",
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

/// Reads a value from a text, wherever serde finds one.
macro_rules! deserialize_from_text {
    ($($kind:ty),*) => {$(
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}
deserialize_from_text!(Span, Bind, Address, Timing, LogFormat, AccessLog, ClientCertificates);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrNumber;
        impl de::Visitor<'_> for TextOrNumber {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size, as in \"64KiB\" or 65536")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Bytes, E> {
                u64::try_from(number).map(Bytes).map_err(|_| E::custom("a size cannot be negative"))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Bytes, E> {
                Ok(Bytes(number))
            }
        }
        deserializer.deserialize_any(TextOrNumber)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (text, ms) in
            [("0s", 0), ("250ms", 250), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000), ("30d", 2_592_000_000)]
        {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))), "{text}");
        }
        for text in ["", "5", "s", "5 s", "-1s", "1.5s", "5w", "99999999999999999999s", "999999999999999999d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("512", 512), ("64KiB", 65_536), ("1 MiB", 1_048_576), ("2GB", 2_000_000_000)] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "KiB", "1kb", "1.5MiB", "-1", "99999999999GiB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_that_others_dial() {
        for text in ["node1:7400", "10.0.0.1:7400", "[fd00::1]:7400", "a.b.example:1"] {
            assert_eq!(text.parse(), Ok(Address(text.to_owned())), "{text}");
        }
        for text in [
            "",
            "node1",
            "node1:",
            ":7400",
            "node1:0",
            "node1:70000",
            "0.0.0.0:7400",
            "[::]:7400",
            "fd00::1:7400",
            "a b:1",
            "http://a:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_to_listen_on() {
        assert_eq!("off".parse(), Ok(Bind::Off));
        assert!(matches!("[::]:80".parse(), Ok(Bind::At(_))));
        assert!("localhost:80".parse::<Bind>().is_err());
        assert!("8080".parse::<Bind>().is_err());
    }
}
