//! Network namespaces.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::registry::Registry;

/// A named network namespace, as `ip netns` knows it.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
    registry: Arc<Registry>,
}

/// Where `ip netns` keeps the namespace `name`.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

pub(crate) fn delete(name: &str) -> Result<()> {
    checked(Command::new("ip").args(["netns", "delete", name])).map(drop)
}

impl Namespace {
    /// Makes the namespace `isopath-<lab>-<role>` with its loopback up and without IPv6, which
    /// would only add noise.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(registry: &Arc<Registry>, role: &str) -> Result<Self> {
        let name = format!("isopath-{}-{role}", registry.name());
        registry.add_namespace(&name, || {
            checked(Command::new("ip").args(["netns", "add", &name])).map(drop)
        })?;
        let namespace = Self {
            name,
            registry: registry.clone(),
        };
        if Path::new("/proc/sys/net/ipv6").exists() {
            namespace.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
            namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        }
        namespace.ip(["link set lo up"])?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lab it belongs to.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Runs `work` on a thread that has moved into the namespace. What it opens and starts
    /// there (sockets, processes, more threads) stays in it.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = path(&self.name);
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("entering namespace {}", self.name))?;
                Ok(work())
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs lines of `ip` in the namespace, each without the word `ip`, in one process.
    ///
    /// # Errors
    /// A line was refused.
    pub fn ip<L: AsRef<str>>(&self, lines: impl IntoIterator<Item = L>) -> Result<()> {
        let mut batch = String::new();
        for line in lines {
            batch.push_str(line.as_ref());
            batch.push('\n');
        }
        let mut command = Command::new("ip");
        command
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .context("starting ip; is iproute2 installed?")?;
        let mut input = child.stdin.take().context("ip has no standard input")?;
        std::io::Write::write_all(&mut input, batch.as_bytes()).context("writing to ip")?;
        drop(input);
        let output = child.wait_with_output().context("waiting for ip")?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!(
                "ip refused in namespace {}: {}\nof\n{batch}",
                self.name,
                error.trim()
            );
        }
        Ok(())
    }

    /// What `ip -json` says to these arguments in the namespace.
    ///
    /// # Errors
    /// It failed, or did not answer in JSON.
    pub fn ip_json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let mut command = Command::new("ip");
        let output = checked(command.args(["-n", &self.name, "-json"]).args(arguments))?;
        // `ip` prints nothing at all for an empty list of some kinds.
        if output.stdout.iter().all(u8::is_ascii_whitespace) {
            return Ok(serde_json::Value::Array(Vec::new()));
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("reading the JSON of ip {arguments:?}"))
    }

    /// Sets a sysctl, named with slashes, of the namespace's network.
    ///
    /// # Errors
    /// The kernel has no such sysctl or refuses the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(name);
        // The kernel shows each thread the sysctls of the namespace that the thread is in.
        self.enter(|| fs::write(&path, value))?
            .with_context(|| format!("setting {name} = {value} in namespace {}", self.name))
    }

    /// Ends every process in the namespace by SIGKILL, as a cut of the power does.
    ///
    /// # Errors
    /// The kernel does not say which they are, or one cannot be signalled.
    pub fn kill_all(&self) -> Result<()> {
        crate::registry::kill_all(&path(&self.name))
    }

    /// Runs a command in the namespace to its end.
    ///
    /// # Errors
    /// It cannot be started, or does not end with success.
    pub fn run(&self, command: &mut Command) -> Result<Output> {
        self.enter(|| checked(command))?
            .with_context(|| format!("in namespace {}", self.name))
    }
}

/// Runs a command to its end and takes a failure, with what it said, for an error.
///
/// # Errors
/// It cannot be started, or does not end with success.
pub fn checked(command: &mut Command) -> Result<Output> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ended with {}: {}", output.status, said.trim());
    }
    Ok(output)
}
