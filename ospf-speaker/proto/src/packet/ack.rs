//! The Link State Acknowledgment packet (RFC 2328 §A.3.6).

use super::error::DecodeError;
use super::lsa::{LSA_HEADER_LEN, LsaHeader};
use super::wire::Reader;

pub(super) fn decode(body: &[u8]) -> Result<Vec<LsaHeader>, DecodeError> {
    let headers = Reader::new(body).entries::<LSA_HEADER_LEN>("LSA header of an acknowledgment")?;
    Ok(headers.map(LsaHeader::decode).collect())
}

pub(super) fn encode(headers: &[LsaHeader], out: &mut Vec<u8>) {
    for header in headers {
        out.extend(header.encode());
    }
}
