//! What the gate makes of what it sees. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use isopath_api::config::Dataplane;
use isopath_api::declare::Forwarding;
use isopath_api::ids::Vip;
use isopath_api::reason::Reason;

use super::interfaces::Interfaces;
use super::mtu;
use super::paths::Path;
use super::prober::Answer;
use crate::dataplane::{ServiceWanted, Wanted};

/// What is the same for as long as the agent runs.
#[derive(Debug, Clone)]
pub struct Place {
    /// The interface that carries the VIPs.
    pub vip_interface: String,
    /// The interfaces that lead to the switches.
    pub uplinks: Vec<String>,
    /// What is programmed.
    pub dataplane: Dataplane,
}

/// What the gate has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) interfaces: Interfaces,
    /// The VIPs that were asked for in ARP, and who answered.
    pub(super) asked: BTreeMap<Vip, Option<Answer>>,
    /// The interfaces where it could not be asked, and why.
    pub(super) unasked: BTreeMap<String, String>,
    /// The ways to the real servers of tunnels.
    pub(super) paths: BTreeMap<Ipv4Addr, Path>,
    /// Why some of this could not be seen.
    pub(super) blind: BTreeSet<String>,
}

/// What the gate says of each VIP, and beside that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What speaks against announcing a VIP for the first time, the weightiest first; a VIP that
    /// has not been looked into is missing.
    pub vips: BTreeMap<Vip, Vec<Reason>>,
    /// What an operator should know and what keeps nothing from being announced.
    pub notices: BTreeSet<Notice>,
}

/// Something that keeps nothing from being announced.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// Its stable code.
    pub code: &'static str,
    /// What is so.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

impl Notice {
    /// Nobody could look whether somebody else answers for a VIP.
    pub const ARP_UNCHECKED: &'static str = "arp-unchecked";
    /// The gate could not read something of the kernel's.
    pub const GATE_BLIND: &'static str = "gate-blind";
    /// A full packet of a client's does not fit into a tunnel.
    pub const TUN_MTU: &'static str = "tun-mtu";
}

/// What speaks against announcing each of the wanted VIPs.
pub(super) fn findings(place: &Place, seen: &Seen, wanted: &Wanted) -> Findings {
    let mut findings = Findings {
        notices: notices(place, seen, wanted),
        ..Findings::default()
    };
    let uplinks = uplinks_down(place, seen);
    for vip in &wanted.vips {
        let Some(answer) = seen.asked.get(vip) else {
            continue;
        };
        let services = wanted.services.values().filter(|it| it.id.vip == *vip);
        let mut reasons: Vec<Reason> = uplinks.iter().cloned().collect();
        if place.dataplane == Dataplane::Ipvs {
            for service in services {
                reasons.extend(servers_cut_off(seen, service));
                reasons.extend(tunnel_too_narrow(seen, service));
            }
        }
        reasons.extend(answer.iter().map(|answer| Reason::VipAnsweredElsewhere {
            interface: answer.interface.clone(),
            mac: answer.mac.to_string(),
        }));
        findings.vips.insert(*vip, reasons);
    }
    findings
}

/// The first uplink, where not one of them carries packets. With one of two down the VIPs are
/// announced over the other.
fn uplinks_down(place: &Place, seen: &Seen) -> Option<Reason> {
    // What cannot be read is not down.
    if seen.interfaces.0.is_empty() {
        return None;
    }
    let runs = |name: &String| seen.interfaces.runs(name);
    let first = place.uplinks.first()?;
    let down = !place.uplinks.iter().any(runs);
    down.then(|| Reason::InterfaceDown {
        interface: first.clone(),
    })
}

/// The interface, where every real server that shall have clients is on one that carries no
/// packets. Where only some are cut off, their checks say so.
fn servers_cut_off(seen: &Seen, service: &ServiceWanted) -> Option<Reason> {
    let mut first = None;
    for server in service.real_servers.iter().filter(|it| it.weight > 0) {
        match seen.interfaces.towards(*server.id.0.ip()) {
            Some((name, interface)) if !interface.running => {
                first.get_or_insert(name);
            }
            Some(_) | None => return None,
        }
    }
    first.map(|name| Reason::InterfaceDown {
        interface: name.to_owned(),
    })
}

/// The narrowest way to a tunnel's real server, where not even [`mtu::LEAST`] bytes fit into it.
fn tunnel_too_narrow(seen: &Seen, service: &ServiceWanted) -> Option<Reason> {
    let overhead = mtu::overhead(service)?;
    let path = ways(seen, service).min_by_key(|path| path.mtu)?;
    let needed = mtu::LEAST + overhead;
    (path.mtu < needed).then(|| Reason::MtuTooSmall {
        interface: path.interface.clone(),
        mtu: path.mtu,
        needed,
    })
}

fn ways<'a>(seen: &'a Seen, service: &ServiceWanted) -> impl Iterator<Item = &'a Path> {
    let servers = service.real_servers.iter();
    servers.filter_map(|server| seen.paths.get(server.id.0.ip()))
}

fn notices(place: &Place, seen: &Seen, wanted: &Wanted) -> BTreeSet<Notice> {
    let mut notices = BTreeSet::new();
    for (interface, why) in &seen.unasked {
        notices.insert(Notice {
            code: Notice::ARP_UNCHECKED,
            text: format!(
                "nobody looks on {interface} whether another host answers for a VIP: {why}"
            ),
            remedy: "let isopath-agent have CAP_NET_RAW and AF_PACKET, as its systemd unit does"
                .to_owned(),
        });
    }
    for what in &seen.blind {
        notices.insert(Notice {
            code: Notice::GATE_BLIND,
            text: what.clone(),
            remedy: "mend what the error names; it is tried again".to_owned(),
        });
    }
    if place.dataplane == Dataplane::Ipvs {
        notices.extend(
            wanted
                .services
                .values()
                .flat_map(|it| tunnel_notices(seen, it)),
        );
    }
    notices
}

/// Where a client's packet of [`mtu::FULL`] bytes does not fit into a tunnel.
fn tunnel_notices(seen: &Seen, service: &ServiceWanted) -> BTreeSet<Notice> {
    let Some(overhead) = mtu::overhead(service) else {
        return BTreeSet::new();
    };
    let notice = |path: &Path| {
        let inner = path.mtu.saturating_sub(overhead);
        (mtu::LEAST..mtu::FULL).contains(&inner).then(|| Notice {
            code: Notice::TUN_MTU,
            text: format!(
                "a tunnel over {} (MTU {}) carries packets of {inner} bytes, clients send up to {}",
                path.interface,
                path.mtu,
                mtu::FULL
            ),
            remedy: format!("clamp the MSS to {} on the real servers", mtu::mss(inner)),
        })
    };
    ways(seen, service).filter_map(notice).collect()
}

/// The real servers' addresses that packets are sent to in tunnels.
pub(super) fn tunnel_ends(wanted: &Wanted) -> BTreeSet<Ipv4Addr> {
    let tunnels = wanted
        .services
        .values()
        .filter(|it| it.forwarding == Forwarding::Tun);
    let servers = tunnels.flat_map(|service| &service.real_servers);
    servers.map(|server| *server.id.0.ip()).collect()
}

#[cfg(test)]
mod tests;
