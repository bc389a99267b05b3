//! The directors: their neighbours, what they announce, what the operator wants of them.

use askama::Template;
use isopath_api::desired::AdminState;
use isopath_api::ids::NeighborState;
use isopath_api::observed::Condition;
use isopath_api::reason::Reason;
use isopath_api::speaker::Neighbor;
use isopath_api::view::{ClusterView, DirectorView, DirectorVipView, State};
use jiff::{SignedDuration, Timestamp};

use super::{is_silent, router_name};
use crate::pages::status::{Kind, Status};
use crate::pages::text::{Age, Moment, Reported};

/// More VIPs than this are counted, and only those not announced are named.
const VIPS_NAMED: usize = 4;

#[derive(Template, Debug, PartialEq)]
#[template(path = "cluster/directors.html")]
pub(crate) struct Directors {
    cluster: String,
    /// Whether whoever looks may drain.
    may_operate: bool,
    rows: Vec<Row>,
}

#[derive(Debug, PartialEq)]
struct Row {
    name: String,
    router_id: String,
    status: Status,
    /// Why it is not Up.
    why: String,
    /// Set while the director does not have the newest desired state.
    behind: Option<String>,
    /// What an operator should know about and what withdraws nothing.
    conditions: Vec<Condition>,
    neighbors: Vec<NeighborRow>,
    /// Neighbours in 2-Way, as other directors on a broadcast network are.
    two_way: usize,
    vips: Vec<VipRow>,
    /// How many VIPs are announced, when there are too many to name.
    vip_summary: Option<String>,
    active: Reported,
    connections_per_second: Reported,
    report: Report,
    /// Whether it is in service, so that it can be drained.
    in_service: bool,
}

#[derive(Debug, PartialEq)]
struct NeighborRow {
    key: String,
    name: String,
    interface: String,
    state: Status,
    since: Option<Age>,
    bfd: Option<Status>,
}

#[derive(Debug, PartialEq)]
struct VipRow {
    vip: String,
    status: Status,
    note: String,
}

/// How fresh the values of a row are.
#[derive(Debug, PartialEq)]
enum Report {
    Never,
    Fresh,
    Old { last: Moment, ago: Age },
}

impl Directors {
    pub(super) fn new(view: &ClusterView, may_operate: bool) -> Self {
        Self {
            cluster: view.name.to_string(),
            may_operate,
            rows: view.directors.iter().map(|d| row(view, d)).collect(),
        }
    }
}

fn row(view: &ClusterView, director: &DirectorView) -> Row {
    let announced = |v: &&DirectorVipView| v.cost.is_some() && v.in_lsdb;
    let reported = director.last_report.is_some();
    let many = director.vips.len() > VIPS_NAMED;
    let (two_way, others): (Vec<_>, Vec<_>) = director
        .neighbors
        .iter()
        .partition(|n| n.state == NeighborState::TwoWay);
    Row {
        name: director.name.to_string(),
        router_id: director.router_id.to_string(),
        status: director.state.into(),
        why: match director.state {
            State::Up => String::new(),
            _ => director.why.clone(),
        },
        behind: behind(director),
        conditions: director.conditions.clone(),
        neighbors: others.iter().map(|n| neighbor(view, director, n)).collect(),
        two_way: two_way.len(),
        vip_summary: many.then(|| {
            let count = director.vips.iter().filter(announced).count();
            format!("{count} of {} announced", director.vips.len())
        }),
        vips: director
            .vips
            .iter()
            .filter(|v| !(many && announced(v)))
            .map(|v| vip(view, director, v))
            .collect(),
        active: Reported::when(reported, director.active),
        connections_per_second: Reported::when(reported, director.connections_per_second),
        report: report(director, view.as_of),
        in_service: director.admin_state == AdminState::Active,
    }
}

fn behind(director: &DirectorView) -> Option<String> {
    let acknowledged = director.acknowledged_generation?;
    (acknowledged != director.generation).then(|| {
        format!(
            "runs generation {acknowledged}, wanted {}",
            director.generation
        )
    })
}

fn report(director: &DirectorView, now: Timestamp) -> Report {
    match director.last_report {
        None => Report::Never,
        Some(last) if is_silent(director, now) => Report::Old {
            last: Moment::new(last, now),
            ago: Age::new(last, now),
        },
        Some(_) => Report::Fresh,
    }
}

fn neighbor(view: &ClusterView, director: &DirectorView, neighbor: &Neighbor) -> NeighborRow {
    NeighborRow {
        key: format!("{} {}", neighbor.interface, neighbor.router_id),
        name: router_name(view, neighbor.router_id),
        interface: neighbor.interface.clone(),
        state: neighbor.state.into(),
        since: director
            .last_report
            .and_then(|at| state_since(at, neighbor.state_ms))
            .map(|since| Age::new(since, view.as_of)),
        bfd: neighbor.bfd.map(Status::from),
    }
}

/// When a state began that had lasted `state_ms` at the report.
fn state_since(reported: Timestamp, state_ms: u64) -> Option<Timestamp> {
    let lasted = SignedDuration::from_millis(i64::try_from(state_ms).ok()?);
    reported.checked_sub(lasted).ok()
}

fn vip(view: &ClusterView, director: &DirectorView, vip: &DirectorVipView) -> VipRow {
    let mut vips = view.vips.iter();
    let over_all = vips.find(|over_all| over_all.vip == vip.vip);
    let is_backup = over_all.is_some_and(|it| {
        it.wanted.contains(&director.name) && !it.lowest.contains(&director.name)
    });
    let role = if is_backup { ", backup" } else { "" };
    let (status, note) = match (vip.cost, vip.in_lsdb) {
        (Some(cost), true) => (
            Status::new(Kind::Up, "Announced"),
            format!("cost {cost}{role}"),
        ),
        (Some(_), false) => (
            Status::new(Kind::Degraded, "Not in LSDB"),
            "wanted, and no neighbour has it yet".to_owned(),
        ),
        (None, true) => (
            Status::new(Kind::Draining, "Withdrawing"),
            vip.reason_text.clone(),
        ),
        (None, false) => (withdrawn(&vip.reason), vip.reason_text.clone()),
    };
    VipRow {
        vip: vip.vip.to_string(),
        status,
        note,
    }
}

/// Withdrawn on an operator's word is no fault; anything else is.
fn withdrawn(reason: &Reason) -> Status {
    let kind = match reason {
        Reason::Draining { .. } => Kind::Draining,
        Reason::Drained { .. } => Kind::Safe,
        Reason::Override { .. } | Reason::NotWanted | Reason::NoServices | Reason::Stopping => {
            Kind::Off
        }
        Reason::Undecided { .. } | Reason::AgentSilent { .. } => Kind::Unknown,
        Reason::HeldDown { .. } => Kind::Degraded,
        Reason::Healthy
        | Reason::HeldOverRestart
        | Reason::BelowQuorum { .. }
        | Reason::DataplaneNotReady { .. }
        | Reason::NoIpvs
        | Reason::NoScheduler { .. }
        | Reason::SysctlRefused { .. }
        | Reason::InterfaceDown { .. }
        | Reason::VipAnsweredElsewhere { .. }
        | Reason::MtuTooSmall { .. }
        | Reason::DigestMismatch { .. } => Kind::Down,
    };
    Status::new(kind, "Withdrawn")
}

impl Directors {
    /// In words, for the section's heading.
    fn summary(&self) -> String {
        let up = Status::from(State::Up);
        let count = self.rows.iter().filter(|r| r.status == up).count();
        format!("{count} of {} up", self.rows.len())
    }
}
