//! The command line of the speaker.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use isopath_api::config::DirectorFile;
use isopath_speaker::Speaker;
use isopath_speaker::log::Stderr;
use tracing::error;
use tracing_subscriber::EnvFilter;

/// The director's OSPF and BFD speaker.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Speak OSPF and BFD until SIGTERM, then withdraw and leave.
    Run {
        /// The director's file; its [director] and [ospf] parts are enough.
        #[arg(long)]
        config: PathBuf,
        /// Announce no VIP of the file before the agent has spoken.
        #[arg(long)]
        wait_for_agent: bool,
    },
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(Stderr::default)
        .init();
    let Command::Run {
        config,
        wait_for_agent,
    } = Arguments::parse().command;
    let name = config.display().to_string();
    let text = match std::fs::read_to_string(&config).with_context(|| format!("cannot read {name}"))
    {
        Ok(text) => text,
        Err(error) => return failed(&error),
    };
    let file = match DirectorFile::parse(&name, &text) {
        Ok(file) => file,
        Err(faults) => {
            eprintln!("{faults}");
            return ExitCode::from(2);
        }
    };
    match Speaker::start(&file, wait_for_agent).and_then(Speaker::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.into()),
    }
}

/// Says why the run failed, with all causes.
fn failed(error: &anyhow::Error) -> ExitCode {
    error!("{error:#}");
    ExitCode::FAILURE
}
