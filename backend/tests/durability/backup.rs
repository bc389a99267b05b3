//! Copies of a database in use, and a copy put in its place.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tempfile::TempDir;

use crate::served::{CLUSTER, Launcher, Served, declaration, report};

/// What the stream of `d1` begins with: the epoch and the generation.
fn desired(served: &Served, token: &str) -> (String, u64) {
    let mut stream = TcpStream::connect(&served.address).unwrap();
    write!(
        stream,
        "GET {CLUSTER}/directors/d1/desired HTTP/1.1\r\nhost: x\r\n\
         authorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    let mut lines = BufReader::new(stream).lines();
    let id = lines.find_map(|line| line.unwrap().strip_prefix("id: ").map(str::to_owned));
    let id = id.unwrap();
    let (epoch, generation) = id.split_once(':').unwrap();
    (epoch.to_owned(), generation.parse().unwrap())
}

fn check(launcher: &Launcher, file: &Path) -> Result<String, String> {
    let url = format!("sqlite://{}", file.display());
    launcher.run(&["check", "--database", &url])
}

fn backup(launcher: &Launcher, file: &Path, more: &[&str]) -> Result<String, String> {
    let (url, file) = (launcher.url(), file.to_str().unwrap());
    let arguments = ["backup", "--database", &url, file];
    launcher.run(&[&arguments, more].concat())
}

fn restore(launcher: &Launcher, file: &Path) -> Result<String, String> {
    let (url, file) = (launcher.url(), file.to_str().unwrap());
    launcher.run(&["restore", "--database", &url, file])
}

/// A backup of a database with one declared cluster, whose server has ended, and a token.
fn backed_up(launcher: &Launcher, directory: &TempDir) -> (PathBuf, String) {
    let file = directory.path().join("backup");
    let served = Served::start(launcher);
    let token = launcher.token("ops");
    served.call("PUT", CLUSTER, &token, &declaration(0));
    backup(launcher, &file, &[]).unwrap();
    served.terminate();
    (file, token)
}

/// The revision in force in a file that nobody serves from.
fn revision_in(file: &Path) -> u64 {
    use sqlx::{ConnectOptions, Connection};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let revision: i64 = runtime.block_on(async {
        let mut connection = options.connect().await.unwrap();
        let query = sqlx::query_scalar("SELECT revision FROM clusters WHERE name = 'edge'");
        let revision = query.fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        revision
    });
    revision.try_into().unwrap()
}

#[test]
fn a_backup_under_load_has_all_that_was_acknowledged_before_it() {
    let directory = TempDir::new().unwrap();
    let launcher = Launcher::here(directory.path());
    let served = Served::start(&launcher);
    let token = launcher.token("ops");
    served.call("PUT", CLUSTER, &token, &declaration(0));
    let acknowledged = Arc::new(AtomicU64::new(1));
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let answer = served.call("PUT", CLUSTER, &token, &declaration(n));
                let revision = answer.json()["revision"].as_u64().unwrap();
                acknowledged.store(revision, Ordering::SeqCst);
            }
        });
        for n in 0..5 {
            let file = directory.path().join(format!("backup-{n}"));
            let before = acknowledged.load(Ordering::SeqCst);
            backup(&launcher, &file, &[]).unwrap();
            let found = check(&launcher, &file).unwrap();
            assert!(found.contains("is whole"), "{found}");
            let revision = revision_in(&file);
            assert!(
                revision >= before,
                "r{revision}, acknowledged was r{before}"
            );
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(acknowledged.load(Ordering::SeqCst) > 5, "there was no load");
    let names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".tmp"))
        .collect();
    assert_eq!(names, [""; 0], "temporary files are left");
    use std::os::unix::fs::PermissionsExt;
    let metadata = directory.path().join("backup-0").metadata().unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_restored_database_begins_a_new_epoch_and_agents_are_taken() {
    let directory = TempDir::new().unwrap();
    let launcher = Launcher::here(directory.path());
    let file = directory.path().join("backup");
    let served = Served::start(&launcher);
    let token = launcher.token("ops");
    for n in 0..3 {
        served.call("PUT", CLUSTER, &token, &declaration(n));
    }
    backup(&launcher, &file, &[]).unwrap();
    let again = backup(&launcher, &file, &[]).unwrap_err();
    assert!(again.contains("exists; --force overwrites it"), "{again}");
    backup(&launcher, &file, &["--force"]).unwrap();
    for n in 3..10 {
        served.call("PUT", CLUSTER, &token, &declaration(n));
    }
    let (epoch, generation) = desired(&served, &token);
    assert_eq!(generation, 10);
    let refused = restore(&launcher, &file).unwrap_err();
    assert!(
        refused.contains("another isopathd serves from"),
        "{refused}"
    );
    // Killed: what is there has a WAL, and that belongs to what is kept.
    served.kill();

    let told = restore(&launcher, &file).unwrap();
    let aside = told
        .split("the database that was there is ")
        .nth(1)
        .and_then(|rest| rest.split(". ").next())
        .unwrap_or_else(|| panic!("{told}"));
    let aside = Path::new(aside);
    assert_eq!(revision_in(aside), 10, "what was there is kept whole");
    check(&launcher, aside).unwrap();

    let served = Served::start(&launcher);
    let view = served.get(CLUSTER, &token).json();
    assert_eq!(view["revision"], 3, "{view}");
    let (new_epoch, new_generation) = desired(&served, &token);
    assert_ne!(new_epoch, epoch, "agents would refuse the lower generation");
    assert_eq!(new_generation, 3);
    let mut observed = report(1);
    observed["epoch"] = epoch.into();
    observed["generation"] = generation.into();
    let answer = served.call(
        "POST",
        &format!("{CLUSTER}/directors/d1/observed"),
        &token,
        &observed,
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["epoch"], new_epoch.as_str(), "{answer:?}");
    assert_eq!(answer.json()["generation"], 3, "{answer:?}");
    let events = served.get("/api/v1/events", &token).body;
    assert!(events.contains("restored from backup"), "{events}");
}

#[test]
fn what_is_no_backup_replaces_nothing() {
    let directory = TempDir::new().unwrap();
    let launcher = Launcher::here(directory.path());
    let (file, token) = backed_up(&launcher, &directory);
    let database = directory.path().join("isopath.db");
    let before = std::fs::read(&database).unwrap();
    let path = |name: &str| directory.path().join(name);
    let whole = std::fs::read(&file).unwrap();
    let mut broken = whole.clone();
    let pages = broken.len() / 4096;
    for page in 3..pages {
        broken[page * 4096..page * 4096 + 64].fill(0xa5);
    }
    std::fs::write(path("broken"), &broken).unwrap();
    std::fs::write(path("half"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(path("text"), "hello\n".repeat(1000)).unwrap();
    std::fs::write(path("empty"), "").unwrap();
    std::fs::write(path("in-use"), &whole).unwrap();
    std::fs::write(path("in-use-wal"), "x").unwrap();
    for (name, expected) in [
        ("broken", "is not a backup that can be used"),
        ("half", "is not a backup that can be used"),
        ("text", "file is not a database"),
        ("empty", "it is no database of isopathd"),
        ("in-use", "it has a WAL beside it"),
        ("absent", "cannot read"),
    ] {
        let refused = restore(&launcher, &path(name)).unwrap_err();
        assert!(refused.contains(expected), "{name}: {refused}");
        assert_eq!(std::fs::read(&database).unwrap(), before, "{name}");
    }
    let damaged = check(&launcher, &path("broken")).unwrap_err();
    assert!(damaged.contains("is damaged:\n"), "{damaged}");

    std::fs::write(&database, &broken).unwrap();
    let refused = match Served::try_start(&launcher) {
        Ok(served) => panic!("it started: {}", served.log()),
        Err(log) => log,
    };
    assert!(refused.contains("isopath.db is damaged: "), "{refused}");
    assert!(
        refused.contains("`isopathd restore --database"),
        "{refused}"
    );
    restore(&launcher, &file).unwrap();
    let served = Served::start(&launcher);
    assert_eq!(served.get(CLUSTER, &token).json()["revision"], 1);
}

#[test]
fn what_a_command_of_root_makes_is_the_server_s() {
    const OWNER: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "SKIPPED: what_a_command_of_root_makes_is_the_server_s: giving a file away needs root"
        );
        return;
    }
    use std::os::unix::fs::{MetadataExt, chown};
    let directory = TempDir::new().unwrap();
    let launcher = Launcher::here(directory.path());
    chown(directory.path(), Some(OWNER), Some(OWNER)).unwrap();
    launcher.token("ops");
    for name in ["isopath.db", "isopath.db-serve"] {
        let is = directory.path().join(name).metadata().unwrap();
        assert_eq!((is.uid(), is.gid()), (OWNER, OWNER), "{name}");
        assert_eq!(is.mode() & 0o777, 0o600, "{name}");
    }
}

/// A restore that is killed leaves a copy and SQLite's journal of it, which is not the next copy's.
#[test]
fn what_a_killed_restore_left_is_no_part_of_the_next() {
    let directory = TempDir::new().unwrap();
    let launcher = Launcher::here(directory.path());
    let (file, token) = backed_up(&launcher, &directory);
    let left = ["", "-journal", "-wal", "-shm"].map(|suffix| {
        let path = directory.path().join(format!("isopath.db-restore{suffix}"));
        std::fs::write(&path, "left by another").unwrap();
        path
    });
    restore(&launcher, &file).unwrap();
    for path in &left {
        assert!(!path.exists(), "{} is left", path.display());
    }
    check(&launcher, &directory.path().join("isopath.db")).unwrap();
    let served = Served::start(&launcher);
    assert_eq!(served.get(CLUSTER, &token).json()["revision"], 1);
}

/// A copy in the place of the database, or of what is beside it, takes away what is acknowledged
/// after it; a backup that has the name of a restore's own copy would be removed as what another
/// restore has left.
#[test]
fn a_copy_takes_no_place_of_the_database_s_own() {
    let directory = TempDir::new().unwrap();
    let launcher = Launcher::here(directory.path());
    let served = Served::start(&launcher);
    let token = launcher.token("ops");
    let path = |name: &str| directory.path().join(name);
    std::os::unix::fs::symlink(directory.path(), path("link")).unwrap();
    for name in ["isopath.db", "isopath.db-wal", "link/isopath.db-serve"] {
        let refused = backup(&launcher, &path(name), &["--force"]).unwrap_err();
        let expected = "is a file of the database itself";
        assert!(refused.contains(expected), "{name}: {refused}");
    }
    served.call("PUT", CLUSTER, &token, &declaration(0));
    let file = path("isopath.db-restore");
    backup(&launcher, &file, &["--force"]).unwrap();
    served.terminate();
    let refused = restore(&launcher, &file).unwrap_err();
    assert!(refused.contains("rename it first"), "{refused}");
    std::fs::rename(&file, path("backup")).unwrap();
    restore(&launcher, &path("backup")).unwrap();
    let served = Served::start(&launcher);
    assert_eq!(served.get(CLUSTER, &token).json()["revision"], 1);
}

/// Commands of root do not make files where the server's user lets a link point.
#[test]
fn no_link_is_followed_where_a_file_is_made() {
    let directory = TempDir::new().unwrap();
    let launcher = Launcher::here(directory.path());
    let (file, _) = backed_up(&launcher, &directory);
    let target = directory.path().join("target");
    let link = |name: &str| {
        let link = directory.path().join(name);
        drop(std::fs::remove_file(&link));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        link
    };
    let serve = link("isopath.db-serve");
    let refused = restore(&launcher, &file).unwrap_err();
    assert!(refused.contains("isopath.db-serve"), "{refused}");
    assert!(!target.exists());
    std::fs::remove_file(serve).unwrap();
    link("isopath.db-restore");
    restore(&launcher, &file).unwrap();
    assert!(!target.exists());
}

/// The server runs as somebody else than root, who restores.
#[test]
fn a_restored_database_is_its_owner_s() {
    const OWNER: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: a_restored_database_is_its_owner_s: giving a file away needs root");
        return;
    }
    use std::os::unix::fs::{MetadataExt, chown};
    let directory = TempDir::new().unwrap();
    let launcher = Launcher::here(directory.path());
    let (file, _) = backed_up(&launcher, &directory);
    let path = |name: &str| directory.path().join(name);
    let owners = || {
        let owner = |name| path(name).metadata().unwrap().uid();
        ["isopath.db", "isopath.db-serve"].map(owner)
    };
    chown(path("isopath.db"), Some(OWNER), Some(OWNER)).unwrap();
    std::fs::remove_file(path("isopath.db-serve")).unwrap();
    restore(&launcher, &file).unwrap();
    assert_eq!(owners(), [OWNER; 2], "as the database before");

    std::fs::remove_file(path("isopath.db")).unwrap();
    std::fs::remove_file(path("isopath.db-serve")).unwrap();
    chown(directory.path(), Some(OWNER - 1), Some(OWNER - 1)).unwrap();
    restore(&launcher, &file).unwrap();
    assert_eq!(owners(), [OWNER - 1; 2], "as their directory");
}
