//! The control socket with real clients; a Unix socket needs no waiting within one process.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;

use mio::Poll;

use super::*;

/// A control socket in a directory of its own, removed at the end.
struct Served {
    directory: PathBuf,
    poll: Poll,
    control: Control,
}

const LISTENER: Token = Token(0);

fn token(id: ClientId) -> Token {
    Token(1 + id.0)
}

fn directory(name: &str) -> PathBuf {
    let name = format!("isopath-speaker-control-{}-{name}", std::process::id());
    std::env::temp_dir().join(name)
}

impl Served {
    fn new(name: &str) -> Self {
        let directory = directory(name);
        let poll = Poll::new().unwrap();
        let path = directory.join("run/speaker.sock");
        let control = Control::listen(&path, poll.registry(), LISTENER).unwrap();
        Self {
            directory,
            poll,
            control,
        }
    }

    fn path(&self) -> PathBuf {
        self.control.path.clone().unwrap()
    }

    fn connect(&mut self) -> (StdUnixStream, ClientId) {
        let stream = StdUnixStream::connect(self.path()).unwrap();
        self.control.accept(self.poll.registry(), token);
        (stream, ClientId(self.control.next - 1))
    }

    fn sweep(&mut self) -> Vec<ClientId> {
        self.control.sweep(self.poll.registry())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("{}: {error}", self.directory.display());
        }
    }
}

fn line(stream: &StdUnixStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn the_socket_is_for_owner_and_group_and_goes_at_the_end() {
    let served = Served::new("mode");
    let path = served.path();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let second = Control::listen(&path, served.poll.registry(), Token(9));
    assert!(
        matches!(second, Err(ControlError::InUse { .. })),
        "{second:?}"
    );
    assert!(
        path.exists(),
        "the second speaker removed the first's socket"
    );
}

#[test]
fn who_waits_at_a_socket_that_changes_hands_is_served_by_the_successor() {
    let served = Served::new("adopted");
    let path = served.path();
    let waiting = StdUnixStream::connect(&path).unwrap();
    let listener = served.control.listener().as_fd().try_clone_to_owned();
    let poll = Poll::new().unwrap();
    let mut successor = Control::adopt(listener.unwrap(), poll.registry(), LISTENER).unwrap();

    successor.accept(poll.registry(), token);
    assert_eq!(successor.pid(ClientId(0)), std::process::id());
    successor.reply(ClientId(0), &Reply::Ok);
    assert_eq!(line(&waiting), "{\"reply\":\"ok\"}\n");

    drop(successor);
    assert!(
        path.exists(),
        "a successor that did not take over removed the file"
    );
    let poll = Poll::new().unwrap();
    let listener = served.control.listener().as_fd().try_clone_to_owned();
    let mut successor = Control::adopt(listener.unwrap(), poll.registry(), LISTENER).unwrap();
    successor.own(&path);
    drop(successor);
    assert!(!path.exists(), "the file outlives the speaker");
}

#[test]
fn a_stale_socket_is_replaced_and_a_file_is_not() {
    let served = Served::new("stale");
    let stale = served.directory.join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let registry = served.poll.registry();
    let control = Control::listen(&stale, registry, Token(9)).unwrap();
    StdUnixStream::connect(&stale).unwrap();
    drop(control);
    assert!(!stale.exists());

    let file = served.directory.join("precious");
    fs::write(&file, "words").unwrap();
    let refused = Control::listen(&file, registry, Token(9));
    assert!(
        matches!(refused, Err(ControlError::NotASocket { .. })),
        "{refused:?}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "words");
}

#[test]
fn requests_are_read_in_order_and_answered() {
    let mut served = Served::new("requests");
    let (mut client, id) = served.connect();
    assert_eq!(served.control.pid(id), std::process::id());
    let text = b"{\"request\":\"heartbeat\"}\nnonsense\n{\"request\":\"st";
    client.write_all(text).unwrap();
    let received = served.control.receive(id);
    assert_eq!(received.requests.len(), 2);
    assert_eq!(received.requests[0], Ok(Request::Heartbeat));
    assert!(matches!(received.requests[1], Err(Reply::Error { .. })));
    client.write_all(b"atus\"}\n").unwrap();
    assert_eq!(served.control.receive(id).requests, [Ok(Request::Status)]);
    served.control.reply(id, &Reply::Ok);
    assert_eq!(line(&client), "{\"reply\":\"ok\"}\n");
    assert!(served.sweep().is_empty());
    drop(client);
    assert!(served.control.receive(id).requests.is_empty());
    assert_eq!(served.sweep(), [id]);
}

#[test]
fn a_client_that_only_stopped_sending_gets_its_reply() {
    let mut served = Served::new("half");
    let (mut client, id) = served.connect();
    client.write_all(b"{\"request\":\"heartbeat\"}\n").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(served.control.receive(id).requests.len(), 1);
    served.control.reply(id, &Reply::Ok);
    assert_eq!(line(&client), "{\"reply\":\"ok\"}\n");
    assert_eq!(served.sweep(), [id]);
}

#[test]
fn a_client_that_does_not_read_is_disconnected() {
    let mut served = Served::new("slow");
    let (_client, id) = served.connect();
    let message = "x".repeat(1 << 20);
    let reply = Reply::Error { message };
    for sent in 0.. {
        served.control.reply(id, &reply);
        if !served.control.is_listening(id) {
            assert!((16..20).contains(&sent), "disconnected after {sent} MiB");
            break;
        }
    }
    assert_eq!(served.sweep(), [id]);
}

#[test]
fn a_slow_subscriber_is_left_out_and_hears_the_next_change() {
    let mut served = Served::new("subscribers");
    let (mut slow, slow_id) = served.connect();
    let (quick, quick_id) = served.connect();
    let (_other, _) = served.connect();
    served.control.subscribe(slow_id);
    served.control.subscribe(quick_id);
    let message = "x".repeat(1 << 20);
    served.control.reply(slow_id, &Reply::Error { message });
    assert!(served.control.publish(&Reply::Ok), "the slow one is behind");
    assert_eq!(line(&quick), "{\"reply\":\"ok\"}\n");

    slow.set_nonblocking(true).unwrap();
    let mut read = 0;
    let mut chunk = vec![0; 1 << 20];
    while read <= 1 << 20 {
        match slow.read(&mut chunk) {
            Ok(length) => read += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => served.control.flush(slow_id),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(!served.control.publish(&Reply::Ok), "it has caught up");
}

#[test]
fn connections_are_bounded_and_the_refused_are_told() {
    let mut served = Served::new("bounded");
    let clients: Vec<_> = (0..MOST_CLIENTS).map(|_| served.connect()).collect();
    let refused = StdUnixStream::connect(served.path()).unwrap();
    served.control.accept(served.poll.registry(), token);
    assert!(line(&refused).contains("connections are open already"));
    drop(clients);
}

#[test]
fn an_endless_line_is_answered_and_ends_the_connection() {
    let mut served = Served::new("endless");
    let (mut client, id) = served.connect();
    client.set_nonblocking(true).unwrap();
    let chunk = vec![b'x'; 64 << 10];
    let refusal = loop {
        match client.write(&chunk) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        let received = served.control.receive(id);
        if let Some(request) = received.requests.into_iter().next() {
            break request.unwrap_err();
        }
    };
    served.control.reply(id, &refusal);
    assert!(line_of(&client).contains("a line of at most"));
    assert_eq!(served.sweep(), [id]);
}

fn line_of(client: &StdUnixStream) -> String {
    client.set_nonblocking(false).unwrap();
    line(client)
}
