use isopath_api::operation::StepState::{Ahead, Now, Skipped};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use tempfile::TempDir;

use super::super::open::MIGRATOR;
use super::*;
use crate::store::Store;

/// The last migration of the release without steps.
const WITHOUT_STEPS: i64 = 4;

/// What that release had under way and ended.
const OF_BEFORE: &str = "
    INSERT INTO clusters (name, revision, made_ms) VALUES ('edge', 1, 0);
    INSERT INTO directors (cluster, name, declared, admin_state, admin_reason, generation,
                           desired_revision)
    VALUES ('edge', 'd1', 1, 'draining', 'kernel', 2, 1),
           ('edge', 'd2', 1, 'active', '', 7, 1),
           ('edge', 'd3', 1, 'drained', '', 4, 1);
    INSERT INTO operations (id, cluster, director, kind, state, detail, need_generation,
                            requested_by, reason, override_guards, started_ms, ended_ms)
    VALUES ('op_1', 'edge', 'd1', 'director.drain', 'settling', 'waiting', 2,
            'ops', 'kernel', '[\"last_announcer\"]', 1000, NULL),
           ('op_2', 'edge', 'd2', 'director.undrain', 'applying', 'waiting', 7,
            'ops', '', '[]', 2000, NULL),
           ('op_3', 'edge', 'd3', 'director.drain', 'succeeded', 'done', 4,
            'ops', '', '[]', 500, 900);";

async fn upgraded() -> (TempDir, Store) {
    let directory = TempDir::new().unwrap();
    let url = crate::testing::url(&directory);
    let mut connection = SqliteConnection::connect(&format!("{url}?mode=rwc"))
        .await
        .unwrap();
    MIGRATOR
        .run_to(WITHOUT_STEPS, &mut connection)
        .await
        .unwrap();
    sqlx::raw_sql(AssertSqlSafe(OF_BEFORE))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let store = Store::open(&url).await.unwrap();
    (directory, store)
}

fn steps(operation: &Operation) -> Vec<(&'static str, StepState)> {
    let steps = operation.steps.iter();
    steps.map(|it| (it.name.as_str(), it.state)).collect()
}

#[tokio::test]
async fn what_a_release_without_steps_had_under_way_goes_on() {
    let (_directory, store) = upgraded().await;
    let mut connection = store.begin().await.unwrap();
    let cluster = "edge".parse().unwrap();
    let declared: Vec<Vip> = ["10.99.0.1", "10.99.0.2"]
        .map(|vip| vip.parse().unwrap())
        .into();
    let open = open_of_cluster(&mut connection, &cluster, &declared)
        .await
        .unwrap();
    let ids: Vec<&str> = open.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(ids, ["op_2", "op_1"]);

    let drain = &open[1];
    let expected = [
        ("guard", Skipped),
        ("cost", Skipped),
        ("withdraw", Now),
        ("set", Ahead),
        ("traffic", Ahead),
    ];
    assert_eq!(steps(drain), expected);
    assert_eq!(drain.at_stake, declared, "it did not write down which");
    assert_eq!(drain.target, Target::Director("d1".parse().unwrap()));
    assert_eq!(drain.override_guards, ["last_announcer"]);
    // What it is told is another admin state from now on, under another number.
    assert_eq!(drain.need[&"d1".parse().unwrap()], 3);
    assert_eq!(steps(&open[0]), [("restore", Now), ("return", Ahead)]);

    // From its first change on it is stored whole.
    update(&mut connection, drain).await.unwrap();
    let again = open_of_cluster(&mut connection, &cluster, &[])
        .await
        .unwrap();
    assert_eq!(again[1], *drain);

    let ended = by_id(&mut connection, "op_3").await.unwrap().unwrap();
    assert_eq!(ended.state, OperationState::Succeeded);
    let states: Vec<StepState> = ended.steps.iter().map(|it| it.state).collect();
    assert_eq!(states, [Skipped; 5]);
}
