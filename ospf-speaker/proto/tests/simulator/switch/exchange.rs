//! The Database Exchange and loading (RFC 2328 §10.6 to §10.9).

use std::net::Ipv4Addr;

use isopath_ospf::State;
use isopath_ospf::packet::{Body, DbDesc, DbDescFlags, LsType, Lsa, LsaKey, MAX_AGE, Options};

use super::{PAGE, REQUEST_PAGE, Switch};
use crate::network::Time;

/// What Database Descriptions name; no speaker's link has a smaller one.
const MTU: u16 = 576;

impl Switch {
    pub(super) fn open_exchange(&mut self, now: Time, port: usize, peer: Ipv4Addr) {
        if let Some(it) = self.peer(port, peer) {
            it.sequence = it.sequence.wrapping_add(1);
            it.is_master = true;
        }
        self.send_dbdesc(now, port, peer, DbDescFlags::OPENING);
    }

    fn send_dbdesc(&mut self, now: Time, port: usize, peer: Ipv4Addr, flags: DbDescFlags) {
        let options = self.area_options().union(Options::O);
        let rxmt = self.setup.personality.rxmt;
        let Some(it) = self.peer(port, peer) else {
            return;
        };
        let count = match flags.init {
            true => 0,
            false => it.summary.len().min(PAGE),
        };
        it.last_sent = Some(DbDesc {
            mtu: MTU,
            options,
            flags,
            sequence: it.sequence,
            headers: it.summary.drain(..count).collect(),
        });
        it.dbdesc_at = flags.master.then(|| now + rxmt);
        self.repeat_dbdesc(port, peer);
    }

    pub(super) fn repeat_dbdesc(&mut self, port: usize, peer: Ipv4Addr) {
        let last = self.peer(port, peer).and_then(|it| it.last_sent.clone());
        if let Some(dbdesc) = last {
            self.send_to(port, peer, Body::DbDesc(dbdesc));
        }
    }

    pub(super) fn receive_dbdesc(
        &mut self,
        now: Time,
        port: usize,
        peer: Ipv4Addr,
        dbdesc: &DbDesc,
    ) {
        if self.state(port, peer) == State::Init {
            self.change(now, port, peer, State::TwoWay);
            self.elect(now, port);
            self.consider(now, port, peer);
        }
        let own_id = self.setup.id;
        let state = self.state(port, peer);
        let Some(it) = self.peer(port, peer) else {
            return;
        };
        let flags = dbdesc.flags;
        let duplicate = it.last_received.as_ref().is_some_and(|last| {
            (last.flags, last.options, last.sequence) == (flags, dbdesc.options, dbdesc.sequence)
        });
        match state {
            State::Down | State::Init | State::TwoWay => return,
            State::ExStart => {
                let opens = flags.init && flags.more && flags.master && dbdesc.headers.is_empty();
                let answers = !flags.init && !flags.master && dbdesc.sequence == it.sequence;
                if opens && it.id > own_id {
                    it.is_master = false;
                    it.sequence = dbdesc.sequence;
                } else if !answers || it.id > own_id {
                    return;
                }
                it.options = dbdesc.options;
                self.begin_exchange(now, port, peer);
            }
            State::Exchange if duplicate => {
                if !it.is_master {
                    self.repeat_dbdesc(port, peer);
                }
                return;
            }
            State::Exchange => {
                let expected = match it.is_master {
                    true => it.sequence,
                    false => it.sequence.wrapping_add(1),
                };
                let in_sequence = flags.master != it.is_master
                    && !flags.init
                    && dbdesc.options == it.options
                    && dbdesc.sequence == expected;
                if !in_sequence {
                    self.change(now, port, peer, State::ExStart);
                    return;
                }
            }
            State::Loading | State::Full => {
                match (duplicate, it.is_master) {
                    (true, false) => self.repeat_dbdesc(port, peer),
                    (true, true) => {}
                    (false, _) => self.change(now, port, peer, State::ExStart),
                }
                return;
            }
        }
        self.take_page(now, port, peer, dbdesc);
    }

    fn begin_exchange(&mut self, now: Time, port: usize, peer: Ipv4Addr) {
        let (mut summary, mut expired) = (Vec::new(), Vec::new());
        for (&key, stored) in &self.db {
            match stored.age(now) < MAX_AGE {
                true => summary.push(stored.header(now)),
                false => expired.push(key),
            }
        }
        self.change(now, port, peer, State::Exchange);
        if let Some(it) = self.peer(port, peer) {
            it.dbdesc_at = None;
            it.summary = summary;
        }
        for key in expired {
            self.expect_acknowledgement(now, port, peer, key);
        }
    }

    fn take_page(&mut self, now: Time, port: usize, peer: Ipv4Addr, dbdesc: &DbDesc) {
        for header in &dbdesc.headers {
            if matches!(header.key.ls_type, LsType::Unknown(_)) {
                self.change(now, port, peer, State::ExStart);
                return;
            }
            let present = self.db.get(&header.key).map(|stored| stored.header(now));
            let lacking = present.is_none_or(|present| header.recency(&present).is_gt());
            if let Some(it) = self.peer(port, peer)
                && lacking
            {
                it.requests.insert(header.key, *header);
            }
        }
        let Some(it) = self.peer(port, peer) else {
            return;
        };
        it.last_received = Some(dbdesc.clone());
        let sent_all = it.last_sent.as_ref().is_some_and(|sent| !sent.flags.more);
        let is_done = if it.is_master {
            it.sequence = it.sequence.wrapping_add(1);
            let is_done = sent_all && !dbdesc.flags.more;
            if !is_done {
                self.send_page(now, port, peer);
            }
            is_done
        } else {
            it.sequence = dbdesc.sequence;
            !self.send_page(now, port, peer) && !dbdesc.flags.more
        };
        if is_done {
            if let Some(it) = self.peer(port, peer) {
                it.dbdesc_at = None;
            }
            self.change(now, port, peer, State::Loading);
        }
        self.load(now, port, peer);
    }

    /// Says whether more pages follow.
    fn send_page(&mut self, now: Time, port: usize, peer: Ipv4Addr) -> bool {
        let Some(it) = self.peer(port, peer) else {
            return false;
        };
        let flags = DbDescFlags {
            init: false,
            more: it.summary.len() > PAGE,
            master: it.is_master,
            other: 0,
        };
        self.send_dbdesc(now, port, peer, flags);
        flags.more
    }

    /// Asks for what is lacking, or is Full.
    pub(super) fn load(&mut self, now: Time, port: usize, peer: Ipv4Addr) {
        let state = self.state(port, peer);
        let Some(it) = self.peer(port, peer) else {
            return;
        };
        if it.requests.is_empty() {
            it.request_at = None;
            if state == State::Loading {
                self.change(now, port, peer, State::Full);
            }
            return;
        }
        // The next request follows when the last one is answered.
        let is_answered = !it.asked.iter().any(|key| it.requests.contains_key(key));
        if is_answered && state >= State::Exchange {
            self.send_request(now, port, peer);
        }
    }

    pub(super) fn send_request(&mut self, now: Time, port: usize, peer: Ipv4Addr) {
        let rxmt = self.setup.personality.rxmt;
        let Some(it) = self.peer(port, peer) else {
            return;
        };
        it.request_at = Some(now + rxmt);
        let keys: Vec<LsaKey> = it.requests.keys().take(REQUEST_PAGE).copied().collect();
        it.asked.clone_from(&keys);
        self.send_to(port, peer, Body::Request(keys));
    }

    pub(super) fn receive_request(
        &mut self,
        now: Time,
        port: usize,
        peer: Ipv4Addr,
        keys: &[LsaKey],
    ) {
        if self.state(port, peer) < State::Exchange {
            return;
        }
        let found: Option<Vec<Lsa>> = keys
            .iter()
            .map(|key| self.db.get(key).map(|stored| stored.to_send(now)))
            .collect();
        match found {
            Some(lsas) => self.send_to(port, peer, Body::Update(lsas)),
            None => self.change(now, port, peer, State::ExStart),
        }
    }
}
