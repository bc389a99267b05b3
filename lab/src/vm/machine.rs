//! One running virtual machine.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::prepare::{Accelerator, Image};
use super::{VmSpec, guest};

/// QEMU stops within a moment of SIGTERM.
const TERM_LIMIT: Duration = Duration::from_secs(3);

/// A run's directory is this and the process's id.
const RUN_PREFIX: &str = "run-";

/// How much boot noise is kept to be shown when the machine fails.
const NOISE_LINES: usize = 40;

/// What happened to a machine.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// The guest starts the command.
    Up,
    /// This process got SIGINT or SIGTERM.
    Signal,
    /// The machine closed its output.
    Ended,
}

/// A directory of one run, writable by the guest, removed with all in it when dropped.
#[derive(Debug)]
pub(super) struct RunDirectory(PathBuf);

impl RunDirectory {
    pub(super) fn create(cache: &Path) -> Result<Self> {
        remove_stale(cache)?;
        let path = cache.join(format!("{RUN_PREFIX}{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The exit status that the guest left.
    pub(super) fn exit_status(&self) -> Result<u8> {
        let path = self.0.join(guest::STATUS_FILE);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("the virtual machine ended before the command did")
            }
            text => text.with_context(|| format!("reading {}", path.display()))?,
        };
        text.trim()
            .parse()
            .with_context(|| format!("reading the exit status {text:?}"))
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("isopath-lab: removing {}: {error}", self.0.display());
        }
    }
}

/// Removes the directories of runs whose process was killed.
fn remove_stale(cache: &Path) -> Result<()> {
    let what = || format!("looking for old runs in {}", cache.display());
    for entry in fs::read_dir(cache).with_context(what)? {
        let path = entry.with_context(what)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(pid) = name.strip_prefix(RUN_PREFIX) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

/// vng with the QEMU below it, in a process group of their own: a terminal's Ctrl-C does not
/// reach them, and one signal ends them all.
#[derive(Debug)]
pub(super) struct Machine {
    vng: Child,
    input: ChildStdin,
    signals: Handle,
    readers: Vec<JoinHandle<()>>,
    noise: Arc<Mutex<Vec<String>>>,
}

impl Machine {
    pub(super) fn start(
        spec: &VmSpec,
        image: &Image,
        accelerator: Accelerator,
        run: &Path,
    ) -> Result<(Self, Receiver<Event>)> {
        let mut signals = Signals::new([SIGINT, SIGTERM]).context("taking over the signals")?;
        let mut vng = command(spec, image, accelerator, run)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("starting vng")?;
        let (Some(input), Some(output), Some(errors)) =
            (vng.stdin.take(), vng.stdout.take(), vng.stderr.take())
        else {
            bail!("vng was started without pipes")
        };
        // One event of each kind, and a second signal, are all that is ever waited for.
        let (events, received) = sync_channel(4);
        let noise = Arc::new(Mutex::new(Vec::new()));
        let handle = signals.handle();
        let interrupts = events.clone();
        let kept = noise.clone();
        let readers = vec![
            std::thread::spawn(move || {
                for _signal in signals.forever() {
                    if !tell(&interrupts, Event::Signal) {
                        return;
                    }
                }
            }),
            std::thread::spawn(move || pass_output(output, &events, &kept)),
            std::thread::spawn(move || pass_errors(errors)),
        ];
        Ok((
            Self {
                vng,
                input,
                signals: handle,
                readers,
                noise,
            },
            received,
        ))
    }

    /// Has the guest interrupt the command.
    pub(super) fn interrupt(&mut self) -> io::Result<()> {
        writeln!(self.input, "{}", guest::INTERRUPT)?;
        self.input.flush()
    }

    /// Waits for the end of a machine that has closed its output, and for the last of it.
    pub(super) fn wait(&mut self) -> Result<()> {
        self.vng.wait().context("waiting for the end of vng")?;
        self.signals.close();
        for reader in self.readers.drain(..) {
            if let Err(panic) = reader.join() {
                std::panic::resume_unwind(panic);
            }
        }
        Ok(())
    }

    /// What it said before the guest was up.
    pub(super) fn last_words(&self) -> String {
        let noise = self.noise.lock().unwrap_or_else(PoisonError::into_inner);
        if noise.is_empty() {
            return "the virtual machine failed".to_owned();
        }
        format!(
            "the virtual machine failed; while booting it said\n{}",
            noise.join("\n")
        )
    }

    fn end(&mut self) -> io::Result<()> {
        let group = Pid::from_child(&self.vng);
        if self.vng.try_wait()?.is_some() && test_kill_process_group(group).is_err() {
            return Ok(());
        }
        kill_process_group(group, Signal::TERM)?;
        let deadline = Instant::now() + TERM_LIMIT;
        while Instant::now() < deadline {
            let vng_ended = self.vng.try_wait()?.is_some();
            if vng_ended && test_kill_process_group(group).is_err() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        kill_process_group(group, Signal::KILL)?;
        self.vng.wait()?;
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.signals.close();
        if let Err(error) = self.end() {
            eprintln!("isopath-lab: ending the virtual machine: {error}");
        }
    }
}

fn command(spec: &VmSpec, image: &Image, accelerator: Accelerator, run: &Path) -> Command {
    let mut command = Command::new(image.tools.join("vng"));
    // vng starts virtme-run by its name, and leaves temporary files when it is killed.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env(
        "PATH",
        format!("{}:{path}:/usr/sbin:/sbin", image.tools.display()),
    );
    command.env("TMPDIR", run);
    command.arg("--run").arg(image.kernel());
    command.arg("--busybox").arg(&image.busybox);
    if accelerator == Accelerator::Emulation {
        command.arg("--disable-kvm");
    }
    command.args([
        "--name",
        "isopath-lab",
        "--cpus",
        "2",
        "--memory",
        "2G",
        "--user",
        "root",
    ]);
    for directory in spec.writable.iter().map(PathBuf::as_path).chain([run]) {
        command.arg("--rwdir").arg(directory);
    }
    if let Some(forward) = spec.forward {
        command.arg(format!(
            "--qemu-opts=-netdev user,id=forward,restrict=on,hostfwd=tcp:{host}-:{port} \
             -device virtio-net-pci,netdev=forward,mac={card}",
            host = forward.host,
            port = forward.guest_port,
            card = guest::CARD,
        ));
    }
    command.arg("--exec").arg(guest::entry(run));
    command
}

/// Keeps what comes before the guest is up, then passes all on. It reads to the end in any case,
/// or the guest would hang on a full pipe.
fn pass_output(output: impl Read, events: &SyncSender<Event>, noise: &Mutex<Vec<String>>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    let mut up = false;
    let mut reader_is_gone = false;
    loop {
        line.clear();
        match output.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) if reader_is_gone => {}
            Ok(_) if up => {
                if let Err(error) = write_now(&mut io::stdout(), &line) {
                    eprintln!("isopath-lab: passing the guest's output on: {error}");
                    reader_is_gone = true;
                }
            }
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                up = text.trim() == guest::UP;
                if !up {
                    keep(noise, text.trim_end());
                } else if !tell(events, Event::Up) {
                    return;
                }
            }
            Err(error) => {
                keep(noise, &format!("reading its output: {error}"));
                break;
            }
        }
    }
    tell(events, Event::Ended);
}

/// Whether anybody still wants to know: nobody does when the machine is already being ended.
fn tell(events: &SyncSender<Event>, event: Event) -> bool {
    events.send(event).is_ok()
}

/// The guest's standard error, and what vng and QEMU themselves complain about.
fn pass_errors(errors: impl Read) {
    for line in BufReader::new(errors).split(b'\n') {
        match line {
            Ok(line) => {
                let text = String::from_utf8_lossy(&line);
                // QEMU says this of every emulated machine on some processors.
                if text.contains("host doesn't support requested feature") {
                    continue;
                }
                eprintln!("{text}");
            }
            Err(error) => {
                eprintln!("isopath-lab: passing the guest's errors on: {error}");
                return;
            }
        }
    }
}

fn write_now(to: &mut impl Write, line: &[u8]) -> io::Result<()> {
    to.write_all(line)?;
    to.flush()
}

fn keep(noise: &Mutex<Vec<String>>, line: &str) {
    let mut noise = noise.lock().unwrap_or_else(PoisonError::into_inner);
    if noise.len() == NOISE_LINES {
        noise.remove(0);
    }
    noise.push(line.to_owned());
}
