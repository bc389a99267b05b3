//! One session: the state machine with its timers (RFC 5880 §6.8).

use std::collections::VecDeque;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::packet::{ControlPacket, PACKET_LEN};
use crate::random::SplitMix64;
use crate::state::{Diagnostic, Input, State, transition};

mod snapshot;
#[cfg(test)]
mod tests;

pub use snapshot::{OutOfRange, SessionSnapshot};

/// The least Desired Min TX Interval of a session that is not Up (RFC 5880 §6.8.3).
const SLOW_TX: Duration = Duration::from_secs(1);

/// The shortest interval a session works with, so that no peer and no caller makes it spin.
const SHORTEST: Duration = Duration::from_millis(1);

/// What a session is created with.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Our name for the session, unique on this system and best kept over restarts: some peers
    /// ignore a new one until they have found the old session dead.
    pub discriminator: NonZeroU32,
    /// How often to send and receive.
    pub intervals: Intervals,
    /// How many packets in a row the peer may miss.
    pub detect_multiplier: NonZeroU8,
    /// The seed of the jitter.
    pub seed: u64,
}

/// The intervals of a session that is Up; anything below 1 ms counts as 1 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// Desired Min TX Interval.
    pub min_tx: Duration,
    /// Required Min RX Interval.
    pub min_rx: Duration,
}

/// What a session tells its owner: it changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// Our diagnostic now.
    pub diagnostic: Diagnostic,
    /// The state that the peer gave itself last; Down where it is lost. AdminDown means that
    /// the path is not to be blamed (RFC 5882 §4.2).
    pub remote: State,
}

/// What the peer said last (RFC 5880 §6.8.1), or its initial values.
#[derive(Debug, Clone, Copy)]
struct Remote {
    discriminator: u32,
    state: State,
    demand: bool,
    min_rx: Duration,
    desired_min_tx: Duration,
    detect_multiplier: u8,
}

impl Remote {
    const UNKNOWN: Self = Self {
        discriminator: 0,
        state: State::Down,
        demand: false,
        min_rx: Duration::from_micros(1),
        desired_min_tx: Duration::ZERO,
        detect_multiplier: 0,
    };
}

/// A Poll Sequence (RFC 5880 §6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Poll {
    Idle,
    /// Poll is set in every packet until Final comes.
    Asking,
    /// The parameters changed while asking: the next Final may answer the older ones, so one
    /// more sequence follows it.
    AskingOutdated,
}

/// A BFD session with one peer over one interface.
#[derive(Debug)]
pub struct Session {
    config: Config,
    state: State,
    diagnostic: Diagnostic,
    /// The caller wants the session to stay Down whatever the peer says.
    held_down: bool,
    remote: Remote,
    poll: Poll,
    /// The transmit interval in use; lags behind the configured one until Final when that grew.
    active_tx: Duration,
    /// The receive interval in use; lags behind the configured one until Final when that shrank.
    active_rx: Duration,
    last_received: Option<Instant>,
    last_sent: Instant,
    next_transmit: Option<Instant>,
    periodic_pending: bool,
    final_pending: bool,
    events: VecDeque<Event>,
    random: SplitMix64,
}

impl Session {
    /// A session in state Down that sends its first packet at once.
    pub fn new(config: Config, now: Instant) -> Self {
        let config = Config {
            intervals: config.intervals.clamped(),
            ..config
        };
        let mut session = Self {
            config,
            state: State::Down,
            diagnostic: Diagnostic::None,
            held_down: false,
            remote: Remote::UNKNOWN,
            poll: Poll::Idle,
            active_tx: config.intervals.min_tx.max(SLOW_TX),
            active_rx: config.intervals.min_rx,
            last_received: None,
            last_sent: now,
            next_transmit: None,
            periodic_pending: false,
            final_pending: false,
            events: VecDeque::new(),
            random: SplitMix64::new(config.seed),
        };
        session.transmit(now);
        session
    }

    /// A packet of this session's peer: found by its Your Discriminator, or by interface and
    /// source address where that is 0, and received with TTL 255.
    pub fn handle_packet(&mut self, now: Instant, packet: &ControlPacket) {
        let before = self.periodic_interval();
        self.remote = Remote {
            discriminator: packet.my_discriminator.get(),
            state: packet.state,
            demand: packet.demand,
            min_rx: packet.required_min_rx,
            desired_min_tx: packet.desired_min_tx,
            detect_multiplier: packet.detect_multiplier,
        };
        self.last_received = Some(now);
        if packet.final_ {
            self.poll_answered();
        }
        if self.state != State::AdminDown {
            if !self.held_down {
                self.apply(now, Input::Received(packet.state));
            }
            self.final_pending |= packet.poll;
        }
        self.adapt_transmit_timer(now, before);
    }

    /// The time has come that [`Self::poll_timeout`] named; harmless at any other.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.detection_deadline().is_some_and(|at| at <= now) {
            self.remote = Remote::UNKNOWN;
            self.last_received = None;
            self.apply(now, Input::DetectionTimeExpired);
        }
        if self.next_transmit.is_some_and(|at| at <= now) {
            self.transmit(now);
        }
    }

    /// Takes the session down and tells the peer that it must act on it, as a planned stop does.
    /// It stays Down until [`Self::enable`].
    pub fn down(&mut self, now: Instant) {
        self.held_down = true;
        self.apply(now, Input::Down);
    }

    /// Takes the session to AdminDown, which says nothing about the path; the peer should keep
    /// what it routes over it. It stays there until [`Self::enable`].
    pub fn admin_down(&mut self, now: Instant) {
        self.apply(now, Input::AdminDown);
    }

    /// Lets the session come up after [`Self::down`] or [`Self::admin_down`].
    pub fn enable(&mut self, now: Instant) {
        self.held_down = false;
        self.apply(now, Input::Enable);
    }

    /// New intervals (RFC 5880 §6.8.3). While Up, what speeds a side up holds at once; slower
    /// sending and faster detection wait for the peer's Final.
    pub fn set_intervals(&mut self, now: Instant, intervals: Intervals) {
        let intervals = intervals.clamped();
        if intervals == self.config.intervals {
            return;
        }
        let before = self.periodic_interval();
        self.config.intervals = intervals;
        if self.state == State::Up {
            self.active_tx = self.active_tx.min(intervals.min_tx);
            self.active_rx = self.active_rx.max(intervals.min_rx);
            self.ask();
        } else {
            self.adopt_intervals();
        }
        self.adapt_transmit_timer(now, before);
    }

    /// When [`Self::handle_timeout`] is due; later than the time of the last `handle_*` call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (self.next_transmit, self.detection_deadline()) {
            (Some(transmit), Some(detection)) => Some(transmit.min(detection)),
            (at, None) | (None, at) => at,
        }
    }

    /// When the next periodic packet is due.
    pub fn transmit_due(&self) -> Option<Instant> {
        self.next_transmit
    }

    /// The next packet to send now.
    pub fn poll_transmit(&mut self) -> Option<[u8; PACKET_LEN]> {
        let final_ = std::mem::take(&mut self.final_pending);
        if !final_ && !std::mem::take(&mut self.periodic_pending) {
            return None;
        }
        let packet = ControlPacket {
            diagnostic: self.diagnostic,
            state: self.state,
            // Poll and Final never stand in one packet (RFC 5880 §6.5).
            poll: !final_ && self.poll != Poll::Idle,
            final_,
            control_plane_independent: false,
            demand: false,
            detect_multiplier: self.config.detect_multiplier.get(),
            my_discriminator: self.config.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx: self.desired_min_tx(),
            required_min_rx: self.config.intervals.min_rx,
        };
        Some(packet.emit())
    }

    /// The next change of state, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// The state that the peer gave itself last; Down where it is lost or was never heard.
    pub fn remote_state(&self) -> State {
        self.remote.state
    }

    /// Our discriminator.
    pub fn discriminator(&self) -> NonZeroU32 {
        self.config.discriminator
    }

    /// The time without a packet after which the peer counts as lost (RFC 5880 §6.8.4); nothing
    /// until it was heard.
    pub fn detection_time(&self) -> Option<Duration> {
        self.last_received?;
        let interval = self.active_rx.max(self.remote.desired_min_tx);
        Some(interval * u32::from(self.remote.detect_multiplier))
    }

    /// When the peer, if it has our last packet and gets no other, takes us for dead; nothing
    /// unless we are Up.
    pub fn peer_patience(&self) -> Option<Instant> {
        let interval = self
            .periodic_interval()
            .filter(|_| self.state == State::Up)?;
        Some(self.last_sent + interval * u32::from(self.config.detect_multiplier.get()))
    }

    fn detection_deadline(&self) -> Option<Instant> {
        Some(self.last_received? + self.detection_time()?)
    }

    fn desired_min_tx(&self) -> Duration {
        let min_tx = self.config.intervals.min_tx;
        match self.state {
            State::Up => min_tx,
            State::AdminDown | State::Down | State::Init => min_tx.max(SLOW_TX),
        }
    }

    /// The interval of periodic packets before jitter, or nothing when there must be none
    /// (RFC 5880 §6.8.7).
    fn periodic_interval(&self) -> Option<Duration> {
        let asleep = self.remote.demand
            && self.state == State::Up
            && self.remote.state == State::Up
            && self.poll == Poll::Idle;
        if asleep || self.remote.min_rx.is_zero() {
            None
        } else {
            Some(self.active_tx.max(self.remote.min_rx))
        }
    }

    fn apply(&mut self, now: Instant, input: Input) {
        let Some(change) = transition(self.state, input) else {
            return;
        };
        let from = std::mem::replace(&mut self.state, change.to);
        self.diagnostic = change.diagnostic.unwrap_or(self.diagnostic);
        let slow = self.active_tx;
        self.poll = Poll::Idle;
        self.adopt_intervals();
        if change.to == State::Up && self.active_tx != slow {
            self.poll = Poll::Asking;
        }
        self.events.push_back(Event {
            from,
            to: change.to,
            diagnostic: self.diagnostic,
            remote: self.remote.state,
        });
        // The peer learns of the change without waiting for the timer (RFC 5880 §6.8.7).
        self.transmit(now);
    }

    fn ask(&mut self) {
        self.poll = match self.poll {
            Poll::Idle => Poll::Asking,
            Poll::Asking | Poll::AskingOutdated => Poll::AskingOutdated,
        };
    }

    fn poll_answered(&mut self) {
        self.poll = match self.poll {
            Poll::Idle => return,
            Poll::AskingOutdated => Poll::Asking,
            Poll::Asking => {
                self.adopt_intervals();
                Poll::Idle
            }
        };
    }

    fn adopt_intervals(&mut self) {
        self.active_tx = self.desired_min_tx();
        self.active_rx = self.config.intervals.min_rx;
    }

    /// Queues a packet and arms the timer of the next one.
    fn transmit(&mut self, now: Instant) {
        self.periodic_pending = true;
        self.last_sent = now;
        self.next_transmit = self
            .periodic_interval()
            .map(|interval| now + self.jittered(interval));
    }

    /// Brings the timer forward when the interval became shorter than `before`, measured from
    /// the last packet sent. Nothing received ever puts a packet off: a peer that talks without
    /// pause would silence us.
    fn adapt_transmit_timer(&mut self, now: Instant, before: Option<Duration>) {
        let interval = self.periodic_interval();
        if interval == before {
            return;
        }
        let earliest = |at: Instant| at.max(now + Duration::from_micros(1));
        self.next_transmit = match (interval, self.next_transmit) {
            (None, _) => None,
            (Some(interval), None) => Some(earliest(self.last_sent + self.jittered(interval))),
            (Some(interval), Some(armed)) => {
                Some(armed.min(earliest(self.last_sent + self.jittered(interval))))
            }
        };
    }

    /// 75 to 100 % of the interval, at most 90 % where a single loss is the limit
    /// (RFC 5880 §6.8.7).
    fn jittered(&mut self, interval: Duration) -> Duration {
        let micros = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        let (fixed, random) = if self.config.detect_multiplier.get() == 1 {
            (micros / 10 + 1, micros * 15 / 100)
        } else {
            (0, micros / 4)
        };
        let reduction = fixed + self.random.up_to(random.saturating_sub(1));
        Duration::from_micros(micros.saturating_sub(reduction).max(1))
    }
}

impl Intervals {
    fn clamped(self) -> Self {
        Self {
            min_tx: self.min_tx.max(SHORTEST),
            min_rx: self.min_rx.max(SHORTEST),
        }
    }
}
