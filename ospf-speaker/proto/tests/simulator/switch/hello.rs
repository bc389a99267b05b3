//! Hellos, the neighbours' lives and the election (RFC 2328 §9, §10.5).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use isopath_ospf::packet::{ALL_SPF_ROUTERS, Body, Hello, Options};
use isopath_ospf::{NetworkType, RouterId, State};

use super::{Peer, Switch};
use crate::network::Time;

/// One that can be elected (§9.4).
#[derive(Debug, Clone, Copy)]
struct Candidate {
    address: Ipv4Addr,
    id: RouterId,
    priority: u8,
    dr: Ipv4Addr,
    bdr: Ipv4Addr,
}

impl Switch {
    pub(super) fn send_hello(&mut self, port: usize) {
        let it = &self.ports[port];
        let hello = Hello {
            network_mask: it.setup.mask,
            hello_interval: it.setup.hello,
            options: self.area_options(),
            priority: self.setup.personality.priority,
            dead_interval: it.setup.dead,
            dr: it.dr.unwrap_or(Ipv4Addr::UNSPECIFIED),
            bdr: it.bdr.unwrap_or(Ipv4Addr::UNSPECIFIED),
            neighbors: it.peers.values().map(|peer| peer.id).collect(),
        };
        self.send(port, ALL_SPF_ROUTERS, Body::Hello(hello));
    }

    pub(super) fn receive_hello(
        &mut self,
        now: Time,
        port: usize,
        source: Ipv4Addr,
        id: RouterId,
        hello: &Hello,
    ) {
        let setup = self.ports[port].setup;
        let agrees = hello.hello_interval == setup.hello
            && hello.dead_interval == setup.dead
            && hello.options == self.area_options()
            && (setup.network == NetworkType::PointToPoint || hello.network_mask == setup.mask);
        if !agrees || id == self.setup.id {
            return;
        }
        let dead_at = now + Duration::from_secs(setup.dead.into());
        if self.ports[port]
            .peers
            .get(&source)
            .is_some_and(|peer| peer.id != id)
        {
            self.forget(now, port, source);
        }
        let first_sequence = self.first_sequence;
        let it = self.ports[port]
            .peers
            .entry(source)
            .or_insert_with(|| Peer {
                id,
                priority: hello.priority,
                dr: Ipv4Addr::UNSPECIFIED,
                bdr: Ipv4Addr::UNSPECIFIED,
                state: State::Init,
                dead_at,
                is_master: true,
                sequence: first_sequence,
                options: Options::default(),
                last_sent: None,
                last_received: None,
                dbdesc_at: None,
                summary: Vec::new(),
                requests: BTreeMap::new(),
                asked: Vec::new(),
                request_at: None,
                unacknowledged: BTreeMap::new(),
                rxmt_at: None,
            });
        it.dead_at = dead_at;
        let role = |dr: Ipv4Addr, bdr: Ipv4Addr| (dr == source, bdr == source);
        let changed = role(it.dr, it.bdr) != role(hello.dr, hello.bdr);
        it.priority = hello.priority;
        it.dr = hello.dr;
        it.bdr = hello.bdr;
        let was_two_way = it.state >= State::TwoWay;
        if !hello.neighbors.contains(&self.setup.id) {
            self.change(now, port, source, State::Init);
            if was_two_way {
                self.elect(now, port);
            }
            return;
        }
        if !was_two_way {
            self.change(now, port, source, State::TwoWay);
        }
        // BackupSeen: somebody has been elected here before (§9.2).
        let backup_seen =
            hello.bdr == source || hello.dr == source && hello.bdr == Ipv4Addr::UNSPECIFIED;
        if backup_seen {
            self.ports[port].waiting = None;
        }
        if !was_two_way || changed || backup_seen {
            self.elect(now, port);
        }
        self.consider(now, port, source);
    }

    /// The neighbour is gone.
    pub(super) fn forget(&mut self, now: Time, port: usize, peer: Ipv4Addr) {
        self.change(now, port, peer, State::Down);
        self.ports[port].peers.remove(&peer);
        self.elect(now, port);
    }

    /// Enters a state; below Exchange there are no lists.
    pub(super) fn change(&mut self, now: Time, port: usize, peer: Ipv4Addr, state: State) {
        let Some(it) = self.peer(port, peer) else {
            return;
        };
        let from = std::mem::replace(&mut it.state, state);
        if state < State::Exchange {
            it.summary.clear();
            it.requests.clear();
            it.asked.clear();
            it.unacknowledged.clear();
            it.last_received = None;
            it.request_at = None;
            it.rxmt_at = None;
            it.dbdesc_at = None;
        }
        if (from == State::Full) != (state == State::Full) {
            self.is_stale = true;
        }
        if state == State::ExStart {
            self.open_exchange(now, port, peer);
        }
    }

    /// AdjOK? (§10.3, §10.4).
    pub(super) fn consider(&mut self, now: Time, port: usize, peer: Ipv4Addr) {
        let it = &self.ports[port];
        let adjacent = match it.setup.network {
            NetworkType::PointToPoint => true,
            NetworkType::Broadcast => it.is_dr() || it.is_bdr() || it.is_designated(peer),
        };
        match (self.state(port, peer), adjacent) {
            (State::TwoWay, true) => self.change(now, port, peer, State::ExStart),
            (State::ExStart | State::Exchange | State::Loading | State::Full, false) => {
                self.change(now, port, peer, State::TwoWay);
            }
            (State::Down | State::Init, _)
            | (State::TwoWay, false)
            | (State::ExStart | State::Exchange | State::Loading | State::Full, true) => {}
        }
    }

    /// §9.4.
    pub(super) fn elect(&mut self, now: Time, port: usize) {
        let it = &self.ports[port];
        let is_point_to_point = it.setup.network == NetworkType::PointToPoint;
        if is_point_to_point || !it.is_up || it.waiting.is_some() {
            return;
        }
        let before = (it.dr, it.bdr);
        let own = it.setup.address;
        let mut elected = self.calculate(port, before);
        let role =
            |(dr, bdr): (Option<Ipv4Addr>, Option<Ipv4Addr>)| (dr == Some(own), bdr == Some(own));
        // Step 4: a router whose own part changed calculates once more.
        if role(elected) != role(before) {
            elected = self.calculate(port, elected);
        }
        if elected == before {
            return;
        }
        (self.ports[port].dr, self.ports[port].bdr) = elected;
        self.is_stale = true;
        let peers: Vec<Ipv4Addr> = self.ports[port].peers.keys().copied().collect();
        for peer in peers {
            self.consider(now, port, peer);
        }
    }

    /// Steps 2 and 3, with what we declare ourselves to be.
    fn calculate(
        &self,
        port: usize,
        (dr, bdr): (Option<Ipv4Addr>, Option<Ipv4Addr>),
    ) -> (Option<Ipv4Addr>, Option<Ipv4Addr>) {
        let it = &self.ports[port];
        let ourselves = Candidate {
            address: it.setup.address,
            id: self.setup.id,
            priority: self.setup.personality.priority,
            dr: dr.unwrap_or(Ipv4Addr::UNSPECIFIED),
            bdr: bdr.unwrap_or(Ipv4Addr::UNSPECIFIED),
        };
        let two_way = it
            .peers
            .iter()
            .filter(|(_, peer)| peer.state >= State::TwoWay);
        let candidates: Vec<Candidate> = two_way
            .map(|(&address, peer)| Candidate {
                address,
                id: peer.id,
                priority: peer.priority,
                dr: peer.dr,
                bdr: peer.bdr,
            })
            .chain([ourselves])
            .filter(|candidate| candidate.priority > 0)
            .collect();
        let best = |eligible: &dyn Fn(&Candidate) -> bool| {
            let eligible = candidates.iter().filter(|candidate| eligible(candidate));
            let best = eligible.max_by_key(|candidate| (candidate.priority, candidate.id));
            best.map(|candidate| candidate.address)
        };
        let declares_dr = |candidate: &Candidate| candidate.dr == candidate.address;
        let declares_bdr = |candidate: &Candidate| candidate.bdr == candidate.address;
        let bdr = best(&|candidate| !declares_dr(candidate) && declares_bdr(candidate))
            .or_else(|| best(&|candidate| !declares_dr(candidate)));
        (best(&declares_dr).or(bdr), bdr)
    }
}
