//! The link against an HTTP server in the test's own process.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use isopath_api::config::Dataplane;
use isopath_api::observed::DataplaneObserved;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::*;

/// A test that waits longer than this has failed.
const DEADLINE: Duration = Duration::from_secs(15);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A request that the link made, waiting for the test's answer.
struct Call {
    method: String,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    answer: oneshot::Sender<Response<Body>>,
}

/// A stream of events that the test feeds.
struct Feed(mpsc::Sender<String>);

impl Feed {
    async fn send(&self, id: &str, desired: &Value) {
        let event = format!("event: desired\nid: {id}\ndata: {desired}\n\n");
        self.0
            .send(event)
            .await
            .expect("the link closed the stream");
    }
}

impl Call {
    fn json(self, status: u16, body: &Value) {
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed_unsync());
        *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap();
        self.answer
            .send(response)
            .expect("the link waits for an answer");
    }

    /// Accepts a report; `generation` is what the controller wants.
    fn acknowledge(self, generation: u64, interval_ms: u64) -> Observed {
        let observed = serde_json::from_slice(&self.body).expect("a report");
        let body = json!({
            "epoch": "e1", "generation": generation, "interval_ms": interval_ms,
        });
        self.json(200, &body);
        observed
    }

    /// Answers with an open stream.
    fn stream(self) -> Feed {
        let (sender, receiver) = mpsc::channel::<String>(4);
        let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
            let text = receiver.recv().await?;
            Some((Ok(Frame::data(Bytes::from(text))), receiver))
        });
        let response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames.boxed())));
        assert!(
            self.answer.send(response).is_ok(),
            "the link waits for a stream"
        );
        Feed(sender)
    }
}

/// The controller that the test plays, and the link that talks to it.
struct Bench {
    directory: TempDir,
    streams: mpsc::Receiver<Call>,
    reports: mpsc::Receiver<Call>,
    intents: watch::Receiver<Option<Arc<Intent>>>,
    health: watch::Receiver<LinkHealth>,
    urgent: Arc<Notify>,
    _server: AbortOnDropHandle<()>,
    _link: AbortOnDropHandle<()>,
    _control: AbortOnDropHandle<()>,
}

async fn serve(listener: TcpListener, streams: mpsc::Sender<Call>, reports: mpsc::Sender<Call>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (streams, reports) = (streams.clone(), reports.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (streams, reports) = (streams.clone(), reports.clone());
            async move {
                let (answer, response) = oneshot::channel();
                let (parts, body) = request.into_parts();
                let call = Call {
                    method: parts.method.to_string(),
                    path: parts.uri.path().to_owned(),
                    headers: parts.headers,
                    body: body.collect().await?.to_bytes(),
                    answer,
                };
                let to = if call.method == "GET" {
                    streams
                } else {
                    reports
                };
                to.send(call).await.expect("the test goes on");
                Ok::<_, hyper::Error>(response.await.expect("the test answers"))
            }
        });
        connections.spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

impl Bench {
    async fn new(in_force: Option<Desired>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let token_file = directory.path().join("token");
        std::fs::write(&token_file, "ispa_secret\n").unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (streams_sender, streams) = mpsc::channel(4);
        let (reports_sender, reports) = mpsc::channel(4);
        let server = tokio::spawn(serve(listener, streams_sender, reports_sender));
        let (snapshots, receiver) = mpsc::channel(4);
        let control = answer_snapshots(receiver);
        let (intents_sender, intents) = watch::channel(None);
        let (health_sender, health) = watch::channel(LinkHealth::new(&url, Timestamp::now()));
        let urgent = Arc::new(Notify::new());
        let link = ControllerLink {
            config: ControllerConfig {
                url,
                cluster: "lab".parse().unwrap(),
                token_file: Some(token_file),
                identity: None,
                ca_file: None,
            },
            identity: Identity {
                cluster: "lab".parse().unwrap(),
                director: "d1".parse().unwrap(),
                router_id: "10.0.1.2".parse().unwrap(),
                area_type: isopath_api::config::AreaType::Normal,
            },
            instance: "9a4c".to_owned(),
            desired_file: directory.path().join("desired.json"),
            in_force,
            intents: intents_sender,
            snapshots,
            urgent: Arc::clone(&urgent),
            health: health_sender,
        };
        let link = tokio::spawn(async move { link.run().await.expect("a client") });
        Self {
            directory,
            streams,
            reports,
            intents,
            health,
            urgent,
            _server: AbortOnDropHandle::new(server),
            _link: AbortOnDropHandle::new(link),
            _control: AbortOnDropHandle::new(control),
        }
    }

    async fn stream(&mut self) -> Call {
        soon("a request for the stream", self.streams.recv()).await
    }

    async fn report(&mut self) -> Call {
        soon("a report", self.reports.recv()).await
    }

    /// Waits until a generation is in force.
    async fn in_force(&mut self, generation: u64) -> Arc<Intent> {
        let fits = |it: &Option<Arc<Intent>>| {
            it.as_ref()
                .is_some_and(|intent| intent.generation == generation)
        };
        let wait = timeout(DEADLINE, self.intents.wait_for(fits)).await;
        let intent = wait.unwrap_or_else(|_| panic!("generation {generation} never came"));
        intent.unwrap().clone().unwrap()
    }

    /// Waits until the status shows a problem that contains `words`.
    async fn problem(&mut self, words: &str) {
        let shows = |it: &LinkHealth| it.observed().problem.is_some_and(|p| p.contains(words));
        let outcome = timeout(DEADLINE, self.health.wait_for(shows)).await.is_ok();
        let problem = self.health.borrow().observed().problem;
        assert!(outcome, "{words:?} is not shown, but {problem:?}");
    }
}

async fn soon<T>(what: &str, wait: impl Future<Output = Option<T>>) -> T {
    match timeout(DEADLINE, wait).await {
        Ok(Some(value)) => value,
        Ok(None) => panic!("{what}: never again"),
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}

/// A control loop that counts its reports.
fn answer_snapshots(mut requests: mpsc::Receiver<SnapshotRequest>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut sequence = 0;
        while let Some(reply) = requests.recv().await {
            sequence += 1;
            let observed = Observed {
                director: "d1".parse().unwrap(),
                router_id: "10.0.1.2".parse().unwrap(),
                instance: "9a4c".to_owned(),
                run: "r".to_owned(),
                version: "0.0.0".to_owned(),
                at: Timestamp::UNIX_EPOCH,
                sequence,
                epoch: None,
                generation: 0,
                speaker: None,
                vips: Vec::new(),
                services: Vec::new(),
                dataplane: DataplaneObserved {
                    kind: Dataplane::None,
                    steps: 0,
                    drift_repaired: 0,
                    reconciles: isopath_api::observed::Reconciles::default(),
                    failures: Vec::new(),
                    conditions: Vec::new(),
                },
                controller: None,
            };
            if reply.send(Box::new(observed)).is_err() {
                return;
            }
        }
    })
}

fn desired(generation: u64) -> Value {
    json!({
        "epoch": "e1", "generation": generation, "revision": 1, "cluster": "lab",
        "director": "d1", "router_id": "10.0.1.2", "admin_state": "active",
        "vip": [{ "address": "10.99.0.1" }], "service": [],
    })
}

#[tokio::test]
async fn requests_carry_the_token_and_who_is_asking() {
    let mut bench = Bench::new(None).await;
    for call in [bench.stream().await, bench.report().await] {
        assert_eq!(call.headers["authorization"], "Bearer ispa_secret");
        assert_eq!(call.headers["isopath-instance"], "9a4c");
        assert_eq!(call.headers["isopath-router-id"], "10.0.1.2");
        let (path, accept) = match call.method.as_str() {
            "GET" => ("desired", "text/event-stream"),
            _ => ("observed", "*/*"),
        };
        assert_eq!(
            call.path,
            format!("/api/v1/clusters/lab/directors/d1/{path}")
        );
        assert_eq!(call.headers["accept"], accept);
    }
}

#[tokio::test]
async fn a_desired_state_is_on_disk_before_it_is_in_force() {
    let mut bench = Bench::new(None).await;
    let feed = bench.stream().await.stream();
    feed.send("e1:5", &desired(5)).await;
    bench.in_force(5).await;
    let path = bench.directory.path().join("desired.json");
    let kept: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(kept["generation"], 5);

    // A place that cannot be written to: the state is refused and the stream made anew, so
    // that it is sent again.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    feed.send("e1:6", &desired(6)).await;
    bench.problem("cannot keep the desired state").await;
    assert_eq!(
        bench.in_force(5).await.generation,
        5,
        "applied without being kept"
    );
    std::fs::remove_dir(&path).unwrap();
    let feed = bench.stream().await.stream();
    feed.send("e1:6", &desired(6)).await;
    bench.in_force(6).await;
}

#[tokio::test]
async fn a_refused_desired_state_is_shown_and_the_stream_goes_on() {
    let mut bench = Bench::new(None).await;
    let feed = bench.stream().await.stream();
    feed.send("e1:5", &desired(5)).await;
    bench.in_force(5).await;
    feed.send("e1:4", &desired(4)).await;
    bench.problem("generation 4 is lower than 5").await;
    feed.send("e1:9", &desired(6)).await;
    bench.problem("e1:6 came under the id \"e1:9\"").await;
    let mut malformed = desired(7);
    malformed["vip"][0]["address"] = json!("nowhere");
    feed.send("e1:7", &malformed).await;
    bench.problem("/vip/0/address").await;
    feed.send("e1:8", &desired(8)).await;
    bench.in_force(8).await;
    let well = |it: &LinkHealth| it.observed().problem.is_none();
    let outcome = timeout(DEADLINE, bench.health.wait_for(well)).await;
    assert!(outcome.is_ok(), "the old problem is still shown");
}

#[tokio::test]
async fn the_state_on_disk_counts_when_the_stream_comes() {
    let kept: Desired = serde_json::from_value(desired(5)).unwrap();
    let mut bench = Bench::new(Some(kept)).await;
    let feed = bench.stream().await.stream();
    feed.send("e1:4", &desired(4)).await;
    bench.problem("generation 4 is lower than 5").await;
}

#[tokio::test]
async fn a_broken_stream_is_made_anew() {
    let mut bench = Bench::new(None).await;
    drop(bench.stream().await.stream());
    bench.problem("closed the stream").await;
    bench.stream().await.json(503, &json!({}));
    bench.problem("refused with 503: Service Unavailable").await;
    let feed = bench.stream().await.stream();
    feed.send("e1:1", &desired(1)).await;
    bench.in_force(1).await;
    assert!(bench.health.borrow().observed().connected);
}

#[tokio::test]
async fn a_stream_that_lags_behind_the_reports_is_made_anew() {
    let mut bench = Bench::new(None).await;
    let feed = bench.stream().await.stream();
    feed.send("e1:1", &desired(1)).await;
    bench.in_force(1).await;
    bench.report().await.acknowledge(2, 30_000);
    bench.problem("generation e1:2").await;
    bench.stream().await;
}

#[tokio::test]
async fn a_change_is_reported_at_once_and_otherwise_when_the_controller_said() {
    let mut bench = Bench::new(None).await;
    let first = bench.report().await.acknowledge(0, 30_000);
    assert_eq!(first.sequence, 1);
    // The next one would come in 30 s, longer than this test waits.
    bench.urgent.notify_one();
    let second = bench.report().await.acknowledge(0, 100);
    assert_eq!(second.sequence, 2);
    let third = bench.report().await.acknowledge(0, 100);
    assert_eq!(third.sequence, 3, "the interval of 100 ms was not kept");
}

#[tokio::test]
async fn changes_while_a_report_is_on_its_way_are_one_report() {
    let mut bench = Bench::new(None).await;
    let slow = bench.report().await;
    for _ in 0..10 {
        bench.urgent.notify_one();
    }
    slow.acknowledge(0, 30_000);
    assert_eq!(bench.report().await.acknowledge(0, 30_000).sequence, 2);
    bench.urgent.notify_one();
    let next = bench.report().await.acknowledge(0, 30_000);
    assert_eq!(next.sequence, 3, "reports were queued");
}

#[tokio::test]
async fn a_refused_report_is_shown_with_the_controllers_words() {
    let mut bench = Bench::new(None).await;
    let problem = json!({
        "type": "/problems/duplicate-director", "title": "Conflict", "status": 409,
        "detail": "d1 is reported by another instance",
    });
    bench.report().await.json(409, &problem);
    bench
        .problem("refused with 409: d1 is reported by another instance")
        .await;
    bench.report().await.acknowledge(0, 1000);
    let well = |it: &LinkHealth| it.observed().problem.is_none();
    let outcome = timeout(DEADLINE, bench.health.wait_for(well)).await;
    assert!(outcome.is_ok(), "the refusal is still shown");
}

#[tokio::test]
async fn without_a_token_nothing_is_sent_and_the_file_is_named() {
    let mut bench = Bench::new(None).await;
    bench.report().await.acknowledge(0, 100);
    std::fs::remove_file(bench.directory.path().join("token")).unwrap();
    bench.problem("cannot read the token from").await;
}

#[tokio::test]
async fn a_controller_over_tls_is_verified() {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream).await.err()
    });
    let request = client(&url, Trust::System, None).unwrap().get(&url).send();
    let error = timeout(DEADLINE, request).await.unwrap().unwrap_err();
    let text = crate::causes(&error);
    assert!(text.contains("invalid peer certificate"), "{text}");
    assert!(
        serving.await.unwrap().is_some(),
        "the handshake was completed"
    );
}

#[test]
fn delays_are_spread_over_a_bound_that_doubles() {
    let delay = |attempt, random| retry_delay(attempt, &LinkError::Closed, random).as_secs_f64();
    assert_eq!(delay(0, 0.0), 0.0);
    assert_eq!(delay(0, 1.0), 5.0);
    assert_eq!(delay(1, 0.5), 5.0);
    assert_eq!(delay(40, 1.0), 15.0, "the bound");
    assert_eq!(delay(40, 0.1), 1.5, "the jitter comes after the bound");
}

#[test]
fn what_the_controller_asks_for_comes_before_the_jitter() {
    let asked = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
        let busy = LinkError::Refused {
            status: 503,
            detail: String::new(),
            retry_after: retry_after(&headers),
        };
        retry_delay(0, &busy, 0.2).as_secs_f64()
    };
    assert_eq!(asked("7"), 8.0);
    assert_eq!(asked("86400"), 61.0, "not for a day");
    assert_eq!(
        asked("Wed, 21 Oct 2026 07:28:00 GMT"),
        1.0,
        "a date is none of ours"
    );
}
