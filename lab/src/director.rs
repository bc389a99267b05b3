//! Directors and their two daemons.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use isopath_api::config::{AreaType, Dataplane, NetworkType, OnExit};
use isopath_api::declare::AnnounceAs;
use isopath_api::ids::{DirectorName, RouterId};
use isopath_api::observed::Observed;
use isopath_api::{agent, speaker};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::binaries;
use crate::netns::Namespace;
use crate::plan::{self, Uplink};
use crate::process::Process;
use crate::switch::SwitchArea;
use crate::topology::{Spec, Timers};
use crate::wait::{self, Probe, scaled};

/// How long a daemon may take to answer on its socket after its start.
const START: Duration = Duration::from_secs(10);

/// Where a director's VIPs and services come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The controller.
    Controller {
        /// The cluster's name.
        cluster: String,
        /// The file with the agent's token.
        token_file: PathBuf,
    },
    /// The director's own file: `[[vip]]` and `[[service]]` tables as TOML.
    File(String),
}

impl Source {
    /// A file that announces [`plan::VIP`] at cost 1 and has no services.
    pub fn vip_only() -> Self {
        Self::vip_as(AnnounceAs::Stub)
    }

    /// The same with the VIP announced by this kind of LSA.
    pub fn vip_as(kind: AnnounceAs) -> Self {
        Self::File(format!(
            "[[vip]]\naddress = \"{}/32\"\nannounce = {{ as = \"{kind}\", cost = 1 }}\n",
            plan::VIP
        ))
    }
}

/// A director.
#[derive(Debug)]
pub struct Director {
    /// Its number, from 1.
    pub number: u8,
    /// Its name: `d` and the number.
    pub name: DirectorName,
    /// Its router id.
    pub router_id: RouterId,
    /// The addresses of its uplink `eth1`.
    pub uplink: Uplink,
    network: NetworkType,
    area: SwitchArea,
    dataplane: Dataplane,
    timers: Timers,
    /// Whether its uplink borrows its address.
    borrows: bool,
    /// The `auth` of its interface.
    auth: Option<String>,
    agent_hold: Duration,
    on_exit: OnExit,
    namespace: Namespace,
    directory: PathBuf,
    speaker: Option<Process>,
    agent: Option<Process>,
}

impl Director {
    pub(crate) fn new(
        number: u8,
        namespace: Namespace,
        directory: PathBuf,
        spec: &Spec,
    ) -> Result<Self> {
        Ok(Self {
            number,
            name: format!("d{number}").parse().context("naming a director")?,
            router_id: plan::router_id(number),
            uplink: plan::uplink(spec.network, number),
            network: spec.network,
            area: spec.area,
            dataplane: spec.dataplane,
            timers: spec.timers,
            borrows: spec.unnumbered && plan::borrows(number),
            auth: spec.auth.write(&directory)?,
            agent_hold: spec.agent_hold,
            on_exit: spec.on_exit,
            namespace,
            directory,
            speaker: None,
            agent: None,
        })
    }

    pub(crate) fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.speaker.iter_mut().chain(&mut self.agent)
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The switch's next hop to it.
    pub fn next_hop(&self) -> Ipv4Addr {
        self.uplink.director
    }

    /// The directory with its file, sockets, state and logs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file that both daemons read.
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("agent.toml")
    }

    /// The agent's socket.
    pub fn agent_socket(&self) -> PathBuf {
        self.directory.join("agent.sock")
    }

    /// The speaker's socket.
    pub fn speaker_socket(&self) -> PathBuf {
        self.directory.join("speaker.sock")
    }

    /// The text of the file that both daemons read, for [`Self::write_config`].
    pub fn config(&self, source: &Source) -> String {
        let directory = self.directory.display();
        let network = match self.network {
            NetworkType::PointToPoint => "point-to-point",
            NetworkType::Broadcast => "broadcast",
        };
        let dataplane = match self.dataplane {
            Dataplane::Ipvs => "ipvs",
            Dataplane::None => "none",
        };
        let on_exit = match self.on_exit {
            OnExit::Withdraw => "withdraw",
            OnExit::Keep => "keep",
        };
        let area_type = match self.area.kind {
            AreaType::Normal => "normal",
            AreaType::Stub => "stub",
            AreaType::Nssa => "nssa",
        };
        let mut text = format!(
            "[director]
name = \"{name}\"
router_id = \"{router_id}\"
state_dir = \"{directory}/state\"
socket = \"{agent}\"
speaker_socket = \"{speaker}\"
agent_hold = \"{hold}ms\"
on_exit = \"{on_exit}\"
metrics = \"{management}:9477\"
dataplane = \"{dataplane}\"

[ospf]
area = \"{area}\"
area_type = \"{area_type}\"
[[ospf.interface]]
name = \"eth1\"
network = \"{network}\"
hello_interval = \"{hello}s\"
dead_interval = \"{dead}s\"
",
            name = self.name,
            router_id = self.router_id,
            agent = self.agent_socket().display(),
            speaker = self.speaker_socket().display(),
            hold = self.agent_hold.as_millis(),
            area = self.area.id,
            management = plan::director_management(self.number),
            hello = self.timers.hello.as_secs(),
            dead = self.timers.dead.as_secs(),
        );
        let mut write = |table: std::fmt::Arguments<'_>| {
            text.write_fmt(table)
                .expect("writing to a string cannot fail");
        };
        if let Some(bfd) = self.timers.bfd {
            let (interval, multiplier) = (bfd.interval.as_millis(), bfd.multiplier);
            write(format_args!(
                "bfd = {{ min_tx = \"{interval}ms\", min_rx = \"{interval}ms\", \
                 multiplier = {multiplier} }}\n"
            ));
        }
        if self.borrows {
            write(format_args!("unnumbered = \"lo\"\n"));
        }
        if let Some(auth) = &self.auth {
            write(format_args!("auth = {auth}\n"));
        }
        match source {
            Source::File(tables) => write(format_args!("\n{tables}")),
            Source::Controller {
                cluster,
                token_file,
            } => write(format_args!(
                "\n[controller]\nurl = \"http://{}\"\ncluster = \"{cluster}\"\n\
                 token_file = \"{}\"\n",
                plan::CONTROLLER,
                token_file.display()
            )),
        }
        text
    }

    /// Writes the file that both daemons read.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_config(&self, text: &str) -> Result<()> {
        let file = self.config_file();
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    }

    /// Starts the speaker and waits until it answers on its socket.
    ///
    /// # Errors
    /// It is not built, ends, or does not answer in time.
    pub fn start_speaker(&mut self) -> Result<()> {
        if self.speaker.is_some() {
            bail!("the speaker of {} runs already", self.name);
        }
        let mut speaker = self.spawn("isopath-speaker", "speaker")?;
        self.await_answer(&mut speaker, || self.speaker_status().map(drop))?;
        self.speaker = Some(speaker);
        Ok(())
    }

    /// Starts the agent and waits until it answers on its socket.
    ///
    /// # Errors
    /// It is not built, ends, or does not answer in time.
    pub fn start_agent(&mut self) -> Result<()> {
        if self.agent.is_some() {
            bail!("the agent of {} runs already", self.name);
        }
        let mut agent = self.spawn("isopath-agent", "agent")?;
        self.await_answer(&mut agent, || self.agent_status().map(drop))?;
        self.agent = Some(agent);
        Ok(())
    }

    fn spawn(&self, program: &str, role: &str) -> Result<Process> {
        let mut command = Command::new(binaries::find(program)?);
        command.arg("run").arg("--config").arg(self.config_file());
        let log = self.directory.join(format!("{role}.log"));
        Process::spawn(
            &self.namespace,
            format!("the {role} of {}", self.name),
            &log,
            &mut command,
        )
    }

    fn await_answer(&self, process: &mut Process, ask: impl Fn() -> Result<()>) -> Result<()> {
        let what = format!("an answer of {}", process.what());
        wait::until(what, START, || {
            process.expect_running()?;
            Ok(match ask() {
                Ok(()) => Probe::Ready(()),
                Err(error) => Probe::Waiting(format!("{error:#}")),
            })
        })
    }

    /// The speaker while it runs.
    ///
    /// # Errors
    /// It was not started, or was ended.
    pub fn speaker(&mut self) -> Result<&mut Process> {
        let speaker = self.speaker.as_mut();
        speaker.with_context(|| format!("the speaker of {} does not run", self.name))
    }

    /// The agent while it runs.
    ///
    /// # Errors
    /// It was not started, or was ended.
    pub fn agent(&mut self) -> Result<&mut Process> {
        let agent = self.agent.as_mut();
        agent.with_context(|| format!("the agent of {} does not run", self.name))
    }

    /// Takes the speaker, to end it in some way.
    ///
    /// # Errors
    /// It was not started, or was ended.
    pub fn take_speaker(&mut self) -> Result<Process> {
        let speaker = self.speaker.take();
        speaker.with_context(|| format!("the speaker of {} does not run", self.name))
    }

    /// Takes the agent, to end it in some way.
    ///
    /// # Errors
    /// It was not started, or was ended.
    pub fn take_agent(&mut self) -> Result<Process> {
        let agent = self.agent.take();
        agent.with_context(|| format!("the agent of {} does not run", self.name))
    }

    /// Asks the speaker.
    ///
    /// # Errors
    /// It does not answer.
    pub fn ask_speaker(&self, request: &speaker::Request) -> Result<speaker::Reply> {
        ask(&self.speaker_socket(), request)
    }

    /// The speaker's status.
    ///
    /// # Errors
    /// It does not answer with one.
    pub fn speaker_status(&self) -> Result<speaker::Status> {
        match self.ask_speaker(&speaker::Request::Status)? {
            speaker::Reply::Status(status) => Ok(*status),
            other => bail!(
                "the speaker of {} answered a status with {other:?}",
                self.name
            ),
        }
    }

    /// Asks the agent.
    ///
    /// # Errors
    /// It does not answer.
    pub fn ask_agent(&self, request: &agent::Request) -> Result<agent::Reply> {
        ask(&self.agent_socket(), request)
    }

    /// What the agent observes.
    ///
    /// # Errors
    /// It does not answer with that.
    pub fn agent_status(&self) -> Result<Observed> {
        match self.ask_agent(&agent::Request::Status)? {
            agent::Reply::Status(observed) => Ok(*observed),
            other => bail!(
                "the agent of {} answered a status with {other:?}",
                self.name
            ),
        }
    }

    /// Connections that its kernel's IPVS has scheduled since the namespace was made, by the
    /// kernel's own account.
    ///
    /// # Errors
    /// The kernel has no IPVS.
    pub fn scheduled(&self) -> Result<u64> {
        // `/proc/net` would be that of the main thread, which is outside.
        // The counts of each processor are the live ones: all others are brought up to date by
        // the kernel's estimator, every 2 s.
        let path = "/proc/thread-self/net/ip_vs_stats_percpu";
        let text = self.namespace.enter(|| fs::read_to_string(path))?;
        let text = text.with_context(|| format!("reading {path} of {}", self.name))?;
        parse_scheduled(&text).with_context(|| format!("no count of connections in {text:?}"))
    }
}

/// The sum of the second column over the lines that start with a processor's number, up to the
/// line of their total, which starts with `~`; all numbers are hexadecimal.
fn parse_scheduled(stats: &str) -> Option<u64> {
    let number = |column: Option<&str>| u64::from_str_radix(column?, 16).ok();
    let mut sum = None;
    for line in stats
        .lines()
        .take_while(|line| !line.trim_start().starts_with('~'))
    {
        let mut columns = line.split_whitespace();
        if number(columns.next()).is_some() {
            sum = Some(sum.unwrap_or(0) + number(columns.next())?);
        }
    }
    sum
}

/// One request and its answer on a daemon's socket: a JSON object a line, both ways.
pub(crate) fn ask<Q: Serialize, A: DeserializeOwned>(socket: &Path, request: &Q) -> Result<A> {
    let ask = || -> Result<A> {
        let mut stream = UnixStream::connect(socket)?;
        let limit = scaled(Duration::from_secs(5));
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        serde_json::from_str(&answer).with_context(|| format!("reading the answer {answer:?}"))
    };
    ask().with_context(|| format!("asking {}", socket.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counts_of_connections_are_added_up() {
        let stats = "       Total Incoming Outgoing         Incoming         Outgoing\n\
            CPU    Conns  Packets  Packets            Bytes            Bytes\n\
            \x20 0       1A       F0        0             3E80                0\n\
            \x20 A        2       10        0              3E8                0\n\
            \x20 ~       10       80        0             2000                0\n\n\
            \x20    Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n\
            \x20          5        6        0                7                0\n";
        assert_eq!(parse_scheduled(stats), Some(28));
        assert_eq!(parse_scheduled("no processors\n"), None);
    }
}
