//! The interfaces of this network namespace as the gate sees them.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{LinkAddr, SockaddrStorage};

use super::arp::Mac;

/// `ARPHRD_ETHER` of `linux/if_arp.h`: an interface with addresses of six bytes.
const ETHERNET: u16 = 1;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    /// Whether it is set up and has a carrier, as far as its driver knows.
    pub(super) running: bool,
    /// Whether a question in ARP could be answered on it.
    pub(super) arp: bool,
    /// Its address in the link layer; nothing where it has none of Ethernet's kind.
    pub(super) link: Option<LinkAddr>,
    /// Its IPv4 addresses with their networks.
    pub(super) addresses: Vec<Ipv4Net>,
}

impl Interface {
    pub(super) fn mac(&self) -> Option<Mac> {
        Some(Mac(self.link?.addr()?))
    }
}

/// The interfaces by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Interfaces(pub(super) BTreeMap<String, Interface>);

impl Interfaces {
    /// Asks the kernel, which answers from its memory.
    pub(super) fn read() -> io::Result<Self> {
        let mut interfaces: BTreeMap<String, Interface> = BTreeMap::new();
        for entry in getifaddrs()? {
            // An address with a label (`eth0:1`) is listed under that.
            let name = entry.interface_name.split(':').next().unwrap_or_default();
            let interface = interfaces
                .entry(name.to_owned())
                .or_insert_with(|| Interface::new(entry.flags));
            let Some(address) = entry.address else {
                continue;
            };
            if let Some(link) = address.as_link_addr() {
                interface.link = (link.hatype() == ETHERNET).then_some(*link);
            }
            interface
                .addresses
                .extend(network(&address, entry.netmask.as_ref()));
        }
        Ok(Self(interfaces))
    }

    /// Whether an interface is there and can carry packets.
    pub(super) fn runs(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|interface| interface.running)
    }

    /// The interface that `address` is directly connected to: the one with the longest of the
    /// networks that contain it.
    pub(super) fn towards(&self, address: Ipv4Addr) -> Option<(&str, &Interface)> {
        let networks = self.0.iter().flat_map(|(name, interface)| {
            let networks = interface.addresses.iter();
            networks.map(move |network| (network, name.as_str(), interface))
        });
        networks
            .filter(|(network, ..)| network.contains(&address))
            .max_by_key(|(network, ..)| network.prefix_len())
            .map(|(_, name, interface)| (name, interface))
    }

    /// The interfaces on which somebody could answer for an address: broadcast links with an
    /// address of ours, the VIPs' own interface aside.
    pub(super) fn to_ask(&self, vip_interface: &str) -> Vec<(String, Interface)> {
        let asked = |(name, interface): &(&String, &Interface)| {
            *name != vip_interface
                && interface.running
                && interface.arp
                && interface.link.is_some()
                && !interface.addresses.is_empty()
        };
        let interfaces = self.0.iter().filter(asked);
        interfaces
            .map(|(name, interface)| (name.clone(), interface.clone()))
            .collect()
    }

    /// Whether a link-layer address is one of this director's.
    pub(super) fn owns(&self, mac: Mac) -> bool {
        let mut interfaces = self.0.values();
        interfaces.any(|interface| interface.mac() == Some(mac))
    }
}

impl Interface {
    fn new(flags: InterfaceFlags) -> Self {
        let running = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        let deaf = InterfaceFlags::IFF_NOARP | InterfaceFlags::IFF_LOOPBACK;
        Self {
            running: flags.contains(running),
            arp: flags.contains(InterfaceFlags::IFF_BROADCAST) && !flags.intersects(deaf),
            link: None,
            addresses: Vec::new(),
        }
    }
}

fn network(address: &SockaddrStorage, netmask: Option<&SockaddrStorage>) -> Option<Ipv4Net> {
    let address = address.as_sockaddr_in()?.ip();
    let netmask = netmask?.as_sockaddr_in()?.ip();
    Ipv4Net::with_netmask(address, netmask).ok()
}
