//! The verbs, one file each. Data goes to stdout, everything else to stderr.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use isopath_api::{agent, speaker};
use serde::Serialize;

use crate::args::{AgentsCommand, Args, Command, EnrollTokenCommand, Target};
use crate::failure::Failure;
use crate::socket;

mod access;
mod agents;
mod declaration;
mod drain;
mod events;
mod operation;
mod ospf;
mod overrides;
mod paths;
mod status;
mod upgrade;

/// Runs the verb of the command line.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Status { exit_status } => return status::run(args, *exit_status),
        Command::Neighbors => ospf::neighbors(args)?,
        Command::Lsdb => ospf::lsdb(args)?,
        Command::Paths { host } => paths::run(args, *host)?,
        Command::Announce { vip, cost, reason } => {
            let action = speaker::OverrideAction::Announce { cost: *cost };
            overrides::run(&args.target, *vip, action, reason)?;
        }
        Command::Withdraw { vip, reason } => {
            overrides::run(
                &args.target,
                *vip,
                speaker::OverrideAction::Withdraw,
                reason,
            )?;
        }
        Command::Clear { vip } => {
            overrides::run(&args.target, *vip, speaker::OverrideAction::Clear, "")?;
        }
        Command::Upgrade { binary } => upgrade::run(args, binary.as_deref())?,
        Command::Apply {
            file,
            dry_run,
            reason,
            revision,
        } => {
            let apply = declaration::Apply {
                file,
                dry_run: *dry_run,
                reason,
                revision: *revision,
            };
            declaration::apply(args, &apply)?;
        }
        Command::Diff { file } => declaration::diff(args, file)?,
        Command::Drain {
            target,
            change,
            options,
        } => {
            return drain::drain(args, target, change, options);
        }
        Command::Undrain { target, change } => return drain::undrain(args, target, change),
        Command::Operation { verb } => return operation::run(args, verb),
        Command::Agents { command: None } => agents::list(args)?,
        Command::Agents {
            command: Some(AgentsCommand::Revoke { id, reason }),
        } => agents::revoke(args, id, reason)?,
        Command::EnrollToken(EnrollTokenCommand::Create { director }) => {
            agents::create_token(args, director)?;
        }
        Command::User(verb) => access::user(args, verb)?,
        Command::Token(verb) => access::token(args, verb)?,
        Command::Events { follow, limit } => events::run(args, *follow, *limit)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes text to stdout.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes one JSON document to stdout. Its `schema` only ever gains fields.
fn print_json<T: Serialize>(schema: &str, key: &str, value: &T) -> Result<(), Failure> {
    let mut document = serde_json::Map::new();
    document.insert("schema".to_owned(), schema.into());
    let value = serde_json::to_value(value).expect("answers are plain data");
    document.insert(key.to_owned(), value);
    let text = serde_json::to_string_pretty(&document).expect("answers are plain data");
    print(&format!("{text}\n"))
}

/// The director's daemon that the command line names.
enum Daemon<'a> {
    Agent(&'a std::path::Path),
    Speaker(&'a std::path::Path),
}

impl<'a> Daemon<'a> {
    fn of(target: &'a Target) -> Option<Self> {
        match (&target.agent, &target.speaker) {
            (Some(path), _) => Some(Self::Agent(path)),
            (None, Some(path)) => Some(Self::Speaker(path)),
            (None, None) => None,
        }
    }

    /// The daemon, or a usage error that says how to name it.
    fn wanted(target: &'a Target, verb: &str) -> Result<Self, Failure> {
        Self::of(target).ok_or_else(|| {
            Failure::Usage(format!(
                "{verb} concerns one director: name its agent with \
                 --agent /run/isopath/agent.sock, or a speaker that runs alone with \
                 --speaker /run/isopath/speaker.sock"
            ))
        })
    }
}

fn ask_agent(path: &std::path::Path, request: &agent::Request) -> Result<agent::Reply, Failure> {
    match socket::ask(path, request)? {
        agent::Reply::Error { message } => Err(Failure::Refused(message)),
        reply => Ok(reply),
    }
}

fn ask_speaker(
    path: &std::path::Path,
    request: &speaker::Request,
) -> Result<speaker::Reply, Failure> {
    ask_speaker_within(path, request, socket::PATIENCE)
}

fn ask_speaker_within(
    path: &std::path::Path,
    request: &speaker::Request,
    patience: Duration,
) -> Result<speaker::Reply, Failure> {
    match socket::ask_within(path, request, patience)? {
        speaker::Reply::Error { message } => Err(Failure::Refused(message)),
        reply => Ok(reply),
    }
}

fn unexpected(peer: &str) -> Failure {
    Failure::Answer {
        peer: peer.to_owned(),
        what: "an answer to another question".to_owned(),
    }
}
