//! Measurements over time.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::json;

use crate::samples::{Chunk, STEP_S};
use crate::store::Store;
use crate::store::samples::{self, SampleRow};
use crate::testing::{CLUSTER, SERVICE, Server};

/// The beginning of the window in which d1 had 5 and 7 packets a second, and d2 none that anybody
/// knew.
const WINDOW: &str = "2026-03-02T03:00:00Z";

async fn measured() -> Server {
    let server = Server::start().await;
    server.declare(2).await;
    let mut chunk = Chunk::default();
    for (place, packets) in [(0, 5), (2, 7)] {
        let d1 = (
            "director/d1".parse().unwrap(),
            vec![Some(packets), Some(1), Some(2)],
        );
        let d2 = ("director/d2".parse().unwrap(), vec![None; 3]);
        chunk.push(place, BTreeMap::from([d1, d2]));
    }
    let start: jiff::Timestamp = WINDOW.parse().unwrap();
    let row = SampleRow {
        cluster: CLUSTER.parse().unwrap(),
        step_s: STEP_S,
        start_ms: start.as_millisecond(),
        packed: chunk.pack(),
    };
    let store = Store::open(&server.url()).await.unwrap();
    let mut transaction = store.begin().await.unwrap();
    samples::put(&mut transaction, &row).await.unwrap();
    transaction.commit().await.unwrap();
    server
}

#[tokio::test]
async fn one_object_or_all_of_a_kind_is_answered() {
    let server = measured().await;
    let path = format!("clusters/edge/samples?from={WINDOW}&to=2026-03-02T03:00:40Z&object=");
    let one = server.get(&format!("{path}director/d1")).await;
    assert_eq!(one.status, StatusCode::OK, "{}", one.text);
    let expected = json!({
        "cluster": "edge", "from": WINDOW, "step_s": 10,
        "objects": [{
            "object": "director/d1",
            "series": [
                { "name": "packets_per_second", "values": [5, null, 7, null] },
                { "name": "connections_per_second", "values": [1, null, 1, null] },
                { "name": "active", "values": [2, null, 2, null] },
            ],
        }],
    });
    assert_eq!(one.json, expected);
    let all = server.get(&format!("{path}director")).await;
    assert_eq!(
        all.json["objects"][1]["object"], "director/d2",
        "{}",
        all.text
    );
    let mean = server.get(&format!("{path}director/d1&step=300")).await;
    assert_eq!(mean.json["step_s"], 300);
    assert_eq!(mean.json["objects"][0]["series"][0]["values"], json!([6]));
    let none = server.get(&format!("{path}vip")).await;
    assert_eq!(none.json["objects"], json!([]), "{}", none.text);
}

#[tokio::test]
async fn what_is_wrong_with_a_question_is_said() {
    let server = measured().await;
    for (query, status, expected) in [
        (
            "object=d1",
            400,
            "object: expected an object such as director/d1",
        ),
        ("object=director/d9", 404, "measurement of director/d9"),
        (
            "object=director&step=9",
            400,
            "step: expected a number from 10 to 300, found 9",
        ),
        ("object=director&step=301", 400, "found 301"),
        (
            "object=director&from=2026-03-02T03:00:00Z&to=2026-03-02T03:00:00Z",
            400,
            "from: expected a moment before `to`",
        ),
        (
            "object=director&from=1970-01-01T00:00:00Z&step=10",
            400,
            "at most 100000 steps of 10 s",
        ),
        ("object=director&every=1", 400, "every"),
        ("", 400, "object"),
    ] {
        let answer = server.get(&format!("clusters/edge/samples?{query}")).await;
        assert_eq!(answer.status.as_u16(), status, "{query}: {}", answer.text);
        assert!(answer.text.contains(expected), "{query}: {}", answer.text);
    }
    let absent = server
        .get(&format!("clusters/none/samples?object=service/{SERVICE}"))
        .await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
}
