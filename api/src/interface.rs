//! An interface with OSPF on it, as the speaker shows it.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::auth::Algorithm;

/// An interface with OSPF on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Interface {
    /// The kernel's name of it.
    pub name: String,
    /// The address that it speaks from; nothing while it is down.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = "ipv4"))]
    pub address: Option<Ipv4Addr>,
    /// Whether it has no subnet of its own.
    pub unnumbered: bool,
    /// How its packets are authenticated.
    pub auth: Authentication,
    /// The packets that were refused for their authentication; nothing while none was.
    #[serde(default)]
    pub refused: Option<Refused>,
}

/// How the packets of an interface are authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Authentication {
    /// Not at all.
    None,
    /// By a password in the clear.
    Simple,
    /// By a digest.
    Cryptographic {
        /// The id of the key that packets are sent with.
        key_id: u8,
        /// Its algorithm.
        algorithm: Algorithm,
        /// How it stands to its lifetime.
        standing: Standing,
        /// The ids of the keys that are accepted.
        accepted: Vec<u8>,
    },
}

/// How a key in use stands to its lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Its time is now.
    Valid,
    /// Every key has expired, this one last; it stays in use (RFC 2328 §D.3).
    Expired,
    /// No key's time has come, this one's comes first: most likely the clock is wrong.
    Early,
}

/// Packets that were refused for their authentication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Refused {
    /// How many since the start.
    pub count: u64,
    /// The source of the last one.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "ipv4"))]
    pub address: Ipv4Addr,
    /// What was found in it in place of what.
    pub detail: String,
    /// The time since then, in milliseconds.
    pub ago_ms: u64,
}

/// After this an operator need not be told of the last packet that was refused.
const RECENT_MS: u64 = 5 * 60 * 1000;

impl Interface {
    /// What an operator should do something about, a sentence each.
    pub fn complaints(&self) -> Vec<String> {
        let name = &self.name;
        let mut complaints = Vec::new();
        if let Authentication::Cryptographic {
            key_id, standing, ..
        } = &self.auth
        {
            match standing {
                Standing::Valid => {}
                Standing::Expired => complaints.push(format!(
                    "authentication: every key on {name} has expired, key id {key_id} stays in use"
                )),
                Standing::Early => complaints.push(format!(
                    "authentication: no key on {name} is valid yet, key id {key_id} is in use; \
                     is the clock right?"
                )),
            }
        }
        if let Some(refused) = &self.refused
            && refused.ago_ms <= RECENT_MS
        {
            let Refused {
                address, detail, ..
            } = refused;
            complaints.push(format!("{detail} on {name} from {address}"));
        }
        complaints
    }
}

impl fmt::Display for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Simple => f.write_str("simple"),
            Self::Cryptographic {
                key_id, algorithm, ..
            } => write!(f, "{algorithm} key {key_id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_told_of_expired_keys_and_of_what_was_refused_lately() {
        let mut interface = Interface {
            name: "eth1".to_owned(),
            address: Some(Ipv4Addr::new(10, 0, 1, 2)),
            unnumbered: false,
            auth: Authentication::Cryptographic {
                key_id: 2,
                algorithm: Algorithm::HmacSha256,
                standing: Standing::Valid,
                accepted: vec![2],
            },
            refused: Some(Refused {
                count: 7,
                address: Ipv4Addr::new(10, 0, 1, 1),
                detail: "authentication: key id 3 unknown, ours: 2".to_owned(),
                ago_ms: 900,
            }),
        };
        assert_eq!(interface.auth.to_string(), "hmac-sha-256 key 2");
        assert_eq!(
            interface.complaints(),
            ["authentication: key id 3 unknown, ours: 2 on eth1 from 10.0.1.1"]
        );
        if let Some(refused) = &mut interface.refused {
            refused.ago_ms = RECENT_MS + 1;
        }
        assert_eq!(interface.complaints(), Vec::<String>::new());
        if let Authentication::Cryptographic { standing, .. } = &mut interface.auth {
            *standing = Standing::Expired;
        }
        let complaints = interface.complaints();
        assert!(
            complaints[0].contains("every key on eth1 has expired"),
            "{complaints:?}"
        );
    }
}
