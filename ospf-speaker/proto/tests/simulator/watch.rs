//! What is known of one speaker from outside: every packet in, every packet out, its views. The
//! properties are asked after each input.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isopath_ospf::packet::{Body, LsType, Lsa, LsaHeader, LsaKey, MAX_AGE, Packet};
use isopath_ospf::{
    Config, Event, InterfaceId, LsaView, NeighborView, Router, RouterId, State, Transmit,
};

use crate::network::Time;
use crate::properties::{self, Violation};
use crate::speaker::Wanted;

/// What pacing adds to the neighbours' MinLSArrival (protocol.md of the project: 50 ms).
const MARGIN: Duration = Duration::from_millis(50);

/// An instance of an LSA as acknowledgements name it.
pub(crate) type Instance = (LsaKey, i32, u16, bool);

pub(crate) fn instance(header: &LsaHeader) -> Instance {
    let is_leaving = header.age >= MAX_AGE;
    (header.key, header.sequence, header.checksum, is_leaving)
}

/// What a speaker was given.
pub(crate) enum Input {
    Timeout,
    Packet {
        port: usize,
        source: Ipv4Addr,
        /// What its sender was to the speaker before.
        state: State,
        /// Nothing where it is no packet at all.
        body: Option<Body>,
        /// For each LSA of an update or acknowledgement what the database had of it before.
        before: Vec<Option<LsaHeader>>,
    },
    Other,
}

impl Input {
    pub(crate) fn packet(
        router: &Router,
        now: Instant,
        port: usize,
        source: Ipv4Addr,
        payload: &[u8],
    ) -> Self {
        let plain = without_authentication(payload);
        let body = Packet::decode(&plain).ok().map(|packet| packet.body);
        let keys: Vec<LsaKey> = match &body {
            Some(Body::Update(lsas)) => lsas.iter().map(Lsa::key).collect(),
            Some(Body::Ack(headers)) => headers.iter().map(|header| header.key).collect(),
            Some(Body::Hello(_) | Body::DbDesc(_) | Body::Request(_)) | None => Vec::new(),
        };
        let before = if keys.is_empty() {
            Vec::new()
        } else {
            let database = database(router, now);
            keys.iter().map(|key| database.get(key).copied()).collect()
        };
        Self::Packet {
            port,
            source,
            state: state_of(router, (port, source)),
            body,
            before,
        }
    }
}

/// A speaker after an input.
pub(crate) struct View<'a> {
    pub(crate) now: Time,
    pub(crate) instant: Instant,
    pub(crate) router: &'a Router,
    pub(crate) config: &'a Config,
    pub(crate) wanted: &'a Wanted,
    pub(crate) events: &'a [Event],
    pub(crate) sent: &'a [Transmit],
}

/// An instance of an own LSA that left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Departure {
    pub(crate) sequence: i32,
    pub(crate) is_leaving: bool,
    pub(crate) at: Time,
}

/// A neighbour from outside: our port and its address.
type Who = (usize, Ipv4Addr);

#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Our addresses do not change.
    gap: Duration,
    /// The highest sequence number of each own LSA that left since a hint was last lost.
    highest: BTreeMap<LsaKey, i32>,
    /// What the first instance of the present run must exceed, where there was a hint.
    floor: BTreeMap<LsaKey, i32>,
    departures: BTreeMap<LsaKey, Departure>,
    /// Own LSAs that the network sent us and that are to be answered.
    contended: BTreeSet<LsaKey>,
    taken: BTreeSet<Instance>,
    acknowledged: BTreeMap<Who, BTreeSet<Instance>>,
    described: BTreeMap<Who, BTreeMap<LsaKey, LsaHeader>>,
    last_dbdesc: BTreeMap<Who, (u8, u32)>,
    /// Whom an LSA at MaxAge was sent to, as far as it has not been acknowledged.
    flushed: BTreeMap<LsaKey, BTreeSet<Who>>,
    leaving: BTreeSet<LsaKey>,
    /// What the present input asks for: it is answered, and the answer is no flooding.
    asked: BTreeSet<(Who, LsaKey)>,
    /// The highest cryptographic sequence number of each interface.
    auth: BTreeMap<usize, u32>,
    /// The neighbours that each interface's Hellos must list since a handover.
    handed_over: BTreeMap<usize, BTreeSet<RouterId>>,
}

impl Watch {
    pub(crate) fn new(config: &Config) -> Self {
        let arrivals = config.interfaces.iter().map(|it| it.peer_min_arrival);
        Self {
            gap: arrivals.max().unwrap_or_default() + MARGIN,
            ..Self::default()
        }
    }

    pub(crate) fn gap(&self) -> Duration {
        self.gap
    }

    /// A new process begins, with a hint or without one.
    pub(crate) fn begin_run(&mut self, hint: Option<i32>) {
        if hint.is_none() {
            self.highest.clear();
        }
        self.floor.clone_from(&self.highest);
    }

    /// The process ends; what it knew is gone.
    pub(crate) fn end_run(&mut self) {
        *self = Self {
            gap: self.gap,
            highest: std::mem::take(&mut self.highest),
            auth: std::mem::take(&mut self.auth),
            ..Self::default()
        };
    }

    /// From now on every Hello lists the neighbours of now, until they are gone.
    pub(crate) fn note_handover(&mut self, router: &Router) {
        self.handed_over.clear();
        for neighbor in router.neighbors() {
            let expected = self.handed_over.entry(neighbor.interface.0).or_default();
            expected.insert(neighbor.router_id);
        }
    }

    pub(crate) fn judge(&mut self, view: &View<'_>, input: &Input) -> Result<(), Violation> {
        if matches!(input, Input::Timeout) {
            properties::the_next_timeout_is_later(view)?;
        }
        self.asked.clear();
        self.note_input(view, input);
        self.note_lost_adjacencies(view);
        for transmit in view.sent {
            if let Some(sequence) = auth_sequence(&transmit.payload) {
                let last = self.auth.insert(transmit.interface.0, sequence);
                properties::authentication_sequences_rise(last, sequence)?;
            }
            let plain = without_authentication(&transmit.payload);
            let packet = properties::encoding_is_the_inverse_of_decoding(&plain)?;
            self.judge_packet(view, transmit, &packet)?;
        }
        self.judge_adjacencies(view)?;
        let says_more_than_hello = |transmit: &Transmit| transmit.payload.get(1) != Some(&1);
        let is_hello = matches!(
            input,
            Input::Packet {
                body: Some(Body::Hello(_)),
                ..
            }
        );
        let is_eventful = !view.events.is_empty() || view.sent.iter().any(says_more_than_hello);
        if is_eventful || !is_hello && !matches!(input, Input::Timeout) {
            self.judge_database(view)?;
        }
        Ok(())
    }

    /// Takes down what came in, and what the speaker did with it.
    fn note_input(&mut self, view: &View<'_>, input: &Input) {
        let Input::Packet {
            port,
            source,
            state: state_before,
            body: Some(body),
            before,
        } = input
        else {
            return;
        };
        let who = (*port, *source);
        let state = state_of(view.router, who);
        match body {
            Body::Hello(_) => {}
            Body::DbDesc(dbdesc) if state >= State::Exchange => {
                // A duplicate is passed over, whatever it lists (§10.6).
                let mark = (u8::from(dbdesc.flags), dbdesc.sequence);
                if self.last_dbdesc.insert(who, mark) != Some(mark) {
                    let described = self.described.entry(who).or_default();
                    described.extend(dbdesc.headers.iter().map(|header| (header.key, *header)));
                }
            }
            Body::DbDesc(_) => {}
            Body::Request(keys) => {
                // What is asked for may be sent, whatever was acknowledged.
                if let Some(acknowledged) = self.acknowledged.get_mut(&who) {
                    acknowledged.retain(|(key, ..)| !keys.contains(key));
                }
                self.asked.extend(keys.iter().map(|&key| (who, key)));
            }
            // An LSA may end the adjacency (§13 step 6) or bring it up: those before it in the
            // update were received in the state that the update found.
            Body::Update(lsas) if *state_before >= State::Exchange => {
                let after = database(view.router, view.instant);
                let starts_over = state < State::Exchange;
                for (lsa, before) in lsas.iter().zip(before) {
                    // With the one that makes it start over the rest is passed over.
                    if starts_over && self.was_promised_newer(who, lsa, *before) {
                        break;
                    }
                    let after = after.get(&lsa.key());
                    self.note_lsa(view, who, lsa, *before, after);
                }
            }
            Body::Update(_) => {}
            Body::Ack(headers) if *state_before >= State::Exchange => {
                // One that names another instance than the database's is passed over (§13.7): it
                // may be for what an earlier run sent, whose numbers this run uses again.
                let of_ours = headers.iter().zip(before).filter(|(header, before)| {
                    before.is_some_and(|before| header.recency(&before).is_eq())
                });
                for (header, _) in of_ours {
                    let acknowledged = self.acknowledged.entry(who).or_default();
                    acknowledged.insert(instance(header));
                    self.let_go(who, header);
                }
            }
            Body::Ack(_) => {}
        }
    }

    /// Whether an LSA is no newer than the database's copy, and its sender has described one that
    /// is: what §13 step 6 calls an error in the exchange.
    fn was_promised_newer(&self, who: Who, lsa: &Lsa, before: Option<LsaHeader>) -> bool {
        let Some(before) = before else {
            return false;
        };
        let described = self.described.get(&who);
        let promised = described.and_then(|described| described.get(&lsa.key()));
        promised.is_some_and(|promised| promised.recency(&before).is_gt())
            && lsa.header().recency(&before).is_le()
    }

    fn note_lsa(
        &mut self,
        view: &View<'_>,
        who: Who,
        lsa: &Lsa,
        before: Option<LsaHeader>,
        after: Option<&LsaHeader>,
    ) {
        let header = *lsa.header();
        let is_ours = header.key.advertising_router == view.config.router_id;
        let newer = before.is_none_or(|before| header.recency(&before).is_gt());
        let kept = match after {
            Some(after) => after.recency(&header).is_ge(),
            // Purged at once, or nothing there to flush (§13 step 4).
            None => header.age >= MAX_AGE,
        };
        // §13 steps 5 and 7: installed, or a duplicate. What stays older in the database than
        // what came, or was newer than it all along, was discarded.
        let duplicate = before.is_some_and(|before| header.recency(&before).is_eq());
        if newer && kept || duplicate {
            self.taken.insert(instance(&header));
        }
        if newer && kept {
            // §13 step 5c: nobody need acknowledge the instance before, and everybody this one.
            self.flushed.remove(&header.key);
            for acknowledged in self.acknowledged.values_mut() {
                acknowledged.retain(|(key, ..)| *key != header.key);
            }
        }
        if newer && kept && is_ours {
            self.contended.insert(header.key);
        }
        // An older copy is answered with ours (step 8), and its owner has forgotten ours.
        if !newer && !duplicate {
            self.asked.insert((who, header.key));
            if let Some(acknowledged) = self.acknowledged.get_mut(&who) {
                acknowledged.retain(|(key, ..)| *key != header.key);
            }
        }
        // The same instance from the one it was sent to is an acknowledgement.
        if duplicate {
            self.let_go(who, &header);
        }
    }

    fn let_go(&mut self, who: Who, header: &LsaHeader) {
        if header.age >= MAX_AGE
            && let Some(holders) = self.flushed.get_mut(&header.key)
        {
            holders.remove(&who);
        }
    }

    fn judge_packet(
        &mut self,
        view: &View<'_>,
        transmit: &Transmit,
        packet: &Packet,
    ) -> Result<(), Violation> {
        match &packet.body {
            Body::Hello(hello) => {
                let own = view
                    .router
                    .link(transmit.interface)
                    .map(|link| link.address);
                properties::never_designated(hello, own)?;
                let expected = self.handed_over.get(&transmit.interface.0);
                properties::a_handover_sends_no_one_way(hello, expected)
            }
            Body::DbDesc(_) | Body::Request(_) => Ok(()),
            Body::Update(lsas) => {
                for lsa in lsas {
                    self.judge_sent_lsa(view, transmit, lsa)?;
                }
                Ok(())
            }
            Body::Ack(headers) => {
                for header in headers {
                    properties::only_what_was_taken_is_acknowledged(header, &self.taken)?;
                }
                Ok(())
            }
        }
    }

    fn judge_sent_lsa(
        &mut self,
        view: &View<'_>,
        transmit: &Transmit,
        lsa: &Lsa,
    ) -> Result<(), Violation> {
        let header = *lsa.header();
        let receivers = receivers(view.router, transmit);
        // A flood to a whole segment may be for others on it.
        if let [who] = receivers.as_slice() {
            let acknowledged = self.acknowledged.get(who);
            properties::what_was_acknowledged_is_not_sent_again(&header, acknowledged)?;
        }
        if header.age >= MAX_AGE {
            let flooded = receivers
                .into_iter()
                .filter(|&who| !self.asked.contains(&(who, header.key)));
            let holders = self.flushed.entry(header.key).or_default();
            holders.extend(flooded);
        }
        if header.key.advertising_router != view.config.router_id {
            return Ok(());
        }
        let last = self.departures.get(&header.key).copied();
        // A copy from an earlier run that somebody is given on request, or that is flushed, is
        // no origination.
        let [taken, flushed] = [false, true].map(|is_leaving| {
            let copy = (header.key, header.sequence, header.checksum, is_leaving);
            self.taken.contains(&copy)
        });
        let is_ours = last.is_some_and(|last| last.sequence == header.sequence);
        if (taken || flushed) && !is_ours {
            return Ok(());
        }
        properties::we_originate_no_network(&header)?;
        let departure = Departure {
            sequence: header.sequence,
            is_leaving: header.age >= MAX_AGE,
            at: view.now,
        };
        let is_new = last.is_none_or(|last| {
            (last.sequence, last.is_leaving) != (departure.sequence, departure.is_leaving)
        });
        if !is_new {
            return Ok(());
        }
        let is_answer = self.contended.remove(&header.key);
        properties::transit_costs_the_maximum(lsa)?;
        properties::nothing_unwanted_is_originated(lsa, view)?;
        // A stop does not wait where nobody is Full: whoever comes up sees it gone.
        let any_full = view.router.neighbors().any(|it| it.state == State::Full);
        let is_last_word = departure.is_leaving && !any_full;
        if !is_answer && !is_last_word {
            properties::instances_keep_their_distance(&header, last, departure, self.gap)?;
        }
        let floor = self.floor.remove(&header.key);
        properties::the_sequence_rises_across_a_crash(&header, floor)?;
        self.departures.insert(header.key, departure);
        let highest = self.highest.entry(header.key).or_insert(header.sequence);
        *highest = header.sequence.max(*highest);
        Ok(())
    }

    /// An adjacency that ended took its lists with it.
    fn note_lost_adjacencies(&mut self, view: &View<'_>) {
        for event in view.events {
            let Event::NeighborState {
                interface,
                router_id,
                address,
                to,
                ..
            } = event
            else {
                continue;
            };
            let who = (interface.0, *address);
            if *to == State::Down
                && let Some(expected) = self.handed_over.get_mut(&interface.0)
            {
                expected.remove(router_id);
            }
            if *to < State::Exchange {
                self.described.remove(&who);
                self.last_dbdesc.remove(&who);
                self.acknowledged.remove(&who);
                for holders in self.flushed.values_mut() {
                    holders.remove(&who);
                }
            }
        }
    }

    fn judge_adjacencies(&mut self, view: &View<'_>) -> Result<(), Violation> {
        for event in view.events {
            let Event::NeighborState {
                interface,
                address,
                to,
                ..
            } = event
            else {
                continue;
            };
            if *to == State::Full {
                let who = (interface.0, *address);
                let described = self.described.remove(&who).unwrap_or_default();
                properties::full_means_nothing_left_to_request(view, &described, &self.taken)?;
            }
        }
        Ok(())
    }

    /// §14, and the bounds.
    fn judge_database(&mut self, view: &View<'_>) -> Result<(), Violation> {
        let database = database(view.router, view.instant);
        properties::memory_is_bounded(view, database.len())?;
        let leaving: BTreeSet<LsaKey> = database
            .values()
            .filter(|header| header.age >= MAX_AGE)
            .map(|header| header.key)
            .collect();
        properties::max_age_leaves_when_nobody_holds_it(view, &leaving)?;
        let were_leaving = self.leaving.iter().chain(self.flushed.keys());
        for key in were_leaving.filter(|key| !database.contains_key(*key)) {
            let holders = self.flushed.get(key);
            properties::max_age_stays_while_somebody_holds_it(view, key, holders)?;
        }
        self.flushed.retain(|key, _| leaving.contains(key));
        self.leaving = leaving;
        Ok(())
    }
}

/// The database by key; type 9 belongs to links and is not sent here.
pub(crate) fn database(router: &Router, now: Instant) -> BTreeMap<LsaKey, LsaHeader> {
    let views = router.lsdb(now);
    views
        .map(|view| (key_of(&view), header_of(&view)))
        .collect()
}

fn key_of(view: &LsaView) -> LsaKey {
    LsaKey {
        ls_type: LsType::from(view.ls_type),
        link_state_id: view.link_state_id,
        advertising_router: view.advertising_router,
    }
}

fn header_of(view: &LsaView) -> LsaHeader {
    LsaHeader {
        age: view.age,
        options: isopath_ospf::packet::Options::default(),
        key: key_of(view),
        sequence: view.sequence,
        checksum: view.checksum,
        length: view.length,
    }
}

pub(crate) fn is_synchronizing(router: &Router) -> bool {
    router
        .neighbors()
        .any(|neighbor| matches!(neighbor.state, State::Exchange | State::Loading))
}

fn state_of(router: &Router, who: Who) -> State {
    let mut neighbors = router.neighbors();
    let found = neighbors
        .find(|neighbor| (neighbor.interface, neighbor.address) == (InterfaceId(who.0), who.1));
    found.map_or(State::Down, |neighbor| neighbor.state)
}

/// The neighbours that take an update: all of the interface, or the one it is addressed to.
fn receivers(router: &Router, transmit: &Transmit) -> Vec<Who> {
    let is_for = |neighbor: &NeighborView| {
        neighbor.interface == transmit.interface
            && neighbor.state >= State::Exchange
            && (transmit.destination.is_multicast() || transmit.destination == neighbor.address)
    };
    let neighbors = router.neighbors().filter(is_for);
    neighbors
        .map(|neighbor| (neighbor.interface.0, neighbor.address))
        .collect()
}

/// The sequence number of a packet with a digest (RFC 2328 §D.3).
fn auth_sequence(payload: &[u8]) -> Option<u32> {
    let is_cryptographic = payload.get(14..16) == Some(&[0, 2]);
    let field = payload.get(20..24).filter(|_| is_cryptographic)?;
    Some(
        field
            .iter()
            .fold(0, |all, &byte| all << 8 | u32::from(byte)),
    )
}

/// The packet as it would be with null authentication; the digest follows its own length.
pub(crate) fn without_authentication(payload: &[u8]) -> Vec<u8> {
    if auth_sequence(payload).is_none() {
        return payload.to_vec();
    }
    let length = usize::from(u16::from_be_bytes([payload[2], payload[3]]));
    let mut plain = payload[..length.clamp(24, payload.len())].to_vec();
    plain[14..24].fill(0);
    plain[12..14].fill(0);
    let mut sum: u32 = plain
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| low.into()))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).expect("folded to 16 bits");
    plain[12..14].copy_from_slice(&sum.to_be_bytes());
    plain
}
