//! The rules that a declaration must hold beyond its shape.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::time::Duration;

use super::{
    AnnounceAs, Declaration, Forwarding, LONGEST_SWITCH, LvsSpec, MAX_PATHS_LIMIT,
    MOST_REAL_SERVERS, MOST_SERVICES, MOST_SWITCHES, MOST_VIPS, Timeouts, VipSpec,
};
use crate::config::AreaType;
use crate::fault::Fault;
use crate::ids::DirectorName;

mod service;
pub use service::validate_services;

pub(super) fn declaration(declaration: &Declaration) -> Vec<Fault> {
    let mut faults = Vec::new();
    let max_paths = declaration.max_paths;
    if !(1..=MAX_PATHS_LIMIT).contains(&max_paths) {
        faults.push(Fault::new("/max_paths", "a number from 1 to 64", max_paths));
    }
    if let Some(least) = declaration.min_directors
        && !(1..=MAX_PATHS_LIMIT).contains(&least)
    {
        faults.push(Fault::new("/min_directors", "a number from 1 to 64", least));
    }
    if declaration.director.len() > usize::from(max_paths) {
        faults.push(Fault::new(
            format!("/director/{max_paths}"),
            format_args!(
                "at most {max_paths} directors, since the switches balance over {max_paths} \
                 paths (max_paths)"
            ),
            declaration.director.len(),
        ));
    }
    unique(
        &mut faults,
        "director",
        "name",
        declaration.director.iter().map(|d| &d.name),
    );
    unique(
        &mut faults,
        "director",
        "router_id",
        declaration.director.iter().map(|d| d.router_id),
    );
    unique(
        &mut faults,
        "switch",
        "name",
        declaration.switch.iter().map(|s| &s.name),
    );
    lists(&mut faults, declaration);
    unique(
        &mut faults,
        "switch",
        "router_id",
        declaration.switch.iter().map(|s| s.router_id),
    );
    let routers = declaration.director.iter().map(|d| d.router_id);
    for (index, switch) in declaration.switch.iter().enumerate() {
        if routers.clone().any(|id| id == switch.router_id) {
            faults.push(Fault::new(
                format!("/switch/{index}/router_id"),
                "a router id that no director has",
                switch.router_id,
            ));
        }
    }
    faults.extend(validate_lvs(&declaration.lvs));
    faults.extend(validate_vips(&declaration.vip));
    for (index, vip) in declaration.vip.iter().enumerate() {
        for name in vip.director_cost.keys() {
            if !declaration.director.iter().any(|it| it.name == *name) {
                faults.push(Fault::new(
                    format!("/vip/{index}/director_cost"),
                    "names of directors that a [[director]] declares",
                    name,
                ));
            }
        }
    }
    faults.extend(validate_services(&declaration.vip, &declaration.service));
    nat_has_one_way_back(declaration, &mut faults);
    faults
}

/// Lists and names that are longer than any cluster needs.
fn lists(faults: &mut Vec<Fault>, declaration: &Declaration) {
    let mut bounded = |pointer: String, most: usize, what: &str, found: usize| {
        if found > most {
            faults.push(Fault::new(
                pointer,
                format_args!("at most {most} {what}"),
                found,
            ));
        }
    };
    let Declaration {
        switch,
        vip,
        service,
        ..
    } = declaration;
    bounded(
        "/switch".to_owned(),
        MOST_SWITCHES,
        "switches",
        switch.len(),
    );
    bounded("/vip".to_owned(), MOST_VIPS, "VIPs", vip.len());
    bounded(
        "/service".to_owned(),
        MOST_SERVICES,
        "services",
        service.len(),
    );
    for (index, service) in service.iter().enumerate() {
        let pointer = format!("/service/{index}/real_server");
        let found = service.real_server.len();
        bounded(
            pointer,
            MOST_REAL_SERVERS,
            "real servers of a service",
            found,
        );
    }
    for (index, switch) in switch.iter().enumerate() {
        let is_odd = |c: char| c.is_control();
        let length = switch.name.chars().count();
        if !(1..=LONGEST_SWITCH).contains(&length) || switch.name.contains(is_odd) {
            faults.push(Fault::new(
                format!("/switch/{index}/name"),
                format_args!("a name of 1 to {LONGEST_SWITCH} visible characters"),
                format_args!("{:?}", switch.name),
            ));
        }
    }
}

/// Everything wrong with a list of VIPs, located under `/vip`.
pub fn validate_vips(vips: &[VipSpec]) -> Vec<Fault> {
    let mut faults = Vec::new();
    unique(
        &mut faults,
        "vip",
        "address",
        vips.iter().map(|vip| vip.address),
    );
    for (index, vip) in vips.iter().enumerate() {
        if vip.announce.cost == 0 {
            faults.push(Fault::new(
                format!("/vip/{index}/announce/cost"),
                "a cost from 1 to 65535",
                0,
            ));
        }
        if vip.director_cost.values().any(|cost| *cost == 0) {
            faults.push(Fault::new(
                format!("/vip/{index}/director_cost"),
                "costs from 1 to 65535",
                0,
            ));
        }
    }
    faults
}

/// Each VIP is announced by a kind of LSA that an area of this type can have.
pub fn validate_kinds(vips: &[VipSpec], area: AreaType) -> Vec<Fault> {
    let refused = vips.iter().enumerate().filter_map(|(index, vip)| {
        let kind = vip.announce.kind;
        let why = kind.refused_in(area)?;
        Some(Fault::new(
            format!("/vip/{index}/announce/as"),
            AnnounceAs::allowed_in(area),
            format_args!("\"{kind}\": {why}"),
        ))
    });
    refused.collect()
}

/// Everything wrong with the settings that all services share, located under `/lvs`.
pub fn validate_lvs(lvs: &LvsSpec) -> Vec<Fault> {
    let Timeouts { tcp, tcp_fin, udp } = lvs.timeouts;
    let mut faults = Vec::new();
    for (key, timeout) in [("tcp", tcp), ("tcp_fin", tcp_fin), ("udp", udp)] {
        if !whole_seconds(timeout) {
            faults.push(Fault::new(
                format!("/lvs/timeouts/{key}"),
                WHOLE_SECONDS,
                humantime::format_duration(timeout),
            ));
        }
    }
    let limit = lvs.drain_limit.0;
    if limit > Duration::from_secs(24 * 60 * 60) {
        faults.push(Fault::new(
            "/lvs/drain_limit",
            "a time up to 24h",
            humantime::format_duration(limit),
        ));
    }
    faults
}

/// What the kernel counts in and ipvsadm's limit.
const WHOLE_SECONDS: &str = "whole seconds from 1s to 31days";

fn whole_seconds(duration: Duration) -> bool {
    let most = Duration::from_secs(31 * 24 * 60 * 60);
    duration.subsec_nanos() == 0 && (Duration::from_secs(1)..=most).contains(&duration)
}

/// Replies of a NAT service have to pass the director that has the connection: the real servers'
/// gateway. No two directors may share its packets.
fn nat_has_one_way_back(declaration: &Declaration, faults: &mut Vec<Fault>) {
    for (index, service) in declaration.service.iter().enumerate() {
        let mut vips = declaration.vip.iter();
        let vip = vips.find(|vip| vip.address == service.vip);
        let (Forwarding::Nat, Some(vip)) = (service.forwarding, vip) else {
            continue;
        };
        let mut first_at: HashMap<u16, &DirectorName> = HashMap::new();
        for director in &declaration.director {
            let cost = vip.cost_at(&director.name);
            if let Some(first) = first_at.insert(cost, &director.name) {
                faults.push(Fault::new(
                    format!("/service/{index}/forwarding"),
                    format_args!(
                        "\"dr\" or \"tun\" where directors share a VIP, or another director_cost \
                         of the VIP for each: a reply that passes another director than the \
                         request is lost"
                    ),
                    format_args!(
                        "\"nat\" with {first} and {} announcing {} at the same cost {cost}",
                        director.name, vip.address
                    ),
                ));
                break;
            }
        }
    }
}

/// Reports every value that stood before in `/{list}/*/{key}`.
fn unique<T: Eq + Hash + Display>(
    faults: &mut Vec<Fault>,
    list: &str,
    key: &str,
    values: impl Iterator<Item = T>,
) {
    let mut seen: HashMap<T, usize> = HashMap::new();
    for (index, value) in values.enumerate() {
        if let Some(first) = seen.get(&value) {
            faults.push(Fault::new(
                format!("/{list}/{index}/{key}"),
                format_args!("a {key} of its own"),
                format_args!("{value} again, first at /{list}/{first}"),
            ));
        } else {
            seen.insert(value, index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::parse_toml;

    const GOOD: &str = r#"
max_paths = 2
[[director]]
name = "d1"
router_id = "10.0.1.2"
[[director]]
name = "d2"
router_id = "10.0.2.2"
[[vip]]
address = "10.99.0.1/32"
[[service]]
vip = "10.99.0.1"
protocol = "tcp"
port = 80
flags = ["mh-port"]
check = { type = "http", path = "/healthz", status = "200-399" }
[[service.real_server]]
address = "10.1.0.11"
"#;

    fn faults(text: &str) -> String {
        match parse_toml("c.toml", text, Declaration::validate) {
            Ok(_) => String::new(),
            Err(faults) => faults.to_string(),
        }
    }

    #[test]
    fn a_good_declaration_has_no_faults() {
        assert_eq!(faults(GOOD), "");
    }

    #[test]
    fn every_form_of_a_service_is_taken() {
        let port = "protocol = \"tcp\"\nport = 80";
        let flags = "flags = [\"mh-port\"]";
        let vip = "address = \"10.99.0.1/32\"";
        let check = "type = \"http\", path = \"/healthz\"";
        let cases: &[&[(&str, &str)]] = &[
            &[(port, "protocol = \"sctp\"\nport = 80")],
            &[(port, "fwmark = 7"), (check, "type = \"http\", port = 80")],
            &[
                (port, "protocol = \"udp\"\nport = 53"),
                (flags, "scheduler = \"rr\"\nflags = [\"one-packet\"]"),
            ],
            &[(
                flags,
                "scheduler = \"sh\"\nflags = [\"sh-port\", \"sh-fallback\"]",
            )],
            &[(
                flags,
                "persistence = { timeout = \"50s\", netmask = \"24\" }",
            )],
            &[(
                flags,
                "forwarding = \"tun\"\ntunnel = { type = \"gue\", port = 6080, checksum = \"remcsum\" }",
            )],
            &[
                (flags, "forwarding = \"nat\""),
                (
                    vip,
                    "address = \"10.99.0.1/32\"\ndirector_cost = { d2 = 100 }",
                ),
                ("\"10.1.0.11\"", "\"10.1.0.11\"\nport = 8080"),
            ],
        ];
        for case in cases {
            let text = case.iter().fold(GOOD.to_owned(), |text, (from, to)| {
                assert!(text.contains(from), "{from:?} does not stand in the text");
                text.replacen(from, to, 1)
            });
            assert_eq!(faults(&text), "", "{case:?}");
        }
    }

    #[test]
    fn every_rule_names_the_place_and_what_was_found() {
        let cases = [
            (
                "max_paths = 2",
                "max_paths = 1",
                "c.toml:6:1: expected at most 1 directors",
            ),
            (
                "10.0.2.2",
                "10.0.1.2",
                "c.toml:8:13: expected a router_id of its own, found 10.0.1.2 again",
            ),
            (
                "vip = \"10.99.0.1\"",
                "vip = \"10.99.0.2\"",
                "c.toml:12:7: expected a VIP that a [[vip]] declares",
            ),
            (
                "protocol = \"tcp\"",
                "protocol = \"icmp\"",
                "c.toml:13:12: unknown variant `icmp`",
            ),
            (
                "protocol = \"tcp\"\nport = 80",
                "fwmark = 7\nport = 80",
                "c.toml:14:8: expected no port beside fwmark",
            ),
            (
                "protocol = \"tcp\"\nport = 80",
                "",
                "expected a port, or an fwmark in place of protocol and port, found none",
            ),
            (
                "protocol = \"tcp\"\nport = 80",
                "fwmark = 7",
                "expected the port to check, since the service has none",
            ),
            (
                "flags = [\"mh-port\"]",
                "flags = [\"mh-port\"]\npersistence = { timeout = \"50s\" }",
                "c.toml:15:9: expected no mh-port beside persistence",
            ),
            (
                "flags = [\"mh-port\"]",
                "persistence = { netmask = \"255.255.255.0\" }",
                "missing field `timeout`",
            ),
            (
                "flags = [\"mh-port\"]",
                "persistence = { timeout = \"50s\", netmask = \"255.0.255.0\" }",
                "expected a netmask such as 255.255.255.0",
            ),
            (
                "flags = [\"mh-port\"]",
                "persistence = { timeout = \"50ms\" }",
                "expected whole seconds from 1s to 31days, found 50ms",
            ),
            (
                "flags = [\"mh-port\"]",
                "flags = [\"one-packet\"]",
                "found one-packet with a protocol that has connections",
            ),
            (
                "flags = [\"mh-port\"]",
                "tunnel = { type = \"gre\" }",
                "expected forwarding \"tun\" with a tunnel, found dr",
            ),
            (
                "flags = [\"mh-port\"]",
                "forwarding = \"tun\"\ntunnel = { type = \"gue\" }",
                "expected the UDP port that the real servers take GUE packets at",
            ),
            (
                "flags = [\"mh-port\"]",
                "forwarding = \"tun\"\ntunnel = { checksum = \"csum\" }",
                "found \"csum\" with ipip",
            ),
            (
                "address = \"10.1.0.11\"",
                "address = \"10.1.0.11\"\nlower_threshold = 5",
                "expected at most the upper_threshold, 0, found 5",
            ),
            (
                "max_paths = 2",
                "max_paths = 2\nlvs = { timeouts = { tcp = \"0s\" } }",
                "c.toml:3:28: expected whole seconds from 1s to 31days, found 0s",
            ),
            (
                "address = \"10.99.0.1/32\"",
                "address = \"10.99.0.1/32\"\ndirector_cost = { d3 = 100 }",
                "expected names of directors that a [[director]] declares, found d3",
            ),
            ("port = 80", "port = 0", "c.toml:14:8: expected a port"),
            (
                "max_paths = 2",
                "max_paths = 2\nswitch = [{ name = \"a\", router_id = \"10.0.0.1\" }, \
                 { name = \"b\", router_id = \"10.0.0.1\" }]",
                "expected a router_id of its own, found 10.0.0.1 again",
            ),
            (
                "address = \"10.99.0.1/32\"",
                "address = \"10.99.0.1/32\"\n[[vip]]\naddress = \"10.1.0.11\"",
                "expected a real server's own address, found 10.1.0.11, which is a VIP",
            ),
            (
                "flags = [\"mh-port\"]",
                "flags = [\"mh-port\"]\nscheduler = \"rr\"",
                "found mh-port with scheduler rr",
            ),
            (
                "flags = [",
                "quorum = 2\nflags = [",
                "expected at most the 1 real servers",
            ),
            (
                "flags = [",
                "forwarding = \"nat\"\nflags = [",
                "found \"nat\" with d1 and d2 announcing 10.99.0.1 at the same cost 1",
            ),
            (
                "type = \"http\"",
                "type = \"tcp\"",
                "expected no path in a check of type tcp",
            ),
            (
                "path = \"/healthz\"",
                "timeout = \"2s\"",
                "at most the interval, found 2s",
            ),
            (
                "path = \"/healthz\"",
                "fall = 0",
                "expected a number from 1",
            ),
            (
                "address = \"10.1.0.11\"",
                "address = \"10.99.0.1\"",
                "c.toml:18:11: expected a real server's own",
            ),
            (
                "address = \"10.1.0.11\"",
                "address = \"10.1.0.11\"\nport = 81",
                "only nat translates it",
            ),
            (
                "address = \"10.99.0.1/32\"",
                "address = \"10.99.0.1/32\"\nrequire = 2",
                "at most the 1 services",
            ),
            (
                "address = \"10.99.0.1/32\"",
                "address = \"10.99.0.1/32\"\nannounce = { as = \"external\" }",
                "`external-1`",
            ),
        ];
        for (from, to, expected) in cases {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from:?} does not stand in the text");
            let faults = faults(&text);
            assert!(
                faults.contains(expected),
                "{to:?}: {faults:?} does not contain {expected:?}"
            );
        }
    }
}
