//! The rules that a declaration must hold beyond its shape.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::time::Duration;

use super::{
    AnnounceAs, CheckKind, CheckSpec, Declaration, Forwarding, MAX_PATHS_LIMIT, Scheduler,
    ServiceSpec, VipSpec,
};
use crate::config::AreaType;
use crate::fault::Fault;
use crate::ids::Protocol;

pub(super) fn declaration(declaration: &Declaration) -> Vec<Fault> {
    let mut faults = Vec::new();
    let max_paths = declaration.max_paths;
    if !(1..=MAX_PATHS_LIMIT).contains(&max_paths) {
        faults.push(Fault::new("/max_paths", "a number from 1 to 64", max_paths));
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
    faults.extend(validate_vips(&declaration.vip));
    faults.extend(validate_services(&declaration.vip, &declaration.service));
    faults
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

/// Everything wrong with a list of services, located under `/service`.
pub fn validate_services(vips: &[VipSpec], services: &[ServiceSpec]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, service) in services.iter().enumerate() {
        let at = |key: &str| format!("/service/{index}/{key}");
        if !vips.iter().any(|vip| vip.address == service.vip) {
            faults.push(Fault::new(
                at("vip"),
                "a VIP that a [[vip]] declares",
                service.vip,
            ));
        }
        if let Some(first) = services[..index]
            .iter()
            .position(|s| s.id() == service.id())
        {
            faults.push(Fault::new(
                at("port"),
                "a service of its own",
                format_args!("{} again, first declared at /service/{first}", service.id()),
            ));
        }
        if service.protocol != Protocol::Tcp {
            let expected = "\"tcp\", the only protocol this version balances";
            faults.push(Fault::new(at("protocol"), expected, service.protocol));
        }
        if service.port == 0 {
            faults.push(Fault::new(at("port"), "a port from 1 to 65535", 0));
        }
        if service.scheduler != Scheduler::Mh
            && let Some(flag) = service.flags.first()
        {
            faults.push(Fault::new(
                at("flags"),
                "scheduler \"mh\" with these flags",
                format_args!("{flag} with scheduler {}", service.scheduler),
            ));
        }
        if service.forwarding != Forwarding::Dr {
            let expected = "\"dr\", the only forwarding method this version sets up";
            faults.push(Fault::new(at("forwarding"), expected, service.forwarding));
        }
        if service.quorum == 0 {
            faults.push(Fault::new(at("quorum"), "a quorum of at least 1", 0));
        }
        if usize::from(service.quorum) > service.real_server.len() {
            faults.push(Fault::new(
                at("quorum"),
                format_args!(
                    "at most the {} real servers listed",
                    service.real_server.len()
                ),
                service.quorum,
            ));
        }
        real_servers(&mut faults, index, service);
        check(&mut faults, index, &service.check);
    }
    for (index, vip) in vips.iter().enumerate() {
        let count = services
            .iter()
            .filter(|service| service.vip == vip.address)
            .count();
        if vip.require.wanted(count) > count {
            faults.push(Fault::new(
                format!("/vip/{index}/require"),
                format_args!("at most the {count} services of the VIP"),
                vip.require,
            ));
        }
    }
    faults
}

fn real_servers(faults: &mut Vec<Fault>, index: usize, service: &ServiceSpec) {
    for (position, server) in service.real_server.iter().enumerate() {
        let at = |key: &str| format!("/service/{index}/real_server/{position}/{key}");
        let id = service.real_server_id(server);
        let earlier = &service.real_server[..position];
        if earlier
            .iter()
            .any(|other| service.real_server_id(other) == id)
        {
            faults.push(Fault::new(
                at("address"),
                "a real server of its own",
                format!("{id} again"),
            ));
        }
        if server.address == service.vip.0
            || server.address.is_unspecified()
            || server.address.is_multicast()
            || server.address.is_broadcast()
        {
            faults.push(Fault::new(
                at("address"),
                "a real server's own address",
                server.address,
            ));
        }
        if server.port == Some(0) {
            faults.push(Fault::new(at("port"), "a port from 1 to 65535", 0));
        }
        if service.forwarding != Forwarding::Nat
            && let Some(port) = server.port.filter(|port| *port != service.port)
        {
            faults.push(Fault::new(
                at("port"),
                format_args!(
                    "the service's port {}, since only nat translates it",
                    service.port
                ),
                port,
            ));
        }
    }
}

fn check(faults: &mut Vec<Fault>, index: usize, check: &CheckSpec) {
    let at = |key: &str| format!("/service/{index}/check/{key}");
    if check.kind == CheckKind::Tcp {
        let http_only = [
            ("path", check.path.is_some()),
            ("host", check.host.is_some()),
            ("status", check.status.is_some()),
        ];
        for (key, present) in http_only {
            if present {
                let expected = format!("no {key} in a check of type tcp");
                faults.push(Fault::new(at(key), expected, format_args!("\"{key}\"")));
            }
        }
    }
    if check.verify && check.kind != CheckKind::Https {
        faults.push(Fault::new(
            at("verify"),
            "type \"https\" with verify",
            check.kind,
        ));
    }
    if let Some(path) = &check.path
        && (!path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        faults.push(Fault::new(
            at("path"),
            "a path such as /healthz",
            format_args!("{path:?}"),
        ));
    }
    if let Some(host) = &check.host
        && (host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        faults.push(Fault::new(
            at("host"),
            "a host name",
            format_args!("{host:?}"),
        ));
    }
    if check.port == Some(0) {
        faults.push(Fault::new(at("port"), "a port from 1 to 65535", 0));
    }
    let bounds = Duration::from_millis(10)..=Duration::from_secs(3600);
    if !bounds.contains(&check.interval) {
        let found = humantime::format_duration(check.interval);
        faults.push(Fault::new(
            at("interval"),
            "an interval from 10ms to 1h",
            found,
        ));
    }
    if check.timeout.is_zero() || check.timeout > check.interval {
        let found = humantime::format_duration(check.timeout);
        faults.push(Fault::new(
            at("timeout"),
            "a timeout above 0, at most the interval",
            found,
        ));
    }
    for (key, value) in [("rise", check.rise), ("fall", check.fall)] {
        if value == 0 {
            faults.push(Fault::new(at(key), "a number from 1", 0));
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
                "protocol = \"udp\"",
                "c.toml:13:12: expected \"tcp\"",
            ),
            ("port = 80", "port = 0", "c.toml:14:8: expected a port"),
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
            ("flags = [", "forwarding = \"nat\"\nflags = [", "found nat"),
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
