//! Sessions on a virtual clock.

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn config(discriminator: u32, interval: Duration, multiplier: u8) -> Config {
    Config {
        discriminator: NonZeroU32::new(discriminator).unwrap(),
        intervals: Intervals {
            min_tx: interval,
            min_rx: interval,
        },
        detect_multiplier: NonZeroU8::new(multiplier).unwrap(),
        seed: u64::from(discriminator),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "some start for the virtual clock"
)]
fn start() -> Instant {
    Instant::now()
}

/// What the peer sends when it is in `state` and knows us.
fn from_peer(state: State) -> ControlPacket {
    ControlPacket {
        diagnostic: Diagnostic::None,
        state,
        poll: false,
        final_: false,
        control_plane_independent: false,
        demand: false,
        detect_multiplier: 3,
        my_discriminator: NonZeroU32::new(99).unwrap(),
        your_discriminator: 1,
        desired_min_tx: 50 * MS,
        required_min_rx: 50 * MS,
    }
}

fn sent(session: &mut Session) -> Vec<ControlPacket> {
    std::iter::from_fn(|| session.poll_transmit())
        .map(|bytes| ControlPacket::parse(&bytes).unwrap())
        .collect()
}

/// A session that has come Up with [`from_peer`] and whose Poll is answered.
fn up(interval: Duration, multiplier: u8) -> (Session, Instant) {
    let now = start();
    let mut session = Session::new(config(1, interval, multiplier), now);
    session.handle_packet(now, &from_peer(State::Init));
    let answer = ControlPacket {
        final_: true,
        ..from_peer(State::Up)
    };
    session.handle_packet(now, &answer);
    sent(&mut session);
    while session.poll_event().is_some() {}
    assert_eq!(session.state(), State::Up);
    (session, now)
}

/// Two sessions joined by a path with a fixed delay and random loss.
struct Pair {
    ends: [Session; 2],
    now: Instant,
    flying: VecDeque<(Instant, usize, [u8; PACKET_LEN])>,
    random: SplitMix64,
    loss_percent: u64,
    cut: bool,
    last_from: [Instant; 2],
}

impl Pair {
    const DELAY: Duration = Duration::from_millis(2);

    fn new(configs: [Config; 2], seed: u64, loss_percent: u64) -> Self {
        let now = start();
        Self {
            ends: configs.map(|config| Session::new(config, now)),
            now,
            flying: VecDeque::new(),
            random: SplitMix64::new(seed),
            loss_percent,
            cut: false,
            last_from: [now; 2],
        }
    }

    fn drain(&mut self) {
        for (from, end) in self.ends.iter_mut().enumerate() {
            while let Some(bytes) = end.poll_transmit() {
                let lost = self.cut || self.random.up_to(99) < self.loss_percent;
                if !lost {
                    self.last_from[from] = self.now;
                    self.flying
                        .push_back((self.now + Self::DELAY, 1 - from, bytes));
                }
            }
        }
    }

    fn step(&mut self) {
        self.drain();
        let timers = self.ends.iter().filter_map(Session::poll_timeout).min();
        let arrival = self.flying.front().map(|(at, ..)| *at);
        let next = timers.into_iter().chain(arrival).min();
        let next = next.expect("a session always has a timer");
        assert!(next >= self.now, "time went back");
        self.now = next;
        for end in &mut self.ends {
            end.handle_timeout(self.now);
            let due = end.poll_timeout();
            assert!(due.is_none_or(|at| at > self.now), "the timer did not move");
        }
        while self.flying.front().is_some_and(|(at, ..)| *at <= self.now) {
            if let Some((_, to, bytes)) = self.flying.pop_front() {
                let packet = ControlPacket::parse(&bytes).unwrap();
                self.ends[to].handle_packet(self.now, &packet);
            }
        }
        self.drain();
    }

    /// Runs until both ends are in `state`; how long that took.
    fn run_until(&mut self, state: State, limit: Duration) -> Option<Duration> {
        let begin = self.now;
        while self.now < begin + limit {
            self.step();
            if self.ends.iter().all(|end| end.state() == state) {
                return Some(self.now - begin);
            }
        }
        None
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }
}

#[test]
fn without_loss_both_ends_are_up_within_a_few_delays() {
    let mut pair = Pair::new([config(1, 50 * MS, 3), config(2, 50 * MS, 3)], 1, 0);
    let took = pair.run_until(State::Up, Duration::from_secs(5)).unwrap();
    assert!(
        took <= 10 * MS,
        "{took:?}: a state change was not sent at once"
    );
}

#[test]
fn a_session_that_is_not_up_sends_once_a_second() {
    let mut now = start();
    let mut session = Session::new(config(1, 50 * MS, 3), now);
    for _ in 0..50 {
        let packets = sent(&mut session);
        assert_eq!(packets.len(), 1);
        assert_eq!(packets[0].state, State::Down);
        assert_eq!(packets[0].your_discriminator, 0);
        assert_eq!(packets[0].desired_min_tx, Duration::from_secs(1));
        let next = session.poll_timeout().unwrap();
        let gap = next - now;
        assert!((750 * MS..=1000 * MS).contains(&gap), "{gap:?}");
        now = next;
        session.handle_timeout(now);
    }
}

#[test]
fn jitter_stays_in_its_bounds_and_spreads() {
    for (multiplier, bounds) in [(1, 750..=900), (3, 750..=1000)] {
        let (mut session, _) = up(100 * MS, multiplier);
        let mut gaps = Vec::new();
        for _ in 0..500 {
            let now = session.transmit_due().unwrap();
            session.handle_packet(now, &from_peer(State::Up));
            session.handle_timeout(now);
            sent(&mut session);
            let next = session.transmit_due().unwrap();
            gaps.push((next - now).as_micros() / 100);
        }
        let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!(bounds.contains(least) && bounds.contains(most), "{gaps:?}");
        assert!(most - least > 100, "multiplier {multiplier}: no spread");
    }
}

#[test]
fn coming_up_starts_a_poll_that_final_ends() {
    let now = start();
    let mut session = Session::new(config(1, 50 * MS, 3), now);
    sent(&mut session);
    session.handle_packet(now, &from_peer(State::Init));
    let packets = sent(&mut session);
    assert_eq!(packets.len(), 1);
    assert!(packets[0].poll && packets[0].state == State::Up);
    assert_eq!(packets[0].desired_min_tx, 50 * MS);

    let later = session.transmit_due().unwrap();
    session.handle_timeout(later);
    assert!(sent(&mut session)[0].poll, "Poll is repeated until Final");

    let answer = ControlPacket {
        final_: true,
        ..from_peer(State::Up)
    };
    session.handle_packet(later, &answer);
    session.handle_timeout(session.transmit_due().unwrap());
    assert!(!sent(&mut session)[0].poll, "Final ends the Poll");
}

#[test]
fn a_poll_is_answered_at_once_and_without_poll() {
    let now = start();
    let mut session = Session::new(config(1, 50 * MS, 3), now);
    session.handle_packet(now, &from_peer(State::Init));
    sent(&mut session);
    let due = session.transmit_due();
    let asking = ControlPacket {
        poll: true,
        ..from_peer(State::Up)
    };
    session.handle_packet(now + MS, &asking);
    let packets = sent(&mut session);
    assert_eq!(packets.len(), 1);
    assert!(packets[0].final_ && !packets[0].poll);
    assert_eq!(session.transmit_due(), due, "the answer moved the timer");
}

#[test]
fn receiving_never_puts_a_transmission_off() {
    let (mut session, now) = up(50 * MS, 3);
    let due = session.transmit_due().unwrap();
    for step in 1..200 {
        session.handle_packet(now + step * MS / 10, &from_peer(State::Up));
        assert_eq!(session.transmit_due(), Some(due));
    }
}

#[test]
fn a_peer_that_wants_fewer_packets_gets_fewer_and_one_that_wants_none_gets_none() {
    let (mut session, now) = up(50 * MS, 3);
    let slow = ControlPacket {
        required_min_rx: 400 * MS,
        ..from_peer(State::Up)
    };
    session.handle_packet(now, &slow);
    let first = session.transmit_due().unwrap();
    session.handle_timeout(first);
    let gap = session.transmit_due().unwrap() - first;
    assert!((300 * MS..=400 * MS).contains(&gap), "{gap:?}");

    session.handle_packet(first, &from_peer(State::Up));
    let sooner = session.transmit_due().unwrap() - first;
    assert!(
        sooner <= 50 * MS,
        "a shorter interval holds at once: {sooner:?}"
    );

    let none = ControlPacket {
        required_min_rx: Duration::ZERO,
        ..from_peer(State::Up)
    };
    session.handle_packet(first, &none);
    assert_eq!(session.transmit_due(), None);
    session.handle_packet(first + MS, &from_peer(State::Up));
    assert!(session.transmit_due().is_some());
}

#[test]
fn a_peer_in_demand_mode_hears_no_periodic_packets_while_up() {
    let (mut session, now) = up(50 * MS, 3);
    let demand = ControlPacket {
        demand: true,
        ..from_peer(State::Up)
    };
    session.handle_packet(now, &demand);
    assert_eq!(session.transmit_due(), None);
    let deadline = session.poll_timeout().unwrap();
    session.handle_timeout(deadline);
    assert_eq!(session.state(), State::Down);
    assert!(
        session.transmit_due().is_some(),
        "Down is sent periodically"
    );
}

#[test]
fn the_detection_time_is_the_peers_multiplier_times_the_slower_side() {
    let (mut session, now) = up(50 * MS, 5);
    assert_eq!(session.detection_time(), Some(150 * MS));
    let slow = ControlPacket {
        desired_min_tx: 200 * MS,
        detect_multiplier: 4,
        ..from_peer(State::Up)
    };
    session.handle_packet(now, &slow);
    assert_eq!(session.detection_time(), Some(800 * MS));
    session.handle_timeout(now + 799 * MS);
    assert_eq!(session.state(), State::Up);
    session.handle_timeout(now + 800 * MS);
    let event = session.poll_event().unwrap();
    let expected = Event {
        from: State::Up,
        to: State::Down,
        diagnostic: Diagnostic::ControlDetectionTimeExpired,
        remote: State::Down,
    };
    assert_eq!(event, expected);
    let packets = sent(&mut session);
    let last = packets.last().unwrap();
    assert_eq!((last.state, last.your_discriminator), (State::Down, 0));
}

#[test]
fn slower_sending_and_faster_detection_wait_for_final() {
    let (mut session, now) = up(50 * MS, 3);
    let slower_tx_faster_rx = Intervals {
        min_tx: 300 * MS,
        min_rx: 10 * MS,
    };
    let peer = ControlPacket {
        desired_min_tx: 10 * MS,
        ..from_peer(State::Up)
    };
    session.handle_packet(now, &peer);
    session.set_intervals(now, slower_tx_faster_rx);
    assert_eq!(session.detection_time(), Some(150 * MS));
    let due = session.transmit_due().unwrap();
    session.handle_timeout(due);
    let packets = sent(&mut session);
    assert!(packets[0].poll);
    assert_eq!(packets[0].desired_min_tx, 300 * MS);
    assert_eq!(packets[0].required_min_rx, 10 * MS);
    assert!(session.transmit_due().unwrap() - due <= 50 * MS);

    let answer = ControlPacket {
        final_: true,
        ..peer
    };
    session.handle_packet(due, &answer);
    assert_eq!(session.detection_time(), Some(30 * MS));
    let next = session.transmit_due().unwrap();
    session.handle_timeout(next);
    assert!(session.transmit_due().unwrap() - next >= 225 * MS);
}

#[test]
fn faster_sending_and_slower_detection_hold_at_once() {
    let (mut session, now) = up(300 * MS, 3);
    let intervals = Intervals {
        min_tx: 50 * MS,
        min_rx: 600 * MS,
    };
    session.set_intervals(now, intervals);
    assert_eq!(session.detection_time(), Some(1800 * MS));
    assert!(session.transmit_due().unwrap() - now <= 50 * MS);
}

#[test]
fn a_final_for_outdated_parameters_does_not_end_the_poll() {
    let (mut session, now) = up(50 * MS, 3);
    for min_tx in [100 * MS, 200 * MS] {
        let intervals = Intervals {
            min_tx,
            min_rx: 50 * MS,
        };
        session.set_intervals(now, intervals);
    }
    let answer = ControlPacket {
        final_: true,
        ..from_peer(State::Up)
    };
    session.handle_packet(now, &answer);
    let due = session.transmit_due().unwrap();
    session.handle_timeout(due);
    assert!(
        sent(&mut session)[0].poll,
        "the second change is unconfirmed"
    );
    assert!(session.transmit_due().unwrap() - due <= 50 * MS);
}

#[test]
fn down_and_admin_down_stay_until_enabled() {
    type Command = fn(&mut Session, Instant);
    let commands: [(State, Command); 2] = [
        (State::Down, Session::down),
        (State::AdminDown, Session::admin_down),
    ];
    for (state, command) in commands {
        let (mut session, now) = up(50 * MS, 3);
        command(&mut session, now);
        let packets = sent(&mut session);
        assert_eq!(packets.len(), 1, "{state} is told at once");
        assert_eq!(packets[0].state, state);
        assert_eq!(packets[0].diagnostic, Diagnostic::AdministrativelyDown);
        for received in [State::Down, State::Init, State::Up] {
            session.handle_packet(now, &from_peer(received));
            assert_eq!(session.state(), state, "left on {received}");
        }
        session.enable(now);
        session.handle_packet(now, &from_peer(State::Down));
        assert_eq!(session.state(), State::Init);
    }
}

#[test]
fn an_event_tells_a_paused_peer_from_a_lost_path() {
    let (mut session, now) = up(50 * MS, 3);
    session.handle_packet(now, &from_peer(State::AdminDown));
    let event = session.poll_event().unwrap();
    assert_eq!((event.to, event.remote), (State::Down, State::AdminDown));
}

#[test]
fn a_restarted_peer_takes_an_up_session_down_and_up_again() {
    let (mut session, now) = up(50 * MS, 3);
    let restarted = ControlPacket {
        my_discriminator: NonZeroU32::new(5).unwrap(),
        your_discriminator: 0,
        ..from_peer(State::Down)
    };
    session.handle_packet(now, &restarted);
    assert_eq!(session.state(), State::Down);
    session.handle_packet(now, &restarted);
    assert_eq!(session.state(), State::Init);
    assert_eq!(sent(&mut session).last().unwrap().your_discriminator, 5);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = || {
        let mut pair = Pair::new([config(1, 50 * MS, 3), config(2, 30 * MS, 4)], 11, 20);
        let begin = pair.now;
        let mut steps = Vec::new();
        for _ in 0..500 {
            pair.step();
            let states = [pair.ends[0].state(), pair.ends[1].state()];
            steps.push((pair.now - begin, states));
        }
        steps
    };
    assert_eq!(trace(), trace());
}

#[derive(Debug, Clone)]
enum Op {
    Packet(Vec<u8>),
    Wait(u16),
    Timeout,
    Down,
    AdminDown,
    Enable,
    Intervals(u16, u16),
}

fn op() -> impl Strategy<Value = Op> {
    let packet = (any::<[u8; 20]>(), any::<[u8; 4]>()).prop_map(|(mut bytes, tail)| {
        bytes[0] = 0x20 | (bytes[0] & 0x1f);
        bytes[1] &= 0xfa;
        bytes[2] |= 1;
        bytes[3] = 24;
        Op::Packet([&bytes[..], &tail[..]].concat())
    });
    prop_oneof![
        4 => packet,
        2 => any::<u16>().prop_map(Op::Wait),
        4 => Just(Op::Timeout),
        1 => Just(Op::Down),
        1 => Just(Op::AdminDown),
        2 => Just(Op::Enable),
        1 => any::<(u16, u16)>().prop_map(|(tx, rx)| Op::Intervals(tx, rx)),
    ]
}

/// Does what an operation says and answers all that came of it.
fn perform(
    session: &mut Session,
    now: &mut Instant,
    op: &Op,
) -> (Vec<ControlPacket>, Vec<Event>, Option<Instant>) {
    match op {
        Op::Packet(bytes) => {
            if let Ok(packet) = ControlPacket::parse(bytes) {
                session.handle_packet(*now, &packet);
            }
        }
        Op::Wait(millis) => *now += u32::from(*millis) * MS,
        Op::Timeout => {
            *now = session.poll_timeout().map_or(*now, |at| (*now).max(at));
            session.handle_timeout(*now);
        }
        Op::Down => session.down(*now),
        Op::AdminDown => session.admin_down(*now),
        Op::Enable => session.enable(*now),
        Op::Intervals(tx, rx) => {
            let (min_tx, min_rx) = (u32::from(*tx) * MS, u32::from(*rx) * MS);
            session.set_intervals(*now, Intervals { min_tx, min_rx });
        }
    }
    let events = std::iter::from_fn(|| session.poll_event()).collect();
    (sent(session), events, session.poll_timeout())
}

/// The session as another process has it, whose clock reads something else.
fn handed_over(session: &Session, now: Instant) -> Session {
    let text = serde_json::to_string(&session.snapshot(now)).unwrap();
    Session::restore(serde_json::from_str(&text).unwrap(), now).unwrap()
}

#[test]
fn a_snapshot_with_an_interval_that_no_packet_names_is_refused() {
    let (session, now) = up(50 * MS, 3);
    let good = serde_json::to_value(session.snapshot(now)).unwrap();
    for key in ["min_tx", "min_rx", "active_tx", "active_rx"] {
        let mut bad = good.clone();
        bad[key] = serde_json::json!({"secs": u64::MAX, "nanos": 0});
        let error = Session::restore(serde_json::from_value(bad).unwrap(), now).unwrap_err();
        assert_eq!(error.to_string(), "BFD session 1: a time is out of range");
    }
}

proptest! {
    #[test]
    fn two_sessions_with_loss_come_up(seed: u64, loss in 0u64..40, ms_a in 10u32..300, ms_b in 10u32..300) {
        let configs = [config(1, ms_a * MS, 3), config(2, ms_b * MS, 5)];
        let mut pair = Pair::new(configs, seed, loss);
        let took = pair.run_until(State::Up, Duration::from_secs(120));
        prop_assert!(took.is_some(), "not Up within two minutes");
    }

    #[test]
    fn a_cut_is_detected_in_time(seed: u64, ms_a in 10u32..300, ms_b in 10u32..300, m_a in 2u8..6, m_b in 2u8..6) {
        let configs = [config(1, ms_a * MS, m_a), config(2, ms_b * MS, m_b)];
        let mut pair = Pair::new(configs, seed, 0);
        pair.run_until(State::Up, Duration::from_secs(5)).unwrap();
        pair.run_for(Duration::from_secs(3));
        prop_assert!(pair.ends.iter().all(|end| end.state() == State::Up), "flapped without loss");
        let interval = ms_a.max(ms_b) * MS;
        pair.cut = true;
        let cut = pair.now;
        let last_from = pair.last_from;
        let mut detected = [None; 2];
        while detected.contains(&None) {
            pair.step();
            for (end, at) in pair.ends.iter().zip(&mut detected) {
                if at.is_none() && end.state() == State::Down {
                    *at = Some(pair.now);
                }
            }
        }
        for (end, peer_multiplier) in [(0, m_b), (1, m_a)] {
            let at = detected[end].unwrap();
            let exactly = last_from[1 - end] + Pair::DELAY + interval * u32::from(peer_multiplier);
            prop_assert_eq!(at, exactly);
            let took = at - cut;
            prop_assert!(took <= interval * u32::from(peer_multiplier) + Pair::DELAY, "{:?}", took);
            prop_assert!(took >= interval * u32::from(peer_multiplier - 1), "{:?}", took);
        }
    }

    #[test]
    fn whatever_happens_the_timer_moves_and_output_is_bounded(ops in proptest::collection::vec(op(), 0..200)) {
        let mut now = start();
        let mut session = Session::new(config(1, 50 * MS, 3), now);
        for op in ops {
            let (packets, _, timeout) = perform(&mut session, &mut now, &op);
            prop_assert!(!matches!(op, Op::Timeout) || timeout.is_none_or(|at| at > now));
            prop_assert!(packets.len() <= 2);
        }
    }

    #[test]
    fn a_session_that_is_handed_over_behaves_as_one_that_is_not(
        ops in proptest::collection::vec((op(), any::<bool>()), 0..200),
    ) {
        let mut now = start();
        let mut stays = Session::new(config(1, 50 * MS, 3), now);
        let mut moves = Session::new(config(1, 50 * MS, 3), now);
        prop_assert_eq!(sent(&mut stays), sent(&mut moves));
        for (op, hand_over) in ops {
            if hand_over {
                moves = handed_over(&moves, now);
            }
            let mut clock = now;
            let expected = perform(&mut stays, &mut clock, &op);
            let found = perform(&mut moves, &mut now, &op);
            prop_assert_eq!(clock, now);
            prop_assert_eq!(found, expected);
        }
    }
}
