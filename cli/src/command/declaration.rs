//! `isopath apply` and `isopath diff`.

use std::path::Path;

use isopath_api::compare::compare;
use isopath_api::declare::{Declaration, Warning};
use isopath_api::fault::{Places, parse_toml};
use isopath_api::ids::ClusterName;
use isopath_api::revision::{DeclarationDiff, SlotsMoved};
use isopath_api::view::{Applied, RevisionView};
use serde_json::Value;

use super::{print, print_json};
use crate::args::Args;
use crate::controller::Controller;
use crate::failure::Failure;
use crate::table::printable;

/// What `isopath apply` is told.
pub(super) struct Apply<'a> {
    pub(super) file: &'a Path,
    pub(super) dry_run: bool,
    pub(super) reason: &'a str,
    /// The revision that the file was made from; the one in force where it is not said.
    pub(super) revision: Option<u64>,
}

pub(super) fn apply(args: &Args, apply: &Apply<'_>) -> Result<(), Failure> {
    let Apply {
        file,
        dry_run,
        reason,
        revision,
    } = *apply;
    let (declaration, text) = read(file)?;
    let controller = Controller::new(&args.target)?;
    let name = cluster_of(args, &controller, &declaration)?;
    let path = format!(
        "/clusters/{name}?dry_run={dry_run}&reason={}",
        percent(reason)
    );
    let revision = match revision {
        Some(revision) => Some(revision),
        None => newest(&controller, &name)?,
    };
    let applied: Applied = controller.put(&path, revision, &declaration)?;
    if args.json {
        return print_json("isopath.apply/1", "applied", &applied);
    }
    print(&warnings(file, &text, &applied.warnings))?;
    print(&summary(&applied))
}

fn summary(applied: &Applied) -> String {
    let Applied {
        cluster,
        revision,
        changed,
        dry_run,
        directors,
        diff,
        warnings: _,
    } = applied;
    if !changed {
        return format!("{cluster}: no difference to revision {revision}\n");
    }
    let names: Vec<_> = directors.iter().map(|director| director.as_str()).collect();
    let names = if names.is_empty() {
        "no director".to_owned()
    } else {
        names.join(", ")
    };
    if *dry_run {
        let detail = diff.as_ref().map_or_else(String::new, detail);
        format!(
            "{detail}{cluster}: would become revision {revision}; concerns {names}. Nothing was \
             changed.\n"
        )
    } else {
        format!("{cluster}: revision {revision}; concerns {names}\n")
    }
}

/// What would be declared otherwise, and whose clients would move.
fn detail(diff: &DeclarationDiff) -> String {
    let changes = diff.changes.iter().map(|change| format!("{change}\n"));
    let moved = diff.slots.iter().map(|slots| {
        let SlotsMoved {
            service, percent, ..
        } = slots;
        format!("{service}: {percent} % of its clients would get another real server\n")
    });
    changes.chain(moved).collect()
}

pub(super) fn diff(args: &Args, file: &Path) -> Result<(), Failure> {
    let (declaration, source) = read(file)?;
    let controller = Controller::new(&args.target)?;
    let name = cluster_of(args, &controller, &declaration)?;
    let declared = declared(&controller, &name)?;
    let wanted = serde_json::to_value(&declaration).expect("declarations are plain data");
    let changes = compare(&declared, &wanted);
    if args.json {
        return print_json("isopath.diff/1", "changes", &changes);
    }
    let mut text = warnings(file, &source, &declaration.warnings());
    for change in &changes {
        text.push_str(&format!("{change}\n"));
    }
    if changes.is_empty() {
        text.push_str(&format!("{name}: no difference\n"));
    }
    print(&text)
}

/// The revision in force; nothing where the cluster is not declared yet.
fn newest(controller: &Controller, name: &ClusterName) -> Result<Option<u64>, Failure> {
    let newest: Vec<RevisionView> =
        match controller.get(&format!("/clusters/{name}/revisions?limit=1")) {
            Err(Failure::Problem(problem)) if problem.status == 404 => Vec::new(),
            answer => answer?,
        };
    Ok(newest.first().map(|revision| revision.revision))
}

/// The declaration in force; an empty document where the cluster is not declared yet.
fn declared(controller: &Controller, name: &ClusterName) -> Result<Value, Failure> {
    match controller.get(&format!("/clusters/{name}/declaration")) {
        Err(Failure::Problem(problem)) if problem.status == 404 => {
            Ok(Value::Object(serde_json::Map::new()))
        }
        answer => answer,
    }
}

/// What is unwise, each with its place in the file, as refusals have it.
fn warnings(file: &Path, text: &str, warnings: &[Warning]) -> String {
    let file = file.display().to_string();
    let places = Places::of(&file, text);
    let line = |it: &Warning| format!("{}\n", printable(&it.in_toml(&places).to_string()));
    warnings.iter().map(line).collect()
}

fn read(file: &Path) -> Result<(Declaration, String), Failure> {
    let text = std::fs::read_to_string(file).map_err(|source| Failure::Read {
        path: file.to_owned(),
        source,
    })?;
    let name = file.display().to_string();
    let declaration = parse_toml(&name, &text, Declaration::validate).map_err(Failure::File)?;
    Ok((declaration, text))
}

/// The cluster that the command line names, else the one that the file names.
fn cluster_of(
    args: &Args,
    controller: &Controller,
    declaration: &Declaration,
) -> Result<ClusterName, Failure> {
    match (&args.target.cluster, &declaration.cluster) {
        (Some(asked), Some(written)) if asked != written => Err(Failure::Usage(format!(
            "the file declares cluster {written}, --cluster says {asked}"
        ))),
        (Some(name), _) | (None, Some(name)) => Ok(name.clone()),
        (None, None) => controller.cluster(&args.target),
    }
}

/// Percent-encodes all but the unreserved characters (RFC 3986 §2.3).
fn percent(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_stands_at_its_line() {
        let text = "[[director]]\nname = \"d1\"\nrouter_id = \"10.0.1.2\"\n\
                    [[vip]]\naddress = \"10.99.0.1\"\n\
                    [[service]]\nvip = \"10.99.0.1\"\nprotocol = \"tcp\"\nport = 80\n\
                    flags = [\"mh-port\"]\ncheck = { type = \"tcp\" }\n\
                    [[service.real_server]]\naddress = \"10.1.0.11\"\n";
        let declaration = parse_toml("edge.toml", text, Declaration::validate).unwrap();
        let shown = warnings(Path::new("edge.toml"), text, &declaration.warnings());
        assert!(
            shown.starts_with("edge.toml:10:9: warning: mh-without-fallback: tcp:10.99.0.1:80: "),
            "{shown}"
        );
    }

    #[test]
    fn a_reason_survives_the_query() {
        assert_eq!(percent("new kernel & more"), "new%20kernel%20%26%20more");
    }
}
