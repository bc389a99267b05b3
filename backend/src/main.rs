//! `isopathd`: the controller's command line.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use isopath_api::access::Role;
use isopath_api::ids::{ClusterName, DirectorName};
use isopathd::commands::{self, CommandError, database};
use isopathd::settings::DEFAULT_DATABASE;
use isopathd::store::tokens::{Clusters, Scope};
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
        /// A TOML file: `listen`, `database`, `insecure_http`, `admin_password_file`, `[tls]`,
        /// `[limits]`, `[retention]`.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The address and port to listen on [default: 127.0.0.1:8080].
        #[arg(long, value_name = "ADDR")]
        listen: Option<SocketAddr>,
        /// The database's URL [default: sqlite://isopath.db].
        #[arg(long, value_name = "URL")]
        database: Option<String>,
        /// A file to make for the password of the user that the first start makes, in place of
        /// the output, which a service manager logs.
        #[arg(long, value_name = "FILE")]
        admin_password_file: Option<PathBuf>,
        /// Listen without TLS on an address that is not a loopback one: passwords and tokens can
        /// be read on the way.
        #[arg(long)]
        insecure_http: bool,
    },
    /// Copy the database to a file, while a server writes to it or not.
    Backup {
        /// The database's URL.
        #[arg(long, value_name = "URL", default_value = DEFAULT_DATABASE)]
        database: String,
        /// Where to.
        file: PathBuf,
        /// Overwrite the file if there is one.
        #[arg(long)]
        force: bool,
    },
    /// Put a copy in the database's place; what is there now is kept beside it. The server must
    /// not run.
    Restore {
        /// The database's URL.
        #[arg(long, value_name = "URL", default_value = DEFAULT_DATABASE)]
        database: String,
        /// What `isopathd backup` made.
        file: PathBuf,
    },
    /// Look whether the database is whole.
    Check {
        /// The database's URL.
        #[arg(long, value_name = "URL", default_value = DEFAULT_DATABASE)]
        database: String,
    },
    /// One-time tokens, by which agents enrol.
    #[command(subcommand)]
    EnrollToken(EnrollTokenCommand),
    /// Tokens of the API.
    #[command(subcommand)]
    Token(TokenCommand),
    /// People who sign in to the pages.
    #[command(subcommand)]
    User(UserCommand),
}

#[derive(Debug, Subcommand)]
enum EnrollTokenCommand {
    /// Make a token that is good once, for an hour, and print it; the pin of the controller's
    /// authority goes to the error output.
    Create {
        /// The controller's file, with its `[tls]`.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The database's URL [default: that of the file].
        #[arg(long, value_name = "URL")]
        database: Option<String>,
        /// The cluster of the director.
        #[arg(long)]
        cluster: ClusterName,
        /// The director whose agent it makes.
        #[arg(long)]
        director: DirectorName,
    },
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
        role: TokenRole,
        /// A cluster that it is good for; may be repeated. Every one where there is none, but an
        /// agent's is good for exactly one.
        #[arg(long, required_if_eq("role", "agent"))]
        cluster: Vec<ClusterName>,
        /// How long it is good, such as 90d; until it is revoked where this is absent.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TokenRole {
    /// Reading.
    Viewer,
    /// Declaring and draining besides, as far as no guard refuses.
    Operator,
    /// Everything: passing over guards, people and tokens.
    Admin,
    /// The desired state and the reports of one cluster's directors.
    Agent,
}

impl TokenRole {
    fn scope(self, clusters: Vec<ClusterName>) -> Option<Scope> {
        let role = match self {
            Self::Viewer => Role::Viewer,
            Self::Operator => Role::Operator,
            Self::Admin => Role::Admin,
            Self::Agent => {
                let [cluster] = <[ClusterName; 1]>::try_from(clusters).ok()?;
                return Some(Scope::Agent { cluster });
            }
        };
        let clusters = if clusters.is_empty() {
            Clusters::All
        } else {
            Clusters::Only(clusters.into_iter().collect())
        };
        Some(Scope::User { role, clusters })
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum UserRole {
    /// Reading.
    Viewer,
    /// Declaring and draining besides, as far as no guard refuses.
    Operator,
    /// Everything: passing over guards, people and tokens.
    Admin,
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
        /// What they may do.
        #[arg(long, default_value = "admin")]
        role: UserRole,
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
            admin_password_file,
            insecure_http,
        } => {
            let mut settings = commands::read_settings(config.as_deref())?;
            settings.listen = listen.or(settings.listen);
            settings.database = database.or(settings.database);
            settings.admin_password_file = admin_password_file.or(settings.admin_password_file);
            settings.insecure_http |= insecure_http;
            commands::serve(&settings, io::stdout()).await?;
        }
        Command::Backup {
            database,
            file,
            force,
        } => say(&database::backup(&database, &file, force).await?)?,
        Command::Restore { database, file } => {
            say(&database::restore(&database, &file).await?)?;
        }
        Command::Check { database } => say(&database::check(&database).await?)?,
        Command::EnrollToken(EnrollTokenCommand::Create {
            config,
            database,
            cluster,
            director,
        }) => {
            let mut settings = commands::read_settings(config.as_deref())?;
            settings.database = database.or(settings.database);
            let made = commands::create_enroll_token(&settings, cluster, director).await?;
            if let Some(pin) = &made.ca_pin {
                writeln!(io::stderr(), "ca-pin: {pin}").context("cannot print the pin")?;
            }
            writeln!(io::stderr(), "good until {}", made.expires_at)
                .context("cannot print the time")?;
            say(&made.token)?;
        }
        Command::Token(TokenCommand::Create {
            database,
            name,
            role,
            cluster,
            expires,
        }) => {
            let scope = role.scope(cluster).unwrap_or_else(|| {
                Args::command()
                    .error(
                        ErrorKind::ArgumentConflict,
                        "with --role agent goes exactly one --cluster",
                    )
                    .exit()
            });
            let token = commands::create_token(&database, &name, scope, expires).await?;
            writeln!(io::stdout(), "{token}").context("cannot print the token")?;
        }
        Command::User(UserCommand::Create {
            name,
            database,
            role,
            password_file,
        }) => {
            let role = match role {
                UserRole::Viewer => Role::Viewer,
                UserRole::Operator => Role::Operator,
                UserRole::Admin => Role::Admin,
            };
            let password =
                commands::create_user(&database, &name, role, password_file.as_deref()).await?;
            if let Some(password) = password {
                writeln!(io::stdout(), "{password}").context("cannot print the password")?;
            }
        }
    }
    Ok(())
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").context("cannot print the result")
}
