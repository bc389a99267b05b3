//! Every finding in tables, and that nothing else is one.

use std::sync::Arc;

use isopath_api::declare::Scheduler;

use super::super::arp::Mac;
use super::super::interfaces::Interface;
use super::*;
use crate::dataplane::RealServerWanted;

const VIP: &str = "192.168.101.100";

fn vip() -> Vip {
    VIP.parse().unwrap()
}

fn place(dataplane: Dataplane) -> Place {
    Place {
        vip_interface: "isopath".to_owned(),
        uplinks: vec!["up1".to_owned(), "up2".to_owned()],
        dataplane,
    }
}

fn interface(running: bool, addresses: &[&str]) -> Interface {
    Interface {
        running,
        arp: true,
        link: None,
        addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
    }
}

/// Two uplinks and an interface to the real servers, as they run in this order; nobody answered.
fn seen(running: [bool; 3]) -> Seen {
    let [up1, up2, lan] = running;
    let interfaces = [
        ("up1", interface(up1, &["10.0.1.2/30"])),
        ("up2", interface(up2, &["10.0.2.2/30"])),
        ("lan", interface(lan, &["192.168.101.8/24"])),
        ("isopath", interface(true, &["192.168.101.100/32"])),
    ];
    Seen {
        interfaces: Interfaces(interfaces.map(|(name, it)| (name.to_owned(), it)).into()),
        asked: [(vip(), None)].into(),
        ..Seen::default()
    }
}

fn wanted(forwarding: Forwarding, servers: Servers<'_>) -> Wanted {
    let server = |(address, weight): &(&str, u16)| RealServerWanted {
        id: format!("{address}:80").parse().unwrap(),
        weight: *weight,
        upper_threshold: 0,
        lower_threshold: 0,
        effective_weight: *weight,
    };
    let service = ServiceWanted {
        id: format!("tcp:{VIP}:80").parse().unwrap(),
        scheduler: Scheduler::Rr,
        flags: BTreeSet::new(),
        persistence: None,
        forwarding,
        tunnel: None,
        real_servers: servers.iter().map(server).collect(),
    };
    Wanted {
        vips: [vip()].into(),
        services: [(service.id, Arc::new(service))].into(),
        ..Wanted::default()
    }
}

/// Addresses of real servers with their weights.
type Servers<'a> = &'a [(&'a str, u16)];

const NEAR: [(&str, u16); 2] = [("192.168.101.3", 1), ("192.168.101.4", 1)];
const NEAR_AND_FAR: [(&str, u16); 2] = [("192.168.101.3", 1), ("10.1.0.4", 1)];
const NEAR_AND_OFF: [(&str, u16); 2] = [("192.168.101.3", 1), ("10.1.0.4", 0)];

fn down(interface: &str) -> Reason {
    Reason::InterfaceDown {
        interface: interface.to_owned(),
    }
}

#[test]
fn a_vip_is_kept_back_where_no_packet_would_come_in_or_get_on() {
    let cases: [(&str, [bool; 3], Servers<'_>, Vec<Reason>); 7] = [
        ("all run", [true, true, true], &NEAR, vec![]),
        ("one uplink of two", [false, true, true], &NEAR, vec![]),
        ("no uplink", [false, false, true], &NEAR, vec![down("up1")]),
        (
            "no way to the real servers",
            [true, true, false],
            &NEAR,
            vec![down("lan")],
        ),
        (
            "a real server behind a router",
            [true, true, false],
            &NEAR_AND_FAR,
            vec![],
        ),
        (
            "and one of weight 0",
            [true, true, false],
            &NEAR_AND_OFF,
            vec![down("lan")],
        ),
        ("no real servers", [true, true, false], &[], vec![]),
    ];
    for (what, running, servers, expected) in cases {
        let wanted = wanted(Forwarding::Dr, servers);
        let found = findings(&place(Dataplane::Ipvs), &seen(running), &wanted);
        assert_eq!(found.vips[&vip()], expected, "{what}");
        assert_eq!(found.notices, BTreeSet::new(), "{what}");
    }
}

#[test]
fn without_a_data_plane_the_real_servers_are_somebody_elses_business() {
    let wanted = wanted(Forwarding::Dr, &NEAR);
    let place = place(Dataplane::None);
    let found = findings(&place, &seen([true, true, false]), &wanted);
    assert_eq!(found.vips[&vip()], []);
    let found = findings(&place, &seen([false, false, true]), &wanted);
    assert_eq!(found.vips[&vip()], [down("up1")]);
}

#[test]
fn what_could_not_be_read_keeps_nothing_back() {
    let blind = Seen {
        interfaces: Interfaces::default(),
        blind: ["cannot read the interfaces".to_owned()].into(),
        ..seen([false; 3])
    };
    let found = findings(
        &place(Dataplane::Ipvs),
        &blind,
        &wanted(Forwarding::Dr, &NEAR),
    );
    assert_eq!(found.vips[&vip()], []);
    let codes: Vec<_> = found.notices.iter().map(|it| it.code).collect();
    assert_eq!(codes, [Notice::GATE_BLIND]);
}

#[test]
fn an_answer_of_somebody_else_keeps_the_vip_back_and_a_vip_not_asked_for_is_missing() {
    let answer = Answer {
        interface: "lan".to_owned(),
        mac: Mac([2, 0, 0, 0, 0, 0x0b]),
    };
    let mut seen = seen([true; 3]);
    seen.asked = [(vip(), Some(answer))].into();
    let mut wanted = wanted(Forwarding::Dr, &NEAR);
    wanted.vips.insert("192.168.101.101".parse().unwrap());
    let found = findings(&place(Dataplane::Ipvs), &seen, &wanted);
    let elsewhere = Reason::VipAnsweredElsewhere {
        interface: "lan".to_owned(),
        mac: "02:00:00:00:00:0b".to_owned(),
    };
    assert_eq!(found.vips, [(vip(), vec![elsewhere])].into());
}

#[test]
fn where_it_cannot_be_asked_that_is_said_and_keeps_nothing_back() {
    let mut seen = seen([true; 3]);
    seen.unasked = [("lan".to_owned(), "Operation not permitted".to_owned())].into();
    let found = findings(
        &place(Dataplane::Ipvs),
        &seen,
        &wanted(Forwarding::Dr, &NEAR),
    );
    assert_eq!(found.vips[&vip()], []);
    let notice = found.notices.first().unwrap();
    assert_eq!(notice.code, Notice::ARP_UNCHECKED);
    assert!(notice.text.contains("on lan"), "{}", notice.text);
    assert!(notice.remedy.contains("CAP_NET_RAW"), "{}", notice.remedy);
}

#[test]
fn a_tunnel_needs_room_for_the_least_packet_and_says_where_a_full_one_does_not_fit() {
    // The way's MTU; what keeps the VIP back; what the notice wants the MSS clamped to.
    let cases = [
        (9000, None, None),
        (1520, None, None),
        (1519, None, Some("to 1459 ")),
        (1500, None, Some("to 1440 ")),
        (596, None, Some("to 536 ")),
        (595, Some(596), None),
        (68, Some(596), None),
    ];
    for (mtu, needed, mss) in cases {
        let path = Path {
            interface: "lan".to_owned(),
            mtu,
        };
        let mut seen = seen([true; 3]);
        seen.paths = [("192.168.101.4".parse().unwrap(), path)].into();
        let expected: Vec<Reason> = needed
            .map(|needed| Reason::MtuTooSmall {
                interface: "lan".to_owned(),
                mtu,
                needed,
            })
            .into_iter()
            .collect();
        let place = place(Dataplane::Ipvs);
        let found = findings(&place, &seen, &wanted(Forwarding::Tun, &NEAR));
        assert_eq!(found.vips[&vip()], expected, "MTU {mtu}");
        let remedy = found.notices.first().map(|notice| notice.remedy.as_str());
        assert_eq!(remedy.is_some(), mss.is_some(), "MTU {mtu}: {remedy:?}");
        let fits = remedy
            .zip(mss)
            .is_none_or(|(remedy, mss)| remedy.contains(mss));
        assert!(fits, "MTU {mtu}: {remedy:?}");
        // Without a tunnel the same way is no finding.
        let direct = findings(&place, &seen, &wanted(Forwarding::Dr, &NEAR));
        assert_eq!(direct.vips[&vip()], [], "MTU {mtu}, direct routing");
        assert!(direct.notices.is_empty(), "MTU {mtu}, direct routing");
    }
}
