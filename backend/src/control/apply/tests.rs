use super::*;
use crate::control::quiesced::Quiesced;
use crate::testing::{Known, declaration};

/// A director's row as a cluster of `directors` directors left it.
fn row(
    directors: u8,
    name: &str,
    (declared, admin_state): (bool, AdminState),
    generation: u64,
) -> DirectorRow {
    let declaration = declaration(directors);
    let mut specs = declaration.director.iter();
    let spec = specs.find(|spec| spec.name.as_str() == name).unwrap();
    DirectorRow {
        name: name.parse().unwrap(),
        declared,
        admin_state,
        admin_reason: String::new(),
        generation,
        desired_revision: 1,
        content: Derived::of(&declaration, &Quiesced::default()).content(&declaration, spec),
        instance: None,
    }
}

const IN_SERVICE: (bool, AdminState) = (true, AdminState::Active);

fn plan(current: Option<&ClusterState>, rows: &[DirectorRow], new: &Declaration) -> Plan {
    super::plan(current, rows, new, &Derived::of(new, &Quiesced::default()))
}

fn generations(rows: &[DirectorRow]) -> Vec<(&str, u64)> {
    rows.iter()
        .map(|row| (row.name.as_str(), row.generation))
        .collect()
}

#[test]
fn the_first_declaration_starts_every_generation_at_one() {
    let plan = plan(None, &[], &declaration(2));
    assert_eq!((plan.revision, plan.changed), (1, true));
    assert_eq!(generations(&plan.renewed), [("d1", 1), ("d2", 1)]);
}

#[test]
fn the_same_declaration_changes_nothing() {
    let known = Known::new(2);
    let rows = [row(2, "d1", IN_SERVICE, 4), row(2, "d2", IN_SERVICE, 4)];
    let plan = plan(Some(&known.cluster), &rows, &declaration(2));
    assert_eq!((plan.revision, plan.changed), (1, false));
    assert_eq!(generations(&plan.renewed), []);
}

#[test]
fn only_directors_that_shall_do_something_else_get_a_new_generation() {
    let known = Known::new(2);
    let rows = [row(2, "d1", IN_SERVICE, 4), row(2, "d2", IN_SERVICE, 7)];
    let plan_of = |change: fn(&mut Declaration)| {
        let mut new = declaration(2);
        change(&mut new);
        plan(Some(&known.cluster), &rows, &new)
    };
    let wider = plan_of(|new| new.max_paths = 16);
    assert_eq!((wider.revision, wider.changed), (2, true));
    assert_eq!(
        generations(&wider.renewed),
        [],
        "the width is the switches' affair"
    );

    let cost = plan_of(|new| new.vip[0].announce.cost = 20);
    assert_eq!(generations(&cost.renewed), [("d1", 5), ("d2", 8)]);

    let moved = plan_of(|new| new.director[1].router_id = "10.0.9.2".parse().unwrap());
    assert_eq!(generations(&moved.renewed), [("d2", 8)]);
    assert_eq!(moved.renewed[0].desired_revision, 2);

    let backup = plan_of(|new| {
        let d2 = "d2".parse().unwrap();
        new.vip[0].director_cost.insert(d2, 100);
    });
    assert_eq!(generations(&backup.renewed), [("d2", 8)]);

    let grown = plan_of(|new| *new = declaration(3));
    assert_eq!(generations(&grown.renewed), [("d3", 1)]);

    let alone = plan_of(|new| *new = declaration(1));
    assert_eq!(
        generations(&alone.renewed),
        [("d1", 5)],
        "a director that is alone is stateful"
    );
}

#[test]
fn what_a_controller_derives_otherwise_than_before_is_wanted_anew() {
    let known = Known::new(2);
    let mut rows = [row(2, "d1", IN_SERVICE, 4), row(2, "d2", IN_SERVICE, 7)];
    rows[1].content = String::new();
    let wider = Declaration {
        max_paths: 16,
        ..declaration(2)
    };
    let plan = plan(Some(&known.cluster), &rows, &wider);
    assert_eq!(generations(&plan.renewed), [("d2", 8)]);
}

#[test]
fn a_removed_director_goes_on_counting_and_stays_drained_when_it_comes_back() {
    let known = Known::new(3);
    let rows = [
        row(3, "d1", IN_SERVICE, 4),
        row(3, "d2", IN_SERVICE, 4),
        row(3, "d3", (true, AdminState::Draining), 7),
    ];
    let gone = plan(Some(&known.cluster), &rows, &declaration(2));
    assert_eq!(generations(&gone.renewed), []);
    assert_eq!(gone.removed.len(), 1);
    assert_eq!(gone.removed[0].admin_state, AdminState::Drained);
    assert!(!gone.removed[0].declared);

    let known = Known::new(2);
    let [d1, d2, _] = rows;
    let back = plan(
        Some(&known.cluster),
        &[d1, d2, gone.removed[0].clone()],
        &declaration(3),
    );
    assert_eq!(generations(&back.renewed), [("d3", 8)]);
    assert_eq!(back.renewed[0].admin_state, AdminState::Drained);
}
