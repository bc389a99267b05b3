//! The link against a speaker that the test plays.

use isopath_api::ids::Vip;
use isopath_api::reason::Reason;
use isopath_api::speaker::{Announced, Owner, Source};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::*;

/// A test that waits longer than this has failed.
const DEADLINE: Duration = Duration::from_secs(10);

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}

fn vip() -> Vip {
    "10.99.0.1".parse().unwrap()
}

fn publication(cost: u16) -> Publication {
    Publication {
        set: vec![Announcement {
            vip: vip(),
            cost,
            kind: isopath_api::declare::AnnounceAs::Stub,
        }],
        withheld: Vec::new(),
    }
}

fn status(announced: Vec<Announced>) -> Status {
    Status {
        version: "0.0.0".to_owned(),
        pid: 1,
        origin_pid: 1,
        router_id: "10.0.1.2".parse().unwrap(),
        area: "0.0.0.0".parse().unwrap(),
        up_ms: 1,
        neighbors: Vec::new(),
        announced,
        withheld: Vec::new(),
        owner: Owner::None,
        announcers: std::collections::BTreeMap::new(),
        interfaces: Vec::new(),
        widths: Vec::new(),
        lateness: std::collections::BTreeMap::new(),
        counters: std::collections::BTreeMap::new(),
    }
}

fn announced() -> Announced {
    Announced {
        vip: vip(),
        cost: 1,
        kind: isopath_api::declare::AnnounceAs::Stub,
        source: Source::Agent,
        in_lsdb: true,
        acknowledged: true,
    }
}

/// The link under test and the listener of the speaker that the test plays.
struct Bench {
    _directory: TempDir,
    listener: UnixListener,
    published: watch::Sender<Option<Publication>>,
    events: mpsc::Receiver<SpeakerEvent>,
    stop: CancellationToken,
    link: JoinHandle<()>,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("speaker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (published, publications) = watch::channel(None);
        let (sender, events) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let link = SpeakerLink {
            path,
            hold: Duration::from_secs(10),
            publications,
            events: sender,
            process: SpeakerProcess::foreign(Instant::now()),
            stop: stop.clone(),
        };
        Self {
            _directory: directory,
            listener,
            published,
            events,
            stop,
            link: tokio::spawn(link.run()),
        }
    }

    async fn accept(&self) -> Peer {
        let (stream, _) = soon("a connection", self.listener.accept()).await.unwrap();
        let (read, write) = stream.into_split();
        let lines = BufReader::new(read).lines();
        Peer { lines, write }
    }

    /// Accepts and answers up to the subscription.
    async fn accept_and_greet(&mut self, first: Status) -> Peer {
        let mut peer = self.accept().await;
        assert_eq!(
            peer.request().await,
            Request::Status,
            "the status comes first"
        );
        peer.reply(&Reply::Status(Box::new(first.clone()))).await;
        assert!(matches!(self.event().await, SpeakerEvent::Connected { .. }));
        assert_eq!(peer.request().await, Request::Subscribe);
        peer.reply(&Reply::Status(Box::new(first))).await;
        assert!(matches!(self.event().await, SpeakerEvent::Changed(_)));
        peer
    }

    async fn event(&mut self) -> SpeakerEvent {
        soon("an event", self.events.recv()).await.unwrap()
    }

    fn publish(&self, publication: Publication) {
        self.published.send_replace(Some(publication));
    }
}

/// The speaker's end of a connection.
struct Peer {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Peer {
    async fn request(&mut self) -> Request {
        let line = soon("a request", self.lines.next_line()).await.unwrap();
        serde_json::from_str(&line.expect("the link hung up")).unwrap()
    }

    async fn reply(&mut self, reply: &Reply) {
        let line = format!("{}\n", serde_json::to_string(reply).unwrap());
        self.write.write_all(line.as_bytes()).await.unwrap();
    }
}

fn announce(publication: Publication) -> Request {
    Request::Announce {
        set: publication.set,
        withheld: publication.withheld,
        hold_ms: 10_000,
    }
}

#[tokio::test]
async fn the_status_is_read_before_anything_is_announced() {
    let mut bench = Bench::new();
    let mut peer = bench.accept().await;
    assert_eq!(peer.request().await, Request::Status);
    peer.reply(&Reply::Status(Box::new(status(vec![announced()]))))
        .await;
    let SpeakerEvent::Connected { status, ours } = bench.event().await else {
        panic!("the first event is the connection");
    };
    assert_eq!(
        status.announced,
        [announced()],
        "what an earlier run announced"
    );
    assert!(!ours);
    assert_eq!(
        peer.request().await,
        Request::Subscribe,
        "nothing is announced before the control loop publishes"
    );
}

#[tokio::test]
async fn a_new_set_is_announced_and_the_same_is_a_heartbeat() {
    let mut bench = Bench::new();
    let mut peer = bench.accept_and_greet(status(Vec::new())).await;
    bench.publish(publication(1));
    assert_eq!(peer.request().await, announce(publication(1)));
    peer.reply(&Reply::Ok).await;
    bench.publish(publication(1));
    assert_eq!(peer.request().await, Request::Heartbeat);
    peer.reply(&Reply::Ok).await;

    let withdrawn = Publication {
        set: Vec::new(),
        withheld: vec![Withheld {
            vip: vip(),
            reason: Reason::NotWanted,
        }],
    };
    bench.publish(withdrawn.clone());
    assert_eq!(peer.request().await, announce(withdrawn));
}

#[tokio::test]
async fn after_a_refusal_the_whole_set_is_said_again() {
    let mut bench = Bench::new();
    let mut peer = bench.accept_and_greet(status(Vec::new())).await;
    bench.publish(publication(1));
    assert_eq!(peer.request().await, announce(publication(1)));
    let message = "another agent owns the set".to_owned();
    peer.reply(&Reply::Error { message }).await;
    // The status that follows the refusal shows that it was taken in.
    peer.reply(&Reply::Changed(Box::new(status(Vec::new()))))
        .await;
    assert!(matches!(bench.event().await, SpeakerEvent::Changed(_)));
    bench.publish(publication(1));
    assert_eq!(peer.request().await, announce(publication(1)));
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_the_set_said_to_the_new_speaker() {
    let mut bench = Bench::new();
    let mut peer = bench.accept_and_greet(status(Vec::new())).await;
    bench.publish(publication(3));
    assert_eq!(peer.request().await, announce(publication(3)));
    drop(peer);
    assert!(matches!(bench.event().await, SpeakerEvent::Disconnected));
    let mut peer = bench.accept_and_greet(status(Vec::new())).await;
    assert_eq!(
        peer.request().await,
        announce(publication(3)),
        "a restarted speaker knows nothing of the set"
    );
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_ends_the_connection() {
    for nonsense in [
        r#"{"reply":"ok"}"#,
        "no JSON",
        r#"{"reply":"lsdb","lsas":[]}"#,
    ] {
        let mut bench = Bench::new();
        let mut peer = bench.accept_and_greet(status(Vec::new())).await;
        peer.write
            .write_all(format!("{nonsense}\n").as_bytes())
            .await
            .unwrap();
        assert!(
            matches!(bench.event().await, SpeakerEvent::Disconnected),
            "the connection stood after {nonsense:?}"
        );
    }
}

#[tokio::test]
async fn the_task_ends_when_it_is_stopped() {
    let mut bench = Bench::new();
    let _peer = bench.accept_and_greet(status(Vec::new())).await;
    bench.stop.cancel();
    soon("the end of the task", bench.link).await.unwrap();
}

#[tokio::test]
async fn one_question_has_a_connection_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("speaker.sock");
    let error = ask(&path, &Request::Neighbors).await.unwrap_err();
    assert!(
        error.to_string().contains("speaker.sock"),
        "{error} names no socket"
    );

    let listener = UnixListener::bind(&path).unwrap();
    let answer = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, write) = stream.into_split();
        let lines = BufReader::new(read).lines();
        let mut peer = Peer { lines, write };
        assert_eq!(peer.request().await, Request::Neighbors);
        let reply = Reply::Neighbors {
            neighbors: Vec::new(),
            interfaces: Vec::new(),
        };
        peer.reply(&reply).await;
    });
    let reply = soon("an answer", ask(&path, &Request::Neighbors))
        .await
        .unwrap();
    assert_eq!(
        reply,
        Reply::Neighbors {
            neighbors: Vec::new(),
            interfaces: Vec::new(),
        }
    );
    answer.await.unwrap();
}
