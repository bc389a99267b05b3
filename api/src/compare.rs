//! The differences between two declarations, as people and programs read them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One difference between two documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Change {
    /// Where, as a JSON pointer (RFC 6901) but for lists: what names an element stands in the
    /// place of its number, such as `/service/tcp:10.99.0.1:80/real_server/10.1.0.11`.
    pub pointer: String,
    /// What was there; nothing where it is new.
    pub before: Option<Value>,
    /// What is there now; nothing where it is gone.
    pub after: Option<Value>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.before, &self.after) {
            (Some(old), Some(new)) => write!(f, "~ {}: {old} -> {new}", self.pointer),
            (Some(old), None) => write!(f, "- {}: {old}", self.pointer),
            (None, Some(new)) => write!(f, "+ {}: {new}", self.pointer),
            (None, None) => Ok(()),
        }
    }
}

/// The differences between two documents. Elements of lists are told apart by what names
/// them, so that one more real server is one difference wherever it stands.
pub fn compare(before: &Value, after: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare_at("", before, after, &mut changes);
    changes
}

fn compare_at(pointer: &str, before: &Value, after: &Value, changes: &mut Vec<Change>) {
    match (before, after) {
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
            let by_name = |list: &[Value]| -> BTreeMap<String, usize> {
                let places = list.iter().enumerate();
                places.map(|(at, value)| (name_of(value), at)).collect()
            };
            let (olds, news) = (by_name(old), by_name(new));
            let names: BTreeSet<&String> = olds.keys().chain(news.keys()).collect();
            for name in names {
                let find = |list: &[Value], places: &BTreeMap<String, usize>| {
                    places.get(name).and_then(|at| list.get(*at)).cloned()
                };
                member(
                    &format!("{pointer}/{name}"),
                    find(old, &olds).as_ref(),
                    find(new, &news).as_ref(),
                    changes,
                );
            }
        }
        (old, new) if old == new => {}
        (old, new) => changes.push(Change {
            pointer: pointer.to_owned(),
            before: Some(old.clone()),
            after: Some(new.clone()),
        }),
    }
}

fn member(pointer: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    match (old, new) {
        (Some(old), Some(new)) => compare_at(pointer, old, new, changes),
        (old, new) => changes.push(Change {
            pointer: pointer.to_owned(),
            before: old.cloned(),
            after: new.cloned(),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
        let changes = compare(&old, &new);
        let texts: Vec<_> = changes.iter().map(Change::to_string).collect();
        assert_eq!(
            texts,
            [
                r#"+ /service/tcp:10.99.0.1:80/real_server/10.1.0.10: {"address":"10.1.0.10","weight":1}"#
            ]
        );
    }

    #[test]
    fn a_changed_value_shows_both_sides() {
        let changes = compare(&json!({"max_paths": 8}), &json!({"max_paths": 4}));
        assert_eq!(changes[0].to_string(), "~ /max_paths: 8 -> 4");
    }
}
