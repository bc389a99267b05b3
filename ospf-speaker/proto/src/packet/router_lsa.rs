//! The body of a Router-LSA (RFC 2328 §A.4.2).

use std::net::Ipv4Addr;

use super::error::DecodeError;
use super::wire::{Reader, length_field};

/// The length of one metric for another type of service.
const TOS_LEN: usize = 4;

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

/// A router's links within the area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterLsa {
    /// The V, E and B bits (and H, RFC 8770).
    pub flags: u8,
    /// The links. Metrics for other types of service than 0 are passed over.
    pub links: Vec<RouterLink>,
}

impl RouterLsa {
    /// Decodes a body.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let flags = reader.u8("the V, E and B bits")?;
        reader.u8("the zero byte of a Router-LSA")?;
        let count = reader.u16("# links")?;
        let mut links = Vec::new();
        for _ in 0..count {
            let id = reader.ipv4("Link ID")?;
            let data = reader.ipv4("Link Data")?;
            let kind = reader.u8("link type")?.into();
            let tos_count = reader.u8("# TOS")?;
            let metric = reader.u16("metric")?;
            reader.slice(usize::from(tos_count) * TOS_LEN, "TOS metrics")?;
            links.push(RouterLink {
                kind,
                id,
                data,
                metric,
            });
        }
        Ok(Self { flags, links })
    }

    /// Encodes the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![self.flags, 0];
        body.extend(length_field(self.links.len()).to_be_bytes());
        for link in &self.links {
            body.extend(link.id.octets());
            body.extend(link.data.octets());
            body.extend([link.kind.into(), 0]);
            body.extend(link.metric.to_be_bytes());
        }
        body
    }
}
