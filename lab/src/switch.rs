//! The switch: a namespace that routes, with FRR or BIRD as its OSPF.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use isopath_api::config::{AreaType, NetworkType};
use isopath_api::ids::{AreaId, RouterId, Vip};
use serde::Serialize;

use crate::auth::Auth;
use crate::fib;
use crate::netns::Namespace;
use crate::process::Process;
use crate::route_monitor::RouteMonitor;
use crate::topology::Timers;
use crate::wait::{self, Probe};

mod bird;
pub(crate) mod frr;

/// The routing suite that a switch runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SwitchKind {
    /// FRR's zebra, ospfd and bfdd.
    Frr,
    /// BIRD 2.
    Bird,
}

impl fmt::Display for SwitchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frr => "frr",
            Self::Bird => "bird",
        })
    }
}

impl SwitchKind {
    /// The suite's name and version, as the installed program says it.
    ///
    /// # Errors
    /// It is not installed.
    pub fn version(self) -> Result<String> {
        match self {
            Self::Frr => frr::version(),
            Self::Bird => bird::version(),
        }
    }
}

impl FromStr for SwitchKind {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "frr" => Ok(Self::Frr),
            "bird" => Ok(Self::Bird),
            _ => bail!("a switch is \"frr\" or \"bird\", not {text:?}"),
        }
    }
}

/// The area that a switch's ports to the directors are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwitchArea {
    /// Its id. The passive networks are in the backbone, whatever it is.
    pub id: AreaId,
    /// Its type.
    pub kind: AreaType,
}

impl SwitchArea {
    /// The backbone.
    pub const BACKBONE: Self = Self {
        id: AreaId(Ipv4Addr::UNSPECIFIED),
        kind: AreaType::Normal,
    };
}

/// Whether a switch helps a director that restarts gracefully (RFC 3623 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SwitchHelper {
    /// As the suite has it by itself: BIRD helps, FRR does not.
    #[default]
    Stock,
    /// It helps until anything else changes in the area.
    Strict,
    /// It helps whatever else changes, which BIRD cannot.
    Lenient,
}

/// What a switch's OSPF is configured from.
#[derive(Debug, Clone)]
pub(crate) struct SwitchConfig {
    pub(crate) kind: SwitchKind,
    pub(crate) router_id: RouterId,
    /// Interfaces with directors behind them.
    pub(crate) fabric: Vec<String>,
    /// Interfaces whose networks are announced and nothing else.
    pub(crate) passive: Vec<String>,
    pub(crate) network: NetworkType,
    pub(crate) area: SwitchArea,
    pub(crate) helper: SwitchHelper,
    pub(crate) timers: Timers,
    pub(crate) auth: Auth,
    pub(crate) max_paths: u16,
}

/// Where a switch's configuration comes from.
#[derive(Debug)]
enum Source {
    /// It is made.
    Made(SwitchConfig),
    /// It is the text of somebody's file for FRR's ospfd.
    Frr(String),
}

/// A next hop in a switch's FIB.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// The neighbour's address.
    pub gateway: Ipv4Addr,
    /// The switch's interface.
    pub port: String,
}

/// A neighbour as the switch sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchNeighbor {
    /// Its router id.
    pub router_id: RouterId,
    /// The state in the suite's own words, such as `Full/DROther` or `Full/PtP`.
    pub state: String,
}

impl SwitchNeighbor {
    /// Whether the adjacency is Full.
    pub fn is_full(&self) -> bool {
        self.state.starts_with("Full")
    }
}

/// A switch.
#[derive(Debug)]
pub struct Switch {
    namespace: Namespace,
    directory: PathBuf,
    source: Source,
    processes: Vec<Process>,
}

impl Switch {
    pub(crate) fn new(namespace: Namespace, directory: PathBuf, config: SwitchConfig) -> Self {
        Self::from_source(namespace, directory, Source::Made(config))
    }

    /// A switch that runs FRR on this configuration of ospfd, word for word, and without BFD.
    pub(crate) fn with_frr_file(namespace: Namespace, directory: PathBuf, text: String) -> Self {
        Self::from_source(namespace, directory, Source::Frr(text))
    }

    fn from_source(namespace: Namespace, directory: PathBuf, source: Source) -> Self {
        Self {
            namespace,
            directory,
            source,
            processes: Vec::new(),
        }
    }

    pub(crate) fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.processes.iter_mut()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The directory with its configuration and logs.
    pub(crate) fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// Its suite.
    pub fn kind(&self) -> SwitchKind {
        match &self.source {
            Source::Made(config) => config.kind,
            Source::Frr(_) => SwitchKind::Frr,
        }
    }

    /// Starts its suite and waits until that answers.
    ///
    /// # Errors
    /// It is not installed, refuses its configuration, or does not answer in time.
    pub fn start(&mut self) -> Result<()> {
        if !self.processes.is_empty() {
            bail!("the switch runs already");
        }
        let (namespace, directory, kind) = (&self.namespace, &self.directory, self.kind());
        let started = match &self.source {
            Source::Made(config) => match config.kind {
                SwitchKind::Frr => frr::start(namespace, directory, config),
                SwitchKind::Bird => bird::start(namespace, directory, config),
            },
            Source::Frr(text) => frr::start_from_file(namespace, directory, text),
        };
        self.processes = started.with_context(|| format!("starting {kind}"))?;
        wait::until("an answer of the switch", Duration::from_secs(10), || {
            for process in &mut self.processes {
                process.expect_running()?;
            }
            Ok(match neighbors(&self.namespace, &self.directory, kind) {
                Ok(_) => Probe::Ready(()),
                Err(error) => Probe::Waiting(format!("{error:#}")),
            })
        })
    }

    /// Ends its suite by SIGKILL, all programs of it.
    ///
    /// # Errors
    /// A program cannot be signalled.
    pub fn crash(&mut self) -> Result<()> {
        self.processes.drain(..).try_for_each(Process::crash)
    }

    /// Removes the route to the VIP that a killed suite left in the kernel, as a reboot would:
    /// a route that is seen after this is a new one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget_route(&self, vip: Vip) -> Result<()> {
        if self.next_hops(vip)?.is_empty() {
            return Ok(());
        }
        // Flushing fails on a route that uses a next-hop group.
        self.namespace.ip([format!("route delete {vip}/32")])
    }

    /// Stops its suite by SIGTERM, in the order opposite to its start, and starts it again.
    ///
    /// # Errors
    /// It does not stop, or does not start.
    pub fn restart(&mut self) -> Result<()> {
        for process in self.processes.drain(..).rev() {
            process.stop(Duration::from_secs(10))?;
        }
        self.start()
    }

    /// The gateways to the VIP in the FIB of the switch's kernel; none without a route.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn fib(&self, vip: Vip) -> Result<BTreeSet<Ipv4Addr>> {
        let gateways = self.namespace.enter(|| fib::gateways(vip.0))?;
        gateways.with_context(|| format!("reading the routes to {vip}"))
    }

    /// The next hops to the VIP in the FIB of the switch's kernel; none without a route. On
    /// unnumbered links several have one gateway.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn next_hops(&self, vip: Vip) -> Result<BTreeSet<NextHop>> {
        let routes = self
            .namespace
            .ip_json(&["route", "show", &format!("{vip}/32")])?;
        next_hops(&routes).with_context(|| format!("reading the routes to {vip}: {routes}"))
    }

    /// What the suite says to its configuration when it is asked to check it and do no more:
    /// the lines it refuses, or nothing when it takes all of them.
    ///
    /// # Errors
    /// The suite is not installed, or the configuration cannot be written.
    pub fn refusal(&self) -> Result<Option<String>> {
        match &self.source {
            Source::Made(config) => match config.kind {
                SwitchKind::Frr => frr::refusal(&self.directory, config),
                SwitchKind::Bird => bird::refusal(&self.directory, config),
            },
            Source::Frr(text) => frr::refusal_of(&self.directory, text),
        }
    }

    /// Waits until the FIB has exactly these next hops to the VIP.
    ///
    /// # Errors
    /// It has not in time.
    pub fn wait_for_fib(
        &self,
        vip: Vip,
        wanted: &BTreeSet<Ipv4Addr>,
        within: Duration,
    ) -> Result<()> {
        let found = wait::until(
            format_args!("next hops {wanted:?} to {vip} in the FIB"),
            within,
            || {
                let fib = self.fib(vip)?;
                Ok(Probe::when(fib == *wanted, (), || format!("{fib:?}")))
            },
        );
        // Asking costs the suite's own shell, which would slow what is waited for.
        found.with_context(|| match self.neighbors() {
            Ok(neighbors) => format!("the switch's neighbours are {neighbors:?}"),
            Err(error) => format!("the switch does not tell its neighbours: {error:#}"),
        })
    }

    /// Its OSPF neighbours.
    ///
    /// # Errors
    /// The suite does not answer.
    pub fn neighbors(&self) -> Result<Vec<SwitchNeighbor>> {
        neighbors(&self.namespace, &self.directory, self.kind())
    }

    /// Answers a command of the suite's own shell (`vtysh` or `birdc`), such as
    /// `show ip ospf database router`.
    ///
    /// # Errors
    /// The suite does not answer.
    pub fn ask(&self, command: &str) -> Result<String> {
        match self.kind() {
            SwitchKind::Frr => frr::ask(&self.namespace, command),
            SwitchKind::Bird => bird::ask(&self.namespace, &self.directory, command),
        }
    }

    /// Listens to the changes of its FIB.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn monitor(&self) -> Result<RouteMonitor> {
        RouteMonitor::start(&self.namespace)
    }
}

fn neighbors(
    namespace: &Namespace,
    directory: &std::path::Path,
    kind: SwitchKind,
) -> Result<Vec<SwitchNeighbor>> {
    match kind {
        SwitchKind::Frr => frr::neighbors(namespace),
        SwitchKind::Bird => bird::neighbors(namespace, directory),
    }
}

/// The next hops in the JSON of `ip route show`, which has one route or none.
fn next_hops(routes: &serde_json::Value) -> Result<BTreeSet<NextHop>> {
    let mut found = BTreeSet::new();
    for route in routes.as_array().context("not a list")? {
        let several = route["nexthops"].as_array();
        let hops = several.map_or_else(|| std::slice::from_ref(route), Vec::as_slice);
        for hop in hops {
            let gateway = hop["gateway"]
                .as_str()
                .context("a next hop without a gateway")?;
            let port = hop["dev"].as_str().context("a next hop without a device")?;
            found.insert(NextHop {
                gateway: gateway
                    .parse()
                    .with_context(|| format!("the gateway {gateway}"))?,
                port: port.to_owned(),
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hops_are_read_from_a_single_and_from_a_multipath_route() {
        let cases = [
            (r"[]", vec![]),
            (
                r#"[{"dst":"10.99.0.1","gateway":"10.0.1.2","dev":"d1","protocol":"ospf"}]"#,
                vec![("10.0.1.2", "d1")],
            ),
            (
                r#"[{"dst":"10.99.0.1","nhid":22,"nexthops":[
                    {"gateway":"10.9.0.1","dev":"d1","weight":1,"flags":[]},
                    {"gateway":"10.9.0.1","dev":"d2","weight":1,"flags":[]}]}]"#,
                vec![("10.9.0.1", "d1"), ("10.9.0.1", "d2")],
            ),
        ];
        for (text, wanted) in cases {
            let wanted = wanted
                .iter()
                .map(|(gateway, port): &(&str, &str)| NextHop {
                    gateway: gateway.parse().unwrap(),
                    port: (*port).to_owned(),
                })
                .collect();
            assert_eq!(
                next_hops(&serde_json::from_str(text).unwrap()).unwrap(),
                wanted,
                "{text}"
            );
        }
    }
}
