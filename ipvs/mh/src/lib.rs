//! The table of the scheduler `mh`, computed as the kernel computes it.
//!
//! Maglev hashing fills a table of a few thousand slots with a service's destinations; a client's
//! address (and port, with `mh-port`) picks the slot. The hash's keys are written
//! in the kernel, so that equal lists give equal tables on every machine, and a program can tell
//! beforehand which clients a change of the list would move. This is `ip_vs_mh.c` of Linux 4.18
//! and later on machines of 64 bits; the hash of those of 32 bits is another one
//! (`lib/siphash.c`).
//!
//! What decides is the *order* of the kernel's list, which begins with the destination added
//! last, and each one's last weight other than 0: a destination that is set to weight 0 keeps its
//! slots.
//!
//! ```
//! use isopath_mh::{ClientHash, Family, Table};
//!
//! let servers = [("10.1.0.12:80".parse()?, 1), ("10.1.0.11:80".parse()?, 1)];
//! let table = Table::new(Family::V4, &servers);
//! let slot = table.slot("192.0.2.1:4711".parse()?, ClientHash::AddressAndPort);
//! assert!(table.destination(slot).is_some());
//!
//! // The same in the other order.
//! let other = Table::new(Family::V4, &[servers[1], servers[0]]);
//! assert_ne!(table.differing_slots(&other), 0);
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
//!
//!
use std::net::{IpAddr, SocketAddr};

/// The family of a service's or a destination's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `address`.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// The sizes that a kernel can be built with (`primes`).
const PRIMES: [u32; 10] = [
    251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131_071,
];

/// The keys of the two hashes (`generate_hash_secret`), each written twice.
const HASH1: u64 = 2_654_435_761;
const HASH2: u64 = 2_654_446_892;

/// How large the kernel's tables are: `CONFIG_IP_VS_MH_TAB_INDEX`, from 8 to 17.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableIndex(u8);

impl TableIndex {
    /// The kernel's default, and that of Debian and Ubuntu: 4093 slots.
    pub const DEFAULT: Self = Self(12);

    /// The index with this number; none where no kernel can be built with it.
    pub fn new(number: u8) -> Option<Self> {
        (8..=17).contains(&number).then_some(Self(number))
    }

    /// The number of slots.
    pub fn slots(self) -> u32 {
        PRIMES[usize::from(self.0) - 8]
    }

    /// How many bits of a weight count (`IP_VS_MH_TAB_BITS`).
    fn weight_bits(self) -> u32 {
        u32::from(self.0) / 2
    }
}

impl Default for TableIndex {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What of a client is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientHash {
    /// Its address.
    Address,
    /// Its address and port: the service has `mh-port`.
    AddressAndPort,
}

/// A table as the kernel has it for one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    family: Family,
    destinations: Box<[SocketAddr]>,
    /// For each slot an index of `destinations`; empty where the kernel's table is.
    slots: Box<[u32]>,
    index: TableIndex,
}

impl Table {
    /// The table of a service of that family with these destinations, in the kernel's order, each
    /// with its last weight other than 0; 0 for one that never had another.
    pub fn new(family: Family, destinations: &[(SocketAddr, u32)]) -> Self {
        Self::with_index(TableIndex::DEFAULT, family, destinations)
    }

    /// The same in a kernel that was built with another table size.
    pub fn with_index(
        index: TableIndex,
        family: Family,
        destinations: &[(SocketAddr, u32)],
    ) -> Self {
        let setups = setups(index, family, destinations);
        Self {
            family,
            destinations: destinations.iter().map(|(address, _)| *address).collect(),
            slots: populate(index, setups),
            index,
        }
    }

    /// The number of slots, also where all are empty.
    pub fn size(&self) -> usize {
        self.index.slots() as usize
    }

    /// The destination in a slot; none where no destination has a weight.
    pub fn destination(&self, slot: usize) -> Option<SocketAddr> {
        let at = *self.slots.get(slot)?;
        self.destinations.get(at as usize).copied()
    }

    /// The destinations, slot by slot.
    pub fn iter(&self) -> impl Iterator<Item = Option<SocketAddr>> {
        (0..self.size()).map(|slot| self.destination(slot))
    }

    /// The slot that a client looks into (`ip_vs_mh_get`).
    pub fn slot(&self, client: SocketAddr, hash: ClientHash) -> usize {
        self.slot_with_offset(client, hash, 0)
    }

    /// The destination that a client is sent to when those that `available` denies are
    /// overloaded or have weight 0. Without `mh-fallback` there is none
    /// where the first one looked at is not available.
    pub fn select(
        &self,
        client: SocketAddr,
        hash: ClientHash,
        fallback: bool,
        available: impl Fn(SocketAddr) -> bool,
    ) -> Option<SocketAddr> {
        let first = self.slot(client, hash);
        let destination = self.destination(first)?;
        if available(destination) {
            return Some(destination);
        }
        if !fallback {
            return None;
        }
        let size = self.index.slots();
        let first = u32::try_from(first).unwrap_or(0);
        (0..size)
            .map(|step| self.slot_with_offset(client, hash, (step + first) % size))
            .map_while(|slot| self.destination(slot))
            .find(|destination| available(*destination))
    }

    /// How many slots have another destination than in `other`.
    pub fn differing_slots(&self, other: &Self) -> usize {
        let longest = self.size().max(other.size());
        let differs = |slot: &usize| self.destination(*slot) != other.destination(*slot);
        (0..longest).filter(differs).count()
    }

    fn slot_with_offset(&self, client: SocketAddr, hash: ClientHash, offset: u32) -> usize {
        let port = match hash {
            ClientHash::Address => 0,
            ClientHash::AddressAndPort => client.port(),
        };
        let hash = hash_key(self.family, client.ip(), port, HASH1, offset);
        (hash % self.index.slots()) as usize
    }
}

/// Where a destination's preferences begin, how far apart they are, and how many slots it takes
/// in its turn (`ip_vs_mh_dest_setup`).
struct Setup {
    at: u32,
    skip: u32,
    turns: u32,
}

/// `ip_vs_mh_permutate`; nothing where no destination has a weight.
fn setups(index: TableIndex, family: Family, destinations: &[(SocketAddr, u32)]) -> Vec<Setup> {
    let weights = || destinations.iter().map(|(_, weight)| *weight);
    let divisor = weights().fold(0, greatest_common_divisor);
    if divisor == 0 {
        return Vec::new();
    }
    let greatest = weights().max().unwrap_or(0) / divisor;
    let bits = u32::BITS - greatest.leading_zeros();
    let shift = bits.saturating_sub(index.weight_bits());
    let size = index.slots();
    let setup = |(address, weight): &(SocketAddr, u32)| {
        let hash = |key| hash_key(family, address.ip(), address.port(), key, 0);
        Setup {
            at: hash(HASH1) % size,
            skip: hash(HASH2) % (size - 1) + 1,
            turns: ((weight / divisor) >> shift).max(u32::from(*weight != 0)),
        }
    };
    destinations.iter().map(setup).collect()
}

/// `ip_vs_mh_populate`: each in its turn takes its most preferred slots that are free.
fn populate(index: TableIndex, mut setups: Vec<Setup>) -> Box<[u32]> {
    const FREE: u32 = u32::MAX;
    if setups.is_empty() {
        return Box::default();
    }
    let size = index.slots();
    let mut slots = vec![FREE; size as usize];
    let mut left = size;
    loop {
        for (number, setup) in (0..).zip(&mut setups) {
            for _ in 0..setup.turns {
                while slots[setup.at as usize] != FREE {
                    setup.at = (setup.at + setup.skip) % size;
                }
                slots[setup.at as usize] = number;
                left -= 1;
                if left == 0 {
                    return slots.into();
                }
            }
        }
    }
}

fn greatest_common_divisor(one: u32, other: u32) -> u32 {
    if other == 0 {
        one
    } else {
        greatest_common_divisor(other, one % other)
    }
}

/// `ip_vs_mh_hashkey`. The address is looked at as one of the service's family, whatever it is.
fn hash_key(family: Family, address: IpAddr, port: u16, key: u64, offset: u32) -> u32 {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes = v6.octets(),
    }
    let words = match family {
        Family::V4 => 1,
        Family::V6 => 4,
    };
    let (chunks, _) = bytes.as_chunks::<4>();
    let folded = chunks[..words]
        .iter()
        .fold(0, |folded, word| folded ^ u32::from_be_bytes(*word));
    let value = offset.wrapping_add(u32::from(port)).wrapping_add(folded);
    sip_hash_1_3(value, [key, key])
}

/// The kernel's `hsiphash` of one word on machines of 64 bits: SipHash-1-3, of which 32 bits are
/// kept (`hsiphash_1u32`).
fn sip_hash_1_3(word: u32, key: [u64; 2]) -> u32 {
    let mut state = [
        0x736f_6d65_7073_6575 ^ key[0],
        0x646f_7261_6e64_6f6d ^ key[1],
        0x6c79_6765_6e65_7261 ^ key[0],
        0x7465_6462_7974_6573 ^ key[1],
    ];
    // The length of the message, 4 bytes, stands in the uppermost byte of its last block.
    let block = (4 << 56) | u64::from(word);
    state[3] ^= block;
    sip_round(&mut state);
    state[0] ^= block;
    state[2] ^= 0xff;
    for _ in 0..3 {
        sip_round(&mut state);
    }
    (state[0] ^ state[1] ^ state[2] ^ state[3]) as u32
}

fn sip_round(state: &mut [u64; 4]) {
    let [mut a, mut b, mut c, mut d] = *state;
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    *state = [a, b, c, d];
}

#[cfg(test)]
mod tests;
