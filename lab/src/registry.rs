//! What a lab has made, on disk before it is made, so that nothing can be left behind.
//!
//! `/run/isopath-lab/<name>.json` lists the lab's namespaces, directories and files. There is one way
//! of cleaning, used when a lab is dropped, by SIGINT and SIGTERM, by `isopath-lab down`, and
//! for labs of dead processes before a new one starts: end every process in the lab's
//! namespaces, delete the namespaces, remove the directories and files, remove the record. Every program
//! of a lab runs in one of its namespaces, so that ending them by namespace misses none.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::wait::{self, Probe};

/// Where the records and the labs' directories are.
pub const ROOT: &str = "/run/isopath-lab";

/// The registries of this process, for its signal handler.
static LIVE: Mutex<Vec<Weak<Registry>>> = Mutex::new(Vec::new());

/// Whether a signal is the intended end of this process.
static INTENDED: AtomicBool = AtomicBool::new(false);

/// From now on a signal ends the process with success: it has done what it was asked for and
/// only waits for its end.
pub fn end_with_success() {
    INTENDED.store(true, Ordering::Relaxed);
}

/// One lab's record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// The process that made the lab.
    owner: Owner,
    /// Its network namespaces.
    namespaces: BTreeSet<String>,
    /// Its directories and files.
    paths: BTreeSet<PathBuf>,
}

/// A process, told from a later one with the same id by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    pid: u32,
    /// In clock ticks after the machine's start: field 22 of `/proc/PID/stat`, proc(5).
    start_time: u64,
}

impl Owner {
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses, and may hold anything.
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        // A zombie has ended, whoever may have forgotten to wait for it.
        if fields.next()? == "Z" {
            return None;
        }
        let start_time = fields.nth(18)?.parse().ok()?;
        Some(Self { pid, start_time })
    }

    fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// The record of a lab that this process has made.
#[derive(Debug)]
pub struct Registry {
    name: String,
    /// Held while something is made, too: the signal handler's cleaning then waits for it, and
    /// whatever comes after waits for the handler, which ends the process.
    record: Mutex<Record>,
}

impl Registry {
    /// Starts the record of a lab called `name`, after cleaning up what dead processes left.
    ///
    /// # Errors
    /// A living process has a lab of that name, or the record cannot be written.
    pub fn open(name: &str) -> Result<Arc<Self>> {
        let alone = alone()?;
        clean_dead_labs()?;
        if let Some(record) = read(&record_path(name))? {
            let pid = record.owner.pid;
            bail!("process {pid} runs a lab called {name}; end it or take another name");
        }
        let owner = Owner::of(std::process::id()).context("reading /proc/self/stat")?;
        let (namespaces, paths) = (BTreeSet::new(), BTreeSet::new());
        let registry = Arc::new(Self {
            name: name.to_owned(),
            record: Mutex::new(Record {
                owner,
                namespaces,
                paths,
            }),
        });
        registry.write(&registry.lock())?;
        drop(alone);
        lock(&LIVE).push(Arc::downgrade(&registry));
        clean_on_signals();
        registry.make_directory(&registry.directory())?;
        Ok(registry)
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lab's own directory.
    pub fn directory(&self) -> PathBuf {
        Path::new(ROOT).join(&self.name)
    }

    /// Records the namespace `name`, then lets `make` make it.
    ///
    /// # Errors
    /// The record cannot be written, or `make` failed.
    pub fn add_namespace(&self, name: &str, make: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut record = self.lock();
        record.namespaces.insert(name.to_owned());
        self.write(&record)?;
        make()
    }

    /// Records a directory and makes it.
    ///
    /// # Errors
    /// The record cannot be written, or the directory not made.
    pub fn make_directory(&self, path: &Path) -> Result<()> {
        let record = self.record_path(path)?;
        fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        drop(record);
        Ok(())
    }

    /// Records a directory or file that another program makes.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn add_path(&self, path: &Path) -> Result<()> {
        self.record_path(path).map(drop)
    }

    fn record_path(&self, path: &Path) -> Result<MutexGuard<'_, Record>> {
        let mut record = self.lock();
        record.paths.insert(path.to_owned());
        self.write(&record)?;
        Ok(record)
    }

    /// Runs `make` with the record locked, so that a signal's cleaning does not miss its result.
    pub fn while_locked<T>(&self, make: impl FnOnce() -> T) -> T {
        let record = self.lock();
        let made = make();
        drop(record);
        made
    }

    /// Removes everything recorded, and the record.
    ///
    /// # Errors
    /// Something could not be removed; it stays recorded.
    pub fn clean(&self) -> Result<()> {
        clean(&self.name, &self.lock())?;
        remove_root()
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        lock(&self.record)
    }

    fn write(&self, record: &Record) -> Result<()> {
        let path = record_path(&self.name);
        let draft = path.with_extension("json.new");
        let text = serde_json::to_vec_pretty(record).context("writing the lab's record as JSON")?;
        fs::write(&draft, text).with_context(|| format!("writing {}", draft.display()))?;
        fs::rename(&draft, &path).with_context(|| format!("writing {}", path.display()))
    }
}

/// A panic elsewhere must not keep a lab from being cleaned up.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn record_path(name: &str) -> PathBuf {
    Path::new(ROOT).join(format!("{name}.json"))
}

fn read(path: &Path) -> Result<Option<Record>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let record = serde_json::from_slice(&text);
    record
        .map(Some)
        .with_context(|| format!("reading {}", path.display()))
}

/// The records there are, by the labs' names.
fn records() -> Result<Vec<(String, Record)>> {
    let mut records = Vec::new();
    let entries = match fs::read_dir(ROOT) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(records),
        Err(error) => return Err(error).with_context(|| format!("reading {ROOT}")),
    };
    for entry in entries {
        let path = entry.with_context(|| format!("reading {ROOT}"))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.and_then(|name| name.strip_suffix(".json")) else {
            continue;
        };
        // It is gone when its owner has just cleaned up.
        if let Some(record) = read(&path)? {
            records.push((name.to_owned(), record));
        }
    }
    Ok(records)
}

/// Removes what labs of dead processes left, and says which labs those were.
///
/// # Errors
/// Something could not be removed.
pub fn clean_dead() -> Result<Vec<String>> {
    if !Path::new(ROOT).exists() {
        return Ok(Vec::new());
    }
    let alone = alone()?;
    let cleaned = clean_dead_labs()?;
    drop(alone);
    remove_root()?;
    Ok(cleaned)
}

/// Keeps other processes from cleaning up, or taking a name, until the file is closed.
///
/// # Errors
/// The directory of all labs cannot be made or locked.
pub fn alone() -> Result<File> {
    loop {
        fs::create_dir_all(ROOT).with_context(|| format!("making {ROOT}; a lab needs root"))?;
        let Ok(file) = File::open(ROOT) else {
            continue;
        };
        flock(&file, FlockOperation::LockExclusive).with_context(|| format!("locking {ROOT}"))?;
        // The last lab to go takes the directory with it, perhaps while this one waited.
        let locked = file
            .metadata()
            .with_context(|| format!("looking at {ROOT}"))?;
        if fs::metadata(ROOT).is_ok_and(|now| now.ino() == locked.ino()) {
            return Ok(file);
        }
    }
}

/// Removes the directory of all labs when there is none left.
fn remove_root() -> Result<()> {
    let alone = alone()?;
    match fs::remove_dir(ROOT) {
        Err(error) if error.kind() != std::io::ErrorKind::DirectoryNotEmpty => {
            return Err(error).with_context(|| format!("removing {ROOT}"));
        }
        Ok(()) | Err(_) => {}
    }
    drop(alone);
    Ok(())
}

fn clean_dead_labs() -> Result<Vec<String>> {
    let mut cleaned = Vec::new();
    for (name, record) in records()? {
        if !record.owner.is_alive() {
            clean(&name, &record)?;
            cleaned.push(name);
        }
    }
    Ok(cleaned)
}

/// Ends the lab called `name`, whoever owns it; `false` when there is none.
///
/// # Errors
/// It could not be ended or removed.
pub fn take_down(name: &str) -> Result<bool> {
    let Some(record) = read(&record_path(name))? else {
        return Ok(false);
    };
    if record.owner.is_alive() && record.owner.pid != std::process::id() {
        // Its own handler cleans up; wait for that rather than race with it.
        end(record.owner.pid, Signal::TERM)?;
        wait::until(
            format_args!("the end of process {}", record.owner.pid),
            CLEANING,
            || {
                let state = || "it still runs".to_owned();
                Ok(Probe::when(!record.owner.is_alive(), (), state))
            },
        )?;
    }
    let alone = alone()?;
    if let Some(record) = read(&record_path(name))? {
        clean(name, &record)?;
    }
    drop(alone);
    remove_root()?;
    Ok(true)
}

/// How long the programs of a lab, ended by SIGKILL, may take to be gone.
const CLEANING: Duration = Duration::from_secs(20);

fn clean(name: &str, record: &Record) -> Result<()> {
    for namespace in &record.namespaces {
        let path = crate::netns::path(namespace);
        if !path.exists() {
            continue;
        }
        kill_all(&path)?;
        crate::netns::delete(namespace)?;
    }
    for path in record.paths.iter().chain([&record_path(name)]) {
        let removed = if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Ends every process in the namespace by SIGKILL and waits until they are gone.
pub(crate) fn kill_all(namespace: &Path) -> Result<()> {
    wait::until(
        format_args!("no process in {}", namespace.display()),
        CLEANING,
        || {
            let left = processes_in(namespace)?;
            for &pid in &left {
                end(pid, Signal::KILL)?;
            }
            Ok(Probe::when(left.is_empty(), (), || {
                format!("processes {left:?}")
            }))
        },
    )
}

/// The processes whose main thread is in the namespace: this one's never is.
fn processes_in(namespace: &Path) -> Result<Vec<u32>> {
    let wanted =
        fs::metadata(namespace).with_context(|| format!("looking at {}", namespace.display()))?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("reading /proc")? {
        let entry = entry.context("reading /proc")?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process that has just ended, or a zombie, has no namespace any more.
        let Ok(own) = fs::metadata(entry.path().join("ns/net")) else {
            continue;
        };
        if (own.dev(), own.ino()) == (wanted.dev(), wanted.ino()) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn end(pid: u32, signal: Signal) -> Result<()> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = raw.with_context(|| format!("{pid} is no process id"))?;
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("ending process {pid:?}")),
    }
}

/// From now on SIGINT and SIGTERM clean up every lab of this process and end it.
fn clean_on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut signals = match signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) {
            Ok(signals) => signals,
            Err(error) => {
                eprintln!("no cleaning up on a signal ({error}); use `isopath-lab down` then");
                return;
            }
        };
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                eprintln!("\nisopath-lab: cleaning up");
                let registries: Vec<_> = lock(&LIVE).iter().filter_map(Weak::upgrade).collect();
                // Kept to the end: nobody shall make anything after its lab was cleaned up.
                let records: Vec<_> = registries
                    .iter()
                    .map(|registry| (registry, registry.lock()))
                    .collect();
                for (registry, record) in &records {
                    let cleaned = clean(&registry.name, record).and_then(|()| remove_root());
                    if let Err(error) = cleaned {
                        eprintln!("isopath-lab: {error:#}");
                    }
                }
                let intended = INTENDED.load(Ordering::Relaxed);
                std::process::exit(if intended { 0 } else { 128 + signal });
            }
        });
    });
}
