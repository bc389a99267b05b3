//! LSAs at MaxAge and their way out of the database (RFC 2328 §14).

use std::time::Instant;

use crate::lsdb::DbKey;
use crate::router::Router;
use crate::sabotage::Sabotage;
use crate::timer::Timer;

impl Router {
    /// An LSA reached MaxAge: it is flooded once more, so that all let go of it together.
    pub(crate) fn max_age_timeout(&mut self, now: Instant, key: DbKey) {
        self.flush(now, key);
    }

    /// Sets an LSA's age to MaxAge and floods it; also premature aging (§14.1).
    pub(crate) fn flush(&mut self, now: Instant, key: DbKey) {
        self.timers.clear(Timer::MaxAge(key));
        self.lsdb.expire(&key);
        self.flood(now, key, None, &[]);
        self.purge(now, &key);
    }

    /// Removes an LSA at MaxAge when it is on no retransmission list and no neighbour is in
    /// Exchange or Loading.
    pub(crate) fn purge(&mut self, now: Instant, key: &DbKey) {
        let leaves = self
            .lsdb
            .entry(key)
            .is_some_and(|entry| entry.is_max_age(now));
        if self.is_sabotaged(Sabotage::PurgeNothing) {
            return;
        }
        let synchronizing =
            self.anyone_synchronizing() && !self.is_sabotaged(Sabotage::PurgeTooSoon);
        if leaves && !self.is_on_a_retransmission_list(key) && !synchronizing {
            self.forget_lsa(key);
        }
    }

    /// Looks at all LSAs at MaxAge again, after a neighbour let go of them.
    pub(crate) fn purge_all(&mut self, now: Instant) {
        let leaving: Vec<DbKey> = self.lsdb.leaving().collect();
        for key in leaving {
            self.purge(now, &key);
        }
    }

    /// Takes an LSA out of the database without a word to anybody.
    pub(crate) fn forget_lsa(&mut self, key: &DbKey) {
        self.counters.lsas_purged += 1;
        self.timers.clear(Timer::MaxAge(*key));
        self.clear_retransmissions(key);
        self.lsdb.remove(key);
        self.lsa_is_gone(key);
    }
}
