//! `auth` of an `[[ospf.interface]]`: how its packets are authenticated (RFC 2328 §D, RFC 5709).
//!
//! One key that is valid for ever stands in the table itself, several in its list of `keys`:
//!
//! ```toml
//! auth = { algorithm = "hmac-sha-256", key_id = 1, key_file = "/etc/isopath/ospf.key" }
//!
//! auth = { keys = [
//!   { algorithm = "md5", key_id = 1, key_file = "/etc/isopath/ospf-1.key",
//!     send_until = "2027-01-01T00:00:00Z", accept_until = "2027-01-02T00:00:00Z" },
//!   { algorithm = "hmac-sha-256", key_id = 2, key_file = "/etc/isopath/ospf-2.key",
//!     send_from = "2027-01-01T00:00:00Z" },
//! ] }
//! ```

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::fault::Fault;

/// How the packets of an interface are authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "AuthTable")]
pub enum AuthConfig {
    /// `algorithm = "simple"`: a password in the clear (AuType 1).
    Simple {
        /// The file that holds the password, of at most 8 bytes.
        key_file: PathBuf,
    },
    /// A digest (AuType 2).
    Cryptographic {
        /// The keys; validation wants at least one, and each id once.
        keys: Vec<KeyConfig>,
    },
}

/// A key of cryptographic authentication.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its id (0 to 255; FRR and BIRD have none below 1).
    pub key_id: u8,
    /// The file that holds it.
    pub key_file: PathBuf,
    /// From when packets are sent with it; among several, the youngest is used.
    #[serde(default, deserialize_with = "time")]
    pub send_from: Option<Timestamp>,
    /// Until when packets are sent with it.
    #[serde(default, deserialize_with = "time")]
    pub send_until: Option<Timestamp>,
    /// From when packets with it are accepted.
    #[serde(default, deserialize_with = "time")]
    pub accept_from: Option<Timestamp>,
    /// Until when packets with it are accepted.
    #[serde(default, deserialize_with = "time")]
    pub accept_until: Option<Timestamp>,
}

/// An algorithm of cryptographic authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Algorithm {
    /// Keyed MD5 (RFC 2328 §D.3).
    #[serde(rename = "md5")]
    Md5,
    /// HMAC-SHA-1 (RFC 5709).
    #[serde(rename = "hmac-sha-1")]
    HmacSha1,
    /// HMAC-SHA-256.
    #[serde(rename = "hmac-sha-256")]
    HmacSha256,
    /// HMAC-SHA-384.
    #[serde(rename = "hmac-sha-384")]
    HmacSha384,
    /// HMAC-SHA-512.
    #[serde(rename = "hmac-sha-512")]
    HmacSha512,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 5] = [
        Self::Md5,
        Self::HmacSha1,
        Self::HmacSha256,
        Self::HmacSha384,
        Self::HmacSha512,
    ];

    /// Its name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::HmacSha1 => "hmac-sha-1",
            Self::HmacSha256 => "hmac-sha-256",
            Self::HmacSha384 => "hmac-sha-384",
            Self::HmacSha512 => "hmac-sha-512",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl AuthConfig {
    /// Adds what is wrong beyond the shape; `at` is the pointer of the `auth` table.
    pub(crate) fn validate(&self, at: &str, faults: &mut Vec<Fault>) {
        let Self::Cryptographic { keys } = self else {
            return;
        };
        if keys.is_empty() {
            faults.push(Fault::new(format!("{at}/keys"), "at least one key", "none"));
        }
        for (index, key) in keys.iter().enumerate() {
            let at = |name: &str| format!("{at}/keys/{index}/{name}");
            if keys[..index].iter().any(|other| other.key_id == key.key_id) {
                faults.push(Fault::new(
                    at("key_id"),
                    "each key id once",
                    format_args!("{} again", key.key_id),
                ));
            }
            for (name, from, until) in [
                ("send_until", key.send_from, key.send_until),
                ("accept_until", key.accept_from, key.accept_until),
            ] {
                if let (Some(from), Some(until)) = (from, until)
                    && until <= from
                {
                    let expected = format_args!("a time after {from}, when it begins");
                    faults.push(Fault::new(at(name), expected, until));
                }
            }
        }
    }
}

/// Reads a time as RFC 3339 writes it.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(|_| {
        D::Error::custom(format_args!(
            "expected a time such as \"2027-01-01T00:00:00Z\" (RFC 3339), found {text:?}"
        ))
    })
}

/// The table as it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthTable {
    algorithm: Option<String>,
    key_id: Option<u8>,
    key_file: Option<PathBuf>,
    keys: Option<Vec<KeyConfig>>,
}

impl TryFrom<AuthTable> for AuthConfig {
    type Error = AuthTableError;

    fn try_from(table: AuthTable) -> Result<Self, Self::Error> {
        match table {
            AuthTable {
                algorithm: None,
                key_id: None,
                key_file: None,
                keys: Some(keys),
            } => Ok(Self::Cryptographic { keys }),
            AuthTable { keys: Some(_), .. } => Err(AuthTableError::Both),
            AuthTable {
                algorithm: Some(algorithm),
                key_id,
                key_file: Some(key_file),
                keys: None,
            } => single(&algorithm, key_id, key_file),
            AuthTable {
                algorithm: None, ..
            } => Err(AuthTableError::Missing("algorithm")),
            AuthTable { key_file: None, .. } => Err(AuthTableError::Missing("key_file")),
        }
    }
}

fn single(
    algorithm: &str,
    key_id: Option<u8>,
    key_file: PathBuf,
) -> Result<AuthConfig, AuthTableError> {
    if algorithm == "simple" {
        return match key_id {
            None => Ok(AuthConfig::Simple { key_file }),
            Some(_) => Err(AuthTableError::SimpleWithId),
        };
    }
    let known = Algorithm::ALL.into_iter();
    let algorithm = known
        .into_iter()
        .find(|known| known.as_str() == algorithm)
        .ok_or_else(|| AuthTableError::Algorithm(algorithm.to_owned()))?;
    Ok(AuthConfig::Cryptographic {
        keys: vec![KeyConfig {
            algorithm,
            key_id: key_id.ok_or(AuthTableError::Missing("key_id"))?,
            key_file,
            send_from: None,
            send_until: None,
            accept_from: None,
            accept_until: None,
        }],
    })
}

/// An `auth` table that says nothing or two things at once.
#[derive(Debug, thiserror::Error)]
enum AuthTableError {
    #[error("expected `keys` alone in auth, found `algorithm`, `key_id` or `key_file` beside it")]
    Both,
    #[error("expected `{0}` in auth, or a list of `keys`, found neither")]
    Missing(&'static str),
    #[error(
        "expected no `key_id` with algorithm \"simple\", whose packets carry none, found `key_id`"
    )]
    SimpleWithId,
    #[error(
        "expected algorithm \"simple\", \"md5\", \"hmac-sha-1\", \"hmac-sha-256\", \
         \"hmac-sha-384\" or \"hmac-sha-512\", found {0:?}"
    )]
    Algorithm(String),
}

#[cfg(test)]
mod tests {
    use crate::config::DirectorFile;

    use super::*;

    const FILE: &str = "[director]
name = \"d1\"
router_id = \"10.0.1.2\"
[ospf]
[[ospf.interface]]
name = \"eth1\"
";

    fn parse(auth: &str) -> Result<AuthConfig, String> {
        let file = DirectorFile::parse("d1.toml", &format!("{FILE}auth = {auth}\n"));
        let mut file = file.map_err(|faults| faults.to_string())?;
        Ok(file.ospf.interface.remove(0).auth.unwrap())
    }

    #[test]
    fn one_key_stands_in_the_table_itself() {
        for algorithm in Algorithm::ALL {
            let text = format!("{{ algorithm = \"{algorithm}\", key_id = 7, key_file = \"/k\" }}");
            let Ok(AuthConfig::Cryptographic { keys }) = parse(&text) else {
                panic!("{text} is not read");
            };
            assert_eq!((keys[0].algorithm, keys[0].key_id), (algorithm, 7));
        }
        let simple = parse(r#"{ algorithm = "simple", key_file = "/k" }"#);
        let key_file = PathBuf::from("/k");
        assert_eq!(simple, Ok(AuthConfig::Simple { key_file }));
    }

    #[test]
    fn several_keys_have_their_lifetimes() {
        let text = r#"{ keys = [
            { algorithm = "md5", key_id = 1, key_file = "/1", send_until = "2027-01-01T00:00:00Z" },
            { algorithm = "hmac-sha-512", key_id = 2, key_file = "/2", send_from = "2027-01-01T01:00:00+01:00" },
        ] }"#;
        let Ok(AuthConfig::Cryptographic { keys }) = parse(text) else {
            panic!("{:?}", parse(text));
        };
        assert_eq!(keys[0].send_until, keys[1].send_from, "the same moment");
        assert_eq!(keys[0].accept_until, None);
    }

    #[test]
    fn each_fault_says_where_and_what_was_expected() {
        let key = |rest: &str| {
            format!(r#"{{ keys = [{{ algorithm = "md5", key_id = 1, key_file = "/1"{rest} }}] }}"#)
        };
        let cases = [
            ("{}".to_owned(), "expected `algorithm`"),
            ("{ keys = [] }".to_owned(), "at least one key"),
            (
                r#"{ algorithm = "sha-256", key_id = 1, key_file = "/k" }"#.to_owned(),
                "\"hmac-sha-256\"",
            ),
            (
                r#"{ algorithm = "md5", key_file = "/k" }"#.to_owned(),
                "expected `key_id`",
            ),
            (
                r#"{ algorithm = "md5", key_id = 256, key_file = "/k" }"#.to_owned(),
                "256",
            ),
            (
                r#"{ algorithm = "simple", key_id = 1, key_file = "/k" }"#.to_owned(),
                "no `key_id`",
            ),
            (
                r#"{ algorithm = "md5", keys = [] }"#.to_owned(),
                "`keys` alone",
            ),
            (
                r#"{ algorithm = "md5", key_id = 1, key = "secret" }"#.to_owned(),
                "unknown field `key`",
            ),
            (key(r#", send_until = "soon""#), "soon"),
            (
                key(
                    r#", accept_from = "2027-01-01T00:00:00Z", accept_until = "2026-01-01T00:00:00Z""#,
                ),
                "a time after 2027-01-01T00:00:00Z",
            ),
            (
                key(r#" }, { algorithm = "md5", key_id = 1, key_file = "/2""#),
                "each key id once, found 1 again",
            ),
        ];
        for (text, words) in cases {
            let faults = parse(&text).expect_err(&text);
            assert!(faults.starts_with("d1.toml:7:"), "{text}: {faults}");
            assert!(
                faults.contains(words),
                "{text}: {faults} does not say {words}"
            );
        }
    }
}
