//! The speaker as a whole: what comes in from the shell and what goes out to it.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Instant;

use crate::config::{Config, ConfigError, LinkState, Stub, TooManyStubs, canonical};
use crate::counters::Counters;
use crate::ids::{InterfaceId, RouterId};
use crate::view::{Announced, Event, LsaView, NeighborView, Transmit};

/// An OSPF router of one area.
#[derive(Debug)]
pub struct Router {
    config: Config,
    stubs: Vec<Stub>,
    counters: Counters,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    seed: u64,
    started: Instant,
}

impl Router {
    /// A router with all interfaces down. The seed drives the jitter and the first Database
    /// Description sequence numbers.
    pub fn new(config: Config, seed: u64, now: Instant) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            config,
            stubs: Vec::new(),
            counters: Counters::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            seed,
            started: now,
        })
    }

    /// The interface is up with this state, also after a change of it, or (`None`) down.
    pub fn handle_interface(&mut self, now: Instant, id: InterfaceId, link: Option<LinkState>) {}

    /// A packet came in; `payload` begins with the OSPF header. What is wrong with it, if
    /// anything, is counted.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        id: InterfaceId,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        payload: &[u8],
    ) {
    }

    /// The time of [`Router::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {}

    /// BFD, or anything else faster than the dead interval, says that the neighbour at this
    /// address is gone.
    pub fn handle_neighbor_lost(&mut self, now: Instant, id: InterfaceId, address: Ipv4Addr) {}

    /// Sets the whole set of host stubs to announce. A call that changes nothing does nothing.
    pub fn announce(&mut self, now: Instant, stubs: &[Stub]) -> Result<(), TooManyStubs> {
        self.stubs = canonical(stubs)?;
        Ok(())
    }

    /// Begins a planned stop: withdraw the stubs, wait for the acknowledgements, flush the
    /// Router-LSA, say good-bye with a Hello that lists nobody. Each step is bounded in time.
    pub fn shutdown(&mut self, now: Instant) {}

    /// Whether the planned stop is complete.
    pub fn is_stopped(&self) -> bool {
        false
    }

    /// When to call [`Router::handle_timeout`]; later than the time of the last call of it.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next packet to send. Drain it after each `handle_*`.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event. Drain it after each `handle_*`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The neighbours, by interface.
    pub fn neighbors(&self) -> impl Iterator<Item = NeighborView> + '_ {
        std::iter::empty()
    }

    /// The link-state database by type, Link State ID and advertising router.
    pub fn lsdb(&self, now: Instant) -> impl Iterator<Item = LsaView> + '_ {
        std::iter::empty()
    }

    /// The stubs that our Router-LSA carries, and whether the neighbours have it.
    pub fn announced(&self) -> Announced {
        Announced::default()
    }

    /// The routers whose Router-LSA has a host stub link to this address, ourselves included.
    pub fn announcers(&self, prefix: Ipv4Addr) -> Vec<RouterId> {
        Vec::new()
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The sequence number of our Router-LSA, to be kept as the next run's hint.
    pub fn sequence(&self) -> Option<i32> {
        None
    }

    /// The link state of an interface that is up.
    pub fn link(&self, id: InterfaceId) -> Option<LinkState> {
        None
    }
}
