//! LSAs: header, comparison of instances, checksum (RFC 2328 §12.1, §13.1, §A.4).

use std::cmp::Ordering;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::DecodeError;
use super::options::Options;
use super::wire::{Reader, length_field};
use crate::ids::RouterId;

/// The length of an LSA's header in bytes.
pub const LSA_HEADER_LEN: usize = 20;
/// MaxAge: the age in seconds at which an LSA leaves the database.
pub const MAX_AGE: u16 = 3600;
/// MaxAgeDiff: copies of one instance whose ages differ by more seconds are not the same.
const MAX_AGE_DIFF: u16 = 900;
/// InitialSequenceNumber: the first instance of an LSA has it.
pub const INITIAL_SEQUENCE: i32 = -0x7fff_ffff;
/// MaxSequenceNumber: the last instance before the numbers start over.
pub const MAX_SEQUENCE: i32 = i32::MAX;
/// 0x80000000, which no instance has.
pub const RESERVED_SEQUENCE: i32 = i32::MIN;

/// The type of an LSA. Those that have a name here are stored and flooded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LsType {
    /// 1 (§A.4.2)
    Router,
    /// 2 (§A.4.3)
    Network,
    /// 3 (§A.4.4)
    SummaryNetwork,
    /// 4 (§A.4.4)
    SummaryAsbr,
    /// 5 (§A.4.5)
    AsExternal,
    /// 7 (RFC 3101)
    Nssa,
    /// 9 (RFC 5250): stays on its link.
    OpaqueLink,
    /// 10 (RFC 5250): stays in its area.
    OpaqueArea,
    /// 11 (RFC 5250): the whole AS, as type 5.
    OpaqueAs,
    /// Any other.
    Unknown(u8),
}

impl From<u8> for LsType {
    fn from(ls_type: u8) -> Self {
        match ls_type {
            1 => Self::Router,
            2 => Self::Network,
            3 => Self::SummaryNetwork,
            4 => Self::SummaryAsbr,
            5 => Self::AsExternal,
            7 => Self::Nssa,
            9 => Self::OpaqueLink,
            10 => Self::OpaqueArea,
            11 => Self::OpaqueAs,
            other => Self::Unknown(other),
        }
    }
}

impl From<LsType> for u8 {
    fn from(ls_type: LsType) -> Self {
        match ls_type {
            LsType::Router => 1,
            LsType::Network => 2,
            LsType::SummaryNetwork => 3,
            LsType::SummaryAsbr => 4,
            LsType::AsExternal => 5,
            LsType::Nssa => 7,
            LsType::OpaqueLink => 9,
            LsType::OpaqueArea => 10,
            LsType::OpaqueAs => 11,
            LsType::Unknown(other) => other,
        }
    }
}

/// What identifies an LSA, whatever its instance (§12.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "PlainKey", into = "PlainKey")]
pub struct LsaKey {
    /// LS type.
    pub ls_type: LsType,
    /// Link State ID.
    pub link_state_id: Ipv4Addr,
    /// Advertising Router.
    pub advertising_router: RouterId,
}

/// [`LsaKey`] as plain data: LS type, Link State ID and Advertising Router as numbers, of which
/// a database has many.
type PlainKey = (u8, u32, u32);

impl From<LsaKey> for PlainKey {
    fn from(key: LsaKey) -> Self {
        let LsaKey {
            ls_type,
            link_state_id,
            advertising_router,
        } = key;
        let router = advertising_router.0.to_bits();
        (ls_type.into(), link_state_id.to_bits(), router)
    }
}

impl From<PlainKey> for LsaKey {
    fn from((ls_type, link_state_id, advertising_router): PlainKey) -> Self {
        Self {
            ls_type: ls_type.into(),
            link_state_id: Ipv4Addr::from_bits(link_state_id),
            advertising_router: RouterId(Ipv4Addr::from_bits(advertising_router)),
        }
    }
}

impl fmt::Display for LsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ls_type,
            link_state_id,
            advertising_router,
        } = self;
        let ls_type = u8::from(*ls_type);
        write!(
            f,
            "type {ls_type} LSA {link_state_id} of {advertising_router}"
        )
    }
}

/// The header of an LSA, which identifies the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LsaHeader {
    /// LS age in seconds.
    pub age: u16,
    /// The optional capabilities that the LSA's part of the domain needs.
    pub options: Options,
    /// Which LSA it is.
    pub key: LsaKey,
    /// LS sequence number.
    pub sequence: i32,
    /// LS checksum: Fletcher's, over the LSA without the age.
    pub checksum: u16,
    /// The LSA's length, this header included.
    pub length: u16,
}

impl LsaHeader {
    pub(super) fn decode(bytes: &[u8; LSA_HEADER_LEN]) -> Self {
        let [
            a0,
            a1,
            options,
            ls_type,
            id0,
            id1,
            id2,
            id3,
            r0,
            r1,
            r2,
            r3,
            rest @ ..,
        ] = *bytes;
        let [s0, s1, s2, s3, c0, c1, l0, l1] = rest;
        Self {
            age: u16::from_be_bytes([a0, a1]),
            options: Options(options),
            key: LsaKey {
                ls_type: ls_type.into(),
                link_state_id: [id0, id1, id2, id3].into(),
                advertising_router: RouterId([r0, r1, r2, r3].into()),
            },
            sequence: i32::from_be_bytes([s0, s1, s2, s3]),
            checksum: u16::from_be_bytes([c0, c1]),
            length: u16::from_be_bytes([l0, l1]),
        }
    }

    pub(super) fn encode(&self) -> [u8; LSA_HEADER_LEN] {
        let mut bytes = [0; LSA_HEADER_LEN];
        bytes[0..2].copy_from_slice(&self.age.to_be_bytes());
        bytes[2] = self.options.0;
        bytes[3] = self.key.ls_type.into();
        bytes[4..8].copy_from_slice(&self.key.link_state_id.octets());
        bytes[8..12].copy_from_slice(&self.key.advertising_router.0.octets());
        bytes[12..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..18].copy_from_slice(&self.checksum.to_be_bytes());
        bytes[18..20].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Which of two instances of one LSA is the more recent (§13.1); `Greater` if this one.
    pub fn recency(&self, other: &Self) -> Ordering {
        self.sequence
            .cmp(&other.sequence)
            .then(self.checksum.cmp(&other.checksum))
            .then((self.age >= MAX_AGE).cmp(&(other.age >= MAX_AGE)))
            .then_with(|| {
                if self.age.abs_diff(other.age) > MAX_AGE_DIFF {
                    other.age.cmp(&self.age)
                } else {
                    Ordering::Equal
                }
            })
    }
}

/// An LSA: its header, and its body byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lsa {
    header: LsaHeader,
    body: Arc<[u8]>,
}

/// A body that does not fit an LSA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an LSA of {0} bytes fits no IP packet")]
pub struct LsaTooLong(pub usize);

impl Lsa {
    /// A new instance with age 0 and its checksum.
    pub fn originate(
        key: LsaKey,
        options: Options,
        sequence: i32,
        body: &[u8],
    ) -> Result<Self, LsaTooLong> {
        let whole = LSA_HEADER_LEN + body.len();
        let mut header = LsaHeader {
            age: 0,
            options,
            key,
            sequence,
            checksum: 0,
            length: u16::try_from(whole).map_err(|_| LsaTooLong(whole))?,
        };
        header.checksum = fletcher(&header, body);
        Ok(Self {
            header,
            body: body.into(),
        })
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = LsaHeader::decode(&reader.array("LSA header")?);
        let body_len = usize::from(header.length)
            .checked_sub(LSA_HEADER_LEN)
            .ok_or(DecodeError::LsaLength(header.length))?;
        let body = reader.slice(body_len, "LSA body")?;
        Ok(Self {
            header,
            body: body.into(),
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.header.encode());
        out.extend(&*self.body);
    }

    /// The header.
    pub fn header(&self) -> &LsaHeader {
        &self.header
    }

    /// Which LSA it is.
    pub fn key(&self) -> LsaKey {
        self.header.key
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The length in bytes, header included.
    pub fn wire_len(&self) -> usize {
        LSA_HEADER_LEN + self.body.len()
    }

    /// The same instance at another age, which the checksum does not cover.
    #[must_use]
    pub fn at_age(&self, age: u16) -> Self {
        Self {
            header: LsaHeader { age, ..self.header },
            body: Arc::clone(&self.body),
        }
    }

    /// Whether the checksum is right. Zero, which Fletcher's algorithm never yields, is not.
    pub fn checksum_is_valid(&self) -> bool {
        let (c0, c1) = sums(&self.header, &self.body);
        self.header.checksum != 0 && c0 == 0 && c1 == 0
    }
}

/// The checksum of an LSA (§12.1.7): ISO 8473's, over everything but the age.
fn fletcher(header: &LsaHeader, body: &[u8]) -> u16 {
    let zeroed = LsaHeader {
        checksum: 0,
        ..*header
    };
    let (c0, c1) = sums(&zeroed, body);
    // The bytes after the first byte of the checksum: its second, the length, and the body.
    let after = u32::from(length_field(body.len())) % 255 + 3;
    let x = (after * c0 + 255 - c1) % 255;
    let y = (510 - c0 - x) % 255;
    // Zero and 255 are the same number here; the checksum uses 255 so that it is never zero.
    let byte = |value: u32| match u8::try_from(value) {
        Ok(0) | Err(_) => u8::MAX,
        Ok(value) => value,
    };
    u16::from_be_bytes([byte(x), byte(y)])
}

/// The two running sums modulo 255 over the LSA from the options field on.
fn sums(header: &LsaHeader, body: &[u8]) -> (u32, u32) {
    let header = header.encode();
    let (mut c0, mut c1) = (0_u32, 0_u32);
    for &byte in header.iter().skip(2).chain(body) {
        c0 = (c0 + u32::from(byte)) % 255;
        c1 = (c1 + c0) % 255;
    }
    (c0, c1)
}
