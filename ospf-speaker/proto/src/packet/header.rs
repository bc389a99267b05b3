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
const LENGTH: Range<usize> = 2..4;
const CHECKSUM: Range<usize> = 12..14;
const AUTH_TYPE: Range<usize> = 14..16;
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

/// A packet whose header has been read and whose body nobody has vouched for yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'a> {
    pub(crate) header: Header,
    packet_type: u8,
    checksum: u16,
    /// The AuType field (RFC 2328 §D).
    pub(crate) auth_type: u16,
    /// The 64 bits that each AuType has a use of its own for.
    pub(crate) auth_data: [u8; 8],
    /// The packet without what follows it.
    pub(crate) packet: &'a [u8],
    /// What follows: the digest of cryptographic authentication, then perhaps a link-local
    /// signalling block (RFC 5613). The length field counts neither.
    pub(crate) trailer: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Reads the header; checks its version and its length field.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8(FIELD)?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let packet_type = reader.u8(FIELD)?;
        let length = reader.u16(FIELD)?;
        let router_id = RouterId(reader.ipv4(FIELD)?);
        let area = AreaId(reader.ipv4(FIELD)?);
        let checksum = reader.u16(FIELD)?;
        let auth_type = reader.u16(FIELD)?;
        let wrong_length = DecodeError::Length {
            length,
            received: bytes.len(),
        };
        let split = bytes.split_at_checked(usize::from(length));
        let (packet, trailer) = split.ok_or(wrong_length)?;
        if packet.len() < HEADER_LEN {
            return Err(wrong_length);
        }
        Ok(Self {
            header: Header { router_id, area },
            packet_type,
            checksum,
            auth_type,
            auth_data: reader.array(FIELD)?,
            packet,
            trailer,
        })
    }

    /// Checks the checksum, which null and simple password authentication have (§D.4).
    pub(crate) fn check_sum(&self) -> Result<(), DecodeError> {
        let expected = checksum(self.packet);
        if self.checksum == expected {
            Ok(())
        } else {
            Err(DecodeError::Checksum {
                expected,
                found: self.checksum,
            })
        }
    }

    /// The packet's type and body.
    pub(super) fn body(&self) -> Result<(PacketType, &'a [u8]), DecodeError> {
        let packet_type = PacketType::try_from(self.packet_type)?;
        Ok((
            packet_type,
            self.packet.get(HEADER_LEN..).unwrap_or_default(),
        ))
    }
}

impl Header {
    /// Fills in the header in front of a body.
    pub(super) fn finish(self, packet_type: PacketType, bytes: &mut [u8]) {
        let mut header = [0; HEADER_LEN];
        header[0] = VERSION;
        header[1] = packet_type.into();
        header[LENGTH].copy_from_slice(&length_field(bytes.len()).to_be_bytes());
        header[4..8].copy_from_slice(&Ipv4Addr::octets(&self.router_id.0));
        header[8..12].copy_from_slice(&Ipv4Addr::octets(&self.area.0));
        bytes[..HEADER_LEN].copy_from_slice(&header);
        set_checksum(bytes);
    }
}

/// Puts the authentication type and data into an encoded packet. What the checksum becomes
/// depends on the type: see [`set_checksum`] and [`clear_checksum`].
pub(super) fn set_authentication(packet: &mut [u8], auth_type: u16, data: [u8; 8]) {
    packet[AUTH_TYPE].copy_from_slice(&auth_type.to_be_bytes());
    packet[AUTHENTICATION].copy_from_slice(&data);
}

/// Computes the checksum anew.
pub(super) fn set_checksum(packet: &mut [u8]) {
    let sum = checksum(packet);
    packet[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
}

/// Zeroes the checksum, as cryptographic authentication has it (§D.4.3).
pub(super) fn clear_checksum(packet: &mut [u8]) {
    packet[CHECKSUM].fill(0);
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
