//! Prometheus beside the controller, with the configuration and the rules of `deploy/prometheus`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::http;
use crate::netns::Namespace;
use crate::plan;
use crate::process::Process;
use crate::topology::Lab;
use crate::wait::{self, Probe, scaled};

/// Where it answers, in the controller's namespace.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// How often it scrapes and evaluates, and how long every alert waits, in place of the times of
/// `deploy/prometheus`: a test cannot wait for minutes, and the expressions are the same.
const SECOND: &str = "1s";

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    namespace: Namespace,
    process: Process,
}

/// An alert that is firing or waits to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Alert {
    /// Its labels, `alertname` among them.
    pub labels: BTreeMap<String, String>,
    /// Its texts, with the labels' values filled in.
    pub annotations: BTreeMap<String, String>,
    /// `pending` or `firing`.
    pub state: String,
}

impl Alert {
    /// Its name.
    pub fn name(&self) -> &str {
        self.label("alertname")
    }

    /// A label's value; empty without it.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Alerts {
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Targets {
    active_targets: Vec<Target>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    scrape_url: String,
    health: String,
    last_error: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scrape_url,
            health,
            last_error,
        } = self;
        write!(f, "{scrape_url} is {health} {last_error}")
    }
}

/// Whether Debian's `prometheus` is installed, with the tool that comes with it.
pub fn is_installed() -> bool {
    let quiet = |program: &str| {
        let mut command = Command::new(program);
        let command = command.arg("--version").stdout(Stdio::null());
        let status = command.stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    quiet("prometheus") && quiet("promtool")
}

impl Prometheus {
    /// Starts it and waits until it has scraped the controller and every director's agent.
    ///
    /// # Errors
    /// Its files have another form than expected, it does not start, or something is not scraped
    /// in time.
    pub fn start(lab: &Lab) -> Result<Self> {
        let namespace = lab.controller.namespace();
        let directory = lab.controller.directory().join("prometheus");
        fs::create_dir(&directory).with_context(|| format!("making {}", directory.display()))?;
        let read = |name: &str| {
            let path = deployed(name);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        write("isopath.rules.yml", hurried(&read("isopath.rules.yml")?)?)?;
        write(
            "prometheus.yml",
            configuration(&read("prometheus.yml")?, lab)?,
        )?;
        let token = &lab.controller.access()?.operator_token;
        lab.controller.secret("prometheus/token", token)?;
        let mut command = Command::new("prometheus");
        let path = |name: &str| directory.join(name).display().to_string();
        command
            .arg(format!("--config.file={}", path("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", path("data")))
            .arg(format!("--web.listen-address={ADDRESS}"));
        let log = directory.join("prometheus.log");
        let process = Process::spawn(namespace, "prometheus", &log, &mut command)?;
        let mut started = Self {
            namespace: namespace.clone(),
            process,
        };
        started.wait_for_targets(1 + lab.directors.len())?;
        Ok(started)
    }

    fn wait_for_targets(&mut self, count: usize) -> Result<()> {
        let what = format!("Prometheus to scrape {count} targets");
        wait::until(what, Duration::from_secs(20), || {
            self.process.expect_running()?;
            let targets = match self.ask::<Targets>("/api/v1/targets?state=active") {
                Ok(targets) => targets.active_targets,
                Err(error) => return Ok(Probe::Waiting(format!("{error:#}"))),
            };
            let up = targets.iter().filter(|target| target.health == "up");
            let is_all = up.count() == count && targets.len() == count;
            Ok(Probe::when(is_all, (), || {
                let seen = targets.iter().map(Target::to_string);
                seen.collect::<Vec<_>>().join("; ")
            }))
        })
    }

    /// The alerts that are firing or wait to.
    ///
    /// # Errors
    /// It does not answer.
    pub fn alerts(&self) -> Result<Vec<Alert>> {
        Ok(self.ask::<Alerts>("/api/v1/alerts")?.alerts)
    }

    /// Waits until the alerts that are firing are as `is_so` wants them.
    ///
    /// # Errors
    /// They are not in time.
    pub fn wait_for_firing(
        &self,
        what: &str,
        within: Duration,
        is_so: impl Fn(&[Alert]) -> bool,
    ) -> Result<Vec<Alert>> {
        wait::until(what, within, || {
            let mut firing = self.alerts()?;
            firing.retain(|alert| alert.state == "firing");
            let is_so = is_so(&firing);
            let seen: Vec<_> = firing.iter().map(|alert| alert.labels.clone()).collect();
            Ok(Probe::when(is_so, firing, || format!("{seen:?}")))
        })
    }

    fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let request = http::Request {
            method: "GET",
            path,
            token: None,
            body: None,
            if_match: None,
            timeout: scaled(Duration::from_secs(5)),
        };
        let answer = self.namespace.enter(|| http::send(ADDRESS, &request))??;
        ensure!(
            answer.status == 200,
            "Prometheus answered {path} with {} {}",
            answer.status,
            answer.body
        );
        let parsed: Answer<T> = serde_json::from_str(&answer.body)
            .with_context(|| format!("reading the answer to {path}: {}", answer.body))?;
        Ok(parsed.data)
    }
}

/// Has `promtool check metrics` look at an exposition.
///
/// # Errors
/// It finds something, or does not run.
pub fn check_metrics(of: &str, exposition: &str) -> Result<()> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("starting promtool")?;
    let mut input = child.stdin.take().context("promtool has no input")?;
    // It reads all before it says anything, so that writing first cannot block for ever.
    input
        .write_all(exposition.as_bytes())
        .context("giving the exposition to promtool")?;
    drop(input);
    let output = child.wait_with_output().context("waiting for promtool")?;
    if output.status.success() {
        return Ok(());
    }
    let found = [output.stdout, output.stderr].concat();
    bail!(
        "promtool on the metrics of {of}: {}",
        String::from_utf8_lossy(&found)
    );
}

/// Where a file of `deploy/prometheus` is.
fn deployed(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/prometheus")
        .join(name)
}

/// The rules with every alert's patience a second.
fn hurried(rules: &str) -> Result<String> {
    let mut text = String::new();
    let mut alerts = 0;
    for line in rules.lines() {
        let rest = line.trim_start();
        let indent = &line[..line.len() - rest.len()];
        if rest.starts_with("for: ") {
            alerts += 1;
            writeln!(text, "{indent}for: {SECOND}")?;
        } else {
            writeln!(text, "{line}")?;
        }
    }
    ensure!(alerts > 0, "no alert waits for anything in {rules}");
    Ok(text)
}

/// The configuration of a lab: other targets, other times, and a token.
fn configuration(deployed: &str, lab: &Lab) -> Result<String> {
    let mut text = deployed.to_owned();
    let mut replace = |from: &str, to: &str| {
        ensure!(text.contains(from), "prometheus.yml does not have {from:?}");
        text = text.replace(from, to);
        Ok(())
    };
    let agents = lab.directors.iter();
    let agents: Vec<String> = agents
        .map(|director| format!("\"{}:9477\"", plan::director_management(director.number)))
        .collect();
    replace("_interval: 5s", &format!("_interval: {SECOND}"))?;
    replace("\"127.0.0.1:8080\"", &format!("\"{}\"", plan::CONTROLLER))?;
    replace("\"10.0.0.11:9477\", \"10.0.0.12:9477\"", &agents.join(", "))?;
    replace(
        "cluster: edge",
        &format!("cluster: {}", crate::controller::CLUSTER),
    )?;
    replace("    # authorization:\n", "    authorization:\n")?;
    replace(
        "    #   credentials_file: /etc/prometheus/isopath.token\n",
        "      credentials_file: token\n",
    )?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn read(path: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn alerts(rules: &str) -> BTreeSet<&str> {
        let lines = rules.lines();
        let names = lines.filter_map(|line| line.trim().strip_prefix("- alert: "));
        names.collect()
    }

    /// The words of a text that may be the name of a metric.
    fn names(text: &str) -> BTreeSet<&str> {
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let words = text.split(|c| !part(c));
        words.filter(|word| word.starts_with("isopath_")).collect()
    }

    #[test]
    fn every_alert_is_documented_and_tested() {
        let rules = read("deploy/prometheus/isopath.rules.yml");
        let alerts = alerts(&rules);
        assert!(alerts.len() > 20, "{alerts:?}");
        let documentation = read("docs/METRICS.md");
        let headings = documentation.lines();
        let headings = headings.filter_map(|line| line.strip_prefix("### Isopath"));
        let headings: Vec<String> = headings.map(|name| format!("Isopath{name}")).collect();
        let documented: BTreeSet<&str> = headings.iter().map(String::as_str).collect();
        assert_eq!(documented, alerts, "the headings of docs/METRICS.md");
        let tests = read("deploy/prometheus/tests/alerts.test.yml");
        for alert in alerts {
            let fires = format!("labels: '{{alertname=\"{alert}\"}}'");
            assert!(tests.contains(&fires), "no test has {alert} fire");
            let anchor = format!("runbook: docs/METRICS.md#{}", alert.to_lowercase());
            assert!(
                rules.contains(&anchor),
                "{alert} does not lead to its description"
            );
        }
    }

    #[test]
    fn the_rules_ask_for_metrics_that_there_are() {
        let documentation = read("docs/METRICS.md");
        let rows = documentation.lines().filter(|line| line.starts_with("| `"));
        let rows: String = rows.collect();
        let known = names(&rows);
        let rules = read("deploy/prometheus/isopath.rules.yml");
        let series = |name: &str| {
            let name = name.strip_suffix("_bucket").unwrap_or(name);
            known.contains(name)
        };
        let asked = names(&rules);
        assert!(asked.len() > 20, "{asked:?}");
        for name in asked {
            assert!(
                series(name),
                "the rules ask for {name}, which nothing exposes"
            );
        }
    }

    #[test]
    fn only_the_patience_of_alerts_is_another() {
        let rules = fs::read_to_string(deployed("isopath.rules.yml")).unwrap();
        let hurried = hurried(&rules).unwrap();
        let lines = || rules.lines().zip(hurried.lines());
        assert_eq!(rules.lines().count(), hurried.lines().count());
        for (before, after) in lines().filter(|(before, after)| before != after) {
            assert!(before.trim_start().starts_with("for: "), "{before}");
            assert_eq!(after.trim_start(), "for: 1s");
        }
        assert!(lines().any(|(before, after)| before != after));
    }
}
