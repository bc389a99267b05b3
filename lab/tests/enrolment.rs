//! Agents that enrol, over real TLS: the programs on loopback, without a switch.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use isopath_api::fleet::{AgentState, AgentView};
use isopath_api::observed::ControllerObserved;
use isopath_lab::binaries;
use isopath_lab::wait::{self, Probe};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A controller with an authority of its own, and all that belongs to it.
struct Bench {
    directory: tempfile::TempDir,
    url: String,
    operator: String,
    _controller: Running,
}

impl Bench {
    fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let settings = format!(
            "listen = \"127.0.0.1:0\"\ndatabase = \"sqlite://{}\"\n[tls]\nown_ca = true\n\
             require_client_certificates = true\n",
            at("isopath.db").display()
        );
        fs::write(at("isopathd.toml"), settings)?;
        let database = format!("sqlite://{}", at("isopath.db").display());
        let token = ["token", "create", "--name", "ops", "--role", "admin"];
        let token = Command::new(binaries::find("isopathd")?)
            .args(token)
            .args(["--database", &database])
            .output()?;
        ensure!(token.status.success(), "no token: {token:?}");
        let log = fs::File::create(at("isopathd.log"))?;
        let controller = Command::new(binaries::find("isopathd")?)
            .args(["serve", "--config"])
            .arg(at("isopathd.toml"))
            .env("RUST_LOG", "info")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let controller = Running(controller);
        let url = wait::until("isopathd to listen", SOON, || {
            let said = fs::read_to_string(at("isopathd.log"))?;
            let url = said.lines().find_map(|line| {
                let (_, address) = line.split_once("listening on ")?;
                Some(address.trim().to_owned())
            });
            Ok(url.map_or(Probe::Waiting(said), Probe::Ready))
        })?;
        ensure!(url.starts_with("https://"), "{url} is no TLS");
        Ok(Self {
            operator: String::from_utf8(token.stdout)?.trim().to_owned(),
            url,
            directory,
            _controller: controller,
        })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs the operator's command against the controller.
    fn isopath(&self, arguments: &[&str]) -> Result<Output> {
        let output = Command::new(binaries::find("isopath")?)
            .args(arguments)
            .env("ISOPATH_URL", &self.url)
            .env("ISOPATH_TOKEN", &self.operator)
            .env("ISOPATH_CA_FILE", self.at("tls/ca.pem"))
            .output()?;
        Ok(output)
    }

    fn agents(&self) -> Result<Vec<AgentView>> {
        let output = self.isopath(&["agents", "--json"])?;
        ensure!(output.status.success(), "isopath agents: {output:?}");
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        Ok(serde_json::from_value(answer["agents"].clone())?)
    }

    /// A one-time token in a file, and the pin.
    fn token(&self, director: &str) -> Result<(PathBuf, String)> {
        let arguments = ["enroll-token", "create", director, "--cluster", "edge"];
        let output = self.isopath(&arguments)?;
        ensure!(output.status.success(), "no one-time token: {output:?}");
        let file = self.at("enroll.token");
        fs::write(&file, &output.stdout)?;
        let said = String::from_utf8(output.stderr)?;
        let pin = said.lines().find_map(|line| line.strip_prefix("ca-pin: "));
        Ok((file, pin.context("no pin")?.to_owned()))
    }

    /// The file of a director whose agent has enrolled.
    fn director(&self) -> Result<PathBuf> {
        let text = format!(
            "[director]\nname = \"d1\"\nrouter_id = \"10.0.1.2\"\nstate_dir = \"{state}\"\n\
             socket = \"{socket}\"\nspeaker_socket = \"{speaker}\"\ndataplane = \"none\"\n\
             [controller]\nurl = \"{url}\"\ncluster = \"edge\"\nidentity = \"enrolled\"\n\
             [ospf]\n[[ospf.interface]]\nname = \"lo\"\n",
            state = self.at("state").display(),
            socket = self.at("agent.sock").display(),
            speaker = self.at("speaker.sock").display(),
            url = self.url,
        );
        let file = self.at("director.toml");
        fs::write(&file, text)?;
        Ok(file)
    }

    fn enroll(&self, config: &Path, token: &Path, pin: &str) -> Result<Output> {
        let output = Command::new(binaries::find("isopath-agent")?)
            .args(["enroll", "--config"])
            .arg(config)
            .arg("--token-file")
            .arg(token)
            .args(["--ca-pin", pin])
            .output()?;
        Ok(output)
    }

    /// How the agent says its link to the controller is.
    fn link(&self) -> Result<Option<ControllerObserved>> {
        let output = Command::new(binaries::find("isopath")?)
            .args(["--json", "--agent"])
            .arg(self.at("agent.sock"))
            .arg("status")
            .output()?;
        if !output.status.success() {
            return Ok(None);
        }
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        let found = find_link(&answer);
        Ok(found.map(serde_json::from_value).transpose()?)
    }
}

/// The link in the status, wherever this schema has it.
fn find_link(value: &Value) -> Option<Value> {
    match value {
        Value::Object(object) => match object.get("controller") {
            Some(link) if link.is_object() => Some(link.clone()),
            Some(_) | None => object.values().find_map(find_link),
        },
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            None
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_agent_enrols_reports_and_is_revoked() -> Result<()> {
    let bench = Bench::start()?;
    let declaration = bench.at("cluster.toml");
    let text = "[[director]]\nname = \"d1\"\nrouter_id = \"10.0.1.2\"\n\
                [[vip]]\naddress = \"10.99.0.1/32\"\n";
    fs::write(&declaration, text)?;
    let file = declaration.display().to_string();
    let applied = bench.isopath(&["apply", &file, "--cluster", "edge"])?;
    ensure!(applied.status.success(), "apply: {applied:?}");
    let config = bench.director()?;
    let (token, pin) = bench.token("d1")?;

    let wrong = bench.enroll(&config, &token, &"0".repeat(64))?;
    ensure!(
        !wrong.status.success() && said(&wrong).contains("authority of the pin"),
        "another authority is taken for ours: {}",
        said(&wrong)
    );
    let enrolled = bench.enroll(&config, &token, &pin)?;
    ensure!(enrolled.status.success(), "enrol: {}", said(&enrolled));
    let replayed = bench.enroll(&config, &token, &pin)?;
    ensure!(
        !replayed.status.success() && said(&replayed).contains("was used before"),
        "the token is good twice: {}",
        said(&replayed)
    );

    let log = fs::File::create(bench.at("agent.log"))?;
    let agent = Command::new(binaries::find("isopath-agent")?)
        .args(["run", "--no-speaker", "--config"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    let _agent = Running(agent);
    let id = wait::until("the agent to follow the controller", SOON, || {
        let agents = bench.agents()?;
        let [agent] = agents.as_slice() else {
            bail!("one agent has enrolled: {agents:?}");
        };
        ensure!(agent.state == AgentState::Enrolled, "{agent:?}");
        let follows =
            agent.generation.is_some() && agent.acknowledged_generation == agent.generation;
        let connected = bench.link()?.is_some_and(|link| link.connected);
        let id = agent.id.clone().context("an identity")?;
        Ok(Probe::when(follows && connected, id, || {
            format!("{agent:?}; connected: {connected}")
        }))
    })?;

    let revoked = bench.isopath(&["agents", "revoke", &id, "--reason", "stolen"])?;
    ensure!(revoked.status.success(), "revoke: {revoked:?}");
    wait::until("the agent's stream to end", SOON, || {
        let link = bench.link()?.context("the agent has ended")?;
        let told = link.problem.clone().unwrap_or_default();
        let ended = !link.connected && told.contains("was revoked");
        Ok(Probe::when(ended, (), || format!("{link:?}")))
    })?;
    let desired = fs::read_to_string(bench.at("state/desired.json"))?;
    ensure!(
        desired.contains("10.99.0.1"),
        "what the director serves is not kept: {desired}"
    );
    Ok(())
}
