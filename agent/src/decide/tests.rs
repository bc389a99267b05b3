//! Every [`Reason`] that the agent gives, and the order in which they win.

use isopath_api::declare::{Announce, CheckKind, CheckSpec, RealServerSpec, Require};
use isopath_api::ids::Protocol;

use super::*;

const VIP: &str = "10.99.0.1";

fn vip() -> Vip {
    VIP.parse().unwrap()
}

/// A desired state of one VIP, and everything else that has a say.
struct Case {
    require: Require,
    services: Vec<ServiceSpec>,
    health: BTreeMap<(ServiceId, RealServerId), Health>,
    admin_state: AdminState,
    withdraw: BTreeMap<Vip, String>,
    overrides: BTreeMap<Vip, Override>,
    readiness: Readiness,
    held: BTreeSet<Vip>,
    announced: BTreeSet<Vip>,
    leaving: BTreeSet<Vip>,
    stopping: bool,
}

impl Case {
    /// `services`: one text a service, of its quorum and the health of its real servers, such
    /// as `1 UD?`; `-` is a healthy real server of weight 0.
    fn new(services: &[&str]) -> Self {
        let mut case = Self {
            require: Require::All,
            services: Vec::new(),
            health: BTreeMap::new(),
            admin_state: AdminState::Active,
            withdraw: BTreeMap::new(),
            overrides: BTreeMap::new(),
            readiness: Readiness::Ready,
            held: BTreeSet::new(),
            announced: BTreeSet::new(),
            leaving: BTreeSet::new(),
            stopping: false,
        };
        for (index, text) in services.iter().enumerate() {
            let (quorum, servers) = text.split_once(' ').unwrap();
            case.add(80 + index as u16, quorum.parse().unwrap(), servers);
        }
        case
    }

    fn add(&mut self, port: u16, quorum: u16, servers: &str) {
        let mut service = ServiceSpec {
            quorum,
            ..ServiceSpec::to(Protocol::Tcp, vip(), port, tcp_check())
        };
        for (index, letter) in servers.chars().enumerate() {
            let spec = RealServerSpec {
                weight: u16::from(letter != '-'),
                ..RealServerSpec::new(std::net::Ipv4Addr::new(10, 1, 0, 11 + index as u8))
            };
            let health = match letter {
                'U' | '-' => Health::Up,
                'D' => Health::Down,
                '?' => Health::Unknown,
                _ => panic!("{letter:?} is no health"),
            };
            let id = service.real_server_id(&spec);
            self.health.insert((service.id(), id), health);
            service.real_server.push(spec);
        }
        self.services.push(service);
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn tallies(&self, vip: Vip) -> Vec<Tally> {
        let of_vip = self.services.iter().filter(|service| service.vip == vip);
        let tally = |service: &ServiceSpec| {
            Tally::of(service, |server| self.health[&(service.id(), server)])
        };
        of_vip.map(tally).collect()
    }

    /// The decision as `announce CODE` or `withdraw CODE`.
    fn decide(&self) -> String {
        let decisions = self.decisions();
        assert_eq!(decisions.len(), 1, "one decision a VIP: {decisions:?}");
        let verb = match decisions[0].announce {
            Some(_) => "announce",
            None => "withdraw",
        };
        format!("{verb} {}", decisions[0].reason.code())
    }

    fn decisions(&self) -> Vec<Decision> {
        let vips = [VipSpec {
            address: vip(),
            announce: Announce::default(),
            director_cost: BTreeMap::new(),
            require: self.require,
        }];
        let wanted = if self.leaving.contains(&vip()) {
            &[][..]
        } else {
            &vips[..]
        };
        decide(&Inputs {
            vips: wanted,
            services: &|vip| self.tallies(vip),
            admin_state: self.admin_state,
            admin_reason: "kernel",
            withdraw: &self.withdraw,
            overrides: &self.overrides,
            readiness: &|_| self.readiness.clone(),
            held: &self.held,
            announced: &self.announced,
            leaving: &self.leaving,
            stopping: self.stopping,
        })
    }
}

fn tcp_check() -> CheckSpec {
    CheckSpec {
        kind: CheckKind::Tcp,
        port: None,
        path: None,
        host: None,
        status: None,
        verify: false,
        interval: std::time::Duration::from_secs(1),
        timeout: std::time::Duration::from_millis(500),
        rise: 2,
        fall: 2,
    }
}

fn held(case: &mut Case) {
    case.held.insert(vip());
}

fn announced(case: &mut Case) {
    case.announced.insert(vip());
}

fn draining(case: &mut Case) {
    case.admin_state = AdminState::Draining;
}

fn overridden(cost: Option<u16>) -> impl Fn(&mut Case) {
    move |case| {
        let text = "by hand".to_owned();
        case.overrides.insert(vip(), Override { cost, text });
    }
}

fn assert_all(cases: Vec<(&str, Case, &str)>) {
    for (what, case, expected) in cases {
        assert_eq!(case.decide(), expected, "{what}");
    }
}

#[test]
fn every_reason_has_its_cause() {
    let failed = || {
        let what = "add 10.99.0.1: no device".to_owned();
        Readiness::Failed(Reason::DataplaneNotReady { what })
    };
    assert_all(vec![
        ("enough", Case::new(&["1 UD"]), "announce healthy"),
        ("no services", Case::new(&[]), "announce no-services"),
        (
            "an operator announces it",
            Case::new(&["1 D"]).with(overridden(Some(9))),
            "announce override",
        ),
        (
            "an operator withdraws it",
            Case::new(&["1 U"]).with(overridden(None)),
            "withdraw override",
        ),
        (
            "undecided after a restart",
            Case::new(&["1 ??"]).with(held),
            "announce held-over-restart",
        ),
        ("below", Case::new(&["2 UD"]), "withdraw below-quorum"),
        ("undecided", Case::new(&["1 ?D"]), "withdraw undecided"),
        (
            "draining",
            Case::new(&["1 U"]).with(|case| case.admin_state = AdminState::Draining),
            "withdraw drained",
        ),
        (
            "draining what it announces",
            Case::new(&["1 U"]).with(announced).with(draining),
            "announce draining",
        ),
        (
            "draining what it held over a restart",
            Case::new(&["1 ?"]).with(held).with(draining),
            "announce held-over-restart",
        ),
        (
            "draining what is below quorum",
            Case::new(&["2 UD"]).with(announced).with(draining),
            "withdraw below-quorum",
        ),
        (
            "drained",
            Case::new(&["1 U"]).with(|case| case.admin_state = AdminState::Drained),
            "withdraw drained",
        ),
        (
            "the VIP drained everywhere",
            Case::new(&["1 U"]).with(announced).with(|case| {
                case.withdraw.insert(vip(), "moved".to_owned());
            }),
            "withdraw drained",
        ),
        (
            "a step failed",
            Case::new(&["1 U"]).with(|case| case.readiness = failed()),
            "withdraw dataplane-not-ready",
        ),
        (
            "gone from the desired state",
            Case::new(&["1 U"]).with(|case| {
                case.leaving.insert(vip());
            }),
            "withdraw not-wanted",
        ),
        (
            "the process stops",
            Case::new(&["1 U"]).with(|case| case.stopping = true),
            "withdraw stopping",
        ),
    ]);
}

#[test]
fn the_order_of_precedence_holds() {
    let drained = |case: &mut Case| case.admin_state = AdminState::Drained;
    let failed = |case: &mut Case| case.readiness = Readiness::Failed(Reason::NoIpvs);
    assert_all(vec![
        (
            "stopping goes before an override",
            Case::new(&["1 U"])
                .with(overridden(Some(1)))
                .with(|case| case.stopping = true),
            "withdraw stopping",
        ),
        (
            "an override goes before a drain",
            Case::new(&["1 U"]).with(drained).with(overridden(Some(1))),
            "announce override",
        ),
        (
            "a drain goes before what is held",
            Case::new(&["1 ?"]).with(held).with(drained),
            "withdraw drained",
        ),
        (
            "a drain goes before a failed step",
            Case::new(&["1 U"]).with(failed).with(drained),
            "withdraw drained",
        ),
        (
            "a failed step goes before what is held",
            Case::new(&["1 ?"]).with(held).with(failed),
            "withdraw no-ipvs",
        ),
        (
            "dead real servers go before what is held",
            Case::new(&["1 D"]).with(held),
            "withdraw below-quorum",
        ),
    ]);
}

#[test]
fn the_data_plane_comes_before_the_announcement_and_changes_under_it() {
    let pending = |case: &mut Case| case.readiness = Readiness::Pending;
    assert_all(vec![
        (
            "a VIP that is being set up is not announced yet",
            Case::new(&["1 U"]).with(pending),
            "withdraw dataplane-not-ready",
        ),
        (
            "one without services neither",
            Case::new(&[]).with(pending),
            "withdraw dataplane-not-ready",
        ),
        (
            "one in use stays announced while something changes under it",
            Case::new(&["1 U"]).with(pending).with(announced),
            "announce healthy",
        ),
        (
            "over a restart it stays as it was",
            Case::new(&["1 U"]).with(pending).with(held),
            "announce held-over-restart",
        ),
        (
            "a dead service is the better reason",
            Case::new(&["1 D"]).with(pending),
            "withdraw below-quorum",
        ),
    ]);
}

#[test]
fn require_counts_services() {
    let any = |case: &mut Case| case.require = Require::Any;
    let two = |case: &mut Case| case.require = Require::Count(2);
    assert_all(vec![
        ("all", Case::new(&["1 U", "1 D"]), "withdraw below-quorum"),
        (
            "all, one open",
            Case::new(&["1 U", "1 ?"]),
            "withdraw undecided",
        ),
        (
            "all, one dead decides before one open",
            Case::new(&["1 D", "1 ?"]),
            "withdraw below-quorum",
        ),
        (
            "any",
            Case::new(&["1 U", "1 D"]).with(any),
            "announce healthy",
        ),
        (
            "any, one open",
            Case::new(&["1 D", "1 ?"]).with(any),
            "withdraw undecided",
        ),
        (
            "any, one open after a restart",
            Case::new(&["1 D", "1 ?"])
                .with(any)
                .with(held)
                .with(announced),
            "announce held-over-restart",
        ),
        (
            "two of three",
            Case::new(&["1 U", "1 D", "1 U"]).with(two),
            "announce healthy",
        ),
        (
            "one of three where two are needed",
            Case::new(&["1 U", "1 D", "1 D"]).with(two),
            "withdraw below-quorum",
        ),
    ]);
}

#[test]
fn a_new_service_does_not_withdraw_a_vip_in_use() {
    assert_all(vec![
        (
            "it does not count before its first decision",
            Case::new(&["1 U", "1 ??"]).with(announced),
            "announce healthy",
        ),
        (
            "it counts from then on",
            Case::new(&["1 U", "1 DD"]).with(announced),
            "withdraw below-quorum",
        ),
        (
            "an old one below its quorum counts meanwhile",
            Case::new(&["1 D", "1 ??"]).with(announced),
            "withdraw below-quorum",
        ),
        (
            "where nothing is decided nothing speaks for the VIP",
            Case::new(&["1 ?", "1 ?"]).with(announced),
            "withdraw undecided",
        ),
    ]);
}

#[test]
fn real_servers_of_weight_0_do_not_count() {
    assert_eq!(Case::new(&["1 -D"]).decide(), "withdraw below-quorum");
    let decisions = Case::new(&["1 -D"]).decisions();
    let expected = Reason::BelowQuorum {
        service: "tcp:10.99.0.1:80".parse().unwrap(),
        healthy: 0,
        quorum: 1,
        of: 2,
    };
    assert_eq!(decisions[0].reason, expected);
}

#[test]
fn the_operators_words_and_the_cost_are_carried() {
    let decisions = Case::new(&["1 U"]).with(overridden(Some(9))).decisions();
    assert_eq!(decisions[0].announce.map(|how| how.cost), Some(9));
    let text = "by hand".to_owned();
    assert_eq!(decisions[0].reason, Reason::Override { text });

    let drained = Case::new(&["1 U"]).with(|case| case.admin_state = AdminState::Drained);
    let text = "kernel".to_owned();
    assert_eq!(drained.decisions()[0].reason, Reason::Drained { text });
}

#[test]
fn a_director_on_its_way_out_announces_at_the_highest_metric() {
    let leaving = Case::new(&["1 U"]).with(announced).with(draining);
    let cost = leaving.decisions()[0]
        .announce
        .map(|announce| announce.cost);
    assert_eq!(cost, Some(65535), "the switches would go on choosing it");
    let held = Case::new(&["1 ?"]).with(held).with(draining);
    let cost = held.decisions()[0].announce.map(|announce| announce.cost);
    assert_eq!(cost, Some(65535), "an agent's restart lowers it again");
}
