//! A speaker under test with as much of a shell around it as the properties need: it keeps the
//! sequence hint across runs and looks at everything that goes in and comes out.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use isopath_ospf::{
    Authentication, Config, Event, External, InterfaceId, PacketDrop, Router, RouterId, Stub,
    Transmit,
};

use crate::network::{Time, Trace};
use crate::properties::{self, Violation};
use crate::watch::{Input, Watch};

/// AllDRouters (§A.1).
const ALL_D_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 6);

/// What is to be announced.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) stubs: Vec<Stub>,
    pub(crate) externals: Vec<External>,
}

pub(crate) struct Speaker {
    pub(crate) index: usize,
    /// Nothing while the process is not running.
    pub(crate) router: Option<Router>,
    pub(crate) config: Config,
    /// What the state directory holds.
    pub(crate) hint: Option<i32>,
    /// The addresses that are healthy.
    pub(crate) wanted: Wanted,
    pub(crate) watch: Watch,
    /// How the packets of each port are authenticated, where they are.
    pub(crate) authentication: BTreeMap<usize, Authentication>,
    /// The first sequence number of each port that no packet has used.
    reserved: BTreeMap<usize, u32>,
    pub(crate) is_stopping: bool,
    /// How the core is broken, in a mutation check.
    #[cfg(feature = "sabotage")]
    pub(crate) sabotage: Option<isopath_ospf::Sabotage>,
}

impl Speaker {
    pub(crate) fn new(index: usize, config: Config) -> Self {
        Self {
            index,
            router: None,
            watch: Watch::new(&config),
            authentication: BTreeMap::new(),
            reserved: BTreeMap::new(),
            config,
            hint: None,
            wanted: Wanted::default(),
            is_stopping: false,
            #[cfg(feature = "sabotage")]
            sabotage: None,
        }
    }

    pub(crate) fn id(&self) -> RouterId {
        self.config.router_id
    }

    /// A new process. It announces what is wanted as soon as it runs.
    pub(crate) fn start(&mut self, seed: u64, now: Instant) {
        let config = Config {
            sequence_hint: self.hint,
            ..self.config.clone()
        };
        let mut router = Router::new(config, seed, now).expect("the scenario is valid");
        #[cfg(feature = "sabotage")]
        if let Some(sabotage) = self.sabotage {
            router = router.sabotaged(sabotage);
        }
        self.authenticate(&mut router);
        let Wanted { stubs, externals } = &self.wanted;
        router.announce(now, stubs, externals).expect("few hosts");
        self.router = Some(router);
        self.watch.begin_run(self.hint);
    }

    fn authenticate(&self, router: &mut Router) {
        for (&port, authentication) in &self.authentication {
            let id = InterfaceId(port);
            router
                .set_authentication(id, authentication.clone())
                .expect("the scenario's keys are good");
            router.raise_auth_sequence(id, self.reserved.get(&port).copied().unwrap_or(1));
        }
    }

    /// SIGKILL.
    pub(crate) fn crash(&mut self) {
        self.router = None;
        self.is_stopping = false;
        self.watch.end_run();
    }

    /// SIGTERM.
    pub(crate) fn stop(&mut self, now: Instant) {
        if let Some(router) = &mut self.router {
            router.shutdown(now);
            self.is_stopping = true;
        }
    }

    pub(crate) fn announce(&mut self, now: Instant, wanted: Wanted) {
        if let Some(router) = &mut self.router {
            let Wanted { stubs, externals } = &wanted;
            router.announce(now, stubs, externals).expect("few hosts");
        }
        self.wanted = wanted;
    }

    /// Another process takes over, by way of the bytes that go between the two.
    pub(crate) fn hand_over(&mut self, now: Instant) -> Result<(), Violation> {
        let Some(before) = self.router.take() else {
            return Ok(());
        };
        let bytes = serde_json::to_vec(&before.snapshot(now)).expect("a snapshot is plain data");
        let snapshot = serde_json::from_slice(&bytes).expect("what was just written");
        let after = Router::restore(self.config.clone(), snapshot, now).expect("the same router");
        #[cfg(feature = "sabotage")]
        let after = match self.sabotage {
            Some(sabotage) => after.sabotaged(sabotage),
            None => after,
        };
        let mut after = after;
        self.authenticate(&mut after);
        properties::a_handover_keeps_the_neighbors(&before, &after)?;
        self.watch.note_handover(&after);
        self.router = Some(after);
        Ok(())
    }

    /// A packet arrives.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        port: usize,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        payload: &[u8],
    ) -> Input {
        let Some(router) = &mut self.router else {
            return Input::Other;
        };
        let input = Input::packet(router, now, port, source, payload);
        let refused = refusals(router);
        router.handle_packet(now, InterfaceId(port), source, destination, payload);
        // What is not authenticated was not received. Neither was what §8.2 tells apart before
        // that: what is for Designated Routers, which a speaker never is, and what names another
        // area, as a packet with a digest may after a bit of it was turned over.
        let is_for_us = destination != ALL_D_ROUTERS
            && payload.get(8..12) == Some(&self.config.area.0.octets()[..]);
        if is_for_us && refusals(router) == refused {
            input
        } else {
            Input::Other
        }
    }

    /// Judges what an input did; returns what is to be sent.
    pub(crate) fn settle(
        &mut self,
        now: Time,
        instant: Instant,
        input: &Input,
        trace: &mut Trace,
    ) -> Result<Vec<Transmit>, Violation> {
        let Some(router) = &mut self.router else {
            return Ok(Vec::new());
        };
        let sent: Vec<Transmit> = std::iter::from_fn(|| router.poll_transmit()).collect();
        let events: Vec<Event> = std::iter::from_fn(|| router.poll_event()).collect();
        for event in &events {
            trace.say(now, || format!("node {}: {event:?}", self.index));
        }
        self.hint = router.sequence();
        for &port in self.authentication.keys() {
            let next = router.next_auth_sequence(InterfaceId(port));
            self.reserved.extend(next.map(|next| (port, next)));
        }
        let view = crate::watch::View {
            now,
            instant,
            router,
            config: &self.config,
            wanted: &self.wanted,
            events: &events,
            sent: &sent,
        };
        self.watch
            .judge(&view, input)
            .map_err(|violation| violation.at(now, self.index))?;
        if router.is_stopped() {
            self.router = None;
            self.is_stopping = false;
            self.watch.end_run();
        }
        Ok(sent)
    }
}

/// How many packets were refused for their authentication.
fn refusals(router: &Router) -> u64 {
    let reasons = [
        PacketDrop::AuthType,
        PacketDrop::AuthUnknownKey,
        PacketDrop::AuthDigest,
        PacketDrop::AuthReplay,
    ];
    let counters = router.counters();
    reasons.iter().map(|&reason| counters.dropped(reason)).sum()
}
