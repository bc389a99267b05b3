//! What the tests against a kernel's own IPVS share.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace that this test's thread lives in, gone when dropped.
pub(crate) struct Namespace(String);

impl Namespace {
    /// Enters a fresh namespace, or says why the test is skipped.
    pub(crate) fn enter(test: &str) -> Option<Self> {
        if std::env::var_os("ISOPATH_TEST_IPVS").is_none() {
            // Written past the test harness, which keeps what a passing test prints to itself.
            let line = format!("SKIPPED: {test}: needs IPVS; run by the VM test\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        }
        let name = format!("ipvs-{}-{test}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let namespace = Self(name);
        let file = File::open(format!("/run/netns/{}", namespace.0)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        run("ip", &["link", "set", "lo", "up"]);
        Some(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run("ip", &["netns", "del", &self.0]);
    }
}

/// Runs a program in this thread's namespace and returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}
