//! `isopath-agent real-server` with direct routing, in a network namespace of this kernel, with
//! a neighbour that asks for the VIP.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

mod pair;
mod shell;

use std::net::TcpListener;

use pair::{Pair, VIP, assert_same, run};

const DR: &str = "[[vip]]\naddress = \"10.99.0.1\"\nforwarding = \"dr\"\n";

#[test]
fn up_twice_and_down_leave_what_was_there_before() {
    let Some(pair) = Pair::new("twice") else {
        return;
    };
    pair.set("net/ipv4/conf/eth0/arp_ignore", "3");
    pair.set("net/ipv4/conf/eth0/rp_filter", "1");
    let before = pair.dump();
    let expected = [
        "set net.ipv4.conf.all.arp_ignore to 1 (was 0)",
        "set net.ipv4.conf.all.arp_announce to 2 (was 0)",
        "set net.ipv4.conf.eth0.arp_ignore to 1 (was 3)",
        "set net.ipv4.conf.eth0.rp_filter to 2 (was 1)",
        "add VIP 10.99.0.1 to interface lo",
    ];
    assert_eq!(pair.lines("up", DR, 0), expected);
    assert_eq!(pair.lines("status", DR, 0), ["ok"]);
    let up = pair.dump();
    assert_ne!(up, before);
    assert_eq!(pair.lines("up", DR, 0), ["nothing to do"]);
    assert_same(&pair.dump(), &up);
    pair.lines("down", DR, 0);
    assert_same(&pair.dump(), &before);
    assert!(!pair.ledger().exists(), "nothing is left to be remembered");
    assert_eq!(pair.lines("down", DR, 0), ["nothing to do"]);
}

/// The classic, and that the audit finds it.
#[test]
fn the_vip_answers_arp_until_up_has_set_the_host_up() {
    let Some(pair) = Pair::new("arp") else {
        return;
    };
    run(&format!(
        "ip -n {} address add {VIP}/32 dev lo",
        pair.server
    ));
    assert!(pair.answers_arp(), "or this test shows nothing");
    let status = pair.lines("status", DR, 1);
    assert_eq!(status.len(), 2, "{status:?}");
    assert!(
        status[0].starts_with("vip-answers-arp: interface eth0: "),
        "{status:?}"
    );
    assert!(
        status[0].contains("arp_ignore 0 in effect (all 0, eth0 0)"),
        "{status:?}"
    );
    assert!(
        status[1].starts_with("vip-in-arp-requests: interface eth0: "),
        "{status:?}"
    );

    pair.lines("up", DR, 0);
    assert!(!pair.answers_arp());
    assert_eq!(pair.lines("status", DR, 0), ["ok"]);

    // 3 on the interface counts more than 1 on all, and means another thing.
    pair.set("net/ipv4/conf/eth0/arp_ignore", "3");
    assert!(pair.answers_arp());
    let status = pair.lines("status", DR, 1);
    assert!(
        status[0].contains("arp_ignore 3 in effect (all 1, eth0 3)"),
        "{status:?}"
    );
    pair.lines("up", DR, 0);
    assert!(!pair.answers_arp());

    // The address was there before, so it stays, and so does what was wrong with it.
    pair.lines("down", DR, 0);
    assert!(pair.answers_arp());
}

#[test]
fn a_crash_between_the_state_file_and_the_changes_is_taken_back() {
    let Some(pair) = Pair::new("crash") else {
        return;
    };
    let before = pair.dump();
    pair.lines("up", DR, 0);
    let ledger = std::fs::read(pair.ledger()).unwrap();
    pair.lines("down", DR, 0);

    // Nothing was changed yet when it crashed.
    std::fs::write(pair.ledger(), &ledger).unwrap();
    pair.lines("down", DR, 0);
    assert_same(&pair.dump(), &before);

    // A part was, and the next thing that happens is another `up`.
    std::fs::write(pair.ledger(), &ledger).unwrap();
    pair.set("net/ipv4/conf/all/arp_ignore", "1");
    pair.lines("up", DR, 0);
    assert_eq!(pair.lines("status", DR, 0), ["ok"]);
    pair.lines("down", DR, 0);
    assert_same(&pair.dump(), &before);
}

#[test]
fn a_state_file_of_an_earlier_boot_restores_nothing() {
    let Some(pair) = Pair::new("boot") else {
        return;
    };
    pair.lines("up", DR, 0);
    let text = std::fs::read_to_string(pair.ledger()).unwrap();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(text.contains(boot_id.trim()), "{text}");
    let earlier = text.replace(boot_id.trim(), "00000000-0000-0000-0000-000000000000");
    std::fs::write(pair.ledger(), earlier).unwrap();
    let up = pair.dump();
    assert_eq!(pair.lines("down", DR, 0), ["nothing to do"]);
    assert_same(&pair.dump(), &up);
    assert!(!pair.ledger().exists());
}

#[test]
fn what_somebody_else_has_changed_is_left_alone() {
    let Some(pair) = Pair::new("foreign") else {
        return;
    };
    pair.lines("up", DR, 0);
    pair.set("net/ipv4/conf/all/arp_ignore", "2");
    let status = pair.lines("status", DR, 1);
    assert!(
        status[0].starts_with("changed-since-up: net.ipv4.conf.all.arp_ignore: "),
        "{status:?}"
    );
    let down = pair.lines("down", DR, 0);
    let told = "net.ipv4.conf.all.arp_ignore stays 2: ";
    assert!(down.iter().any(|line| line.starts_with(told)), "{down:?}");
    let dump = pair.dump();
    for line in ["arp_ignore = 2", "arp_announce = 0"] {
        let line = format!("/proc/sys/net/ipv4/conf/all/{line}");
        assert!(dump.contains(&line), "no {line}");
    }
}

#[test]
fn a_service_that_does_not_listen_is_found() {
    let Some(pair) = Pair::new("listen") else {
        return;
    };
    let file = format!("{DR}ports = [80]\n");
    pair.lines("up", &file, 0);
    let status = pair.lines("status", &file, 1);
    assert!(
        status[0].starts_with("not-listening: tcp 10.99.0.1:80: "),
        "{status:?}"
    );
    let listener = Pair::within(&pair.server, || TcpListener::bind((VIP, 80)).unwrap());
    assert_eq!(pair.lines("status", &file, 0), ["ok"]);
    drop(listener);
    let json = pair.lines("status --json", &file, 1);
    let status: serde_json::Value = serde_json::from_str(&json[0]).unwrap();
    assert_eq!(status["findings"][0]["code"], "not-listening");
    assert_eq!(status["findings"][0]["vip"], "10.99.0.1");
}

#[test]
fn a_nat_server_is_only_audited() {
    let Some(pair) = Pair::new("nat") else {
        return;
    };
    let file = "[[vip]]\naddress = \"10.99.0.1\"\nforwarding = \"nat\"\ngateway = \"10.1.0.1\"\n";
    assert_eq!(pair.lines("up", file, 0), ["nothing to do"]);
    let status = pair.lines("status", file, 1);
    assert!(
        status[0].starts_with("wrong-gateway: default route: "),
        "{status:?}"
    );
    run(&format!(
        "ip -n {} route add default via 10.1.0.1",
        pair.server
    ));
    assert_eq!(pair.lines("status", file, 0), ["ok"]);
}

#[test]
fn a_bad_file_is_named_with_its_place_and_exit_code_2() {
    let Some(pair) = Pair::new("bad") else {
        return;
    };
    let before = pair.dump();
    for verb in ["up", "down", "status", "check"] {
        let output = pair.command(verb, &DR.replace("\"dr\"", "\"dsr\""));
        assert_eq!(output.status.code(), Some(2), "{verb}");
        let text = String::from_utf8(output.stderr).unwrap();
        let expected = format!("{}:5:14: ", pair.state.path().join("rs.toml").display());
        assert!(text.starts_with(&expected), "{text}");
        assert!(text.contains("dsr"), "{text}");
    }
    let output = pair.command(
        "up",
        &DR.replace("[[vip]]", "ingress = [\"eth7\"]\n[[vip]]"),
    );
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("interface eth7"), "{text}");
    assert_same(&pair.dump(), &before);
}
