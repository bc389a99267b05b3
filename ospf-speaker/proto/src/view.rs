//! What the speaker shows of itself: events as they happen, and views of its state.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Instant;

use crate::auth::{Received, Standing};
use crate::config::{External, LinkState, Stub};
use crate::counters::{Counters, LsaDrop, PacketDrop};
use crate::graceful::{RestartEnd, RestartRefusal};
use crate::ids::{InterfaceId, NeighborId, RouterId};
use crate::lsdb::Entry;
use crate::neighbor::State;
use crate::packet::{
    ExternalLsa, ExternalMetric, LinkKind, LsType, LsaKey, NetworkLsa, RouterLink, RouterLsa,
};
use crate::router::Router;
use crate::timer::Timer;

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
    /// A new instance of an LSA of ours left.
    Originated {
        /// Which LSA.
        key: LsaKey,
        /// Its sequence number.
        sequence: i32,
    },
    /// An LSA of ours is wanted no more and leaves the area.
    Flushed {
        /// Which LSA.
        key: LsaKey,
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
    /// Packets leave with another key than before, or its standing changed.
    SendKey {
        /// The interface.
        interface: InterfaceId,
        /// The key's id.
        key_id: u8,
        /// How the key stands to its lifetime.
        standing: Standing,
    },
    /// The planned stop is complete.
    Stopped,
    /// Every neighbour has agreed to a graceful restart: the process is to end now, without a
    /// word.
    RestartPrepared {
        /// When the grace period ends.
        expires: Instant,
    },
    /// A graceful restart is not possible.
    RestartRefused {
        /// Why.
        refusal: RestartRefusal,
    },
    /// We are back, or the neighbours no longer expect us.
    RestartEnded {
        /// How.
        end: RestartEnd,
    },
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
    /// What its last packet was authenticated by, where that is cryptographic.
    pub received: Option<Received>,
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
    /// A Network-LSA's routers; empty for other types.
    pub routers: Vec<RouterId>,
    /// What an LSA of type 5 or 7 says; nothing for other types.
    pub external: Option<ExternalLsa>,
}

/// The hosts that LSAs of ours carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Announced {
    /// The stubs, sorted; empty when no instance of this run is in the database.
    pub stubs: Vec<Stub>,
    /// Whether there is a Full neighbour and every one has acknowledged the Router-LSA.
    pub acknowledged: bool,
    /// The external routes that instances of this run carry, by address.
    pub externals: Vec<AnnouncedExternal>,
}

/// An external route that an LSA of ours carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnouncedExternal {
    /// The route.
    pub external: External,
    /// Whether there is a Full neighbour and every one has acknowledged the LSA.
    pub acknowledged: bool,
}

impl Router {
    /// The neighbours, by interface.
    pub fn neighbors(&self) -> impl Iterator<Item = NeighborView> + '_ {
        let interfaces = self.interfaces.iter().enumerate();
        interfaces.flat_map(move |(index, interface)| {
            interface
                .neighbors
                .iter()
                .filter_map(move |(&key, neighbor)| {
                    let id = NeighborId {
                        interface: InterfaceId(index),
                        key,
                    };
                    Some(NeighborView {
                        interface: id.interface,
                        router_id: neighbor.router_id,
                        address: neighbor.address,
                        state: neighbor.state,
                        since: neighbor.since,
                        dead_at: self.timers.due(Timer::Inactivity(id))?,
                        priority: neighbor.priority,
                        is_dr: interface.elected.dr == Some(neighbor.address),
                        is_bdr: interface.elected.bdr == Some(neighbor.address),
                        unacknowledged: neighbor.retransmit.len(),
                        received: neighbor.received,
                    })
                })
        })
    }

    /// The link-state database by type, Link State ID and advertising router.
    pub fn lsdb(&self, now: Instant) -> impl Iterator<Item = LsaView> + '_ {
        self.lsdb.iter().map(move |(_, entry)| {
            let header = entry.header(now);
            let links = if header.key.ls_type == LsType::Router {
                // A body that cannot be read is passed on all the same; here it has no links.
                RouterLsa::decode(entry.body()).map_or_else(|_| Vec::new(), |lsa| lsa.links)
            } else {
                Vec::new()
            };
            let routers = if header.key.ls_type == LsType::Network {
                NetworkLsa::decode(entry.body()).map_or_else(|_| Vec::new(), |lsa| lsa.routers)
            } else {
                Vec::new()
            };
            let external = is_external(header.key.ls_type)
                .then(|| ExternalLsa::decode(entry.body()).ok())
                .flatten();
            LsaView {
                external,
                ls_type: header.key.ls_type.into(),
                link_state_id: header.key.link_state_id,
                advertising_router: header.key.advertising_router,
                age: header.age,
                sequence: header.sequence,
                checksum: header.checksum,
                length: header.length,
                links,
                routers,
            }
        })
    }

    /// The stubs that our Router-LSA carries, and whether the neighbours have it.
    pub fn announced(&self) -> Announced {
        let anyone_full = self.anyone_full();
        let acknowledged = |key| anyone_full && !self.is_on_a_retransmission_list(key);
        let externals = self
            .own
            .published()
            .filter(|key| is_external(key.lsa.ls_type))
            .filter_map(|key| {
                Some(AnnouncedExternal {
                    external: carried(self.lsdb.entry(key)?)?,
                    acknowledged: acknowledged(key),
                })
            });
        let key = self.router_lsa_key();
        let mut announced = Announced {
            externals: externals.collect(),
            ..Announced::default()
        };
        if self.own.is_published(&key) {
            announced.stubs.clone_from(&self.own.stubs);
            announced.acknowledged = acknowledged(&key);
        }
        announced
    }

    /// The routers that announce this address as a host, ourselves included: by a stub link of
    /// their Router-LSA, or by an LSA of type 5 or 7.
    pub fn announcers(&self, prefix: Ipv4Addr) -> Vec<RouterId> {
        let is_wanted = |link: &RouterLink| {
            link.kind == LinkKind::Stub && link.id == prefix && link.data == Ipv4Addr::BROADCAST
        };
        let announcers: BTreeSet<RouterId> =
            self.lsdb
                .iter()
                .filter(|(key, _)| !self.lsdb.is_leaving(key))
                .filter(|(key, entry)| match key.lsa.ls_type {
                    LsType::Router => RouterLsa::decode(entry.body())
                        .is_ok_and(|lsa| lsa.links.iter().any(is_wanted)),
                    LsType::AsExternal | LsType::Nssa => {
                        carried(entry).is_some_and(|external| external.prefix == prefix)
                    }
                    LsType::Network
                    | LsType::SummaryNetwork
                    | LsType::SummaryAsbr
                    | LsType::OpaqueLink
                    | LsType::OpaqueArea
                    | LsType::OpaqueAs
                    | LsType::Unknown(_) => false,
                })
                .map(|(key, _)| key.lsa.advertising_router)
                .collect();
        announcers.into_iter().collect()
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The highest sequence number that an LSA of ours is known to have had, to be kept as the
    /// next run's hint.
    pub fn sequence(&self) -> Option<i32> {
        self.own.highest_sequence()
    }

    /// The link state of an interface that is up.
    pub fn link(&self, id: InterfaceId) -> Option<LinkState> {
        self.interfaces.get(id.0)?.link
    }
}

/// Whether LSAs of the type are laid out as [`ExternalLsa`].
fn is_external(ls_type: LsType) -> bool {
    matches!(ls_type, LsType::AsExternal | LsType::Nssa)
}

/// The host that an LSA of type 5 or 7 makes reachable, if it does.
pub(crate) fn carried(entry: &Entry) -> Option<External> {
    let lsa = ExternalLsa::decode(entry.body()).ok()?;
    let is_host = lsa.mask == Ipv4Addr::BROADCAST && lsa.metric < ExternalMetric::INFINITY;
    is_host.then(|| External {
        prefix: entry.link_state_id(),
        kind: lsa.kind,
        metric: u16::try_from(lsa.metric.value()).unwrap_or(u16::MAX),
    })
}
