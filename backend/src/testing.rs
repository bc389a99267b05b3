//! What the tests share: a cluster, its directors' reports, and a server on a database of its
//! own with the real migrations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use isopath_api::config::Dataplane;
use isopath_api::declare::Declaration;
use isopath_api::desired::{AdminState, Desired};
use isopath_api::ids::{NeighborState, RouterId, Vip};
use isopath_api::observed::{
    DataplaneObserved, Health, Observed, RealServerObserved, ServiceObserved, VipObserved,
};
use isopath_api::paths::{PathCost, Width};
use isopath_api::reason::Reason;
use isopath_api::speaker::{Announced, Neighbor, Owner, Source, Status};
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::app::App;
use crate::auth::{new_token, token_hash};
use crate::clock::{Clock, Moment};
use crate::control::desired::Derived;
use crate::control::state::{ClusterState, DirectorState, Report};
use crate::store::tokens::{self, Role, TokenRow};
use crate::store::{ServeLock, Store};

pub(crate) const CLUSTER: &str = "edge";
pub(crate) const EPOCH: &str = "e1";
pub(crate) const SERVICE: &str = "tcp:10.99.0.1:80";

pub(crate) fn vip() -> Vip {
    "10.99.0.1".parse().unwrap()
}

pub(crate) fn router_id(n: u8) -> RouterId {
    format!("10.0.{n}.2").parse().unwrap()
}

/// A cluster of `directors` directors `d1` …, one VIP and two real servers.
pub(crate) fn declaration_json(directors: u8) -> Value {
    let directors: Vec<Value> = (1..=directors)
        .map(|n| json!({ "name": format!("d{n}"), "router_id": router_id(n) }))
        .collect();
    json!({
        "director": directors,
        "switch": [{ "name": "sw1", "router_id": "10.0.0.1" }],
        "vip": [{ "address": "10.99.0.1" }],
        "service": [{
            "vip": "10.99.0.1", "protocol": "tcp", "port": 80,
            "check": { "type": "http", "path": "/healthz" },
            "real_server": [{ "address": "10.1.0.11" }, { "address": "10.1.0.12" }],
        }],
    })
}

pub(crate) fn declaration(directors: u8) -> Declaration {
    serde_json::from_value(declaration_json(directors)).unwrap()
}

/// The report of `d{n}` when all is well: Full with the switch, its VIP announced, and its
/// LSDB listing the directors `announcers`.
pub(crate) fn observed(n: u8, announcers: &[u8]) -> Observed {
    let at = Timestamp::UNIX_EPOCH;
    Observed {
        director: format!("d{n}").parse().unwrap(),
        router_id: router_id(n),
        instance: format!("instance-{n}"),
        run: "run-1".to_owned(),
        version: "0.1.0".to_owned(),
        at,
        sequence: 1,
        epoch: Some(EPOCH.to_owned()),
        generation: 1,
        speaker: Some(speaker(n, announcers)),
        vips: vec![VipObserved {
            vip: vip(),
            cost: Some(1),
            reason: Reason::Healthy,
            since: at,
        }],
        services: vec![ServiceObserved {
            service: SERVICE.parse().unwrap(),
            real_servers: ["10.1.0.11:80", "10.1.0.12:80"]
                .map(|address| real_server(address, Health::Up))
                .into(),
            stats: None,
            digest: None,
        }],
        dataplane: DataplaneObserved {
            kind: Dataplane::Ipvs,
            steps: 0,
            drift_repaired: 0,
            reconciles: isopath_api::observed::Reconciles::default(),
            failures: Vec::new(),
            conditions: Vec::new(),
        },
        controller: None,
    }
}

fn speaker(n: u8, announcers: &[u8]) -> Status {
    let announced = Announced {
        vip: vip(),
        cost: 1,
        kind: isopath_api::declare::AnnounceAs::Stub,
        source: Source::Agent,
        in_lsdb: true,
        acknowledged: true,
    };
    Status {
        version: "0.1.0".to_owned(),
        pid: 1,
        origin_pid: 1,
        router_id: router_id(n),
        area: "0.0.0.0".parse().unwrap(),
        up_ms: 1000,
        neighbors: vec![Neighbor {
            interface: "eth1".to_owned(),
            router_id: "10.0.0.1".parse().unwrap(),
            address: format!("10.0.{n}.1").parse().unwrap(),
            state: NeighborState::Full,
            priority: 1,
            state_ms: 1000,
            dead_ms: 3000,
            bfd: None,
            auth_key: None,
        }],
        announced: if announcers.contains(&n) {
            vec![announced]
        } else {
            Vec::new()
        },
        withheld: Vec::new(),
        owner: Owner::Connected {
            pid: 2,
            silent_ms: 10,
        },
        announcers: BTreeMap::from([(vip(), announcers.iter().map(|n| router_id(*n)).collect())]),
        interfaces: Vec::new(),
        widths: vec![width(announcers)],
        lateness: BTreeMap::new(),
        counters: BTreeMap::new(),
    }
}

/// The switch reaches the VIP through these directors.
fn width(announcers: &[u8]) -> Width {
    Width {
        router_id: "10.0.0.1".parse().unwrap(),
        vips: vec![vip()],
        width: u32::try_from(announcers.len()).unwrap(),
        through: announcers.iter().map(|n| router_id(*n)).collect(),
        cost: (!announcers.is_empty()).then_some(PathCost::IntraArea { cost: 11 }),
    }
}

fn real_server(address: &str, health: Health) -> RealServerObserved {
    RealServerObserved {
        real_server: address.parse().unwrap(),
        health,
        since: Timestamp::UNIX_EPOCH,
        last_check: None,
        weight: 1,
        effective_weight: Some(1),
        active: 3,
        inactive: 1,
        stats: None,
    }
}

/// The same report with the VIP withdrawn for `reason`; the LSDB lists `announcers`.
pub(crate) fn withdrawn(n: u8, announcers: &[u8], reason: Reason) -> Observed {
    assert!(!announcers.contains(&n), "d{n} announces nothing");
    let mut observed = observed(n, announcers);
    observed.vips[0].cost = None;
    observed.vips[0].reason = reason;
    observed
}

/// The same report with this digest of its service; with the one that is wanted of several
/// directors where it is `None`.
pub(crate) fn with_digest(mut observed: Observed, digest: Option<&str>) -> Observed {
    let expected = || Derived::of(&declaration(2)).digests[&SERVICE.parse().unwrap()].clone();
    let digest = digest.map_or_else(expected, |digest| digest.parse().unwrap());
    observed.services[0].digest = Some(digest);
    observed
}

pub(crate) fn set_health(observed: &mut Observed, server: usize, health: Health) {
    observed.services[0].real_servers[server].health = health;
}

/// A cluster as the controller knows it, at a moment that tests move on by hand.
pub(crate) struct Known {
    pub(crate) cluster: ClusterState,
    pub(crate) now: Moment,
    pub(crate) started: Moment,
}

impl Known {
    /// Nobody was heard yet; the controller started long ago.
    pub(crate) fn new(directors: u8) -> Self {
        let declaration = declaration(directors);
        let derived = Derived::of(&declaration);
        let started = Clock::default().now();
        let known = declaration.director.iter().map(|spec| {
            let director = DirectorState {
                router_id: spec.router_id,
                admin_state: AdminState::Active,
                admin_reason: String::new(),
                generation: 1,
                desired_revision: 1,
                content: derived.content(&declaration, spec),
                instance: None,
                report: None,
                conflict: None,
            };
            (spec.name.clone(), director)
        });
        let directors = known.collect();
        let mut known = Self {
            cluster: ClusterState {
                name: CLUSTER.parse().unwrap(),
                epoch: EPOCH.to_owned(),
                revision: 1,
                declaration: Arc::new(declaration),
                derived,
                directors,
                operations: Vec::new(),
                events: Default::default(),
                differing: Default::default(),
            },
            now: started,
            started,
        };
        known.pass(Duration::from_secs(3600));
        known
    }

    /// Everything as it should be.
    pub(crate) fn healthy(directors: u8) -> Self {
        let mut known = Self::new(directors);
        let all: Vec<u8> = (1..=directors).collect();
        for n in &all {
            known.hear(observed(*n, &all));
        }
        known
    }

    pub(crate) fn hear(&mut self, observed: Observed) {
        let received = self.now;
        let director = self.cluster.directors.get_mut(&observed.director).unwrap();
        director.report = Some(Report {
            observed: Arc::new(observed),
            received,
        });
    }

    pub(crate) fn director(&mut self, n: u8) -> &mut DirectorState {
        let name = format!("d{n}").parse().unwrap();
        self.cluster.directors.get_mut(&name).unwrap()
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall = self.now.wall.checked_add(time).unwrap();
    }
}

/// A server in this process on a database of its own.
pub(crate) struct Server {
    pub(crate) app: App,
    pub(crate) clock: Clock,
    pub(crate) operator: String,
    pub(crate) agent: String,
    router: Router,
    shutdown: CancellationToken,
    directory: Arc<TempDir>,
}

/// An answer: its status, its headers, and its body as JSON (null when it is none).
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
    pub(crate) text: String,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::on(Arc::new(TempDir::new().unwrap())).await
    }

    /// A server on the database that is in `directory`, or on a new one.
    pub(crate) async fn on(directory: Arc<TempDir>) -> Self {
        let store = Store::open(&url(&directory)).await.unwrap();
        let operator = make_token(&store, "ops", Role::Operator).await;
        let cluster = CLUSTER.parse().unwrap();
        let agent = make_token(&store, "agents", Role::Agent { cluster }).await;
        Self::over(store, directory, operator, agent).await
    }

    async fn over(store: Store, directory: Arc<TempDir>, operator: String, agent: String) -> Self {
        let clock = Clock::default();
        let shutdown = CancellationToken::new();
        let (app, _task) = App::start(store, clock.clone(), shutdown.clone())
            .await
            .unwrap();
        Self {
            router: crate::router(app.clone()),
            app,
            clock,
            operator,
            agent,
            shutdown,
            directory,
        }
    }

    /// Another controller on the same files, while this one is not told that it is over: what
    /// was acknowledged is what a process that was killed leaves behind.
    pub(crate) async fn killed_and_started_again(&self) -> Self {
        let store = Store::open(&url(&self.directory)).await.unwrap();
        let directory = Arc::clone(&self.directory);
        Self::over(store, directory, self.operator.clone(), self.agent.clone()).await
    }

    pub(crate) fn url(&self) -> String {
        url(&self.directory)
    }

    pub(crate) fn lock(&self) -> ServeLock {
        ServeLock::take(&self.url()).unwrap()
    }

    pub(crate) fn stop(&self) {
        self.shutdown.cancel();
    }

    /// Sends a request as it is; the path is under `/api/v1` when it starts with no slash.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer {
            status,
            headers,
            json: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(request("GET", path, Some(&self.operator), None))
            .await
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: &Value) -> Answer {
        let request = request(method, path, Some(&self.operator), Some(body));
        self.send(request).await
    }

    /// Declares the cluster of `directors` directors.
    pub(crate) async fn declare(&self, directors: u8) -> Answer {
        let answer = self
            .call("PUT", "clusters/edge", &declaration_json(directors))
            .await;
        assert!(answer.status.is_success(), "{}", answer.text);
        answer
    }

    /// Posts a report, as the agent would: it acknowledges what is wanted of it.
    pub(crate) async fn report(&self, observed: &Observed) -> Answer {
        let path = format!("clusters/edge/directors/{}/observed", observed.director);
        let body = serde_json::to_value(observed).unwrap();
        let request = request("POST", &path, Some(&self.agent), Some(&body));
        self.send(request).await
    }

    /// Posts a report that acknowledges the present generation.
    pub(crate) async fn follow(&self, mut observed: Observed) -> Answer {
        let world = self.app.world();
        let cluster = &world.clusters[&CLUSTER.parse().unwrap()];
        let director = &cluster.directors[&observed.director];
        observed.epoch = Some(world.epoch.clone());
        observed.generation = director.generation;
        let last = director
            .report
            .as_ref()
            .map_or(0, |report| report.observed.sequence);
        observed.sequence = last + 1;
        self.report(&observed).await
    }

    /// Opens the stream of a director's desired state.
    pub(crate) async fn stream(&self, director: &str) -> Stream {
        let path = format!("clusters/edge/directors/{director}/desired");
        let request = request("GET", &path, Some(&self.agent), None);
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "text/event-stream"
        );
        Stream {
            body: response.into_body(),
        }
    }

    pub(crate) async fn view(&self) -> isopath_api::view::ClusterView {
        let answer = self.get("clusters/edge").await;
        serde_json::from_value(answer.json).unwrap()
    }
}

/// An open stream of server-sent events.
pub(crate) struct Stream {
    body: Body,
}

impl Stream {
    /// The next event's id and desired state; nothing at the end.
    pub(crate) async fn next(&mut self) -> Option<(String, Desired)> {
        let frame = self.body.frame().await?.unwrap();
        let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {text:?}"))
                .to_owned()
        };
        assert_eq!(field("event: "), "desired");
        let desired = serde_json::from_str(&field("data: ")).unwrap();
        Some((field("id: "), desired))
    }
}

pub(crate) fn request(
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Request<Body> {
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/api/v1/{path}")
    };
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    match body {
        Some(body) => request
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string())),
        None => request.body(Body::empty()),
    }
    .unwrap()
}

pub(crate) async fn make_token(store: &Store, name: &str, role: Role) -> String {
    let token = new_token(&role);
    let row = TokenRow {
        name: name.to_owned(),
        role,
    };
    let mut transaction = store.begin().await.unwrap();
    let made = tokens::insert(
        &mut transaction,
        &token_hash(&token),
        &row,
        Timestamp::now(),
    )
    .await;
    assert!(made.unwrap(), "the name is taken");
    transaction.commit().await.unwrap();
    token
}

pub(crate) fn url(directory: &TempDir) -> String {
    format!("sqlite://{}/isopath.db", directory.path().display())
}
