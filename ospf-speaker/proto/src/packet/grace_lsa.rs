//! The body of a Grace-LSA (RFC 3623 §A).

use std::net::Ipv4Addr;

use super::error::DecodeError;
use super::wire::{Reader, length_field};

/// The Link State ID of every Grace-LSA: opaque type 3, opaque id 0.
pub const GRACE_LSA_ID: Ipv4Addr = Ipv4Addr::new(3, 0, 0, 0);

/// The types of the three TLVs.
const PERIOD: u16 = 1;
const REASON: u16 = 2;
const ADDRESS: u16 = 3;

/// What a Grace-LSA says: for how long its originator asks to be treated as if it were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraceLsa {
    /// The grace period in seconds, counted from the LSA's origination.
    pub period: u32,
    /// Why the router restarts.
    pub reason: RestartReason,
    /// The router's address on the segment, which tells it from the others there; nothing on a
    /// point-to-point link.
    pub address: Option<Ipv4Addr>,
}

/// Why a router restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartReason {
    /// 0: it does not say.
    Unknown,
    /// 1: the program is started again.
    Software,
    /// 2: another version of the program is started.
    Upgrade,
    /// 3: a redundant processor takes over.
    Switchover,
    /// Any other.
    Other(u8),
}

impl From<u8> for RestartReason {
    fn from(reason: u8) -> Self {
        match reason {
            0 => Self::Unknown,
            1 => Self::Software,
            2 => Self::Upgrade,
            3 => Self::Switchover,
            other => Self::Other(other),
        }
    }
}

impl From<RestartReason> for u8 {
    fn from(reason: RestartReason) -> Self {
        match reason {
            RestartReason::Unknown => 0,
            RestartReason::Software => 1,
            RestartReason::Upgrade => 2,
            RestartReason::Switchover => 3,
            RestartReason::Other(other) => other,
        }
    }
}

impl GraceLsa {
    /// Decodes a body. TLVs of other types are passed over; the period and the reason must be
    /// there.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let (mut period, mut reason, mut address) = (None, None, None);
        while !reader.is_empty() {
            let kind = reader.u16("TLV type of a Grace-LSA")?;
            let length = usize::from(reader.u16("TLV length of a Grace-LSA")?);
            let value = reader.slice(length, "TLV value of a Grace-LSA")?;
            let padding = length.next_multiple_of(4) - length;
            reader.slice(padding, "TLV padding of a Grace-LSA")?;
            let mut value = Reader::new(value);
            if kind == PERIOD {
                period = Some(value.u32("grace period")?);
            } else if kind == REASON {
                reason = Some(value.u8("graceful restart reason")?.into());
            } else if kind == ADDRESS {
                address = Some(value.ipv4("IP interface address")?);
            }
        }
        Ok(Self {
            period: period.ok_or(DecodeError::Missing("grace period"))?,
            reason: reason.ok_or(DecodeError::Missing("graceful restart reason"))?,
            address,
        })
    }

    /// Encodes the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put(&mut body, PERIOD, &self.period.to_be_bytes());
        put(&mut body, REASON, &[self.reason.into()]);
        if let Some(address) = self.address {
            put(&mut body, ADDRESS, &address.octets());
        }
        body
    }
}

fn put(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(kind.to_be_bytes());
    body.extend(length_field(value.len()).to_be_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}
