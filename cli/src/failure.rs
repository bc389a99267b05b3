//! Why a command did not do its work, and the exit code that says so to a script.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use isopath_api::fault::FileFaults;
use isopath_api::problem::Problem;

/// The exit code of a drain that goes on after the command stopped waiting.
pub(crate) const STILL_DRAINING: u8 = 6;
/// The exit code of `status --exit-status` when something is wrong.
pub(crate) const DEGRADED: u8 = 8;
/// The exit code after Ctrl-C, as shells have it: 128 + SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Something named on the command line does not exist.
    #[error("{0}")]
    NotFound(String),
    /// A file given by the operator is malformed.
    #[error("{0}")]
    File(FileFaults),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The controller does not answer.
    #[error("cannot reach the controller at {url}; is isopathd running, is ISOPATH_URL right?")]
    Unreachable { url: String, source: reqwest::Error },
    /// The daemon behind a Unix socket does not answer.
    #[error("cannot talk to {path}")]
    Socket {
        path: PathBuf,
        source: std::io::Error,
    },
    /// A daemon answered with something this version does not understand.
    #[error("{peer} answered with something unexpected: {what}")]
    Answer { peer: String, what: String },
    /// A daemon refused.
    #[error("{0}")]
    Refused(String),
    /// The controller refused.
    #[error("{}", describe(.0))]
    Problem(Box<Problem>),
    /// Writing the answer failed.
    #[error("cannot write the answer")]
    Output(#[from] std::io::Error),
}

impl Failure {
    /// The message with the messages of all its sources.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            write!(text, ": {error}").expect("a String takes all writes");
            source = error.source();
        }
        text
    }

    /// The exit code that belongs to it.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) | Self::File(_) | Self::Read { .. } => 2,
            Self::NotFound(_) => 7,
            Self::Unreachable { .. } | Self::Socket { .. } => 3,
            Self::Answer { .. } | Self::Refused(_) | Self::Output(_) => 1,
            Self::Problem(problem) => match problem.status {
                401 | 403 => 4,
                404 => 7,
                409 => 5,
                422 => 2,
                _ => 1,
            },
        })
    }
}

fn describe(problem: &Problem) -> String {
    let mut text = format!("{}: {}", problem.title, problem.detail);
    for fault in &problem.errors {
        write!(text, "\n  {fault}").expect("a String takes all writes");
    }
    if !problem.guards.is_empty() {
        write!(
            text,
            "\n  to pass over it: --override-guard {} --reason TEXT",
            problem.guards.join(" --override-guard ")
        )
        .expect("a String takes all writes");
    }
    if let Some(id) = &problem.request_id {
        write!(text, "\n  request {id}").expect("a String takes all writes");
    }
    text
}
