//! `isopath announce`, `withdraw` and `clear`: an operator's word on one VIP of one director.

use isopath_api::ids::Vip;
use isopath_api::speaker::OverrideAction;
use isopath_api::{agent, speaker};

use super::{Daemon, ask_agent, ask_speaker, unexpected};
use crate::args::Target;
use crate::failure::Failure;

pub(super) fn run(
    target: &Target,
    vip: Vip,
    action: OverrideAction,
    text: &str,
) -> Result<(), Failure> {
    let verb = match action {
        OverrideAction::Announce { .. } => "announce",
        OverrideAction::Withdraw => "withdraw",
        OverrideAction::Clear => "clear",
    };
    let text = text.to_owned();
    let done = match Daemon::wanted(target, verb)? {
        Daemon::Agent(path) => {
            let request = agent::Request::Override { vip, action, text };
            matches!(ask_agent(path, &request)?, agent::Reply::Ok)
        }
        Daemon::Speaker(path) => {
            let request = speaker::Request::Override { vip, action, text };
            matches!(ask_speaker(path, &request)?, speaker::Reply::Ok)
        }
    };
    if !done {
        return Err(unexpected("the daemon"));
    }
    match action {
        OverrideAction::Announce { .. } | OverrideAction::Withdraw => {
            eprintln!("{verb} {vip}: done, and kept until: isopath … clear {vip}");
        }
        OverrideAction::Clear => eprintln!("clear {vip}: the director decides again"),
    }
    Ok(())
}
