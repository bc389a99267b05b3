//! What a new declaration would change, worked out without changing anything.

use std::collections::BTreeMap;

use isopath_api::compare::compare;
use isopath_api::declare::{Declaration, Scheduler, ServiceSpec};
use isopath_api::digest::Placement;
use isopath_api::ids::{DirectorName, ServiceId};
use isopath_api::revision::{DeclarationDiff, DirectorDiff, DirectorPart, SlotsMoved};
use isopath_mh::{Family, Table};
use serde_json::{Value, json};

/// What lies between two declarations; nothing before the first one.
pub fn between(before: Option<&Declaration>, after: &Declaration) -> DeclarationDiff {
    let document = |declaration: &Declaration| {
        let mut value = serde_json::to_value(declaration).expect("declarations are plain data");
        // It is the same on both sides, whether a file names it or not.
        value.as_object_mut().map(|fields| fields.remove("cluster"));
        value
    };
    let nothing = || Value::Object(serde_json::Map::new());
    DeclarationDiff {
        changes: compare(&before.map_or_else(nothing, document), &document(after)),
        directors: directors(before, after),
        slots: before.map_or_else(Vec::new, |before| slots(before, after)),
    }
}

/// What each director has otherwise, in the order of the new declaration; the removed ones last.
fn directors(before: Option<&Declaration>, after: &Declaration) -> Vec<DirectorDiff> {
    let wanted = |declaration: Option<&Declaration>| -> BTreeMap<DirectorName, Value> {
        declaration.map_or_else(BTreeMap::new, |declaration| {
            let shared = Shared::of(declaration);
            let specs = declaration.director.iter();
            specs
                .map(|spec| (spec.name.clone(), shared.at(declaration, &spec.name)))
                .collect()
        })
    };
    let (olds, news) = (wanted(before), wanted(Some(after)));
    let part = |old: Option<&Value>, new: Option<&Value>| match (old, new) {
        (None, _) => DirectorPart::Added,
        (Some(_), None) => DirectorPart::Removed,
        (Some(_), Some(_)) => DirectorPart::Changed,
    };
    let declared = after.director.iter().map(|spec| &spec.name);
    let removed = olds.keys().filter(|name| !news.contains_key(*name));
    let null = Value::Object(serde_json::Map::new());
    declared
        .chain(removed)
        .filter_map(|name| {
            let (old, new) = (olds.get(name), news.get(name));
            let changes = compare(old.unwrap_or(&null), new.unwrap_or(&null));
            (!changes.is_empty()).then(|| DirectorDiff {
                director: name.clone(),
                part: part(old, new),
                changes,
            })
        })
        .collect()
}

/// What is wanted of all directors alike.
struct Shared {
    lvs: Value,
    services: Value,
}

impl Shared {
    fn of(declaration: &Declaration) -> Self {
        let plain = "declarations are plain data";
        Self {
            lvs: serde_json::to_value(declaration.lvs()).expect(plain),
            services: serde_json::to_value(&declaration.service).expect(plain),
        }
    }

    /// The same with what is one director's own.
    fn at(&self, declaration: &Declaration, name: &DirectorName) -> Value {
        let vips: Vec<_> = declaration.vip.iter().map(|vip| vip.at(name)).collect();
        let spec = declaration.director.iter().find(|spec| spec.name == *name);
        json!({
            "router_id": spec.map(|spec| spec.router_id),
            "vip": vips,
            "lvs": self.lvs,
            "service": self.services,
        })
    }
}

/// The services with `mh` on both sides whose tables differ.
fn slots(before: &Declaration, after: &Declaration) -> Vec<SlotsMoved> {
    let tables =
        |declaration: &Declaration| -> BTreeMap<ServiceId, Vec<(std::net::SocketAddr, u32)>> {
            let lvs = declaration.lvs();
            let services = declaration.service.iter();
            services
                .filter(|service| service.scheduler == Scheduler::Mh)
                .map(|service| (service.id(), list(service, &lvs)))
                .collect()
        };
    let (olds, news) = (tables(before), tables(after));
    news.into_iter()
        .filter_map(|(service, new)| {
            let old = olds.get(&service).filter(|old| **old != new)?;
            let (old, new) = (Table::new(Family::V4, old), Table::new(Family::V4, &new));
            let (moved, slots) = (old.differing_slots(&new), new.size());
            (moved > 0).then(|| SlotsMoved {
                service,
                moved,
                slots,
                percent: percent(moved, slots),
            })
        })
        .collect()
}

/// A service's real servers in the order of the kernel's list, with the weights of its table.
fn list(
    service: &ServiceSpec,
    lvs: &isopath_api::declare::Lvs,
) -> Vec<(std::net::SocketAddr, u32)> {
    let placement = Placement::declared(service, lvs);
    let slots = placement.real_servers.iter();
    slots.map(|slot| (slot.address, slot.weight)).collect()
}

/// A share in per cent, to two places: more is not known of clients that are yet to come.
fn percent(part: usize, of: usize) -> f64 {
    let of = u32::try_from(of).unwrap_or(u32::MAX).max(1);
    let part = u32::try_from(part).unwrap_or(u32::MAX);
    (f64::from(part) * 10_000.0 / f64::from(of)).round() / 100.0
}

#[cfg(test)]
mod tests {
    use isopath_api::declare::RealServerSpec;

    use super::*;
    use crate::testing::declaration;

    fn with_servers(count: u8) -> Declaration {
        let mut declaration = declaration(2);
        let service = &mut declaration.service[0];
        service.scheduler = Scheduler::Mh;
        let template = service.real_server[0].clone();
        service.real_server = (1..=count)
            .map(|n| RealServerSpec {
                address: std::net::Ipv4Addr::new(10, 1, 0, n),
                ..template.clone()
            })
            .collect();
        declaration
    }

    #[test]
    fn the_same_is_no_difference() {
        let diff = between(Some(&with_servers(4)), &with_servers(4));
        assert_eq!(diff, DeclarationDiff::default());
    }

    #[test]
    fn the_first_declaration_adds_everything() {
        let diff = between(None, &with_servers(4));
        let parts: Vec<_> = diff.directors.iter().map(|it| it.part).collect();
        assert_eq!(parts, [DirectorPart::Added; 2]);
        assert!(diff.changes.iter().all(|change| change.before.is_none()));
        assert_eq!(diff.slots, []);
    }

    #[test]
    fn one_real_server_less_moves_its_share_and_little_else() {
        let diff = between(Some(&with_servers(10)), &with_servers(9));
        assert_eq!(diff.changes.len(), 1, "{:?}", diff.changes);
        assert_eq!(diff.directors.len(), 2);
        let [moved] = diff.slots.as_slice() else {
            panic!("{:?}", diff.slots);
        };
        assert_eq!(moved.slots, 4093);
        // A tenth has lost its real server; Maglev moves few of the others.
        assert!((10.0..15.0).contains(&moved.percent), "{moved:?}");
        assert_eq!(moved.percent, percent(moved.moved, 4093));
    }

    #[test]
    fn a_check_moves_nobody() {
        let (before, mut after) = (with_servers(4), with_servers(4));
        after.service[0].check.fall += 1;
        let diff = between(Some(&before), &after);
        assert_eq!(diff.changes.len(), 1, "{:?}", diff.changes);
        assert_eq!(diff.slots, []);
        assert_eq!(diff.directors.len(), 2);
    }

    #[test]
    fn a_cost_concerns_one_director() {
        let (before, mut after) = (with_servers(4), with_servers(4));
        let name = after.director[1].name.clone();
        after.vip[0].director_cost.insert(name.clone(), 100);
        let diff = between(Some(&before), &after);
        let [only] = diff.directors.as_slice() else {
            panic!("{:?}", diff.directors);
        };
        assert_eq!(only.director, name);
        assert!(
            only.changes[0].pointer.ends_with("/announce/cost"),
            "{only:?}"
        );
    }

    #[test]
    fn a_removed_director_is_named() {
        let (before, mut after) = (with_servers(4), with_servers(4));
        let removed = after.director.remove(0);
        let diff = between(Some(&before), &after);
        let last = diff.directors.last().unwrap();
        assert_eq!(
            (&last.director, last.part),
            (&removed.name, DirectorPart::Removed)
        );
    }
}
