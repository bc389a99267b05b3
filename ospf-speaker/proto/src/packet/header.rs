//! The header that all packets share (RFC 2328 §A.3.1).

use std::net::Ipv4Addr;
use std::ops::Range;

use super::error::DecodeError;
use super::wire::{Reader, length_field};
use crate::ids::{AreaId, RouterId};

/// The length of the header in bytes.
pub const HEADER_LEN: usize = 24;

/// The name under which a header that is cut short is reported.
pub(super) const FIELD: &str = "the packet header";

const VERSION: u8 = 2;
const NULL_AUTHENTICATION: u16 = 0;
const LENGTH: Range<usize> = 2..4;
const CHECKSUM: Range<usize> = 12..14;
const AUTHENTICATION: Range<usize> = 16..24;

/// Who sent a packet, for which area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The sender.
    pub router_id: RouterId,
    /// The area of the link that it was sent on.
    pub area: AreaId,
}

/// The type of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketType {
    /// 1
    Hello,
    /// 2
    DbDesc,
    /// 3
    Request,
    /// 4
    Update,
    /// 5
    Ack,
}

impl TryFrom<u8> for PacketType {
    type Error = DecodeError;

    fn try_from(value: u8) -> Result<Self, DecodeError> {
        match value {
            1 => Ok(Self::Hello),
            2 => Ok(Self::DbDesc),
            3 => Ok(Self::Request),
            4 => Ok(Self::Update),
            5 => Ok(Self::Ack),
            other => Err(DecodeError::UnknownType(other)),
        }
    }
}

impl From<PacketType> for u8 {
    fn from(packet_type: PacketType) -> Self {
        match packet_type {
            PacketType::Hello => 1,
            PacketType::DbDesc => 2,
            PacketType::Request => 3,
            PacketType::Update => 4,
            PacketType::Ack => 5,
        }
    }
}

impl Header {
    /// Checks the header as RFC 2328 §8.2 and §D.4.3 have it; returns what it says and the body.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, PacketType, &[u8]), DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8(FIELD)?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let packet_type = reader.u8(FIELD)?;
        let length = reader.u16(FIELD)?;
        let router_id = RouterId(reader.ipv4(FIELD)?);
        let area = AreaId(reader.ipv4(FIELD)?);
        let found = reader.u16(FIELD)?;
        let authentication = reader.u16(FIELD)?;
        let wrong_length = DecodeError::Length {
            length,
            received: bytes.len(),
        };
        let packet = bytes.get(..usize::from(length)).ok_or(wrong_length)?;
        let body = packet.get(HEADER_LEN..).ok_or(wrong_length)?;
        if authentication != NULL_AUTHENTICATION {
            return Err(DecodeError::AuthType(authentication));
        }
        let expected = checksum(packet);
        if found != expected {
            return Err(DecodeError::Checksum { expected, found });
        }
        let packet_type = PacketType::try_from(packet_type)?;
        Ok((Self { router_id, area }, packet_type, body))
    }

    /// Fills in the header in front of a body.
    pub(super) fn finish(self, packet_type: PacketType, bytes: &mut [u8]) {
        let mut header = [0; HEADER_LEN];
        header[0] = VERSION;
        header[1] = packet_type.into();
        header[LENGTH].copy_from_slice(&length_field(bytes.len()).to_be_bytes());
        header[4..8].copy_from_slice(&Ipv4Addr::octets(&self.router_id.0));
        header[8..12].copy_from_slice(&Ipv4Addr::octets(&self.area.0));
        bytes[..HEADER_LEN].copy_from_slice(&header);
        let sum = checksum(bytes);
        bytes[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The one's complement sum over the packet without the checksum and authentication fields.
fn checksum(packet: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for (index, &byte) in packet.iter().enumerate() {
        if CHECKSUM.contains(&index) || AUTHENTICATION.contains(&index) {
            continue;
        }
        sum += u64::from(byte) << if index.is_multiple_of(2) { 8 } else { 0 };
    }
    while sum > u64::from(u16::MAX) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).map_or(0, |sum| !sum)
}
