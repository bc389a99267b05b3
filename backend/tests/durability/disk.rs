//! Disks that take no writes: a real file system that is full or mounted read-only, in a mount
//! namespace of the test's own.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::served::{CLUSTER, Launcher, Served, declaration, drain, report, wait_until};

/// A mount namespace with a small file system of its own, for as long as this value lives.
struct Namespace {
    holder: Child,
    directory: TempDir,
}

impl Namespace {
    /// Nothing, and why on the error output, where it cannot be made.
    fn make(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: {test}: mounting a file system needs root");
            return None;
        }
        let directory = TempDir::new().unwrap();
        let script = "mount -t tmpfs -o size=16m tmpfs \"$0\" && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let namespace = Self { holder, directory };
        assert_eq!(line, "mounted\n", "cannot mount a tmpfs");
        Some(namespace)
    }

    fn prefix(&self) -> Vec<String> {
        let pid = self.holder.id().to_string();
        ["nsenter", "--target", &pid, "--mount", "--"]
            .map(str::to_owned)
            .into()
    }

    fn launcher(&self) -> Launcher {
        Launcher {
            prefix: self.prefix(),
            directory: self.directory.path().to_owned(),
        }
    }

    /// A file of the namespace, as it is reached from outside.
    fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.directory.path().strip_prefix("/").unwrap())
            .join(name)
    }

    fn remount(&self, how: &str) {
        let prefix = self.prefix();
        let status = Command::new(&prefix[0])
            .args(&prefix[1..])
            .args(["mount", "-o", &format!("remount,{how}")])
            .arg(self.directory.path())
            .status()
            .unwrap();
        assert!(status.success(), "remount,{how}");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Its file system goes with the last process in it.
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// Takes all the room there is.
fn fill(path: &Path) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    let mut chunk = vec![0_u8; 1 << 20];
    while !chunk.is_empty() {
        match file.write_all(&chunk) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                chunk.truncate(chunk.len() / 2);
            }
            Err(error) => panic!("cannot fill the disk: {error}"),
        }
    }
}

fn revision(served: &Served, token: &str) -> u64 {
    let answer = served.get(CLUSTER, token);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["revision"].as_u64().unwrap()
}

/// Declares until the disk refuses: the last revision that was acknowledged.
fn declare_until_refused(served: &Served, token: &str) -> u64 {
    let mut acknowledged = revision(served, token);
    for n in acknowledged.. {
        let answer = served.call("PUT", CLUSTER, token, &declaration(n + 1));
        match answer.status {
            200 => acknowledged = answer.json()["revision"].as_u64().unwrap(),
            503 => {
                let problem = answer.json();
                assert_eq!(problem["type"], "/problems/read-only", "{answer:?}");
                let head = answer.head.to_ascii_lowercase();
                assert!(head.contains("\r\nretry-after: 2"), "{head}");
                return acknowledged;
            }
            _ => panic!("{answer:?}"),
        }
        assert!(n < 100_000, "the disk is full and takes every write");
    }
    acknowledged
}

fn assert_read_only_and_serving(served: &Served, token: &str, acknowledged: u64, cause: &str) {
    assert_eq!(revision(served, token), acknowledged);
    for path in ["/readyz", "/healthz"] {
        let answer = served.get(path, "");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.contains("read-only since"), "{answer:?}");
        assert!(answer.body.contains(cause), "{answer:?}");
    }
    let metrics = served.get("/metrics", token).body;
    assert!(metrics.contains("\nisopath_controller_database_read_only 1\n"));
    let view = served.get(CLUSTER, token).json();
    let problems = view["problems"].as_array().unwrap();
    let told = problems.iter().any(|problem| {
        problem["object"] == "database" && problem["cause"].as_str().unwrap().contains(cause)
    });
    assert!(told, "{problems:?}");
    for (method, path) in [
        ("PUT", CLUSTER.to_owned()),
        ("POST", format!("{CLUSTER}/directors/d1/drain")),
    ] {
        let body = match method {
            "PUT" => declaration(59_999),
            _ => drain(),
        };
        let answer = served.call(method, &path, token, &body);
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.json()["type"], "/problems/read-only", "{answer:?}");
    }
    let look = format!("{CLUSTER}?dry_run=true");
    let answer = served.call("PUT", &look, token, &declaration(59_999));
    assert_eq!(answer.status, 200, "to look needs no write: {answer:?}");
    assert_eq!(answer.json()["revision"], acknowledged + 1, "{answer:?}");
    let director = served.get(&format!("{CLUSTER}/directors/d1"), token).json();
    assert_eq!(director["admin_state"], "active", "nothing was half done");
}

#[test]
fn a_full_disk_turns_it_read_only_and_room_turns_it_back() {
    let Some(namespace) = Namespace::make("a_full_disk_turns_it_read_only_and_room_turns_it_back")
    else {
        return;
    };
    let launcher = namespace.launcher();
    let served = Served::start(&launcher);
    let token = launcher.token("ops");
    let answer = served.call("PUT", CLUSTER, &token, &declaration(0));
    assert_eq!(answer.status, 201, "{answer:?}");
    let mut stream = TcpStream::connect(&served.address).unwrap();
    write!(
        stream,
        "GET {CLUSTER}/directors/d1/desired HTTP/1.1\r\nhost: x\r\n\
         authorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();

    fill(&namespace.path("filler"));
    let acknowledged = declare_until_refused(&served, &token);
    wait_until("the page tells", || {
        served.get(CLUSTER, &token).body.contains("takes no writes")
    });
    assert_read_only_and_serving(&served, &token, acknowledged, "the disk is full");
    // An agent that was never heard before is one more thing that cannot be stored.
    let observed = format!("{CLUSTER}/directors/d1/observed");
    for sequence in 1..=3 {
        let answer = served.call("POST", &observed, &token, &report(sequence));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let director = served
        .get(&format!("{CLUSTER}/directors/d1"), &token)
        .json();
    assert!(director["last_report"].is_string(), "{director}");
    wait_until("its event waits", || {
        let metrics = served.get("/metrics", &token).body;
        !metrics.contains("\nisopath_controller_events_waiting 0\n")
    });

    std::fs::remove_file(namespace.path("filler")).unwrap();
    wait_until("it takes writes again", || {
        served.get("/readyz", "").body == "ok\n"
    });
    let answer = served.call("PUT", CLUSTER, &token, &declaration(59_998));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["revision"], acknowledged + 1, "{answer:?}");
    for expected in [
        "its agent reported for the first time",
        "takes writes again; it was read-only since",
    ] {
        wait_until(expected, || {
            served.get("/api/v1/events", &token).body.contains(expected)
        });
    }
    stream.set_nonblocking(true).unwrap();
    let mut came = vec![0; 1 << 20];
    let read = stream.read(&mut came).unwrap();
    let came = String::from_utf8_lossy(&came[..read]).into_owned();
    assert!(came.contains("event: desired"), "{came}");

    let log = served.terminate();
    let lines = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!(lines("the database is read-only since"), 1, "{log}");
    assert_eq!(lines("the database takes writes again"), 1, "{log}");
}

#[test]
fn it_starts_on_a_full_disk_with_all_that_was_acknowledged() {
    let Some(namespace) =
        Namespace::make("it_starts_on_a_full_disk_with_all_that_was_acknowledged")
    else {
        return;
    };
    let launcher = namespace.launcher();
    let served = Served::start(&launcher);
    let token = launcher.token("ops");
    served.call("PUT", CLUSTER, &token, &declaration(0));
    fill(&namespace.path("filler"));
    let acknowledged = declare_until_refused(&served, &token);
    served.kill();
    let served = Served::start(&launcher);
    assert_eq!(declare_until_refused(&served, &token), acknowledged);
    wait_until("the page tells", || {
        served.get(CLUSTER, &token).body.contains("takes no writes")
    });
    assert_read_only_and_serving(&served, &token, acknowledged, "the disk is full");
}

#[test]
fn it_starts_on_a_file_system_that_is_read_only() {
    let Some(namespace) = Namespace::make("it_starts_on_a_file_system_that_is_read_only") else {
        return;
    };
    let launcher = namespace.launcher();
    for (how_it_ended, n) in [("terminated", 1), ("killed", 2)] {
        let served = Served::start(&launcher);
        let token = launcher.token(how_it_ended);
        let answer = served.call("PUT", CLUSTER, &token, &declaration(n));
        let acknowledged = answer.json()["revision"].as_u64().unwrap();
        if n == 1 {
            served.terminate();
        } else {
            served.kill();
        }
        namespace.remount("ro");
        let served = Served::start(&launcher);
        wait_until("the page tells", || {
            served.get(CLUSTER, &token).body.contains("takes no writes")
        });
        assert_read_only_and_serving(&served, &token, acknowledged, "ead-only file system");
        let refused = launcher.run(&["user", "create", "ada", "--database", &launcher.url()]);
        let refused = refused.unwrap_err();
        assert!(refused.contains("the database is read-only"), "{refused}");
        namespace.remount("rw");
        wait_until("it takes writes again", || {
            served.get("/readyz", "").body == "ok\n"
        });
        let answer = served.call("PUT", CLUSTER, &token, &declaration(n + 10));
        assert_eq!(answer.json()["revision"], acknowledged + 1, "{answer:?}");
        assert_eq!(revision(&served, &token), acknowledged + 1);
    }
}

#[test]
fn another_releases_database_is_refused_where_it_cannot_be_changed() {
    let name = "another_releases_database_is_refused_where_it_cannot_be_changed";
    let Some(namespace) = Namespace::make(name) else {
        return;
    };
    let launcher = namespace.launcher();
    let directory = TempDir::new().unwrap();
    let elsewhere = Launcher::here(directory.path());
    Served::start(&elsewhere).terminate();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        use sqlx::Connection;
        let mut connection = sqlx::SqliteConnection::connect(&elsewhere.url())
            .await
            .unwrap();
        sqlx::query("DELETE FROM _sqlx_migrations WHERE version = 2")
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    });
    let file = directory.path().join("isopath.db");
    std::fs::copy(file, namespace.path("isopath.db")).unwrap();
    namespace.remount("ro");
    let refused = match Served::try_start(&launcher) {
        Ok(served) => panic!("it started: {}", served.log()),
        Err(log) => log,
    };
    let expected = "is not as this release needs it: start once with a disk that takes writes";
    assert!(refused.contains(expected), "{refused}");
}
