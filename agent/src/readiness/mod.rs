//! The gate before a VIP's first announcement: what the data plane cannot see from inside.
//!
//! Modules, sysctls and the VIPs' own interface are the data plane's, which reports them. Here it
//! is looked whether the uplinks and the real servers' interfaces carry packets, whether a
//! tunnel's packets fit, and whether another host answers for a VIP in ARP. `findings.rs` (pure)
//! makes a [`Reason`](isopath_api::reason::Reason) of each; a task of its own looks, so that
//! nothing waits for an answer that nobody gives.
//!
//! A VIP passes once. What is found later is shown and withdraws nothing: each director sees the
//! same neighbours, so one real server that answers in ARP would withdraw the VIP everywhere.

mod arp;
mod findings;
mod interfaces;
mod mtu;
mod paths;
mod prober;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use isopath_api::ids::Vip;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::causes;
use crate::dataplane::Wanted;
use crate::kernel::NumberedWanted;

pub use findings::{Findings, Notice, Place};

use findings::Seen;
use interfaces::Interfaces;
use prober::{Asked, Manner};

/// How often the interfaces are read.
const TICK: Duration = Duration::from_secs(1);

/// How often it is asked again for every VIP, and the routes are read again, without any change.
const AGAIN: Duration = Duration::from_secs(30);

/// How often it is asked again for VIPs that somebody answered for.
const RETRY: Duration = Duration::from_secs(5);

/// How long the kernel may take to say its routes.
const PATHS_TIMEOUT: Duration = Duration::from_secs(5);

/// What the gate found for a wanted state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GateReport {
    /// The number of the wanted state.
    pub number: u64,
    /// What was found.
    pub findings: Findings,
}

/// The gate. Its sockets are of the network namespace of the thread that runs it.
pub struct Gate {
    place: Place,
    /// Whether it is asked in ARP.
    asks: bool,
    seen: Seen,
    /// VIPs that are being asked for.
    under_way: BTreeSet<Vip>,
    rounds: JoinSet<Asked>,
    /// Whether an interface has changed since it was last asked for every VIP.
    moved: bool,
    /// When it was last asked for every VIP, and for those that were answered for.
    all_asked: Instant,
    suspects_asked: Instant,
    /// What the paths were last read for, and when.
    paths_read: Option<(BTreeSet<Ipv4Addr>, Instant)>,
}

impl Gate {
    /// A gate that has seen nothing yet. Where it does not ask in ARP, nobody else has a VIP.
    pub fn new(place: Place, asks: bool) -> Self {
        Self {
            place,
            asks,
            seen: Seen::default(),
            under_way: BTreeSet::new(),
            rounds: JoinSet::new(),
            moved: false,
            all_asked: Instant::now(),
            suspects_asked: Instant::now(),
            paths_read: None,
        }
    }

    /// Looks whenever something else is wanted, an answer has come, and each second, until nobody
    /// wants anything any more.
    pub async fn run(
        mut self,
        mut wanted: watch::Receiver<Option<Arc<NumberedWanted>>>,
        reports: watch::Sender<Arc<GateReport>>,
    ) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Every arm is cancel-safe: `changed` marks a value as seen only when it completes, a
            // tick that is not taken stays, and so does a round that has ended.
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                _ = tick.tick() => {}
                Some(round) = self.rounds.join_next() => self.take(round),
            }
            let Some(next) = wanted.borrow_and_update().clone() else {
                continue;
            };
            self.look(&next.wanted).await;
            let report = GateReport {
                number: next.number,
                findings: findings::findings(&self.place, &self.seen, &next.wanted),
            };
            reports.send_if_modified(|last| {
                let news = **last != report;
                if news {
                    *last = Arc::new(report);
                }
                news
            });
        }
    }

    async fn look(&mut self, wanted: &Wanted) {
        self.seen.blind.clear();
        let moved = self.read_interfaces();
        self.moved |= moved;
        self.read_paths(wanted, moved).await;
        self.ask(wanted);
    }

    /// Reads the interfaces; answers whether another host may answer in another place now.
    fn read_interfaces(&mut self) -> bool {
        match Interfaces::read() {
            Ok(interfaces) => {
                let vip_interface = &self.place.vip_interface;
                let before = self.seen.interfaces.to_ask(vip_interface);
                let moved = before != interfaces.to_ask(vip_interface);
                self.seen.interfaces = interfaces;
                moved
            }
            Err(error) => {
                let what = format!("cannot read the interfaces: {error}");
                self.seen.blind.insert(what);
                false
            }
        }
    }

    async fn read_paths(&mut self, wanted: &Wanted, moved: bool) {
        let ends = findings::tunnel_ends(wanted);
        let fresh = self
            .paths_read
            .as_ref()
            .is_some_and(|(read, at)| *read == ends && at.elapsed() < AGAIN);
        if fresh && !moved {
            return;
        }
        match timeout(PATHS_TIMEOUT, paths::paths(&ends)).await {
            Ok(Ok(paths)) => {
                self.seen.paths = paths;
                self.paths_read = Some((ends, Instant::now()));
            }
            Ok(Err(error)) => {
                self.seen.blind.insert(causes(&error));
            }
            Err(_) => {
                let what = format!("the kernel did not say its routes within {PATHS_TIMEOUT:?}");
                self.seen.blind.insert(what);
            }
        }
    }

    /// Asks for what has not been asked for, and for all where an interface has changed or it is
    /// time to.
    fn ask(&mut self, wanted: &Wanted) {
        self.seen.asked.retain(|vip, _| wanted.vips.contains(vip));
        if !self.asks {
            let unanswered = wanted.vips.iter().map(|vip| (*vip, None));
            self.seen.asked.extend(unanswered);
            return;
        }
        let asked = &self.seen.asked;
        let new = wanted.vips.iter().filter(|vip| !asked.contains_key(vip));
        self.start(new.copied().collect(), Manner::FIRST);
        // What is being asked for may have been asked before the change.
        let moved = self.moved && self.under_way.is_empty();
        if moved || self.all_asked.elapsed() >= AGAIN {
            self.moved = false;
            self.all_asked = Instant::now();
            self.start(wanted.vips.clone(), Manner::AGAIN);
        }
        if self.suspects_asked.elapsed() >= RETRY {
            self.suspects_asked = Instant::now();
            let suspects = self
                .seen
                .asked
                .iter()
                .filter(|(_, answer)| answer.is_some());
            self.start(suspects.map(|(vip, _)| *vip).collect(), Manner::FIRST);
        }
    }

    /// Starts to ask for those that are not being asked for.
    fn start(&mut self, mut vips: BTreeSet<Vip>, manner: Manner) {
        vips.retain(|vip| self.under_way.insert(*vip));
        if vips.is_empty() {
            return;
        }
        let interfaces = self.seen.interfaces.clone();
        let vip_interface = self.place.vip_interface.clone();
        self.rounds
            .spawn(async move { prober::ask(&interfaces, &vip_interface, vips, manner).await });
    }

    fn take(&mut self, round: Result<Asked, tokio::task::JoinError>) {
        let mut asked = match round {
            Ok(asked) => asked,
            Err(error) => {
                // A round that panicked is asked again from the start.
                tracing::error!(%error, "asking in ARP ended");
                self.under_way.clear();
                return;
            }
        };
        for vip in asked.vips {
            self.under_way.remove(&vip);
            self.seen.asked.insert(vip, asked.answers.remove(&vip));
        }
        // An interface that has gone meanwhile is no news here.
        let to_ask = self.seen.interfaces.to_ask(&self.place.vip_interface);
        let unasked = asked.unasked.into_iter();
        self.seen.unasked = unasked
            .filter(|(name, _)| to_ask.iter().any(|(there, _)| there == name))
            .map(|(name, error)| (name, error.to_string()))
            .collect();
    }
}
