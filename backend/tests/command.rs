//! The binary from the outside: what it prints, how it ends, what a kill leaves.

#![expect(
    clippy::unwrap_used,
    reason = "a failure here fails the test, as it should"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

const DECLARATION: &str = r#"{
    "director": [{ "name": "d1", "router_id": "10.0.1.2" }],
    "vip": [{ "address": "10.99.0.1" }]
}"#;

/// A running `isopathd serve`, killed when dropped.
struct Served {
    child: Child,
    address: String,
    log: BufReader<std::process::ChildStderr>,
}

impl Served {
    /// Starts it on a free port and waits until it says that it listens.
    fn start(directory: &Path) -> Self {
        let mut child = isopathd(directory)
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--database",
                "sqlite://isopath.db",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert_ne!(
                log.read_line(&mut line).unwrap(),
                0,
                "it ended before it listened"
            );
            if let Some((_, address)) = line.trim().split_once("listening on http://") {
                break address.to_owned();
            }
        };
        Self {
            child,
            address,
            log,
        }
    }

    /// One request on a connection of its own: the status and the body.
    fn request(&self, method: &str, path: &str, token: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
        (status, body)
    }

    /// Tells it to stop: its exit code, and all it printed.
    fn terminate(mut self) -> (Option<i32>, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        let mut printed = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut printed).unwrap();
        self.log.read_to_string(&mut printed).unwrap();
        (status.code(), printed)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn isopathd(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isopathd"));
    command.current_dir(directory).env("RUST_LOG", "info");
    command
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    isopathd(directory).args(arguments).output().unwrap()
}

fn operator(directory: &Path, name: &str) -> String {
    token(directory, &["--name", name, "--role", "operator"])
}

fn token(directory: &Path, arguments: &[&str]) -> String {
    let output = run(directory, &[&["token", "create"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_first_start_makes_a_user_and_tells_its_password_once() {
    let directory = TempDir::new().unwrap();
    let (code, printed) = Served::start(directory.path()).terminate();
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.contains("Sign in as admin with this password"),
        "{printed}"
    );
    let (code, printed) = Served::start(directory.path()).terminate();
    assert_eq!(code, Some(0), "{printed}");
    assert!(!printed.contains("password"), "{printed}");
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let directory = TempDir::new().unwrap();
    let mut served = Served::start(directory.path());
    let token = operator(directory.path(), "ops");
    let (status, body) = served.request("PUT", "/api/v1/clusters/edge", &token, DECLARATION);
    assert_eq!(status, 201, "{body}");
    served.child.kill().unwrap();
    served.child.wait().unwrap();
    let served = Served::start(directory.path());
    let (status, body) = served.request("GET", "/api/v1/clusters/edge", &token, "");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"revision\":1"), "{body}");
}

#[test]
fn it_stops_although_an_agent_holds_its_stream_open() {
    let directory = TempDir::new().unwrap();
    let served = Served::start(directory.path());
    let ops = operator(directory.path(), "ops");
    served.request("PUT", "/api/v1/clusters/edge", &ops, DECLARATION);
    let agents = ["--name", "agents", "--role", "agent", "--cluster", "edge"];
    let agent = token(directory.path(), &agents);
    let mut stream = TcpStream::connect(&served.address).unwrap();
    write!(
        stream,
        "GET /api/v1/clusters/edge/directors/d1/desired HTTP/1.1\r\nhost: x\r\n\
         authorization: Bearer {agent}\r\n\r\n"
    )
    .unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "the stream ended");
    }
    let (code, printed) = served.terminate();
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        !printed.contains("cut off"),
        "the stream ended by itself: {printed}"
    );
}

#[test]
fn its_help_names_all_that_the_file_may_say() {
    let directory = TempDir::new().unwrap();
    let help = run(directory.path(), &["serve", "--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, file) = help.split_once("A TOML file: ").unwrap();
    let (file, _) = file.split_once("--").unwrap();
    // A file with a key that is none is told all that there are.
    std::fs::write(directory.path().join("c.toml"), "none = 1\n").unwrap();
    let told = run(directory.path(), &["serve", "--config", "c.toml"]);
    let told = String::from_utf8(told.stderr).unwrap();
    let (_, keys) = told.split_once("expected one of ").unwrap();
    let keys: Vec<_> = keys.split('`').skip(1).step_by(2).collect();
    assert!(keys.len() >= 7, "{told}");
    for key in keys {
        assert!(file.contains(key), "no {key} in {file:?}");
    }
}

#[test]
fn a_second_one_on_the_same_database_is_refused() {
    let directory = TempDir::new().unwrap();
    let _served = Served::start(directory.path());
    let second = run(directory.path(), &["serve", "--listen", "127.0.0.1:0"]);
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{error}");
    assert!(error.contains("another isopathd serves from"), "{error}");
}

#[test]
fn a_faulty_file_has_its_place_and_exit_code_2() {
    let directory = TempDir::new().unwrap();
    std::fs::write(
        directory.path().join("c.toml"),
        "listen = \"127.0.0.1:0\"\nport = 1\n",
    )
    .unwrap();
    let output = run(directory.path(), &["serve", "--config", "c.toml"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.starts_with("c.toml:2:1: "), "{error}");
    assert!(
        !directory.path().join("isopath.db").exists(),
        "nothing was touched"
    );
}

#[test]
fn names_passwords_and_urls_are_checked() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    std::fs::write(path.join("short"), "secret\n").unwrap();
    operator(path, "ops");
    for (arguments, code, expected) in [
        (
            &["token", "create", "--name", "ops", "--role", "operator"][..],
            1,
            "already",
        ),
        (
            &["token", "create", "--name", "a b", "--role", "operator"],
            2,
            "found \"a b\"",
        ),
        (
            &["token", "create", "--name", "..", "--role", "viewer"],
            2,
            "found \"..\"",
        ),
        (
            &["token", "create", "--name", "x", "--role", "agent"],
            2,
            "--cluster",
        ),
        (
            &["user", "create", "ada", "--password-file", "short"],
            2,
            "12 to 256 characters, found 6",
        ),
        (
            &["user", "create", "ada", "--password-file", "absent"],
            2,
            "cannot read absent",
        ),
        (
            &["user", "create", "ada", "--database", "mysql://x"],
            2,
            "sqlite://isopath.db",
        ),
    ] {
        let output = run(path, arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}

mod slow {
    use super::*;

    /// A server that waits a fifth of a second for headers, with two places.
    fn served(directory: &Path) -> (Child, String) {
        let limits = "[limits]\nconnections = 2\nheader_timeout = \"200ms\"\n\
                      request_timeout = \"200ms\"\n";
        std::fs::write(directory.join("c.toml"), limits).unwrap();
        let mut child = isopathd(directory)
            .args(["serve", "--listen", "127.0.0.1:0", "--config", "c.toml"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some((_, address)) = line.trim().split_once("listening on http://") {
                break address.to_owned();
            }
        };
        (child, address)
    }

    fn answer_to(address: &str, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        // Whoever is cut off may be told so by a reset.
        drop(stream.read_to_string(&mut answer));
        answer
    }

    #[test]
    fn who_does_not_go_on_asking_gives_the_place_back() {
        let directory = TempDir::new().unwrap();
        let (mut child, address) = served(directory.path());
        // Both places are taken, by one that never asks and one that never ends its headers.
        let silent = TcpStream::connect(&address).unwrap();
        let mut trickling = TcpStream::connect(&address).unwrap();
        trickling.write_all(b"GET / HTTP/1.1\r\nx-a: ").unwrap();
        let healthy = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let answer = answer_to(&address, healthy);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // A body that does not come.
        let form = "POST /login HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\
                    content-type: application/x-www-form-urlencoded\r\n\r\nuser=";
        let answer = answer_to(&address, form);
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        // Headers without an end.
        let many = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(64 << 10));
        let answer = answer_to(&address, &many);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
            "{answer}"
        );
        drop(silent);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// A start that was cut off between the file and the user is no obstacle to the next; a file of
/// something else stays as it is.
#[test]
fn the_first_password_s_file_is_written_again_where_no_user_came_of_it() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("admin.password");
    let left = format!("{}\n", "k".repeat(24));
    let serve = |database: &str| {
        let database = format!("sqlite://{database}");
        let mut command = isopathd(directory.path());
        command.args(["serve", "--listen", "127.0.0.1:0", "--database", &database]);
        command.arg("--admin-password-file").arg(&file);
        command
    };
    std::fs::write(&file, "something else\n").unwrap();
    let refused = serve("a.db").output().unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("admin.password"), "{told}");
    let kept = std::fs::read_to_string(&file).unwrap();
    assert_eq!(kept, "something else\n");

    std::fs::write(&file, &left).unwrap();
    let mut child = serve("b.db").stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let listens = log
        .lines()
        .any(|line| line.unwrap().contains("listening on http://"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(listens, "it did not start");
    let password = std::fs::read_to_string(&file).unwrap();
    assert_ne!(password, left, "it is the password of no user");
    assert_eq!(password.len(), left.len());
}
