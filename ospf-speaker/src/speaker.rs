//! The loop that joins sockets, timers and the two cores.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use isopath_api::config::DirectorFile;
use isopath_api::ids::Vip;
use isopath_api::speaker::{Reply, Status};
use isopath_ospf::{AuthenticationError, Config, ConfigError, InterfaceId, LinkState, Router};
use jiff::Timestamp;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use tracing::{debug, error, info, warn};

use crate::bfd::Bfd;
use crate::control::{Control, ControlError};
use crate::counts::Counts;
use crate::hold_down::{Clock, HoldDown};
use crate::kept::Kept;
use crate::keys::Keys;
use crate::late::Lateness;
use crate::link::Links;
use crate::notify::notify;
use crate::ospf_socket::{MAX_PACKET, OspfSocket};
use crate::paths::Paths;
use crate::priority::set_real_time;
use crate::timer::Timer;
use crate::upgrade::{Invocation, TakeOverError, Upgrade, UpgradeError};
use crate::wall_clock::WallClock;
use crate::wanted::{ClientId, Verdict, Wanted};

use descriptors::{Descriptors, drain_signals};
use leaving::Keeping;

mod auth;
mod config;
mod descriptors;
mod handover;
mod interfaces;
mod leaving;
mod packets;
mod paths;
mod requests;
mod views;

/// The whole planned stop takes no longer, whatever the neighbours do.
const STOP_BOUND: Duration = Duration::from_secs(10);

/// Interfaces whose sockets could not be opened are tried again after this.
const RETRY: Duration = Duration::from_secs(1);

/// Events taken from epoll at once; more wait in the kernel.
const EVENTS: usize = 64;

/// Why the speaker cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration is well-formed and cannot be run.
    #[error("cannot run this configuration")]
    Config(#[from] ConfigError),
    /// A key is of no use; [`Keys::load`] finds that out before.
    #[error("cannot authenticate packets")]
    Authentication(#[from] AuthenticationError),
    /// The control socket cannot be served.
    #[error("cannot serve the control socket")]
    Control(#[from] ControlError),
    /// We may not open raw sockets.
    #[error("cannot open an OSPF socket (CAP_NET_RAW is needed)")]
    NoRawSockets(#[source] io::Error),
    /// This process cannot succeed the speaker that started it.
    #[error("cannot take over from the running speaker")]
    TakeOver(#[from] TakeOverError),
    /// The system refused something that nothing works without.
    #[error("cannot {operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl RunError {
    fn io(operation: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }
}

/// What epoll's tokens stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Signals,
    Timer,
    Links,
    Listener,
    Paths,
    WallClock,
    UpgradeSignal,
    Upgrade,
    Bfd(InterfaceId),
    Ospf(InterfaceId),
    Client(ClientId),
}

impl Source {
    /// Interfaces have two tokens each; [`isopath_ospf::MAX_INTERFACES`] keeps them below.
    const FIRST_CLIENT: usize = 1 << 16;
    const FIRST_INTERFACE: usize = 8;

    fn token(self) -> Token {
        Token(match self {
            Self::Signals => 0,
            Self::Timer => 1,
            Self::Links => 2,
            Self::Listener => 3,
            Self::Paths => 4,
            Self::WallClock => 5,
            Self::UpgradeSignal => 6,
            Self::Upgrade => 7,
            Self::Bfd(id) => Self::FIRST_INTERFACE + 2 * id.0,
            Self::Ospf(id) => Self::FIRST_INTERFACE + 2 * id.0 + 1,
            Self::Client(id) => Self::FIRST_CLIENT + id.0,
        })
    }

    fn of(token: Token) -> Self {
        match token.0 {
            0 => Self::Signals,
            1 => Self::Timer,
            2 => Self::Links,
            3 => Self::Listener,
            4 => Self::Paths,
            5 => Self::WallClock,
            6 => Self::UpgradeSignal,
            7 => Self::Upgrade,
            client if client >= Self::FIRST_CLIENT => {
                Self::Client(ClientId(client - Self::FIRST_CLIENT))
            }
            interface => {
                let place = interface - Self::FIRST_INTERFACE;
                let id = InterfaceId(place / 2);
                if place % 2 == 0 {
                    Self::Bfd(id)
                } else {
                    Self::Ospf(id)
                }
            }
        }
    }
}

/// One configured interface.
#[derive(Debug)]
struct Interface {
    name: String,
    /// What the kernel said last, while the sockets are open.
    link: Option<LinkState>,
    socket: Option<OspfSocket>,
}

/// The running speaker.
pub struct Speaker {
    started: Instant,
    /// The process id that it was started with, which an upgrade leaves behind.
    origin_pid: u32,
    file: DirectorFile,
    invocation: Invocation,
    config: Config,
    poll: Poll,
    timer: Timer,
    wall_clock: WallClock,
    signals: UnixStream,
    upgrade_signals: UnixStream,
    /// Whether SIGINT is among the signals.
    interrupted: Arc<AtomicBool>,
    links: Links,
    interfaces: Vec<Interface>,
    router: Router,
    bfd: Bfd,
    wanted: Wanted,
    hold_down: HoldDown,
    /// The verdicts that were last acted on.
    verdicts: BTreeMap<Vip, Verdict>,
    kept: Kept,
    keys: Keys,
    control: Control,
    paths: Paths,
    our_paths: paths::OurPaths,
    /// Sources that may have more for us: epoll tells only once.
    backlog: BTreeSet<Source>,
    buffer: Box<[u8]>,
    hello_lateness: Lateness,
    /// What the shell counts beside the cores.
    counters: Counts,
    retry_at: Option<Instant>,
    stop_by: Option<Instant>,
    /// The exit that keeps the announced set, when it is under way.
    keeping: Option<Keeping>,
    /// Whether there are BFD sessions whose pause must have had its effect.
    settles: bool,
    /// A second signal, or the end of the bound.
    hurry: bool,
    upgrade: Option<Upgrade>,
    /// The database, a neighbour or the wanted set may have changed in this turn.
    touched: bool,
    /// The status that subscribers saw last, without what changes all the time.
    published: Option<Box<Status>>,
}

impl Speaker {
    /// Opens everything and announces what the file alone says.
    ///
    /// # Errors
    /// When another speaker serves the socket, or a right or a resource is missing.
    pub fn start(
        file: DirectorFile,
        keys: Keys,
        wait_for_agent: bool,
        invocation: Invocation,
    ) -> Result<Self, RunError> {
        let now = Instant::now();
        let kept = Kept::load(&file.director.state_dir);
        let config = config::core(&file, kept.sequence_hint());
        let router = Router::new(config.clone(), fastrand::u64(..), now)?;
        let Descriptors {
            poll,
            timer,
            signals,
            upgrade_signals,
            interrupted,
            wall_clock,
            links,
            paths,
        } = Descriptors::open(&file)?;
        let names = file.ospf.interface.iter().map(|at| at.name.clone());
        let socket = &file.director.speaker_socket;
        let control = Control::listen(socket, poll.registry(), Source::Listener.token())?;
        let bfd_configs = file.ospf.interface.iter().map(|at| at.bfd);
        let mut speaker = Self {
            started: now,
            origin_pid: std::process::id(),
            invocation,
            config,
            poll,
            timer,
            wall_clock,
            signals,
            upgrade_signals,
            interrupted,
            links,
            interfaces: names.clone().map(Interface::new).collect(),
            router,
            bfd: Bfd::new(names.zip(bfd_configs)),
            wanted: Wanted::new(&file, wait_for_agent, kept.overrides().clone()),
            hold_down: HoldDown::new(file.ospf.hold_down, Clock::new(now, Timestamp::now())),
            verdicts: BTreeMap::new(),
            kept,
            keys,
            control,
            paths,
            our_paths: paths::OurPaths::default(),
            backlog: BTreeSet::new(),
            buffer: vec![0; MAX_PACKET].into_boxed_slice(),
            hello_lateness: Lateness::default(),
            counters: Counts::default(),
            retry_at: None,
            stop_by: None,
            keeping: None,
            settles: false,
            hurry: false,
            upgrade: None,
            touched: true,
            published: None,
            file,
        };
        if let Err(error) = set_real_time() {
            info!(%error, "running without real-time priority");
        }
        speaker.begin_auth_sequences();
        speaker.set_keys()?;
        speaker.come_back(now);
        speaker.decide(now);
        speaker.refresh_links(now)?;
        info!(
            router_id = %speaker.file.director.router_id,
            socket = %speaker.file.director.speaker_socket.display(),
            "speaker started"
        );
        notify("READY=1\nSTATUS=Speaking");
        Ok(speaker)
    }

    /// Runs until a signal and through the planned stop.
    ///
    /// # Errors
    /// When epoll or the timer fails, which nothing can go on without.
    pub fn run(mut self) -> Result<(), RunError> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.is_over() {
            let ready = self.wait(&mut events)?;
            self.turn(&ready)?;
            if self.hand_over_if_ready() {
                self.control.leave();
                return Ok(());
            }
        }
        if self.keeping != Some(Keeping::Done) {
            self.bfd.stop(Instant::now());
        }
        drop(self.control);
        info!("speaker stopped");
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.hurry
            || self.keeping == Some(Keeping::Done)
            || (self.stop_by.is_some() && self.router.is_stopped())
    }

    /// Sleeps until something is to be done; what may be read then.
    fn wait(&mut self, events: &mut Events) -> Result<BTreeSet<Source>, RunError> {
        let deadlines = [
            self.bfd.poll_timeout(),
            self.router.poll_timeout(),
            self.wanted.poll_timeout(),
            self.hold_down.poll_timeout(),
            self.paths.poll_timeout(),
            self.retry_at,
            self.stop_by,
            self.leaving_due(),
            self.upgrade.as_ref().map(|upgrade| upgrade.deadline),
        ];
        let deadline = deadlines.into_iter().flatten().min();
        self.timer
            .arm(deadline)
            .map_err(RunError::io("set the timer"))?;
        let limit = (!self.backlog.is_empty()).then_some(Duration::ZERO);
        match self.poll.poll(events, limit) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(RunError::io("wait for events")(error)),
        }
        let mut ready = std::mem::take(&mut self.backlog);
        ready.extend(events.iter().map(|event| Source::of(event.token())));
        Ok(ready)
    }

    /// Does all that is due. Packets come before the timers of their protocol: after a stall
    /// both are ready at once, and a peer whose packets wait in our socket is not dead. The
    /// number of packets is bounded, so the timers do not wait for long; clients come last.
    fn turn(&mut self, ready: &BTreeSet<Source>) -> Result<(), RunError> {
        let now = Instant::now();
        let (bfd, others): (Vec<Source>, Vec<Source>) = ready
            .iter()
            .partition(|source| matches!(source, Source::Bfd(_)));
        let (ospf, others): (Vec<Source>, Vec<Source>) = others
            .into_iter()
            .partition(|source| matches!(source, Source::Ospf(_)));
        for source in bfd {
            self.handle_source(now, source)?;
        }
        if self.bfd.poll_timeout().is_some_and(|at| at <= now) {
            self.bfd.handle_timeout(now);
        }
        for source in ospf {
            self.handle_source(now, source)?;
        }
        self.drain_lost(now);
        let due = self.router.poll_timeout().filter(|at| *at <= now);
        if due.is_some() {
            self.router.handle_timeout(now);
            self.drain_router(due);
        }
        self.handle_timers(now)?;
        for source in others {
            self.handle_source(now, source)?;
        }
        for gone in self.control.sweep(self.poll.registry()) {
            self.wanted.closed(gone);
            self.touched = true;
        }
        self.continue_leaving(now);
        self.touched |= self.bfd.take_changed();
        if std::mem::take(&mut self.touched) {
            self.settle(now);
        }
        Ok(())
    }

    /// What follows from whatever happened in this turn.
    fn settle(&mut self, now: Instant) {
        self.decide(now);
        self.follow_neighbors(now);
        if let Some(sequence) = self.router.sequence() {
            self.kept.reserve_above(sequence);
        }
        self.follow_paths(now);
        self.publish(now);
    }

    /// Has the area's paths calculated if that is due.
    fn follow_paths(&mut self, now: Instant) {
        let subscribed = self.control.has_subscribers();
        let version = self.router.area_version();
        if self.paths.is_due(now, version, subscribed) {
            self.paths.calculate(now, self.router.area(now));
        }
    }

    /// Hands the neighbours that BFD has lost to OSPF.
    fn drain_lost(&mut self, now: Instant) {
        while let Some((id, address)) = self.bfd.poll_lost() {
            self.router.handle_neighbor_lost(now, id, address);
            self.drain_router(None);
        }
    }

    /// The shell's own timers.
    fn handle_timers(&mut self, now: Instant) -> Result<(), RunError> {
        if self.wanted.poll_timeout().is_some_and(|at| at <= now) {
            self.wanted.handle_timeout(now);
            warn!("the agent was silent for too long, its VIPs are withdrawn");
            self.touched = true;
        }
        // The end of a hold is looked at when the verdicts are.
        self.touched |= self.hold_down.poll_timeout().is_some_and(|at| at <= now);
        if self.paths.poll_timeout().is_some_and(|at| at <= now) {
            self.follow_paths(now);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.refresh_links(now)?;
        }
        let upgrade = self.upgrade.as_ref();
        if upgrade.is_some_and(|upgrade| upgrade.deadline <= now) {
            self.give_up_upgrade(&UpgradeError::NotReady);
        }
        if self.stop_by.is_some_and(|at| at <= now) {
            warn!("the planned stop took too long, leaving without it");
            self.hurry = true;
        }
        Ok(())
    }

    fn handle_source(&mut self, now: Instant, source: Source) -> Result<(), RunError> {
        match source {
            Source::Timer => self.timer.fired(),
            Source::Signals => self.handle_signal(now),
            Source::WallClock => self.follow_wall_clock(),
            Source::UpgradeSignal => {
                if drain_signals(&mut self.upgrade_signals) > 0
                    && let Err(error) = self.begin_upgrade(now, None, None)
                {
                    self.refuse_upgrade(None, &error);
                }
            }
            Source::Upgrade => self.handle_upgrade(now),
            Source::Links => {
                if self.links.changed() {
                    self.refresh_links(now)?;
                }
            }
            Source::Paths => self.take_paths(now),
            Source::Bfd(id) => {
                if self.bfd.receive(now, id) {
                    self.backlog.insert(source);
                }
            }
            Source::Ospf(id) => {
                if self.receive_ospf(now, id) {
                    self.backlog.insert(source);
                }
            }
            Source::Listener => {
                let token = |id| Source::Client(id).token();
                self.control.accept(self.poll.registry(), token);
            }
            Source::Client(id) => {
                if self.serve(now, id) {
                    self.backlog.insert(source);
                }
            }
        }
        Ok(())
    }

    fn handle_signal(&mut self, now: Instant) {
        if drain_signals(&mut self.signals) == 0 {
            return;
        }
        if self.stop_by.is_some() {
            info!("second signal, leaving at once");
            self.hurry = true;
            return;
        }
        self.give_up_upgrade(&UpgradeError::Stopping);
        let interrupted = self.interrupted.load(Ordering::Relaxed);
        self.leave(now, interrupted);
    }

    /// Makes the announced set what the voices say, and says why each VIP changed.
    fn decide(&mut self, now: Instant) {
        let mut verdicts = self.wanted.verdicts();
        if self.stop_by.is_none() {
            self.hold_down.judge(now, &mut verdicts);
        }
        if verdicts == self.verdicts {
            return;
        }
        for (vip, verdict) in &verdicts {
            if self.verdicts.get(vip) != Some(verdict) {
                log_verdict(*vip, verdict);
            }
        }
        for vip in self.verdicts.keys() {
            if !verdicts.contains_key(vip) {
                info!(%vip, "withdrawn: nobody speaks of it any more");
            }
        }
        self.paths.know(verdicts.keys().map(|vip| vip.0).collect());
        self.verdicts = verdicts;
        if self.stop_by.is_some() && self.keeping.is_none() {
            return;
        }
        let (stubs, externals) = config::hosts(&self.verdicts);
        if let Err(error) = self.router.announce(now, &stubs, &externals) {
            error!(%error, "the announced set stays as it was");
        }
        self.drain_router(None);
    }

    /// Tells the subscribers if anything but the time has changed.
    fn publish(&mut self, now: Instant) {
        if !self.control.has_subscribers() {
            self.published = None;
            return;
        }
        let status = Box::new(self.status(now));
        let timeless = Box::new(views::timeless(&status));
        if self.published.as_ref() == Some(&timeless) {
            return;
        }
        let left_out = self.control.publish(&Reply::Changed(status));
        // Who was left out is told with the next turn that touches anything.
        self.published = (!left_out).then_some(timeless);
    }

    fn count(&mut self, counter: &'static str) {
        self.counters.add(counter);
    }
}

impl Interface {
    fn new(name: String) -> Self {
        Self {
            name,
            link: None,
            socket: None,
        }
    }
}

fn watch(poll: &Poll, descriptor: RawFd, source: Source) -> io::Result<()> {
    let mut descriptor = SourceFd(&descriptor);
    poll.registry()
        .register(&mut descriptor, source.token(), Interest::READABLE)
}

fn log_verdict(vip: Vip, verdict: &Verdict) {
    match verdict {
        Verdict::Announce { how, source } => {
            info!(%vip, kind = %how.kind, cost = how.cost, ?source, "announced");
        }
        Verdict::Withhold(reason) => {
            info!(%vip, reason = reason.code(), "not announced: {reason}");
            debug!(%vip, ?reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stand_for_their_sources_and_do_not_collide() {
        let mut sources = vec![
            Source::Signals,
            Source::Timer,
            Source::Links,
            Source::Listener,
            Source::Paths,
            Source::WallClock,
            Source::UpgradeSignal,
            Source::Upgrade,
            Source::Client(ClientId(0)),
            Source::Client(ClientId(1 << 40)),
        ];
        for place in 0..isopath_ospf::MAX_INTERFACES {
            sources.push(Source::Bfd(InterfaceId(place)));
            sources.push(Source::Ospf(InterfaceId(place)));
        }
        let tokens: BTreeSet<Token> = sources.iter().map(|source| source.token()).collect();
        assert_eq!(tokens.len(), sources.len());
        for source in sources {
            assert_eq!(Source::of(source.token()), source);
        }
    }
}
