//! Running a command inside a small virtual machine, for kernels without IPVS.
//!
//! The machine boots Debian's stock kernel over the host's own files: every program, path and
//! library is the host's, seen read-only with scratch layers on top, so that nothing needs to be
//! copied in. `prepare` gets what that takes, once; [`run`] boots the machine, runs one command
//! as root in it, passes its output and exit status on, and ends the machine on every path.

mod guest;
mod machine;
mod prepare;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::machine::{Event, Machine, RunDirectory};
pub use self::prepare::Unavailable;

/// The guest's address on the network that it shares with the host. A service that is to be
/// reached through [`Forward`] listens here, or on every address.
pub const GUEST_ADDRESS: &str = "10.0.2.15";

/// An emulated machine of two processors boots within half a minute on two busy ones.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// After Ctrl-C: a lab ends its programs and deletes its namespaces, then the kernel halts.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What to run, and what it gets from the host.
#[derive(Debug, Clone, Default)]
pub struct VmSpec {
    /// The program and its arguments, run as root in the current directory.
    pub command: Vec<String>,
    /// Environment for the command, beside `ISOPATH_*` and the lab's own settings, which the
    /// machine inherits. `ISOPATH_TEST_IPVS=1` is always there.
    pub environment: Vec<(String, String)>,
    /// A port of the host that leads into the guest.
    pub forward: Option<Forward>,
    /// Directories of the host that the command may write to; all else that it writes is lost.
    pub writable: Vec<PathBuf>,
}

/// Connections to an address of the host go to a port of the guest at [`GUEST_ADDRESS`].
#[derive(Debug, Clone, Copy)]
pub struct Forward {
    /// Where the host listens.
    pub host: SocketAddr,
    /// Where the guest listens.
    pub guest_port: u16,
}

/// Whether the running kernel has IPVS, built in or as a module that loads.
pub fn kernel_has_ipvs() -> bool {
    let present = || Path::new("/proc/net/ip_vs").exists();
    present()
        || (Command::new("modprobe").args(["--quiet", "ip_vs"]).status())
            .is_ok_and(|status| status.success() && present())
}

/// Runs the command in a virtual machine and returns its exit status.
///
/// SIGINT and SIGTERM reach the command as SIGINT, and the machine ends when it has; the second
/// one ends the machine at once.
///
/// # Errors
/// [`Unavailable`] where no machine can be had at all; otherwise the machine could not be
/// prepared, did not boot, or ended before the command did.
pub fn run(spec: &VmSpec, progress: &mut dyn FnMut(&str)) -> Result<u8> {
    if spec.command.is_empty() {
        bail!("no command to run in the virtual machine");
    }
    if let Some(forward) = spec.forward {
        // QEMU's own complaint would be lost among the kernel's messages.
        TcpListener::bind(forward.host)
            .with_context(|| format!("{} cannot be forwarded into the guest", forward.host))?;
    }
    let cache = cache_directory()?;
    let image = prepare::image(&cache, progress)?;
    let accelerator = prepare::accelerator(&cache, &image, progress)?;
    let directory = RunDirectory::create(&cache)?;
    guest::write_script(spec, &image, accelerator, directory.path())?;

    progress(&format!(
        "booting Linux {} in a virtual machine ({accelerator})",
        image.release
    ));
    let started = Instant::now();
    let (mut machine, events) = Machine::start(spec, &image, accelerator, directory.path())?;
    match watch(&mut machine, &events, started, progress) {
        Ok(()) => directory
            .exit_status()
            .with_context(|| machine.last_words()),
        Err(error) => Err(error.context(machine.last_words())),
    }
}

/// Returns when the machine has ended by itself.
fn watch(
    machine: &mut Machine,
    events: &Receiver<Event>,
    started: Instant,
    progress: &mut dyn FnMut(&str),
) -> Result<()> {
    let mut deadline = Some(started + BOOT_LIMIT);
    let mut stopping = false;
    loop {
        let event = match deadline {
            Some(deadline) => {
                events.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            }
            None => events.recv().map_err(RecvTimeoutError::from),
        };
        match event {
            Ok(Event::Up) => {
                progress(&format!("the guest is up after {:.0?}", started.elapsed()));
                deadline = None;
            }
            Ok(Event::Signal) if stopping => bail!("interrupted twice"),
            Ok(Event::Signal) if deadline.is_some() => bail!("interrupted while booting"),
            Ok(Event::Signal) => {
                machine
                    .interrupt()
                    .context("passing the interrupt on to the guest")?;
                stopping = true;
                deadline = Some(Instant::now() + STOP_LIMIT);
            }
            Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected) => return machine.wait(),
            Err(RecvTimeoutError::Timeout) if stopping => {
                bail!("the command did not end within {STOP_LIMIT:?} of the interrupt")
            }
            Err(RecvTimeoutError::Timeout) => bail!("the guest was not up within {BOOT_LIMIT:?}"),
        }
    }
}

/// Where the kernel and the tools are kept: `ISOPATH_VM_DIR`, else `vm` in the target directory
/// that this program was built into.
fn cache_directory() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("ISOPATH_VM_DIR") {
        return std::path::absolute(directory).context("making ISOPATH_VM_DIR absolute");
    }
    let own = std::env::current_exe().context("finding the path of this program")?;
    let target = own
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").is_file());
    let target = target.with_context(|| {
        format!(
            "{} is in no target directory; set ISOPATH_VM_DIR",
            own.display()
        )
    })?;
    Ok(target.join("vm"))
}
