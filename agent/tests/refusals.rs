//! What a kernel refuses, and that it is made good: a scheduler that it has no module for, a
//! sysctl that cannot be written. These need a kernel with IPVS whose schedulers are modules, and
//! root; `ISOPATH_TEST_IPVS=1` says that all are there, as in the test VM.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

#[expect(dead_code, reason = "another test uses the rest")]
mod director;
mod shell;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use director::{Director, assert_ready, rules, run, server, service, sysctl, vip, wanted};
use isopath_agent::dataplane::{Dataplane, Report, Wanted};
use isopath_api::declare::{Forwarding, Scheduler};
use isopath_api::reason::Reason;

/// The longest wait for the next try is 30 s.
const DEADLINE: Duration = Duration::from_secs(90);

/// The kernel runs nothing to load a module, as long as this lives.
struct NoModules {
    program: String,
}

impl NoModules {
    const FILE: &str = "/proc/sys/kernel/modprobe";

    fn new() -> Self {
        let program = std::fs::read_to_string(Self::FILE).unwrap();
        std::fs::write(Self::FILE, "/bin/false").unwrap();
        Self { program }
    }
}

impl Drop for NoModules {
    fn drop(&mut self) {
        std::fs::write(Self::FILE, &self.program).unwrap();
    }
}

/// A sysctl that can only be read, as long as this lives: only in this test's network namespace,
/// because each has a file of its own.
struct ReadOnly {
    file: String,
}

impl ReadOnly {
    fn new(key: &str) -> Self {
        let file = format!("/proc/sys/{key}");
        run(&format!("mount --bind {file} {file}"));
        let read_only = Self { file };
        let file = &read_only.file;
        run(&format!("mount -o remount,bind,ro {file}"));
        read_only
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        run(&format!("umount {}", self.file));
    }
}

/// Two VIPs with a service each; the first one's has the scheduler.
fn two(scheduler: Scheduler) -> Wanted {
    let mut services = vec![
        service("tcp:10.99.0.1:80", scheduler, Forwarding::Dr),
        service("tcp:10.99.0.2:80", Scheduler::Mh, Forwarding::Dr),
    ];
    for service in &mut services {
        service.real_servers = vec![server("10.1.0.11:80", 1, 1)];
    }
    wanted(services)
}

/// Reconciles as the agent does, each second or so, until all is done.
async fn recovers(dataplane: &mut Dataplane, wanted: &Wanted) -> Report {
    let began = Instant::now();
    loop {
        let report = dataplane.reconcile(wanted).await;
        if report.failures.is_empty() {
            return report;
        }
        assert!(began.elapsed() < DEADLINE, "still {:?}", report.failures);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn assert_says(failures: &[String], words: &[&str]) {
    assert_eq!(failures.len(), 1, "{failures:?}");
    for word in words {
        assert!(failures[0].contains(word), "{failures:?}: no {word:?}");
    }
}

#[tokio::test]
async fn a_scheduler_that_is_missing_holds_its_own_vip_back_until_it_is_there() {
    let Some(director) = Director::enter("scheduler") else {
        return;
    };
    // A test before this one may have loaded it; built in, it could not be missing.
    let loaded = || Path::new("/sys/module/ip_vs_lblcr").exists();
    if loaded() {
        // The last service with it may still be on its way out with its namespace.
        let began = Instant::now();
        while !Command::new("modprobe")
            .args(["--remove", "--quiet", "ip_vs_lblcr"])
            .status()
            .unwrap()
            .success()
        {
            assert!(began.elapsed() < DEADLINE, "ip_vs_lblcr stays loaded");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    let no_modules = NoModules::new();
    let wanted = two(Scheduler::Lblcr);
    let mut dataplane = director.dataplane();
    let report = dataplane.reconcile(&wanted).await;
    let missing = Reason::NoScheduler {
        scheduler: "lblcr".to_owned(),
    };
    assert_eq!(report.vips[&vip("10.99.0.1")], Err(missing));
    assert_eq!(report.vips[&vip("10.99.0.2")], Ok(()));
    let words = ["lblcr", "tcp 10.99.0.1:80", "ENOENT", "next try at"];
    assert_says(&report.failures, &words);
    let other = [
        "-A -t 10.99.0.2:80 -s mh -b mh-fallback,mh-port",
        "-a -t 10.99.0.2:80 -r 10.1.0.11:80 -g -w 1",
    ];
    assert_eq!(rules(), other, "the other VIP's service goes on");

    drop(no_modules);
    let report = recovers(&mut dataplane, &wanted).await;
    assert_ready(&report);
    assert!(loaded(), "the kernel loads it itself");
    assert_eq!(rules().len(), 4, "{:?}", rules());
    assert_eq!(report.drift_repaired, 0, "a refusal is no drift");
}

#[tokio::test]
async fn a_sysctl_that_cannot_be_written_is_named_and_all_else_is_done() {
    const KEY: &str = "net/ipv4/vs/sloppy_tcp";
    let Some(director) = Director::enter("sysctl") else {
        return;
    };
    let read_only = ReadOnly::new(KEY);
    let wanted = two(Scheduler::Wlc);
    let mut dataplane = director.dataplane();
    let report = dataplane.reconcile(&wanted).await;
    for address in ["10.99.0.1", "10.99.0.2"] {
        let refused = Reason::SysctlRefused {
            key: "net.ipv4.vs.sloppy_tcp".to_owned(),
            wanted: "1".to_owned(),
            found: Some("0".to_owned()),
        };
        assert_eq!(report.vips[&vip(address)], Err(refused), "{address}");
    }
    let words = [
        "net.ipv4.vs.sloppy_tcp to 1",
        "Read-only file system",
        "next try at",
    ];
    assert_says(&report.failures, &words);
    // What the sysctl is no part of, later sysctls among it, is there already.
    assert_eq!(rules().len(), 4, "{:?}", rules());
    assert_eq!(sysctl("net/ipv4/vs/schedule_icmp"), "1");
    assert!(run("ip -o -4 addr show dev vips").contains("10.99.0.2/32"));
    // A director that schedules only first packets is another one than the controller expects.
    let digests = report.digests;
    assert_eq!(digests.len(), 2, "{digests:?}");

    drop(read_only);
    let report = recovers(&mut dataplane, &wanted).await;
    assert_ready(&report);
    assert_eq!(sysctl(KEY), "1");
    for (id, digest) in report.digests.iter() {
        assert_ne!(*digest, digests[id], "{id} has the digest of before");
    }
}
