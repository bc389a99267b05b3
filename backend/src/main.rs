//! `isopathd`: the controller's command line.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use isopath_api::ids::ClusterName;
use isopathd::commands::{self, CommandError};
use isopathd::settings::{DEFAULT_DATABASE, DEFAULT_LISTEN};
use isopathd::store::tokens::Role;
use tracing_subscriber::EnvFilter;

/// Isopath's controller: topology, history, drains, dashboard, metrics.
#[derive(Debug, Parser)]
#[command(name = "isopathd", version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API, the pages and the directors.
    Serve {
        /// A TOML file with the keys `listen` and `database`.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The address and port to listen on [default: 127.0.0.1:8080].
        #[arg(long, value_name = "ADDR")]
        listen: Option<SocketAddr>,
        /// The database's URL [default: sqlite://isopath.db].
        #[arg(long, value_name = "URL")]
        database: Option<String>,
    },
    /// Tokens of the API.
    #[command(subcommand)]
    Token(TokenCommand),
    /// People who sign in to the pages.
    #[command(subcommand)]
    User(UserCommand),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it: it is not stored and cannot be shown again.
    Create {
        /// The database's URL.
        #[arg(long, value_name = "URL", default_value = DEFAULT_DATABASE)]
        database: String,
        /// Its name, which stands in events for who used it.
        #[arg(long)]
        name: String,
        /// What it is good for.
        #[arg(long)]
        role: RoleName,
        /// The cluster whose agents it is for; with the role agent only.
        #[arg(long, required_if_eq("role", "agent"))]
        cluster: Option<ClusterName>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    /// The whole API.
    Operator,
    /// The desired state and the reports of one cluster's directors.
    Agent,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Make a user; prints a generated password where no file is given.
    Create {
        /// The name to sign in with.
        name: String,
        /// The database's URL.
        #[arg(long, value_name = "URL", default_value = DEFAULT_DATABASE)]
        database: String,
        /// A file whose first line is the password (12 to 256 characters).
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    match run(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Faults of a file are lines of their own, each starting with its place.
            let usage = error
                .downcast_ref::<CommandError>()
                .is_some_and(CommandError::is_usage);
            let text = match error.downcast_ref::<CommandError>() {
                Some(CommandError::Config(faults)) => faults.to_string(),
                Some(_) | None => format!("isopathd: {error:#}"),
            };
            // Without an error output there is nobody left to tell.
            drop(writeln!(io::stderr(), "{text}"));
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

#[tokio::main]
async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve {
            config,
            listen,
            database,
        } => {
            let settings = commands::read_settings(config.as_deref())?;
            let default = DEFAULT_LISTEN.parse().context("the default address")?;
            let listen = listen.or(settings.listen).unwrap_or(default);
            let database = database
                .or(settings.database)
                .unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
            commands::serve(listen, &database, io::stdout()).await?;
        }
        Command::Token(TokenCommand::Create {
            database,
            name,
            role,
            cluster,
        }) => {
            let role = match (role, cluster) {
                (RoleName::Operator, None) => Role::Operator,
                (RoleName::Agent, Some(cluster)) => Role::Agent { cluster },
                (RoleName::Operator, Some(_)) | (RoleName::Agent, None) => Args::command()
                    .error(
                        ErrorKind::ArgumentConflict,
                        "--cluster goes with --role agent",
                    )
                    .exit(),
            };
            let token = commands::create_token(&database, &name, role).await?;
            writeln!(io::stdout(), "{token}").context("cannot print the token")?;
        }
        Command::User(UserCommand::Create {
            name,
            database,
            password_file,
        }) => {
            let password =
                commands::create_user(&database, &name, password_file.as_deref()).await?;
            if let Some(password) = password {
                writeln!(io::stdout(), "{password}").context("cannot print the password")?;
            }
        }
    }
    Ok(())
}
