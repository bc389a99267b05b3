//! Clusters as the pages' tests know them: a switch, four directors, one VIP, three servers.

use isopath_api::declare::{Forwarding, LvsSpec, Warning, WarningCode};
use isopath_api::desired::AdminState;
use isopath_api::ids::{BfdState, DirectorName, NeighborState};
use isopath_api::observed::{CheckResult, Health};
use isopath_api::operation::{
    OnDeadline, OperationState, OperationView, StepName, StepState, StepView,
};
use isopath_api::reason::Reason;
use isopath_api::speaker::Neighbor;
use isopath_api::view::{
    Agreement, ClusterView, DirectorPlacement, DirectorView, DirectorVipView, EventView,
    PlacementView, ProblemView, RealServerSeen, RealServerView, ReportsView, ServiceView, Severity,
    State, SwitchView, VipView, VipWidth,
};
use jiff::{SignedDuration, Timestamp};

use isopath_api::access::Role;

use crate::auth::{Session, SessionSecret};

pub(crate) const VIP: &str = "10.99.0.1";

pub(crate) fn session() -> Session {
    Session::new("mia".to_owned(), Role::Operator, &SessionSecret::generate())
}

pub(crate) fn now() -> Timestamp {
    "2026-03-02T03:12:41Z".parse().unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    now()
        .checked_sub(SignedDuration::from_secs(seconds))
        .unwrap()
}

fn names(count: usize) -> Vec<DirectorName> {
    (1..=count)
        .map(|n| format!("d{n}").parse().unwrap())
        .collect()
}

/// Everything as it should be.
pub(crate) fn healthy() -> ClusterView {
    sized(4, 3)
}

/// Everything as it should be, with so many directors and real servers.
pub(crate) fn sized(directors: usize, servers: u8) -> ClusterView {
    let names = names(directors);
    ClusterView {
        schema: "isopath.cluster/1".to_owned(),
        name: "edge-fra".parse().unwrap(),
        revision: 118,
        as_of: now(),
        state: State::Up,
        verdict: format!("{VIP} is announced by all {directors} directors."),
        problems: Vec::new(),
        warnings: Vec::new(),
        lvs: LvsSpec::default().resolve(directors),
        switches: vec![SwitchView {
            router_id: "10.0.0.1".parse().unwrap(),
            name: Some("sw1".to_owned()),
            full: names.clone(),
            not_full: Vec::new(),
        }],
        directors: names
            .iter()
            .zip(1..)
            .map(|(name, n)| director(name, n))
            .collect(),
        vips: vec![VipView {
            vip: VIP.parse().unwrap(),
            state: State::Up,
            admin_state: AdminState::Active,
            wanted: names.clone(),
            lowest: names.clone(),
            real: names.clone(),
            foreign: Vec::new(),
            widths: vec![VipWidth {
                switch: "10.0.0.1".parse().unwrap(),
                name: Some("sw1".to_owned()),
                width: u32::try_from(names.len()).unwrap(),
                through: names.iter().map(ToString::to_string).collect(),
            }],
        }],
        services: vec![ServiceView {
            service: format!("tcp:{VIP}:80").parse().unwrap(),
            state: State::Up,
            scheduler: "mh mh-fallback,mh-port".to_owned(),
            forwarding: Forwarding::Dr,
            quorum: 1,
            real_servers: (0..servers).map(|n| real_server(&names, 11 + n)).collect(),
            placement: Some(placement(&names)),
        }],
        operations: Vec::new(),
        events: vec![
            event(
                2,
                252,
                Severity::Info,
                "director d4",
                "reported for the first time",
            ),
            event(
                1,
                3_600,
                Severity::Info,
                "cluster edge-fra",
                "revision 118 applied",
            ),
        ],
    }
}

fn director(name: &DirectorName, n: u8) -> DirectorView {
    DirectorView {
        name: name.clone(),
        router_id: format!("10.0.1.{}", n + 1).parse().unwrap(),
        state: State::Up,
        why: String::new(),
        admin_state: AdminState::Active,
        admin_reason: String::new(),
        version: Some("0.1.0".to_owned()),
        contact: Some(isopath_api::view::Contact::Heard),
        protocol: Some(1),
        clock_skew_ms: Some(0),
        refused: Default::default(),
        last_report: Some(now()),
        reports: ReportsView::default(),
        generation: 42,
        acknowledged_generation: Some(42),
        neighbors: vec![Neighbor {
            interface: "eth1".to_owned(),
            router_id: "10.0.0.1".parse().unwrap(),
            address: format!("10.0.1.{}", 100 + n).parse().unwrap(),
            state: NeighborState::Full,
            priority: 1,
            state_ms: 1_092_000,
            dead_ms: 3_400,
            bfd: Some(BfdState::Up),
            auth_key: None,
        }],
        vips: vec![DirectorVipView {
            vip: VIP.parse().unwrap(),
            cost: Some(1),
            declared_cost: Some(1),
            in_lsdb: true,
            reason: Reason::Healthy,
            reason_text: Reason::Healthy.to_string(),
            since: ago(1_092),
        }],
        active: 3_000 + u64::from(n),
        connections_per_second: 300 + u64::from(n),
        conditions: Vec::new(),
    }
}

const EXPECTED: &str = "02b3a2ac72ce3de6cb";

/// Every director sends clients where it should.
fn placement(directors: &[DirectorName]) -> PlacementView {
    let same = |director: &DirectorName| DirectorPlacement {
        director: director.clone(),
        found: Some(EXPECTED.parse().unwrap()),
        agreement: Agreement::Same,
        since: None,
    };
    PlacementView {
        expected: EXPECTED.parse().unwrap(),
        directors: directors.iter().map(same).collect(),
    }
}

/// The director announces the VIP no more.
fn leave(vip: &mut VipView, name: &DirectorName) {
    vip.real.retain(|d| d != name);
    for seen in &mut vip.widths {
        seen.through.retain(|d| d != name.as_str());
        seen.width = u32::try_from(seen.through.len()).unwrap();
    }
}

fn real_server(directors: &[DirectorName], octet: u8) -> RealServerView {
    let seen = |director: &DirectorName| RealServerSeen {
        director: director.clone(),
        health: Health::Up,
        since: ago(1_090),
        effective_weight: Some(1),
        last_check: Some(CheckResult {
            ok: true,
            detail: "HTTP 200".to_owned(),
            took_ms: 2,
            in_a_row: 1_090,
            at: ago(1),
        }),
    };
    RealServerView {
        real_server: format!("10.1.0.{octet}:80").parse().unwrap(),
        state: State::Up,
        weight: 1,
        admin_state: AdminState::Active,
        seen: directors.iter().map(seen).collect(),
        active: 4_000 + u64::from(octet),
        inactive: 120,
        connections_per_second: 401,
    }
}

fn event(id: u64, seconds: i64, severity: Severity, object: &str, what: &str) -> EventView {
    EventView {
        id,
        at: ago(seconds),
        cluster: Some("edge-fra".parse().unwrap()),
        severity,
        object: object.to_owned(),
        what: what.to_owned(),
        actor: "controller".to_owned(),
    }
}

/// The steps of a drain that waits for other directors' databases.
fn steps() -> Vec<StepView> {
    [
        (StepName::Guard, StepState::Done),
        (StepName::Cost, StepState::Done),
        (StepName::Withdraw, StepState::Done),
        (StepName::Set, StepState::Now),
        (StepName::Traffic, StepState::Ahead),
    ]
    .map(|(step, state)| StepView {
        step,
        state,
        since: (state != StepState::Ahead).then(|| ago(12)),
        evidence: String::new(),
    })
    .into()
}

/// d2 is drained, its drain still settling.
pub(crate) fn drained() -> ClusterView {
    let mut view = healthy();
    let text = "kernel update".to_owned();
    let d2 = &mut view.directors[1];
    d2.state = State::Draining;
    d2.why = "draining: kernel update".to_owned();
    d2.admin_state = AdminState::Draining;
    d2.admin_reason = text.clone();
    let vip = &mut d2.vips[0];
    vip.cost = None;
    vip.in_lsdb = false;
    vip.reason = Reason::Drained { text: text.clone() };
    vip.reason_text = vip.reason.to_string();
    vip.since = ago(12);
    let name = d2.name.clone();
    leave(&mut view.vips[0], &name);
    view.vips[0].wanted.retain(|d| *d != name);
    view.vips[0].lowest.retain(|d| *d != name);
    view.operations.push(OperationView {
        id: "op_1".to_owned(),
        kind: "director.drain".to_owned(),
        cluster: view.name.clone(),
        target: name.to_string(),
        service: None,
        steps: steps(),
        blocked_by: Vec::new(),
        targets: Vec::new(),
        immediate: false,
        base_revision: 1,
        version: 4,
        deadline_at: ago(-888),
        on_deadline: OnDeadline::Hold,
        state: OperationState::Settling,
        detail: "waiting for the LSDBs of d1 and d3".to_owned(),
        requested_by: "mia".to_owned(),
        reason: text,
        override_guards: Vec::new(),
        started_at: ago(12),
        ended_at: None,
    });
    view
}

/// d3 has withdrawn the VIP because its checks fail there.
pub(crate) fn narrow() -> ClusterView {
    let mut view = healthy();
    view.state = State::Degraded;
    view.verdict = format!("{VIP} is announced by 3 of 4 directors.");
    let reason = Reason::BelowQuorum {
        service: format!("tcp:{VIP}:80").parse().unwrap(),
        healthy: 0,
        quorum: 1,
        of: 3,
    };
    let d3 = &mut view.directors[2];
    d3.state = State::Degraded;
    d3.why = format!("{VIP} withdrawn");
    d3.active = 0;
    d3.vips[0].cost = None;
    d3.vips[0].in_lsdb = false;
    d3.vips[0].reason_text = reason.to_string();
    d3.vips[0].reason = reason;
    d3.vips[0].since = ago(252);
    let name = d3.name.clone();
    view.vips[0].state = State::Degraded;
    leave(&mut view.vips[0], &name);
    view.services[0].state = State::Degraded;
    for server in &mut view.services[0].real_servers {
        server.state = State::Degraded;
        let seen = server.seen.iter_mut().find(|s| s.director == name).unwrap();
        seen.health = Health::Down;
        seen.since = ago(252);
        seen.effective_weight = Some(0);
        seen.last_check = Some(CheckResult {
            ok: false,
            detail: "TCP refused".to_owned(),
            took_ms: 1,
            in_a_row: 250,
            at: ago(1),
        });
    }
    view.problems = vec![ProblemView {
        state: State::Degraded,
        object: format!("VIP {VIP}"),
        cause: format!(
            "ECMP 3 of 4: d3 withdrew it: {}",
            view.directors[2].vips[0].reason_text
        ),
        since: Some(ago(252)),
        next: "look at the path from d3 to the real servers".to_owned(),
    }];
    view.events.insert(
        0,
        event(
            3,
            252,
            Severity::Warning,
            "director d3",
            "withdrew 10.99.0.1",
        ),
    );
    view
}

/// d3 would send clients elsewhere, d4 is a backup that a change is still on its way to, and the
/// declaration is unwise.
pub(crate) fn unwise() -> ClusterView {
    let mut view = healthy();
    view.state = State::Degraded;
    let service = format!("tcp:{VIP}:80");
    view.warnings.push(Warning {
        code: WarningCode::ThresholdsWithMh,
        at: "/service/0/real_server".to_owned(),
        text: format!("{service}: a connection limit counts on each director by itself"),
    });
    let placement = view.services[0].placement.as_mut().unwrap();
    let [_, _, d3, d4] = placement.directors.as_mut_slice() else {
        panic!("four directors");
    };
    d3.agreement = Agreement::Differs;
    d3.found = Some("030000000000000000".parse().unwrap());
    d3.since = Some(ago(252));
    d4.agreement = Agreement::RollingOut;
    let d4 = view.directors[3].name.clone();
    view.vips[0].lowest.retain(|name| *name != d4);
    view.directors[3].vips[0].cost = Some(100);
    view.directors[3].vips[0].declared_cost = Some(100);
    view.problems = vec![ProblemView {
        state: State::Degraded,
        object: "placement on director d3".to_owned(),
        cause: format!("{service}: digest 010000000000000000, expected {EXPECTED}"),
        since: Some(ago(252)),
        next: "see the log of isopath-agent on it".to_owned(),
    }];
    view
}

/// The agent of d4 has been silent for twelve seconds.
pub(crate) fn silent() -> ClusterView {
    let mut view = healthy();
    view.state = State::Degraded;
    let d4 = &mut view.directors[3];
    d4.state = State::Unknown;
    d4.why = "no report for 12 s".to_owned();
    d4.last_report = Some(ago(12));
    view
}

/// Declared, and nothing has reported.
pub(crate) fn unheard() -> ClusterView {
    let mut view = sized(1, 0);
    view.state = State::Unknown;
    view.switches.clear();
    view.events.clear();
    let d1 = &mut view.directors[0];
    d1.state = State::Unknown;
    d1.last_report = None;
    d1.acknowledged_generation = None;
    d1.neighbors.clear();
    d1.vips.clear();
    (d1.active, d1.connections_per_second) = (0, 0);
    view.vips[0].state = State::Unknown;
    view.vips[0].real.clear();
    view.vips[0].widths.clear();
    view
}

/// Nothing declared at all.
pub(crate) fn empty() -> ClusterView {
    let mut view = sized(0, 0);
    view.vips.clear();
    view.services.clear();
    view.switches.clear();
    view.events.clear();
    view
}
