//! FRR as the switch.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use isopath_api::config::{AreaType, NetworkType};

use super::{SwitchArea, SwitchConfig, SwitchHelper, SwitchNeighbor};
use crate::auth::{Algorithm, Auth, Key};
use crate::netns::{Namespace, checked};
use crate::process::Process;
use crate::topology::Timers;
use crate::wait::{self, Probe};

const DAEMONS: &str = "/usr/lib/frr";

/// Where FRR keeps the sockets of the instance that serves this namespace (its `-N`).
fn run_directory(namespace: &Namespace) -> PathBuf {
    Path::new("/var/run/frr").join(namespace.name())
}

pub(super) fn start(
    namespace: &Namespace,
    directory: &Path,
    config: &SwitchConfig,
) -> Result<Vec<Process>> {
    let mut processes = vec![start_zebra(namespace, directory, &zebra_conf())?];
    processes.push(daemon(
        namespace,
        directory,
        "bfdd",
        &bfdd_conf(config.timers),
    )?);
    processes.push(daemon(namespace, directory, "ospfd", &ospfd_conf(config))?);
    Ok(processes)
}

/// The same with a configuration of ospfd that is there already, and without BFD.
pub(super) fn start_from_file(
    namespace: &Namespace,
    directory: &Path,
    text: &str,
) -> Result<Vec<Process>> {
    let zebra = start_zebra(namespace, directory, &zebra_conf())?;
    let ospfd = daemon(namespace, directory, "ospfd", text)?;
    Ok(vec![zebra, ospfd])
}

/// Makes the directories of an instance and starts its zebra, without which no other of FRR's
/// daemons comes up.
pub(crate) fn start_zebra(
    namespace: &Namespace,
    directory: &Path,
    config: &str,
) -> Result<Process> {
    let run = run_directory(namespace);
    namespace.registry().make_directory(&run)?;
    // The daemons give up root before they make their sockets and logs.
    for owned in [run.as_path(), directory] {
        checked(
            Command::new("install")
                .args(["-d", "-o", "frr", "-g", "frr"])
                .arg(owned),
        )?;
    }
    let socket = run.join("zserv.api");
    // A killed zebra leaves its socket, which would be taken for that of the next one.
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", socket.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let mut zebra = daemon(namespace, directory, "zebra", config)?;
    // ospfd of FRR 8.4 writes this file beside its instance's directory, not into it. Labs make
    // no use of it, but it stays where an ospfd of the machine's own has it, too.
    if !Path::new("/var/run/frr/ospfd.pid").exists() {
        namespace
            .registry()
            .add_path(Path::new("/var/run/frr/ospfd-gr.json"))?;
    }
    wait::until("zebra's socket", Duration::from_secs(10), || {
        zebra.expect_running()?;
        Ok(Probe::when(socket.exists(), (), || {
            format!("no {}", socket.display())
        }))
    })?;
    Ok(zebra)
}

pub(crate) fn daemon(
    namespace: &Namespace,
    directory: &Path,
    name: &str,
    config: &str,
) -> Result<Process> {
    let file = write_conf(directory, name, config)?;
    let mut command = Command::new(Path::new(DAEMONS).join(name));
    // Port 0: no terminal over TCP.
    command
        .args(["-N", namespace.name(), "-P", "0", "-f"])
        .arg(&file);
    let log = directory.join(format!("{name}.out"));
    let process = Process::spawn(namespace, format!("FRR's {name}"), &log, &mut command)?;
    // FRR's crash and memory records, which it leaves behind.
    let scratch = format!("/var/tmp/frr/{name}.{}", process.pid());
    namespace.registry().add_path(Path::new(&scratch))?;
    Ok(process)
}

fn write_conf(directory: &Path, name: &str, config: &str) -> Result<PathBuf> {
    let file = directory.join(format!("{name}.conf"));
    let text = format!(
        "log file {}\n{config}",
        directory.join(format!("{name}.log")).display()
    );
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

pub(super) fn version() -> Result<String> {
    let output = checked(Command::new(Path::new(DAEMONS).join("ospfd")).arg("--version"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let first = said.lines().next().unwrap_or_default();
    let version = first.strip_prefix("ospfd version ");
    version
        .map(|version| format!("FRR {version}"))
        .with_context(|| format!("no version in {said:?}"))
}

pub(super) fn refusal(directory: &Path, config: &SwitchConfig) -> Result<Option<String>> {
    refusal_of(directory, &ospfd_conf(config))
}

/// ospfd goes on without the lines it does not know, and only says so.
pub(super) fn refusal_of(directory: &Path, text: &str) -> Result<Option<String>> {
    let file = directory.join("check.conf");
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    let mut check = Command::new(Path::new(DAEMONS).join("ospfd"));
    let output = check
        .args(["--dryrun", "-f"])
        .arg(&file)
        .output()
        .context("starting ospfd")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let refused: BTreeSet<&str> = said.lines().filter_map(refused_command).collect();
    if refused.is_empty() && !output.status.success() {
        bail!(
            "ospfd's check ended with {}: {}",
            output.status,
            said.trim()
        );
    }
    let refused = Vec::from_iter(refused);
    Ok((!refused.is_empty()).then(|| format!("No such command: {}", refused.join("; "))))
}

/// The command in a line of the form `… No such command on config line 8:  COMMAND`.
fn refused_command(line: &str) -> Option<&str> {
    let (_, said) = line.split_once("No such command on config line ")?;
    let (_, command) = said.split_once(": ")?;
    Some(command.trim())
}

fn zebra_conf() -> String {
    // When a port loses its carrier the kernel takes it out of its next-hop groups, and zebra
    // of FRR 8.4 does not put it back in. Without groups in the kernel each route carries its
    // own next hops, which zebra does set again.
    "hostname switch\nno zebra nexthop kernel enable\n".to_owned()
}

/// A profile with BFD's times, or nothing.
pub(crate) fn bfdd_conf(timers: Timers) -> String {
    let Some(bfd) = timers.bfd else {
        return String::new();
    };
    let (interval, multiplier) = (bfd.interval.as_millis(), bfd.multiplier);
    format!(
        "bfd\n profile isopath\n  detect-multiplier {multiplier}\n  \
         receive-interval {interval}\n  transmit-interval {interval}\n exit\nexit\n"
    )
}

fn ospfd_conf(config: &SwitchConfig) -> String {
    let mut text = String::new();
    let network = match config.network {
        NetworkType::PointToPoint => "point-to-point",
        NetworkType::Broadcast => "broadcast",
    };
    let timers = config.timers;
    for name in &config.fabric {
        let (hello, dead) = (timers.hello.as_secs(), timers.dead.as_secs());
        write_line(&mut text, format_args!("interface {name}"));
        write_line(&mut text, format_args!(" ip ospf area {}", config.area.id));
        write_line(&mut text, format_args!(" ip ospf network {network}"));
        write_line(&mut text, " ip ospf cost 10");
        write_line(&mut text, " ip ospf priority 10");
        write_line(&mut text, format_args!(" ip ospf hello-interval {hello}"));
        write_line(&mut text, format_args!(" ip ospf dead-interval {dead}"));
        if timers.bfd.is_some() {
            write_line(&mut text, " ip ospf bfd");
            write_line(&mut text, " ip ospf bfd profile isopath");
        }
        authentication(&mut text, &config.auth);
        write_line(&mut text, "exit");
    }
    for name in &config.passive {
        write_line(&mut text, format_args!("interface {name}"));
        let backbone = SwitchArea::BACKBONE.id;
        write_line(&mut text, format_args!(" ip ospf area {backbone}"));
        write_line(&mut text, " ip ospf passive");
        write_line(&mut text, "exit");
    }
    write_line(&mut text, "router ospf");
    write_line(
        &mut text,
        format_args!(" ospf router-id {}", config.router_id),
    );
    write_line(
        &mut text,
        format_args!(" maximum-paths {}", config.max_paths),
    );
    if config.helper != SwitchHelper::Stock {
        write_line(&mut text, " capability opaque");
        write_line(&mut text, " graceful-restart helper enable");
    }
    if config.helper == SwitchHelper::Lenient {
        write_line(&mut text, " no graceful-restart helper strict-lsa-checking");
    }
    let area = config.area.id;
    match config.area.kind {
        AreaType::Normal => {}
        AreaType::Stub => write_line(&mut text, format_args!(" area {area} stub")),
        AreaType::Nssa => write_line(&mut text, format_args!(" area {area} nssa")),
    }
    write_line(&mut text, "exit");
    text
}

/// In interface mode. FRR learnt the HMACs of RFC 5709 in 9.1, as key chains; before, this
/// algorithm's line is refused ([`refusal`]).
fn authentication(text: &mut String, auth: &Auth) {
    match auth {
        Auth::None => {}
        Auth::Simple(password) => {
            write_line(text, " ip ospf authentication");
            write_line(text, format_args!(" ip ospf authentication-key {password}"));
        }
        Auth::Cryptographic(keys) => {
            if keys.iter().any(|key| key.algorithm != Algorithm::Md5) {
                write_line(text, " ip ospf authentication key-chain isopath");
                return;
            }
            write_line(text, " ip ospf authentication message-digest");
            for Key { id, secret, .. } in keys {
                write_line(
                    text,
                    format_args!(" ip ospf message-digest-key {id} md5 {secret}"),
                );
            }
        }
    }
}

fn write_line(text: &mut String, line: impl std::fmt::Display) {
    writeln!(text, "{line}").expect("writing to a string cannot fail");
}

pub(super) fn ask(namespace: &Namespace, command: &str) -> Result<String> {
    let output = checked(Command::new("vtysh").args(["-N", namespace.name(), "-c", command]))?;
    String::from_utf8(output.stdout).context("vtysh answered in something else than UTF-8")
}

pub(super) fn neighbors(namespace: &Namespace) -> Result<Vec<SwitchNeighbor>> {
    let answer = ask(namespace, "show ip ospf neighbor json")?;
    parse_neighbors(&answer).with_context(|| format!("reading FRR's neighbours: {answer}"))
}

fn parse_neighbors(answer: &str) -> Result<Vec<SwitchNeighbor>> {
    let answer: serde_json::Value = serde_json::from_str(answer)?;
    let mut neighbors = Vec::new();
    let by_router = answer["neighbors"]
        .as_object()
        .context("no \"neighbors\"")?;
    for (router_id, adjacencies) in by_router {
        for adjacency in adjacencies.as_array().context("not a list")? {
            let state = adjacency["nbrState"].as_str().context("no \"nbrState\"")?;
            let router_id = router_id.parse().context("a neighbour's router id")?;
            neighbors.push(SwitchNeighbor {
                router_id,
                state: state.to_owned(),
            });
        }
    }
    neighbors.sort_by_key(|neighbor| neighbor.router_id);
    Ok(neighbors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_ospfd_does_not_know_is_found_in_what_it_says() {
        let said = "2026/11/22 16:29:40 OSPF: [SHWNK-NWT5S][EC 100663304] \
                    No such command on config line 9:  ip ospf authentication key-chain k";
        let command = "ip ospf authentication key-chain k";
        assert_eq!(refused_command(said), Some(command));
        assert_eq!(refused_command("2026/11/22 16:29:40 OSPF: started"), None);
    }
}
