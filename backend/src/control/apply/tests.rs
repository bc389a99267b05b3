use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;

use super::*;
use crate::control::quiesced::Quiesced;
use crate::store::Store;
use crate::testing::{Known, Server, declaration, declaration_json, observed};

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

/// What the agents are is stored after it is believed: a declaration goes by what is believed.
#[tokio::test]
async fn a_declaration_forgets_no_agent_that_is_still_to_be_stored() {
    let server = Server::start().await;
    server.declare(2).await;
    let answer = server.follow(observed(1, &[1, 2])).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let store = Store::open(&server.url()).await.unwrap();
    let mut transaction = store.begin().await.unwrap();
    sqlx::query(
        "CREATE TRIGGER refuse BEFORE UPDATE OF instance ON directors \
         BEGIN SELECT RAISE(ABORT, 'not now'); END",
    )
    .execute(&mut *transaction)
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    server.clock.advance(Duration::from_secs(6));
    let mut second = observed(1, &[1, 2]);
    (second.instance, second.run) = ("second".to_owned(), "run-2".to_owned());
    let answer = server.follow(second.clone()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);

    let instance = || {
        let world = server.app.world();
        let cluster = &world.clusters[&crate::testing::CLUSTER.parse().unwrap()];
        cluster.directors[&"d1".parse().unwrap()].instance.clone()
    };
    let mut dearer = declaration_json(2);
    dearer["vip"][0]["announce"] = json!({ "cost": 20 });
    let answer = server.call("PUT", "clusters/edge", &dearer).await;
    assert_eq!(answer.json["directors"], json!(["d1", "d2"]));
    assert_eq!(instance().as_deref(), Some("second"));
    let answer = server.follow(second.clone()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);

    dearer["director"][0]["router_id"] = json!("10.0.9.2");
    server.call("PUT", "clusters/edge", &dearer).await;
    assert_eq!(instance().as_deref(), Some("second"), "under its new id");
}

/// What is asked again with the same key is answered as before, also where there was nothing to
/// do: by now it might undo what somebody else has done.
#[tokio::test]
async fn a_declaration_that_changed_nothing_is_not_carried_out_later() {
    use crate::testing::request;
    let server = Server::start().await;
    server.declare(1).await;
    let back = || {
        let path = "clusters/edge/revisions/1/rollback";
        let mut request = request("POST", path, Some(&server.operator), Some(&json!({})));
        let headers = request.headers_mut();
        headers.insert("idempotency-key", "back".parse().unwrap());
        headers.insert("if-match", "*".parse().unwrap());
        server.send(request)
    };
    let first = back().await;
    assert_eq!(first.json["changed"], false, "{}", first.text);
    server.declare(2).await;
    let again = back().await;
    assert_eq!(again.json, first.json);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(server.view().await.revision, 2);
}
