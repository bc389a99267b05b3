//! One network namespace for the programs to fill in turn, and a look at what its kernel has.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use isopath_ipvs::{Destination, DestinationEntry, Ipvs, ServiceEntry, ServiceKey};

use crate::netns::Namespace;
use crate::process::Process;
use crate::registry::Registry;
use crate::topology::complain;
use crate::wait::scaled;

use super::set::Set;

/// Between two looks at one service, which cost the kernel a message of 20 real servers.
const PAUSE: Duration = Duration::from_millis(5);

/// How often all is read for the least time that it takes.
const READINGS: usize = 10;

/// Leads nowhere, so that real servers have a route.
const UPLINK: &str = "eth1";

/// The namespace, its directory, and their end when dropped.
pub(super) struct Rig {
    namespace: Namespace,
    registry: Arc<Registry>,
}

impl Rig {
    /// Makes the namespace `isopath-<name>-lvs`.
    pub(super) fn new(name: &str) -> Result<Self> {
        let registry = Registry::open(name)?;
        let wire = || -> Result<Namespace> {
            let namespace = Namespace::create(&registry, "lvs")?;
            namespace.ip([
                format!("link add {UPLINK} type dummy"),
                format!("address add 10.0.1.2/24 dev {UPLINK}"),
                format!("link set {UPLINK} up"),
                format!("route add default dev {UPLINK}"),
            ])?;
            Ok(namespace)
        };
        let namespace = wire().inspect_err(|_| complain(registry.clean()))?;
        Ok(Self {
            namespace,
            registry,
        })
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.registry.directory()
    }

    /// An empty directory, whatever was in it.
    pub(super) fn fresh_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory().join(name);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// Empties the kernel: no service, and no interface with VIPs.
    pub(super) fn clear(&self) -> Result<()> {
        self.namespace.run(Command::new("ipvsadm").arg("-C"))?;
        let links = self.namespace.ip_json(&["link", "show", "type", "dummy"])?;
        let links = links.as_array().context("ip link show has no list")?;
        let names = links.iter().filter_map(|link| link["ifname"].as_str());
        let left: Vec<String> = names
            .filter(|name| *name != UPLINK)
            .map(|name| format!("link delete {name}"))
            .collect();
        self.namespace.ip(left)
    }

    /// How long it takes from the start of `begin` until the last service's real servers are as
    /// wanted; what `begin` has made is looked at each time, too. Only that one service is looked
    /// at, since to look at all costs more than the change of one.
    pub(super) fn time<P: Send>(
        &self,
        set: Set,
        within: Duration,
        begin: impl FnOnce() -> Result<P> + Send,
        mut reached: impl FnMut(&mut P, &[Destination]) -> Result<bool> + Send,
    ) -> Result<(P, Duration)> {
        let key = ServiceKey::tcp(SocketAddr::V4(set.last_service()));
        let watch = || -> Result<(P, Duration)> {
            runtime()?.block_on(async {
                let ipvs = Ipvs::connect().await.context("connecting to IPVS")?;
                let (started, limit) = (Instant::now(), scaled(within));
                let mut begun = begin()?;
                loop {
                    let looked = Instant::now();
                    let found = ipvs.destinations(&key).await?;
                    if reached(&mut begun, &found)? {
                        return Ok((begun, looked - started));
                    }
                    ensure!(
                        started.elapsed() < limit,
                        "not within {limit:?}: {key} has {} real servers",
                        found.len()
                    );
                    tokio::time::sleep(PAUSE).await;
                }
            })
        };
        self.namespace.enter(watch)?
    }

    /// How long it takes at least to read all real servers, of several tries.
    pub(super) fn time_reading(&self) -> Result<Duration> {
        let read = || -> Result<Duration> {
            runtime()?.block_on(async {
                let ipvs = Ipvs::connect().await.context("connecting to IPVS")?;
                let services = ipvs.services().await?;
                let count = |count, _: &ServiceEntry, _: &[DestinationEntry]| Some(count + 1);
                let folded = ipvs.try_fold_entries(0, count).await?;
                let (count, fingerprint) = folded.context("not every service was read")?;
                ensure!(count == services.len(), "{count} services were read");
                let fingerprint = Arc::new(fingerprint);
                let mut least = Duration::MAX;
                for _ in 0..READINGS {
                    let began = Instant::now();
                    ensure!(
                        ipvs.is_still(Arc::clone(&fingerprint)).await?,
                        "a real server has changed"
                    );
                    least = least.min(began.elapsed());
                }
                Ok(least)
            })
        };
        self.namespace.enter(read)?
    }

    /// The time until the kernel has the whole set: when the last service is complete, all are
    /// counted, and that look ends the time which finds none missing.
    pub(super) fn time_full(
        &self,
        set: Set,
        within: Duration,
        start: impl FnOnce() -> Result<Process> + Send,
    ) -> Result<(Process, Duration)> {
        let done = self.time(set, within, start, |process, found| {
            if let Some(status) = process.exit_status()?
                && !status.success()
            {
                bail!("it ended with {status}: {}", process.log_tail(5));
            }
            Ok(found.len() == usize::from(set.real_servers) && count()? == set.all_real_servers())
        })?;
        let services = self.namespace.enter(services)??;
        if services != usize::from(set.services) {
            bail!("the kernel has {services} services");
        }
        Ok(done)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        complain(self.registry.clean());
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting a runtime")
}

/// The table of the calling thread's network namespace.
const TABLE: &str = "/proc/thread-self/net/ip_vs";

fn table() -> Result<String> {
    fs::read_to_string(Path::new(TABLE)).with_context(|| format!("reading {TABLE}"))
}

/// How many real servers all services together have.
fn count() -> Result<usize> {
    let text = table()?;
    let servers = text.lines().filter(|line| line.starts_with("  -> "));
    // The head has one such line.
    Ok(servers.count().saturating_sub(1))
}

fn services() -> Result<usize> {
    Ok(table()?
        .lines()
        .filter(|line| line.starts_with("TCP "))
        .count())
}
