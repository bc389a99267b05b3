//! What a cell is tried on: a client behind a switch, and a director with two uplinks to it.
//!
//! ```text
//!  client 10.0.0.2 ---- switch (sw) 10.0.0.1
//!                        up1 |   | up2
//!                       eth1 |   | eth2
//!                      director (d1) 10.99.0.1
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use isopath_api::config::{AreaType, NetworkType};
use isopath_api::declare::AnnounceAs;
use isopath_api::ids::AreaId;
use isopath_api::speaker::{Reply, Request, Status};

use super::{Cell, Network, kind_name};
use crate::binaries;
use crate::director::ask;
use crate::netns::Namespace;
use crate::plan::{self, VIP};
use crate::process::Process;
use crate::registry::Registry;
use crate::switch::{Switch, SwitchArea, SwitchConfig, SwitchHelper, SwitchKind};
use crate::topology::{Timers, bridge, complain, directory, wire_client};
use crate::wait::{self, Probe, scaled};

/// The director's address on both uplinks where they have none of their own.
const UNNUMBERED_DIRECTOR: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 2);

/// Between two looks at a condition: many cells look at the same time, and each look costs a
/// process.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// One of the two uplinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Uplink {
    /// The director's interface.
    pub(super) interface: &'static str,
    /// The switch's end of the wire; on a segment a port of its bridge.
    wire: &'static str,
    /// The interface that the switch has a next hop through.
    pub(super) port: &'static str,
    /// The switch's address.
    switch: Ipv4Addr,
    /// The director's address.
    director: Ipv4Addr,
    /// The length of the network they share.
    prefix_len: u8,
}

impl Uplink {
    /// Whether it has no address at all, as the second of two unnumbered ones: the first has the
    /// loopback interface's, too.
    fn borrows(&self, network: Network) -> bool {
        network == Network::Unnumbered && self.interface == "eth2"
    }
}

/// The uplinks of a director on such networks.
pub(super) fn uplinks(network: Network) -> [Uplink; 2] {
    let ends = |third, switch, director| {
        let end = |last| Ipv4Addr::new(10, 0, third, last);
        (end(switch), end(director))
    };
    let unnumbered = (plan::UNNUMBERED_SWITCH, UNNUMBERED_DIRECTOR);
    let wires = ["up1", "up2"];
    let (ports, addresses, prefix_lens) = match network {
        Network::PointToPoint => (wires, [ends(1, 1, 2), ends(2, 0, 1)], [24, 31]),
        Network::Broadcast => (["seg1", "seg2"], [ends(1, 1, 2), ends(2, 1, 2)], [24, 24]),
        Network::Unnumbered => (wires, [unnumbered; 2], [32, 32]),
    };
    [0, 1].map(|n: usize| Uplink {
        interface: ["eth1", "eth2"][n],
        wire: wires[n],
        port: ports[n],
        switch: addresses[n].0,
        director: addresses[n].1,
        prefix_len: prefix_lens[n],
    })
}

/// A cell's namespaces and programs; all of it goes when it is dropped.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) cell: Cell,
    pub(super) timers: Timers,
    pub(super) switch: Switch,
    pub(super) director: Namespace,
    client: Namespace,
    /// Takes the client's connections to the VIP; nobody reads them.
    listener: TcpListener,
    directory: PathBuf,
    speaker: Option<Process>,
    registry: Arc<Registry>,
}

impl Rig {
    /// Makes the namespaces and wires; no program runs yet.
    pub(super) fn new(name: &str, cell: Cell) -> Result<Self> {
        let registry = Registry::open(name)?;
        Self::wire(cell, &registry).inspect_err(|_| complain(registry.clean()))
    }

    fn wire(cell: Cell, registry: &Arc<Registry>) -> Result<Self> {
        let timers = Timers {
            bfd: Timers::default().bfd.filter(|_| cell.bfd),
            ..Timers::default()
        };
        let uplinks = uplinks(cell.network);
        let switch = Namespace::create(registry, "sw")?;
        for (name, value) in [
            ("net/ipv4/ip_forward", "1"),
            // Ports count too, so that the client's connections take both uplinks.
            ("net/ipv4/fib_multipath_hash_policy", "1"),
        ] {
            switch.sysctl(name, value)?;
        }
        let client = wire_client(registry, &switch).context("wiring the client")?;
        let director = Namespace::create(registry, "d1")?;
        // A reply does not take an uplink that has lost its carrier.
        let skip = "net/ipv4/conf/default/ignore_routes_with_linkdown";
        director.sysctl(skip, "1")?;
        for uplink in &uplinks {
            wire_uplink(cell, uplink, &switch, &director)
                .with_context(|| format!("wiring {}", uplink.interface))?;
        }
        let hops = uplinks.map(|uplink| {
            format!(
                " nexthop via {} dev {} onlink",
                uplink.switch, uplink.interface
            )
        });
        if cell.network == Network::Unnumbered {
            director.ip([format!("address add {UNNUMBERED_DIRECTOR}/32 dev lo")])?;
        }
        director.ip([
            format!("address add {VIP}/32 dev lo"),
            format!("route add default{}", hops.concat()),
        ])?;
        let listener = director
            .enter(|| TcpListener::bind((VIP.0, 80)))?
            .context("listening at the VIP")?;
        listener
            .set_nonblocking(true)
            .context("listening at the VIP")?;
        let config = switch_config(cell, timers, &uplinks);
        Ok(Self {
            cell,
            timers,
            switch: Switch::new(switch, directory(registry, "switch")?, config),
            director,
            client,
            listener,
            directory: directory(registry, "d1")?,
            speaker: None,
            registry: registry.clone(),
        })
    }

    /// The directory with the logs of its programs.
    pub(super) fn directory(&self) -> PathBuf {
        self.registry.directory()
    }

    /// Starts the switch's suite.
    pub(super) fn start_switch(&mut self) -> Result<()> {
        self.switch.start()?;
        self.switch
            .processes()
            .try_for_each(|process| process.prioritize())
    }

    /// Starts the speaker.
    pub(super) fn start_speaker(&mut self) -> Result<()> {
        let file = self.directory.join("agent.toml");
        fs::write(&file, self.config()?).with_context(|| format!("writing {}", file.display()))?;
        let mut command = Command::new(binaries::find("isopath-speaker")?);
        command.arg("run").arg("--config").arg(&file);
        let log = self.directory.join("speaker.log");
        let mut speaker = Process::spawn(&self.director, "the speaker", &log, &mut command)?;
        wait::until_every(
            PAUSE,
            "an answer of the speaker",
            Duration::from_secs(10),
            || {
                speaker.expect_running()?;
                Ok(match self.status() {
                    Ok(_) => Probe::Ready(()),
                    Err(error) => Probe::Waiting(format!("{error:#}")),
                })
            },
        )?;
        self.speaker = Some(speaker);
        Ok(())
    }

    /// Kills the speaker.
    pub(super) fn crash_speaker(&mut self) -> Result<()> {
        let speaker = self.speaker.take();
        speaker.context("the speaker does not run")?.crash()
    }

    fn config(&self) -> Result<String> {
        let cell = self.cell;
        let directory = self.directory.display();
        let area = area(cell);
        let area_type = match area.kind {
            AreaType::Normal => "normal",
            AreaType::Stub => "stub",
            AreaType::Nssa => "nssa",
        };
        let mut text = format!(
            "[director]
name = \"d1\"
router_id = \"{router_id}\"
state_dir = \"{directory}/state\"
socket = \"{directory}/agent.sock\"
speaker_socket = \"{directory}/speaker.sock\"
dataplane = \"none\"

[[vip]]
address = \"{VIP}/32\"
announce = {{ as = \"{kind}\", cost = 1 }}

[ospf]
area = \"{area_id}\"
area_type = \"{area_type}\"
",
            router_id = plan::router_id(1),
            kind = kind_name(cell.kind),
            area_id = area.id,
        );
        for uplink in uplinks(cell.network) {
            text.push_str(&self.interface(uplink)?);
        }
        Ok(text)
    }

    /// The table of an uplink.
    fn interface(&self, uplink: Uplink) -> Result<String> {
        let network = match self.cell.network {
            Network::PointToPoint | Network::Unnumbered => "point-to-point",
            Network::Broadcast => "broadcast",
        };
        let mut text = format!(
            "
[[ospf.interface]]
name = \"{}\"
network = \"{network}\"
hello_interval = \"{}s\"
dead_interval = \"{}s\"
",
            uplink.interface,
            self.timers.hello.as_secs(),
            self.timers.dead.as_secs(),
        );
        if uplink.borrows(self.cell.network) {
            text.push_str("unnumbered = \"lo\"\n");
        }
        if let Some(bfd) = self.timers.bfd {
            let (interval, multiplier) = (bfd.interval.as_millis(), bfd.multiplier);
            text.push_str(&format!(
                "bfd = {{ min_tx = \"{interval}ms\", min_rx = \"{interval}ms\", \
                 multiplier = {multiplier} }}\n"
            ));
        }
        if let Some(auth) = self.cell.auth.keys().write(&self.directory)? {
            text.push_str(&format!("auth = {auth}\n"));
        }
        Ok(text)
    }

    /// The speaker's status.
    pub(super) fn status(&self) -> Result<Status> {
        match self.ask(&Request::Status)? {
            Reply::Status(status) => Ok(*status),
            other => bail!("the speaker answered a status with {other:?}"),
        }
    }

    /// Asks the speaker.
    pub(super) fn ask(&self, request: &Request) -> Result<Reply> {
        ask(&self.directory.join("speaker.sock"), request)
    }

    /// Waits until the switch's next hops to the VIP are through ports that `right` takes.
    pub(super) fn await_ports(
        &self,
        what: &str,
        within: Duration,
        right: impl Fn(&BTreeSet<String>) -> bool,
    ) -> Result<()> {
        wait::until_every(
            PAUSE,
            format_args!("{what} in the switch's FIB"),
            within,
            || {
                let hops = self.switch.next_hops(VIP)?;
                let ports: BTreeSet<String> = hops.into_iter().map(|hop| hop.port).collect();
                Ok(Probe::when(right(&ports), (), || {
                    let announced = self
                        .status()
                        .map(|status| (status.neighbors, status.announced));
                    format!("{ports:?} in the FIB; the speaker: {announced:?}")
                }))
            },
        )
    }

    /// Waits until `right` takes the speaker's status.
    pub(super) fn await_status(
        &self,
        what: &str,
        within: Duration,
        right: impl Fn(&Status) -> bool,
    ) -> Result<()> {
        wait::until_every(PAUSE, what, within, || {
            let status = self.status()?;
            Ok(Probe::when(right(&status), (), || {
                format!("{:?}, {:?}", status.neighbors, status.announced)
            }))
        })
    }

    /// Connects from the client to the VIP, often enough to take each of two uplinks.
    pub(super) fn reach(&self) -> Result<()> {
        let vip = SocketAddr::from((VIP.0, 80));
        for _ in 0..8 {
            let limit = scaled(Duration::from_secs(2));
            self.client
                .enter(|| TcpStream::connect_timeout(&vip, limit))?
                .with_context(|| format!("connecting from the client to {vip}"))?;
            self.listener
                .accept()
                .context("the connection did not come to the director")?;
        }
        Ok(())
    }

    /// Takes the link of an uplink, at the end that `end` names, or gives it back.
    pub(super) fn set_link(&self, uplink: &Uplink, end: End, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        match end {
            End::Director => {
                let line = format!("link set {} {state}", uplink.interface);
                self.director.ip([line])
            }
            End::Switch => {
                let line = format!("link set {} {state}", uplink.wire);
                self.switch.namespace().ip([line])
            }
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        complain(self.registry.clean());
    }
}

/// Type 7 LSAs are of an area other than the backbone.
fn area(cell: Cell) -> SwitchArea {
    match cell.kind {
        AnnounceAs::Stub | AnnounceAs::External1 | AnnounceAs::External2 => SwitchArea::BACKBONE,
        AnnounceAs::Nssa => SwitchArea {
            id: AreaId(Ipv4Addr::new(0, 0, 0, 1)),
            kind: AreaType::Nssa,
        },
    }
}

fn switch_config(cell: Cell, timers: Timers, uplinks: &[Uplink]) -> SwitchConfig {
    SwitchConfig {
        kind: cell.peer,
        router_id: plan::SWITCH_ROUTER_ID,
        fabric: uplinks
            .iter()
            .map(|uplink| uplink.port.to_owned())
            .collect(),
        passive: vec!["client".to_owned()],
        helper: SwitchHelper::Stock,
        network: match cell.network {
            Network::PointToPoint | Network::Unnumbered => NetworkType::PointToPoint,
            Network::Broadcast => NetworkType::Broadcast,
        },
        area: area(cell),
        auth: cell.auth.keys(),
        timers,
        max_paths: 8,
    }
}

fn wire_uplink(
    cell: Cell,
    uplink: &Uplink,
    switch: &Namespace,
    director: &Namespace,
) -> Result<()> {
    let Uplink {
        interface,
        wire,
        port,
        prefix_len,
        ..
    } = uplink;
    director.ip([format!(
        "link add {interface} type veth peer name {wire} netns {}",
        switch.name()
    )])?;
    if !uplink.borrows(cell.network) {
        let address = uplink.director;
        director.ip([format!(
            "address add {address}/{prefix_len} dev {interface}"
        )])?;
    }
    director.ip([format!("link set {interface} up")])?;
    let address = match (cell.network, cell.peer) {
        (Network::PointToPoint, _) | (Network::Unnumbered, SwitchKind::Frr) => {
            format!("address add {}/{prefix_len} dev {port}", uplink.switch)
        }
        // An address without a subnet or a peer is a loopback's to BIRD.
        (Network::Unnumbered, SwitchKind::Bird) => format!(
            "address add {} peer {}/32 dev {port}",
            uplink.switch, uplink.director
        ),
        (Network::Broadcast, _) => {
            switch.ip(bridge(port, uplink.switch))?;
            format!("link set {wire} master {port}")
        }
    };
    switch.ip([address, format!("link set {wire} up")])
}

/// An end of a link. The other end loses its carrier when this one goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The director's interface.
    Director,
    /// The switch's port.
    Switch,
}
