//! The script that the guest runs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::prepare::{Accelerator, Image};
use super::{GUEST_ADDRESS, VmSpec};

/// The line that tells the host that the guest is up; whatever comes before it is boot noise.
pub(super) const UP: &str = "isopath-vm: up";

/// The line that the host writes to have the command interrupted.
pub(super) const INTERRUPT: &str = "interrupt";

/// The file in the run's directory that gets the command's exit status.
pub(super) const STATUS_FILE: &str = "status";

/// The file in the run's directory that is run.
pub(super) const SCRIPT_FILE: &str = "guest.sh";

/// The Ethernet address of the card that the forward goes through.
pub(super) const CARD: &str = "52:54:00:69:73:6f";

/// What the kernel does not have built in.
const MODULES: [&str; 15] = [
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_lc",
    "ip_vs_wlc",
    "ip_vs_sh",
    "ip_vs_mh",
    "dummy",
    "veth",
    "bridge",
    "ipip",
    "ip_gre",
    "fou",
    "nf_tables",
    "virtio_net",
];

/// Environment that the guest takes over from the host, beside `ISOPATH_*`.
const INHERITED: [&str; 6] = [
    "SWITCH",
    "DIRECTORS",
    "REAL_SERVERS",
    "NO_COLOR",
    "RUST_LOG",
    "RUST_BACKTRACE",
];

/// An emulated processor is this many times slower than the real one, boot and fork included.
const EMULATED_SLOWNESS: &str = "5";

/// Writes the script into the directory `run` that guest and host share.
pub(super) fn write_script(
    spec: &VmSpec,
    image: &Image,
    accelerator: Accelerator,
    run: &Path,
) -> Result<()> {
    let mut environment: Vec<(String, String)> = std::env::vars()
        .filter(|(name, _)| name.starts_with("ISOPATH_") || INHERITED.contains(&name.as_str()))
        .collect();
    environment.push(("ISOPATH_TEST_IPVS".to_owned(), "1".to_owned()));
    if accelerator == Accelerator::Emulation {
        environment.push(("ISOPATH_LAB_SLOW".to_owned(), EMULATED_SLOWNESS.to_owned()));
    }
    environment.extend(spec.environment.iter().cloned());

    let script = script(&environment, &spec.command, &image.root, run);
    let path = run.join(SCRIPT_FILE);
    fs::write(&path, script).with_context(|| format!("writing {}", path.display()))
}

/// The command line that runs the script.
pub(super) fn entry(run: &Path) -> String {
    format!("bash {}", quoted(&run.join(SCRIPT_FILE).to_string_lossy()))
}

fn script(environment: &[(String, String)], command: &[String], root: &Path, run: &Path) -> String {
    let mut exports = String::new();
    for (name, value) in environment {
        // Writing to a String cannot fail, and the result of `writeln!` cannot be dropped.
        writeln!(exports, "export {name}={}", quoted(value)).expect("a String takes any text");
    }
    let command: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    TEMPLATE
        .replace(
            "@STATUS@",
            &quoted(&run.join(STATUS_FILE).to_string_lossy()),
        )
        .replace("@ROOT@", &quoted(&root.to_string_lossy()))
        .replace("@MODULES@", &MODULES.join(" "))
        .replace("@CARD@", CARD)
        .replace("@ADDRESS@", GUEST_ADDRESS)
        .replace("@UP@", UP)
        .replace("@INTERRUPT@", INTERRUPT)
        .replace("@EXPORTS@\n", &exports)
        .replace("@COMMAND@", &command.join(" "))
}

/// The command gets a process group of its own (`set -m`): so an interrupt reaches it with all
/// that it started, as a terminal's would, and bash does not have it ignore the signal. The end
/// of the input means that the host's process is gone; then nobody waits for the command. Bash
/// would report the ends of the command and of what reads the input among the command's output,
/// so from there on what it says itself goes nowhere.
const TEMPLATE: &str = r#"#!/bin/bash
set -u
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

finish() {
    echo "$1" >@STATUS@
    exit "$1"
}

modprobe --all --dirname @ROOT@ @MODULES@ || finish 125
ip link set lo up
for card in /sys/class/net/*; do
    if [ "$(cat "$card/address")" = @CARD@ ]; then
        ip address add @ADDRESS@/24 dev "${card##*/}"
        ip link set "${card##*/}" up
    fi
done
@EXPORTS@
echo "@UP@"

exec 3<&0 4>&2 2>/dev/null
set -m
@COMMAND@ </dev/null 2>&4 3<&- 4>&- &
command=$!
{
    while read -r line <&3; do
        [ "$line" = "@INTERRUPT@" ] && kill -INT -- "-$command"
    done
    kill -INT -- "-$command"
} 4>&- &
watcher=$!
wait "$command"
status=$?
kill -- "-$watcher"
finish "$status"
"#;

/// The word as bash reads it back unchanged.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn every_word_reaches_the_command_unchanged() {
        let words = ["plain", "two words", "it's", "$HOME `id` \\ \"", "", "-c"];
        let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let script = format!("printf '<%s>' {}", line.join(" "));
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        let wanted: String = words.iter().map(|word| format!("<{word}>")).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), wanted);
    }

    #[test]
    fn bash_says_nothing_of_its_own_among_the_commands_output() {
        let (_, jobs) = TEMPLATE.split_once("@UP@\"\n").unwrap();
        let jobs = jobs.replace("@COMMAND@", "sh -c 'echo said; echo wrong >&2; exit 3'");
        // Waiting for what is left makes the report certain where there is one.
        let script = format!("finish() {{ wait; exit \"$1\"; }}\n{jobs}");
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).stdin(Stdio::piped());
        bash.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = bash.spawn().unwrap();
        let input = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        drop(input);
        let texts = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert_eq!(texts, ["said\n", "wrong\n"]);
        assert_eq!(output.status.code(), Some(3), "not the command's status");
    }

    #[test]
    fn the_script_is_whole_and_bash_can_read_it() {
        let environment = [("ISOPATH_X".to_owned(), "a b".to_owned())];
        let command = ["true".to_owned()];
        let script = script(
            &environment,
            &command,
            Path::new("/root dir"),
            Path::new("/run/1"),
        );
        assert!(
            script.contains("export ISOPATH_X='a b'\n"),
            "no environment in\n{script}"
        );
        assert!(!script.contains('@'), "a placeholder was left in\n{script}");
        let output = Command::new("bash")
            .args(["-n", "-c", &script])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
