//! What the tests share: a cluster, its directors' reports, and a server on a database of its
//! own with the real migrations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use isopath_api::access::Role;
use isopath_api::config::Dataplane;
use isopath_api::declare::Declaration;
use isopath_api::desired::{AdminState, Desired};
use isopath_api::fleet::MACHINE_HEADER;
use isopath_api::ids::{NeighborState, RouterId, Vip};
use isopath_api::observed::{
    DataplaneObserved, Health, Observed, RealServerObserved, ServiceObserved, VipObserved,
};
use isopath_api::operation::{OnDeadline, OperationState, StepName, StepState};
use isopath_api::paths::{PathCost, Width};
use isopath_api::reason::Reason;
use isopath_api::speaker::{Announced, Neighbor, Owner, Source, Status};
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

use crate::app::App;
use crate::auth::{LimitSettings, TokenKind, new_token, token_hash};
use crate::clock::{Clock, Moment};
use crate::control::desired::Derived;
use crate::control::operation::{Kind, Operation, Step, Target, plan};
use crate::control::quiesced::Quiesced;
use crate::control::state::{ClusterState, DirectorState, Report};
use crate::store::tokens::{self, Scope, TokenRow};
use crate::store::{ServeLock, Store};
use crate::tls::{Authority, ClientCertificate, Remote, ServerCertificate, TlsServed, TlsSettings};

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

/// The same for another cluster, which has a VIP of its own.
pub(crate) fn other_declaration_json(directors: u8) -> Value {
    let text = declaration_json(directors).to_string();
    serde_json::from_str(&text.replace("10.99.0.1", "10.99.0.2")).unwrap()
}

pub(crate) fn declaration(directors: u8) -> Declaration {
    serde_json::from_value(declaration_json(directors)).unwrap()
}

/// The report of `d{n}` when all is well: Full with the switch, its VIP announced, and its
/// LSDB listing the directors `announcers`.
pub(crate) fn observed(n: u8, announcers: &[u8]) -> Observed {
    let since = Timestamp::UNIX_EPOCH;
    Observed {
        director: format!("d{n}").parse().unwrap(),
        router_id: router_id(n),
        instance: format!("instance-{n}"),
        run: "run-1".to_owned(),
        version: "0.1.0".to_owned(),
        at: Timestamp::now(),
        sequence: 1,
        epoch: Some(EPOCH.to_owned()),
        generation: 1,
        speaker: Some(speaker(n, announcers)),
        vips: vec![VipObserved {
            vip: vip(),
            cost: Some(1),
            reason: Reason::Healthy,
            since,
        }],
        services: vec![ServiceObserved {
            service: SERVICE.parse().unwrap(),
            real_servers: ["10.1.0.11:80", "10.1.0.12:80"]
                .map(|address| real_server(address, Health::Up))
                .into(),
            leaving: Vec::new(),
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
            state_ms: 60_000,
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
    let expected = || {
        Derived::of(&declaration(2), &Quiesced::default()).digests[&SERVICE.parse().unwrap()]
            .clone()
    };
    let digest = digest.map_or_else(expected, |digest| digest.parse().unwrap());
    observed.services[0].digest = Some(digest);
    observed
}

/// The same report of a director that checks and announces only.
pub(crate) fn without_dataplane(mut observed: Observed) -> Observed {
    observed.dataplane.kind = Dataplane::None;
    observed
}

/// The same report of a director that has read its kernel since the last change.
pub(crate) fn read(mut observed: Observed) -> Observed {
    observed.services[0].stats = Some(isopath_api::observed::Stats::default());
    with_digest(observed, None)
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
        let derived = Derived::of(&declaration, &Quiesced::default());
        let started = Clock::default().now();
        let known = declaration.director.iter().map(|spec| {
            let director = DirectorState {
                router_id: spec.router_id,
                admin_state: AdminState::Active,
                admin_reason: String::new(),
                generation: 1,
                desired_revision: 1,
                shaped_at: 1,
                content: derived.content(&declaration, spec),
                instance: None,
                interfaces: None,
                report: None,
                reports: 0,
                conflict: None,
                refused: BTreeMap::new(),
                protocol: None,
                skewed: None,
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
                quiesced: Quiesced::default(),
                directors,
                operations: Vec::new(),
                events: Default::default(),
                differing: Default::default(),
                conditions: Default::default(),
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

    pub(crate) fn hear(&mut self, mut observed: Observed) {
        let received = self.now;
        observed.at = received.wall;
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

    /// An operation of a director that needs generation 2 and is at `step`.
    pub(crate) fn operation(&self, kind: Kind, director: &str, step: StepName) -> Operation {
        let target = Target::Director(director.parse().unwrap());
        Operation {
            need: [(director.parse().unwrap(), 2)].into(),
            ..self.operation_of(kind, target, (step, OnDeadline::Hold))
        }
    }

    /// An operation of anything, at `step`.
    pub(crate) fn operation_of(
        &self,
        kind: Kind,
        target: Target,
        (step, on_deadline): (StepName, OnDeadline),
    ) -> Operation {
        let names = plan(&target, kind, on_deadline);
        let place = names.iter().position(|name| *name == step).unwrap();
        let steps = names.into_iter().enumerate().map(|(index, name)| {
            let state = match index.cmp(&place) {
                std::cmp::Ordering::Less => StepState::Done,
                std::cmp::Ordering::Equal => StepState::Now,
                std::cmp::Ordering::Greater => StepState::Ahead,
            };
            Step {
                name,
                state,
                since: None,
                evidence: String::new(),
            }
        });
        Operation {
            id: Operation::new_id(),
            cluster: self.cluster.name.clone(),
            need: BTreeMap::new(),
            target,
            kind,
            state: OperationState::Applying,
            steps: steps.collect(),
            detail: String::new(),
            blocked_by: Vec::new(),
            at_stake: vec![vip()],
            targets: Vec::new(),
            requested_by: "ops".to_owned(),
            reason: String::new(),
            override_guards: Vec::new(),
            immediate: false,
            deadline_at: self.now.wall + Duration::from_secs(900),
            on_deadline,
            base_revision: 1,
            version: 1,
            started_at: self.now.wall,
            ended_at: None,
            quiet: BTreeMap::new(),
        }
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
    limits: LimitSettings,
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
        // Tests ask faster than anybody should.
        let limits = LimitSettings {
            api_per_second: 100_000,
            reports_per_second: 100_000,
            ..LimitSettings::default()
        };
        Self::with(directory, limits).await
    }

    /// A server with these limits.
    pub(crate) async fn limited(limits: LimitSettings) -> Self {
        Self::with(Arc::new(TempDir::new().unwrap()), limits).await
    }

    async fn with(directory: Arc<TempDir>, limits: LimitSettings) -> Self {
        let store = Store::open(&url(&directory)).await.unwrap();
        let operator = make_token(&store, "ops", Scope::of(Role::Admin)).await;
        let cluster = CLUSTER.parse().unwrap();
        let agent = make_token(&store, "agents", Scope::Agent { cluster }).await;
        Self::over(store, directory, (operator, agent), limits, None).await
    }

    /// The same with an authority of its own. Nobody listens; agents show certificates through
    /// [`as_agent`].
    pub(crate) async fn with_tls(require_client_certificates: bool) -> Self {
        Self::start()
            .await
            .behind_tls(require_client_certificates)
            .await
    }

    /// This one's database and limits, served so.
    pub(crate) async fn behind_tls(self, require_client_certificates: bool) -> Self {
        let without = self;
        let directory = Arc::clone(&without.directory);
        without.stop();
        let now = Timestamp::now();
        let files = directory.path().join("tls");
        let authority = Arc::new(Authority::load_or_make(&files, now).unwrap());
        let settings = TlsSettings {
            own_ca: true,
            ..TlsSettings::default()
        };
        let listen = std::net::Ipv4Addr::LOCALHOST.into();
        let own = Arc::clone(&authority);
        let (certificate, _) =
            ServerCertificate::load(&settings, own, &files, listen, now).unwrap();
        let tls = TlsServed {
            authority,
            certificate,
            own_certificate: true,
            require_client_certificates,
        };
        let store = Store::open(&url(&directory)).await.unwrap();
        let tokens = (without.operator.clone(), without.agent.clone());
        Self::over(store, directory, tokens, without.limits, Some(tls)).await
    }

    async fn over(
        store: Store,
        directory: Arc<TempDir>,
        (operator, agent): (String, String),
        limits: LimitSettings,
        tls: Option<TlsServed>,
    ) -> Self {
        let clock = Clock::default();
        let shutdown = CancellationToken::new();
        let (app, _task) = App::start_with(store, clock.clone(), tls, limits, shutdown.clone())
            .await
            .unwrap();
        Self {
            router: crate::router(app.clone()),
            app,
            clock,
            operator,
            agent,
            limits,
            shutdown,
            directory,
        }
    }

    /// Another controller on the same files, while this one is not told that it is over: what
    /// was acknowledged is what a process that was killed leaves behind.
    pub(crate) async fn killed_and_started_again(&self) -> Self {
        let store = Store::open(&url(&self.directory)).await.unwrap();
        let directory = Arc::clone(&self.directory);
        let tokens = (self.operator.clone(), self.agent.clone());
        let tls = self.app.tls().cloned();
        Self::over(store, directory, tokens, self.limits, tls).await
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

    /// Sends a request whose answer may be a stream: its status.
    pub(crate) async fn status(&self, request: Request<Body>) -> StatusCode {
        self.router.clone().oneshot(request).await.unwrap().status()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(request("GET", path, Some(&self.operator), None))
            .await
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: &Value) -> Answer {
        let mut request = request(method, path, Some(&self.operator), Some(body));
        let name = path.strip_prefix("clusters/").unwrap_or_default();
        let name = name.split(['/', '?']).next().unwrap_or_default();
        let is_declared = name
            .parse()
            .is_ok_and(|name| self.app.world().clusters.contains_key(&name));
        if method == "PUT" && is_declared {
            let any = HeaderValue::from_static("*");
            request.headers_mut().insert(header::IF_MATCH, any);
        }
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
        observed.at = self.app.clock().now().wall;
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
        self.open(request("GET", &path, Some(&self.agent), None))
            .await
    }

    /// Opens a stream.
    pub(crate) async fn open(&self, request: Request<Body>) -> Stream {
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

/// The same request from another host.
pub(crate) fn from_host(address: &str, mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().insert(ConnectInfo(Remote {
        address: (address.parse::<std::net::IpAddr>().unwrap(), 1).into(),
        tls: false,
        certificate: None,
    }));
    request
}

/// The same request over a connection that showed the certificate of the agent `id`, from the
/// machine whose hash is all `machine`s.
pub(crate) fn as_agent(id: Uuid, machine: char, request: Request<Body>) -> Request<Body> {
    as_agent_until(Timestamp::MAX, id, machine, request)
}

/// The same with a certificate that ends then.
pub(crate) fn as_agent_until(
    expires: Timestamp,
    id: Uuid,
    machine: char,
    mut request: Request<Body>,
) -> Request<Body> {
    let certificate = ClientCertificate {
        identity: id,
        expires,
    };
    request.headers_mut().remove(header::AUTHORIZATION);
    let value = machine_hash(machine).parse().unwrap();
    request.headers_mut().insert(MACHINE_HEADER, value);
    request.extensions_mut().insert(ConnectInfo(Remote {
        address: ([127, 0, 0, 1], 1).into(),
        tls: true,
        certificate: Some(Arc::new(certificate)),
    }));
    request
}

/// What stands for a machine in tests.
pub(crate) fn machine_hash(machine: char) -> String {
    machine.to_string().repeat(64)
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

pub(crate) async fn make_token(store: &Store, name: &str, scope: Scope) -> String {
    let token = new_token(match scope {
        Scope::User { .. } => TokenKind::User,
        Scope::Agent { .. } => TokenKind::Agent,
    });
    let row = TokenRow::new(name, scope, "test", Timestamp::now());
    let mut transaction = store.begin().await.unwrap();
    let made = tokens::insert(&mut transaction, &token_hash(&token), &row).await;
    assert!(made.unwrap(), "the name is taken");
    transaction.commit().await.unwrap();
    token
}

pub(crate) fn url(directory: &TempDir) -> String {
    format!("sqlite://{}/isopath.db", directory.path().display())
}
