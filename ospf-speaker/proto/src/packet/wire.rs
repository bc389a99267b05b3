//! Reading and writing of fields in network byte order.

use std::net::Ipv4Addr;

use super::error::DecodeError;

/// A cursor over received bytes. Each read names the field for the error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self
            .left
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated {
                field,
                needed: N,
                left: self.left.len(),
            })?;
        self.left = tail;
        Ok(*head)
    }

    pub(super) fn slice(
        &mut self,
        length: usize,
        field: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self
            .left
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated {
                field,
                needed: length,
                left: self.left.len(),
            })?;
        self.left = tail;
        Ok(head)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    pub(super) fn ipv4(&mut self, field: &'static str) -> Result<Ipv4Addr, DecodeError> {
        Ok(Ipv4Addr::from(self.array::<4>(field)?))
    }

    /// Splits what is left into entries of `N` bytes each.
    pub(super) fn entries<const N: usize>(
        self,
        entry: &'static str,
    ) -> Result<impl Iterator<Item = &'a [u8; N]>, DecodeError> {
        let (entries, rest) = self.left.as_chunks::<N>();
        if rest.is_empty() {
            Ok(entries.iter())
        } else {
            Err(DecodeError::LeftOver {
                entry,
                left: rest.len(),
            })
        }
    }
}

/// The length of something that fits an IP packet, as the wire has it.
pub(super) fn length_field(length: usize) -> u16 {
    debug_assert!(
        length <= usize::from(u16::MAX),
        "{length} bytes fit no IP packet"
    );
    u16::try_from(length).unwrap_or(u16::MAX)
}
