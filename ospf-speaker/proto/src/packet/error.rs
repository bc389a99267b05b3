//! What can be wrong with the bytes of a packet.

use crate::counters::PacketDrop;

/// Bytes that are not an OSPF packet that we can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("{field} needs {needed} bytes, {left} are left")]
    Truncated {
        /// The field.
        field: &'static str,
        /// Its length.
        needed: usize,
        /// What is left of the packet.
        left: usize,
    },
    /// The header's length field does not fit the bytes received.
    #[error("the header says {length} bytes, {received} were received")]
    Length {
        /// The header's length field.
        length: u16,
        /// The length of what was received.
        received: usize,
    },
    /// Not version 2.
    #[error("version {0} in place of 2")]
    Version(u8),
    /// Not a packet type of version 2.
    #[error("packet type {0} is unknown")]
    UnknownType(u8),
    /// The packet checksum does not match.
    #[error("the packet checksum is {found:#06x} in place of {expected:#06x}")]
    Checksum {
        /// What the bytes add up to.
        expected: u16,
        /// What the header says.
        found: u16,
    },
    /// An authentication type other than null.
    #[error("authentication type {0} in place of 0")]
    AuthType(u16),
    /// A list whose bytes are not a whole number of entries.
    #[error("{left} bytes are left over after the last {entry}")]
    LeftOver {
        /// What the list is made of.
        entry: &'static str,
        /// The bytes too many.
        left: usize,
    },
    /// A body without a field that it must have.
    #[error("there is no {0}")]
    Missing(&'static str),
    /// An LSA whose length field is below the length of its header.
    #[error("an LSA of {0} bytes is shorter than its header")]
    LsaLength(u16),
}

impl DecodeError {
    /// The reason that the drop is counted under.
    pub fn reason(self) -> PacketDrop {
        match self {
            Self::Truncated {
                field: super::header::FIELD,
                ..
            }
            | Self::Length { .. } => PacketDrop::Truncated,
            Self::Version(_) => PacketDrop::Version,
            Self::UnknownType(_) => PacketDrop::UnknownType,
            Self::Checksum { .. } => PacketDrop::Checksum,
            Self::AuthType(_) => PacketDrop::AuthType,
            Self::Truncated { .. }
            | Self::LeftOver { .. }
            | Self::Missing(_)
            | Self::LsaLength(_) => PacketDrop::Malformed,
        }
    }
}
