use super::*;
use crate::real_server::ledger::{Placed, Sysctl};
use crate::real_server::observed::{Listening, Place};
use crate::real_server::testing::{address, host, interface, one};

const DR: &str = "forwarding = \"dr\"";
const TUN: &str = "forwarding = \"tun\"";
const NAT: &str = "forwarding = \"nat\"\ngateway = \"10.1.0.1\"";

/// A setting of `all` and of two interfaces.
type Values = (u32, u32, u32);

/// A host on which nothing is wrong: DR, with the VIP on `lo`.
fn good() -> Observed {
    let mut host = host();
    (host.all.arp_ignore, host.all.arp_announce) = (1, 2);
    let lo = host.interfaces.get_mut("lo").unwrap();
    lo.addresses.insert(address("10.99.0.1/32"));
    host
}

/// The same with TUN.
fn good_tunnel() -> Observed {
    let mut host = good();
    let lo = host.interfaces.get_mut("lo").unwrap();
    lo.addresses.remove(&address("10.99.0.1/32"));
    let mut tunl0 = interface(3, false, &["10.99.0.1/32"]);
    tunl0.kind = Some("ipip".to_owned());
    tunl0.conf.rp_filter = 2;
    host.interfaces.insert("tunl0".to_owned(), tunl0);
    host.mss.insert("10.99.0.1".parse().unwrap(), 1440);
    host
}

fn findings(rest: &str, host: &Observed) -> Vec<Finding> {
    audit(&one(rest), host, &Ledger::new(host.place.clone()))
}

fn codes(rest: &str, host: &Observed) -> Vec<String> {
    let findings = findings(rest, host);
    findings
        .iter()
        .map(|it| format!("{} {}", it.code, it.at))
        .collect()
}

fn conf<'a>(host: &'a mut Observed, name: &str) -> &'a mut super::super::observed::Conf {
    &mut host.interfaces.get_mut(name).unwrap().conf
}

#[test]
fn a_host_that_is_set_up_has_no_findings() {
    assert_eq!(codes(DR, &good()), [""; 0]);
    assert_eq!(codes(TUN, &good_tunnel()), [""; 0]);
    let mut nat = host();
    nat.gateways.insert("10.1.0.1".parse().unwrap());
    assert_eq!(codes(NAT, &nat), [""; 0]);
}

/// The classic in every variant: `arp_ignore` of all, eth0 and eth1; which of the two answer.
#[test]
fn a_vip_that_answers_arp_is_found_on_each_interface_that_does() {
    let table: [(Values, &[&str]); 12] = [
        ((0, 0, 0), &["eth0", "eth1"]),
        ((0, 1, 0), &["eth1"]),
        ((0, 0, 1), &["eth0"]),
        ((0, 1, 1), &[]),
        ((1, 0, 0), &[]),
        ((2, 0, 0), &[]),
        ((8, 0, 0), &[]),
        ((0, 2, 8), &[]),
        ((1, 3, 0), &["eth0"]),
        ((3, 1, 2), &["eth0", "eth1"]),
        ((3, 8, 0), &["eth1"]),
        ((4, 0, 0), &["eth0", "eth1"]),
    ];
    for (values, expected) in table {
        let mut host = good();
        let eth1 = interface(3, true, &["10.2.0.11/24"]);
        host.interfaces.insert("eth1".to_owned(), eth1);
        host.all.arp_ignore = values.0;
        conf(&mut host, "eth0").arp_ignore = values.1;
        conf(&mut host, "eth1").arp_ignore = values.2;
        let expected: Vec<_> = expected
            .iter()
            .map(|name| format!("vip-answers-arp interface {name}"))
            .collect();
        assert_eq!(codes(DR, &host), expected, "{values:?}");
    }
}

#[test]
fn an_interface_without_addresses_answers_too_and_one_that_is_down_or_has_no_arp_does_not() {
    let mut host = good();
    host.all.arp_ignore = 0;
    conf(&mut host, "eth0").arp_ignore = 1;
    let mut add = |name: &str, up, arp| {
        let mut it = interface(3, arp, &[]);
        it.up = up;
        host.interfaces.insert(name.to_owned(), it);
    };
    add("bare", true, true);
    add("down", false, true);
    add("port", true, false);
    assert_eq!(codes(DR, &host), ["vip-answers-arp interface bare"]);
}

#[test]
fn a_vip_on_the_lan_interface_answers_whatever_arp_ignore_says() {
    let mut host = good();
    let eth0 = host.interfaces.get_mut("eth0").unwrap();
    eth0.addresses.insert(address("10.99.0.1/32"));
    let expected = [
        "vip-elsewhere interface eth0",
        "vip-answers-arp interface eth0",
    ];
    assert_eq!(codes(DR, &host), expected);
    let text = findings(DR, &host)[1].to_string();
    assert!(
        text.contains("`ip address delete 10.99.0.1 dev eth0`"),
        "{text}"
    );
}

#[test]
fn arp_ignore_3_is_enough_for_an_address_of_the_hosts_scope_only() {
    let mut host = good();
    host.all.arp_ignore = 3;
    assert_eq!(codes(DR, &host), ["vip-answers-arp interface eth0"]);
    let lo = host.interfaces.get_mut("lo").unwrap();
    lo.addresses.remove(&address("10.99.0.1/32"));
    lo.addresses.insert(super::super::observed::Address {
        host_scope: true,
        ..address("10.99.0.1/32")
    });
    assert_eq!(codes(DR, &host), [""; 0]);
}

#[test]
fn a_nat_host_with_the_vip_answers_for_it() {
    let mut host = good();
    host.all.arp_ignore = 0;
    let expected = [
        "vip-elsewhere interface lo",
        "wrong-gateway default route",
        "vip-answers-arp interface eth0",
    ];
    assert_eq!(codes(NAT, &host), expected);
}

#[test]
fn only_an_arp_announce_of_2_keeps_the_vip_out_of_requests() {
    for (all, own, found) in [
        (0, 0, true),
        (1, 0, true),
        (0, 2, false),
        (2, 1, false),
        (2, 3, true),
    ] {
        let mut host = good();
        host.all.arp_announce = all;
        conf(&mut host, "eth0").arp_announce = own;
        let expected: &[&str] = match found {
            true => &["vip-in-arp-requests interface eth0"],
            false => &[],
        };
        assert_eq!(codes(DR, &host), expected, "all {all}, eth0 {own}");
    }
}

/// `all`, `tunl0` and `eth0`: setting `tunl0` to 0 does not help where `all` is strict.
#[test]
fn a_strict_rp_filter_is_found_where_it_counts() {
    let table: [(Values, &[&str]); 6] = [
        ((0, 0, 0), &[]),
        ((1, 0, 2), &["tunl0"]),
        ((1, 2, 2), &[]),
        ((1, 1, 0), &["tunl0", "eth0"]),
        ((2, 1, 1), &[]),
        ((0, 0, 1), &["eth0"]),
    ];
    for (values, expected) in table {
        let mut host = good_tunnel();
        host.all.rp_filter = values.0;
        conf(&mut host, "tunl0").rp_filter = values.1;
        conf(&mut host, "eth0").rp_filter = values.2;
        let expected: Vec<_> = expected
            .iter()
            .map(|name| format!("rp-filter-strict interface {name}"))
            .collect();
        assert_eq!(codes(TUN, &host), expected, "{values:?}");
    }
}

#[test]
fn each_part_that_is_missing_is_one_finding() {
    let mut bare = host();
    (bare.all.arp_ignore, bare.all.arp_announce) = (1, 2);
    let expected = [
        "vip-missing interface tunl0",
        "mss-too-large nf_tables table isopath-real-server",
        "module-missing interface tunl0",
        "gue-port-closed UDP port 6080",
    ];
    let gue = format!("{TUN}\ntunnel = {{ type = \"gue\", port = 6080 }}");
    assert_eq!(codes(&gue, &bare), expected);
    let mut down = good_tunnel();
    down.interfaces.get_mut("tunl0").unwrap().up = false;
    assert_eq!(codes(TUN, &down), ["interface-down interface tunl0"]);
    let mut network = good();
    let lo = network.interfaces.get_mut("lo").unwrap();
    lo.addresses = [address("10.99.0.1/24")].into();
    let expected = ["vip-missing interface lo", "vip-with-network interface lo"];
    assert_eq!(codes(DR, &network), expected);
}

#[test]
fn a_segment_that_does_not_fit_is_found_when_the_mtu_is_small() {
    let mut host = good_tunnel();
    host.interfaces.get_mut("eth0").unwrap().mtu = 1400;
    let found = findings(TUN, &host)[0].to_string();
    assert!(found.contains("lowered to 1340, found 1440"), "{found}");
    let found = findings(&format!("{TUN}\nmss = 1440"), &host)[0].to_string();
    assert!(found.contains("at most 1340"), "{found}");
}

#[test]
fn somebody_has_to_listen_where_packets_arrive() {
    let mut host = good();
    let ports = format!("{DR}\nports = [80, 81, 82]\nudp_ports = [80]");
    let mut listen = |transport, address: &str, port| {
        host.listening.insert(Listening {
            transport,
            address: address.parse().unwrap(),
            port,
        });
    };
    listen(Transport::Tcp, "0.0.0.0", 80);
    listen(Transport::Tcp, "10.99.0.1", 81);
    listen(Transport::Tcp, "10.1.0.11", 82);
    let expected = [
        "not-listening tcp 10.99.0.1:82",
        "not-listening udp 10.99.0.1:80",
    ];
    assert_eq!(codes(&ports, &host), expected);
    host.listening.insert(Listening {
        transport: Transport::Udp,
        address: "::".parse().unwrap(),
        port: 80,
    });
    assert_eq!(codes(&ports, &host), expected[..1]);
}

#[test]
fn what_an_earlier_run_left_and_what_was_changed_since_is_found() {
    let mut host = good();
    let mut ledger = Ledger::new(host.place.clone());
    ledger.sysctls.push(Sysctl {
        key: Setting::ArpIgnore.key("all"),
        before: 0,
        set: 1,
    });
    ledger.vips.insert(Placed {
        interface: "lo".to_owned(),
        vip: "10.99.0.9".parse().unwrap(),
    });
    let codes = |host: &Observed, ledger: &Ledger| -> Vec<Code> {
        audit(&one(DR), host, ledger)
            .iter()
            .map(|it| it.code)
            .collect()
    };
    assert_eq!(codes(&host, &ledger), []);
    host.all.arp_ignore = 2;
    let lo = host.interfaces.get_mut("lo").unwrap();
    lo.addresses.insert(address("10.99.0.9/32"));
    assert_eq!(
        codes(&host, &ledger),
        [Code::ChangedSinceUp, Code::Leftover]
    );
    ledger.place = Place {
        boot_id: "an earlier boot".to_owned(),
        ..Place::default()
    };
    assert_eq!(codes(&host, &ledger), [], "that was another kernel's life");
}

#[test]
fn an_interface_of_the_wrong_kind_or_none_is_refused() {
    let file = crate::real_server::testing::file(
        "[real_server]\nvip_interface = \"eth0\"\ningress = [\"eth7\"]\n\
         [[vip]]\naddress = \"10.99.0.1\"\nforwarding = \"dr\"\n",
    );
    let texts: Vec<_> = refusals(&file, &host())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(
        texts[0].starts_with("wrong-interface: interface eth7: "),
        "{texts:?}"
    );
    assert!(
        texts[1].contains("expected kind dummy, found kind none"),
        "{texts:?}"
    );
}
