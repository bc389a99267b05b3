//! A running `isopathd serve`, and requests to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(crate) const CLUSTER: &str = "/api/v1/clusters/edge";

/// Longer than anything takes on the slowest machine that still works.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `done` says so; `what` for the message when it never does.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < DEADLINE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How `isopathd` is started: here, or in another mount namespace.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    /// What goes before the program.
    pub(crate) prefix: Vec<String>,
    pub(crate) directory: PathBuf,
}

impl Launcher {
    pub(crate) fn here(directory: &Path) -> Self {
        Self {
            prefix: Vec::new(),
            directory: directory.to_owned(),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite://{}/isopath.db", self.directory.display())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_isopathd").to_owned();
        let mut words = self.prefix.iter().cloned().chain([program]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(arguments).env("RUST_LOG", "info");
        command
    }

    /// Runs it to its end: what it printed, and on the error output.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(arguments).output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(String::from_utf8(output.stderr).unwrap())
        }
    }

    pub(crate) fn token(&self, name: &str) -> String {
        let url = self.url();
        let arguments = [
            "token",
            "create",
            "--name",
            name,
            "--role",
            "admin",
            "--database",
            &url,
        ];
        self.run(&arguments).unwrap().trim().to_owned()
    }
}

/// A running server, killed when dropped.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: String,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Served {
    /// Starts it on a free port and waits until it says that it listens.
    pub(crate) fn start(launcher: &Launcher) -> Self {
        Self::try_start(launcher).unwrap_or_else(|log| panic!("it did not start: {log}"))
    }

    /// The same; what it logged when it ends instead.
    pub(crate) fn try_start(launcher: &Launcher) -> Result<Self, String> {
        let url = launcher.url();
        let mut child = launcher
            .command(&["serve", "--listen", "127.0.0.1:0", "--database", &url])
            .args([
                "--config",
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/durability/limits.toml"),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        let address = loop {
            let begin = log.len();
            if lines.read_line(&mut log).unwrap() == 0 {
                child.wait().unwrap();
                return Err(log);
            }
            if let Some((_, address)) = log[begin..].trim().split_once("listening on http://") {
                break address.to_owned();
            }
        };
        let log = Arc::new(Mutex::new(log));
        let into = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                into.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        Ok(Self {
            child,
            address,
            log,
            reader: Some(reader),
        })
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub(crate) fn call(&self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        request(&self.address, method, path, token, Some(body)).unwrap()
    }

    pub(crate) fn get(&self, path: &str, token: &str) -> Answer {
        request(&self.address, "GET", path, token, None).unwrap()
    }

    /// SIGKILL, and its end.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
    }

    /// SIGTERM, and its end: all that it logged.
    pub(crate) fn terminate(mut self) -> String {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        self.log()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An answer: its status, its head, and its body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// Nothing when it is not whole.
    fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head
            .to_ascii_lowercase()
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if length.is_some_and(|length| length != body.len()) {
            return None;
        }
        Some(Self {
            status: head.split(' ').nth(1)?.parse().ok()?,
            head: head.to_owned(),
            body: body.to_owned(),
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// A request without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The server was gone before it was sent.
    NotSent,
    /// The server went away before its answer was whole.
    Cut,
}

/// One request on a connection of its own. A declaration replaces whatever is declared.
pub(crate) fn request(
    address: &str,
    method: &str,
    path: &str,
    token: &str,
    body: Option<&Value>,
) -> Result<Answer, NoAnswer> {
    let send = |condition: &str| send(address, (method, path, condition), token, body);
    if method != "PUT" {
        return send("");
    }
    let answer = send("if-match: *\r\n")?;
    match answer.status {
        412 => send("if-none-match: *\r\n"),
        _ => Ok(answer),
    }
}

fn send(
    address: &str,
    (method, path, condition): (&str, &str, &str),
    token: &str,
    body: Option<&Value>,
) -> Result<Answer, NoAnswer> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         {condition}content-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let sent = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_nodelay(true)?;
        stream.write_all(text.as_bytes())?;
        Ok(stream)
    });
    let mut stream = sent.map_err(|_| NoAnswer::NotSent)?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .map_err(|_| NoAnswer::Cut)?;
    Answer::parse(&answer).ok_or(NoAnswer::Cut)
}

/// A cluster of two directors; every `n` is another declaration.
pub(crate) fn declaration(n: u64) -> Value {
    declaration_of("10.99.0.1", n)
}

/// The same with a VIP of its own: no two clusters of a controller may announce one.
pub(crate) fn declaration_of(vip: &str, n: u64) -> Value {
    json!({
        "director": [
            { "name": "d1", "router_id": "10.0.1.2" }, { "name": "d2", "router_id": "10.0.2.2" },
        ],
        "vip": [{ "address": vip, "announce": { "cost": n % 60_000 + 1 } }],
        "service": [{
            "vip": vip, "protocol": "tcp", "port": 80, "check": { "type": "tcp" },
            "real_server": [
                { "address": "10.1.0.11", "weight": n % 60_000 }, { "address": "10.1.0.12" },
            ],
        }],
    })
}

/// A drain over whatever a guard says: nobody reports who could satisfy one.
pub(crate) fn drain() -> Value {
    json!({
        "override_guards": isopathd::guards::ALL, "reason": "nothing is behind these directors",
    })
}

/// A report of `d1` whose agent knows nothing yet.
pub(crate) fn report(sequence: u64) -> Value {
    json!({
        "director": "d1", "router_id": "10.0.1.2", "instance": "i1", "run": "r1",
        "version": "0.1.0", "at": "2026-03-02T03:12:41Z", "sequence": sequence, "epoch": null,
        "generation": 0, "speaker": null, "vips": [], "services": [],
        "dataplane": { "kind": "none", "steps": 0, "drift_repaired": 0, "failures": [] },
    })
}
