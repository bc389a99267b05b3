//! What the controller knows, as immutable snapshots for readers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use isopath_api::declare::Declaration;
use isopath_api::desired::AdminState;
use isopath_api::ids::{ClusterName, DirectorName, NeighborState, RouterId, ServiceId, Vip};
use isopath_api::observed::Observed;
use isopath_api::view::{EventView, Severity};

use super::desired::Derived;
use super::fleet::{Fleet, Refused};
use super::operation::{Operation, Target};
use super::quiesced::Quiesced;
use crate::clock::Moment;
use crate::ecmp::Conditions;
use crate::store::ReadOnly;
use crate::store::interfaces::InterfaceRow;

/// A report older than this says what was, not what is.
pub const STALE: Duration = Duration::from_secs(5);
/// A director silent for longer than this is lost.
pub const LOST: Duration = Duration::from_secs(30);
/// For so long after the controller's start silence proves nothing: agents are reconnecting.
pub const GRACE: Duration = Duration::from_secs(60);
/// A clock that is off by more than this is told: certificates and the times of events go wrong.
pub const SKEW: Duration = Duration::from_secs(2);
/// For so long after the last try a refused agent is shown.
pub const CONFLICT_SHOWN: Duration = Duration::from_secs(30);

/// Everything, as of one moment.
#[derive(Debug, Clone)]
pub struct World {
    /// The life of the database.
    pub epoch: String,
    /// When this controller started.
    pub started: Moment,
    /// The clusters.
    pub clusters: BTreeMap<ClusterName, Arc<ClusterState>>,
    /// Events since the start, by severity.
    pub events_total: BTreeMap<&'static str, u64>,
    /// Operations since the start, by kind and final state.
    pub operations_ended: BTreeMap<(&'static str, &'static str), u64>,
    /// How it stands with the database.
    pub storage: Storage,
    /// The agents that have enrolled.
    pub fleet: Arc<Fleet>,
}

/// How it stands with the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Storage {
    /// Since when and why it takes no writes; nothing while it does.
    pub read_only: Option<ReadOnly>,
    /// Events that wait for it.
    pub waiting: usize,
    /// Events that gave way to later ones since it took any.
    pub lost: u64,
}

impl World {
    /// A world without clusters.
    pub fn new(epoch: String, started: Moment) -> Self {
        Self {
            epoch,
            started,
            clusters: BTreeMap::new(),
            events_total: [Severity::Info, Severity::Warning, Severity::Error]
                .map(|severity| (severity.as_str(), 0))
                .into(),
            operations_ended: BTreeMap::new(),
            storage: Storage::default(),
            fleet: Arc::default(),
        }
    }
}

/// A cluster.
#[derive(Debug, Clone)]
pub struct ClusterState {
    /// Its name.
    pub name: ClusterName,
    /// The life of the database.
    pub epoch: String,
    /// The revision in force.
    pub revision: u64,
    /// What it declares.
    pub declaration: Arc<Declaration>,
    /// What follows from that.
    pub derived: Arc<Derived>,
    /// The real servers and VIPs that are out of service.
    pub quiesced: Quiesced,
    /// The declared directors.
    pub directors: BTreeMap<DirectorName, DirectorState>,
    /// Operations that have not ended, newest first.
    pub operations: Vec<Operation>,
    /// The last events, newest first.
    pub events: VecDeque<EventView>,
    /// What directors have otherwise than declared.
    pub differing: Differing,
    /// Where what is wanted, said and real differ, and since when.
    pub conditions: Conditions,
}

/// Which directors would send the clients of which services elsewhere than declared, and when
/// that was first seen.
pub type Differing = BTreeMap<(ServiceId, DirectorName), Moment>;

/// A director.
#[derive(Debug, Clone)]
pub struct DirectorState {
    /// Its declared router id.
    pub router_id: RouterId,
    /// What the operator wants of it.
    pub admin_state: AdminState,
    /// Their words.
    pub admin_reason: String,
    /// Counts the changes of its desired state.
    pub generation: u64,
    /// The revision that this generation was derived from.
    pub desired_revision: u64,
    /// The generation that its content changed with last; the present one where that was before
    /// this controller started.
    pub shaped_at: u64,
    /// A hash of this generation, as far as the declaration decides it.
    pub content: String,
    /// The agent whose report was accepted last, even before this controller started.
    pub instance: Option<String>,
    /// The interfaces with OSPF on them that its speaker reported last, even before this
    /// controller started; nothing if it never did.
    pub interfaces: Option<Arc<[InterfaceRow]>>,
    /// Its last report since this controller started.
    pub report: Option<Report>,
    /// How many reports were taken since then.
    pub reports: u64,
    /// What was refused last.
    pub conflict: Option<Conflict>,
    /// What was refused of its agents since this controller started.
    pub refused: BTreeMap<Refused, RefusedCount>,
    /// The protocol that its agent speaks, as it said last.
    pub protocol: Option<u32>,
    /// Since when its clock is far off.
    pub skewed: Option<Moment>,
}

/// A report and when it came.
#[derive(Debug, Clone)]
pub struct Report {
    /// What the agent said.
    pub observed: Arc<Observed>,
    /// When it came, by the controller's clock.
    pub received: Moment,
}

/// How often something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedCount {
    /// How often.
    pub count: u64,
    /// When last.
    pub last: Moment,
}

impl Report {
    /// How far the director's clock is before the controller's, in milliseconds; the time that
    /// the report took is in it.
    pub fn skew_ms(&self) -> i64 {
        let skew = self.observed.at.duration_since(self.received.wall);
        i64::try_from(skew.as_millis()).unwrap_or(i64::MAX)
    }

    /// Whether it is far off.
    pub fn is_skewed(&self) -> bool {
        u128::from(self.skew_ms().unsigned_abs()) > SKEW.as_millis()
    }
}

/// An agent that was refused: it is not the one that belongs there, or what it says cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// What kind of thing is wrong.
    pub code: Refused,
    /// What is wrong.
    pub cause: String,
    /// When it was first refused.
    pub since: Moment,
    /// When it was last refused.
    pub last: Moment,
}

/// How lately a director was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// Its last report still counts.
    Fresh,
    /// Silent for longer than [`STALE`].
    Stale(Duration),
    /// Silent for longer than [`LOST`].
    Lost(Duration),
    /// Not heard since the controller started, which was less than [`GRACE`] ago.
    NotYetHeard,
    /// Not heard since the controller started.
    NeverHeard,
}

impl DirectorState {
    /// How lately it was heard.
    pub fn liveness(&self, now: Moment, started: Moment) -> Liveness {
        match &self.report {
            None if now.since(started) <= GRACE => Liveness::NotYetHeard,
            None => Liveness::NeverHeard,
            Some(report) => {
                let silent = now.since(report.received);
                if silent <= STALE {
                    Liveness::Fresh
                } else if silent <= LOST {
                    Liveness::Stale(silent)
                } else {
                    Liveness::Lost(silent)
                }
            }
        }
    }

    /// Its last report, if that still counts.
    pub fn fresh(&self, now: Moment) -> Option<&Observed> {
        self.report
            .as_ref()
            .filter(|report| now.since(report.received) <= STALE)
            .map(|report| &*report.observed)
    }

    /// The generation that its last report says is in force, in this life of the database.
    pub fn acknowledged(&self, epoch: &str) -> Option<u64> {
        self.report
            .as_ref()
            .filter(|report| report.observed.epoch.as_deref() == Some(epoch))
            .map(|report| report.observed.generation)
    }

    /// The refused agent that is still to be shown.
    pub fn conflict(&self, now: Moment) -> Option<&Conflict> {
        self.conflict
            .as_ref()
            .filter(|conflict| now.since(conflict.last) <= CONFLICT_SHOWN)
    }
}

impl ClusterState {
    /// The operation of a target that has not ended.
    pub fn open_operation(&self, target: &Target) -> Option<&Operation> {
        self.operations
            .iter()
            .find(|operation| operation.target == *target)
    }

    /// The director of a router id.
    pub fn director_of(&self, router_id: RouterId) -> Option<&DirectorName> {
        self.directors
            .iter()
            .find(|(_, director)| director.router_id == router_id)
            .map(|(name, _)| name)
    }
}

/// Whether a report's speaker has a neighbour that it is Full with: without one its database
/// is its own alone, and what it announces reaches nobody.
pub fn is_connected(observed: &Observed) -> bool {
    observed.speaker.as_ref().is_some_and(|speaker| {
        speaker
            .neighbors
            .iter()
            .any(|neighbor| neighbor.state == NeighborState::Full)
    })
}

/// Whether a director's own speaker announces a VIP: in the Router-LSA of its database.
pub fn announces(observed: &Observed, vip: Vip) -> bool {
    observed.speaker.as_ref().is_some_and(|speaker| {
        speaker
            .announced
            .iter()
            .any(|announced| announced.vip == vip && announced.in_lsdb)
    })
}

/// Which routers announce a VIP by the database of this report's speaker.
pub fn lsdb_announcers(observed: &Observed, vip: Vip) -> &[RouterId] {
    observed
        .speaker
        .as_ref()
        .and_then(|speaker| speaker.announcers.get(&vip))
        .map_or(&[], Vec::as_slice)
}
