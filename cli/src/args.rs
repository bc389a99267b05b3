//! The command line.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use isopath_api::access::{Role, TokenRole};
use isopath_api::ids::{ClusterName, DirectorName, ServiceId, Vip};

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
    /// The authority that vouches for the controller, in PEM, beside those of the system.
    #[arg(long, env = "ISOPATH_CA_FILE", value_name = "FILE", global = true)]
    pub(crate) ca_file: Option<PathBuf>,
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
        /// The revision that the file was made from: it is refused where another is in force.
        #[arg(long, value_name = "NUMBER")]
        revision: Option<u64>,
    },
    /// Show how a file differs from what is declared.
    Diff { file: PathBuf },
    /// Take a director, real servers or a VIP out of service, step by step.
    Drain {
        #[command(flatten)]
        target: DrainTarget,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        options: DrainOptions,
    },
    /// Put a drained director, real servers or VIP back into service.
    Undrain {
        #[command(flatten)]
        target: DrainTarget,
        #[command(flatten)]
        change: Change,
    },
    /// Drains and undrains, under way and ended.
    Operation {
        #[command(subcommand)]
        verb: OperationVerb,
    },
    /// The agents that have enrolled, and those that report with a token.
    Agents {
        #[command(subcommand)]
        command: Option<AgentsCommand>,
    },
    /// One-time tokens, by which agents enrol.
    #[command(subcommand)]
    EnrollToken(EnrollTokenCommand),
    /// People who may sign in (wants an admin's token).
    #[command(subcommand)]
    User(UserVerb),
    /// Tokens of the API (wants an admin's token).
    #[command(subcommand)]
    Token(TokenVerb),
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

/// What is drained or undrained.
#[derive(Debug, ClapArgs)]
pub(crate) struct DrainTarget {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The real server's one service, such as tcp:10.99.0.1:80; all without it.
    #[arg(long, requires = "real_server")]
    pub(crate) service: Option<ServiceId>,
}

#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// A director.
    pub(crate) director: Option<DirectorName>,
    /// A real server.
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub(crate) real_server: Option<String>,
    /// A VIP, on all directors.
    #[arg(long)]
    pub(crate) vip: Option<Vip>,
}

/// The options of drain alone.
#[derive(Debug, ClapArgs)]
pub(crate) struct DrainOptions {
    /// Only show what it would do.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// In what time it should be done.
    #[arg(long, default_value = "15m", value_parser = humantime::parse_duration)]
    pub(crate) deadline: Duration,
    /// What happens to what is not done by then: hold it and raise an alarm, finish with what is
    /// left, or remove the real server.
    #[arg(long, value_enum, default_value_t = AtDeadline::Hold)]
    pub(crate) on_deadline: AtDeadline,
    /// A guard to pass over, such as last_announcer; wants --reason.
    #[arg(long = "override", alias = "override-guard", value_name = "GUARD")]
    pub(crate) override_guards: Vec<String>,
    /// Withdraw at once, without raising the cost before; for emergencies.
    #[arg(long)]
    pub(crate) immediate: bool,
}

/// What happens to a drain that is not done at its deadline.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum AtDeadline {
    Hold,
    Finish,
    Remove,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OperationVerb {
    /// The last ones, newest first.
    List {
        /// Only those in this state, such as blocked.
        #[arg(long)]
        state: Option<String>,
        /// Only those of this kind, such as director.drain.
        #[arg(long)]
        kind: Option<String>,
        /// How many (1 to 200).
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
        limit: u16,
    },
    /// One of them, with its steps and what was seen at each.
    Show { id: String },
    /// End one before its time: what it did is undone.
    Cancel {
        id: String,
        /// Wait until it is.
        #[arg(long)]
        wait: bool,
        /// How long to wait at most.
        #[arg(long, default_value = "15m", value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
}

/// What is done about an agent.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentsCommand {
    /// Refuse an agent's certificate from now on and end its streams; its director goes on.
    Revoke {
        /// The agent's identity.
        id: String,
        /// Why, for those who see it later.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// What is done about one-time tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum EnrollTokenCommand {
    /// Make a token that is good once, for an hour, and print it; the pin of the controller's
    /// authority goes to the error output.
    Create {
        /// The director whose agent it makes.
        director: DirectorName,
    },
}

/// What is done with a user.
#[derive(Debug, Subcommand)]
pub(crate) enum UserVerb {
    /// Show everyone.
    List,
    /// Make a user; prints a generated password where no file is given.
    Create {
        name: String,
        /// viewer, operator or admin.
        #[arg(long)]
        role: Role,
        /// A file whose first line is the password (12 to 256 characters).
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Change what someone may do, or their password; their sessions end.
    Set {
        name: String,
        /// viewer, operator or admin.
        #[arg(long)]
        role: Option<Role>,
        /// They may not sign in any more.
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// They may sign in again.
        #[arg(long)]
        enable: bool,
        /// A file whose first line is the new password (12 to 256 characters).
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Remove someone.
    Delete { name: String },
}

/// What is done with a token.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Show every token, without itself.
    List,
    /// Make a token and print it: it cannot be shown again.
    Create {
        name: String,
        /// What it is good for.
        #[arg(long)]
        role: TokenRoleName,
        /// A cluster that it is good for; may be repeated. Every one where there is none, but an
        /// agent's is good for exactly one.
        #[arg(long, value_name = "CLUSTER")]
        only: Vec<ClusterName>,
        /// How many days it is good; until it is revoked where this is absent.
        #[arg(long, value_name = "DAYS")]
        expires_days: Option<u16>,
    },
    /// Make a token good for nothing.
    Revoke { name: String },
}

/// A token's role on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum TokenRoleName {
    Viewer,
    Operator,
    Admin,
    Agent,
}

impl From<TokenRoleName> for TokenRole {
    fn from(name: TokenRoleName) -> Self {
        match name {
            TokenRoleName::Viewer => Self::Viewer,
            TokenRoleName::Operator => Self::Operator,
            TokenRoleName::Admin => Self::Admin,
            TokenRoleName::Agent => Self::Agent,
        }
    }
}

/// The options of drain and undrain.
#[derive(Debug, ClapArgs)]
pub(crate) struct Change {
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
