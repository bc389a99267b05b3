//! Flooding, acknowledging, retransmitting, ageing (RFC 2328 §13, §14).

use std::net::Ipv4Addr;

use isopath_ospf::State;
use isopath_ospf::packet::{Body, LsType, Lsa, LsaHeader, LsaKey, MAX_AGE, MAX_SEQUENCE};

use super::{MIN_LS_ARRIVAL, Stored, Switch};
use crate::network::Time;

/// What the sender of an LSA gets to hear.
enum Answer {
    Nothing,
    Delayed,
    Direct,
    BadLsReq,
}

impl Switch {
    pub(super) fn receive_update(
        &mut self,
        now: Time,
        port: usize,
        peer: Ipv4Addr,
        lsas: Vec<Lsa>,
    ) {
        if self.state(port, peer) < State::Exchange {
            return;
        }
        let mut direct = Vec::new();
        for lsa in lsas {
            let header = *lsa.header();
            match self.receive_lsa(now, port, peer, lsa) {
                Answer::Nothing => {}
                Answer::Delayed => {
                    let delay = self.setup.personality.ack_delay;
                    let it = &mut self.ports[port];
                    it.acks.push(header);
                    it.ack_at.get_or_insert(now + delay);
                }
                Answer::Direct => direct.push(header),
                Answer::BadLsReq => {
                    self.change(now, port, peer, State::ExStart);
                    return;
                }
            }
        }
        if !direct.is_empty() {
            self.send_to(port, peer, Body::Ack(direct));
        }
    }

    fn receive_lsa(&mut self, now: Time, port: usize, peer: Ipv4Addr, lsa: Lsa) -> Answer {
        let header = *lsa.header();
        let key = header.key;
        if !lsa.checksum_is_valid() || matches!(key.ls_type, LsType::Unknown(_)) {
            return Answer::Nothing;
        }
        let present = self.db.get(&key).map(|stored| stored.header(now));
        if header.age >= MAX_AGE && present.is_none() && !self.is_synchronizing() {
            return Answer::Direct;
        }
        let recency = present.map_or(std::cmp::Ordering::Greater, |present| {
            header.recency(&present)
        });
        if recency.is_gt() {
            return self.receive_newer(now, port, peer, lsa);
        }
        let Some(it) = self.peer(port, peer) else {
            return Answer::Nothing;
        };
        if it.requests.contains_key(&key) {
            return Answer::BadLsReq;
        }
        if recency.is_eq() {
            return match it.unacknowledged.remove(&key) {
                Some(_) => Answer::Nothing,
                None => Answer::Direct,
            };
        }
        let wraps = present
            .is_some_and(|present| present.age >= MAX_AGE && present.sequence == MAX_SEQUENCE);
        if !wraps && let Some(stored) = self.db.get(&key) {
            let lsa = stored.to_send(now);
            self.send_to(port, peer, Body::Update(vec![lsa]));
        }
        Answer::Nothing
    }

    fn receive_newer(&mut self, now: Time, port: usize, peer: Ipv4Addr, lsa: Lsa) -> Answer {
        let key = lsa.key();
        let header = *lsa.header();
        let too_soon = self
            .db
            .get(&key)
            .is_some_and(|stored| stored.flooded && now - stored.since < MIN_LS_ARRIVAL);
        if too_soon {
            return Answer::Nothing;
        }
        self.install(now, lsa, true);
        let back = self.flood(now, key, Some((port, peer)));
        self.answer_self_originated(now, &header);
        match back {
            true => Answer::Nothing,
            // §13.5: a Backup acknowledges only what the Designated Router sent.
            false if self.ports[port].is_bdr() && self.ports[port].dr != Some(peer) => {
                Answer::Nothing
            }
            false => Answer::Delayed,
        }
    }

    /// §13.4.
    fn answer_self_originated(&mut self, now: Time, header: &LsaHeader) {
        if header.key.advertising_router != self.setup.id {
            return;
        }
        self.sequences.insert(header.key, header.sequence);
        match self.own.get_mut(&header.key) {
            Some(own) => {
                // Whatever it says now, it is to be said again.
                own.body.clear();
                self.is_stale = true;
            }
            None if header.age < MAX_AGE => self.expire(now, header.key),
            None => {}
        }
    }

    pub(super) fn install(&mut self, now: Time, lsa: Lsa, flooded: bool) {
        let key = lsa.key();
        for port in &mut self.ports {
            for peer in port.peers.values_mut() {
                peer.unacknowledged.remove(&key);
            }
        }
        let expired = lsa.header().age >= MAX_AGE;
        let stored = Stored {
            lsa,
            since: now,
            flooded,
            expired,
        };
        self.db.insert(key, stored);
    }

    /// §13.3; says whether it went back out of the port that it came in on.
    pub(super) fn flood(
        &mut self,
        now: Time,
        key: LsaKey,
        from: Option<(usize, Ipv4Addr)>,
    ) -> bool {
        let Some(stored) = self.db.get(&key) else {
            return false;
        };
        let (header, lsa) = (stored.header(now), stored.to_send(now));
        let mut back = false;
        for port in 0..self.ports.len() {
            let peers: Vec<Ipv4Addr> = self.ports[port].peers.keys().copied().collect();
            let mut added = false;
            for peer in peers {
                if !self.wants(port, peer, &header) || from == Some((port, peer)) {
                    continue;
                }
                self.expect_acknowledgement(now, port, peer, key);
                added = true;
            }
            let came_in_here = from.filter(|&(came_in, _)| came_in == port);
            let it = &self.ports[port];
            let told = came_in_here.is_some_and(|(_, peer)| it.is_designated(peer) || it.is_bdr());
            if added && !told {
                let destination = it.flood_destination();
                self.send(port, destination, Body::Update(vec![lsa.clone()]));
                back |= came_in_here.is_some();
            }
        }
        back
    }

    /// §13.3 steps 1a and 1b.
    fn wants(&mut self, port: usize, peer: Ipv4Addr, header: &LsaHeader) -> bool {
        let Some(it) = self.peer(port, peer) else {
            return false;
        };
        if it.state < State::Exchange {
            return false;
        }
        let Some(described) = it.requests.get(&header.key) else {
            return true;
        };
        let recency = header.recency(described);
        if recency.is_ge() {
            it.requests.remove(&header.key);
        }
        recency.is_gt()
    }

    pub(super) fn expect_acknowledgement(
        &mut self,
        now: Time,
        port: usize,
        peer: Ipv4Addr,
        key: LsaKey,
    ) {
        let rxmt = self.setup.personality.rxmt;
        let Some(header) = self.db.get(&key).map(|stored| stored.header(now)) else {
            return;
        };
        if let Some(it) = self.peer(port, peer) {
            it.unacknowledged.insert(key, header);
            it.rxmt_at.get_or_insert(now + rxmt);
        }
    }

    pub(super) fn retransmit(&mut self, now: Time, port: usize, peer: Ipv4Addr) {
        let rxmt = self.setup.personality.rxmt;
        let Some(it) = self.peer(port, peer) else {
            return;
        };
        let keys: Vec<LsaKey> = it.unacknowledged.keys().copied().collect();
        it.rxmt_at = (!keys.is_empty()).then(|| now + rxmt);
        let found = keys.iter().filter_map(|key| self.db.get(key));
        let lsas: Vec<Lsa> = found.map(|stored| stored.to_send(now)).collect();
        for page in lsas.chunks(REQUEST_SIZE) {
            self.send_to(port, peer, Body::Update(page.to_vec()));
        }
    }

    pub(super) fn receive_ack(
        &mut self,
        now: Time,
        port: usize,
        peer: Ipv4Addr,
        headers: &[LsaHeader],
    ) {
        for header in headers {
            let present = self.db.get(&header.key).map(|stored| stored.header(now));
            let is_same = present.is_some_and(|present| header.recency(&present).is_eq());
            if let Some(it) = self.peer(port, peer)
                && is_same
                && it.state >= State::Exchange
            {
                it.unacknowledged.remove(&header.key);
            }
        }
    }

    pub(super) fn send_delayed_acks(&mut self, port: usize) {
        let it = &mut self.ports[port];
        it.ack_at = None;
        let headers = std::mem::take(&mut it.acks);
        let destination = it.flood_destination();
        self.send(port, destination, Body::Ack(headers));
    }

    /// Ages an LSA to MaxAge and floods it.
    pub(super) fn expire(&mut self, now: Time, key: LsaKey) {
        if let Some(stored) = self.db.get_mut(&key) {
            stored.expired = true;
            for port in &mut self.ports {
                for peer in port.peers.values_mut() {
                    peer.unacknowledged.remove(&key);
                }
            }
            self.flood(now, key, None);
        }
    }

    /// §14: what is at MaxAge leaves when nobody holds it back.
    pub(super) fn purge(&mut self, now: Time) {
        if self.is_synchronizing() {
            return;
        }
        let ports = &self.ports;
        let is_held = |key: &LsaKey| {
            let mut peers = ports.iter().flat_map(|port| port.peers.values());
            peers.any(|peer| peer.unacknowledged.contains_key(key))
        };
        self.db
            .retain(|key, stored| stored.age(now) < MAX_AGE || !stored.expired || is_held(key));
    }

    fn is_synchronizing(&self) -> bool {
        let mut peers = self.ports.iter().flat_map(|port| port.peers.values());
        peers.any(|peer| matches!(peer.state, State::Exchange | State::Loading))
    }

    pub(super) fn everybody(&self) -> Vec<(usize, Ipv4Addr)> {
        let ports = self.ports.iter().enumerate();
        ports
            .flat_map(|(index, port)| port.peers.keys().map(move |&peer| (index, peer)))
            .collect()
    }
}

/// LSAs in one retransmitted update.
const REQUEST_SIZE: usize = 20;
