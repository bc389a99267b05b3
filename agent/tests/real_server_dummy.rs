//! `isopath-agent real-server` with the VIP on a dummy interface: needs a kernel that has those,
//! and root; `ISOPATH_TEST_IPVS=1` says that all are there, as in the test VM.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

#[expect(dead_code, reason = "another test uses the rest")]
mod pair;
mod shell;

use pair::{Pair, VIP, assert_same, run, skipped};

const DR: &str =
    "vip_interface = \"vips\"\n[[vip]]\naddress = \"10.99.0.1\"\nforwarding = \"dr\"\n";

#[test]
fn the_dummy_is_made_carries_the_vip_and_goes_again() {
    const NAME: &str = "dummy";
    if std::env::var_os("ISOPATH_TEST_IPVS").is_none() {
        skipped(NAME, "needs dummy interfaces; run by the VM test");
        return;
    }
    let Some(pair) = Pair::new(NAME) else {
        return;
    };
    let before = pair.dump();
    pair.lines("up", DR, 0);
    let link = run(&format!("ip -n {} -d address show dev vips", pair.server));
    for word in ["dummy", ",UP", &format!("inet {VIP}/32 ")] {
        assert!(link.contains(word), "no {word:?} in {link}");
    }
    assert_eq!(pair.lines("status", DR, 0), ["ok"]);
    assert_eq!(pair.lines("up", DR, 0), ["nothing to do"]);
    pair.lines("down", DR, 0);
    assert_same(&pair.dump(), &before);
    assert!(!pair.ledger().exists(), "nothing is left to be remembered");
}
