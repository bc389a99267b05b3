//! The rules of services, their real servers and their checks.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::super::{
    CheckKind, CheckSpec, Forwarding, LONGEST_HOST, LONGEST_PATH, SchedulerFlag, ServiceSpec,
    TunnelChecksum, TunnelKind, VipSpec,
};
use super::{WHOLE_SECONDS, whole_seconds};
use crate::fault::Fault;
use crate::ids::{Packets, Protocol, Vip};

/// Everything wrong with a list of services, located under `/service`.
pub fn validate_services(vips: &[VipSpec], services: &[impl Borrow<ServiceSpec>]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let declared: HashSet<Vip> = vips.iter().map(|vip| vip.address).collect();
    let mut first_of = HashMap::with_capacity(services.len());
    let mut of_vip: HashMap<Vip, usize> = HashMap::new();
    for (index, service) in services.iter().map(Borrow::borrow).enumerate() {
        *of_vip.entry(service.vip).or_default() += 1;
        let at = |key: &str| format!("/service/{index}/{key}");
        if !declared.contains(&service.vip) {
            let expected = "a VIP that a [[vip]] declares";
            faults.push(Fault::new(at("vip"), expected, service.vip));
        }
        identity(&mut faults, index, service, &mut first_of);
        flags(&mut faults, index, service);
        tunnel(&mut faults, index, service);
        if let Some(persistence) = service.persistence
            && !whole_seconds(persistence.timeout)
        {
            let found = humantime::format_duration(persistence.timeout);
            faults.push(Fault::new(at("persistence/timeout"), WHOLE_SECONDS, found));
        }
        if service.quorum == 0 {
            faults.push(Fault::new(at("quorum"), "a quorum of at least 1", 0));
        }
        if usize::from(service.quorum) > service.real_server.len() {
            let count = service.real_server.len();
            let expected = format!("at most the {count} real servers listed");
            faults.push(Fault::new(at("quorum"), expected, service.quorum));
        }
        real_servers(&mut faults, index, service, &declared);
        check(&mut faults, index, service);
    }
    for (index, vip) in vips.iter().enumerate() {
        let count = of_vip.get(&vip.address).copied().unwrap_or(0);
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

/// What no two services share. The kernel knows a mark's service by its mark alone, whatever the
/// VIP.
type Shared = (Packets, Option<Vip>);

/// A service has either a protocol and a port, or a mark, and shares it with no other.
fn identity(
    faults: &mut Vec<Fault>,
    index: usize,
    service: &ServiceSpec,
    first_of: &mut HashMap<Shared, usize>,
) {
    let at = |key: &str| format!("/service/{index}/{key}");
    match service.fwmark {
        Some(mark) => {
            if let Some(port) = service.port {
                let expected = "no port beside fwmark, which takes packets to any port";
                faults.push(Fault::new(at("port"), expected, port));
            }
            if let Some(protocol) = service.protocol {
                let expected = "no protocol beside fwmark, which takes packets of any";
                faults.push(Fault::new(at("protocol"), expected, protocol));
            }
            if mark == 0 {
                faults.push(Fault::new(at("fwmark"), "a mark from 1", 0));
            }
        }
        None => {
            for (key, missing) in [
                ("protocol", service.protocol.is_none()),
                ("port", service.port.is_none()),
            ] {
                if missing {
                    let expected = format!("a {key}, or an fwmark in place of protocol and port");
                    faults.push(Fault::new(at(key), expected, "none"));
                }
            }
            if service.port == Some(0) {
                faults.push(Fault::new(at("port"), "a port from 1 to 65535", 0));
            }
        }
    }
    let id = service.id();
    let shared = match id.packets {
        Packets::Marked(_) => (id.packets, None),
        Packets::To { .. } => (id.packets, Some(id.vip)),
    };
    let first = *first_of.entry(shared).or_insert(index);
    if first != index {
        let key = if service.fwmark.is_some() {
            "fwmark"
        } else {
            "port"
        };
        let found = format!("{id} again, first declared at /service/{first}");
        faults.push(Fault::new(at(key), "a service of its own", found));
    }
}

fn flags(faults: &mut Vec<Fault>, index: usize, service: &ServiceSpec) {
    let at = format!("/service/{index}/flags");
    for flag in service.flags.iter().flatten().copied() {
        if let Some(scheduler) = flag.scheduler()
            && scheduler != service.scheduler
        {
            let expected = format!("scheduler \"{scheduler}\" with {flag}");
            let found = format!("{flag} with scheduler {}", service.scheduler);
            faults.push(Fault::new(at.clone(), expected, found));
        }
        let persistent = service.persistence.is_some();
        match flag {
            SchedulerFlag::MhPort | SchedulerFlag::ShPort if persistent => {
                let expected =
                    format!("no {flag} beside persistence, which keeps a client's ports together");
                faults.push(Fault::new(at.clone(), expected, flag));
            }
            SchedulerFlag::OnePacket if persistent => {
                let expected = "no one-packet beside persistence, which it forgets at once";
                faults.push(Fault::new(at.clone(), expected, flag));
            }
            SchedulerFlag::OnePacket
                if matches!(service.protocol, Some(Protocol::Tcp | Protocol::Sctp)) =>
            {
                let expected = "one-packet with protocol \"udp\" or a fwmark alone";
                let found = format!("{flag} with a protocol that has connections");
                faults.push(Fault::new(at.clone(), expected, found));
            }
            SchedulerFlag::MhPort
            | SchedulerFlag::ShPort
            | SchedulerFlag::OnePacket
            | SchedulerFlag::MhFallback
            | SchedulerFlag::ShFallback => {}
        }
    }
}

fn tunnel(faults: &mut Vec<Fault>, index: usize, service: &ServiceSpec) {
    let Some(tunnel) = service.tunnel else {
        return;
    };
    let at = |key: &str| format!("/service/{index}/tunnel{key}");
    if service.forwarding != Forwarding::Tun {
        let expected = "forwarding \"tun\" with a tunnel";
        faults.push(Fault::new(at(""), expected, service.forwarding));
    }
    match (tunnel.kind, tunnel.port) {
        (TunnelKind::Gue, None) => {
            let expected = "the UDP port that the real servers take GUE packets at";
            faults.push(Fault::new(at("/port"), expected, "none"));
        }
        (_, Some(0)) => faults.push(Fault::new(at("/port"), "a port from 1 to 65535", 0)),
        (TunnelKind::Gue, Some(_)) | (_, None) => {}
        (TunnelKind::Ipip | TunnelKind::Gre, Some(port)) => {
            let expected = "a port with type \"gue\" alone";
            faults.push(Fault::new(at("/port"), expected, port));
        }
    }
    let allowed = match tunnel.kind {
        TunnelKind::Ipip => tunnel.checksum == TunnelChecksum::None,
        TunnelKind::Gre => tunnel.checksum != TunnelChecksum::Remcsum,
        TunnelKind::Gue => true,
    };
    if !allowed {
        let expected = "\"none\" with ipip, \"csum\" with gre and gue, \"remcsum\" with gue";
        let found = format!("\"{}\" with {}", tunnel.checksum, tunnel.kind);
        faults.push(Fault::new(at("/checksum"), expected, found));
    }
}

fn real_servers(faults: &mut Vec<Fault>, index: usize, service: &ServiceSpec, vips: &HashSet<Vip>) {
    let mut seen = HashSet::with_capacity(service.real_server.len());
    for (position, server) in service.real_server.iter().enumerate() {
        let at = |key: &str| format!("/service/{index}/real_server/{position}/{key}");
        let id = service.real_server_id(server);
        if !seen.insert(id) {
            let expected = "a real server of its own";
            faults.push(Fault::new(at("address"), expected, format!("{id} again")));
        }
        if server.address == service.vip.0
            || server.address.is_unspecified()
            || server.address.is_multicast()
            || server.address.is_broadcast()
        {
            let expected = "a real server's own address";
            faults.push(Fault::new(at("address"), expected, server.address));
        }
        if server.address != service.vip.0 && vips.contains(&Vip(server.address)) {
            // The director has every VIP itself: it would send the packets to nobody but itself.
            let expected = "a real server's own address";
            let found = format!("{}, which is a VIP", server.address);
            faults.push(Fault::new(at("address"), expected, found));
        }
        if server.port == Some(0) {
            faults.push(Fault::new(at("port"), "a port from 1 to 65535", 0));
        }
        if service.forwarding != Forwarding::Nat
            && let Some(port) = server
                .port
                .filter(|port| Some(*port) != service.id().port())
        {
            let expected = match service.id().port() {
                Some(port) => format!("the service's port {port}, since only nat translates it"),
                None => "no port, since only nat translates it".to_owned(),
            };
            faults.push(Fault::new(at("port"), expected, port));
        }
        let (upper, lower) = (server.upper_threshold, server.lower_threshold);
        if lower > upper {
            let expected = format!("at most the upper_threshold, {upper}");
            faults.push(Fault::new(at("lower_threshold"), expected, lower));
        }
    }
}

fn check(faults: &mut Vec<Fault>, index: usize, service: &ServiceSpec) {
    let check = &service.check;
    let at = |key: &str| format!("/service/{index}/check/{key}");
    check_keys(faults, index, check);
    if check.kind != CheckKind::None
        && check.port.is_none()
        && service.fwmark.is_some()
        && service.real_server.iter().any(|it| it.port.is_none())
    {
        let expected = "the port to check, since the service has none";
        faults.push(Fault::new(at("port"), expected, "none"));
    }
    if let Some(path) = &check.path
        && (!path.starts_with('/')
            || path.len() > LONGEST_PATH
            || path.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        let found = format!("{path:?}");
        let expected = format_args!("a path such as /healthz, of at most {LONGEST_PATH} bytes");
        faults.push(Fault::new(at("path"), expected, found));
    }
    if let Some(host) = &check.host
        && (!(1..=LONGEST_HOST).contains(&host.len())
            || host.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        faults.push(Fault::new(at("host"), "a host name", format!("{host:?}")));
    }
    if check.port == Some(0) {
        faults.push(Fault::new(at("port"), "a port from 1 to 65535", 0));
    }
    let bounds = Duration::from_millis(10)..=Duration::from_secs(3600);
    if !bounds.contains(&check.interval) {
        let found = humantime::format_duration(check.interval);
        let expected = "an interval from 10ms to 1h";
        faults.push(Fault::new(at("interval"), expected, found));
    }
    if check.timeout.is_zero() || check.timeout > check.interval {
        let found = humantime::format_duration(check.timeout);
        let expected = "a timeout above 0, at most the interval";
        faults.push(Fault::new(at("timeout"), expected, found));
    }
    for (key, value) in [("rise", check.rise), ("fall", check.fall)] {
        if value == 0 {
            faults.push(Fault::new(at(key), "a number from 1", 0));
        }
    }
}

/// A check has only the keys that mean something to its type.
fn check_keys(faults: &mut Vec<Fault>, index: usize, check: &CheckSpec) {
    let at = |key: &str| format!("/service/{index}/check/{key}");
    let connects = match check.kind {
        CheckKind::None => false,
        CheckKind::Tcp | CheckKind::Http | CheckKind::Https => true,
    };
    let asks = match check.kind {
        CheckKind::None | CheckKind::Tcp => false,
        CheckKind::Http | CheckKind::Https => true,
    };
    for (key, present, allowed) in [
        ("port", check.port.is_some(), connects),
        ("path", check.path.is_some(), asks),
        ("host", check.host.is_some(), asks),
        ("status", check.status.is_some(), asks),
    ] {
        if present && !allowed {
            let expected = format!("no {key} in a check of type {}", check.kind);
            faults.push(Fault::new(at(key), expected, format_args!("\"{key}\"")));
        }
    }
    if check.verify && check.kind != CheckKind::Https {
        let expected = "type \"https\" with verify";
        faults.push(Fault::new(at("verify"), expected, check.kind));
    }
}
