//! The data plane on a kernel without IPVS.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use isopath_agent::dataplane::{Dataplane, Wanted};
use isopath_api::config;
use isopath_api::declare::Lvs;
use isopath_api::ids::Vip;
use isopath_api::reason::Reason;
use tempfile::TempDir;

/// Whether this kernel has IPVS, or would load it when it is asked.
fn has_ipvs() -> bool {
    let mut modprobe = Command::new("modprobe");
    let modprobe = modprobe.args(["--quiet", "ip_vs"]).status();
    modprobe.is_ok_and(|status| status.success()) || Path::new("/proc/net/ip_vs").exists()
}

#[tokio::test]
async fn without_ipvs_no_vip_is_ready_and_nothing_is_changed() {
    const VIPS: &str = "no-ipvs-vips";
    if has_ipvs() {
        // Written past the test harness, which keeps what a passing test prints to itself.
        let line = "SKIPPED: without_ipvs: this kernel has IPVS\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let state = TempDir::new().unwrap();
    let kind = config::Dataplane::Ipvs;
    let mut dataplane = Dataplane::new(kind, VIPS.to_owned(), state.path()).unwrap();
    let services = dataplane.services().await.unwrap();
    assert!(services.is_empty(), "there is nothing to take over");
    let vips = ["192.0.2.100", "192.0.2.101"].map(|it| it.parse::<Vip>().unwrap());
    let wanted = Wanted {
        vips: vips.into(),
        services: [].into(),
        lvs: Lvs::default(),
    };
    let report = dataplane.reconcile(&wanted).await;
    for vip in vips {
        assert_eq!(report.vips[&vip], Err(Reason::NoIpvs), "{vip}");
    }
    assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
    assert!(
        report.failures[0].contains("ip_vs"),
        "{:?}",
        report.failures
    );
    assert_eq!(report.steps, 0);
    let made = Path::new("/sys/class/net").join(VIPS);
    assert!(!made.exists(), "an interface for VIPs that go nowhere");

    let preview = dataplane.preview(&wanted).await;
    let unread = preview.unread.unwrap();
    assert!(unread.contains("ip_vs"), "{unread}");
    let words = format!("make the dummy interface {VIPS}");
    assert!(preview.steps.contains(&words), "{:?}", preview.steps);

    // Nothing is left behind by an agent that ends here.
    assert_eq!(dataplane.tear_down().await.steps, 0);
}
