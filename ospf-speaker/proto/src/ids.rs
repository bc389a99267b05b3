//! Identifiers, each a type of its own: a router id is not an address, though both are dotted.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

macro_rules! dotted {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub Ipv4Addr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<Ipv4Addr> for $name {
            fn from(address: Ipv4Addr) -> Self {
                Self(address)
            }
        }
    };
}

dotted!(
    /// A router id (RFC 2328 §1.2).
    RouterId
);
dotted!(
    /// An area id (RFC 2328 §3).
    AreaId
);

/// An interface: its index into [`Config::interfaces`](crate::Config::interfaces).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InterfaceId(pub usize);

/// A neighbour of one interface: its source address on a broadcast network, its router id on a
/// point-to-point one (RFC 2328 §8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct NeighborId {
    pub(crate) interface: InterfaceId,
    pub(crate) key: Ipv4Addr,
}
