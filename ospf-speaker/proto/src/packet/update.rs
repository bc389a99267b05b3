//! The Link State Update packet (RFC 2328 §A.3.5).

use super::error::DecodeError;
use super::lsa::Lsa;
use super::wire::{Reader, length_field};

/// The length of an update without LSAs, after the packet header.
pub(crate) const FIXED_LEN: usize = 4;

pub(super) fn decode(body: &[u8]) -> Result<Vec<Lsa>, DecodeError> {
    let mut reader = Reader::new(body);
    let count = reader.u32("# LSAs")?;
    // No capacity is reserved: the count is the sender's word, and the bytes are what is there.
    let mut lsas = Vec::new();
    for _ in 0..count {
        lsas.push(Lsa::decode(&mut reader)?);
    }
    Ok(lsas)
}

pub(super) fn encode(lsas: &[Lsa], out: &mut Vec<u8>) {
    out.extend(u32::from(length_field(lsas.len())).to_be_bytes());
    for lsa in lsas {
        lsa.encode(out);
    }
}
