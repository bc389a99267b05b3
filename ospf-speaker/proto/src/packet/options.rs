//! The Options field (RFC 2328 §A.2, RFC 3101, RFC 5250).

use std::fmt;

use serde::{Deserialize, Serialize};

/// The optional capabilities of a router or an LSA.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Options(pub u8);

impl Options {
    /// AS-external-LSAs are flooded (not a stub area).
    pub const E: Self = Self(0x02);
    /// In Hellos: the area is an NSSA. In type 7 LSAs: to be propagated.
    pub const N: Self = Self(0x08);
    /// Demand circuits (RFC 1793), which we do not support.
    pub const DC: Self = Self(0x20);
    /// Opaque LSAs are understood; only in Database Descriptions.
    pub const O: Self = Self(0x40);

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Options({:#04x})", self.0)
    }
}
