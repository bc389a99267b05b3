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

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::destination::{DestinationSpec, Forwarding, Tunnel};
use crate::service::{Family, ServiceKey};
use crate::stats::Stats;

/// `IP_VS_SO_GET_SERVICE`.
const GET_SERVICE: libc::c_int = 64 + 1024 + 64 + 3;
/// `IP_VS_SO_GET_DESTS`.
const GET_DESTS: libc::c_int = 64 + 1024 + 64 + 4;

/// The bits of `conn_flags` that say how packets reach a destination; netlink says no others
/// either.
const FORWARDING_MASK: u32 = 7;

/// What the memory is filled with that the kernel writes destinations into, since it does not
/// say how many it wrote. No destination has such `conn_flags`.
const UNWRITTEN: u8 = 0xff;

/// The most destinations of a service that are asked for: 6 MiB. The kernel computes the length
/// as an `int`.
const MOST: usize = 1 << 16;

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
struct ServiceEntry {
    identity: Identity,
    sched_name: [u8; 16],
    flags: u32,
    timeout: u32,
    netmask: u32,
    num_dests: u32,
    stats: StatsUser,
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
fn destinations(bytes: &[u8], count: usize, found: &mut Vec<DestinationEntry>) -> bool {
    found.clear();
    for entry in bytes.as_chunks().0 {
        let Some(entry) = DestinationEntry::parse(entry).filter(|_| is_written(entry)) else {
            break;
        };
        found.push(entry);
    }
    found.len() == count
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

/// A socket that has the options, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct EntrySocket {
    socket: OwnedFd,
    bytes: Vec<u8>,
    found: Vec<DestinationEntry>,
}

impl EntrySocket {
    pub(crate) fn open() -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC;
        // Every IPv4 socket has them; this kind needs no capability of its own.
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        Ok(Self {
            socket,
            bytes: Vec::new(),
            found: Vec::new(),
        })
    }

    /// A service's destinations in the kernel's order, until the next call; nothing where it is
    /// not there, or where the kernel does not say them all: those of an IPv6 service, or IPv6
    /// ones in another.
    pub(crate) fn destinations(
        &mut self,
        key: &ServiceKey,
    ) -> Result<Option<&[DestinationEntry]>, Errno> {
        let Some(identity) = identity(key) else {
            return Ok(None);
        };
        let Some(count) = self.count(&identity)? else {
            return Ok(None);
        };
        // With room for one more it shows when one was added meanwhile.
        let room = count.saturating_add(1);
        let Some(rooms) = usize::try_from(room).ok().filter(|it| *it <= MOST) else {
            return Ok(None);
        };
        let start = offset_of!(GetDests, entrytable);
        self.fill(start + rooms * size_of::<DestEntry>(), &identity);
        let num_dests = offset_of!(GetDests, num_dests);
        self.bytes[num_dests..num_dests + 4].copy_from_slice(&room.to_ne_bytes());
        if !self.ask(GET_DESTS)? {
            return Ok(None);
        }
        let all = destinations(&self.bytes[start..], rooms - 1, &mut self.found);
        Ok(all.then_some(&self.found))
    }

    /// How many destinations a service has, also those that the kernel does not say; nothing
    /// where it is not there.
    fn count(&mut self, identity: &[u8]) -> Result<Option<u32>, Errno> {
        self.fill(size_of::<ServiceEntry>(), identity);
        if !self.ask(GET_SERVICE)? {
            return Ok(None);
        }
        let count = field(&self.bytes, offset_of!(ServiceEntry, num_dests));
        Ok(count.map(u32::from_ne_bytes))
    }

    fn fill(&mut self, length: usize, identity: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(identity);
        self.bytes.resize(length, UNWRITTEN);
    }

    /// Has the kernel write its answer over the question; whether there is such a service.
    fn ask(&mut self, option: libc::c_int) -> Result<bool, Errno> {
        match retry_on_intr(|| getsockopt(self.socket.as_fd(), option, &mut self.bytes)) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

/// Asks for an option of IPVS, whose question stands where the answer goes.
fn getsockopt(socket: BorrowedFd<'_>, option: libc::c_int, bytes: &mut [u8]) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(bytes.len());
    let mut length = length.map_err(|_| Errno::INVAL)?;
    #[expect(
        unsafe_code,
        reason = "no safe wrapper of getsockopt(2) that takes any option is among our crates"
    )]
    // SAFETY: the kernel writes no more than `length` bytes from the pointer on, which are those
    // of `bytes`, borrowed for as long as the call lasts, and any bytes are valid there. It reads
    // and writes `length` itself, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
}

#[cfg(test)]
mod tests;
