//! The body of a Network-LSA (RFC 2328 §A.4.3).

use std::net::Ipv4Addr;

use super::error::DecodeError;
use super::wire::Reader;
use crate::ids::RouterId;

/// The routers of a broadcast segment, as its Designated Router says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkLsa {
    /// The segment's mask.
    pub mask: Ipv4Addr,
    /// The routers that are fully adjacent to the Designated Router, itself included.
    pub routers: Vec<RouterId>,
}

impl NetworkLsa {
    /// Decodes a body.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        Ok(Self {
            mask: reader.ipv4("Network Mask")?,
            routers: reader
                .entries::<4>("Attached Router of a Network-LSA")?
                .map(|&octets| RouterId(octets.into()))
                .collect(),
        })
    }

    /// Encodes the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = self.mask.octets().to_vec();
        for router in &self.routers {
            body.extend(router.0.octets());
        }
        body
    }
}
