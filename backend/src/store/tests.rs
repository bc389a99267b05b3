use isopath_api::desired::AdminState;
use sqlx::ConnectOptions as _;
use tempfile::TempDir;

use super::*;
use crate::control::operation::{Kind, Operation, Step, Target};
use crate::store::clusters::Provenance;
use crate::store::directors::DirectorRow;
use crate::store::events::NewEvent;
use crate::testing::{CLUSTER, declaration, url};

async fn open() -> (TempDir, Store) {
    let directory = TempDir::new().unwrap();
    let store = Store::open(&url(&directory)).await.unwrap();
    (directory, store)
}

fn now() -> Timestamp {
    "2026-03-02T03:12:41.123Z".parse().unwrap()
}

#[tokio::test]
async fn the_database_is_set_up_so_that_acknowledged_writes_stay() {
    let (_directory, store) = open().await;
    let mut transaction = store.begin().await.unwrap();
    for (pragma, expected) in [
        ("PRAGMA journal_mode", "wal"),
        ("PRAGMA synchronous", "2"),
        ("PRAGMA foreign_keys", "1"),
        ("PRAGMA auto_vacuum", "2"),
        ("PRAGMA busy_timeout", "5000"),
    ] {
        let row = sqlx::query(pragma)
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
        let found = sqlx::Row::try_get::<String, _>(&row, 0)
            .or_else(|_| sqlx::Row::try_get::<i64, _>(&row, 0).map(|n| n.to_string()));
        assert_eq!(found.unwrap(), expected, "{pragma}");
    }
}

#[tokio::test]
async fn readers_cannot_write() {
    let (_directory, store) = open().await;
    let mut reader = store.read().await.unwrap();
    let error = events::insert(&mut reader, event(1)).await.unwrap_err();
    assert!(error.to_string().contains("readonly"), "{error}");
}

/// Which tokens were used since the backup is not known to it.
#[tokio::test]
async fn a_restored_database_has_no_one_time_tokens() {
    let (directory, store) = open().await;
    let token = enroll_tokens::NewEnrollToken {
        cluster: CLUSTER.parse().unwrap(),
        director: "d1".parse().unwrap(),
        made_by: "ops".to_owned(),
        expires: now() + Duration::from_secs(3600),
    };
    let mut transaction = store.begin().await.unwrap();
    enroll_tokens::insert(&mut transaction, "hash", &token, now())
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let (url, file) = (url(&directory), directory.path().join("copy.db"));
    backup::backup(&url, &file, false).await.unwrap();
    store.close().await;
    backup::restore(&url, &file, now()).await.unwrap();
    let store = Store::open(&url).await.unwrap();
    let mut transaction = store.begin().await.unwrap();
    let agent = uuid::Uuid::new_v4();
    let tried = enroll_tokens::consume(&mut transaction, "hash", agent, now()).await;
    assert_eq!(tried.unwrap(), enroll_tokens::Consumed::Unknown);
}

#[tokio::test]
async fn the_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, _store) = open().await;
    for file in ["isopath.db", "isopath.db-wal"] {
        let metadata = std::fs::metadata(directory.path().join(file)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn only_one_controller_serves_from_a_database() {
    let (directory, _store) = open().await;
    let lock = ServeLock::take(&url(&directory)).unwrap();
    let error = ServeLock::take(&url(&directory)).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    drop(lock);
    ServeLock::take(&url(&directory)).unwrap();
}

#[tokio::test]
async fn what_is_no_sqlite_url_is_refused() {
    for url in [
        "postgres://localhost/isopath",
        "sqlite::memory:",
        "sqlite://",
        "isopath.db",
    ] {
        let error = Store::open(url).await.unwrap_err().to_string();
        assert!(error.contains("such as sqlite://isopath.db"), "{error}");
        assert!(error.contains(url), "{error}");
    }
}

#[test]
fn an_sqlite_that_corrupts_is_refused() {
    for (version, enough) in [
        ("3.51.3", true),
        ("3.52.0", true),
        ("4.0.0", true),
        ("3.51.2", false),
        ("3.9.9", false),
        ("", false),
    ] {
        assert_eq!(is_new_enough(version), enough, "{version:?}");
    }
}

#[tokio::test]
async fn the_epoch_is_made_once() {
    let (_directory, store) = open().await;
    let mut transaction = store.begin().await.unwrap();
    let first = epoch::load_or_make(&mut transaction, now()).await.unwrap();
    let again = epoch::load_or_make(&mut transaction, now()).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(first.len(), 32);
}

async fn put_cluster(connection: &mut sqlx::SqliteConnection, revision: u64) {
    let by = Provenance {
        actor: "ops",
        reason: "because",
        at: now(),
    };
    let name = CLUSTER.parse().unwrap();
    let declaration = declaration(u8::try_from(revision).unwrap());
    clusters::put_revision(connection, &name, revision, &declaration, by)
        .await
        .unwrap();
}

fn director(generation: u64) -> DirectorRow {
    DirectorRow {
        name: "d1".parse().unwrap(),
        declared: true,
        admin_state: AdminState::Draining,
        admin_reason: "kernel".to_owned(),
        generation,
        desired_revision: 1,
        content: format!("content {generation}"),
        instance: None,
    }
}

#[tokio::test]
async fn revisions_stay_and_the_last_is_in_force() {
    let (_directory, store) = open().await;
    let name = CLUSTER.parse().unwrap();
    let mut transaction = store.begin().await.unwrap();
    for revision in [1, 2, 3] {
        put_cluster(&mut transaction, revision).await;
    }
    let all = clusters::all(&mut transaction).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].revision, &all[0].declaration), (3, &declaration(3)));
    let listed = clusters::revisions(&mut transaction, &name, Some(3), 10)
        .await
        .unwrap();
    assert_eq!(
        listed.iter().map(|r| r.revision).collect::<Vec<_>>(),
        [2, 1]
    );
    assert_eq!((listed[0].actor.as_str(), listed[0].at), ("ops", now()));
    let first = clusters::revision(&mut transaction, &name, 1)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(first.declaration, Some(declaration(1)));
    assert_eq!(
        clusters::revision(&mut transaction, &name, 9)
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn a_directors_row_survives_and_keeps_its_instance() {
    let (_directory, store) = open().await;
    let name = CLUSTER.parse().unwrap();
    let mut transaction = store.begin().await.unwrap();
    put_cluster(&mut transaction, 1).await;
    directors::put(&mut transaction, &name, &director(1))
        .await
        .unwrap();
    let d1 = "d1".parse().unwrap();
    directors::set_instance(&mut transaction, &name, &d1, "i1")
        .await
        .unwrap();
    directors::put(&mut transaction, &name, &director(2))
        .await
        .unwrap();
    let expected = DirectorRow {
        instance: Some("i1".to_owned()),
        ..director(2)
    };
    let rows = directors::of_cluster(&mut transaction, &name)
        .await
        .unwrap();
    assert_eq!(rows, [expected]);
}

fn operation(id: &str) -> Operation {
    use isopath_api::operation::{OnDeadline, StepName, StepState};
    let step = Step {
        name: StepName::Withdraw,
        state: StepState::Now,
        since: Some(now()),
        evidence: String::new(),
    };
    Operation {
        id: id.to_owned(),
        cluster: CLUSTER.parse().unwrap(),
        target: Target::Director("d1".parse().unwrap()),
        kind: Kind::Drain,
        state: isopath_api::operation::OperationState::Applying,
        steps: vec![step],
        detail: "waiting".to_owned(),
        blocked_by: vec!["rollout".to_owned()],
        need: [("d1".parse().unwrap(), 2)].into(),
        at_stake: vec!["10.99.0.1".parse().unwrap()],
        targets: Vec::new(),
        requested_by: "ops".to_owned(),
        reason: "kernel".to_owned(),
        override_guards: vec!["last_announcer".to_owned()],
        immediate: true,
        deadline_at: now(),
        on_deadline: OnDeadline::Finish,
        base_revision: 1,
        version: 3,
        started_at: now(),
        ended_at: None,
        quiet: Default::default(),
    }
}

#[tokio::test]
async fn a_director_has_at_most_one_open_operation() {
    use isopath_api::operation::OperationState::Cancelled;
    let (_directory, store) = open().await;
    let name = CLUSTER.parse().unwrap();
    let mut transaction = store.begin().await.unwrap();
    put_cluster(&mut transaction, 1).await;
    directors::put(&mut transaction, &name, &director(1))
        .await
        .unwrap();
    operations::insert(&mut transaction, &operation("op_1"))
        .await
        .unwrap();
    let error = operations::insert(&mut transaction, &operation("op_2"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("UNIQUE"), "{error}");
    let ended = Operation {
        state: Cancelled,
        detail: "undone".to_owned(),
        ended_at: Some(now()),
        ..operation("op_1")
    };
    operations::update(&mut transaction, &ended).await.unwrap();
    operations::insert(&mut transaction, &operation("op_2"))
        .await
        .unwrap();
    let open = operations::open_of_cluster(&mut transaction, &name, &[])
        .await
        .unwrap();
    assert_eq!(open, [operation("op_2")]);
    let ended = operations::by_id(&mut transaction, "op_1")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((ended.state, ended.ended_at), (Cancelled, Some(now())));
    assert_eq!(ended.detail, "undone");
}

fn event(n: u64) -> NewEvent {
    NewEvent {
        at: now(),
        cluster: n.is_multiple_of(2).then(|| CLUSTER.parse().unwrap()),
        severity: isopath_api::view::Severity::Warning,
        object: "director d1".to_owned(),
        what: format!("event {n}"),
        actor: "ops".to_owned(),
    }
}

#[tokio::test]
async fn events_are_paged_by_number_and_by_cluster() {
    let (_directory, store) = open().await;
    let mut transaction = store.begin().await.unwrap();
    for n in 1..=6 {
        let stored = events::insert(&mut transaction, event(n)).await.unwrap();
        assert_eq!(stored.id, n);
    }
    let ids = |events: Vec<isopath_api::view::EventView>| {
        events.iter().map(|event| event.id).collect::<Vec<_>>()
    };
    let last = events::last(&mut transaction, None, None, 2).await.unwrap();
    assert_eq!(ids(last), [6, 5]);
    let before = events::last(&mut transaction, None, Some(5), 2)
        .await
        .unwrap();
    assert_eq!(ids(before), [4, 3]);
    let name = CLUSTER.parse().unwrap();
    let of_cluster = events::last(&mut transaction, Some(&name), None, 9)
        .await
        .unwrap();
    assert_eq!(ids(of_cluster), [6, 4, 2]);
}

#[tokio::test]
async fn a_token_keeps_its_role_and_its_name_is_its_own() {
    use crate::store::tokens::{Clusters, Scope, TokenRow};
    use isopath_api::access::Role;
    let (_directory, store) = open().await;
    let mut transaction = store.begin().await.unwrap();
    let cluster: isopath_api::ids::ClusterName = CLUSTER.parse().unwrap();
    let only = Clusters::Only([cluster.clone(), "other".parse().unwrap()].into());
    for (hash, name, scope) in [
        ("h1", "ops", Scope::of(Role::Operator)),
        ("h2", "agents", Scope::Agent { cluster }),
        (
            "h4",
            "narrow",
            Scope::User {
                role: Role::Viewer,
                clusters: only,
            },
        ),
    ] {
        let token = TokenRow::new(name, scope, "test", now());
        assert!(
            tokens::insert(&mut transaction, hash, &token)
                .await
                .unwrap()
        );
        assert_eq!(
            tokens::find(&mut transaction, hash).await.unwrap(),
            Some(token)
        );
    }
    let again = TokenRow::new("ops", Scope::of(Role::Operator), "test", now());
    assert!(
        !tokens::insert(&mut transaction, "h3", &again)
            .await
            .unwrap()
    );
    assert_eq!(tokens::find(&mut transaction, "h3").await.unwrap(), None);
    assert!(
        tokens::revoke(&mut transaction, "ops", now())
            .await
            .unwrap()
    );
    assert!(
        tokens::insert(&mut transaction, "h3", &again)
            .await
            .unwrap(),
        "a revoked one makes place for its successor"
    );
    assert_eq!(tokens::find(&mut transaction, "h1").await.unwrap(), None);
}

/// A database as the release before the last migration left it.
async fn of_an_earlier_release(url: &str) {
    let store = Store::open(url).await.unwrap();
    let mut transaction = store.begin().await.unwrap();
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version > 8")
        .execute(&mut *transaction)
        .await
        .unwrap();
    for index in ["operations_ended", "audit_at"] {
        let drop = sqlx::AssertSqlSafe(format!("DROP INDEX {index}"));
        sqlx::query(drop).execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn the_tables_are_not_changed_under_a_server_of_another_release() {
    let directory = TempDir::new().unwrap();
    let url = url(&directory);
    of_an_earlier_release(&url).await;
    let lock = ServeLock::take(&url).unwrap();
    let refused = Store::open(&url).await.unwrap_err();
    let told = refused.to_string();
    assert!(matches!(refused, OpenError::InUse { .. }), "{told}");
    assert!(told.contains("restart that first"), "{told}");
    drop(lock);
    let options = super::open::connect_options(&url).unwrap();
    let mut connection = options.connect().await.unwrap();
    let newest: i64 = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(newest, 8, "nothing was changed");
}

#[tokio::test]
async fn a_command_waits_for_a_server_that_brings_the_tables_up_to_date() {
    let directory = TempDir::new().unwrap();
    let url = url(&directory);
    of_an_earlier_release(&url).await;
    let lock = ServeLock::take(&url).unwrap();
    let server = async {
        // So that the command finds the lock taken before the tables are as it needs them.
        tokio::time::sleep(Duration::from_millis(200)).await;
        Store::open_checked(&url).await
    };
    let (command, server) = tokio::join!(Store::open(&url), server);
    command.unwrap();
    server.unwrap();
    drop(lock);
}

#[tokio::test]
async fn a_database_of_a_later_release_is_refused_as_such() {
    let (directory, store) = open().await;
    let mut transaction = store.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (999, 'later', 1, x'00', 0)",
    )
    .execute(&mut *transaction)
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    // Also while that serves from it.
    let _lock = ServeLock::take(&url(&directory)).unwrap();
    for refused in [
        Store::open(&url(&directory)).await.unwrap_err(),
        Store::open_checked(&url(&directory)).await.unwrap_err(),
    ] {
        let told = refused.to_string();
        assert!(told.contains("a later release"), "{told}");
    }
}
