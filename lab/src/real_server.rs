//! Real servers: nginx with the VIP on its loopback.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::http;
use crate::netns::Namespace;
use crate::plan;
use crate::process::Process;
use crate::wait::{self, Probe};

/// The path that checks ask for; requests to it are not logged.
pub const CHECK_PATH: &str = "/healthz";

/// A real server. It answers every request with its name.
#[derive(Debug)]
pub struct RealServer {
    name: String,
    address: Ipv4Addr,
    namespace: Namespace,
    directory: PathBuf,
    nginx: Option<Process>,
}

impl RealServer {
    pub(crate) fn new(n: u8, namespace: Namespace, directory: PathBuf) -> Self {
        let (name, address) = (format!("rs{n}"), plan::real_server(n));
        Self {
            name,
            address,
            namespace,
            directory,
            nginx: None,
        }
    }

    /// Its name, which is also the body of its answers.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its own address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    pub(crate) fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.nginx.iter_mut()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Starts nginx and waits until it answers.
    ///
    /// # Errors
    /// It is not installed, or does not answer in time.
    pub fn start(&mut self) -> Result<()> {
        if self.nginx.is_some() {
            bail!("{} runs already", self.name);
        }
        let file = self.directory.join("nginx.conf");
        let text = conf(&self.directory, &self.name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        let log = self.directory.join("error.log");
        let mut command = Command::new("nginx");
        command
            .arg("-p")
            .arg(&self.directory)
            .arg("-c")
            .arg(&file)
            .arg("-e")
            .arg(&log);
        let what = format!("nginx of {}", self.name);
        let mut nginx = Process::spawn(&self.namespace, &what, &log, &mut command)?;
        let address = (Ipv4Addr::LOCALHOST, 80).into();
        wait::until(
            format_args!("an answer of {what}"),
            Duration::from_secs(10),
            || {
                nginx.expect_running()?;
                let answer = self.namespace.enter(|| http::get(address, CHECK_PATH))?;
                Ok(match answer {
                    Ok(answer) => Probe::when(answer.status == 200, (), || format!("{answer:?}")),
                    Err(error) => Probe::Waiting(format!("{error:#}")),
                })
            },
        )?;
        self.nginx = Some(nginx);
        Ok(())
    }

    /// Ends nginx by SIGKILL.
    ///
    /// # Errors
    /// It does not run, or cannot be signalled.
    pub fn crash(&mut self) -> Result<()> {
        let nginx = self.nginx.take();
        nginx
            .with_context(|| format!("{} does not run", self.name))?
            .crash()
    }

    /// How many requests it has answered, checks not counted.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn answered(&self) -> Result<usize> {
        let path = self.directory.join("access.log");
        let text = fs::read_to_string(&path);
        Ok(text
            .with_context(|| format!("reading {}", path.display()))?
            .lines()
            .count())
    }
}

/// One process (`master_process off`), so that SIGKILL ends all of it.
fn conf(directory: &Path, name: &str) -> String {
    let directory = directory.display();
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        temporary.push_str(&format!("  {kind}_temp_path {directory}/temp;\n"));
    }
    format!(
        "daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log {directory}/access.log;
  default_type text/plain;
{temporary}  server {{
    listen 80 backlog=1024;
    location = {CHECK_PATH} {{ access_log off; return 200 \"ok\\n\"; }}
    location / {{ return 200 \"{name}\\n\"; }}
  }}
}}
"
    )
}
