//! The command line of the speaker.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use isopath_api::config::DirectorFile;
use isopath_api::fault::FileFaults;
use isopath_speaker::keys::Keys;
use isopath_speaker::log::Stderr;
use isopath_speaker::{Invocation, Speaker, refuse_take_over};
use tracing::level_filters::LevelFilter;
use tracing::{error, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The director's OSPF and BFD speaker.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Speak OSPF and BFD until SIGTERM, then do as `on_exit` in the file says; until SIGINT, then
    /// withdraw and leave.
    Run {
        /// The director's file; its [director] and [ospf] parts are enough.
        #[arg(long)]
        config: PathBuf,
        /// Announce no VIP of the file before the agent has spoken.
        #[arg(long)]
        wait_for_agent: bool,
        /// Be the successor of the speaker that starts this process, which gives its sockets
        /// and its state by standard input.
        #[arg(long, hide = true)]
        take_over: bool,
    },
}

fn main() -> ExitCode {
    start_log();
    let Command::Run {
        config,
        wait_for_agent,
        take_over,
    } = Arguments::parse().command;
    let name = config.display().to_string();
    let text = match std::fs::read_to_string(&config).with_context(|| format!("cannot read {name}"))
    {
        Ok(text) => text,
        Err(error) => {
            if take_over {
                refuse_take_over(&format!("{error:#}"));
            }
            return failed(&error);
        }
    };
    let (file, keys) = match parse(&name, &text) {
        Ok(parsed) => parsed,
        Err(faults) => {
            if take_over {
                refuse_take_over(&faults.to_string());
            }
            eprintln!("{faults}");
            return ExitCode::from(2);
        }
    };
    let invocation = Invocation::of_this_process(arguments(config, wait_for_agent));
    let begin = if take_over {
        Speaker::take_over
    } else {
        Speaker::start
    };
    match begin(file, keys, wait_for_agent, invocation).and_then(Speaker::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.into()),
    }
}

/// The director's file and the keys that it names.
fn parse(name: &str, text: &str) -> Result<(DirectorFile, Keys), FileFaults> {
    let mut keys = Keys::default();
    let load = |file: &DirectorFile| match Keys::load(&file.ospf.interface) {
        Ok(loaded) => {
            keys = loaded;
            Vec::new()
        }
        Err(faults) => faults,
    };
    let file = DirectorFile::parse_with(name, text, load)?;
    Ok((file, keys))
}

/// The arguments of a process that runs as this one does.
fn arguments(config: PathBuf, wait_for_agent: bool) -> Vec<OsString> {
    let mut arguments = vec!["run".into(), "--config".into(), config.into_os_string()];
    if wait_for_agent {
        arguments.push("--wait-for-agent".into());
    }
    arguments
}

/// Logs to standard error at level info, or as `RUST_LOG` says (`debug`, or by module). The
/// filter is the small one: the one with regular expressions would double the program.
fn start_log() {
    let wanted = std::env::var("RUST_LOG").ok();
    let parsed = wanted.as_deref().map(str::parse::<Targets>);
    let filter = match &parsed {
        Some(Ok(targets)) => targets.clone(),
        Some(Err(_)) | None => Targets::new().with_default(LevelFilter::INFO),
    };
    let format = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(Stderr::default);
    tracing_subscriber::registry()
        .with(format.with_filter(filter))
        .init();
    if let Some(Err(error)) = parsed {
        warn!(%error, "RUST_LOG is not understood, logging at level info");
    }
}

/// Says why the run failed, with all causes.
fn failed(error: &anyhow::Error) -> ExitCode {
    error!("{error:#}");
    ExitCode::FAILURE
}
