use tempfile::TempDir;

use super::*;
use crate::store::{OpenError, Store};
use crate::testing::{CLUSTER, Server, url};

/// A database with a declared cluster, and what both checks find after `damage`.
async fn findings(damage: &'static str) -> (Vec<String>, Vec<String>) {
    let server = Server::start().await;
    server.declare(2).await;
    let store = Store::open(&server.url()).await.unwrap();
    let mut transaction = store.begin().await.unwrap();
    for statement in damage.split(';').filter(|it| !it.trim().is_empty()) {
        sqlx::query(statement)
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    let quick = check(&mut transaction, Depth::Quick).await.unwrap();
    let full = check(&mut transaction, Depth::Full).await.unwrap();
    (quick, full)
}

#[tokio::test]
async fn a_database_that_is_whole_has_no_findings() {
    let (quick, full) = findings("").await;
    assert_eq!((quick, full), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let deferred = "PRAGMA defer_foreign_keys = 1;";
    let cases = [
        ("DELETE FROM revisions", "row 1 of clusters"),
        (
            "UPDATE clusters SET revision = 2",
            "revision is not there: edge",
        ),
        (
            "INSERT INTO revisions SELECT cluster, 2, declaration, actor, reason, at_ms \
             FROM revisions",
            "after the one in force: edge",
        ),
        (
            "UPDATE revisions SET revision = 2; UPDATE clusters SET revision = 2; \
             UPDATE directors SET desired_revision = 2",
            "not numbered through: edge",
        ),
        (
            "UPDATE directors SET desired_revision = 7 WHERE name = 'd2'",
            "not there: edge/d2",
        ),
        ("DELETE FROM epoch", "without an epoch: edge"),
        (
            "UPDATE revisions SET declaration = '{'",
            "revision 1 of cluster edge cannot be read",
        ),
        (
            "UPDATE directors SET name = 'd9' WHERE name = 'd2'",
            "director d2 of cluster edge is declared by revision 1 and has no row",
        ),
    ];
    for (damage, expected) in cases {
        let damage = Box::leak(format!("{deferred}{damage}").into_boxed_str());
        let (quick, full) = findings(damage).await;
        let first_case = damage.contains("DELETE FROM revisions");
        let expected = if first_case { CLUSTER } else { expected };
        assert!(quick.join("\n").contains(expected), "{damage}: {quick:?}");
        assert!(full.join("\n").contains(expected), "{damage}: {full:?}");
    }
    let (quick, full) = findings("UPDATE vips SET cost = 7").await;
    assert_eq!(quick, [""; 0], "a start brings it in line");
    assert_eq!(
        full,
        ["table vips is not as revision 1 of cluster edge says"]
    );
}

#[tokio::test]
async fn a_file_that_is_none_or_was_overwritten_is_refused_with_the_way_out() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("isopath.db");
    std::fs::write(&file, [b'x'; 8192]).unwrap();
    let error = Store::open_checked(&url(&directory)).await.unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert!(
        error.to_string().contains("isopathd restore --database"),
        "{error}"
    );

    let server = Server::start().await;
    server.declare(2).await;
    let file = server.url().strip_prefix("sqlite://").unwrap().to_owned();
    let store = Store::open(&server.url()).await.unwrap();
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut **store.writer.acquire().await.as_mut().unwrap())
        .await
        .unwrap();
    store.close().await;
    let mut bytes = std::fs::read(&file).unwrap();
    let pages = bytes.len() / 4096;
    for page in pages / 2..pages {
        bytes[page * 4096..page * 4096 + 100].fill(0xa5);
    }
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("isopath.db"), bytes).unwrap();
    let error = Store::open_checked(&url(&directory)).await.unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert!(
        error.to_string().contains("isopath.db is damaged: "),
        "{error}"
    );
}
