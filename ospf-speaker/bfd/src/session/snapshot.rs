//! A session as plain data, for the process that takes it over.
//!
//! [`Session`] is taken apart and put together without `..`, so that a field which is added to
//! it and forgotten here does not compile.

use std::collections::VecDeque;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Config, Intervals, Poll, Remote, Session};
use crate::moment::Moment;
use crate::random::SplitMix64;
use crate::state::{Diagnostic, State};

/// All that a session knows, with its points in time as distances from that of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSnapshot {
    discriminator: NonZeroU32,
    min_tx: Duration,
    min_rx: Duration,
    detect_multiplier: NonZeroU8,
    seed: u64,
    state: State,
    diagnostic: Diagnostic,
    held_down: bool,
    remote: RemoteSnapshot,
    poll: Poll,
    active_tx: Duration,
    active_rx: Duration,
    last_received: Option<Moment>,
    last_sent: Moment,
    next_transmit: Option<Moment>,
    periodic_pending: bool,
    final_pending: bool,
    random: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RemoteSnapshot {
    discriminator: u32,
    state: State,
    demand: bool,
    min_rx: Duration,
    desired_min_tx: Duration,
    detect_multiplier: u8,
}

/// The longest interval that a packet can name (RFC 5880 §4.1).
const LONGEST: Duration = Duration::from_micros(u32::MAX as u64);

/// The snapshot has a time that no session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("BFD session {discriminator}: a time is out of range")]
pub struct OutOfRange {
    discriminator: NonZeroU32,
}

impl Session {
    /// The session as plain data. What [`Session::poll_event`] still has is not part of it.
    pub fn snapshot(&self, now: Instant) -> SessionSnapshot {
        let Self {
            config,
            state,
            diagnostic,
            held_down,
            remote,
            poll,
            active_tx,
            active_rx,
            last_received,
            last_sent,
            next_transmit,
            periodic_pending,
            final_pending,
            events: _,
            random,
        } = self;
        let Config {
            discriminator,
            intervals: Intervals { min_tx, min_rx },
            detect_multiplier,
            seed,
        } = *config;
        SessionSnapshot {
            discriminator,
            min_tx,
            min_rx,
            detect_multiplier,
            seed,
            state: *state,
            diagnostic: *diagnostic,
            held_down: *held_down,
            remote: remote.snapshot(),
            poll: *poll,
            active_tx: *active_tx,
            active_rx: *active_rx,
            last_received: last_received.map(|at| Moment::new(at, now)),
            last_sent: Moment::new(*last_sent, now),
            next_transmit: next_transmit.map(|at| Moment::new(at, now)),
            periodic_pending: *periodic_pending,
            final_pending: *final_pending,
            random: random.state(),
        }
    }

    /// The session that was [taken](Session::snapshot) at `taken`, which goes on as if nothing
    /// had been.
    ///
    /// # Errors
    /// When a time is beyond this process' clock, or an interval beyond what packets can name.
    pub fn restore(snapshot: SessionSnapshot, taken: Instant) -> Result<Self, OutOfRange> {
        let SessionSnapshot {
            discriminator,
            min_tx,
            min_rx,
            detect_multiplier,
            seed,
            state,
            diagnostic,
            held_down,
            remote,
            poll,
            active_tx,
            active_rx,
            last_received,
            last_sent,
            next_transmit,
            periodic_pending,
            final_pending,
            random,
        } = snapshot;
        let intervals = [
            min_tx,
            min_rx,
            active_tx,
            active_rx,
            remote.min_rx,
            remote.desired_min_tx,
        ];
        if intervals.iter().any(|interval| *interval > LONGEST) {
            return Err(OutOfRange { discriminator });
        }
        let instant = |at: Moment| at.instant(taken).ok_or(OutOfRange { discriminator });
        Ok(Self {
            config: Config {
                discriminator,
                intervals: Intervals { min_tx, min_rx },
                detect_multiplier,
                seed,
            },
            state,
            diagnostic,
            held_down,
            remote: Remote::restore(&remote),
            poll,
            active_tx,
            active_rx,
            last_received: last_received.map(instant).transpose()?,
            last_sent: instant(last_sent)?,
            next_transmit: next_transmit.map(instant).transpose()?,
            periodic_pending,
            final_pending,
            events: VecDeque::new(),
            random: SplitMix64::new(random),
        })
    }
}

impl Remote {
    fn snapshot(&self) -> RemoteSnapshot {
        let Self {
            discriminator,
            state,
            demand,
            min_rx,
            desired_min_tx,
            detect_multiplier,
        } = *self;
        RemoteSnapshot {
            discriminator,
            state,
            demand,
            min_rx,
            desired_min_tx,
            detect_multiplier,
        }
    }

    fn restore(snapshot: &RemoteSnapshot) -> Self {
        let RemoteSnapshot {
            discriminator,
            state,
            demand,
            min_rx,
            desired_min_tx,
            detect_multiplier,
        } = *snapshot;
        Self {
            discriminator,
            state,
            demand,
            min_rx,
            desired_min_tx,
            detect_multiplier,
        }
    }
}
