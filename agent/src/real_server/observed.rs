//! What a real server's kernel has, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use isopath_api::ids::Vip;
use serde::{Deserialize, Serialize};

/// What the kernel has of what concerns a real server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// Which kernel and which network of it.
    pub(super) place: Place,
    /// All interfaces.
    pub(super) interfaces: BTreeMap<String, Interface>,
    /// The settings of `net/ipv4/conf/all`.
    pub(super) all: Conf,
    /// The UDP ports on which GUE packets are taken.
    pub(super) ports: BTreeSet<u16>,
    /// The MSS that SYNs from a VIP are lowered to by our table.
    pub(super) mss: BTreeMap<Vip, u16>,
    /// The next hops of the default routes.
    pub(super) gateways: BTreeSet<Ipv4Addr>,
    /// The sockets that take connections or packets.
    pub(super) listening: BTreeSet<Listening>,
}

/// A network of a kernel since its boot: what was written down in another one says nothing
/// about this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The kernel's `random/boot_id`.
    pub(super) boot_id: String,
    /// The network namespace, as `/proc/self/ns/net` names it.
    pub(super) namespace: String,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Interface {
    /// The kernel's number of it.
    pub(super) index: u32,
    /// Whether it is up.
    pub(super) up: bool,
    /// Whether it speaks ARP: neither a loopback, nor marked NOARP, nor a port of a bridge, bond
    /// or team, which speaks in its place.
    pub(super) arp: bool,
    /// The kernel's name of its kind; nothing for hardware and `lo`.
    pub(super) kind: Option<String>,
    /// Its MTU.
    pub(super) mtu: u32,
    /// Its IPv4 addresses.
    pub(super) addresses: BTreeSet<Address>,
    /// Its settings.
    pub(super) conf: Conf,
}

/// An IPv4 address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) address: Ipv4Addr,
    /// The length of its prefix.
    pub(super) length: u8,
    /// Whether its scope is the host.
    pub(super) host_scope: bool,
}

/// The settings of one folder of `net/ipv4/conf` that matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Conf {
    pub(super) arp_ignore: u32,
    pub(super) arp_announce: u32,
    pub(super) rp_filter: u32,
}

/// A socket that takes connections or packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listening {
    pub(super) transport: Transport,
    /// What it is bound to, the unspecified address included.
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// One of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Setting {
    ArpIgnore,
    ArpAnnounce,
    RpFilter,
}

impl Setting {
    pub(super) const ALL: [Self; 3] = [Self::ArpIgnore, Self::ArpAnnounce, Self::RpFilter];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ArpIgnore => "arp_ignore",
            Self::ArpAnnounce => "arp_announce",
            Self::RpFilter => "rp_filter",
        }
    }

    /// Its name for an interface or `all`, as under `/proc/sys`.
    pub(super) fn key(self, interface: &str) -> String {
        format!("net/ipv4/conf/{interface}/{}", self.name())
    }
}

impl Conf {
    pub(super) fn value(&self, setting: Setting) -> u32 {
        match setting {
            Setting::ArpIgnore => self.arp_ignore,
            Setting::ArpAnnounce => self.arp_announce,
            Setting::RpFilter => self.rp_filter,
        }
    }

    pub(super) fn set(&mut self, setting: Setting, value: u32) {
        match setting {
            Setting::ArpIgnore => self.arp_ignore = value,
            Setting::ArpAnnounce => self.arp_announce = value,
            Setting::RpFilter => self.rp_filter = value,
        }
    }
}

impl Observed {
    /// What counts on an interface: the greater of its own value and that of `all`
    /// (`IN_DEV_MAXCONF` in `linux/inetdevice.h`), for each of the three.
    pub(super) fn effective(&self, setting: Setting, interface: &Interface) -> u32 {
        let own = interface.conf.value(setting);
        own.max(self.all.value(setting))
    }

    /// The value of a sysctl, by its name as under `/proc/sys`; nothing for what is not there.
    pub(super) fn sysctl(&self, key: &str) -> Option<u32> {
        let (folder, name) = key.strip_prefix("net/ipv4/conf/")?.rsplit_once('/')?;
        let setting = Setting::ALL.into_iter().find(|it| it.name() == name)?;
        let conf = match folder {
            "all" => &self.all,
            interface => &self.interfaces.get(interface)?.conf,
        };
        Some(conf.value(setting))
    }

    /// Whether a VIP is on an interface as it has to be, as a single host.
    pub(super) fn carries(&self, interface: &str, vip: Vip) -> bool {
        self.interfaces
            .get(interface)
            .is_some_and(|it| it.carries(vip))
    }

    /// The interfaces that speak ARP, with their names.
    pub(super) fn speaking_arp(&self) -> impl Iterator<Item = (&String, &Interface)> {
        self.interfaces.iter().filter(|(_, it)| it.arp)
    }
}

impl Interface {
    fn carries(&self, vip: Vip) -> bool {
        self.addresses
            .iter()
            .any(|it| it.address == vip.0 && it.length == 32)
    }
}

/// Whether an interface on which this `arp_ignore` counts answers for a local address, which is
/// on the interface itself or `elsewhere` on the host (`arp_ignore` in `net/ipv4/arp.c`).
pub(super) fn answers_arp(arp_ignore: u32, elsewhere: bool, host_scope: bool) -> bool {
    match arp_ignore {
        // 2 also asks for a sender of the same subnet, which a single host's address has not.
        1 | 2 => !elsewhere,
        3 => !host_scope,
        8 => false,
        // 0, and the values that the kernel has reserved and takes for 0.
        _ => true,
    }
}

/// Whether this `arp_ignore` keeps every interface silent about addresses of others.
pub(super) fn silent(arp_ignore: u32) -> bool {
    !answers_arp(arp_ignore, true, false)
}

/// The `arp_announce` with which an address of another interface is never the sender in a
/// question. The kernel takes greater values for 0 (`arp_solicit` in `net/ipv4/arp.c`).
pub(super) const ARP_ANNOUNCE: u32 = 2;

/// The `rp_filter` that drops what came in over another interface than leads back.
pub(super) const STRICT: u32 = 1;

/// The `rp_filter` that only drops what no route leads back to.
pub(super) const LOOSE: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_answers_as_arp_c_has_it() {
        // arp_ignore, of another interface, host scope: whether it answers.
        let table = [
            (0, true, false, true),
            (0, true, true, true),
            (0, false, false, true),
            (1, true, false, false),
            (1, false, false, true),
            (2, true, false, false),
            (2, false, false, true),
            (3, true, false, true),
            (3, true, true, false),
            (4, true, true, true),
            (7, true, false, true),
            (8, true, false, false),
            (8, false, false, false),
            (9, true, false, true),
        ];
        for (value, elsewhere, host_scope, expected) in table {
            let found = answers_arp(value, elsewhere, host_scope);
            assert_eq!(found, expected, "{value} {elsewhere} {host_scope}");
        }
    }

    #[test]
    fn a_sysctl_is_found_by_its_name() {
        let mut observed = Observed::default();
        observed.all.arp_announce = 2;
        let mut interface = Interface::default();
        interface.conf.rp_filter = 1;
        // VLAN interfaces have dots in their names.
        observed.interfaces.insert("eth0.7".to_owned(), interface);
        let value = |key| observed.sysctl(key);
        assert_eq!(value("net/ipv4/conf/all/arp_announce"), Some(2));
        assert_eq!(value("net/ipv4/conf/eth0.7/rp_filter"), Some(1));
        assert_eq!(value("net/ipv4/conf/eth1/rp_filter"), None);
        assert_eq!(value("net/ipv4/ip_forward"), None);
    }
}
