//! `isopath-agent`: the director's daemon beside the speaker.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use isopath_agent::enroll::{Enroll, enroll};
use isopath_agent::memory;
use isopath_agent::preview::preview;
use isopath_agent::real_server::command::Verb;
use isopath_agent::run::{Options, read_sections, run, summary};
use isopath_api::config::DirectorFile;
use isopath_api::fault::Places;
use tracing_subscriber::EnvFilter;

/// The exit code for a command or a file that cannot be understood, as clap has it.
const USAGE: u8 = 2;

/// The director's agent: data plane, health checks, announcements.
#[derive(Parser)]
#[command(name = "isopath-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Director(Director),
    /// Sets this host up as a real server, takes that away, or says what is wrong with it.
    RealServer {
        #[command(subcommand)]
        verb: Verb,
    },
}

#[derive(Subcommand)]
enum Director {
    /// Runs until SIGTERM; SIGHUP rereads VIPs and services from the file.
    Run {
        /// The director's file.
        #[arg(long)]
        config: PathBuf,
        /// Never start a speaker: it runs by itself, as a unit of its own.
        #[arg(long)]
        no_speaker: bool,
    },
    /// Gets this director's agent a certificate for a one-time token, and keeps it in the state
    /// directory for `[controller] identity = "enrolled"`.
    Enroll {
        /// The director's file.
        #[arg(long)]
        config: PathBuf,
        /// The controller's URL [default: that of the file].
        #[arg(long, value_name = "URL")]
        controller: Option<String>,
        /// The file that holds the token.
        #[arg(long, value_name = "FILE")]
        token_file: PathBuf,
        /// SHA-256 of the certificate of the controller's authority, as it was printed with the
        /// token; without it, the system's authorities or the file's `ca_file` must vouch for it.
        #[arg(long, value_name = "SHA256")]
        ca_pin: Option<String>,
    },
    /// Validates the file and says what it declares.
    Check {
        /// The director's file.
        #[arg(long)]
        config: PathBuf,
        /// Says instead what an agent would change in the running kernel, and changes nothing.
        #[arg(long)]
        plan: bool,
        /// Says that as JSON.
        #[arg(long, requires = "plan")]
        json: bool,
    },
}

fn main() -> ExitCode {
    memory::keep_little();
    match Arguments::parse().command {
        Command::Director(command) => director(command),
        Command::RealServer { verb } => match verb.run() {
            Ok(code) => code,
            Err(error) => {
                let code = error.exit_code();
                eprintln!("{:#}", anyhow::Error::new(error));
                code
            }
        },
    }
}

/// Says what works but is unwise, each with its place, beside what was asked for.
fn warn(config: &Path, file: &DirectorFile) -> anyhow::Result<()> {
    let warnings = file.warnings();
    if warnings.is_empty() {
        return Ok(());
    }
    let name = config.display().to_string();
    let text = std::fs::read_to_string(config).with_context(|| format!("cannot read {name}"))?;
    let places = Places::of(&name, &text);
    for warning in warnings {
        eprintln!("{}", warning.in_toml(&places));
    }
    Ok(())
}

fn director(command: Director) -> ExitCode {
    let (Director::Run { config, .. }
    | Director::Check { config, .. }
    | Director::Enroll { config, .. }) = &command;
    let (file, sections) = match read_sections(config) {
        Ok(read) => read,
        Err(error) => {
            eprintln!("{:#}", anyhow::Error::new(error));
            return ExitCode::from(USAGE);
        }
    };
    let result = match command {
        Director::Check {
            config,
            plan: false,
            ..
        } => warn(&config, &file).and_then(|()| print(&summary(&file))),
        Director::Check { config, json, .. } => {
            warn(&config, &file).and_then(|()| plan(&file, json))
        }
        Director::Enroll {
            controller,
            token_file,
            ca_pin,
            ..
        } => get_identity(Enroll {
            file: &file,
            controller: controller.as_deref(),
            token_file: &token_file,
            ca_pin: ca_pin.as_deref(),
        }),
        Director::Run { config, no_speaker } => start(
            file,
            Options {
                config,
                start_speaker: !no_speaker,
                sections,
                ask_in_arp: true,
            },
        ),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("isopath-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(line: &str) -> anyhow::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}").context("cannot write to the standard output")
}

/// Enrols and says as whom.
fn get_identity(wanted: Enroll<'_>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let enrolled = runtime.block_on(enroll(wanted))?;
    print(&format!(
        "enrolled as agent {} of director {} in cluster {}, until {}",
        enrolled.id, enrolled.director, enrolled.cluster, enrolled.expires_at
    ))
}

/// Prints what an agent would do.
fn plan(file: &DirectorFile, json: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let preview = runtime.block_on(preview(file))?;
    if json {
        let text = serde_json::to_string_pretty(&preview).context("cannot write JSON")?;
        return print(&text);
    }
    if let Some(why) = &preview.unread {
        print(&format!("cannot see what is there: {why}"))?;
        print("the plan is for a kernel that has nothing of it yet")?;
    }
    for (index, step) in preview.steps.iter().enumerate() {
        print(&format!("{}. {step}", index + 1))?;
    }
    match preview.steps.is_empty() {
        true => print("nothing to do"),
        false => Ok(()),
    }
}

fn start(file: DirectorFile, options: Options) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let stderr = std::io::stderr;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        .init();
    // The control loop has the main thread; links, checks and the kernel share the others.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(file, options))?;
    Ok(())
}
