//! The kernel's older interface: options of an IPv4 socket, which answer with C structures.
//!
//! The kernel writes a service's destinations into the caller's memory in one call, where a
//! netlink dump takes three and has an attribute for each number: ten times as long. But it says
//! less: nothing of IPv6, of tunnels or of what only newer kernels know, and most counters have
//! 32 bits. It serves to find out what did not change since it was read over netlink.
//!
//! The structures are those of `linux/ip_vs.h`, the calls those of `do_ip_vs_get_ctl`
//! (`ip_vs_ctl.c`). The kernel refuses a length that is not that of its own structures, so that a
//! kernel with others is an error and not a misunderstanding.

mod socket;

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use crate::destination::{DestinationSpec, Forwarding, Tunnel};
use crate::flags::ServiceFlags;
use crate::scheduler::Scheduler;
use crate::service::{Netmask, Persistence, Protocol, ServiceKey, ServiceSpec};
use crate::stats::Stats;
use isopath_mh::Family;

pub(crate) use socket::EntrySocket;
pub use socket::Fingerprint;

/// The bits of `conn_flags` that say how packets reach a destination; netlink says no others
/// either.
const FORWARDING_MASK: u32 = 7;

/// What the memory is filled with that the kernel writes entries into, since it does not say how
/// many it wrote. No destination has such `conn_flags`, and no service so many destinations.
const UNWRITTEN: u8 = 0xff;

// Of these structures nothing but the layout is used, which is the compiler's for C.

/// What identifies a service in the two structures that one is asked for with.
#[repr(C)]
struct Identity {
    protocol: u16,
    addr: u32,
    port: u16,
    fwmark: u32,
}

/// `struct ip_vs_stats_user`.
#[repr(C)]
struct StatsUser {
    conns: u32,
    inpkts: u32,
    outpkts: u32,
    inbytes: u64,
    outbytes: u64,
    cps: u32,
    inpps: u32,
    outpps: u32,
    inbps: u32,
    outbps: u32,
}

/// `struct ip_vs_service_entry`.
#[repr(C)]
struct ServiceEntryLayout {
    identity: Identity,
    sched_name: [u8; 16],
    flags: u32,
    timeout: u32,
    netmask: u32,
    num_dests: u32,
    stats: StatsUser,
}

/// `struct ip_vs_getinfo`.
#[repr(C)]
struct GetInfo {
    version: u32,
    size: u32,
    num_services: u32,
}

/// `struct ip_vs_get_services`.
#[repr(C)]
struct GetServices {
    num_services: u32,
    entrytable: [ServiceEntryLayout; 0],
}

/// `struct ip_vs_get_dests`.
#[repr(C)]
struct GetDests {
    identity: Identity,
    num_dests: u32,
    entrytable: [DestEntry; 0],
}

/// `struct ip_vs_dest_entry`.
#[repr(C)]
struct DestEntry {
    addr: u32,
    port: u16,
    conn_flags: u32,
    weight: i32,
    u_threshold: u32,
    l_threshold: u32,
    activeconns: u32,
    inactconns: u32,
    persistconns: u32,
    stats: StatsUser,
}

/// A service as the kernel's older interface says it: most of a [`Service`](crate::Service).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Its identity.
    pub key: ServiceKey,
    /// How it picks a destination.
    pub scheduler: Scheduler,
    /// Its flags, without [`ServiceFlags::HASHED`].
    pub flags: ServiceFlags,
    /// Its persistence.
    pub persistence: Persistence,
    /// How many destinations it has, also those that this interface does not say.
    pub destinations: u32,
    /// Its counters: bytes whole, of all others the lower 32 bits, see [`Stats::narrow`].
    pub stats: Stats,
}

impl ServiceEntry {
    /// Whether an entry can say all that there is to such a service: IPv4, no persistence, whose
    /// engine it does not say, and no [unknown attribute](ServiceSpec::unknown).
    pub fn can_say(spec: &ServiceSpec) -> bool {
        spec.key.family() == Family::V4
            && !spec.flags.contains(ServiceFlags::PERSISTENT)
            && spec.persistence_engine.is_none()
            && spec.unknown.is_empty()
    }

    /// Whether it is exactly that service, its destinations aside. An engine that the kernel keeps
    /// for a service without persistence, and an attribute that is new to the library, are taken
    /// for unchanged: they have to be looked for over netlink now and then.
    pub fn is(&self, spec: &ServiceSpec) -> bool {
        Self::can_say(spec)
            && self.key == spec.key
            && self.scheduler == spec.scheduler
            && self.flags == spec.flags
            && self.persistence == spec.persistence
    }

    /// Reads a `struct ip_vs_service_entry`; nothing where it has not been written, or says what
    /// none has.
    fn parse(bytes: &[u8; size_of::<ServiceEntryLayout>()]) -> Option<Self> {
        let number = |offset| Some(u32::from_ne_bytes(field(bytes, offset)?));
        let name: [u8; 16] = field(bytes, offset_of!(ServiceEntryLayout, sched_name))?;
        let name = name.split(|byte| *byte == 0).next()?;
        let flags = number(offset_of!(ServiceEntryLayout, flags))?;
        let netmask = field(bytes, offset_of!(ServiceEntryLayout, netmask))?;
        Some(Self {
            key: key(field(bytes, offset_of!(ServiceEntryLayout, identity))?)?,
            scheduler: Scheduler::from(std::str::from_utf8(name).ok()?),
            flags: ServiceFlags::from_bits(flags).without(ServiceFlags::HASHED),
            persistence: Persistence {
                timeout: number(offset_of!(ServiceEntryLayout, timeout))?,
                netmask: Netmask::V4(Ipv4Addr::from(netmask)),
            },
            destinations: number(offset_of!(ServiceEntryLayout, num_dests))?,
            stats: stats(bytes.get(offset_of!(ServiceEntryLayout, stats)..)?)?,
        })
    }
}

/// A destination as the kernel's older interface says it: most of a
/// [`Destination`](crate::Destination), ten times as fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DestinationEntry {
    /// Its address and port.
    pub address: SocketAddrV4,
    /// How packets reach it.
    pub forwarding: Forwarding,
    /// Its weight.
    pub weight: u32,
    /// From this many connections on it takes no more; 0 for no limit.
    pub upper_threshold: u32,
    /// Below this many it takes connections again.
    pub lower_threshold: u32,
    /// Its active connections.
    pub active: u32,
    /// Its inactive connections.
    pub inactive: u32,
    /// Its persistence templates.
    pub persistent: u32,
    /// Its counters: bytes whole, of all others the lower 32 bits, see [`Stats::narrow`].
    pub stats: Stats,
}

impl DestinationEntry {
    /// Whether an entry can say all that there is to such a destination: no tunnel, no IPv6, no
    /// [unknown attribute](DestinationSpec::unknown).
    pub fn can_say(spec: &DestinationSpec) -> bool {
        let plain = match spec.forwarding {
            Forwarding::Masquerade
            | Forwarding::Local
            | Forwarding::DirectRoute
            | Forwarding::Bypass => true,
            Forwarding::Tunnel | Forwarding::Unknown(_) => false,
        };
        plain
            && spec.address.is_ipv4()
            && spec.tunnel == Tunnel::default()
            && spec.unknown.is_empty()
    }

    /// Whether it is exactly that destination. The tunnel's options, which the kernel also keeps
    /// where no packet goes through a tunnel, are taken for unchanged there.
    pub fn is(&self, spec: &DestinationSpec) -> bool {
        Self::can_say(spec)
            && spec.address == self.address.into()
            && spec.forwarding == self.forwarding
            && spec.weight == self.weight
            && spec.upper_threshold == self.upper_threshold
            && spec.lower_threshold == self.lower_threshold
    }

    /// Reads a `struct ip_vs_dest_entry`; nothing only if its layout had a field outside of it.
    fn parse(bytes: &[u8; size_of::<DestEntry>()]) -> Option<Self> {
        let address = Ipv4Addr::from(field(bytes, offset_of!(DestEntry, addr))?);
        let port = u16::from_be_bytes(field(bytes, offset_of!(DestEntry, port))?);
        let number = |offset| Some(u32::from_ne_bytes(field(bytes, offset)?));
        let conn_flags = number(offset_of!(DestEntry, conn_flags))?;
        Some(Self {
            address: SocketAddrV4::new(address, port),
            forwarding: Forwarding::from_number(conn_flags & FORWARDING_MASK),
            weight: number(offset_of!(DestEntry, weight))?,
            upper_threshold: number(offset_of!(DestEntry, u_threshold))?,
            lower_threshold: number(offset_of!(DestEntry, l_threshold))?,
            active: number(offset_of!(DestEntry, activeconns))?,
            inactive: number(offset_of!(DestEntry, inactconns))?,
            persistent: number(offset_of!(DestEntry, persistconns))?,
            stats: stats(bytes.get(offset_of!(DestEntry, stats)..)?)?,
        })
    }
}

/// Reads a `struct ip_vs_stats_user`.
fn stats(bytes: &[u8]) -> Option<Stats> {
    let narrow = |offset| Some(u64::from(u32::from_ne_bytes(field(bytes, offset)?)));
    let wide = |offset| Some(u64::from_ne_bytes(field(bytes, offset)?));
    Some(Stats {
        connections: narrow(offset_of!(StatsUser, conns))?,
        in_packets: narrow(offset_of!(StatsUser, inpkts))?,
        out_packets: narrow(offset_of!(StatsUser, outpkts))?,
        in_bytes: wide(offset_of!(StatsUser, inbytes))?,
        out_bytes: wide(offset_of!(StatsUser, outbytes))?,
        connections_per_second: narrow(offset_of!(StatsUser, cps))?,
        in_packets_per_second: narrow(offset_of!(StatsUser, inpps))?,
        out_packets_per_second: narrow(offset_of!(StatsUser, outpps))?,
        in_bytes_per_second: narrow(offset_of!(StatsUser, inbps))?,
        out_bytes_per_second: narrow(offset_of!(StatsUser, outbps))?,
    })
}

/// Reads the destinations that the kernel wrote, of which a service has `count`, into `found`;
/// whether these are all. There are fewer where it does not say them all, and more where one was
/// added since they were counted: both are not known then.
fn destinations(bytes: &[u8], count: u32, found: &mut Vec<DestinationEntry>) -> bool {
    found.clear();
    for entry in bytes.as_chunks().0 {
        let Some(entry) = DestinationEntry::parse(entry).filter(|_| is_written(entry)) else {
            break;
        };
        found.push(entry);
    }
    u32::try_from(found.len()) == Ok(count)
}

/// Whether the kernel has written here.
fn is_written(entry: &[u8; size_of::<DestEntry>()]) -> bool {
    field(entry, offset_of!(DestEntry, conn_flags)) != Some([UNWRITTEN; 4])
}

/// The bytes of a field.
fn field<const SIZE: usize>(bytes: &[u8], offset: usize) -> Option<[u8; SIZE]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// What a service is asked for with; nothing for one that the kernel does not say here.
fn identity(key: &ServiceKey) -> Option<[u8; size_of::<Identity>()]> {
    let mut bytes = [0; size_of::<Identity>()];
    let mut put = |offset: usize, value: &[u8]| {
        bytes[offset..offset + value.len()].copy_from_slice(value);
    };
    match *key {
        ServiceKey::Address { protocol, address } => {
            let IpAddr::V4(ip) = address.ip() else {
                return None;
            };
            let protocol = protocol.number().to_ne_bytes();
            put(offset_of!(Identity, protocol), &protocol);
            put(offset_of!(Identity, addr), &ip.octets());
            put(offset_of!(Identity, port), &address.port().to_be_bytes());
        }
        ServiceKey::Mark {
            family: Family::V4,
            mark,
        } => put(offset_of!(Identity, fwmark), &mark.to_ne_bytes()),
        ServiceKey::Mark {
            family: Family::V6, ..
        } => return None,
    }
    Some(bytes)
}

/// The service that an entry is of: the kernel writes an address of 0 for one by mark.
fn key(identity: [u8; size_of::<Identity>()]) -> Option<ServiceKey> {
    let mark = u32::from_ne_bytes(field(&identity, offset_of!(Identity, fwmark))?);
    if mark != 0 {
        return Some(ServiceKey::mark(Family::V4, mark));
    }
    let protocol = u16::from_ne_bytes(field(&identity, offset_of!(Identity, protocol))?);
    let address = Ipv4Addr::from(field(&identity, offset_of!(Identity, addr))?);
    let port = u16::from_be_bytes(field(&identity, offset_of!(Identity, port))?);
    let address = SocketAddrV4::new(address, port).into();
    Some(ServiceKey::address(
        Protocol::from_number(protocol),
        address,
    ))
}

#[cfg(test)]
mod tests;
