//! Two network namespaces on one wire: a real server, and a neighbour that plays its network.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

pub(crate) use crate::shell::run;

/// The real server's address; the neighbour has 10.1.0.1.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);

/// The VIP.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// A real server and its neighbour.
pub(crate) struct Pair {
    pub(crate) server: String,
    pub(crate) neighbour: String,
    pub(crate) state: TempDir,
}

/// A line that the test harness does not keep to itself.
pub(crate) fn skipped(name: &str, why: &str) {
    let line = format!("SKIPPED: {name}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

impl Pair {
    /// Makes the two, or says why the test is skipped.
    pub(crate) fn new(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skipped(name, "network namespaces need root");
            return None;
        }
        let namespace = |role: &str| format!("rs-{}-{name}-{role}", std::process::id());
        let pair = Self {
            server: namespace("a"),
            neighbour: namespace("b"),
            state: TempDir::new().unwrap(),
        };
        run(&format!("ip netns add {}", pair.server));
        run(&format!("ip netns add {}", pair.neighbour));
        for namespace in [&pair.server, &pair.neighbour] {
            Self::without_ipv6(namespace);
        }
        let (server, neighbour) = (&pair.server, &pair.neighbour);
        batch(
            server,
            &format!(
                "link set lo up\n\
                 link add eth0 type veth peer name eth0 netns {neighbour}\n\
                 address add {SERVER}/24 dev eth0\n\
                 link set eth0 up\n"
            ),
        );
        batch(
            neighbour,
            &format!(
                "address add 10.1.0.1/24 dev eth0\n\
                 link set eth0 up\n\
                 route add {VIP}/32 dev eth0\n"
            ),
        );
        until("a wire that carries", || {
            let link = run(&format!("ip -n {} link show eth0", pair.server));
            link.contains("state UP").then_some(())
        });
        Some(pair)
    }

    /// Its addresses come and go by themselves.
    fn without_ipv6(namespace: &str) {
        Self::within(namespace, || {
            for which in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
                if Path::new(&path).exists() {
                    std::fs::write(&path, "1").unwrap();
                }
            }
        });
    }

    /// Runs `isopath-agent real-server` in the server's namespace on a file of these lines.
    pub(crate) fn command(&self, words: &str, file: &str) -> Output {
        let path = self.state.path().join("rs.toml");
        let state = self.state.path().join("state");
        let text = format!("[real_server]\nstate_dir = {state:?}\n{file}");
        std::fs::write(&path, text).unwrap();
        // In an emulated machine the copy in its memory starts several times as fast.
        let agent = std::env::var_os("ISOPATH_BIN_DIR").map_or_else(
            || PathBuf::from(env!("CARGO_BIN_EXE_isopath-agent")),
            |directory| Path::new(&directory).join("isopath-agent"),
        );
        Command::new("ip")
            .args(["netns", "exec", &self.server])
            .arg(agent)
            .arg("real-server")
            .args(words.split_whitespace())
            .arg("--config")
            .arg(&path)
            .output()
            .unwrap()
    }

    /// The same, which must end with this status: its lines.
    pub(crate) fn lines(&self, words: &str, file: &str, status: i32) -> Vec<String> {
        let output = self.command(words, file);
        let text = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{words}: {text}{error}");
        text.lines().map(str::to_owned).collect()
    }

    /// The file that is written before anything is changed.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.state.path().join("state/real-server.json")
    }

    /// Runs `work` on a thread in a namespace.
    pub(crate) fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{namespace}")).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// Sets a sysctl of the server.
    pub(crate) fn set(&self, key: &str, value: &str) {
        let path = Path::new("/proc/sys").join(key);
        Self::within(&self.server, || std::fs::write(&path, value)).unwrap();
    }

    /// What the server's kernel has of links, addresses, routes, rules and sysctls, by line.
    pub(crate) fn dump(&self) -> BTreeSet<String> {
        let mut lines = BTreeSet::new();
        for what in ["link", "address", "rule", "route show table all"] {
            let text = run(&format!("ip -oneline -n {} {what}", self.server));
            // An interface that was up once keeps the queue that it was given then.
            let text = text.replace(" qdisc noop ", " qdisc noqueue ");
            lines.extend(text.lines().map(str::to_owned));
        }
        Self::within(&self.server, || {
            read_all(Path::new("/proc/sys/net/ipv4"), &mut lines);
        });
        lines
    }

    /// Whether anybody answers the neighbour's question who has the VIP.
    pub(crate) fn answers_arp(&self) -> bool {
        let neighbour = &self.neighbour;
        run(&format!("ip -n {neighbour} neighbour flush dev eth0"));
        Self::within(neighbour, || {
            // Three questions, a tenth of a second apart; the answer comes at once or never.
            std::fs::write("/proc/sys/net/ipv4/neigh/eth0/retrans_time_ms", "100").unwrap();
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"?", (VIP, 9)).unwrap();
        });
        until("an answer, or the end of the questions", || {
            let entry = run(&format!("ip -n {neighbour} neighbour show {VIP}"));
            if entry.contains("lladdr") {
                return Some(true);
            }
            entry.contains("FAILED").then_some(false)
        })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.neighbour] {
            run(&format!("ip netns delete {namespace}"));
        }
    }
}

/// Asks again and again until there is an answer.
pub(crate) fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn read_all(directory: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, into);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            // Some can only be written.
            into.insert(format!("{} = {}", path.display(), text.trim()));
        }
    }
}

/// Fails with the lines that differ.
pub(crate) fn assert_same(now: &BTreeSet<String>, before: &BTreeSet<String>) {
    let gone: Vec<_> = before.difference(now).collect();
    let new: Vec<_> = now.difference(before).collect();
    assert!(now == before, "gone: {gone:#?}, new: {new:#?}");
}

/// Runs lines of `ip` in a namespace.
fn batch(namespace: &str, lines: &str) {
    let mut command = Command::new("ip");
    command.args(["-n", namespace, "-batch", "-"]);
    let mut ip = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = ip.stdin.take().unwrap();
    input.write_all(lines.as_bytes()).unwrap();
    drop(input);
    assert!(ip.wait().unwrap().success(), "{lines}");
}
