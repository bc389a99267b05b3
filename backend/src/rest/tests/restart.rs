//! What outlives the controller.

use std::sync::Arc;

use axum::http::StatusCode;
use isopath_api::declare::Profile;
use isopath_api::desired::AdminState;
use isopath_api::reason::Reason;
use isopath_api::view::State;
use serde_json::json;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;

use crate::testing::{self, Server, observed, withdrawn, without_dataplane};

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let server = Server::start().await;
    server.declare(2).await;
    for n in [1, 2] {
        server.follow(observed(n, &[1, 2])).await;
    }
    let path = "clusters/edge/directors/d1/drain";
    let drained = server
        .call("POST", path, &json!({ "reason": "kernel" }))
        .await;
    assert_eq!(drained.status, StatusCode::ACCEPTED);
    let (_, before) = server.stream("d1").await.next().await.unwrap();

    let server = server.killed_and_started_again().await;
    let (_, after) = server.stream("d1").await.next().await.unwrap();
    assert_eq!(after, before, "the same generation has the same content");
    let view = server.view().await;
    assert_eq!(view.directors[0].admin_state, AdminState::Draining);
    assert_eq!(view.operations.len(), 1);
    assert_eq!(view.operations[0].id, drained.json["id"].as_str().unwrap());
    assert_eq!(view.operations[0].reason, "kernel");
    assert!(
        view.events
            .iter()
            .any(|event| event.what == "drain requested: kernel")
    );
}

#[tokio::test]
async fn a_drain_goes_on_after_a_restart_once_everybody_was_heard() {
    let server = Server::start().await;
    server.declare(2).await;
    for n in [1, 2] {
        server.follow(observed(n, &[1, 2])).await;
    }
    let drained = server
        .call("POST", "clusters/edge/directors/d1/drain", &json!({}))
        .await;
    let location = drained.headers["location"].to_str().unwrap().to_owned();

    let server = server.killed_and_started_again().await;
    let reason = Reason::Drained {
        text: String::new(),
    };
    let gone = without_dataplane(withdrawn(1, &[2], reason));
    // It announces nothing, as an agent of before does, and is told to.
    server.follow(gone.clone()).await;
    assert_eq!(server.get(&location).await.json["state"], "applying");
    server.follow(gone).await;
    let operation = server.get(&location).await.json;
    assert_eq!(
        operation["state"], "settling",
        "the silence of d2 proves nothing yet"
    );
    server.follow(observed(2, &[2])).await;
    assert_eq!(server.get(&location).await.json["state"], "succeeded");
}

#[tokio::test]
async fn after_a_start_nobody_is_called_lost() {
    let server = Server::start().await;
    server.declare(1).await;
    server.follow(observed(1, &[1])).await;
    let server = server.killed_and_started_again().await;
    let view = server.view().await;
    assert_eq!(view.directors[0].state, State::Unknown);
    assert_eq!(
        view.directors[0].why,
        "not heard since the controller started"
    );
    server.clock.advance(std::time::Duration::from_secs(61));
    assert!(
        server.view().await.directors[0]
            .why
            .contains("was never heard")
    );
}

#[tokio::test]
async fn the_agent_heard_before_the_restart_keeps_its_place_for_a_moment() {
    let server = Server::start().await;
    server.declare(1).await;
    server.follow(observed(1, &[1])).await;
    let server = server.killed_and_started_again().await;
    let mut second = observed(1, &[1]);
    second.instance = "impostor".to_owned();
    assert_eq!(server.report(&second).await.status, StatusCode::CONFLICT);
    assert_eq!(
        server.follow(observed(1, &[1])).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn one_database_is_served_once() {
    let server = Server::start().await;
    let _lock = server.lock();
    let settings = crate::settings::Settings {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        database: Some(server.url()),
        ..Default::default()
    };
    let served = crate::commands::serve(&settings, std::io::sink()).await;
    let error = served.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.starts_with("another isopathd serves from"),
        "{source}"
    );
}

/// What the first release had stored: a declaration without anything that came later, under a
/// schema without what came later.
async fn database_of_the_first_release(directory: &TempDir) {
    let mut first: Migrator = sqlx::migrate!("../migrations");
    first.migrations.to_mut().truncate(1);
    let url = testing::url(directory);
    let options = url.parse::<SqliteConnectOptions>().unwrap();
    let options = options.create_if_missing(true);
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    first.run(&mut database).await.unwrap();
    let declaration = r#"{
        "cluster":"edge","max_paths":8,
        "director":[{"name":"d1","router_id":"10.0.1.2"},{"name":"d2","router_id":"10.0.2.2"}],
        "switch":[{"name":"sw1","router_id":"10.0.0.1"}],
        "vip":[{"address":"10.99.0.1","announce":{"as":"stub","cost":1},"require":"all"}],
        "service":[{
            "vip":"10.99.0.1","protocol":"tcp","port":80,"scheduler":"mh","flags":["mh-port"],
            "forwarding":"dr","quorum":1,
            "check":{"type":"http","path":"/healthz","interval":"1s","timeout":"500ms","rise":2,"fall":2},
            "real_server":[{"address":"10.1.0.11","weight":1},{"address":"10.1.0.12","port":8080,"weight":0}]
        }]
    }"#;
    let revision = "INSERT INTO revisions VALUES ('edge', 3, $1, 'ops', '', 0)";
    for statement in [
        "INSERT INTO epoch VALUES (1, 'e1', 0)",
        "INSERT INTO clusters VALUES ('edge', 3, 0)",
        revision,
        "INSERT INTO directors VALUES ('edge', 'd1', 1, 'active', '', 4, 3, 'instance-1')",
        "INSERT INTO directors VALUES ('edge', 'd2', 1, 'drained', 'kernel', 7, 2, NULL)",
    ] {
        let mut query = sqlx::query(statement);
        if statement == revision {
            query = query.bind(declaration);
        }
        query.execute(&mut database).await.unwrap();
    }
    database.close().await.unwrap();
}

#[tokio::test]
async fn what_an_earlier_release_stored_is_taken_over_under_another_generation() {
    let directory = Arc::new(TempDir::new().unwrap());
    database_of_the_first_release(&directory).await;
    let server = Server::on(directory).await;
    let mut desired = Vec::new();
    for director in ["d1", "d2"] {
        desired.push(server.stream(director).await.next().await.unwrap().1);
    }
    let [d1, d2] = desired.as_slice() else {
        panic!("{desired:?}")
    };
    // The agents have these states in force without profile and digests, and refuse others
    // under the same number.
    assert_eq!((d1.generation, d1.revision), (5, 3));
    assert_eq!((d2.generation, d2.revision), (8, 2));
    assert_eq!(d2.admin_state, AdminState::Drained);
    assert_eq!(d1.lvs.profile, Profile::Stateless);
    assert_eq!(d1.digests.len(), 1);
    assert_eq!(d1.service[0].real_server[1].port, Some(8080));
    assert_eq!(server.view().await.revision, 3);

    let server = server.killed_and_started_again().await;
    let (_, again) = server.stream("d1").await.next().await.unwrap();
    assert_eq!(again, *d1, "the same release derives the same");
}
