//! `isopath upgrade`: a new process takes a speaker's place, and nothing moves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use isopath_api::speaker::{Reply, Request, Upgraded};

use super::{ask_speaker_within, print, print_json, unexpected};
use crate::args::Args;
use crate::failure::Failure;

/// The speaker gives its successor 10 s to be ready; then it answers either way.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) fn run(args: &Args, binary: Option<&Path>) -> Result<(), Failure> {
    let Some(speaker) = &args.target.speaker else {
        return Err(Failure::Usage(
            "upgrade concerns one speaker: name it with --speaker /run/isopath/speaker.sock"
                .to_owned(),
        ));
    };
    let binary = binary.map(absolute).transpose()?;
    let request = Request::Upgrade { binary };
    let Reply::Upgraded(upgraded) = ask_speaker_within(speaker, &request, PATIENCE)? else {
        return Err(unexpected("the speaker"));
    };
    if args.json {
        return print_json("isopath-upgrade/1", "upgraded", &upgraded);
    }
    print(&describe(&upgraded))
}

/// The speaker has another working directory than the operator.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|source| Failure::Read {
        path: path.to_owned(),
        source,
    })
}

fn describe(upgraded: &Upgraded) -> String {
    let Upgraded {
        from_pid,
        to_pid,
        from_version,
        version,
        freeze_us,
    } = upgraded;
    format!(
        "upgraded {from_version} to {version}: process {from_pid} to {to_pid}, \
         nobody spoke for {}.{:03} ms\n",
        freeze_us / 1000,
        freeze_us % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_freeze_is_told_in_milliseconds() {
        let upgraded = Upgraded {
            from_pid: 7,
            to_pid: 8,
            from_version: "0.1.0".to_owned(),
            version: "0.2.0".to_owned(),
            freeze_us: 1042,
        };
        assert_eq!(
            describe(&upgraded),
            "upgraded 0.1.0 to 0.2.0: process 7 to 8, nobody spoke for 1.042 ms\n"
        );
    }
}
