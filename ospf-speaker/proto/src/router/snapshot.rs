//! The whole router as plain data, for the process that takes it over.
//!
//! A [`Router`] that is [restored](Router::restore) in another process goes on where the first
//! one stopped: no packet tells the neighbours that there was a change. Here and in the
//! `snapshot` modules beside the other parts, everything is taken apart and put together without
//! `..`, so that a field which is added and forgotten here does not compile.
//!
//! Points in time are distances from that of the snapshot. Fields that a later version adds want
//! `#[serde(default)]` and a default that is right for a router that has not had them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Router;
use crate::config::{
    AnnounceError, AreaType, Config, ConfigError, External, NetworkType, Stub, canonical_externals,
    canonical_stubs,
};
use crate::counters::Counters;
use crate::graceful::{Restart, RestartSnapshot};
use crate::ids::{AreaId, RouterId};
use crate::interface::{Interface, InterfaceSnapshot};
use crate::lsdb::{EntrySnapshot, Lsdb};
use crate::moment::{Moment, OutOfRange};
use crate::own::{OwnLsas, OwnSnapshot};
use crate::rng::Rng;
use crate::shutdown::{Stage, StageSnapshot};
use crate::timer::{Timer, TimerTable};

/// All that a router knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    identity: Identity,
    interfaces: Vec<InterfaceSnapshot>,
    lsdb: Vec<EntrySnapshot>,
    own: OwnSnapshot,
    stubs: Vec<Stub>,
    externals: Vec<External>,
    stopping: Option<StageSnapshot>,
    #[serde(default)]
    restart: RestartSnapshot,
    /// Without those of [`Timer::MaxAge`], which follow from the database.
    timers: Vec<(Timer, Moment)>,
    rng: u64,
    counters: BTreeMap<String, u64>,
    latest: Moment,
}

/// What a neighbour knows us by: the part of a configuration that cannot change while an
/// adjacency stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    router_id: RouterId,
    area: AreaId,
    area_type: AreaType,
    interfaces: Vec<InterfaceIdentity>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct InterfaceIdentity {
    network: NetworkType,
    hello_interval: u16,
    dead_interval: u32,
}

/// Why a snapshot cannot be restored under a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The configuration itself is wrong.
    #[error("the configuration cannot be run")]
    Config(#[from] ConfigError),
    /// The neighbours would see another router than before.
    #[error("{what} is {found} in the new configuration, {running} in the running one")]
    Changed {
        /// What has changed.
        what: String,
        /// What it is in the configuration.
        found: String,
        /// What it is in the snapshot.
        running: String,
    },
    /// The snapshot has more hosts than can be announced.
    #[error("the snapshot cannot be announced")]
    Announce(#[from] AnnounceError),
    /// A point in time is not on this process' clock.
    #[error("a time in the snapshot is out of range")]
    Time,
}

impl From<OutOfRange> for SnapshotError {
    fn from(OutOfRange: OutOfRange) -> Self {
        Self::Time
    }
}

impl Identity {
    /// That of a configuration.
    pub fn new(config: &Config) -> Self {
        let interface = |config: &crate::InterfaceConfig| InterfaceIdentity {
            network: config.network,
            hello_interval: config.hello_interval,
            dead_interval: config.dead_interval,
        };
        Self {
            router_id: config.router_id,
            area: config.area,
            area_type: config.area_type,
            interfaces: config.interfaces.iter().map(interface).collect(),
        }
    }

    /// Whether a router that runs under `self` can go on under `config`.
    ///
    /// # Errors
    /// The first thing that has changed.
    pub fn check(&self, config: &Config) -> Result<(), SnapshotError> {
        let new = Self::new(config);
        same("the router id", &new.router_id, &self.router_id)?;
        same("the area", &new.area, &self.area)?;
        same("the kind of area", &new.area_type, &self.area_type)?;
        let (found, running) = (new.interfaces.len(), self.interfaces.len());
        same("the number of interfaces", &found, &running)?;
        for (place, (new, old)) in new.interfaces.iter().zip(&self.interfaces).enumerate() {
            let of = |what: &str| format!("the {what} of interface {place}");
            same(&of("kind of network"), &new.network, &old.network)?;
            same(
                &of("hello interval"),
                &new.hello_interval,
                &old.hello_interval,
            )?;
            same(&of("dead interval"), &new.dead_interval, &old.dead_interval)?;
        }
        Ok(())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &T,
    running: &T,
) -> Result<(), SnapshotError> {
    if found == running {
        return Ok(());
    }
    Err(SnapshotError::Changed {
        what: what.to_owned(),
        found: format!("{found:?}"),
        running: format!("{running:?}"),
    })
}

impl Router {
    /// The router as plain data. Drain [`Router::poll_transmit`] and [`Router::poll_event`]
    /// before: what they still have is not part of it.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let Self {
            config,
            interfaces,
            lsdb,
            own,
            stubs,
            externals,
            stopping,
            restart,
            timers,
            rng,
            counters,
            transmits,
            events: _,
            // Only what was logged lately; the successor may log it once more.
            reported_drops: _,
            latest,
            #[cfg(feature = "sabotage")]
                sabotage: _,
        } = self;
        debug_assert!(transmits.is_empty(), "packets would be lost");
        let kept = |timer: &Timer| !matches!(timer, Timer::MaxAge(_));
        Snapshot {
            identity: Identity::new(config),
            interfaces: interfaces
                .iter()
                .map(|interface| interface.snapshot(now))
                .collect(),
            lsdb: lsdb.snapshot(now),
            own: own.snapshot(now),
            stubs: stubs.clone(),
            externals: externals.values().copied().collect(),
            stopping: stopping.map(|stage| stage.snapshot(now)),
            restart: restart.snapshot(now),
            timers: timers
                .iter()
                .filter(|(timer, _)| kept(timer))
                .map(|(timer, at)| (timer, Moment::new(at, now)))
                .collect(),
            rng: rng.state(),
            counters: counters.iter().collect(),
            latest: Moment::new(*latest, now),
        }
    }

    /// The router of which a snapshot was taken at `taken`, in this process' clock. It goes on
    /// under `config`, which may differ in what the neighbours do not see.
    ///
    /// # Errors
    /// When the configuration is of another router, or the snapshot is none of a router's.
    pub fn restore(
        config: Config,
        snapshot: Snapshot,
        taken: Instant,
    ) -> Result<Self, SnapshotError> {
        config.validate()?;
        let Snapshot {
            identity,
            interfaces,
            lsdb,
            own,
            stubs,
            externals,
            stopping,
            restart,
            timers,
            rng,
            counters,
            latest,
        } = snapshot;
        identity.check(&config)?;
        let found = interfaces.len();
        same("the number of interfaces", &config.interfaces.len(), &found)?;
        let mut costs = interfaces.iter().zip(&config.interfaces);
        let recosted = costs.any(|(old, new)| old.cost != new.cost);
        let settings = config.interfaces.iter().cloned();
        let interfaces = settings
            .zip(interfaces)
            .map(|(settings, interface)| Interface::restore(settings, interface, taken))
            .collect::<Result<Vec<Interface>, OutOfRange>>()?;
        let mut router = Self {
            interfaces,
            lsdb: Lsdb::restore(lsdb, taken)?,
            own: OwnLsas::restore(own, taken)?,
            stubs: canonical_stubs(&stubs)?,
            externals: canonical_externals(&externals, config.area_type)?,
            stopping: stopping
                .map(|stage| Stage::restore(stage, taken))
                .transpose()?,
            restart: Restart::restore(restart, taken)?,
            timers: TimerTable::default(),
            rng: Rng::new(rng),
            counters: Counters::restore(&counters),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            reported_drops: BTreeMap::new(),
            latest: latest.instant(taken)?,
            #[cfg(feature = "sabotage")]
            sabotage: None,
            config,
        };
        for (timer, at) in timers {
            router.timers.set(timer, at.instant(taken)?);
        }
        router.restore_aging();
        if recosted {
            router.own.touch(router.router_lsa_key());
        }
        Ok(router)
    }

    /// Starts the timer of every LSA that is not at MaxAge yet.
    fn restore_aging(&mut self) {
        if self.is_stopped() {
            return;
        }
        for (key, entry) in self.lsdb.iter() {
            if !self.lsdb.is_leaving(key) {
                self.timers.set(Timer::MaxAge(*key), entry.expires());
            }
        }
    }
}
