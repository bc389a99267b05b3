//! Giving all that the speaker is to another process, and taking it from one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use isopath_api::config::DirectorFile;
use isopath_api::ids::Vip;
use isopath_api::speaker::{Reply, Upgraded};
use isopath_ospf::{InterfaceId, LinkState, Router};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::descriptors::Descriptors;
use super::paths::OurPaths;
use super::{Interface, RunError, Source, Speaker, config, watch};
use crate::bfd::{Bfd, BfdSnapshot};
use crate::control::Control;
use crate::counts::Counts;
use crate::hold_down::{Clock, HoldDown, HoldDownSnapshot};
use crate::kept::{Contents, Kept};
use crate::keys::Keys;
use crate::late::Lateness;
use crate::notify::notify;
use crate::ospf_socket::{MAX_PACKET, OspfSocket};
use crate::priority::set_real_time;
use crate::upgrade::{
    Incoming, Invocation, Offer, Outgoing, Successor, TakeOverError, Upgrade, UpgradeError, causes,
};
use crate::wanted::{ClientId, Verdict, Wanted, WantedSnapshot};

/// The longest that nobody may speak, where no BFD session says less: no neighbour's
/// RouterDeadInterval is below two seconds.
const LONGEST_FREEZE: Duration = Duration::from_secs(1);

/// The shortest bound that is worth a try. A peer whose BFD is that close to its end has not
/// heard from us for most of its detection time, and hears from us again either way.
const SHORTEST_FREEZE: Duration = Duration::from_millis(10);

/// All that a speaker is, but for its sockets: a descriptor is the place of one beside it.
#[derive(Debug, Serialize, Deserialize)]
struct Snapshot {
    /// When it was taken, by CLOCK_MONOTONIC, which is the same for all processes.
    taken: Duration,
    origin_pid: u32,
    up: Duration,
    listener: usize,
    interfaces: Vec<InterfaceSnapshot>,
    router: isopath_ospf::Snapshot,
    bfd: BfdSnapshot,
    wanted: Option<WantedSnapshot>,
    #[serde(default)]
    hold_down: HoldDownSnapshot,
    verdicts: BTreeMap<Vip, Verdict>,
    kept: Contents,
    hello_lateness: Lateness,
    counters: Counts,
}

#[derive(Debug, Serialize, Deserialize)]
struct InterfaceSnapshot {
    link: Option<LinkState>,
    socket: Option<usize>,
}

impl Speaker {
    /// Starts the program that is to take over; what it says comes by [`Source::Upgrade`].
    pub(super) fn begin_upgrade(
        &mut self,
        now: Instant,
        requester: Option<ClientId>,
        binary: Option<PathBuf>,
    ) -> Result<(), UpgradeError> {
        if self.stop_by.is_some() {
            return Err(UpgradeError::Stopping);
        }
        if self.upgrade.is_some() {
            return Err(UpgradeError::Busy);
        }
        if let Some(path) = binary.as_ref().filter(|path| !path.is_absolute()) {
            return Err(UpgradeError::NotAbsolute(path.clone()));
        }
        let offer = Offer::new(&self.file, &self.config);
        let upgrade = Upgrade::begin(now, &self.invocation, binary, offer, requester)?;
        let descriptor = upgrade.channel.descriptor();
        if let Err(source) = watch(&self.poll, descriptor, Source::Upgrade) {
            upgrade.abandon();
            return Err(UpgradeError::Io {
                operation: "watch the new program",
                source,
            });
        }
        info!(pid = upgrade.pid(), "upgrade: started the new program");
        notify("RELOADING=1\nSTATUS=Starting the new program");
        self.upgrade = Some(upgrade);
        Ok(())
    }

    /// The new program has said something.
    pub(super) fn handle_upgrade(&mut self, now: Instant) {
        let Some(upgrade) = &mut self.upgrade else {
            return;
        };
        if let Err(error) = upgrade.answer(now) {
            self.give_up_upgrade(&error);
        }
    }

    /// An upgrade that is not coming; this process goes on.
    pub(super) fn give_up_upgrade(&mut self, error: &UpgradeError) {
        let Some(upgrade) = self.upgrade.take() else {
            return;
        };
        let requester = upgrade.requester;
        // Closing the channel takes it out of the epoll set.
        upgrade.abandon();
        self.refuse_upgrade(requester, error);
        notify("READY=1\nSTATUS=Speaking; the last upgrade was refused");
    }

    pub(super) fn refuse_upgrade(&mut self, requester: Option<ClientId>, error: &UpgradeError) {
        let message = causes(error);
        warn!(reason = message, "upgrade refused");
        self.counters.add("upgrades_refused");
        if let Some(requester) = requester {
            self.control.reply(requester, &Reply::Error { message });
        }
    }

    /// Hands over if the new program is ready; whether this process is to leave.
    pub(super) fn hand_over_if_ready(&mut self) -> bool {
        let ready = self.upgrade.as_ref().map(|upgrade| upgrade.ready.clone());
        let Some(Some(version)) = ready else {
            return false;
        };
        let frozen = Instant::now();
        let result = self.hand_over(frozen);
        let freeze = frozen.elapsed();
        match result {
            Ok(upgraded) => {
                let to_pid = upgraded.pid();
                info!(
                    pid = to_pid,
                    version,
                    ?freeze,
                    "upgraded: another process speaks"
                );
                if let Some(requester) = upgraded.requester {
                    let upgraded = Upgraded {
                        from_pid: std::process::id(),
                        to_pid,
                        from_version: env!("CARGO_PKG_VERSION").to_owned(),
                        version,
                        freeze_us: u64::try_from(freeze.as_micros()).unwrap_or(u64::MAX),
                    };
                    self.control.reply(requester, &Reply::Upgraded(upgraded));
                }
                true
            }
            Err(error) => {
                self.give_up_upgrade(&error);
                // Nobody has read what came meanwhile.
                self.backlog.extend(self.packet_sources());
                false
            }
        }
    }

    /// Gives everything to the new program. Nobody speaks from `frozen` on until it does.
    fn hand_over(&mut self, frozen: Instant) -> Result<Upgrade, UpgradeError> {
        let Some(mut upgrade) = self.upgrade.take() else {
            return Err(UpgradeError::OutOfOrder);
        };
        let mut sockets = Outgoing::default();
        let snapshot = self.snapshot(frozen, &mut sockets);
        let result = serde_json::to_vec(&snapshot)
            .map_err(|error| UpgradeError::Io {
                operation: "write the snapshot",
                source: error.into(),
            })
            .and_then(|text| {
                let deadline = frozen + self.freeze_bound(frozen);
                upgrade.hand_over(&text, &sockets, deadline, |pid| {
                    notify(&format!("MAINPID={pid}"));
                })
            });
        match result {
            Ok(()) => Ok(upgrade),
            Err(error) => {
                notify(&format!("MAINPID={}", std::process::id()));
                self.upgrade = Some(upgrade);
                Err(error)
            }
        }
    }

    /// How long nobody may speak: half of what is left until the first neighbour takes us for
    /// dead. The other half is for going on after all.
    fn freeze_bound(&self, now: Instant) -> Duration {
        let patience = self.bfd.peers_patience();
        let left = patience.map(|until| until.saturating_duration_since(now) / 2);
        left.unwrap_or(LONGEST_FREEZE)
            .clamp(SHORTEST_FREEZE, LONGEST_FREEZE)
    }

    fn snapshot<'a>(&'a self, now: Instant, sockets: &mut Outgoing<'a>) -> Snapshot {
        let Self {
            started,
            origin_pid,
            // The successor has its own.
            file: _,
            invocation: _,
            config: _,
            poll: _,
            timer: _,
            wall_clock: _,
            signals: _,
            upgrade_signals: _,
            interrupted: _,
            links: _,
            keys: _,
            interfaces,
            router,
            bfd,
            wanted,
            hold_down,
            verdicts,
            kept,
            control,
            // The successor calculates them anew, as soon as somebody asks.
            paths: _,
            our_paths: _,
            // The successor looks at every source.
            backlog: _,
            buffer: _,
            hello_lateness,
            counters,
            // The successor looks at the links at once.
            retry_at: _,
            // A speaker that stops is not upgraded.
            stop_by: _,
            keeping: _,
            settles: _,
            hurry: _,
            upgrade: _,
            touched: _,
            // The subscribers find the successor by themselves.
            published: _,
        } = self;
        let interface = |interface: &'a Interface| {
            let Interface {
                name: _,
                link,
                socket,
            } = interface;
            InterfaceSnapshot {
                link: *link,
                socket: socket.as_ref().map(|socket| sockets.put(socket)),
            }
        };
        let interfaces = interfaces.iter().map(interface).collect();
        Snapshot {
            taken: monotonic().saturating_sub(now.elapsed()),
            origin_pid: *origin_pid,
            up: now.saturating_duration_since(*started),
            listener: sockets.put(control.listener()),
            interfaces,
            router: router.snapshot(now),
            bfd: bfd.snapshot(now, sockets),
            wanted: wanted.snapshot(now),
            hold_down: hold_down.snapshot(now),
            verdicts: verdicts.clone(),
            kept: kept.contents().clone(),
            hello_lateness: *hello_lateness,
            counters: counters.clone(),
        }
    }

    /// Takes over from the speaker that started this process.
    ///
    /// # Errors
    /// When this process cannot be the other one's successor, which then has been told why and
    /// goes on.
    pub fn take_over(
        file: DirectorFile,
        keys: Keys,
        wait_for_agent: bool,
        invocation: Invocation,
    ) -> Result<Self, RunError> {
        let successor = Successor::new()?;
        let taken_over = Self::succeed(&successor, file, keys, wait_for_agent, invocation);
        if let Err(error) = &taken_over {
            successor.refuse(&causes(error));
        }
        taken_over
    }

    fn succeed(
        successor: &Successor,
        file: DirectorFile,
        keys: Keys,
        wait_for_agent: bool,
        invocation: Invocation,
    ) -> Result<Self, RunError> {
        let offer = successor.offer()?;
        offer.check(&file, &config::core(&file, None))?;
        let descriptors = Descriptors::open(&file)?;
        if let Err(error) = set_real_time() {
            info!(%error, "running without real-time priority");
        }
        successor.ready()?;
        let (text, mut incoming) = successor.state()?;
        let snapshot: Snapshot = serde_json::from_slice(&text).map_err(TakeOverError::from)?;
        let taken = instant(snapshot.taken);
        let restored = Restored {
            file,
            keys,
            wait_for_agent,
            invocation,
            descriptors,
        };
        let mut speaker = restored.with(snapshot, taken, &mut incoming)?;
        successor.restored()?;
        speaker.control.own(&speaker.file.director.speaker_socket);
        let now = Instant::now();
        let freeze = now.saturating_duration_since(taken);
        let freeze_us = u64::try_from(freeze.as_micros()).unwrap_or(u64::MAX);
        speaker.counters.add("upgrades");
        speaker.counters.raise("upgrade_freeze_max_us", freeze_us);
        notify("READY=1\nSTATUS=Speaking");
        info!(?freeze, "took over from the running speaker");
        speaker.decide(now);
        speaker.refresh_links(now)?;
        Ok(speaker)
    }

    /// The sockets that packets come by.
    fn packet_sources(&self) -> BTreeSet<Source> {
        let bfd = self.bfd.descriptors().map(|(id, _)| Source::Bfd(id));
        let interfaces = self.interfaces.iter().enumerate();
        let ospf = interfaces.filter(|(_, interface)| interface.socket.is_some());
        let ospf = ospf.map(|(place, _)| Source::Ospf(InterfaceId(place)));
        bfd.chain(ospf).collect()
    }
}

/// What a successor has of itself.
struct Restored {
    file: DirectorFile,
    keys: Keys,
    wait_for_agent: bool,
    invocation: Invocation,
    descriptors: Descriptors,
}

impl Restored {
    /// The speaker of a snapshot. It has not touched a socket yet.
    fn with(
        self,
        snapshot: Snapshot,
        taken: Instant,
        incoming: &mut Incoming,
    ) -> Result<Speaker, RunError> {
        let Self {
            file,
            keys,
            wait_for_agent,
            invocation,
            descriptors,
        } = self;
        let Descriptors {
            poll,
            timer,
            wall_clock,
            signals,
            upgrade_signals,
            interrupted,
            links,
            mut paths,
        } = descriptors;
        paths.know(snapshot.verdicts.keys().map(|vip| vip.0).collect());
        let Snapshot {
            taken: _,
            origin_pid,
            up,
            listener,
            interfaces,
            router,
            bfd,
            wanted,
            hold_down,
            verdicts,
            kept,
            hello_lateness,
            counters,
        } = snapshot;
        let kept = Kept::restore(&file.director.state_dir, kept);
        let config = config::core(&file, kept.sequence_hint());
        let router = Router::restore(config.clone(), router, taken).map_err(TakeOverError::from)?;
        let names = file.ospf.interface.iter().map(|at| at.name.clone());
        let bfd_configs = file.ospf.interface.iter().map(|at| at.bfd);
        let bfd = Bfd::restore(names.clone().zip(bfd_configs), bfd, taken, incoming)?;
        let interfaces = adopt_interfaces(names, interfaces, incoming)?;
        let listener = incoming.take(listener).map_err(TakeOverError::from)?;
        let control = Control::adopt(listener, poll.registry(), Source::Listener.token())
            .map_err(RunError::io("watch the control socket"))?;
        let overrides = kept.overrides().clone();
        let wanted = Wanted::restore(&file, wait_for_agent, overrides, wanted, taken);
        let clock = Clock::new(Instant::now(), Timestamp::now());
        let hold_down = HoldDown::restore(file.ospf.hold_down, clock, hold_down, taken);
        let mut speaker = Speaker {
            started: taken.checked_sub(up).unwrap_or(taken),
            origin_pid,
            file,
            invocation,
            config,
            poll,
            timer,
            wall_clock,
            signals,
            upgrade_signals,
            interrupted,
            links,
            interfaces,
            router,
            bfd,
            wanted,
            hold_down,
            verdicts,
            kept,
            keys,
            control,
            paths,
            our_paths: OurPaths::default(),
            backlog: BTreeSet::new(),
            buffer: vec![0; MAX_PACKET].into_boxed_slice(),
            hello_lateness,
            counters,
            retry_at: None,
            stop_by: None,
            keeping: None,
            settles: false,
            hurry: false,
            upgrade: None,
            touched: true,
            published: None,
        };
        // The sequence numbers go on; only the keys are this process' own.
        speaker.set_keys()?;
        speaker.watch_packets()?;
        speaker.backlog = speaker.packet_sources();
        Ok(speaker)
    }
}

impl Speaker {
    fn watch_packets(&self) -> Result<(), RunError> {
        let watch = |descriptor, source| {
            watch(&self.poll, descriptor, source).map_err(RunError::io("watch a descriptor"))
        };
        for (id, descriptor) in self.bfd.descriptors() {
            watch(descriptor, Source::Bfd(id))?;
        }
        for (place, interface) in self.interfaces.iter().enumerate() {
            if let Some(socket) = &interface.socket {
                watch(socket.descriptor(), Source::Ospf(InterfaceId(place)))?;
            }
        }
        Ok(())
    }
}

fn adopt_interfaces(
    names: impl Iterator<Item = String>,
    interfaces: Vec<InterfaceSnapshot>,
    incoming: &mut Incoming,
) -> Result<Vec<Interface>, RunError> {
    let adopt = |(name, snapshot): (String, InterfaceSnapshot)| {
        let InterfaceSnapshot { link, socket } = snapshot;
        let descriptor = socket.map(|place| incoming.take(place)).transpose();
        let descriptor = descriptor.map_err(TakeOverError::from)?;
        let socket = descriptor
            .zip(link)
            .map(|(descriptor, link)| OspfSocket::adopt(descriptor, link))
            .transpose()
            .map_err(RunError::io("go on with an OSPF socket"))?;
        Ok(Interface { name, link, socket })
    };
    names.zip(interfaces).map(adopt).collect()
}

/// CLOCK_MONOTONIC, which `Instant` reads, too.
fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// A time of CLOCK_MONOTONIC as an `Instant`, exact but for the moment between the two readings.
fn instant(at: Duration) -> Instant {
    let now = Instant::now();
    let ago = monotonic().saturating_sub(at);
    now.checked_sub(ago).unwrap_or(now)
}
