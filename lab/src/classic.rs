//! The network of the classic LVS deployment, where the files under `deploy/examples/` are
//! brought up as they are.
//!
//! ```text
//!   client 10.0.0.2
//!      |
//!   switch 192.168.101.1 (FRR, deploy/examples/switch/frr.conf)
//!      |
//!   ---+--------+--------+--------+-----  LAN 192.168.101.0/24
//!      |        |        |        |
//!   directors  .8 .9     |        |
//!          real servers .3 .4     |
//!                  applications .5 .6
//! ```
//!
//! Of an example's file the lab changes the paths of sockets and state, because all hosts share
//! this machine's file system, and on an emulated processor the times after which something that
//! was merely not reached in time counts as dead.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use isopath_api::agent;
use isopath_api::ids::Vip;
use isopath_api::observed::Observed;

use crate::binaries;
use crate::director::ask;
use crate::http;
use crate::netns::Namespace;
use crate::process::Process;
use crate::registry::Registry;
use crate::report::say;
use crate::switch::Switch;
use crate::topology::{bridge, complain, directory, print_logs, wire_client};
use crate::wait::{self, Probe, slowness};

/// The switch's address on the LAN, which is its hosts' default gateway.
pub const SWITCH: Ipv4Addr = lan(1);

/// How long a program may take from its start to its first answer.
const START: Duration = Duration::from_secs(15);

/// How long a VIP that is announced may be unreachable.
const REACHABLE: Duration = Duration::from_secs(10);

/// The address of host `n` on the LAN.
pub const fn lan(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 101, n)
}

/// The path of an example's file, such as `nat/director.toml`.
pub fn example(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples")).join(name)
}

/// The path and the text of an example's file.
pub(crate) fn read_example(name: &str) -> Result<(String, String)> {
    let path = example(name).display().to_string();
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    Ok((path, text))
}

/// The network; everything of it goes when it is dropped.
#[derive(Debug)]
pub struct Classic {
    /// The switch between the LAN and the client.
    pub switch: Switch,
    /// The client.
    pub client: Namespace,
    registry: Arc<Registry>,
}

impl Classic {
    /// Makes the network for a piece of work; when that fails, the ends of all logs are printed
    /// before it goes. Only the switch and the client are there; no program runs yet.
    ///
    /// # Errors
    /// The network cannot be made, or the work failed.
    pub fn with<T>(name: &str, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let registry = Registry::open(name)?;
        let mut classic = Self::wire(&registry).inspect_err(|_| complain(registry.clean()))?;
        let result = work(&mut classic);
        if result.is_err() {
            print_logs(&registry.directory());
        }
        result
    }

    fn wire(registry: &Arc<Registry>) -> Result<Self> {
        let switch = Namespace::create(registry, "sw").context("making the switch")?;
        for (name, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
        ] {
            switch.sysctl(name, value)?;
        }
        switch.ip(bridge("lan", SWITCH))?;
        let client = wire_client(registry, &switch).context("wiring the client")?;
        let directory = directory(registry, "switch")?;
        let (_, config) = read_example("switch/frr.conf")?;
        Ok(Self {
            switch: Switch::with_frr_file(switch, directory, slowed(&config)),
            client,
            registry: registry.clone(),
        })
    }

    /// Makes host `n` of the LAN.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn host(&self, name: &str, n: u8) -> Result<Host> {
        let namespace = Namespace::create(&self.registry, name)?;
        let host = Host {
            name: name.to_owned(),
            address: lan(n),
            directory: directory(&self.registry, name)?,
            namespace,
        };
        let switch = self.switch.namespace();
        host.namespace.ip([
            format!(
                "link add eth0 type veth peer name {name} netns {}",
                switch.name()
            ),
            format!("address add {}/24 dev eth0", host.address),
        ])?;
        switch.ip([
            format!("link set {name} master lan"),
            format!("link set {name} up"),
        ])?;
        host.connect()?;
        Ok(host)
    }

    /// The bodies of the answers to `count` requests of the client, one after the other, each on
    /// a connection of its own.
    ///
    /// This is about who answers. In the emulated machine the network has said about once in
    /// twenty runs that the VIP was unreachable, for a moment after it was announced again and had
    /// answered: that is told with what the switch had just then, and asked again.
    ///
    /// # Errors
    /// One is not answered with 200, or is unreachable for long.
    pub fn ask(&self, vip: Vip, count: usize) -> Result<Vec<String>> {
        (0..count)
            .map(|n| {
                let what = format!("the answer to request {} of {count}", n + 1);
                let answer = wait::until(&what, REACHABLE, || self.try_ask(vip));
                let answer = answer.with_context(|| what.clone())?;
                ensure!(answer.status == 200, "{vip} answered with {answer:?}");
                Ok(answer.body.trim().to_owned())
            })
            .collect()
    }

    fn try_ask(&self, vip: Vip) -> Result<Probe<http::Answer>> {
        let address = SocketAddr::from((vip.0, 80));
        let error = match self.client.enter(|| http::get(address, "/"))? {
            Ok(answer) => return Ok(Probe::Ready(answer)),
            Err(error) => error,
        };
        let cause = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if cause != Some(io::ErrorKind::HostUnreachable) {
            return Err(error);
        }
        let switch = self.switch.namespace();
        let vip = vip.to_string();
        let route = switch.ip_json(&["route", "get", &vip])?;
        let neighbours = switch.ip_json(&["neighbour", "show", "dev", "lan"])?;
        say(format_args!(
            "{vip} was unreachable; the switch has {route} and {neighbours}"
        ));
        Ok(Probe::Waiting(format!("{error:#}")))
    }

    /// Waits until the switch has exactly these hosts for next hops to the VIP.
    ///
    /// # Errors
    /// It has not in time.
    pub fn wait_for_next_hops(&self, vip: Vip, hosts: &[&Host], within: Duration) -> Result<()> {
        let wanted: BTreeSet<Ipv4Addr> = hosts.iter().map(|host| host.address).collect();
        self.switch.wait_for_fib(vip, &wanted, within)
    }
}

impl Drop for Classic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_logs(&self.registry.directory());
        }
        complain(self.registry.clean());
    }
}

/// A configuration as it is, except on an emulated processor: there everybody gets more time
/// before a missing Hello or a late answer counts as a failure, because it is none.
fn slowed(text: &str) -> String {
    if slowness() <= 1.0 {
        return text.to_owned();
    }
    let times = [
        ("ip ospf dead-interval 4", "ip ospf dead-interval 8"),
        ("dead_interval = \"4s\"", "dead_interval = \"8s\""),
        (
            "interval = \"1s\", timeout = \"1s\"",
            "interval = \"2s\", timeout = \"2s\"",
        ),
    ];
    times
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// A host of the LAN.
#[derive(Debug)]
pub struct Host {
    name: String,
    address: Ipv4Addr,
    namespace: Namespace,
    directory: PathBuf,
}

impl Host {
    /// Its name, which its programs see as the machine's host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The directory of its files and logs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Puts its cable in.
    fn connect(&self) -> Result<()> {
        self.namespace.ip([
            "link set eth0 up".to_owned(),
            format!("route add default via {SWITCH}"),
        ])
    }

    /// Has packets to other networks leave through another host of the LAN, or the switch.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_gateway(&self, gateway: Ipv4Addr) -> Result<()> {
        self.namespace
            .ip([format!("route replace default via {gateway}")])
    }

    /// Writes an example's file among the host's own, with sockets and state in its directory.
    ///
    /// # Errors
    /// The example cannot be read, or the file not written.
    pub fn install(&self, example: &str) -> Result<PathBuf> {
        let name = Path::new(example).file_name();
        let path = self
            .directory
            .join(name.with_context(|| format!("{example:?} names no file"))?);
        let (_, text) = read_example(example)?;
        let text = with_paths(&slowed(&text), &self.directory);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Starts a program that sees the host's name as the machine's.
    fn spawn(&self, what: String, log: &str, program: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = Command::new("unshare");
        command
            .args(["--uts", "sh", "-c"])
            .arg(r#"echo "$0" >/proc/sys/kernel/hostname && exec "$@""#)
            .args([self.name.as_str(), program])
            .args(arguments);
        let log = self.directory.join(log);
        Process::spawn(&self.namespace, what, &log, &mut command)
    }

    /// Waits for an answer of the host's own web server.
    fn await_answer(&self, process: &mut Process, port: u16, path: &str) -> Result<()> {
        let address = SocketAddrV4::new(self.address, port).into();
        let what = format!("an answer of {}", process.what());
        wait::until(what, START, || {
            process.expect_running()?;
            let answer = self.namespace.enter(|| http::get(address, path))?;
            Ok(match answer {
                Ok(answer) => Probe::when(answer.status == 200, (), || format!("{answer:?}")),
                Err(error) => Probe::Waiting(format!("{error:#}")),
            })
        })
    }

    /// Starts nginx with an example's file as the one of its site, and waits until it answers.
    ///
    /// # Errors
    /// It is not installed, or does not answer in time.
    pub fn start_nginx(&self, site: &str) -> Result<Process> {
        let site = self.install(site)?;
        let file = self.directory.join("nginx.conf");
        fs::write(&file, nginx_conf(&self.directory, &site))
            .with_context(|| format!("writing {}", file.display()))?;
        let (directory, file) = (text(&self.directory)?, text(&file)?);
        let log = format!("{directory}/error.log");
        let arguments = ["-p", directory, "-c", file, "-e", &log];
        let what = format!("nginx of {}", self.name);
        let mut nginx = self.spawn(what, "nginx.log", "nginx", &arguments)?;
        self.await_answer(&mut nginx, 80, "/healthz")?;
        Ok(nginx)
    }

    /// Starts an example's application server and waits until it answers.
    ///
    /// # Errors
    /// Python is not installed, or it does not answer in time.
    pub fn start_application(&self, program: &str) -> Result<Process> {
        let program = example(program);
        let what = format!("the application of {}", self.name);
        let mut python = self.spawn(what, "application.log", "python3", &[text(&program)?])?;
        self.await_answer(&mut python, 8080, "/")?;
        Ok(python)
    }

    /// The addresses that nginx was asked from, checks not counted, without repetition.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn clients(&self) -> Result<BTreeSet<String>> {
        let path = self.directory.join("access.log");
        let text = fs::read_to_string(&path);
        let text = text.with_context(|| format!("reading {}", path.display()))?;
        let client = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        Ok(text.lines().map(client).collect())
    }

    /// Asks the LAN who has the VIP: the Ethernet address of whoever answers.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn arp(&self, vip: Vip) -> Result<Option<String>> {
        let vip = vip.0.to_string();
        self.namespace.ip([format!("neigh flush to {vip}")])?;
        let sent = self.namespace.enter(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            // The port of the discard service: what arrives means nothing to anybody.
            socket.send_to(b"", (vip.as_str(), 9))
        })?;
        sent.with_context(|| format!("sending to {vip}"))?;
        wait::until(format_args!("an end of asking for {vip}"), START, || {
            let neighbors = self.namespace.ip_json(&["neigh", "show", "to", &vip])?;
            Ok(match arp_result(&neighbors) {
                Some(answer) => Probe::Ready(answer),
                None => Probe::Waiting(neighbors.to_string()),
            })
        })
    }

    /// Runs `isopath-agent real-server VERB` with an example's file.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn real_server(&self, verb: &str, example: &str) -> Result<std::process::Output> {
        let file = self.install(example)?;
        let mut command = Command::new(binaries::find("isopath-agent")?);
        command.args(["real-server", verb, "--config"]).arg(file);
        self.namespace
            .enter(|| command.output())?
            .with_context(|| format!("starting {command:?}"))
    }
}

/// The Ethernet address of a neighbour that has answered, or nothing where the kernel has given up.
fn arp_result(neighbors: &serde_json::Value) -> Option<Option<String>> {
    let entry = neighbors.as_array()?.first()?;
    if let Some(mac) = entry["lladdr"].as_str() {
        return Some(Some(mac.to_owned()));
    }
    let failed = entry["state"].as_array()?.iter().any(|it| it == "FAILED");
    failed.then_some(None)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}

/// The file with the sockets and the state of its host in `directory`.
fn with_paths(file: &str, directory: &Path) -> String {
    let directory = directory.display();
    let state = format!("state_dir = \"{directory}/state\"\n");
    let sockets = format!(
        "socket = \"{directory}/agent.sock\"\nspeaker_socket = \"{directory}/speaker.sock\"\n"
    );
    file.replacen("[director]\n", &format!("[director]\n{state}{sockets}"), 1)
        .replacen("[real_server]\n", &format!("[real_server]\n{state}"), 1)
}

/// What Debian's own nginx.conf does, for one process in the host's directory.
fn nginx_conf(directory: &Path, site: &Path) -> String {
    let (directory, site) = (directory.display(), site.display());
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        temporary.push_str(&format!("  {kind}_temp_path {directory}/temp;\n"));
    }
    format!(
        "daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log {directory}/access.log;
{temporary}  include {site};
}}
"
    )
}

/// A director that runs from an example's file.
#[derive(Debug)]
pub struct LanDirector {
    /// The host.
    pub host: Host,
    agent: Option<Process>,
}

impl LanDirector {
    /// A director on a host. It does not run yet.
    pub fn new(host: Host) -> Self {
        Self { host, agent: None }
    }

    /// Starts the agent with an example's file, which starts the speaker, and waits until it
    /// answers.
    ///
    /// # Errors
    /// It is not built, ends, or does not answer in time.
    pub fn start(&mut self, example: &str) -> Result<()> {
        if self.agent.is_some() {
            bail!("the agent of {} runs already", self.host.name);
        }
        let mut command = Command::new(binaries::find("isopath-agent")?);
        command
            .args(["run", "--config"])
            .arg(self.host.install(example)?);
        let log = self.host.directory.join("agent.log");
        let what = format!("the agent of {}", self.host.name);
        let mut agent = Process::spawn(&self.host.namespace, &what, &log, &mut command)?;
        wait::until(format_args!("an answer of {what}"), START, || {
            agent.expect_running()?;
            Ok(match self.status() {
                Ok(_) => Probe::Ready(()),
                Err(error) => Probe::Waiting(format!("{error:#}")),
            })
        })?;
        self.agent = Some(agent);
        Ok(())
    }

    /// Ends both daemons by SIGKILL, the agent first.
    ///
    /// # Errors
    /// They do not run, or cannot be signalled.
    pub fn crash(&mut self) -> Result<()> {
        self.take_agent()?.crash()?;
        self.host.namespace.kill_all()
    }

    /// Takes the power away: both daemons end at once, and nothing leaves the host any more.
    /// What its kernel had stays there, which a real host would lose.
    ///
    /// # Errors
    /// They do not run, or the kernel refuses.
    pub fn power_off(&mut self) -> Result<()> {
        self.host.namespace.ip(["link set eth0 down"])?;
        self.crash()
    }

    /// Gives the power back; the daemons are to be started again.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn power_on(&self) -> Result<()> {
        self.host.connect()
    }

    /// Stops it in order: the agent withdraws everything, and with it ends the speaker.
    ///
    /// # Errors
    /// It does not run, or does not stop in time.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.take_agent()?.stop(Duration::from_secs(20))?;
        ensure!(
            status.success(),
            "the agent of {} ended with {status}",
            self.host.name
        );
        Ok(())
    }

    fn take_agent(&mut self) -> Result<Process> {
        let agent = self.agent.take();
        agent.with_context(|| format!("the agent of {} does not run", self.host.name))
    }

    /// What the agent observes.
    ///
    /// # Errors
    /// It does not answer with that.
    pub fn status(&self) -> Result<Observed> {
        let socket = self.host.directory.join("agent.sock");
        match ask(&socket, &agent::Request::Status)? {
            agent::Reply::Status(observed) => Ok(*observed),
            other => bail!("{} answered a status with {other:?}", self.host.name),
        }
    }

    /// Waits until its kernel's IPVS has these weights for the real servers, of every service.
    ///
    /// # Errors
    /// It has not in time.
    pub fn wait_for_weights(&self, wanted: &[(Ipv4Addr, u32)], within: Duration) -> Result<()> {
        let name = &self.host.name;
        wait::until(
            format_args!("the weights {wanted:?} in the kernel of {name}"),
            within,
            || {
                let services = self.status()?.services;
                let servers = services.iter().flat_map(|service| &service.real_servers);
                let weights: Vec<(Ipv4Addr, Option<u32>)> = servers
                    .map(|server| (*server.real_server.0.ip(), server.effective_weight))
                    .collect();
                let holds = wanted.iter().all(|(address, weight)| {
                    let mut of = weights.iter().filter(|(it, _)| it == address).peekable();
                    of.peek().is_some() && of.all(|(_, it)| *it == Some(*weight))
                });
                Ok(Probe::when(holds, (), || format!("{weights:?}")))
            },
        )
    }
}
