//! The Hello packet (RFC 2328 §A.3.2).

use std::net::Ipv4Addr;

use super::error::DecodeError;
use super::options::Options;
use super::wire::Reader;
use crate::ids::RouterId;

/// What a router says of itself on a link, and whom it hears there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The mask of the sender's interface.
    pub network_mask: Ipv4Addr,
    /// HelloInterval in seconds.
    pub hello_interval: u16,
    /// The sender's capabilities.
    pub options: Options,
    /// Router priority; 0 is never Designated Router.
    pub priority: u8,
    /// RouterDeadInterval in seconds.
    pub dead_interval: u32,
    /// The address of the Designated Router in the sender's view, or 0.0.0.0.
    pub dr: Ipv4Addr,
    /// The address of the Backup Designated Router in the sender's view, or 0.0.0.0.
    pub bdr: Ipv4Addr,
    /// The routers that the sender heard lately.
    pub neighbors: Vec<RouterId>,
}

impl Hello {
    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        Ok(Self {
            network_mask: reader.ipv4("Network Mask")?,
            hello_interval: reader.u16("HelloInterval")?,
            options: Options(reader.u8("Options")?),
            priority: reader.u8("Router Priority")?,
            dead_interval: reader.u32("RouterDeadInterval")?,
            dr: reader.ipv4("Designated Router")?,
            bdr: reader.ipv4("Backup Designated Router")?,
            neighbors: reader
                .entries::<4>("neighbour of a Hello")?
                .map(|&octets| RouterId(octets.into()))
                .collect(),
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.network_mask.octets());
        out.extend(self.hello_interval.to_be_bytes());
        out.push(self.options.0);
        out.push(self.priority);
        out.extend(self.dead_interval.to_be_bytes());
        out.extend(self.dr.octets());
        out.extend(self.bdr.octets());
        for neighbor in &self.neighbors {
            out.extend(neighbor.0.octets());
        }
    }
}
