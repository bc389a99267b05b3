//! What decides where a client lands, in one short text.

use serde::{Deserialize, Serialize};

/// A digest of everything that decides which real server of a service a client gets. Directors
/// whose digests are equal send every client to the same real server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceDigest(pub String);

impl std::fmt::Display for ServiceDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
