//! How much room a tunnel leaves for what it carries.

use isopath_api::declare::{Forwarding, Tunnel, TunnelChecksum, TunnelKind};

use crate::dataplane::ServiceWanted;

/// The least that a tunnel must carry: every host takes IPv4 packets of this size (RFC 791 §3.1),
/// and TCP's segments are as large where nobody says otherwise (RFC 9293 §3.7.1). Below it a
/// client that no error message reaches cannot be served, whatever its MSS.
pub(super) const LEAST: u32 = 576;

/// The largest packet of a client behind Ethernet.
pub(super) const FULL: u32 = 1500;

/// The IPv4 and TCP headers without options.
const TCP_HEADERS: u32 = 40;

const IPV4_HEADER: u32 = 20;

/// UDP's header and that of GUE without options.
const GUE_HEADERS: u32 = 8 + 4;

/// GUE's private flags and the remote checksum among them (`GUE_LEN_PRIV`, `GUE_PLEN_REMCSUM`).
const REMOTE_CHECKSUM: u32 = 4 + 4;

/// GRE's header (RFC 2784 §2.1), and its checksum with what is reserved beside it.
const GRE_HEADER: u32 = 4;
const GRE_CHECKSUM: u32 = 4;

/// The bytes that a service's tunnel adds to each packet, as `ip_vs_tunnel_xmit` makes them;
/// nothing where it has none.
pub(super) fn overhead(service: &ServiceWanted) -> Option<u32> {
    let Tunnel { kind, checksum, .. } = match service.forwarding {
        Forwarding::Dr | Forwarding::Nat => return None,
        Forwarding::Tun => service.tunnel.unwrap_or_default(),
    };
    let inner_headers = match (kind, checksum) {
        (TunnelKind::Ipip, _) => 0,
        // The full checksum stands in the UDP header.
        (TunnelKind::Gue, TunnelChecksum::None | TunnelChecksum::Csum) => GUE_HEADERS,
        (TunnelKind::Gue, TunnelChecksum::Remcsum) => GUE_HEADERS + REMOTE_CHECKSUM,
        (TunnelKind::Gre, TunnelChecksum::None | TunnelChecksum::Remcsum) => GRE_HEADER,
        (TunnelKind::Gre, TunnelChecksum::Csum) => GRE_HEADER + GRE_CHECKSUM,
    };
    Some(IPV4_HEADER + inner_headers)
}

/// The largest segment that fits into a packet.
pub(super) fn mss(packet: u32) -> u32 {
    packet.saturating_sub(TCP_HEADERS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use isopath_api::declare::Scheduler;

    use super::*;

    #[test]
    fn each_tunnel_adds_its_headers() {
        let cases = [
            (TunnelKind::Ipip, TunnelChecksum::None, 20),
            (TunnelKind::Gue, TunnelChecksum::None, 32),
            (TunnelKind::Gue, TunnelChecksum::Csum, 32),
            (TunnelKind::Gue, TunnelChecksum::Remcsum, 40),
            (TunnelKind::Gre, TunnelChecksum::None, 24),
            (TunnelKind::Gre, TunnelChecksum::Csum, 28),
        ];
        let mut service = ServiceWanted {
            id: "tcp:10.99.0.1:80".parse().unwrap(),
            scheduler: Scheduler::Mh,
            flags: BTreeSet::new(),
            persistence: None,
            forwarding: Forwarding::Tun,
            tunnel: None,
            real_servers: Vec::new(),
        };
        assert_eq!(overhead(&service), Some(20), "undeclared: ipip");
        for (kind, checksum, expected) in cases {
            service.tunnel = Some(Tunnel {
                kind,
                port: None,
                checksum,
            });
            assert_eq!(overhead(&service), Some(expected), "{kind} {checksum}");
        }
        for forwarding in [Forwarding::Dr, Forwarding::Nat] {
            service.forwarding = forwarding;
            assert_eq!(overhead(&service), None, "{forwarding}");
        }
    }
}
