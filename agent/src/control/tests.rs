//! The control loop's state, and the loop with everything around it played by the test.

use isopath_api::config::Dataplane as DataplaneKind;
use isopath_api::desired::AdminState;
use isopath_api::ids::{RealServerId, ServiceId, Vip};
use isopath_api::observed::Stats;
use isopath_api::reason::Reason;
use isopath_api::speaker::{Announced, Owner, Source, Status};
use isopath_ipvs::{DestinationSpec, Forwarding, Scheduler, ServiceKey};
use std::collections::BTreeMap;
use tokio::time::advance;

use super::*;
use crate::dataplane::{KernelRealServer, KernelService, Report};
use crate::health::{CheckKey, Checks};
use crate::overrides::Override;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn vip() -> Vip {
    "10.99.0.1".parse().unwrap()
}

fn service() -> ServiceId {
    "tcp:10.99.0.1:80".parse().unwrap()
}

fn server(last: u8) -> RealServerId {
    format!("10.1.0.{last}:80").parse().unwrap()
}

/// One VIP, one service, real servers 10.1.0.11 and 10.1.0.12, checked once an hour: the tests
/// play the outcomes. One success or failure decides.
fn intent(change: impl FnOnce(&mut Intent)) -> Arc<Intent> {
    let check = serde_json::json!({
        "type": "tcp", "interval": "1h", "timeout": "1s", "rise": 1, "fall": 1,
    });
    let service = serde_json::json!({
        "vip": "10.99.0.1", "protocol": "tcp", "port": 80, "check": check,
        "real_server": [{ "address": "10.1.0.11" }, { "address": "10.1.0.12" }],
    });
    let mut intent = Intent {
        epoch: Some("e1".to_owned()),
        generation: 1,
        admin_state: AdminState::Active,
        admin_reason: String::new(),
        withdraw: BTreeMap::new(),
        lvs: isopath_api::declare::Lvs::default(),
        digests: BTreeMap::new(),
        vips: serde_json::from_value(serde_json::json!([{ "address": "10.99.0.1" }])).unwrap(),
        services: vec![Arc::new(serde_json::from_value(service).unwrap())],
    };
    change(&mut intent);
    Arc::new(intent)
}

fn status(announced: &[Source]) -> Box<Status> {
    let announced = announced.iter().map(|source| Announced {
        vip: vip(),
        cost: 1,
        kind: isopath_api::declare::AnnounceAs::Stub,
        source: *source,
        in_lsdb: true,
        acknowledged: true,
    });
    Box::new(Status {
        version: "0.0.0".to_owned(),
        pid: 1,
        origin_pid: 1,
        router_id: "10.0.1.2".parse().unwrap(),
        area: "0.0.0.0".parse().unwrap(),
        up_ms: 1,
        neighbors: Vec::new(),
        announced: announced.collect(),
        withheld: Vec::new(),
        owner: Owner::None,
        announcers: BTreeMap::new(),
        interfaces: Vec::new(),
        widths: Vec::new(),
        lateness: BTreeMap::new(),
        counters: BTreeMap::new(),
    })
}

fn connected(announced: &[Source]) -> SpeakerEvent {
    SpeakerEvent::Connected {
        status: status(announced),
        ours: false,
    }
}

fn kernel_has(number: u64) -> Arc<KernelReport> {
    kernel_says(number, Ok(()))
}

fn kernel_says(number: u64, ready: Result<(), Reason>) -> Arc<KernelReport> {
    let mut report = Report::default();
    report.vips.insert(vip(), ready);
    Arc::new(KernelReport {
        number,
        report,
        ..KernelReport::default()
    })
}

/// What the gate found on the VIP.
fn gate_found(number: u64, found: &[Reason]) -> Arc<GateReport> {
    let mut report = GateReport {
        number,
        ..GateReport::default()
    };
    report.findings.vips.insert(vip(), found.to_vec());
    Arc::new(report)
}

struct Bench {
    state: State,
    outcomes: mpsc::Receiver<Outcome>,
}

impl Bench {
    fn new() -> Self {
        Self::adopting(BTreeMap::new())
    }

    fn adopting(adopted: BTreeMap<CheckKey, u32>) -> Self {
        let (checks, outcomes) = Checks::new();
        let about = About {
            director: "d1".parse().unwrap(),
            router_id: "10.0.1.2".parse().unwrap(),
            instance: "i".to_owned(),
            run: "r".to_owned(),
            dataplane: DataplaneKind::Ipvs,
        };
        Self {
            state: State::new(about, checks, ByVip::default(), adopted),
            outcomes,
        }
    }

    fn checked(&mut self, last: u8, ok: bool) -> bool {
        let outcome = self.state.checks.outcome(service(), server(last), ok);
        self.state.take_outcome(outcome, NOW)
    }

    /// The decision in force as `announce CODE` or `withdraw CODE`.
    fn decision(&self) -> String {
        let standing = self
            .state
            .decisions
            .get(&vip())
            .expect("a decision on the VIP");
        let verb = match standing.decision.announce {
            Some(_) => "announce",
            None => "withdraw",
        };
        format!("{verb} {}", standing.decision.reason.code())
    }

    /// The effective weights that the kernel shall have.
    fn weights(&mut self) -> Vec<u16> {
        self.state.settle(NOW);
        let wanted = &self.state.wanted_in_force().services[&service()];
        let weights = wanted.real_servers.iter();
        weights.map(|server| server.effective_weight).collect()
    }
}

#[tokio::test]
async fn nothing_is_published_before_the_speakers_first_status_and_a_desired_state() {
    let mut bench = Bench::new();
    bench.state.take_speaker(connected(&[]));
    bench.state.settle(NOW);
    assert_eq!(bench.state.publication(), None, "without a desired state");

    let mut bench = Bench::new();
    bench.state.apply(intent(|_| {}), NOW);
    bench.state.settle(NOW);
    assert_eq!(
        bench.state.publication(),
        None,
        "without the speaker's status"
    );
    bench.state.take_speaker(connected(&[]));
    bench.state.settle(NOW);
    let publication = bench.state.publication().expect("both are there");
    assert_eq!(publication.set, []);
}

#[tokio::test]
async fn what_the_speaker_holds_from_an_earlier_run_is_kept_until_the_checks_decide() {
    let mut bench = Bench::new();
    bench.state.apply(intent(|_| {}), NOW);
    bench.state.take_speaker(connected(&[Source::Agent]));
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "announce held-over-restart");
    let first = bench.state.publication().expect("a publication");
    assert_eq!(first.set.len(), 1, "the restart moved the VIP");

    bench.checked(11, true);
    let wanted = bench.state.settle(NOW).expect("the weight changed");
    assert_eq!(
        bench.decision(),
        "announce held-over-restart",
        "the kernel is behind"
    );
    bench.state.take_kernel(kernel_has(wanted.number));
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "announce healthy");
    assert_eq!(bench.state.publication().unwrap().set, first.set);
}

#[tokio::test]
async fn what_is_held_falls_when_its_real_servers_are_dead() {
    let mut bench = Bench::new();
    bench.state.apply(intent(|_| {}), NOW);
    bench.state.take_speaker(connected(&[Source::Agent]));
    bench.state.settle(NOW);
    bench.checked(11, false);
    bench.state.settle(NOW);
    assert_eq!(
        bench.decision(),
        "announce held-over-restart",
        "one is still open"
    );
    bench.checked(12, false);
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "withdraw below-quorum");
}

#[tokio::test]
async fn what_others_announce_is_not_held() {
    for source in [Source::File, Source::Override] {
        let mut bench = Bench::new();
        bench.state.apply(intent(|_| {}), NOW);
        bench.state.take_speaker(connected(&[source]));
        bench.state.settle(NOW);
        assert_eq!(bench.decision(), "withdraw undecided", "{source:?}");
    }
}

#[tokio::test]
async fn a_vip_is_announced_only_once_the_kernel_has_what_it_needs() {
    let mut bench = Bench::new();
    bench.state.take_speaker(connected(&[]));
    bench.state.apply(intent(|_| {}), NOW);
    let first = bench
        .state
        .settle(NOW)
        .expect("the kernel shall have something");
    bench.state.take_kernel(kernel_has(first.number));
    bench.checked(11, true);
    let second = bench.state.settle(NOW).expect("the weight changed");
    assert_eq!(
        bench.decision(),
        "withdraw dataplane-not-ready",
        "weight 0 still"
    );
    bench.state.take_kernel(kernel_has(second.number));
    bench.state.take_gate(gate_found(second.number, &[]));
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "announce healthy");

    // From now on changes under it do not withdraw it.
    bench.checked(12, true);
    bench.state.settle(NOW).expect("the weight changed");
    assert_eq!(bench.decision(), "announce healthy");
}

fn elsewhere() -> Reason {
    Reason::VipAnsweredElsewhere {
        interface: "lan".to_owned(),
        mac: "02:00:00:00:00:0b".to_owned(),
    }
}

fn sysctl_refused() -> Arc<KernelReport> {
    let reason = Reason::SysctlRefused {
        key: "net.ipv4.vs.sloppy_tcp".to_owned(),
        wanted: "1".to_owned(),
        found: Some("0".to_owned()),
    };
    kernel_says(1, Err(reason))
}

/// A director whose checks would have the VIP announced, before the kernel and the gate report.
fn healthy(speaker_announces: &[Source]) -> (Bench, u64) {
    let mut bench = Bench::new();
    bench.state.take_speaker(connected(speaker_announces));
    bench
        .state
        .apply(intent(|intent| intent.services.clear()), NOW);
    let wanted = bench.state.settle(NOW).expect("a VIP");
    (bench, wanted.number)
}

#[tokio::test]
async fn the_gate_keeps_a_vip_back_until_it_has_passed_once() {
    let (mut bench, number) = healthy(&[]);
    let codes = |bench: &Bench| -> Vec<String> {
        let conditions = bench.state.conditions.observed().into_iter();
        conditions.map(|condition| condition.code).collect()
    };
    bench.state.take_kernel(kernel_has(number));
    bench.state.settle(NOW);
    assert_eq!(
        bench.decision(),
        "withdraw dataplane-not-ready",
        "not looked into yet"
    );

    let found = [
        elsewhere(),
        Reason::InterfaceDown {
            interface: "lan".to_owned(),
        },
    ];
    bench.state.take_gate(gate_found(number, &found));
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "withdraw vip-answered-elsewhere");
    assert_eq!(
        codes(&bench),
        ["interface-down"],
        "the reason is shown as such"
    );

    bench.state.take_gate(gate_found(number, &[]));
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "announce no-services");
    assert_eq!(codes(&bench), [""; 0]);

    // From now on it is shown and counted, and withdraws nothing.
    bench.state.take_gate(gate_found(number, &found));
    bench.state.take_kernel(sysctl_refused());
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "announce no-services");
    let shown = ["interface-down", "sysctl-refused", "vip-answered-elsewhere"];
    assert_eq!(codes(&bench), shown);

    // Not even over a drain; but a VIP that is declared anew is looked into anew.
    bench.state.take_kernel(kernel_has(number));
    let drained = |intent: &mut Intent| {
        intent.services.clear();
        intent.admin_state = AdminState::Drained;
    };
    bench.state.apply(intent(drained), NOW);
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "withdraw drained");
    bench
        .state
        .apply(intent(|intent| intent.services.clear()), NOW);
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "announce no-services");
    let nothing = |intent: &mut Intent| {
        intent.services.clear();
        intent.vips.clear();
    };
    bench.state.apply(intent(nothing), NOW);
    bench.state.settle(NOW);
    bench
        .state
        .apply(intent(|intent| intent.services.clear()), NOW);
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "withdraw vip-answered-elsewhere");
}

#[tokio::test]
async fn a_refused_sysctl_keeps_a_vip_back_and_withdraws_none() {
    let (mut bench, number) = healthy(&[]);
    bench.state.take_gate(gate_found(number, &[]));
    bench.state.take_kernel(sysctl_refused());
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "withdraw sysctl-refused");
}

#[tokio::test]
async fn what_an_earlier_run_announced_has_passed() {
    let (mut bench, number) = healthy(&[Source::Agent]);
    bench.state.take_gate(gate_found(number, &[elsewhere()]));
    bench.state.take_kernel(sysctl_refused());
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "announce no-services");

    // A kernel without IPVS is another matter: nothing would be forwarded.
    bench
        .state
        .take_kernel(kernel_says(number, Err(Reason::NoIpvs)));
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "withdraw no-ipvs");
}

#[tokio::test]
async fn an_operators_override_opens_the_gate_only_for_as_long_as_it_stands() {
    let (mut bench, number) = healthy(&[]);
    bench.state.take_kernel(kernel_has(number));
    bench.state.take_gate(gate_found(number, &[elsewhere()]));
    let announce = Override {
        cost: Some(1),
        text: "I know".to_owned(),
    };
    bench
        .state
        .take_overrides(Arc::new([(vip(), announce)].into()));
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "announce override");
    bench.state.take_overrides(ByVip::default());
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "withdraw vip-answered-elsewhere");
}

#[tokio::test]
async fn the_kernels_weights_stay_until_the_first_decision() {
    let adopted = [((service(), server(11)), 1), ((service(), server(12)), 0)];
    let mut bench = Bench::adopting(BTreeMap::from(adopted));
    bench.state.apply(intent(|_| {}), NOW);
    assert_eq!(bench.weights(), [1, 0], "as the kernel had them");
    bench.checked(11, false);
    bench.checked(12, true);
    assert_eq!(bench.weights(), [0, 1], "as the checks have them");

    // Removed and declared again, it is as unknown as any other new one.
    bench
        .state
        .apply(intent(|intent| intent.services.clear()), NOW);
    bench.state.apply(intent(|_| {}), NOW);
    assert_eq!(
        bench.weights(),
        [0, 0],
        "the weights at the start came back"
    );
}

#[tokio::test(start_paused = true)]
async fn a_removed_vip_stays_in_the_kernel_until_the_switch_has_let_go() {
    let mut bench = Bench::new();
    bench.state.take_speaker(connected(&[]));
    bench.state.apply(intent(|_| {}), NOW);
    bench.checked(11, true);
    let number = bench.state.settle(NOW).unwrap().number;
    bench.state.take_kernel(kernel_has(number));
    bench.state.take_gate(gate_found(number, &[]));
    bench.state.settle(NOW);
    bench
        .state
        .take_speaker(SpeakerEvent::Changed(status(&[Source::Agent])));

    let nothing = |intent: &mut Intent| {
        intent.vips.clear();
        intent.services.clear();
    };
    bench.state.apply(intent(nothing), NOW);
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "withdraw not-wanted");
    assert_eq!(
        bench.weights(),
        [1, 0],
        "its service went before the routes"
    );

    // As long as the LSA has it, time does not count.
    advance(Duration::from_secs(60)).await;
    assert!(!bench.state.let_go(Instant::now()));
    bench.state.take_speaker(SpeakerEvent::Changed(status(&[])));
    assert!(
        !bench.state.let_go(Instant::now()),
        "the switch had no time to act on it"
    );
    advance(Duration::from_secs(3)).await;
    assert!(bench.state.let_go(Instant::now()));
    let wanted = bench.state.settle(NOW).expect("the kernel is to let go");
    assert_eq!(wanted.wanted, Default::default());
}

#[tokio::test]
async fn an_override_counts_until_it_is_undone() {
    let mut bench = Bench::new();
    bench.state.apply(intent(|_| {}), NOW);
    let text = String::new();
    let by_hand = Override {
        cost: Some(9),
        text,
    };
    let overrides = Arc::new(BTreeMap::from([(vip(), by_hand)]));
    assert!(bench.state.take_overrides(overrides));
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "announce override");
    assert!(bench.state.take_overrides(ByVip::default()));
    bench.state.settle(NOW);
    assert_eq!(bench.decision(), "withdraw undecided");
    assert!(
        !bench.state.take_overrides(ByVip::default()),
        "nothing changed"
    );
}

#[tokio::test]
async fn a_decision_keeps_its_time_while_only_its_words_change() {
    let mut bench = Bench::new();
    bench.state.apply(
        intent(|intent| Arc::make_mut(&mut intent.services[0]).quorum = 2),
        NOW,
    );
    bench.checked(11, false);
    bench.state.settle(NOW);
    let later = NOW + Duration::from_secs(60);
    bench.checked(12, false);
    bench.state.settle(later);
    let standing = &bench.state.decisions[&vip()];
    assert_eq!(standing.since, NOW);
    assert!(
        matches!(
            standing.decision.reason,
            Reason::BelowQuorum { healthy: 0, .. }
        ),
        "{:?}",
        standing.decision.reason
    );
}

/// Of two services of one VIP, the second at another port and declared first.
#[tokio::test]
async fn only_what_has_changed_is_made_anew() {
    let other: ServiceId = "tcp:10.99.0.1:443".parse().unwrap();
    let two = |change: fn(&mut Intent)| {
        intent(|intent| {
            let mut second = isopath_api::declare::ServiceSpec::clone(&intent.services[0]);
            second.port = other.port();
            for server in &mut second.real_server {
                server.port = other.port();
            }
            intent.services.insert(0, Arc::new(second));
            change(intent);
        })
    };
    let mut bench = Bench::new();
    bench.state.take_speaker(connected(&[]));
    bench.state.apply(two(|_| {}), NOW);
    for last in [11, 12] {
        bench.checked(last, true);
    }
    let before = bench.state.settle(NOW).expect("something is wanted").wanted;
    assert!(bench.state.settle(NOW).is_none(), "nothing has changed");

    let heavier = |intent: &mut Intent| {
        Arc::make_mut(&mut intent.services[1]).real_server[1].weight = 7;
    };
    bench.state.apply(two(heavier), NOW);
    let after = bench
        .state
        .settle(NOW)
        .expect("a weight has changed")
        .wanted;
    let weights = after.services[&service()].real_servers.iter();
    let weights: Vec<u16> = weights.map(|it| it.effective_weight).collect();
    assert_eq!(weights, [1, 7]);
    assert!(
        Arc::ptr_eq(&before.services[&other], &after.services[&other]),
        "a service that nobody touched was made anew"
    );

    bench.checked(11, false);
    let dead = bench.state.settle(NOW).expect("a real server died").wanted;
    let weights = dead.services[&service()].real_servers.iter();
    let weights: Vec<u16> = weights.map(|it| it.effective_weight).collect();
    assert_eq!(weights, [0, 7]);

    // Both are undecided then: the reason names the one that is declared first.
    let mut bench = Bench::new();
    bench.state.take_speaker(connected(&[]));
    bench.state.apply(two(|_| {}), NOW);
    bench.state.take_kernel(kernel_has(1));
    bench.state.settle(NOW);
    bench.state.take_kernel(kernel_has(1));
    bench.state.settle(NOW);
    let reason = &bench.state.decisions[&vip()].decision.reason;
    assert_eq!(*reason, Reason::Undecided { service: other });
}

#[tokio::test]
async fn a_report_says_what_is_in_force() {
    let mut bench = Bench::new();
    bench.state.take_speaker(connected(&[]));
    bench.state.apply(
        intent(|intent| {
            intent.generation = 7;
            Arc::make_mut(&mut intent.services[0]).real_server.reverse();
        }),
        NOW,
    );
    bench.checked(12, true);
    bench.state.settle(NOW);
    let observed = bench.state.observed(NOW, None);
    assert_eq!(
        (observed.epoch.as_deref(), observed.generation),
        (Some("e1"), 7)
    );
    assert_eq!(observed.sequence, 1);
    let servers = &observed.services[0].real_servers;
    let ids: Vec<_> = servers.iter().map(|server| server.real_server).collect();
    assert_eq!(ids, [server(11), server(12)], "the canonical order");
    assert_eq!(servers[1].last_check.as_ref().unwrap().detail, "played");
    assert_eq!(bench.state.observed(NOW, None).sequence, 2);
}

#[tokio::test]
async fn a_report_says_what_the_kernel_has_and_nobody_wants_any_more() {
    let mut bench = Bench::new();
    bench.state.take_speaker(connected(&[]));
    bench.state.apply(intent(|_| {}), NOW);
    let in_kernel = |last| KernelRealServer {
        spec: DestinationSpec::new(server(last).0.into(), Forwarding::Masquerade, 0),
        active: 2,
        inactive: 0,
        stats: Stats::default(),
    };
    let key = ServiceKey::tcp("10.99.0.1:80".parse().unwrap());
    let kept = KernelService {
        spec: isopath_ipvs::ServiceSpec::new(key, Scheduler::Rr),
        stats: Stats::default(),
        real_servers: [in_kernel(13), in_kernel(11)].into(),
    };
    let report = Report {
        services: Arc::new([(service(), Arc::new(kept))].into()),
        ..Report::default()
    };
    bench.state.take_kernel(Arc::new(KernelReport {
        report,
        ..KernelReport::default()
    }));
    bench.state.settle(NOW);
    let observed = bench.state.observed(NOW, None);
    let found = &observed.services[0];
    assert_eq!(found.leaving, [server(13)]);
    let weights: Vec<_> = found
        .real_servers
        .iter()
        .map(|it| it.effective_weight)
        .collect();
    assert_eq!(weights, [Some(0), None]);
}

mod digests;
mod whole;
