//! The command line of the real server's role.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use thiserror::Error;

use super::audit::Finding;
use super::{Done, RealServer, RealServerError, read_file};
use crate::run::FileError;

/// The exit code for a command or a file that cannot be understood, as clap has it.
const USAGE: u8 = 2;

/// What is done with a real server. All but `check` need root.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Sets the host up: settings, interfaces, VIPs. A second time changes nothing.
    Up(File),
    /// Takes away what `up` has set up and gives back what was there before.
    Down(File),
    /// Says what is wrong with the host; ends with 1 when something is.
    Status {
        /// The file.
        #[command(flatten)]
        file: File,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Validates the file.
    Check(File),
}

/// The file.
#[derive(Debug, Args)]
pub struct File {
    /// The real server's file.
    #[arg(long)]
    config: PathBuf,
}

/// Why a command did not do what it should.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The host.
    #[error(transparent)]
    RealServer(#[from] RealServerError),
    /// The runtime.
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    /// The output.
    #[error("cannot write to the standard output")]
    Output(#[source] std::io::Error),
}

impl CommandError {
    /// The status that the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::File(_) => ExitCode::from(USAGE),
            Self::RealServer(_) | Self::Runtime(_) | Self::Output(_) => ExitCode::FAILURE,
        }
    }
}

/// What `status --json` prints.
#[derive(Serialize)]
struct Status<'a> {
    ok: bool,
    findings: &'a [Finding],
}

impl Verb {
    /// Does it, and says on the standard output what was done or found.
    ///
    /// # Errors
    /// The file is malformed, or the host could not be read or changed.
    pub fn run(self) -> Result<ExitCode, CommandError> {
        // The kernel's settings are those of the thread's network namespace: one thread.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(CommandError::Runtime)?;
        runtime.block_on(self.execute())
    }

    async fn execute(self) -> Result<ExitCode, CommandError> {
        match self {
            Self::Check(File { config }) => {
                let file = read_file(&config)?;
                let vips: Vec<_> = file.vip.iter().map(|it| it.address.to_string()).collect();
                print(&format!("real server of {}\n", vips.join(", ")))?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Up(File { config }) => {
                let done = RealServer::new(read_file(&config)?)?.up().await?;
                print(&text(&done))?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Down(File { config }) => {
                let done = RealServer::new(read_file(&config)?)?.down().await?;
                print(&text(&done))?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Status { file, json } => {
                let findings = RealServer::new(read_file(&file.config)?)?.status().await?;
                print(&report(&findings, json))?;
                Ok(match findings.is_empty() {
                    true => ExitCode::SUCCESS,
                    false => ExitCode::FAILURE,
                })
            }
        }
    }
}

fn text(done: &Done) -> String {
    if done.steps.is_empty() && done.left.is_empty() {
        return "nothing to do\n".to_owned();
    }
    let lines = done.steps.iter().chain(&done.left);
    lines.map(|line| format!("{line}\n")).collect()
}

fn report(findings: &[Finding], json: bool) -> String {
    let ok = findings.is_empty();
    if json {
        let status = Status { ok, findings };
        let text = serde_json::to_string(&status).expect("names and texts are JSON");
        return format!("{text}\n");
    }
    if ok {
        return "ok\n".to_owned();
    }
    let lines = findings.iter().map(|finding| format!("{finding}\n"));
    lines.collect()
}

fn print(text: &str) -> Result<(), CommandError> {
    let mut output = std::io::stdout();
    output
        .write_all(text.as_bytes())
        .map_err(CommandError::Output)
}
