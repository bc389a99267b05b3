//! What the speaker shows of itself: events as they happen, and views of its state.

use std::net::Ipv4Addr;
use std::time::Instant;

use crate::config::Stub;
use crate::counters::{LsaDrop, PacketDrop};
use crate::ids::{InterfaceId, RouterId};
use crate::neighbor::State;
use crate::packet::RouterLink;

/// A packet to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The interface to send it on.
    pub interface: InterfaceId,
    /// Its destination; TTL 1 and precedence Internetwork Control are the shell's (RFC 2328 §A.1).
    pub destination: Ipv4Addr,
    /// The OSPF packet without the IP header.
    pub payload: Vec<u8>,
}

/// Something that happened, for logs and subscribers. Nothing depends on its being read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A neighbour changed state.
    NeighborState {
        /// Our interface.
        interface: InterfaceId,
        /// The neighbour's router id.
        router_id: RouterId,
        /// The neighbour's address.
        address: Ipv4Addr,
        /// The state it was in.
        from: State,
        /// The state it is in.
        to: State,
    },
    /// A broadcast segment's Designated Router or its Backup changed.
    DesignatedRouter {
        /// The interface on the segment.
        interface: InterfaceId,
        /// The DR's address, if there is one.
        dr: Option<Ipv4Addr>,
        /// The BDR's address, if there is one.
        bdr: Option<Ipv4Addr>,
    },
    /// A new instance of our Router-LSA left.
    Originated {
        /// Its sequence number.
        sequence: i32,
        /// How many of its links are announced stubs.
        stubs: usize,
    },
    /// A newer copy of an LSA of ours came from the network and is answered (RFC 2328 §13.4).
    SelfOriginatedReceived {
        /// Its LS type.
        ls_type: u8,
        /// Its sequence number.
        sequence: i32,
    },
    /// Another router uses our router id.
    DuplicateRouterId {
        /// The interface it was heard on.
        interface: InterfaceId,
        /// Its address.
        address: Ipv4Addr,
    },
    /// A packet was dropped. Every drop is counted; only the first of each reason and interface
    /// in a minute makes an event.
    PacketDropped {
        /// The interface it came in on.
        interface: InterfaceId,
        /// Its source.
        source: Ipv4Addr,
        /// Why.
        reason: PacketDrop,
        /// What was wrong, in words.
        detail: String,
    },
    /// An LSA was discarded, with the same limit to the number of events.
    LsaDropped {
        /// The interface it came in on.
        interface: InterfaceId,
        /// The neighbour that sent it.
        from: RouterId,
        /// Why.
        reason: LsaDrop,
    },
    /// The planned stop is complete.
    Stopped,
}

/// A neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeighborView {
    /// Our interface.
    pub interface: InterfaceId,
    /// Its router id.
    pub router_id: RouterId,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// When it is declared dead unless it is heard again.
    pub dead_at: Instant,
    /// Its router priority.
    pub priority: u8,
    /// Whether it is the segment's Designated Router.
    pub is_dr: bool,
    /// Whether it is the segment's Backup Designated Router.
    pub is_bdr: bool,
    /// LSAs sent to it that it has not acknowledged.
    pub unacknowledged: usize,
}

/// An LSA of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LsaView {
    /// LS type (RFC 2328 §A.4.1).
    pub ls_type: u8,
    /// Link State ID.
    pub link_state_id: Ipv4Addr,
    /// Advertising Router.
    pub advertising_router: RouterId,
    /// LS age now, in seconds.
    pub age: u16,
    /// LS sequence number.
    pub sequence: i32,
    /// LS checksum.
    pub checksum: u16,
    /// Length in bytes, header included.
    pub length: u16,
    /// A Router-LSA's links; empty for other types.
    pub links: Vec<RouterLink>,
}

/// The stubs that our Router-LSA carries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Announced {
    /// The stubs, sorted; empty when no instance of this run is in the database.
    pub stubs: Vec<Stub>,
    /// Whether there is a Full neighbour and every one has acknowledged the instance.
    pub acknowledged: bool,
}
