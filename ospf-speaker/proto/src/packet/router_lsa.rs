//! The body of a Router-LSA (RFC 2328 §A.4.2).

use std::net::Ipv4Addr;

/// One link of a Router-LSA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouterLink {
    /// What the link connects to.
    pub kind: LinkKind,
    /// Link ID: whom or what the link connects to.
    pub id: Ipv4Addr,
    /// Link Data: our address, or the mask of a stub network.
    pub data: Ipv4Addr,
    /// The cost of using the link.
    pub metric: u16,
}

/// The type of a router link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// 1: to another router, point-to-point.
    PointToPoint,
    /// 2: to a transit network.
    Transit,
    /// 3: to a stub network.
    Stub,
    /// 4: a virtual link.
    Virtual,
    /// Any other.
    Unknown(u8),
}

impl From<u8> for LinkKind {
    fn from(kind: u8) -> Self {
        match kind {
            1 => Self::PointToPoint,
            2 => Self::Transit,
            3 => Self::Stub,
            4 => Self::Virtual,
            other => Self::Unknown(other),
        }
    }
}

impl From<LinkKind> for u8 {
    fn from(kind: LinkKind) -> Self {
        match kind {
            LinkKind::PointToPoint => 1,
            LinkKind::Transit => 2,
            LinkKind::Stub => 3,
            LinkKind::Virtual => 4,
            LinkKind::Unknown(other) => other,
        }
    }
}
