//! No secret is in the log, in the database's files, or in an answer but the one that shows it.

#![expect(
    clippy::unwrap_used,
    reason = "a failure here fails the test, as it should"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tempfile::TempDir;

/// A running server that logs all it ever does; killed when dropped.
struct Served {
    child: Child,
    address: String,
    /// What it printed on the error output, and on the output.
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Served {
    fn start(directory: &Path, listens: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_isopathd"))
            .current_dir(directory)
            .env("RUST_LOG", "trace")
            .args(["serve", "--listen", "127.0.0.1:0", "--config", "c.toml"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut begin = String::new();
        let address = loop {
            let from = begin.len();
            let read = lines.read_line(&mut begin).unwrap();
            assert_ne!(read, 0, "it ended before it listened: {begin}");
            if let Some((_, address)) = begin[from..].trim().split_once(listens) {
                break address.to_owned();
            }
        };
        let log = Arc::new(Mutex::new(begin));
        let into = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                into.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        Self {
            child,
            address,
            log,
            reader: Some(reader),
        }
    }

    /// One request: the whole answer, with its head.
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = body.len();
        write!(
            stream,
            "{head}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Tells it to stop: what it printed, the log first.
    fn terminate(mut self) -> (String, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
        let mut printed = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut printed).unwrap();
        self.reader.take().unwrap().join().unwrap();
        let log = self.log.lock().unwrap().clone();
        (log, printed)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The text after `before` in an answer, up to the next of `ends`.
fn after<'a>(answer: &'a str, before: &str, ends: &[char]) -> &'a str {
    let (_, rest) = answer
        .split_once(before)
        .unwrap_or_else(|| panic!("no {before:?} in {answer}"));
    rest.split(ends).next().unwrap()
}

/// Every file of the directory, its name first.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.file_name().unwrap() != "password" {
            let name = path.display().to_string();
            found.push((name, std::fs::read(&path).unwrap()));
        }
    }
    found
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

#[test]
fn no_secret_is_kept_or_shown_twice() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    let database = "database = \"sqlite://isopath.db\"\n";
    std::fs::write(path.join("c.toml"), database).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_isopathd"))
            .current_dir(path)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let chosen = "chosen horse battery";
    std::fs::write(path.join("password"), chosen).unwrap();
    let served = Served::start(path, "listening on http://");
    let admin = run(&["token", "create", "--name", "root", "--role", "admin"]);
    let agent = run(&[
        "token",
        "create",
        "--name",
        "a1",
        "--role",
        "agent",
        "--cluster",
        "edge",
    ]);
    run(&["user", "create", "ada", "--password-file", "password"]);
    let bearer = format!("Bearer {admin}");
    let with_token = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let body = r#"{"name":"ci","role":"viewer"}"#;
    let answer = served.ask("POST", "/api/v1/tokens", &with_token, body);
    let made = after(&answer, "\"token\":\"", &['"']).to_owned();
    let body = r#"{"name":"bob","role":"viewer"}"#;
    let answer = served.ask("POST", "/api/v1/users", &with_token, body);
    let generated = after(&answer, "\"password\":\"", &['"']).to_owned();
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let login = "user=ada&password=chosen+horse+battery";
    let answer = served.ask("POST", "/login", &form, login);
    let cookie = after(&answer, "isopath_session=", &[';']).to_owned();
    // Typed into the wrong field, and mistyped.
    let slip = "slipped horse battery";
    served.ask(
        "POST",
        "/login",
        &form,
        "user=slipped+horse+battery&password=x",
    );
    let mistyped = format!("{}x", &admin[..admin.len() - 1]);
    let wrong = format!("Bearer {mistyped}");
    served.ask("GET", "/api/v1/clusters", &[("authorization", &wrong)], "");
    let refused = r#"{"name":"x y","role":"viewer","password":"refused horse battery"}"#;
    let mut answers = served.ask("POST", "/api/v1/users", &with_token, refused);
    let session = format!("isopath_session={cookie}");
    for path in [
        "/api/v1/users",
        "/api/v1/tokens",
        "/api/v1/sessions",
        "/api/v1/audit",
        "/api/v1/events",
        "/metrics",
        "/clusters",
        "/login",
    ] {
        answers += &served.ask("GET", path, &with_token, "");
        answers += &served.ask("GET", path, &[("cookie", &session)], "");
    }
    // The WAL is folded in at the end: looked at before and after.
    let mut kept = files(path);
    let (log, printed) = served.terminate();
    kept.extend(files(path));
    let first = after(&printed, "shown only now: ", &['\n']).to_owned();
    assert!(log.contains("signed in"), "the log is one: {log}");
    assert!(kept.iter().any(|(name, bytes)| {
        name.ends_with("isopath.db-wal") && contains(bytes, "user.create")
    }));
    for (what, secret) in [
        ("the first password", first.as_str()),
        ("a chosen password", chosen),
        ("a generated password", &generated),
        ("a refused password", "refused horse battery"),
        ("a password in the field of the name", slip),
        ("a token made by command", &admin),
        ("an agent's token", &agent),
        ("a token made by API", &made),
        ("a mistyped token", &mistyped),
        ("a session's cookie", &cookie),
    ] {
        assert!(secret.len() >= 20, "{what}: {secret:?}");
        assert!(!log.contains(secret), "{what} is in the log");
        assert!(!answers.contains(secret), "{what} is in an answer");
        for (name, bytes) in &kept {
            assert!(!contains(bytes, secret), "{what} is in {name}");
        }
    }
}

#[test]
fn the_authoritys_key_is_in_its_own_file_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    let config = "database = \"sqlite://isopath.db\"\n[tls]\nown_ca = true\n";
    std::fs::write(path.join("c.toml"), config).unwrap();
    let served = Served::start(path, "listening on https://");
    let (log, _) = served.terminate();
    let key = std::fs::read_to_string(path.join("tls/ca.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(secret.len() >= 40, "{secret}");
    assert!(!log.contains(secret), "the key is in the log");
    for (name, bytes) in files(path) {
        assert!(!contains(&bytes, secret), "the key is in {name}");
    }
}
