//! The controller and its REST API.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use isopath_api::declare::Declaration;
use isopath_api::operation::DrainRequest;
use isopath_api::view::ClusterView;

use crate::binaries;
use crate::http::{self, Answer, Request};
use crate::netns::Namespace;
use crate::plan;
use crate::process::Process;
use crate::wait::{self, Probe, scaled};

/// The name of a lab's cluster.
pub const CLUSTER: &str = "lab";

/// What the controller was given to let operators and agents in.
#[derive(Debug, Clone)]
pub struct Access {
    /// The token of the lab itself.
    pub operator_token: String,
    /// The file with the agents' token.
    pub agent_token_file: PathBuf,
    /// The name to log in with.
    pub user: String,
    /// The password to log in with.
    pub password: String,
}

/// The controller.
#[derive(Debug)]
pub struct Controller {
    namespace: Namespace,
    directory: PathBuf,
    access: Option<Access>,
    process: Option<Process>,
}

impl Controller {
    pub(crate) fn new(namespace: Namespace, directory: PathBuf) -> Self {
        Self {
            namespace,
            directory,
            access: None,
            process: None,
        }
    }

    pub(crate) fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.process.iter_mut()
    }

    /// The directory with its database, log and secrets.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Makes its database with a token for the lab, one for the agents, and a login.
    ///
    /// # Errors
    /// It is not built, or refuses.
    pub fn prepare(&mut self) -> Result<()> {
        let token = |arguments: &[&str]| -> Result<String> {
            let output = self.isopathd(&["token", "create"], arguments)?;
            Ok(output.trim().to_owned())
        };
        let operator_token = token(&["--name", "lab", "--role", "admin"])?;
        let agent = token(&[
            "--name",
            "lab-agents",
            "--role",
            "agent",
            "--cluster",
            CLUSTER,
        ])?;
        let agent_token_file = self.secret("agent.token", &agent)?;
        let user = "admin".to_owned();
        let password = self
            .isopathd(&["user", "create", &user], &[])?
            .trim()
            .to_owned();
        self.access = Some(Access {
            operator_token,
            agent_token_file,
            user,
            password,
        });
        Ok(())
    }

    /// What [`Self::prepare`] made.
    ///
    /// # Errors
    /// It was not called.
    pub fn access(&self) -> Result<&Access> {
        self.access
            .as_ref()
            .context("the controller has no tokens yet")
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// It is not built, ends, or is not ready in time.
    pub fn start(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("the controller runs already");
        }
        let mut command = Command::new(binaries::find("isopathd")?);
        command.args(["serve", "--listen", &plan::CONTROLLER.to_string()]);
        // The lab's network is its own.
        command.arg("--insecure-http");
        // Tests look as often as they can.
        let config = self.directory.join("isopathd.toml");
        let limits = "[limits]\napi_per_second = 10000\nlogins_per_minute = 10000\n";
        fs::write(&config, limits).context("cannot write the controller's file")?;
        command.arg("--config").arg(&config);
        command
            .args(["--database", &self.database()])
            .current_dir(&self.directory);
        let log = self.directory.join("isopathd.log");
        let mut process = Process::spawn(&self.namespace, "isopathd", &log, &mut command)?;
        wait::until("isopathd to be ready", Duration::from_secs(15), || {
            process.expect_running()?;
            Ok(match self.request("GET", "/readyz", None) {
                Ok(answer) => Probe::when(answer.status == 200, (), || format!("{answer:?}")),
                Err(error) => Probe::Waiting(format!("{error:#}")),
            })
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it by SIGKILL.
    ///
    /// # Errors
    /// It does not run, or cannot be signalled.
    pub fn crash(&mut self) -> Result<()> {
        self.process
            .take()
            .context("the controller does not run")?
            .crash()
    }

    /// The process while it runs.
    ///
    /// # Errors
    /// It was not started, or was ended.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the controller does not run")
    }

    /// Sends a request with the lab's token, and a body of JSON where there is one. What is
    /// there already is replaced whatever it is.
    ///
    /// # Errors
    /// It does not answer; an answer with any status is none.
    pub fn request(&self, method: &str, path: &str, body: Option<&str>) -> Result<Answer> {
        let token = self
            .access
            .as_ref()
            .map(|access| access.operator_token.as_str());
        let timeout = scaled(Duration::from_secs(5));
        let exists = method == "PUT" && self.request("GET", path, None)?.status == 200;
        let request = Request {
            method,
            path,
            token,
            body,
            if_match: exists.then_some("*"),
            timeout,
        };
        self.namespace
            .enter(|| http::send(plan::CONTROLLER.into(), &request))?
    }

    /// Puts the cluster's declaration.
    ///
    /// # Errors
    /// It is refused.
    pub fn declare(&self, declaration: &Declaration) -> Result<()> {
        let body = serde_json::to_string(declaration).context("writing the declaration")?;
        let path = format!("/api/v1/clusters/{CLUSTER}");
        let answer = self.request("PUT", &path, Some(&body))?;
        if !(200..300).contains(&answer.status) {
            bail!(
                "the controller refused the declaration: {} {}",
                answer.status,
                answer.body
            );
        }
        Ok(())
    }

    /// The cluster as the controller sees it.
    ///
    /// # Errors
    /// It does not answer with that.
    pub fn view(&self) -> Result<ClusterView> {
        let answer = self.request("GET", &format!("/api/v1/clusters/{CLUSTER}"), None)?;
        if answer.status != 200 {
            bail!(
                "the controller does not show the cluster: {} {}",
                answer.status,
                answer.body
            );
        }
        let view = serde_json::from_str(&answer.body);
        view.with_context(|| format!("reading the cluster's view: {}", answer.body))
    }

    /// Asks to drain a director; 202 is granted, 409 refused by a guard.
    ///
    /// # Errors
    /// It does not answer.
    pub fn drain(&self, director: &str, request: &DrainRequest) -> Result<Answer> {
        let body = serde_json::to_string(request).context("writing the drain")?;
        self.request("POST", &director_path(director, "drain"), Some(&body))
    }

    /// Asks to undrain a director.
    ///
    /// # Errors
    /// It does not answer.
    pub fn undrain(&self, director: &str) -> Result<Answer> {
        self.request("POST", &director_path(director, "undrain"), Some("{}"))
    }

    fn database(&self) -> String {
        format!("sqlite://{}", self.directory.join("isopath.db").display())
    }

    /// Runs one of its commands that work on the database.
    fn isopathd(&self, verb: &[&str], arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(binaries::find("isopathd")?);
        command
            .args(verb)
            .args(["--database", &self.database()])
            .args(arguments);
        let output = self.namespace.run(command.current_dir(&self.directory))?;
        String::from_utf8(output.stdout).context("isopathd printed something else than UTF-8")
    }

    pub(crate) fn secret(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        write_secret(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

fn director_path(director: &str, verb: &str) -> String {
    format!("/api/v1/clusters/{CLUSTER}/directors/{director}/{verb}")
}

fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    fs::write(path, "")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    fs::write(path, text)
}
