//! SIGKILL at any moment under load: what was acknowledged is there, and nothing is half done.

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::served::{DEADLINE, Launcher, NoAnswer, Served, declaration_of, drain, request};

const KILLS: usize = 200;
/// Clients at once, each with a cluster of its own: nobody else decides what its next revision is.
const CLIENTS: usize = 4;
/// Kills with a request under way that make the test worth its name.
const LEAST_IN_FLIGHT: usize = KILLS / 2;
/// A kill comes after so many answers at most, and so many milliseconds more: on a slow machine
/// later, and not into less.
const MOST_ANSWERS: u64 = 12;
const LATEST_MS: u64 = 12;

/// What a client was told, and what it was not told any more.
#[derive(Debug, Default)]
struct Heard {
    /// The number that the declaration of each acknowledged revision was made of.
    revisions: Vec<(u64, u64)>,
    operations: Vec<String>,
    /// The number of a declaration whose answer never came.
    unanswered: Option<u64>,
    /// Whether anything was asked whose answer never came.
    in_flight: bool,
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same kills for the same seed, as far as the machine
/// allows.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn seed() -> u64 {
    match std::env::var("SEED") {
        Ok(text) => text.parse().expect("SEED is a number"),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_secs()),
    }
}

#[test]
fn no_kill_loses_or_halves_what_was_acknowledged() {
    let seed = seed();
    println!("SEED={seed}");
    let mut random = Random(seed);
    let directory = TempDir::new().unwrap();
    let launcher = Launcher::here(directory.path());
    let runtime = Runtime::new().unwrap();
    let mut served = Served::start(&launcher);
    let token = launcher.token("ops");
    let numbers = Arc::new(AtomicUsize::new(1));
    let (mut in_flight, mut revisions, mut operations) = (0, 0, 0);
    let began = Instant::now();
    for kill in 0..KILLS {
        let after = random.below(MOST_ANSWERS);
        let pause = Duration::from_micros(random.below(LATEST_MS * 1000));
        let heard = load_and_kill(served, &token, &numbers, (after, pause));
        in_flight += usize::from(heard.iter().any(|heard| heard.in_flight));
        revisions += heard
            .iter()
            .map(|heard| heard.revisions.len())
            .sum::<usize>();
        operations += heard
            .iter()
            .map(|heard| heard.operations.len())
            .sum::<usize>();
        // A start repairs what can be derived, so every other look is before it, at what the
        // kill left; the rest leave the recovery of the WAL to the server.
        let context = format!("seed {seed}, kill {kill}");
        if kill % 2 == 0 {
            runtime.block_on(look(&launcher, &heard, &context));
        }
        served = Served::start(&launcher);
        if kill % 2 == 1 {
            runtime.block_on(look(&launcher, &heard, &context));
        }
        for (client, heard) in heard.iter().enumerate() {
            ask(&served, &token, client, heard, &context);
        }
    }
    served.terminate();
    println!(
        "{KILLS} kills in {:.1?}, {in_flight} with requests under way; {revisions} revisions and \
         {operations} operations were acknowledged",
        began.elapsed()
    );
    runtime.block_on(assert_whole(&launcher.directory, "at the end"));
    assert!(
        in_flight >= LEAST_IN_FLIGHT,
        "only {in_flight} of {KILLS} kills hit a request under way: seed {seed}"
    );
    assert!(
        revisions > KILLS && operations > 0,
        "too little was acknowledged"
    );
}

/// Lets the clients write until the server is killed.
fn load_and_kill(
    served: Served,
    token: &str,
    numbers: &Arc<AtomicUsize>,
    (after, pause): (u64, Duration),
) -> Vec<Heard> {
    let start = Arc::new(Barrier::new(CLIENTS + 1));
    let answers = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (address, token) = (served.address.clone(), token.to_owned());
            let (start, numbers) = (Arc::clone(&start), Arc::clone(numbers));
            let answers = Arc::clone(&answers);
            std::thread::spawn(move || {
                start.wait();
                write(client, &address, &token, (&numbers, &answers))
            })
        })
        .collect();
    start.wait();
    let began = Instant::now();
    while answers.load(Ordering::Relaxed) < after {
        assert!(began.elapsed() < DEADLINE, "no answers under load");
        std::thread::sleep(Duration::from_micros(200));
    }
    std::thread::sleep(pause);
    served.kill();
    clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .collect()
}

fn cluster(client: usize) -> String {
    format!("c{client}")
}

fn declaration(client: usize, n: u64) -> Value {
    declaration_of(&format!("10.99.{client}.1"), n)
}

/// Writes until the server is gone: mostly declarations, sometimes a drain or its end.
fn write(
    client: usize,
    address: &str,
    token: &str,
    (numbers, answers): (&AtomicUsize, &AtomicU64),
) -> Heard {
    let path = format!("/api/v1/clusters/{}", cluster(client));
    let mut heard = Heard::default();
    let mut turn = 0;
    loop {
        turn += 1;
        let answer = match turn % 4 {
            3 | 0 => {
                let verb = if turn % 4 == 3 { "drain" } else { "undrain" };
                let body = if verb == "drain" { drain() } else { json!({}) };
                let path = format!("{path}/directors/d1/{verb}");
                request(address, "POST", &path, token, Some(&body))
            }
            _ => {
                let n = numbers.fetch_add(1, Ordering::Relaxed) as u64;
                heard.unanswered = Some(n);
                let body = declaration(client, n);
                let answer = request(address, "PUT", &path, token, Some(&body));
                if let Ok(answer) = &answer {
                    assert!([200, 201].contains(&answer.status), "{answer:?}");
                    let revision = answer.json()["revision"].as_u64().unwrap();
                    heard.revisions.push((revision, n));
                    heard.unanswered = None;
                }
                answer
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => {
                heard.in_flight = why == NoAnswer::Cut;
                return heard;
            }
        };
        answers.fetch_add(1, Ordering::Relaxed);
        match answer.status {
            200 | 201 => {}
            202 => {
                let id = answer.json()["id"].as_str().unwrap().to_owned();
                heard.operations.push(id);
            }
            // What the kill before left: drained already, or in service already.
            409 => {}
            _ => panic!("{answer:?}"),
        }
    }
}

async fn connect(directory: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(directory.join("isopath.db"))
        .busy_timeout(Duration::from_secs(5))
        .connect()
        .await
        .unwrap()
}

/// Looks into the database for what was acknowledged, and for anything half done.
async fn look(launcher: &Launcher, heard: &[Heard], context: &str) {
    use sqlx::Connection;
    let mut connection = connect(&launcher.directory).await;
    for (client, heard) in heard.iter().enumerate() {
        let cluster = cluster(client);
        for (revision, n) in &heard.revisions {
            let found = declared(&mut connection, &cluster, *revision).await;
            let expected = declared_cost(&declaration(client, *n));
            assert_eq!(found, Some(expected), "{context}: {cluster} r{revision}");
        }
        for id in &heard.operations {
            let found: Option<String> =
                sqlx::query_scalar("SELECT id FROM operations WHERE id = $1")
                    .bind(id)
                    .fetch_optional(&mut connection)
                    .await
                    .unwrap();
            assert!(found.is_some(), "{context}: operation {id} is lost");
        }
        assert_complete(&mut connection, &cluster, context).await;
    }
    connection.close().await.unwrap();
}

/// The cost of the VIP, which is another one in each declaration.
fn declared_cost(declaration: &Value) -> i64 {
    declaration["vip"][0]["announce"]["cost"].as_i64().unwrap()
}

async fn declared(connection: &mut SqliteConnection, cluster: &str, revision: u64) -> Option<i64> {
    let text: Option<String> = sqlx::query_scalar(
        "SELECT declaration FROM revisions WHERE cluster = $1 AND revision = $2",
    )
    .bind(cluster)
    .bind(i64::try_from(revision).unwrap())
    .fetch_optional(connection)
    .await
    .unwrap();
    text.map(|text| declared_cost(&serde_json::from_str(&text).unwrap()))
}

/// The revision in force has its tables, its directors' generations and its event.
async fn assert_complete(connection: &mut SqliteConnection, cluster: &str, context: &str) {
    let revision: Option<i64> = sqlx::query_scalar("SELECT revision FROM clusters WHERE name = $1")
        .bind(cluster)
        .fetch_optional(&mut *connection)
        .await
        .unwrap();
    let Some(revision) = revision else {
        return;
    };
    let context = format!("{context}: {cluster} r{revision}");
    let cost = declared(connection, cluster, u64::try_from(revision).unwrap())
        .await
        .unwrap_or_else(|| panic!("{context}: the revision in force is not there"));
    let vips: Vec<i64> = sqlx::query_scalar("SELECT cost FROM vips WHERE cluster = $1")
        .bind(cluster)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    assert_eq!(vips, [cost], "{context}: vips");
    let weights: Vec<i64> = sqlx::query_scalar(
        "SELECT weight FROM real_servers WHERE cluster = $1 AND address = '10.1.0.11'",
    )
    .bind(cluster)
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    assert_eq!(weights, [cost - 1], "{context}: real_servers");
    let directors: Vec<(String, i64)> = sqlx::query_as(
        "SELECT name, desired_revision FROM directors WHERE cluster = $1 ORDER BY name",
    )
    .bind(cluster)
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let expected = ["d1", "d2"].map(|name| (name.to_owned(), revision));
    assert_eq!(directors, expected, "{context}: directors");
    let events: i64 =
        sqlx::query_scalar("SELECT count(*) FROM events WHERE cluster = $1 AND what LIKE $2")
            .bind(cluster)
            .bind(format!("revision {revision} declared%"))
            .fetch_one(&mut *connection)
            .await
            .unwrap();
    assert_eq!(events, 1, "{context}: events");
    let audited: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM audit WHERE cluster = $1 AND action = 'cluster.declare' \
         AND outcome = 'done'",
    )
    .bind(cluster)
    .fetch_one(connection)
    .await
    .unwrap();
    assert_eq!(audited, revision, "{context}: the audit log");
}

/// What the server that was started again says: the last acknowledged revision, or the one whose
/// answer never came.
fn ask(served: &Served, token: &str, client: usize, heard: &Heard, context: &str) {
    let path = format!("/api/v1/clusters/{}", cluster(client));
    if let Some((revision, _)) = heard.revisions.last() {
        let view = served.get(&path, token).json();
        let found = view["revision"].as_u64().unwrap();
        let possible = match heard.unanswered {
            Some(_) => *revision..=*revision + 1,
            None => *revision..=*revision,
        };
        assert!(possible.contains(&found), "{context}: r{found}, {heard:?}");
        let answer = served.get(&format!("{path}/revisions/{revision}"), token);
        assert_eq!(answer.status, 200, "{context}: {answer:?}");
    }
    if let Some(id) = heard.operations.last() {
        let answer = served.get(&format!("/api/v1/operations/{id}"), token);
        assert_eq!(answer.status, 200, "{context}: {answer:?}");
    }
}

async fn assert_whole(directory: &Path, context: &str) {
    use isopathd::store::integrity::{Depth, check};
    let mut connection = connect(directory).await;
    let findings = check(&mut connection, Depth::Full).await.unwrap();
    assert_eq!(findings, [""; 0], "{context}");
}
