//! BIRD 2 as the switch.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use isopath_api::config::{AreaType, NetworkType};

use super::{SwitchArea, SwitchConfig, SwitchNeighbor};
use crate::auth::{Algorithm, Auth, Key};
use crate::netns::{Namespace, checked};
use crate::process::Process;

const SOCKET: &str = "bird.ctl";

pub(super) fn start(
    namespace: &Namespace,
    directory: &Path,
    config: &SwitchConfig,
) -> Result<Vec<Process>> {
    let file = write_conf(directory, config)?;
    let mut command = Command::new("bird");
    command
        .arg("-f")
        .arg("-c")
        .arg(&file)
        .arg("-s")
        .arg(directory.join(SOCKET));
    let log = directory.join("bird.out");
    Ok(vec![Process::spawn(namespace, "BIRD", &log, &mut command)?])
}

fn write_conf(directory: &Path, config: &SwitchConfig) -> Result<PathBuf> {
    let file = directory.join("bird.conf");
    let text = conf(directory, config);
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

pub(super) fn version() -> Result<String> {
    let output = checked(Command::new("bird").arg("--version"))?;
    // It says so on its standard error.
    let said = String::from_utf8_lossy(&output.stderr);
    let version = said.trim().strip_prefix("BIRD version ");
    version
        .map(|version| format!("BIRD {version}"))
        .with_context(|| format!("no version in {said:?}"))
}

pub(super) fn refusal(directory: &Path, config: &SwitchConfig) -> Result<Option<String>> {
    let file = write_conf(directory, config)?;
    let mut check = Command::new("bird");
    let output = check
        .arg("-p")
        .arg("-c")
        .arg(&file)
        .output()
        .context("starting bird")?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok((!output.status.success()).then_some(said))
}

fn conf(directory: &Path, config: &SwitchConfig) -> String {
    let log = directory.join("bird.log");
    let (router_id, max_paths) = (config.router_id, config.max_paths);
    let (bfd_protocol, bfd) = match config.timers.bfd {
        None => (String::new(), ""),
        Some(bfd) => {
            let (interval, multiplier) = (bfd.interval.as_millis(), bfd.multiplier);
            let protocol = format!(
                "protocol bfd {{ interface \"*\" {{ min rx interval {interval} ms; \
                 min tx interval {interval} ms; multiplier {multiplier}; }}; }}\n"
            );
            (protocol, "bfd yes; ")
        }
    };
    let network = match config.network {
        NetworkType::PointToPoint => "ptp",
        NetworkType::Broadcast => "broadcast",
    };
    let (hello, dead) = (config.timers.hello.as_secs(), config.timers.dead.as_secs());
    let auth = authentication(&config.auth);
    let (mut fabric, mut passive) = (String::new(), String::new());
    for name in &config.fabric {
        writeln!(
            fabric,
            "    interface \"{name}\" {{ type {network}; cost 10; priority 10; hello {hello}; \
             dead {dead}; {bfd}{auth}}};"
        )
        .expect("writing to a string cannot fail");
    }
    for name in &config.passive {
        writeln!(passive, "    interface \"{name}\" {{ stub yes; }};")
            .expect("writing to a string cannot fail");
    }
    let areas = areas(config.area, &fabric, &passive);
    format!(
        "log \"{log}\" all;
router id {router_id};
protocol device {{ }}
protocol kernel {{
  merge paths yes limit {max_paths};
  ipv4 {{ import none; export where source ~ [ RTS_OSPF, RTS_OSPF_IA, RTS_OSPF_EXT1, RTS_OSPF_EXT2 ]; }};
}}
{bfd_protocol}protocol ospf v2 {{
  ecmp yes limit {max_paths};
  merge external yes;
  tick 1;
  ipv4 {{ import all; export none; }};
{areas}}}
",
        log = log.display()
    )
}

/// The areas with their interfaces. BIRD takes each area once.
fn areas(area: SwitchArea, fabric: &str, passive: &str) -> String {
    let kind = match area.kind {
        AreaType::Normal => "",
        AreaType::Stub => "    stub;\n",
        AreaType::Nssa => "    nssa;\n",
    };
    if area.id == SwitchArea::BACKBONE.id {
        return format!("  area {} {{\n{kind}{fabric}{passive}  }};\n", area.id);
    }
    let backbone = SwitchArea::BACKBONE.id;
    format!(
        "  area {} {{\n{kind}{fabric}  }};\n  area {backbone} {{\n{passive}  }};\n",
        area.id
    )
}

/// The interface's options for authentication. Of several keys that are valid for ever BIRD sends
/// with the first, so the last one comes first.
fn authentication(auth: &Auth) -> String {
    match auth {
        Auth::None => String::new(),
        Auth::Simple(password) => format!("authentication simple; password \"{password}\"; "),
        Auth::Cryptographic(keys) => {
            let mut text = "authentication cryptographic; ".to_owned();
            for key in keys.iter().rev() {
                let algorithm = match key.algorithm {
                    Algorithm::Md5 => "keyed md5",
                    Algorithm::HmacSha1 => "hmac sha1",
                    Algorithm::HmacSha256 => "hmac sha256",
                    Algorithm::HmacSha384 => "hmac sha384",
                    Algorithm::HmacSha512 => "hmac sha512",
                };
                let Key { id, secret, .. } = key;
                write!(
                    text,
                    "password \"{secret}\" {{ id {id}; algorithm {algorithm}; }}; "
                )
                .expect("writing to a string cannot fail");
            }
            text
        }
    }
}

pub(super) fn ask(namespace: &Namespace, directory: &Path, command: &str) -> Result<String> {
    let mut birdc = Command::new("birdc");
    birdc
        .arg("-r")
        .arg("-s")
        .arg(directory.join(SOCKET))
        .args(command.split(' '));
    let output = checked(&mut birdc).with_context(|| format!("of {}", namespace.name()))?;
    String::from_utf8(output.stdout).context("birdc answered in something else than UTF-8")
}

pub(super) fn neighbors(namespace: &Namespace, directory: &Path) -> Result<Vec<SwitchNeighbor>> {
    let answer = ask(namespace, directory, "show ospf neighbors")?;
    Ok(parse_neighbors(&answer))
}

/// The lines of a table whose first two columns are the router id and the priority; BIRD's
/// other lines (its greeting, the protocol's name, the head of the table) do not start so.
fn parse_neighbors(answer: &str) -> Vec<SwitchNeighbor> {
    let mut neighbors = Vec::new();
    for line in answer.lines() {
        let mut columns = line.split_whitespace();
        let router_id = columns.next().and_then(|column| column.parse().ok());
        let state = columns.nth(1);
        if let (Some(router_id), Some(state)) = (router_id, state) {
            neighbors.push(SwitchNeighbor {
                router_id,
                state: state.to_owned(),
            });
        }
    }
    neighbors.sort_by_key(|neighbor| neighbor.router_id);
    neighbors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_neighbours_is_read() {
        let answer = "BIRD 2.0.12 ready.\nospf1:\n\
            Router ID   \tPri\t     State     \tDTime\tInterface  Router IP\n\
            10.0.2.2    \t  1\tFull/PtP  \t3.411\td2         10.0.2.2\n\
            10.0.1.2    \t  0\tExStart/Other\t3.0\td1         10.0.1.2\n";
        let neighbors = parse_neighbors(answer);
        let seen: Vec<_> = neighbors
            .iter()
            .map(|n| (n.router_id.to_string(), n.is_full()))
            .collect();
        assert_eq!(
            seen,
            [
                ("10.0.1.2".to_owned(), false),
                ("10.0.2.2".to_owned(), true)
            ]
        );
    }
}
