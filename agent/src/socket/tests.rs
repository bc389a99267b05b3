//! The socket with a control loop and a speaker that the test plays.

use isopath_api::config::Dataplane;
use isopath_api::observed::{DataplaneObserved, Observed};
use isopath_api::speaker::OverrideAction;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::overrides::OverrideError;

/// A test that waits longer than this has failed.
const DEADLINE: Duration = Duration::from_secs(10);

fn observed() -> Box<Observed> {
    Box::new(Observed {
        director: "d1".parse().unwrap(),
        router_id: "10.0.1.2".parse().unwrap(),
        instance: "9a4c".to_owned(),
        run: "r".to_owned(),
        version: "0.0.0".to_owned(),
        at: jiff::Timestamp::UNIX_EPOCH,
        sequence: 1,
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
    })
}

struct Bench {
    _directory: TempDir,
    path: PathBuf,
    speaker_socket: PathBuf,
    _serving: AbortOnDropHandle<()>,
    _control: AbortOnDropHandle<()>,
}

impl Bench {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/agent.sock");
        let speaker_socket = directory.path().join("speaker.sock");
        let (snapshots, mut snapshot_requests) = mpsc::channel(4);
        let (overrides, mut override_requests) = mpsc::channel::<OverrideRequest>(4);
        let socket = Socket::listen(&path).await.unwrap();
        let serving = tokio::spawn(socket.serve(Sources {
            snapshots,
            overrides,
            speaker_socket: speaker_socket.clone(),
        }));
        let control = tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(reply) = snapshot_requests.recv() => {
                        let reply: SnapshotRequest = reply;
                        reply.send(observed()).expect("the client waits");
                    }
                    Some(request) = override_requests.recv() => {
                        let outcome = match request.action {
                            OverrideAction::Withdraw => Ok(()),
                            _ => Err(OverrideError::UnknownVip(request.vip)),
                        };
                        request.reply.send(outcome).expect("the client waits");
                    }
                    else => return,
                }
            }
        });
        Self {
            _directory: directory,
            path,
            speaker_socket,
            _serving: AbortOnDropHandle::new(serving),
            _control: AbortOnDropHandle::new(control),
        }
    }

    /// Sends lines over one connection; answers the replies until the agent closes or has
    /// answered them all.
    async fn ask(&self, lines: &[&str]) -> Vec<String> {
        let exchange = async {
            let mut stream = UnixStream::connect(&self.path).await.unwrap();
            for line in lines {
                stream
                    .write_all(format!("{line}\n").as_bytes())
                    .await
                    .unwrap();
            }
            stream.shutdown().await.unwrap();
            let mut replies = BufReader::new(stream).lines();
            let mut all = Vec::new();
            while let Some(reply) = replies.next_line().await.unwrap() {
                all.push(reply);
            }
            all
        };
        timeout(DEADLINE, exchange).await.expect("no answer")
    }
}

#[tokio::test]
async fn questions_are_answered_in_order_and_nonsense_does_not_end_the_connection() {
    let bench = Bench::new().await;
    let withdraw = r#"{"request":"override","vip":"10.99.0.1","action":"withdraw"}"#;
    let clear = r#"{"request":"override","vip":"10.99.0.9","action":"clear"}"#;
    let replies = bench
        .ask(&[r#"{"request":"status"}"#, "status", withdraw, clear])
        .await;
    assert_eq!(replies.len(), 4, "{replies:?}");
    let status: Reply = serde_json::from_str(&replies[0]).unwrap();
    assert_eq!(status, Reply::Status(observed()));
    assert!(replies[1].contains("expected a request"), "{}", replies[1]);
    assert_eq!(replies[2], r#"{"reply":"ok"}"#);
    assert!(
        replies[3].contains("10.99.0.9 is not a VIP of this director"),
        "{}",
        replies[3]
    );
}

#[tokio::test]
async fn what_only_the_speaker_knows_is_asked_of_it() {
    let bench = Bench::new().await;
    let replies = bench.ask(&[r#"{"request":"lsdb"}"#]).await;
    assert!(
        replies[0].contains("cannot reach the speaker"),
        "{replies:?}"
    );

    let listener = UnixListener::bind(&bench.speaker_socket).unwrap();
    let speaker = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let reply = "{\"reply\":\"lsdb\",\"lsas\":[]}\n";
        stream.write_all(reply.as_bytes()).await.unwrap();
        line
    });
    let replies = bench.ask(&[r#"{"request":"lsdb"}"#]).await;
    assert_eq!(replies, [r#"{"reply":"lsdb","lsas":[]}"#]);
    assert_eq!(speaker.await.unwrap(), "{\"request\":\"lsdb\"}\n");
}

#[tokio::test]
async fn an_endless_line_is_refused() {
    let bench = Bench::new().await;
    let exchange = async {
        let mut stream = UnixStream::connect(&bench.path).await.unwrap();
        stream
            .write_all(&vec![b'x'; MAX_REQUEST + 1])
            .await
            .unwrap();
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).await.unwrap();
        reply
    };
    let reply = timeout(DEADLINE, exchange).await.expect("no answer");
    assert!(
        reply.contains("expected lines of at most 65536 bytes"),
        "{reply}"
    );
}

#[tokio::test]
async fn a_second_agent_is_told_who_answers() {
    let bench = Bench::new().await;
    let Err(error) = Socket::listen(&bench.path).await else {
        panic!("two agents listen on one socket");
    };
    let text = error.to_string();
    assert!(
        text.contains("agent.sock: director d1 (10.0.1.2)"),
        "{text}"
    );
    assert!(bench.path.exists(), "the first agent's socket was removed");
}

#[tokio::test]
async fn a_socket_left_by_a_crash_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let socket = Socket::listen(&path).await.unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660);
    drop(socket);
    assert!(!path.exists(), "an orderly end leaves no file");
}

#[test]
fn only_root_and_the_agents_own_user_are_served() {
    let own = rustix::process::geteuid().as_raw();
    assert_eq!(refusal(0, true), None);
    assert_eq!(refusal(own, true), None);
    let stranger = refusal(own + 1000, true).expect("a stranger was let in");
    assert!(stranger.contains(&(own + 1000).to_string()), "{stranger}");
    assert!(refusal(0, false).is_some_and(|it| it.contains("32 connections")));
}
