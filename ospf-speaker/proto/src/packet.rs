//! The packets and LSAs of OSPF version 2 (RFC 2328 §A).
//!
//! Decoding never panics and says what was wrong and where. LSA bodies are kept byte for byte,
//! whether their type is known or not, because a router passes on what it does not understand.

mod ack;
pub(crate) mod auth;
mod dbdesc;
mod error;
mod external_lsa;
mod grace_lsa;
mod header;
mod hello;
mod hex;
mod lsa;
mod network_lsa;
mod options;
mod request;
mod router_lsa;
mod update;
mod wire;

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

pub(crate) use dbdesc::FIXED_LEN as DB_DESC_FIXED_LEN;
pub use dbdesc::{DbDesc, DbDescFlags};
pub use error::DecodeError;
pub use external_lsa::{ExternalKind, ExternalLsa, ExternalMetric};
pub use grace_lsa::{GRACE_LSA_ID, GraceLsa, RestartReason};
pub(crate) use header::Envelope;
pub use header::{HEADER_LEN, Header, PacketType};
pub use hello::Hello;
pub use lsa::{
    INITIAL_SEQUENCE, LSA_HEADER_LEN, LsType, Lsa, LsaHeader, LsaKey, LsaTooLong, MAX_AGE,
    MAX_SEQUENCE, RESERVED_SEQUENCE,
};
pub use network_lsa::NetworkLsa;
pub use options::Options;
pub(crate) use request::ENTRY_LEN as REQUEST_ENTRY_LEN;
pub use router_lsa::{LinkKind, RouterLink, RouterLsa};
pub(crate) use update::FIXED_LEN as UPDATE_FIXED_LEN;

/// 224.0.0.5, all routers.
pub const ALL_SPF_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 5);
/// 224.0.0.6, the Designated Router and its Backup.
pub const ALL_D_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 6);

/// A packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Who sent it, for which area.
    pub header: Header,
    /// What it says.
    pub body: Body,
}

/// The body of a packet, by type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Type 1 (§A.3.2).
    Hello(Hello),
    /// Type 2 (§A.3.3).
    DbDesc(DbDesc),
    /// Type 3 (§A.3.4): the LSAs that are asked for.
    Request(Vec<LsaKey>),
    /// Type 4 (§A.3.5): LSAs.
    Update(Vec<Lsa>),
    /// Type 5 (§A.3.6): the headers of the LSAs that are acknowledged.
    Ack(Vec<LsaHeader>),
}

impl Packet {
    /// Decodes a packet without IP header and with null authentication. Bytes after the packet's
    /// own length, such as a link-local signalling block (RFC 5613), are passed over.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let envelope = Envelope::decode(bytes)?;
        if envelope.auth_type != auth::NULL {
            return Err(DecodeError::AuthType(envelope.auth_type));
        }
        envelope.check_sum()?;
        Self::open(&envelope)
    }

    /// Decodes the body of a packet that has been authenticated.
    pub(crate) fn open(envelope: &Envelope<'_>) -> Result<Self, DecodeError> {
        let (packet_type, body) = envelope.body()?;
        let body = match packet_type {
            PacketType::Hello => Body::Hello(Hello::decode(body)?),
            PacketType::DbDesc => Body::DbDesc(DbDesc::decode(body)?),
            PacketType::Request => Body::Request(request::decode(body)?),
            PacketType::Update => Body::Update(update::decode(body)?),
            PacketType::Ack => Body::Ack(ack::decode(body)?),
        };
        Ok(Self {
            header: envelope.header,
            body,
        })
    }

    /// Encodes the packet with length and checksum, null authentication.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        let packet_type = match &self.body {
            Body::Hello(hello) => {
                hello.encode(&mut bytes);
                PacketType::Hello
            }
            Body::DbDesc(dbdesc) => {
                dbdesc.encode(&mut bytes);
                PacketType::DbDesc
            }
            Body::Request(keys) => {
                request::encode(keys, &mut bytes);
                PacketType::Request
            }
            Body::Update(lsas) => {
                update::encode(lsas, &mut bytes);
                PacketType::Update
            }
            Body::Ack(headers) => {
                ack::encode(headers, &mut bytes);
                PacketType::Ack
            }
        };
        self.header.finish(packet_type, &mut bytes);
        bytes
    }
}
