//! Packets and snapshots, as bytes.

use isopath_ospf::packet::Packet;
use isopath_ospf::{Router, Snapshot};

use crate::epoch;
use crate::ops;

/// Bytes in the place of an OSPF packet: read or refused, and what is read is written back.
pub fn ospf_packet(bytes: &[u8]) {
    match Packet::decode(bytes) {
        Ok(packet) => {
            let written = packet.encode();
            assert!(
                written.len() <= bytes.len(),
                "more is written than was read"
            );
            assert_eq!(
                Packet::decode(&written).as_ref(),
                Ok(&packet),
                "what was written reads back differently"
            );
        }
        Err(error) => assert!(!error.to_string().is_empty(), "a drop without a word"),
    }
    ops::one_packet(bytes);
}

/// Bytes in the place of the state that a process hands over: restored or refused.
pub fn handover(bytes: &[u8]) {
    let Ok(snapshot) = serde_json::from_slice::<Snapshot>(bytes) else {
        return;
    };
    let now = epoch();
    if let Ok(mut router) = Router::restore(ops::config(), snapshot, now) {
        ops::drain(&mut router);
        router.handle_timeout(now);
        ops::drain(&mut router);
    }
}
