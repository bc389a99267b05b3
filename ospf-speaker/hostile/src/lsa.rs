//! LSAs of every type.

use isopath_ospf::packet::{
    Body, ExternalLsa, GraceLsa, Header, Lsa, LsaKey, NetworkLsa, Options, Packet, RouterLsa,
};
use isopath_ospf::{AreaId, RouterId};

/// The bytes before the body: type, options, sequence number, Link State ID, age.
const PREFIX: usize = 12;

/// An LSA: its header from the first bytes, its body from the rest.
pub fn ospf_lsa(bytes: &[u8]) {
    let Some((prefix, body)) = bytes.split_first_chunk::<PREFIX>() else {
        return;
    };
    let [ls_type, options, s0, s1, s2, s3, i0, i1, i2, i3, a0, a1] = *prefix;
    let router = RouterId([10, 0, 0, 1].into());
    let key = LsaKey {
        ls_type: ls_type.into(),
        link_state_id: [i0, i1, i2, i3].into(),
        advertising_router: router,
    };
    let sequence = i32::from_be_bytes([s0, s1, s2, s3]);
    if let Ok(lsa) = Lsa::originate(key, Options(options), sequence, body) {
        through_the_wire(&lsa.at_age(u16::from_be_bytes([a0, a1])));
    }
    bodies(body);
}

fn through_the_wire(lsa: &Lsa) {
    assert!(lsa.checksum_is_valid(), "our own checksum is wrong");
    if lsa.wire_len() > 60_000 {
        return;
    }
    let packet = Packet {
        header: Header {
            router_id: lsa.key().advertising_router,
            area: AreaId([0; 4].into()),
        },
        body: Body::Update(vec![lsa.clone(), lsa.at_age(1)]),
    };
    assert_eq!(
        Packet::decode(&packet.encode()),
        Ok(packet),
        "an LSA reads back differently"
    );
}

/// The same bytes as the body of each type.
fn bodies(body: &[u8]) {
    if let Ok(lsa) = RouterLsa::decode(body) {
        assert!(lsa.links.len() * 12 <= body.len(), "links from nowhere");
        assert_eq!(RouterLsa::decode(&lsa.encode()), Ok(lsa));
    }
    if let Ok(lsa) = NetworkLsa::decode(body) {
        assert_eq!(lsa.encode(), body, "a Network-LSA is written differently");
    }
    if let Ok(lsa) = ExternalLsa::decode(body) {
        assert_eq!(ExternalLsa::decode(&lsa.encode()), Ok(lsa));
    }
    if let Ok(lsa) = GraceLsa::decode(body) {
        assert_eq!(GraceLsa::decode(&lsa.encode()), Ok(lsa));
    }
}
