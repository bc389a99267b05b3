//! The Database Description packet (RFC 2328 §A.3.3).

use serde::{Deserialize, Serialize};

use super::error::DecodeError;
use super::lsa::{LSA_HEADER_LEN, LsaHeader};
use super::options::Options;
use super::wire::Reader;

/// The length of a Database Description without LSA headers, after the packet header.
pub(crate) const FIXED_LEN: usize = 8;

/// A page of the sender's database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbDesc {
    /// The largest IP packet that the sender can take unfragmented on this link; 0 for any.
    pub mtu: u16,
    /// The sender's capabilities.
    pub options: Options,
    /// The I, M and MS bits.
    pub flags: DbDescFlags,
    /// The DD sequence number.
    pub sequence: u32,
    /// The LSAs of this page.
    pub headers: Vec<LsaHeader>,
}

/// The bits that steer the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub struct DbDescFlags {
    /// I: the first packet of an exchange.
    pub init: bool,
    /// M: more pages follow.
    pub more: bool,
    /// MS: the sender is (or in the first packet, wants to be) the master.
    pub master: bool,
    /// Bits without a meaning here (such as R, RFC 4811), kept as they were received.
    pub other: u8,
}

impl DbDescFlags {
    const INIT: u8 = 0x04;
    const MORE: u8 = 0x02;
    const MASTER: u8 = 0x01;

    /// I, M and MS: the opening of a negotiation.
    pub const OPENING: Self = Self {
        init: true,
        more: true,
        master: true,
        other: 0,
    };
}

impl From<u8> for DbDescFlags {
    fn from(bits: u8) -> Self {
        Self {
            init: bits & Self::INIT != 0,
            more: bits & Self::MORE != 0,
            master: bits & Self::MASTER != 0,
            other: bits & !(Self::INIT | Self::MORE | Self::MASTER),
        }
    }
}

impl From<DbDescFlags> for u8 {
    fn from(flags: DbDescFlags) -> Self {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        bit(flags.init, DbDescFlags::INIT)
            | bit(flags.more, DbDescFlags::MORE)
            | bit(flags.master, DbDescFlags::MASTER)
            | flags.other
    }
}

impl DbDesc {
    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        Ok(Self {
            mtu: reader.u16("Interface MTU")?,
            options: Options(reader.u8("Options")?),
            flags: reader.u8("the I, M and MS bits")?.into(),
            sequence: reader.u32("DD sequence number")?,
            headers: reader
                .entries::<LSA_HEADER_LEN>("LSA header of a Database Description")?
                .map(LsaHeader::decode)
                .collect(),
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.mtu.to_be_bytes());
        out.push(self.options.0);
        out.push(self.flags.into());
        out.extend(self.sequence.to_be_bytes());
        for header in &self.headers {
            out.extend(header.encode());
        }
    }
}
