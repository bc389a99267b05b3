//! The Link State Request packet (RFC 2328 §A.3.4).

use super::error::DecodeError;
use super::lsa::{LsType, LsaKey};
use super::wire::Reader;
use crate::ids::RouterId;

/// The length of one request.
pub(crate) const ENTRY_LEN: usize = 12;

/// LS types are 32 bits wide here and 8 in an LSA. A type above 255 names no LSA that can exist,
/// so that it may stand for any other unknown one; both end in BadLSReq.
pub(super) fn decode(body: &[u8]) -> Result<Vec<LsaKey>, DecodeError> {
    let entries = Reader::new(body).entries::<ENTRY_LEN>("entry of a Link State Request")?;
    entries
        .map(|entry| {
            let mut reader = Reader::new(entry);
            let ls_type = u8::try_from(reader.u32("LS type")?).unwrap_or(0);
            Ok(LsaKey {
                ls_type: LsType::from(ls_type),
                link_state_id: reader.ipv4("Link State ID")?,
                advertising_router: RouterId(reader.ipv4("Advertising Router")?),
            })
        })
        .collect()
}

pub(super) fn encode(keys: &[LsaKey], out: &mut Vec<u8>) {
    for key in keys {
        out.extend(u32::from(u8::from(key.ls_type)).to_be_bytes());
        out.extend(key.link_state_id.octets());
        out.extend(key.advertising_router.0.octets());
    }
}
