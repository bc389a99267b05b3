//! `isopath-agent real-server` with tunnels: needs a kernel with ipip, gre and fou, and root;
//! `ISOPATH_TEST_IPVS=1` says that all are there, as in the test VM.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

#[expect(dead_code, reason = "another test uses the rest")]
mod pair;
mod shell;

use std::net::{TcpListener, TcpStream};

use pair::{Pair, VIP, assert_same, run, skipped};

const TUN: &str = "
[[vip]]
address = \"10.99.0.1\"
forwarding = \"tun\"
[[vip]]
address = \"10.99.0.2\"
forwarding = \"tun\"
tunnel = { type = \"gue\", port = 6080 }
[[vip]]
address = \"10.99.0.3\"
forwarding = \"tun\"
tunnel = { type = \"gre\" }
";

/// A machine that filters strictly everywhere, which `tunl0` has to be told apart from.
#[test]
fn tunnels_are_set_up_and_taken_away_and_the_mss_leaves_room_for_them() {
    const NAME: &str = "tunnels";
    if std::env::var_os("ISOPATH_TEST_IPVS").is_none() {
        skipped(NAME, "needs ipip, gre and fou; run by the VM test");
        return;
    }
    let Some(pair) = Pair::new(NAME) else {
        return;
    };
    pair.set("net/ipv4/conf/all/rp_filter", "1");
    let before = pair.dump();
    let done = pair.lines("up", TUN, 0);
    let tunl0 = "set net.ipv4.conf.tunl0.rp_filter to 2 (was 0)".to_owned();
    assert!(done.contains(&tunl0), "{done:?}");
    assert_eq!(pair.lines("status", TUN, 0), ["ok"]);

    let listener = Pair::within(&pair.server, || TcpListener::bind((VIP, 80)).unwrap());
    // Past the director, which is not what is tried here: the frame goes to the server as it is.
    let server = run(&format!("ip -n {} -o link show eth0", pair.server));
    let mac = server.split("link/ether ").nth(1).unwrap();
    let mac = mac.split_whitespace().next().unwrap();
    let neighbour = &pair.neighbour;
    run(&format!(
        "ip -n {neighbour} neighbour replace {VIP} lladdr {mac} dev eth0"
    ));
    let client = Pair::within(neighbour, || TcpStream::connect((VIP, 80)).unwrap());
    // 1440 less the 12 bytes of a timestamp; without the rule it would be 1448.
    let sockets = run(&format!(
        "ip netns exec {neighbour} ss --tcp --info --no-header"
    ));
    assert!(sockets.contains(" mss:1428 "), "{sockets}");
    drop((client, listener));

    pair.lines("down", TUN, 0);
    assert_same(&pair.dump(), &before);
    let ports = run(&format!("ip -n {} fou show", pair.server));
    assert_eq!(ports, "");
}
