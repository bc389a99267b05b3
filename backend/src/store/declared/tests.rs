use isopath_api::declare::Declaration;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::store::clusters::{self, Provenance};
use crate::store::directors::{self, DirectorRow};
use crate::store::{Store, Write};
use crate::testing::{CLUSTER, declaration, url};

fn cluster() -> ClusterName {
    CLUSTER.parse().unwrap()
}

/// A declaration with everything that a table has a column for.
fn everything() -> Declaration {
    let declaration: Declaration = serde_json::from_value(json!({
        "director": [
            { "name": "d1", "router_id": "10.0.1.2" }, { "name": "d2", "router_id": "10.0.2.2" },
        ],
        "switch": [{ "name": "sw 'one'", "router_id": "10.0.0.1" }],
        "vip": [
            {
                "address": "10.99.0.1", "announce": { "as": "external-2", "cost": 65535 },
                "director_cost": { "d1": 1, "d2": 65535 }, "require": 1,
            },
            { "address": "10.99.0.2", "require": "any" },
        ],
        "service": [
            {
                "vip": "10.99.0.1", "protocol": "tcp", "port": 65535, "scheduler": "wlc",
                "forwarding": "tun", "tunnel": { "type": "gue", "port": 6080, "checksum": "csum" },
                "persistence": { "timeout": "50s", "netmask": "24" },
                "check": {
                    "type": "https", "port": 8443, "path": "/h", "host": "a.example",
                    "status": "200-204", "verify": true, "interval": "1h", "timeout": "1us",
                    "rise": 1, "fall": 65535,
                },
                "real_server": [{
                    "address": "10.1.0.11", "weight": 65535, "upper_threshold": 4294967295_u32,
                    "lower_threshold": 4294967295_u32,
                }],
            },
            {
                "vip": "10.99.0.2", "fwmark": 4294967295_u32, "quorum": 2,
                "check": { "type": "tcp", "port": 80 },
                "real_server": [{ "address": "10.1.0.11" }, { "address": "10.1.0.12" }],
            },
        ],
    }))
    .unwrap();
    assert_eq!(declaration.validate(), []);
    declaration
}

async fn open() -> (TempDir, Write) {
    let directory = TempDir::new().unwrap();
    let store = Store::open(&url(&directory)).await.unwrap();
    let mut transaction = store.begin().await.unwrap();
    let by = Provenance {
        actor: "ops",
        reason: "",
        at: jiff::Timestamp::UNIX_EPOCH,
    };
    clusters::put_revision(&mut transaction, &cluster(), 1, &declaration(1), by)
        .await
        .unwrap();
    for name in ["d1", "d2"] {
        let row = DirectorRow {
            name: name.parse().unwrap(),
            declared: true,
            admin_state: isopath_api::desired::AdminState::Active,
            admin_reason: String::new(),
            generation: 1,
            desired_revision: 1,
            content: String::new(),
            instance: None,
        };
        directors::put(&mut transaction, &cluster(), &row)
            .await
            .unwrap();
    }
    (directory, transaction)
}

async fn count(transaction: &mut Write, what: &'static str) -> i64 {
    sqlx::query_scalar(what)
        .fetch_one(&mut **transaction)
        .await
        .unwrap()
}

#[tokio::test]
async fn every_value_comes_back_as_it_was_declared() {
    let (_directory, mut transaction) = open().await;
    let all = everything();
    put(&mut transaction, &cluster(), None, &all).await.unwrap();
    let found = load(&mut transaction, &cluster()).await.unwrap();
    assert_eq!(found, Declared::of(&all));
    assert!(found.0.iter().all(|rows| !rows.is_empty()), "{found:?}");
    let differing = differing(&mut transaction, &cluster(), &all).await.unwrap();
    assert_eq!(differing, [""; 0]);
}

#[tokio::test]
async fn what_is_declared_no_more_stays_undeclared_and_comes_back() {
    let (_directory, mut transaction) = open().await;
    let (all, less) = (everything(), declaration(1));
    put(&mut transaction, &cluster(), None, &all).await.unwrap();
    put(&mut transaction, &cluster(), Some(&all), &less)
        .await
        .unwrap();
    let found = load(&mut transaction, &cluster()).await.unwrap();
    assert_eq!(found, Declared::of(&less));
    for (what, rows) in [
        ("SELECT count(*) FROM vips WHERE declared = 0", 1),
        ("SELECT count(*) FROM services WHERE declared = 0", 2),
        ("SELECT count(*) FROM real_servers WHERE declared = 0", 3),
        ("SELECT count(*) FROM vip_costs", 0),
        ("SELECT count(*) FROM checks", 1),
    ] {
        assert_eq!(count(&mut transaction, what).await, rows, "{what}");
    }
    put(&mut transaction, &cluster(), Some(&less), &all)
        .await
        .unwrap();
    let found = load(&mut transaction, &cluster()).await.unwrap();
    assert_eq!(found, Declared::of(&all));
}

#[tokio::test]
async fn tables_that_are_empty_or_say_otherwise_are_brought_in_line() {
    let (_directory, mut transaction) = open().await;
    let all = everything();
    assert!(repair(&mut transaction, &cluster(), &all).await.unwrap());
    assert!(!repair(&mut transaction, &cluster(), &all).await.unwrap());
    sqlx::query("UPDATE real_servers SET weight = 7 WHERE address = '10.1.0.12'")
        .execute(&mut *transaction)
        .await
        .unwrap();
    sqlx::query("DELETE FROM checks")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let wrong = differing(&mut transaction, &cluster(), &all).await.unwrap();
    assert_eq!(wrong, ["real_servers", "checks"]);
    assert!(repair(&mut transaction, &cluster(), &all).await.unwrap());
    let wrong = differing(&mut transaction, &cluster(), &all).await.unwrap();
    assert_eq!(wrong, [""; 0]);
}

#[tokio::test]
async fn a_cluster_of_thousands_of_real_servers_is_written_whole() {
    let (_directory, mut transaction) = open().await;
    let mut large = everything();
    let server = large.service[1].real_server[0].clone();
    for n in 0..2_500_u32 {
        let mut server = server.clone();
        server.address = (0x0a02_0000 + n).into();
        large.service[1].real_server.push(server);
    }
    put(&mut transaction, &cluster(), None, &large)
        .await
        .unwrap();
    let found = load(&mut transaction, &cluster()).await.unwrap();
    assert_eq!(found, Declared::of(&large));
}
