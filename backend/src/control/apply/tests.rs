use super::*;
use crate::testing::{Known, declaration};

fn row(name: &str, declared: bool, admin_state: AdminState, generation: u64) -> DirectorRow {
    DirectorRow {
        name: name.parse().unwrap(),
        declared,
        admin_state,
        admin_reason: String::new(),
        generation,
        desired_revision: 1,
        instance: None,
    }
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
    let rows = [
        row("d1", true, AdminState::Active, 4),
        row("d2", true, AdminState::Active, 4),
    ];
    let plan = plan(Some(&known.cluster), &rows, &declaration(2));
    assert_eq!((plan.revision, plan.changed), (1, false));
    assert_eq!(generations(&plan.renewed), []);
}

#[test]
fn only_directors_that_shall_do_something_else_get_a_new_generation() {
    let known = Known::new(2);
    let rows = [
        row("d1", true, AdminState::Active, 4),
        row("d2", true, AdminState::Active, 7),
    ];
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

    let grown = plan_of(|new| *new = declaration(3));
    assert_eq!(generations(&grown.renewed), [("d3", 1)]);
}

#[test]
fn a_removed_director_goes_on_counting_and_stays_drained_when_it_comes_back() {
    let known = Known::new(2);
    let rows = [
        row("d1", true, AdminState::Active, 4),
        row("d2", true, AdminState::Draining, 7),
    ];
    let gone = plan(Some(&known.cluster), &rows, &declaration(1));
    // A director that is alone keeps its connections to itself, unless that is declared.
    assert_eq!(generations(&gone.renewed), [("d1", 5)]);
    assert_eq!(gone.removed.len(), 1);
    assert_eq!(gone.removed[0].admin_state, AdminState::Drained);
    assert!(!gone.removed[0].declared);

    let known = Known::new(1);
    let rows = [
        row("d1", true, AdminState::Active, 4),
        gone.removed[0].clone(),
    ];
    let back = plan(Some(&known.cluster), &rows, &declaration(2));
    assert_eq!(generations(&back.renewed), [("d1", 5), ("d2", 8)]);
    assert_eq!(back.renewed[1].admin_state, AdminState::Drained);
}
