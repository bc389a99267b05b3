//! The command line.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand};
use isopath_api::ids::{ClusterName, DirectorName, Vip};

/// Runs a cluster of LVS directors.
#[derive(Debug, Parser)]
#[command(name = "isopath", version, about, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Print JSON with raw units instead of tables.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Whom the command talks to: the controller unless a socket is named.
#[derive(Debug, ClapArgs)]
pub(crate) struct Target {
    /// The controller's base URL.
    #[arg(
        long,
        env = "ISOPATH_URL",
        default_value = "http://127.0.0.1:8080",
        global = true
    )]
    pub(crate) url: String,
    /// The cluster; may be left out where the controller has just one.
    #[arg(long, env = "ISOPATH_CLUSTER", global = true)]
    pub(crate) cluster: Option<ClusterName>,
    /// Talk to the agent behind this socket instead of the controller.
    #[arg(long, value_name = "SOCKET", global = true, conflicts_with = "speaker")]
    pub(crate) agent: Option<PathBuf>,
    /// Talk straight to the speaker behind this socket.
    #[arg(long, value_name = "SOCKET", global = true)]
    pub(crate) speaker: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What is wrong, then the state of everything.
    Status {
        /// Exit with 8 when anything is not as it should be.
        #[arg(long)]
        exit_status: bool,
    },
    /// The OSPF neighbours and their BFD sessions.
    Neighbors,
    /// The link-state database of one director (wants --agent or --speaker).
    Lsdb,
    /// How each router of the area reaches the VIPs: over how many equal-cost next hops,
    /// through which directors (wants --agent or --speaker).
    Paths {
        /// Only this host.
        host: Option<Ipv4Addr>,
    },
    /// Announce a VIP from one director whatever its health (wants --agent or --speaker).
    Announce {
        vip: Vip,
        /// The metric to announce it at.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
        cost: u16,
        /// Why, for those who see it later.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Withdraw a VIP from one director whatever its health (wants --agent or --speaker).
    Withdraw {
        vip: Vip,
        /// Why, for those who see it later.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Undo `announce` or `withdraw`: the director decides again (wants --agent or --speaker).
    Clear { vip: Vip },
    /// Give a speaker's place to a new process, by which nothing moves (wants --speaker).
    Upgrade {
        /// The program to start (only root may name one); else the one that runs, as it is on
        /// the disk now.
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
    },
    /// Declare a cluster from a file.
    Apply {
        file: PathBuf,
        /// Check it and show what would change, without changing it.
        #[arg(long)]
        dry_run: bool,
        /// Why, for the revision's record.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Show how a file differs from what is declared.
    Diff { file: PathBuf },
    /// Take a director out of service: its VIPs are withdrawn and its traffic leaves.
    Drain {
        director: DirectorName,
        #[command(flatten)]
        change: DirectorChange,
        /// A guard to pass over, such as last_announcer; wants --reason.
        #[arg(long = "override-guard", value_name = "GUARD")]
        override_guards: Vec<String>,
    },
    /// Put a drained director back into service.
    Undrain {
        director: DirectorName,
        #[command(flatten)]
        change: DirectorChange,
    },
    /// What happened, oldest first.
    Events {
        /// Go on with each new event as it happens.
        #[arg(long)]
        follow: bool,
        /// How many to show at first (1 to 200).
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
        limit: u16,
    },
}

/// The options of drain and undrain.
#[derive(Debug, ClapArgs)]
pub(crate) struct DirectorChange {
    /// Why, for those who see it later.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    /// Wait until it is done. Ctrl-C stops the waiting, not the change.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait at most.
    #[arg(long, default_value = "15m", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}
