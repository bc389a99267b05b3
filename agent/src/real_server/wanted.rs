//! What a real server's file asks of this kernel.

use std::collections::{BTreeMap, BTreeSet};

use isopath_api::declare::{Forwarding, Tunnel, TunnelChecksum, TunnelKind};
use isopath_api::ids::Vip;
use isopath_api::real_server::{LOOPBACK, RealServerFile, RealServerVip};

use super::observed::{Interface, Observed};

/// What the kernel shall have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The VIPs, and the interface that carries each.
    pub(super) vips: BTreeMap<Vip, String>,
    /// These interfaces, and what they are.
    pub(super) devices: BTreeMap<String, Device>,
    /// The UDP ports on which GUE packets are taken.
    pub(super) ports: BTreeSet<u16>,
    /// The MSS that SYNs from a VIP are lowered to.
    pub(super) mss: BTreeMap<Vip, u16>,
    /// The interfaces that the directors' packets come in over.
    pub(super) ingress: BTreeSet<String>,
}

/// An interface that carries VIPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Device {
    /// `lo`.
    Loopback,
    /// A dummy interface.
    Dummy,
    /// The interface at which the kernel hands in what comes out of any IPIP tunnel.
    Ipip,
    /// The same for GRE.
    Gre,
}

impl Device {
    /// The kernel's name of the kind; nothing for `lo`.
    pub(super) fn kind(self) -> Option<&'static str> {
        match self {
            Self::Loopback => None,
            Self::Dummy => Some("dummy"),
            Self::Ipip => Some("ipip"),
            Self::Gre => Some("gre"),
        }
    }

    /// The module that makes it.
    pub(super) fn module(self) -> &'static str {
        match self {
            // It is part of every kernel that has a network.
            Self::Loopback => "none",
            Self::Dummy => "dummy",
            Self::Ipip => "ipip",
            Self::Gre => "ip_gre",
        }
    }

    /// Whether packets come in over it, from another interface than leads back.
    pub(super) fn is_tunnel(self) -> bool {
        match self {
            Self::Loopback | Self::Dummy => false,
            Self::Ipip | Self::Gre => true,
        }
    }
}

/// An interface's MTU where none is known.
const ETHERNET: u32 = 1500;

/// An IPv4 and a TCP header without options.
const HEADERS: u32 = 40;

impl Wanted {
    pub(super) fn new(file: &RealServerFile, observed: &Observed) -> Self {
        let ingress = ingress(file, observed);
        let mtus = ingress
            .iter()
            .filter_map(|name| observed.interfaces.get(name));
        let mtu = mtus.map(|it| it.mtu).min().unwrap_or(ETHERNET);
        let mut wanted = Self {
            ingress,
            ..Self::default()
        };
        for vip in &file.vip {
            let Some((name, device)) = carrier(file, vip) else {
                continue;
            };
            wanted.devices.insert(name.clone(), device);
            wanted.vips.insert(vip.address, name);
            if vip.forwarding == Forwarding::Tun {
                let mss = vip.mss.unwrap_or(room(mtu, vip.tunnel()));
                wanted.mss.insert(vip.address, mss);
                wanted.ports.extend(vip.tunnel().port);
            }
        }
        wanted
    }

    /// The interfaces at which packets come out of a tunnel.
    pub(super) fn tunnels(&self) -> impl Iterator<Item = &String> {
        let tunnels = self.devices.iter().filter(|(_, device)| device.is_tunnel());
        tunnels.map(|(name, _)| name)
    }
}

/// What carries a VIP; nothing where the host does not have it at all, which is so with NAT.
pub(super) fn carrier(file: &RealServerFile, vip: &RealServerVip) -> Option<(String, Device)> {
    let name = &file.real_server.vip_interface;
    match vip.forwarding {
        Forwarding::Dr if name == LOOPBACK => Some((name.clone(), Device::Loopback)),
        Forwarding::Dr => Some((name.clone(), Device::Dummy)),
        // What comes out of GUE is IPIP again.
        Forwarding::Tun => Some(match vip.tunnel().kind {
            TunnelKind::Ipip | TunnelKind::Gue => ("tunl0".to_owned(), Device::Ipip),
            TunnelKind::Gre => ("gre0".to_owned(), Device::Gre),
        }),
        Forwarding::Nat => None,
    }
}

fn ingress(file: &RealServerFile, observed: &Observed) -> BTreeSet<String> {
    let named = &file.real_server.ingress;
    if !named.is_empty() {
        return named.iter().cloned().collect();
    }
    let own = |interface: &Interface| {
        let mut addresses = interface.addresses.iter().map(|it| Vip(it.address));
        addresses.any(|it| file.vip.iter().all(|vip| vip.address != it))
    };
    observed
        .speaking_arp()
        .filter(|(_, interface)| interface.up && own(interface))
        .map(|(name, _)| name.clone())
        .collect()
}

/// The segment that a tunnel leaves room for in packets of this size.
pub(super) fn room(mtu: u32, tunnel: Tunnel) -> u16 {
    let segment = mtu.saturating_sub(overhead(tunnel) + HEADERS);
    u16::try_from(segment).unwrap_or(u16::MAX)
}

/// What a tunnel adds to a packet (`ip_vs_tunnel_xmit` in `ip_vs_xmit.c`): the outer IPv4 header
/// and that of the encapsulation.
fn overhead(tunnel: Tunnel) -> u32 {
    match (tunnel.kind, tunnel.checksum) {
        (TunnelKind::Ipip, _) => 20,
        // UDP and GUE; and GUE's private flags with the option behind them.
        (TunnelKind::Gue, TunnelChecksum::None | TunnelChecksum::Csum) => 20 + 8 + 4,
        (TunnelKind::Gue, TunnelChecksum::Remcsum) => 20 + 8 + 4 + 4 + 4,
        (TunnelKind::Gre, TunnelChecksum::None) => 20 + 4,
        (TunnelKind::Gre, TunnelChecksum::Csum | TunnelChecksum::Remcsum) => 20 + 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real_server::testing::{file, host};

    #[test]
    fn each_method_has_its_interface_and_nat_has_none() {
        let file = file(
            r#"
            [real_server]
            vip_interface = "vips"
            [[vip]]
            address = "10.99.0.1"
            forwarding = "dr"
            [[vip]]
            address = "10.99.0.2"
            forwarding = "tun"
            [[vip]]
            address = "10.99.0.3"
            forwarding = "tun"
            tunnel = { type = "gue", port = 6080 }
            [[vip]]
            address = "10.99.0.4"
            forwarding = "tun"
            tunnel = { type = "gre" }
            [[vip]]
            address = "10.99.0.5"
            forwarding = "nat"
            gateway = "10.1.0.1"
            "#,
        );
        let wanted = Wanted::new(&file, &host());
        let on: Vec<_> = wanted.vips.values().map(String::as_str).collect();
        assert_eq!(on, ["vips", "tunl0", "tunl0", "gre0"]);
        assert_eq!(wanted.ports, [6080].into());
        let mss: Vec<_> = wanted.mss.values().copied().collect();
        assert_eq!(mss, [1440, 1428, 1436], "of an MTU of 1500");
        assert_eq!(wanted.ingress, ["eth0".to_owned()].into());
    }
}
