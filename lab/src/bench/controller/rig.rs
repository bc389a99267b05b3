//! A controller on a database of its own, and what it costs.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use isopath_api::view::{Applied, ClusterSummary, ClusterView};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::binaries;
use crate::netns::Namespace;
use crate::process::Process;
use crate::registry::Registry;
use crate::topology::complain;

use super::set::{Shape, cluster_name};
use super::wire::{Answer, Connection, request};

/// Where the controller listens: the namespace's loopback is nobody else's.
pub(super) const ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// How long anything may take that is no figure.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// The status of an answer to one who asked too often.
const TOO_MANY: u16 = 429;

/// A namespace, a directory, and the controller in them.
#[derive(Debug)]
pub(super) struct Rig {
    registry: Arc<Registry>,
    namespace: Namespace,
    directory: PathBuf,
    process: Option<Process>,
    operator: String,
    /// The agents' tokens, by cluster.
    pub(super) tokens: Vec<String>,
    connection: Option<Connection>,
}

impl Rig {
    /// Starts a controller with so many clusters declared. Its database is beside the results,
    /// since what is written must reach a disk.
    pub(super) async fn start(
        (namespace, registry): (&Namespace, &Arc<Registry>),
        beside: &Path,
        clusters: u16,
        shape: Shape,
    ) -> Result<Self> {
        raise_open_files()?;
        let name = format!("bench-controller-{}", registry.name());
        let directory = std::path::absolute(beside).context("finding the results' directory")?;
        let directory = directory.join(name);
        if directory.exists() {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("removing {}", directory.display()))?;
        }
        registry.make_directory(&directory)?;
        let mut rig = Self {
            registry: Arc::clone(registry),
            namespace: namespace.clone(),
            directory,
            process: None,
            operator: String::new(),
            tokens: Vec::new(),
            connection: None,
        };
        rig.operator = rig.token(&["--name", "bench", "--role", "operator"])?;
        for cluster in 0..clusters {
            let cluster = cluster_name(cluster);
            let name = format!("agents-{cluster}");
            let arguments = ["--name", &name, "--role", "agent", "--cluster", &cluster];
            rig.tokens.push(rig.token(&arguments)?);
        }
        rig.spawn().await?;
        for cluster in 0..clusters {
            rig.declare(cluster, shape, 1, None).await?;
        }
        Ok(rig)
    }

    fn token(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(binaries::find("isopathd")?);
        command.args(["token", "create", "--database", &self.database()]);
        let output = self.namespace.run(command.args(arguments))?;
        let token = String::from_utf8(output.stdout).context("a token is not UTF-8")?;
        Ok(token.trim().to_owned())
    }

    fn database(&self) -> String {
        format!("sqlite://{}", self.directory.join("isopath.db").display())
    }

    /// Starts the process and waits until it is ready.
    pub(super) async fn spawn(&mut self) -> Result<()> {
        // What is measured is how fast it answers and not how often it lets one ask.
        let config = self.directory.join("isopathd.toml");
        let limits = "[limits]\napi_per_second = 1000000\nreports_per_second = 100\n";
        fs::write(&config, limits).context("cannot write the controller's file")?;
        let mut command = Command::new(binaries::find("isopathd")?);
        command
            .args(["serve", "--listen", &ADDRESS.to_string()])
            .arg("--config")
            .arg(&config)
            .args(["--database", &self.database()])
            .current_dir(&self.directory)
            .env("RUST_LOG", "warn");
        let log = self.directory.join("isopathd.log");
        let mut process = Process::spawn(&self.namespace, "isopathd", &log, &mut command)?;
        self.connection = None;
        let begun = Instant::now();
        loop {
            process.expect_running()?;
            match self.ask(("GET", "/readyz"), &[], None).await {
                Ok(answer) if answer.status == 200 => break,
                Ok(_) | Err(_) if begun.elapsed() < SOON => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok(answer) => bail!("isopathd is not ready: {answer:?}"),
                Err(error) => return Err(error.context("isopathd is not ready")),
            }
        }
        self.process = Some(process);
        Ok(())
    }

    /// Sends it a signal and waits for its end.
    pub(super) fn end(&mut self, signal: Signal) -> Result<()> {
        let mut process = self.process.take().context("isopathd does not run")?;
        process.signal(signal)?;
        process.wait(SOON).map(drop)
    }

    /// The process.
    pub(super) fn process(&mut self) -> Result<&mut Process> {
        let process = self.process.as_mut().context("isopathd does not run")?;
        process.expect_running()?;
        Ok(process)
    }

    /// Asks as an operator. An answer that one has asked too often is waited out: what is timed
    /// asks less often than anybody may.
    pub(super) async fn ask(
        &mut self,
        of: (&str, &str),
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Answer> {
        let text = request(of, &self.operator, headers, body);
        let begun = Instant::now();
        loop {
            // The controller closes what was not used for as long as a part of the measurement.
            let connection = match &mut self.connection {
                Some(connection) if connection.is_idle() => connection,
                slot => slot.insert(Connection::open(ADDRESS).await.context("connecting")?),
            };
            match connection.ask(&text).await {
                Ok(answer) if answer.status == TOO_MANY && begun.elapsed() < SOON => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    self.connection = None;
                    return Err(error).with_context(|| format!("{} {}", of.0, of.1));
                }
            }
        }
    }

    /// Puts a declaration; answers what the controller made of it.
    pub(super) async fn declare(
        &mut self,
        cluster: u16,
        shape: Shape,
        weight: u16,
        revision: Option<u64>,
    ) -> Result<Applied> {
        let declaration = shape.declaration(cluster, weight)?;
        let body = serde_json::to_vec(&declaration).context("writing a declaration")?;
        let path = format!("/api/v1/clusters/{}", cluster_name(cluster));
        let tag = revision.map(|revision| format!("\"r{revision}\""));
        let header = tag.as_deref().map(|tag| ("if-match", tag));
        let answer = self
            .ask(("PUT", &path), header.as_slice(), Some(&body))
            .await?;
        if !matches!(answer.status, 200 | 201) {
            let body = String::from_utf8_lossy(&answer.body);
            bail!("the declaration was refused: {} {body}", answer.status);
        }
        serde_json::from_slice(&answer.body).context("reading what was applied")
    }

    /// All clusters in short.
    pub(super) async fn clusters(&mut self) -> Result<Vec<ClusterSummary>> {
        let answer = self.ask(("GET", "/api/v1/clusters"), &[], None).await?;
        let body = String::from_utf8_lossy(&answer.body);
        serde_json::from_slice(&answer.body).with_context(|| format!("reading the list {body}"))
    }

    /// A cluster as the controller shows it.
    pub(super) async fn view(&mut self, cluster: u16) -> Result<ClusterView> {
        let path = format!("/api/v1/clusters/{}", cluster_name(cluster));
        let answer = self.ask(("GET", &path), &[], None).await?;
        let body = String::from_utf8_lossy(&answer.body);
        serde_json::from_slice(&answer.body).with_context(|| format!("reading the view {body}"))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.process = None;
        complain(fs::remove_dir_all(&self.directory).context("removing the database"));
        // What is recorded of it is of no use any more; the registry removes what is left.
        drop(Arc::clone(&self.registry));
    }
}

/// The processor time that a process has used, in seconds.
pub(super) fn cpu(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let fields = text.rsplit_once(") ").map(|(_, fields)| fields);
    // utime and stime are the 14th and 15th, and the program's name is the second.
    let ticks = fields.and_then(|fields| {
        let mut fields = fields.split(' ').skip(11);
        Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
    });
    let ticks = ticks.with_context(|| format!("no times in {path}"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The most memory that a process ever had resident, in bytes.
pub(super) fn peak_rss(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kibibytes.with_context(|| format!("no VmHWM in {path}"))? * 1024)
}

/// Two connections for each agent are more than a shell's usual limit.
fn raise_open_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).context("raising the limit of open files")
}
