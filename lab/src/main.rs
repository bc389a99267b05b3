//! The command `isopath-lab`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use isopath_api::config::Dataplane;
use isopath_lab::fetch::Load;
use isopath_lab::switch::SwitchKind;
use isopath_lab::topology::Spec;
use isopath_lab::vm::{self, Unavailable, VmSpec};
use isopath_lab::{bench, http, interop, measure, registry, report, up};

/// Clusters in network namespaces.
#[derive(Debug, Parser)]
#[command(name = "isopath-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring a cluster up and keep it until Ctrl-C.
    Up(Up),
    /// End a lab and remove what it left, also after a crash.
    Down {
        /// The lab.
        #[arg(long, default_value = NAME)]
        name: String,
    },
    /// Send requests, each on a connection of its own, and print what became of them as JSON.
    Fetch {
        /// How many.
        #[arg(long, default_value_t = 300)]
        count: usize,
        /// How many at the same time.
        #[arg(long, default_value_t = 8)]
        at_once: usize,
        /// `http://ADDRESS[:PORT]/PATH`.
        url: String,
    },
    /// Run a command as root in a virtual machine whose kernel has IPVS.
    Vm {
        /// A directory that the command may write to; all else that it writes is lost.
        #[arg(long)]
        writable: Vec<PathBuf>,
        /// The command and its arguments.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Compare with others, and with what must be reached.
    #[command(subcommand)]
    Bench(Bench),
    /// The speaker against every peer, in every form that both have.
    Interop(Interop),
    /// Measure a cluster without IPVS.
    #[command(subcommand)]
    Measure(Measure),
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// How fast a VIP moves with isopath-speaker, FRR and BIRD as the directors' speaker.
    Speaker(bench::Options),
    /// How fast services reach the kernel beside ipvsadm and keepalived, and which connections
    /// outlive a director.
    Dataplane(bench::dataplane::Options),
    /// What the controller does for a thousand agents, and how soon they hear of a change.
    Controller(bench::controller::Options),
}

#[derive(Debug, Subcommand)]
enum Measure {
    /// The time from a drain call to the switch's FIB, and the memory of the daemons.
    Drain {
        #[command(flatten)]
        cluster: Cluster,
        /// How many drains.
        #[arg(long, default_value_t = 10)]
        count: usize,
    },
    /// The next hops that a switch takes.
    Width {
        #[command(flatten)]
        cluster: Cluster,
    },
}

/// The name of the lab that `up` makes when it is not told one.
const NAME: &str = "lab";

/// The exit status of `vm` where no virtual machine can be had, for scripts that skip then.
const NO_MACHINE: u8 = 77;

#[derive(Debug, Args)]
struct Interop {
    /// Only the cells whose name has this part, such as `bird/broadcast` or `/nssa/`.
    #[arg(long)]
    only: Option<String>,
    /// How many cells at the same time; they mostly wait.
    #[arg(long, default_value_t = 8)]
    jobs: usize,
    /// A file to write the table into, between its markers.
    #[arg(long, conflicts_with = "only")]
    markdown: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Cluster {
    /// The switch's suite: frr or bird.
    #[arg(long, env = "SWITCH", default_value = "frr")]
    switch: SwitchKind,
    /// How many directors.
    #[arg(long, env = "DIRECTORS", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=8))]
    directors: u8,
    /// How many real servers.
    #[arg(long, env = "REAL_SERVERS", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=64))]
    real_servers: u8,
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    cluster: Cluster,
    /// The lab's name, to have several on one machine.
    #[arg(long, default_value = NAME)]
    name: String,
    /// Where the dashboard answers.
    #[arg(long, env = "LISTEN", default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080))]
    listen: SocketAddr,
    /// Run on this kernel, never in a virtual machine.
    #[arg(long)]
    direct: bool,
    /// This is the inside of a virtual machine whose host leads this URL to the dashboard.
    #[arg(long, hide = true)]
    guest_of: Option<String>,
    /// Do without IPVS: routes, checks and drains, and no traffic.
    #[arg(long)]
    no_ipvs: bool,
}

impl Cluster {
    fn spec(&self, name: &str) -> Spec {
        Spec {
            directors: self.directors,
            real_servers: self.real_servers,
            switch: self.switch,
            ..Spec::new(name)
        }
    }
}

impl Up {
    fn options(self) -> up::Options {
        let dataplane = if self.no_ipvs {
            Dataplane::None
        } else {
            Dataplane::Ipvs
        };
        up::Options {
            spec: Spec {
                dataplane,
                ..self.cluster.spec(&self.name)
            },
            listen: self.listen,
            guest: self.guest_of.is_some(),
            url: self
                .guest_of
                .unwrap_or_else(|| format!("http://{}", self.listen)),
            direct: self.direct,
        }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("isopath-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(arguments) => return up::up(arguments.options()).map(ExitCode::from),
        Command::Down { name } => {
            let found = registry::take_down(&name)?;
            report::down(&name, found, &registry::clean_dead()?);
        }
        Command::Fetch {
            count,
            at_once,
            url,
        } => {
            let (address, path) = http::parse_url(&url)?;
            report::json(
                &Load {
                    path,
                    at_once,
                    ..Load::new(address)
                }
                .send(count),
            )?;
        }
        Command::Interop(Interop {
            only,
            jobs,
            markdown,
        }) => return interop::command(only.as_deref(), jobs, markdown.as_deref()),
        Command::Vm { writable, command } => return in_machine(writable, command),
        Command::Bench(Bench::Speaker(options)) => {
            return Ok(reached(bench::speaker(&options)?));
        }
        Command::Bench(Bench::Dataplane(options)) => {
            return Ok(reached(bench::dataplane::dataplane(&options)?));
        }
        Command::Bench(Bench::Controller(options)) => {
            return Ok(reached(bench::controller::controller(&options)?));
        }
        Command::Measure(Measure::Drain { cluster, count }) => {
            report::drains(&measure::drain(cluster.spec("measure"), count)?);
        }
        Command::Measure(Measure::Width { cluster }) => {
            report::width(&measure::width(cluster.spec("measure"))?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The exit status of a benchmark.
fn reached(all: bool) -> ExitCode {
    if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn in_machine(writable: Vec<PathBuf>, command: Vec<String>) -> Result<ExitCode> {
    let spec = VmSpec {
        command,
        writable,
        ..VmSpec::default()
    };
    match vm::run(&spec, &mut |step| report::say(step)) {
        Err(error) if error.is::<Unavailable>() => {
            eprintln!("isopath-lab: {error:#}");
            Ok(ExitCode::from(NO_MACHINE))
        }
        other => other.map(ExitCode::from),
    }
}
