//! The socket that answers with these structures.

use std::hash::BuildHasher;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use foldhash::quality::RandomState;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::{
    DestEntry, DestinationEntry, GetDests, GetInfo, GetServices, Identity, ServiceEntry,
    ServiceEntryLayout, UNWRITTEN, destinations, field, identity,
};
use crate::service::ServiceKey;

/// `IP_VS_SO_GET_INFO`.
const GET_INFO: libc::c_int = 64 + 1024 + 64 + 1;
/// `IP_VS_SO_GET_SERVICES`.
const GET_SERVICES: libc::c_int = 64 + 1024 + 64 + 2;
/// `IP_VS_SO_GET_SERVICE`.
const GET_SERVICE: libc::c_int = 64 + 1024 + 64 + 3;
/// `IP_VS_SO_GET_DESTS`.
const GET_DESTS: libc::c_int = 64 + 1024 + 64 + 4;

/// The most services, and destinations of a service, that are asked for: less than 7 MiB. The
/// kernel computes the length as an `int`.
const MOST: usize = 1 << 16;

/// Where destinations begin.
const ENTRIES: usize = offset_of!(GetDests, entrytable);

/// A `struct ip_vs_service_entry` as the kernel wrote it.
type RawService = [u8; size_of::<ServiceEntryLayout>()];

/// What the kernel's older interface said of all services and their destinations, as hashes of 64
/// bits, for [`Ipvs::is_still`](crate::Ipvs::is_still) of the same connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    services: u64,
    /// Of the destinations of each, in the order in which the kernel says the services.
    destinations: Box<[u64]>,
}

/// A socket that has the options, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct EntrySocket {
    socket: OwnedFd,
    hasher: RandomState,
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
            hasher: RandomState::default(),
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
        self.fill(size_of::<ServiceEntryLayout>(), &identity);
        if !self.ask(GET_SERVICE)? {
            return Ok(None);
        }
        let Some(count) = self.bytes.first_chunk().and_then(count) else {
            return Ok(None);
        };
        if !self.ask_destinations(&identity, count)? {
            return Ok(None);
        }
        let all = destinations(&self.bytes[ENTRIES..], count, &mut self.found);
        Ok(all.then_some(&self.found))
    }

    /// Folds all IPv4 services and their destinations, and says what they were. It ends with
    /// nothing where `fold` does, where the kernel does not say a service's destinations all, and
    /// where services came or went meanwhile.
    pub(crate) fn try_fold<T>(
        &mut self,
        init: T,
        mut fold: impl FnMut(T, &ServiceEntry, &[DestinationEntry]) -> Option<T>,
    ) -> Result<Option<(T, Fingerprint)>, Errno> {
        let Some(services) = self.services()? else {
            return Ok(None);
        };
        let services = raw_services(&services);
        let mut hashes = Vec::with_capacity(services.len());
        let mut folded = init;
        for raw in services {
            let Some(service) = ServiceEntry::parse(raw) else {
                return Ok(None);
            };
            let count = service.destinations;
            if !self.ask_destinations(identity_of(raw), count)? {
                return Ok(None);
            }
            hashes.push(self.hasher.hash_one(&*self.bytes));
            if !destinations(&self.bytes[ENTRIES..], count, &mut self.found) {
                return Ok(None);
            }
            match fold(folded, &service, &self.found) {
                Some(next) => folded = next,
                None => return Ok(None),
            }
        }
        let fingerprint = Fingerprint {
            services: self.hasher.hash_one(services.as_flattened()),
            destinations: hashes.into(),
        };
        Ok(Some((folded, fingerprint)))
    }

    /// Whether the kernel says of everything what it said then; not where it is `given_up`.
    pub(crate) fn is_still(
        &mut self,
        then: &Fingerprint,
        given_up: impl Fn() -> bool,
    ) -> Result<bool, Errno> {
        let Some(services) = self.services()? else {
            return Ok(false);
        };
        let services = raw_services(&services);
        if self.hasher.hash_one(services.as_flattened()) != then.services {
            return Ok(false);
        }
        for (raw, then) in services.iter().zip(&then.destinations) {
            let Some(count) = count(raw) else {
                return Ok(false);
            };
            let asked = !given_up() && self.ask_destinations(identity_of(raw), count)?;
            // What the kernel left unwritten counts as well: as many are written as were then.
            if !asked || self.hasher.hash_one(&*self.bytes) != *then {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All IPv4 services as the kernel wrote them; nothing where one came or went meanwhile.
    fn services(&mut self) -> Result<Option<Vec<u8>>, Errno> {
        self.fill(size_of::<GetInfo>(), &[]);
        self.ask(GET_INFO)?;
        let there = field(&self.bytes, offset_of!(GetInfo, num_services));
        let there = there.map_or(0, u32::from_ne_bytes);
        let Some((room, rooms)) = room_for(there) else {
            return Ok(None);
        };
        let start = offset_of!(GetServices, entrytable);
        let length = start + rooms * size_of::<ServiceEntryLayout>();
        self.fill(length, &room.to_ne_bytes());
        self.ask(GET_SERVICES)?;
        let services = raw_services(&self.bytes[start..]);
        let written = services.iter().take_while(|raw| count(raw).is_some());
        if written.count() != rooms - 1 {
            return Ok(None);
        }
        Ok(services
            .split_last()
            .map(|(_, all)| all.as_flattened().to_vec()))
    }

    /// Asks for the destinations of a service that has so many, which stand in the memory then;
    /// whether it is there and they are not too many.
    fn ask_destinations(&mut self, identity: &[u8], count: u32) -> Result<bool, Errno> {
        let Some((room, rooms)) = room_for(count) else {
            return Ok(false);
        };
        self.fill(ENTRIES + rooms * size_of::<DestEntry>(), identity);
        let num_dests = offset_of!(GetDests, num_dests);
        self.bytes[num_dests..num_dests + 4].copy_from_slice(&room.to_ne_bytes());
        self.ask(GET_DESTS)
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

fn raw_services(bytes: &[u8]) -> &[RawService] {
    bytes.as_chunks().0
}

/// The part of a service that one is asked for with.
fn identity_of(raw: &RawService) -> &[u8] {
    &raw[..size_of::<Identity>()]
}

/// How many destinations a service has; nothing where none has been written.
fn count(raw: &RawService) -> Option<u32> {
    let count = field(raw, offset_of!(ServiceEntryLayout, num_dests))?;
    (count != [UNWRITTEN; 4]).then(|| u32::from_ne_bytes(count))
}

/// Room for one more than there are, so that it shows when one was added meanwhile; nothing where
/// that is too much to be asked for.
fn room_for(count: u32) -> Option<(u32, usize)> {
    let room = count.checked_add(1)?;
    let rooms = usize::try_from(room).ok().filter(|it| *it <= MOST)?;
    Some((room, rooms))
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
