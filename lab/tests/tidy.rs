//! The rules of the house that no lint checks.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which of our crates each of them may use. What is not here uses none.
const USES: [(&str, &[&str]); 8] = [
    (
        "isopath-speaker",
        &["isopath-api", "isopath-ospf", "isopath-bfd"],
    ),
    ("isopath-hostile", &["isopath-ospf", "isopath-bfd"]),
    ("isopath-agent", &["isopath-api", "isopath-ipvs"]),
    // The controller computes which clients a change would move, and touches no kernel.
    ("isopathd", &["isopath-api", "isopath-mh"]),
    ("isopath-ipvs", &["isopath-mh"]),
    ("isopath", &["isopath-api"]),
    // The lab runs the built programs, and reads what they say by the contract; its benchmark
    // asks the kernel what they made of it, and its tests read what they captured with the cores.
    (
        "isopath-lab",
        &["isopath-api", "isopath-bfd", "isopath-ipvs", "isopath-ospf"],
    ),
    ("isopath-api", &[]),
];

/// Crates without I/O, clocks and threads, and their folders.
const CORES: [(&str, &str); 3] = [
    ("isopath-api", "api"),
    ("isopath-ospf", "ospf-speaker/proto"),
    ("isopath-bfd", "ospf-speaker/bfd"),
];

/// Crates that reach the system, whoever brings them in.
const IO_CRATES: [&str; 12] = [
    "async-io",
    "getrandom",
    "hyper",
    "libc",
    "mio",
    "netlink-sys",
    "nix",
    "reqwest",
    "rustix",
    "signal-hook",
    "socket2",
    "tokio",
];

/// What each core's `clippy.toml` must ban at least.
const BANNED_IN_CORES: [&str; 4] = [
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::thread::sleep",
    "std::fs::read",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// The tracked files that hold text, with it.
fn tracked_texts() -> Vec<(String, String)> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .split_terminator('\0')
        // A file may be tracked and deleted while somebody works on it.
        .filter_map(|path| {
            let text = std::fs::read_to_string(root().join(path)).ok()?;
            Some((path.to_owned(), text))
        })
        .collect()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The packages of the workspace.
fn members(metadata: &Value) -> Vec<&Value> {
    let ids = strings(&metadata["workspace_members"]);
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .filter(|package| ids.contains(package["id"].as_str().unwrap()))
        .collect()
}

fn strings(list: &Value) -> BTreeSet<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|item| item.as_str().unwrap())
        .collect()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

/// Every line of every text for which `wrong` holds, as `path:line: text`.
fn offending_lines(wrong: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in tracked_texts() {
        for (index, line) in text.lines().enumerate() {
            if wrong(&path, line) {
                found.push(format!("{path}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn no_tracked_file_names_a_place_of_one_machine() {
    // Put together here, or this file would be found too.
    let places = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/."),
        concat!("/ho", "me/"),
    ];
    let found = offending_lines(|_, line| places.iter().any(|place| line.contains(place)));
    assert!(
        found.is_empty(),
        "these work on one machine only:\n{}",
        found.join("\n")
    );
}

#[test]
fn no_merge_was_left_half_done() {
    // Seven signs and a space, which no other line of ours begins with.
    let marks = ["<".repeat(7) + " ", ">".repeat(7) + " "];
    let found = offending_lines(|_, line| marks.iter().any(|mark| line.starts_with(mark)));
    assert!(found.is_empty(), "left by a merge:\n{}", found.join("\n"));
}

#[test]
fn no_lint_is_silenced_without_a_reason() {
    let (outer, inner) = (concat!("#[", "allow("), concat!("#![", "allow("));
    let found = offending_lines(|path, line| {
        path.ends_with(".rs") && (line.contains(outer) || line.contains(inner))
    });
    assert!(
        found.is_empty(),
        "use #[expect(.., reason = \"..\")]:\n{}",
        found.join("\n")
    );
}

#[test]
fn every_member_inherits_the_lints_of_the_workspace() {
    let metadata = metadata();
    for member in members(&metadata) {
        let manifest = std::fs::read_to_string(member["manifest_path"].as_str().unwrap()).unwrap();
        let inherits = manifest.contains("\n[lints]\nworkspace = true\n");
        assert!(inherits, "{} has lints of its own or none", name(member));
    }
}

#[test]
fn uses_run_one_way() {
    let metadata = metadata();
    let members = members(&metadata);
    let ours: BTreeSet<&str> = members.iter().map(|member| name(member)).collect();
    let allowed: BTreeMap<&str, &[&str]> = USES.into_iter().collect();
    for member in members {
        let allowed = allowed.get(name(member)).copied().unwrap_or_default();
        for dependency in member["dependencies"].as_array().unwrap() {
            let used = name(dependency);
            assert!(
                !ours.contains(used) || allowed.contains(&used),
                "{} uses {used}; it may use {allowed:?} (docs/ARCHITECTURE.md, Parts)",
                name(member),
            );
        }
    }
}

#[test]
fn the_cores_have_no_way_to_do_io() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeMap<&str, &str> = packages
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), name(package)))
        .collect();
    for (core, _) in CORES {
        let (id, _) = names.iter().find(|(_, name)| **name == core).unwrap();
        for used in uses(&metadata, id) {
            let used = names[used];
            assert!(
                !IO_CRATES.contains(&used),
                "{core} brings in {used}, which does I/O"
            );
        }
    }
}

/// Everything that a package is linked with, by package id.
fn uses<'a>(metadata: &'a Value, id: &str) -> BTreeSet<&'a str> {
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let mut found = BTreeSet::new();
    let mut open = vec![id];
    while let Some(id) = open.pop() {
        let node = nodes.iter().find(|node| node["id"] == id).unwrap();
        for dependency in node["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            let used = dependency["pkg"].as_str().unwrap();
            // Neither tests nor build scripts run inside the core.
            if kinds.iter().any(|kind| kind["kind"].is_null()) && found.insert(used) {
                open.push(used);
            }
        }
    }
    found
}

#[test]
fn the_cores_ban_clocks_and_io() {
    for (core, folder) in CORES {
        let path = root().join(folder).join("clippy.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        for banned in BANNED_IN_CORES {
            let entry = format!("path = \"{banned}\"");
            assert!(
                text.contains(&entry),
                "{} does not keep {banned} out of {core}",
                path.display()
            );
        }
    }
}

#[test]
fn every_relative_link_in_the_documentation_leads_somewhere() {
    let mut dead = Vec::new();
    for (path, text) in tracked_texts()
        .iter()
        .filter(|(path, _)| path.ends_with(".md"))
    {
        let folder = root().join(path).parent().unwrap().to_owned();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#']).next())
        {
            let elsewhere = link.is_empty() || link.contains("://");
            if !elsewhere && !folder.join(link).exists() {
                dead.push(format!("{path}: {link}"));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}
