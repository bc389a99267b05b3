//! A lab's namespaces and the wires between them.
//!
//! ```text
//!              client 10.0.0.2
//!                 |
//!  ctl        switch (sw) 10.0.0.1 ---- fabric: 10.0.N.0/24 each, or one segment
//!   |             |                          |            |
//!   |     servers 10.1.0.1              director d1 ... director dN
//!   |             |---- lan ----------- 10.1.0.101 ...    |
//!   |         rs1 ... rsM                    |            |
//!   +---- management 10.254.0.0/24 ----------+------------+
//! ```

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use isopath_api::config::{Dataplane, NetworkType, OnExit};

use crate::auth::Auth;
use crate::controller::Controller;
use crate::director::Director;
use crate::netns::Namespace;
use crate::plan::{self, Uplink};
use crate::process::Process;
use crate::real_server::RealServer;
use crate::registry::Registry;
use crate::report;
use crate::switch::{Switch, SwitchArea, SwitchConfig, SwitchHelper, SwitchKind};
use crate::wait::{scaled, slowness};

/// OSPF's and BFD's times, the same on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// HelloInterval, whole seconds.
    pub hello: Duration,
    /// RouterDeadInterval, whole seconds.
    pub dead: Duration,
    /// BFD; none when absent.
    pub bfd: Option<BfdTimers>,
}

/// BFD's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BfdTimers {
    /// The interval between packets, both ways.
    pub interval: Duration,
    /// Packets missed until the other side counts as gone.
    pub multiplier: u8,
}

impl Default for Timers {
    /// Hellos each second, and a BFD that does not take a busy machine for a dead neighbour.
    fn default() -> Self {
        let (dead, interval) = if slowness() > 1.0 {
            (20, 1000)
        } else {
            (4, 300)
        };
        Self {
            hello: Duration::from_secs(1),
            dead: Duration::from_secs(dead),
            bfd: Some(BfdTimers {
                interval: Duration::from_millis(interval),
                multiplier: 3,
            }),
        }
    }
}

/// What a lab consists of.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name, unique on the machine: at most 24 letters, digits and hyphens.
    pub name: String,
    /// How many directors (0 to 64).
    pub directors: u8,
    /// How many real servers (0 to 64).
    pub real_servers: u8,
    /// The switch's suite.
    pub switch: SwitchKind,
    /// How directors and switch are joined.
    pub network: NetworkType,
    /// Whether point-to-point uplinks have no subnet: one address of the switch's on all of
    /// them, and one of each director's own.
    pub unnumbered: bool,
    /// The area of the uplinks.
    pub area: SwitchArea,
    /// What the agents program.
    pub dataplane: Dataplane,
    /// OSPF's and BFD's times.
    pub timers: Timers,
    /// How directors and switch authenticate their packets.
    pub auth: Auth,
    /// The switch's limit of equal-cost paths.
    pub max_paths: u16,
    /// How long a speaker keeps its set without its agent.
    pub agent_hold: Duration,
    /// What a speaker that gets SIGTERM does.
    pub on_exit: OnExit,
    /// Whether the switch helps it.
    pub helper: SwitchHelper,
}

impl Spec {
    /// A lab of four directors on an FRR switch, point-to-point, with three real servers and
    /// no IPVS.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            directors: 4,
            real_servers: 3,
            switch: SwitchKind::Frr,
            network: NetworkType::PointToPoint,
            unnumbered: false,
            area: SwitchArea::BACKBONE,
            dataplane: Dataplane::None,
            timers: Timers::default(),
            auth: Auth::None,
            max_paths: 8,
            agent_hold: scaled(Duration::from_secs(10)),
            on_exit: OnExit::Withdraw,
            helper: SwitchHelper::Stock,
        }
    }

    /// The same for the test called `name`, under a name of the process's own. Where labs cannot
    /// be made, nothing, after a line that says so on standard output, which the test harness
    /// does not capture.
    pub fn for_test(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            report::say(format_args!(
                "SKIPPED: {name}: network namespaces need root"
            ));
            return None;
        }
        Some(Self::new(format!("{name}-{}", std::process::id())))
    }

    fn check(&self) -> Result<()> {
        if self.unnumbered && self.network != NetworkType::PointToPoint {
            bail!("only point-to-point uplinks can be unnumbered");
        }
        let name = self.name.as_bytes();
        let fits = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-';
        // FRR takes the namespace's name into its sockets' paths, which have 108 bytes.
        if name.is_empty() || name.len() > 24 || !name.iter().all(fits) {
            bail!(
                "a lab's name is 1 to 24 letters, digits and hyphens, not {:?}",
                self.name
            );
        }
        for (what, count) in [
            ("directors", self.directors),
            ("real servers", self.real_servers),
        ] {
            if count > plan::MOST {
                bail!("a lab has at most {} {what}, not {count}", plan::MOST);
            }
        }
        Ok(())
    }
}

/// A lab; everything of it goes when it is dropped.
#[derive(Debug)]
pub struct Lab {
    /// What it consists of.
    pub spec: Spec,
    /// The controller, with no program running yet.
    pub controller: Controller,
    /// The directors, in order, with no program running yet.
    pub directors: Vec<Director>,
    /// The real servers, in order, with no program running yet.
    pub real_servers: Vec<RealServer>,
    /// The switch, with no program running yet.
    pub switch: Switch,
    /// The client.
    pub client: Namespace,
    registry: Arc<Registry>,
}

impl Lab {
    /// Makes the namespaces and wires of a lab; no program runs in it yet.
    ///
    /// # Errors
    /// The process is not root, a lab of the name runs, or the kernel lacks something.
    pub fn new(spec: Spec) -> Result<Self> {
        spec.check()?;
        let registry = Registry::open(&spec.name)?;
        Self::wire(spec, &registry).inspect_err(|_| complain(registry.clean()))
    }

    fn wire(spec: Spec, registry: &Arc<Registry>) -> Result<Self> {
        let switch = wire_switch(registry, &spec).context("wiring the switch")?;
        let client = wire_client(registry, &switch).context("wiring the client")?;
        let management = wire_management(registry).context("wiring the controller")?;
        let mut directors = Vec::new();
        for n in 1..=spec.directors {
            let namespace = wire_director(registry, &spec, &switch, &management, n)
                .with_context(|| format!("wiring director {n}"))?;
            let directory = directory(registry, &format!("d{n}"))?;
            directors.push(Director::new(n, namespace, directory, &spec)?);
        }
        let mut real_servers = Vec::new();
        for n in 1..=spec.real_servers {
            let namespace = wire_real_server(registry, &switch, n)
                .with_context(|| format!("wiring real server {n}"))?;
            let directory = directory(registry, &format!("rs{n}"))?;
            real_servers.push(RealServer::new(n, namespace, directory));
        }
        let config = switch_config(&spec);
        let switch = Switch::new(switch, directory(registry, "switch")?, config);
        let controller = Controller::new(management, directory(registry, "controller")?);
        let registry = registry.clone();
        Ok(Self {
            spec,
            controller,
            directors,
            real_servers,
            switch,
            client,
            registry,
        })
    }

    /// Makes a lab for a piece of work; when that fails, the ends of all logs are printed
    /// before the lab goes.
    ///
    /// # Errors
    /// The lab cannot be made, or the work failed.
    pub fn with<T>(spec: Spec, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let mut lab = Self::new(spec)?;
        let result = work(&mut lab);
        if result.is_err() {
            print_logs(&lab.directory());
        }
        result
    }

    /// The lab's directory, with the logs of its programs.
    pub fn directory(&self) -> PathBuf {
        self.registry.directory()
    }

    /// Every program that was started and not ended by the lab.
    pub fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let Self {
            controller,
            directors,
            real_servers,
            switch,
            ..
        } = self;
        let directors = directors.iter_mut().flat_map(Director::processes);
        let servers = real_servers.iter_mut().flat_map(RealServer::processes);
        switch
            .processes()
            .chain(servers)
            .chain(controller.processes())
            .chain(directors)
    }

    /// Programs that have ended by themselves: their process ids, what they were, and how they
    /// ended. Those that a signal's cleaning up ends are not among them: this waits for it.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn ended(&mut self) -> Result<Vec<(u32, String)>> {
        let registry = self.registry.clone();
        registry.while_locked(|| {
            let mut ended = Vec::new();
            for process in self.processes() {
                if let Some(status) = process.exit_status()? {
                    ended.push((
                        process.pid(),
                        format!("{} ended with {status}", process.what()),
                    ));
                }
            }
            Ok(ended)
        })
    }

    /// The switch's next hops when exactly these directors announce, counted from 1.
    pub fn next_hops(&self, directors: impl IntoIterator<Item = u8>) -> BTreeSet<Ipv4Addr> {
        let hop = |n| plan::uplink(self.spec.network, n).director;
        directors.into_iter().map(hop).collect()
    }

    /// The switch's next hops when all directors announce.
    pub fn all_next_hops(&self) -> BTreeSet<Ipv4Addr> {
        self.next_hops(1..=self.spec.directors)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_logs(&self.directory());
        }
        complain(self.registry.clean());
    }
}

pub(crate) fn complain(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("isopath-lab: cleaning up: {error:#}");
    }
}

/// The ends of all logs, for a test that failed and whose lab is about to go.
pub(crate) fn print_logs(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            print_logs(&path);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "log" || extension == "out")
        {
            eprintln!(
                "--- {}\n{}",
                path.display(),
                crate::process::tail(&path, 40)
            );
        }
    }
}

pub(crate) fn directory(registry: &Registry, name: &str) -> Result<PathBuf> {
    let path = registry.directory().join(name);
    std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(path)
}

/// The switch's interface to director `n` on a network of its own.
fn fabric_port(n: u8) -> String {
    format!("d{n}")
}

fn switch_config(spec: &Spec) -> SwitchConfig {
    let fabric = match spec.network {
        NetworkType::PointToPoint => (1..=spec.directors).map(fabric_port).collect(),
        NetworkType::Broadcast => vec!["fabric".to_owned()],
    };
    SwitchConfig {
        kind: spec.switch,
        router_id: plan::SWITCH_ROUTER_ID,
        fabric,
        passive: vec!["client".to_owned(), "servers".to_owned()],
        network: spec.network,
        area: spec.area,
        helper: spec.helper,
        timers: spec.timers,
        auth: spec.auth.clone(),
        max_paths: spec.max_paths,
    }
}

/// A bridge that forwards from the first moment on.
pub(crate) fn bridge(name: &str, address: Ipv4Addr) -> [String; 3] {
    [
        format!("link add {name} type bridge stp_state 0 forward_delay 0"),
        format!("address add {address}/24 dev {name}"),
        format!("link set {name} up"),
    ]
}

fn wire_switch(registry: &Arc<Registry>, spec: &Spec) -> Result<Namespace> {
    let switch = Namespace::create(registry, "sw")?;
    for (name, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        // Ports count too, so that one client's connections spread over all next hops.
        ("net/ipv4/fib_multipath_hash_policy", "1"),
    ] {
        switch.sysctl(name, value)?;
    }
    switch.ip(bridge("servers", plan::SERVER_GATEWAY))?;
    if spec.network == NetworkType::Broadcast {
        switch.ip(bridge("fabric", plan::uplink(spec.network, 1).switch))?;
    }
    Ok(switch)
}

pub(crate) fn wire_client(registry: &Arc<Registry>, switch: &Namespace) -> Result<Namespace> {
    let client = Namespace::create(registry, "client")?;
    client.ip([
        format!(
            "link add eth0 type veth peer name client netns {}",
            switch.name()
        ),
        format!("address add {}/24 dev eth0", plan::CLIENT),
        "link set eth0 up".to_owned(),
    ])?;
    switch.ip([
        format!("address add {}/24 dev client", plan::CLIENT_GATEWAY),
        "link set client up".to_owned(),
    ])?;
    client.ip([format!("route add default via {}", plan::CLIENT_GATEWAY)])?;
    Ok(client)
}

fn wire_management(registry: &Arc<Registry>) -> Result<Namespace> {
    let controller = Namespace::create(registry, "ctl")?;
    controller.ip(bridge("mgmt", *plan::CONTROLLER.ip()))?;
    Ok(controller)
}

fn wire_director(
    registry: &Arc<Registry>,
    spec: &Spec,
    switch: &Namespace,
    management: &Namespace,
    n: u8,
) -> Result<Namespace> {
    let director = Namespace::create(registry, &format!("d{n}"))?;
    for name in [
        "net/ipv4/conf/all/rp_filter",
        "net/ipv4/conf/default/rp_filter",
    ] {
        director.sysctl(name, "0")?;
    }
    let port = fabric_port(n);
    director.ip([
        format!(
            "link add eth1 type veth peer name {port} netns {}",
            switch.name()
        ),
        format!(
            "link add lan type veth peer name lan-d{n} netns {}",
            switch.name()
        ),
        format!(
            "link add mgmt type veth peer name d{n} netns {}",
            management.name()
        ),
        format!("address add {}/24 dev lan", plan::director_lan(n)),
        format!("address add {}/24 dev mgmt", plan::director_management(n)),
    ])?;
    let [ours, theirs, route] = uplink_commands(spec, n);
    switch.ip([
        theirs,
        format!("link set {port} up"),
        format!("link set lan-d{n} master servers"),
        format!("link set lan-d{n} up"),
    ])?;
    management.ip([
        format!("link set d{n} master mgmt"),
        format!("link set d{n} up"),
    ])?;
    director.ip([
        ours,
        "link set eth1 up".to_owned(),
        "link set lan up".to_owned(),
        "link set mgmt up".to_owned(),
        route,
    ])?;
    Ok(director)
}

/// Gives an uplink its addresses: the director's command, the switch's, and the director's route.
fn uplink_commands(spec: &Spec, n: u8) -> [String; 3] {
    let Uplink { switch, director } = plan::uplink(spec.network, n);
    let port = fabric_port(n);
    if !spec.unnumbered {
        return [
            format!("address add {director}/24 dev eth1"),
            match spec.network {
                NetworkType::PointToPoint => format!("address add {switch}/24 dev {port}"),
                NetworkType::Broadcast => format!("link set {port} master fabric"),
            },
            format!("route add default via {switch}"),
        ];
    }
    let switch = plan::UNNUMBERED_SWITCH;
    let interface = if plan::borrows(n) { "lo" } else { "eth1" };
    [
        format!("address add {director}/32 dev {interface}"),
        format!("address add {switch}/32 dev {port}"),
        format!("route add default via {switch} dev eth1 onlink src {director}"),
    ]
}

fn wire_real_server(registry: &Arc<Registry>, switch: &Namespace, n: u8) -> Result<Namespace> {
    let server = Namespace::create(registry, &format!("rs{n}"))?;
    // The VIP is an address of every real server; none may answer ARP for it or use it as a
    // source in ARP (direct routing).
    for (name, value) in [
        ("net/ipv4/conf/all/arp_ignore", "1"),
        ("net/ipv4/conf/all/arp_announce", "2"),
        ("net/ipv4/conf/all/rp_filter", "0"),
    ] {
        server.sysctl(name, value)?;
    }
    server.ip([
        format!("address add {}/32 dev lo", plan::VIP),
        format!(
            "link add eth0 type veth peer name lan-rs{n} netns {}",
            switch.name()
        ),
        format!("address add {}/24 dev eth0", plan::real_server(n)),
        "link set eth0 up".to_owned(),
    ])?;
    switch.ip([
        format!("link set lan-rs{n} master servers"),
        format!("link set lan-rs{n} up"),
    ])?;
    server.ip([format!("route add default via {}", plan::SERVER_GATEWAY)])?;
    Ok(server)
}
