//! `isopath apply` and `isopath diff`.

use std::path::Path;

use isopath_api::declare::{Declaration, Warning};
use isopath_api::fault::{Places, parse_toml};
use isopath_api::ids::ClusterName;
use isopath_api::view::{Applied, RevisionView};
use reqwest::Method;
use serde_json::Value;

use super::{print, print_json};
use crate::args::Args;
use crate::controller::Controller;
use crate::failure::Failure;
use crate::table::printable;

pub(super) fn apply(args: &Args, file: &Path, dry_run: bool, reason: &str) -> Result<(), Failure> {
    let (declaration, text) = read(file)?;
    let controller = Controller::new(&args.target)?;
    let name = cluster_of(args, &controller, &declaration)?;
    let path = format!(
        "/clusters/{name}?dry_run={dry_run}&reason={}",
        percent(reason)
    );
    let applied: Applied = controller.send(Method::PUT, &path, Some(&declaration))?;
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
        format!(
            "{cluster}: would become revision {revision}; concerns {names}. Nothing was changed.\n"
        )
    } else {
        format!("{cluster}: revision {revision}; concerns {names}\n")
    }
}

pub(super) fn diff(args: &Args, file: &Path) -> Result<(), Failure> {
    let (declaration, source) = read(file)?;
    let controller = Controller::new(&args.target)?;
    let name = cluster_of(args, &controller, &declaration)?;
    let declared = declared(&controller, &name)?;
    let wanted = serde_json::to_value(&declaration).expect("declarations are plain data");
    let mut changes = Vec::new();
    compare("", &declared, &wanted, &mut changes);
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

/// The declaration in force; an empty document where the cluster is not declared yet.
fn declared(controller: &Controller, name: &ClusterName) -> Result<Value, Failure> {
    let newest: Vec<RevisionView> =
        match controller.get(&format!("/clusters/{name}/revisions?limit=1")) {
            Err(Failure::Problem(problem)) if problem.status == 404 => Vec::new(),
            answer => answer?,
        };
    let Some(newest) = newest.first() else {
        return Ok(Value::Object(serde_json::Map::new()));
    };
    let path = format!("/clusters/{name}/revisions/{}", newest.revision);
    let revision: RevisionView = controller.get(&path)?;
    Ok(serde_json::to_value(revision.declaration).expect("declarations are plain data"))
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

/// One difference, at its JSON pointer.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
struct Change {
    pointer: String,
    declared: Option<Value>,
    wanted: Option<Value>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.declared, &self.wanted) {
            (Some(old), Some(new)) => write!(f, "~ {}: {old} -> {new}", self.pointer),
            (Some(old), None) => write!(f, "- {}: {old}", self.pointer),
            (None, Some(new)) => write!(f, "+ {}: {new}", self.pointer),
            (None, None) => Ok(()),
        }
    }
}

/// The differences between two documents. Elements of lists are told apart by what names
/// them, so that one more real server is one difference wherever it stands.
fn compare(pointer: &str, declared: &Value, wanted: &Value, changes: &mut Vec<Change>) {
    match (declared, wanted) {
        (Value::Object(old), Value::Object(new)) => {
            let mut keys: Vec<_> = old.keys().chain(new.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                member(
                    &format!("{pointer}/{key}"),
                    old.get(key),
                    new.get(key),
                    changes,
                );
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            let mut names: Vec<_> = old.iter().chain(new).map(name_of).collect();
            names.sort();
            names.dedup();
            for name in names {
                let find = |list: &[Value]| list.iter().find(|v| name_of(v) == name).cloned();
                let (old, new) = (find(old), find(new));
                member(
                    &format!("{pointer}/{name}"),
                    old.as_ref(),
                    new.as_ref(),
                    changes,
                );
            }
        }
        (old, new) if old == new => {}
        (old, new) => changes.push(Change {
            pointer: pointer.to_owned(),
            declared: Some(old.clone()),
            wanted: Some(new.clone()),
        }),
    }
}

fn member(pointer: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    match (old, new) {
        (Some(old), Some(new)) => compare(pointer, old, new, changes),
        (old, new) => changes.push(Change {
            pointer: pointer.to_owned(),
            declared: old.cloned(),
            wanted: new.cloned(),
        }),
    }
}

/// What names an element of a list: its name or address, or protocol, VIP and port.
fn name_of(value: &Value) -> String {
    let field = |key: &str| {
        value
            .get(key)
            .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
    };
    if let (Some(protocol), Some(vip), Some(port)) =
        (field("protocol"), field("vip"), field("port"))
    {
        return format!("{protocol}:{vip}:{port}");
    }
    if let (Some(mark), Some(vip)) = (field("fwmark"), field("vip")) {
        return format!("fwmark:{vip}:{mark}");
    }
    match (field("name").or_else(|| field("address")), field("port")) {
        (Some(name), Some(port)) => format!("{name}:{port}"),
        (Some(name), None) => name,
        (None, _) => value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned),
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
    use serde_json::json;

    #[test]
    fn one_more_real_server_is_one_difference_wherever_it_stands() {
        let server = |address: &str| json!({"address": address, "weight": 1});
        let service = |servers: Vec<Value>| json!({"service": [{"protocol": "tcp", "vip": "10.99.0.1", "port": 80, "real_server": servers}]});
        let old = service(vec![server("10.1.0.11"), server("10.1.0.12")]);
        let new = service(vec![
            server("10.1.0.10"),
            server("10.1.0.12"),
            server("10.1.0.11"),
        ]);
        let mut changes = Vec::new();
        compare("", &old, &new, &mut changes);
        let texts: Vec<_> = changes.iter().map(Change::to_string).collect();
        assert_eq!(
            texts,
            [
                r#"+ /service/tcp:10.99.0.1:80/real_server/10.1.0.10: {"address":"10.1.0.10","weight":1}"#
            ]
        );
    }

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
    fn a_changed_value_shows_both_sides() {
        let mut changes = Vec::new();
        compare(
            "",
            &json!({"max_paths": 8}),
            &json!({"max_paths": 4}),
            &mut changes,
        );
        assert_eq!(changes[0].to_string(), "~ /max_paths: 8 -> 4");
    }

    #[test]
    fn a_reason_survives_the_query() {
        assert_eq!(percent("new kernel & more"), "new%20kernel%20%26%20more");
    }
}
