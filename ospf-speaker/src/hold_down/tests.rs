//! VIPs that come and go, second by second.

use isopath_api::declare::{Announce, AnnounceAs};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    start: Instant,
    now: Instant,
    hold_down: HoldDown,
}

fn vip() -> Vip {
    "10.99.0.1".parse().unwrap()
}

impl Bench {
    /// Four withdrawals within 20 s are too many, and hold for 10 s.
    fn new() -> Self {
        let start = Instant::now();
        let policy = HoldDownConfig {
            withdrawals: 4,
            within: SECOND * 20,
            hold: SECOND * 10,
        };
        let clock = Clock::new(start, Timestamp::UNIX_EPOCH);
        Self {
            start,
            now: start,
            hold_down: HoldDown::new(policy, clock),
        }
    }

    /// What becomes of the VIP if it is to be announced, or not, by this voice.
    fn see(&mut self, wanted: bool, source: Source) -> Verdict {
        let verdict = if wanted {
            Verdict::Announce {
                how: Announce::default(),
                source,
            }
        } else {
            Verdict::Withhold(Reason::NotWanted)
        };
        let mut verdicts = BTreeMap::from([(vip(), verdict)]);
        self.hold_down.judge(self.now, &mut verdicts);
        verdicts.remove(&vip()).unwrap()
    }

    fn is_announced(&mut self, wanted: bool) -> bool {
        matches!(self.see(wanted, Source::Agent), Verdict::Announce { .. })
    }

    /// Announced and withdrawn once a second.
    fn flap(&mut self, times: u32) {
        for _ in 0..times {
            self.is_announced(true);
            self.now += SECOND;
            assert!(!self.is_announced(false), "a withdrawal passes at once");
        }
    }
}

#[test]
fn a_vip_that_flaps_is_held_withdrawn_and_says_so_until_it_rests() {
    let mut bench = Bench::new();
    bench.flap(3);
    assert!(bench.is_announced(true), "three are not too many");
    bench.flap(1);
    let held = bench.see(true, Source::Agent);
    let until = Timestamp::from_second(4 + 10).unwrap();
    let reason = Reason::HeldDown {
        withdrawals: 4,
        within_ms: 20_000,
        until,
    };
    assert_eq!(held, Verdict::Withhold(reason));
    let end = bench.start + SECOND * 14;
    assert_eq!(bench.hold_down.poll_timeout(), Some(end));
    bench.now = end - SECOND;
    assert!(!bench.is_announced(true));
    bench.now = end;
    assert!(bench.is_announced(true), "what is wanted gets out");
    assert_eq!(bench.hold_down.poll_timeout(), None);
}

#[test]
fn the_text_says_until_when_and_why() {
    let mut bench = Bench::new();
    bench.flap(4);
    let Verdict::Withhold(reason) = bench.see(true, Source::Agent) else {
        panic!("it is announced");
    };
    assert_eq!(
        reason.to_string(),
        "held down until 1970-01-01T00:00:14Z: withdrawn 4 times within 20s"
    );
}

#[test]
fn each_further_withdrawal_holds_it_for_longer_and_the_end_says_what_is_wanted_then() {
    let mut bench = Bench::new();
    bench.flap(4);
    bench.now += SECOND * 5;
    assert!(!bench.is_announced(true));
    assert!(
        !bench.is_announced(false),
        "wanted no more, five seconds on"
    );
    let end = bench.now + SECOND * 10;
    assert_eq!(bench.hold_down.poll_timeout(), Some(end));
    bench.now = end;
    assert!(!bench.is_announced(false), "it ends withdrawn if so wanted");
    assert_eq!(bench.hold_down.poll_timeout(), None, "but it ends");
    assert!(bench.is_announced(true));
}

#[test]
fn slow_changes_are_never_too_many() {
    let mut bench = Bench::new();
    for _ in 0..50 {
        assert!(bench.is_announced(true));
        bench.now += SECOND * 7;
        assert!(!bench.is_announced(false));
    }
}

#[test]
fn a_vip_that_starts_to_flap_again_is_held_sooner() {
    let mut bench = Bench::new();
    bench.flap(4);
    bench.now += SECOND * 10;
    assert!(bench.is_announced(true));
    bench.flap(1);
    assert!(!bench.is_announced(true), "four within 20 s once more");
}

#[test]
fn an_operators_announcement_passes_and_forgives() {
    let mut bench = Bench::new();
    bench.flap(4);
    let by_hand = bench.see(true, Source::Override);
    assert!(matches!(by_hand, Verdict::Announce { .. }), "{by_hand:?}");
    assert!(!bench.is_announced(true), "for as long as it stands");
    bench.hold_down.forgive(vip());
    assert!(bench.is_announced(true));
}

#[test]
fn zero_withdrawals_hold_nothing_and_what_rests_is_forgotten() {
    let mut bench = Bench::new();
    bench.hold_down.policy.withdrawals = 0;
    bench.flap(100);
    assert!(bench.is_announced(true));
    let mut bench = Bench::new();
    bench.flap(2);
    bench.now += SECOND * 21;
    bench.is_announced(false);
    assert!(bench.hold_down.vips.is_empty(), "memory is bounded");
}

#[test]
fn a_vip_that_nobody_speaks_of_any_more_was_withdrawn() {
    let mut bench = Bench::new();
    for _ in 0..4 {
        bench.is_announced(true);
        bench.hold_down.judge(bench.now, &mut BTreeMap::new());
    }
    assert!(!bench.is_announced(true));
}

#[test]
fn an_upgrade_forgives_nothing() {
    let mut bench = Bench::new();
    bench.flap(4);
    let before = bench.see(true, Source::Agent);
    let snapshot = bench.hold_down.snapshot(bench.now);
    let text = serde_json::to_string(&snapshot).unwrap();
    let snapshot = serde_json::from_str(&text).unwrap();
    let HoldDown { policy, clock, .. } = bench.hold_down;
    bench.hold_down = HoldDown::restore(policy, clock, snapshot, bench.now);
    assert_eq!(bench.see(true, Source::Agent), before);
    bench.now += SECOND * 10;
    assert!(bench.is_announced(true));
}

#[test]
fn a_stub_and_an_external_route_are_held_alike() {
    let mut bench = Bench::new();
    bench.flap(4);
    let how = Announce {
        kind: AnnounceAs::External2,
        cost: 5,
    };
    let source = Source::Agent;
    let mut verdicts = BTreeMap::from([(vip(), Verdict::Announce { how, source })]);
    bench.hold_down.judge(bench.now, &mut verdicts);
    assert!(matches!(verdicts[&vip()], Verdict::Withhold(_)));
}
