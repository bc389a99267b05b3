//! The whole agent without a kernel, between a speaker and a real server that the test plays.

use isopath_api::agent;
use isopath_api::reason::Reason;
use isopath_api::speaker::{Announced, Announcement, Owner, Reply, Request, Source, Status};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::read_sections;
use super::source::{Reload, last_good};
use super::*;
use crate::causes;
use crate::desired::Identity;

/// A test that waits longer than this has failed.
const DEADLINE: Duration = Duration::from_secs(15);

/// A speaker that does what it is told: it announces the set of whoever said so last, and
/// keeps it.
struct FakeSpeaker {
    announced: watch::Receiver<Vec<Announcement>>,
    withheld: watch::Receiver<Vec<isopath_api::speaker::Withheld>>,
    _serving: AbortOnDropHandle<()>,
}

impl FakeSpeaker {
    fn listen(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (announced, announced_receiver) = watch::channel(Vec::new());
        let (withheld, withheld_receiver) = watch::channel(Vec::new());
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(speak(stream, announced.clone(), withheld.clone()));
            }
        });
        Self {
            announced: announced_receiver,
            withheld: withheld_receiver,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    async fn announces(&mut self, count: usize, what: &str) {
        let wait = self.announced.wait_for(|set| set.len() == count);
        let outcome = timeout(DEADLINE, wait).await.is_ok();
        let withheld = self.withheld.borrow().clone();
        assert!(outcome, "{what}: not {count} VIPs; withheld: {withheld:?}");
    }

    fn reason(&self) -> Reason {
        self.withheld.borrow()[0].reason.clone()
    }
}

async fn speak(
    stream: UnixStream,
    announced: watch::Sender<Vec<Announcement>>,
    withheld: watch::Sender<Vec<isopath_api::speaker::Withheld>>,
) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let reply = match serde_json::from_str(&line).expect("a request") {
            Request::Announce {
                set, withheld: why, ..
            } => {
                withheld.send_replace(why);
                announced.send_replace(set);
                Reply::Ok
            }
            Request::Heartbeat => Reply::Ok,
            Request::Status | Request::Subscribe => {
                Reply::Status(Box::new(status(&announced.borrow())))
            }
            other => panic!("the agent asked {other:?}"),
        };
        let text = format!("{}\n", serde_json::to_string(&reply).unwrap());
        if write.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn status(announced: &[Announcement]) -> Status {
    let announced = announced.iter().map(|it| Announced {
        vip: it.vip,
        cost: it.cost,
        kind: it.kind,
        source: Source::Agent,
        in_lsdb: true,
        acknowledged: true,
    });
    Status {
        version: "0.0.0".to_owned(),
        pid: 1,
        origin_pid: 1,
        router_id: "10.0.1.2".parse().unwrap(),
        area: "0.0.0.0".parse().unwrap(),
        up_ms: 1,
        neighbors: Vec::new(),
        announced: announced.collect(),
        withheld: Vec::new(),
        owner: Owner::None,
        announcers: std::collections::BTreeMap::new(),
        interfaces: Vec::new(),
        widths: Vec::new(),
        lateness: std::collections::BTreeMap::new(),
        counters: std::collections::BTreeMap::new(),
    }
}

/// A directory with everything that an agent needs.
struct Bench {
    directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the agent's file: one VIP, one service with a real server on `port`.
    fn write(&self, port: u16) -> DirectorFile {
        let text = format!(
            r#"
[director]
name = "d1"
router_id = "10.0.1.2"
state_dir = {state:?}
socket = {socket:?}
speaker_socket = {speaker:?}
agent_hold = "2s"
dataplane = "none"
[ospf]
[[ospf.interface]]
name = "lo"
[[vip]]
address = "10.99.0.1/32"
[[service]]
vip = "10.99.0.1"
protocol = "tcp"
port = {port}
check = {{ type = "tcp", interval = "50ms", timeout = "50ms", rise = 2, fall = 2 }}
[[service.real_server]]
address = "127.0.0.1"
"#,
            state = self.path("state"),
            socket = self.path("agent.sock"),
            speaker = self.path("speaker.sock"),
        );
        std::fs::write(self.path("d1.toml"), text).unwrap();
        read_file(&self.path("d1.toml")).unwrap()
    }

    fn start(&self, file: DirectorFile) -> Agent {
        let options = Options {
            config: self.path("d1.toml"),
            start_speaker: false,
            sections: None,
            // This host's networks are not the director's.
            ask_in_arp: false,
        };
        let stop = CancellationToken::new();
        let running = run_until(file, options, stop.clone());
        Agent {
            stop,
            running: tokio::spawn(running),
        }
    }

    async fn ask(&self, request: &agent::Request) -> agent::Reply {
        let exchange = async {
            let mut stream = loop {
                match UnixStream::connect(self.path("agent.sock")).await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            let line = format!("{}\n", serde_json::to_string(request).unwrap());
            stream.write_all(line.as_bytes()).await.unwrap();
            let mut reply = String::new();
            BufReader::new(stream).read_line(&mut reply).await.unwrap();
            serde_json::from_str(&reply).unwrap()
        };
        timeout(DEADLINE, exchange).await.expect("no answer")
    }
}

struct Agent {
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), StartError>>,
}

impl Agent {
    async fn stop(self) {
        self.stop.cancel();
        let ended = timeout(DEADLINE, self.running)
            .await
            .expect("it did not end");
        ended.unwrap().unwrap();
    }

    /// Ends it as SIGKILL would: without a word.
    async fn kill(self) {
        self.running.abort();
        assert!(self.running.await.unwrap_err().is_cancelled());
    }
}

/// A real server on the loopback interface that takes every connection.
struct RealServer {
    port: u16,
    _serving: AbortOnDropHandle<()>,
}

impl RealServer {
    async fn listen(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        Self {
            port,
            _serving: AbortOnDropHandle::new(serving),
        }
    }
}

#[tokio::test]
async fn a_vip_follows_the_health_of_its_real_server() {
    let bench = Bench::new();
    let mut speaker = FakeSpeaker::listen(&bench.path("speaker.sock"));
    let server = RealServer::listen(0).await;
    let port = server.port;
    let agent = bench.start(bench.write(port));
    speaker.announces(1, "a healthy real server").await;
    drop(server);
    speaker.announces(0, "a dead real server").await;
    assert!(
        matches!(
            speaker.reason(),
            Reason::BelowQuorum {
                healthy: 0,
                of: 1,
                ..
            }
        ),
        "{:?}",
        speaker.reason()
    );
    let _server = RealServer::listen(port).await;
    speaker.announces(1, "a real server that came back").await;
    agent.stop().await;
}

#[tokio::test]
async fn a_restart_moves_nothing_whether_planned_or_not() {
    let bench = Bench::new();
    let mut speaker = FakeSpeaker::listen(&bench.path("speaker.sock"));
    let server = RealServer::listen(0).await;
    let file = bench.write(server.port);
    let first = bench.start(file.clone());
    speaker.announces(1, "the first run").await;
    let mut sets = speaker.announced.clone();
    sets.mark_unchanged();

    first.stop().await;
    let second = bench.start(file.clone());
    let agent::Reply::Status(planned) = bench.ask(&agent::Request::Status).await else {
        panic!("no status");
    };
    second.kill().await;
    let third = bench.start(file);
    // The third run has decided when its checks have: the reason says so.
    let decided = async {
        loop {
            let agent::Reply::Status(observed) = bench.ask(&agent::Request::Status).await else {
                panic!("no status");
            };
            let healthy = observed
                .vips
                .iter()
                .any(|vip| vip.reason == Reason::Healthy);
            if healthy && observed.speaker.is_some() {
                return observed;
            }
            tokio::task::yield_now().await;
        }
    };
    let killed = timeout(DEADLINE, decided)
        .await
        .expect("the checks never decided");
    assert_eq!(killed.instance, planned.instance, "the identity is kept");
    assert_ne!(killed.run, planned.run, "each run has a name of its own");
    while sets.has_changed().unwrap() {
        assert_eq!(
            sets.borrow_and_update().len(),
            1,
            "a restart withdrew the VIP"
        );
    }
    third.stop().await;
}

#[tokio::test]
async fn an_override_outlives_the_agent() {
    let bench = Bench::new();
    let mut speaker = FakeSpeaker::listen(&bench.path("speaker.sock"));
    let server = RealServer::listen(0).await;
    let file = bench.write(server.port);
    let first = bench.start(file.clone());
    speaker.announces(1, "the first run").await;
    let withdraw = agent::Request::Override {
        vip: "10.99.0.1".parse().unwrap(),
        action: isopath_api::speaker::OverrideAction::Withdraw,
        text: "by hand".to_owned(),
    };
    assert_eq!(bench.ask(&withdraw).await, agent::Reply::Ok);
    speaker.announces(0, "the override").await;
    first.stop().await;

    let second = bench.start(file);
    let clear = agent::Request::Override {
        vip: "10.99.0.1".parse().unwrap(),
        action: isopath_api::speaker::OverrideAction::Clear,
        text: String::new(),
    };
    let agent::Reply::Status(observed) = bench.ask(&agent::Request::Status).await else {
        panic!("no status");
    };
    let text = "by hand".to_owned();
    let reasons: Vec<_> = observed.vips.iter().map(|vip| &vip.reason).collect();
    assert!(
        reasons
            .iter()
            .all(|reason| **reason == Reason::Override { text: text.clone() }),
        "{reasons:?}"
    );
    assert_eq!(bench.ask(&clear).await, agent::Reply::Ok);
    speaker.announces(1, "the override's end").await;
    second.stop().await;
}

#[tokio::test]
async fn a_second_agent_on_the_same_socket_does_not_start() {
    let bench = Bench::new();
    let file = bench.write(80);
    let first = bench.start(file.clone());
    bench.ask(&agent::Request::Status).await;
    let second = bench.start(file).running;
    let error = timeout(DEADLINE, second)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    let text = causes(&error);
    assert!(text.contains("another agent answers on"), "{text}");
    assert!(text.contains("director d1 (10.0.1.2)"), "{text}");
    first.stop().await;
}

#[tokio::test]
async fn a_reread_file_counts_only_where_it_is_well_formed() {
    let bench = Bench::new();
    let file = bench.write(80);
    let (intents, mut receiver) = watch::channel(None);
    let path = bench.path("d1.toml");
    let (_, sections) = read_sections(&path).unwrap();
    let mut reload = Reload::new(&path, file, sections, intents).unwrap();
    let good = std::fs::read_to_string(&path).unwrap();

    std::fs::write(&path, good.replace("10.99.0.1", "10.99.0.0/24")).unwrap();
    reload.reread();
    assert!(
        !receiver.has_changed().unwrap(),
        "a malformed file was taken"
    );

    std::fs::write(&path, good.replace("10.99.0.1", "10.99.0.7")).unwrap();
    reload.reread();
    let intent = receiver
        .borrow_and_update()
        .clone()
        .expect("the file was not taken");
    assert_eq!(intent.vips[0].address.to_string(), "10.99.0.7");

    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{good}weight = 9\n")).unwrap();
    reload.reread();
    let intent = receiver
        .borrow_and_update()
        .clone()
        .expect("the changed service was not taken");
    assert_eq!(intent.services[0].real_server[0].weight, 9);
    assert_eq!(intent.vips[0].address.to_string(), "10.99.0.7");
}

#[test]
fn a_file_is_summed_up_in_a_line() {
    let bench = Bench::new();
    let file = bench.write(80);
    assert_eq!(
        summary(&file),
        "director d1 (10.0.1.2), 1 interface, 1 VIP, 1 service, 1 real server"
    );
}

#[test]
fn the_last_desired_state_counts_only_for_this_director() {
    let bench = Bench::new();
    let path = bench.path("desired.json");
    let identity = |director: &str| Identity {
        cluster: "lab".parse().unwrap(),
        director: director.parse().unwrap(),
        router_id: "10.0.1.2".parse().unwrap(),
        area_type: isopath_api::config::AreaType::Normal,
    };
    assert_eq!(last_good(&path, &identity("d1")), None, "without a file");
    let desired = serde_json::json!({
        "epoch": "e1", "generation": 5, "revision": 2, "cluster": "lab", "director": "d1",
        "router_id": "10.0.1.2", "admin_state": "drained", "vip": [], "service": [],
    });
    std::fs::write(&path, desired.to_string()).unwrap();
    let kept = last_good(&path, &identity("d1")).expect("it is for this director");
    assert_eq!(kept.generation, 5);
    assert_eq!(last_good(&path, &identity("d2")), None, "it is for another");
    std::fs::write(&path, "{").unwrap();
    assert_eq!(last_good(&path, &identity("d1")), None, "it is damaged");
}
