//! What is wrong with a real server. Pure: the file, the kernel and the ledger in, findings out.
//!
//! Whether this host answers ARP is computed from its settings. It cannot be tried from here: a
//! question that a host sends does not come back in to itself.

use std::fmt;

use isopath_api::declare::Forwarding;
use isopath_api::ids::Vip;
use isopath_api::real_server::{RealServerFile, RealServerVip};
use serde::Serialize;

use super::ledger::Ledger;
use super::observed::{ARP_ANNOUNCE, Interface, Observed, STRICT, Setting, Transport, answers_arp};
use super::step::dotted;
use super::wanted::{Device, Wanted, carrier, room};

/// What is wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub code: Code,
    /// Where: an interface, a sysctl, a socket.
    pub at: String,
    /// The VIP that suffers; nothing where all do.
    pub vip: Option<Vip>,
    /// How it has to be.
    pub expected: String,
    /// How it is.
    pub found: String,
    /// What to do.
    pub remedy: String,
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The file names an interface that is not there, or not what it has to be.
    WrongInterface,
    /// A VIP is not where it has to be.
    VipMissing,
    /// A VIP is somewhere else, too.
    VipElsewhere,
    /// A VIP brings a whole network with it.
    VipWithNetwork,
    /// The host answers ARP for a VIP, and takes its packets past the directors.
    VipAnswersArp,
    /// The host asks with a VIP as the sender, and so tells everybody that it has it.
    VipInArpRequests,
    /// The kernel has nothing that takes packets out of the tunnel.
    ModuleMissing,
    /// An interface is down.
    InterfaceDown,
    /// Packets of clients are dropped for where they came in.
    RpFilterStrict,
    /// GUE packets are not taken.
    GuePortClosed,
    /// Clients are asked for segments that the tunnel has no room for.
    MssTooLarge,
    /// Nobody listens.
    NotListening,
    /// Replies do not go back through the director.
    WrongGateway,
    /// Something was changed after `up` had set it.
    ChangedSinceUp,
    /// Something of an earlier file or an earlier run is still there.
    Leftover,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongInterface => "wrong-interface",
            Self::VipMissing => "vip-missing",
            Self::VipElsewhere => "vip-elsewhere",
            Self::VipWithNetwork => "vip-with-network",
            Self::VipAnswersArp => "vip-answers-arp",
            Self::VipInArpRequests => "vip-in-arp-requests",
            Self::ModuleMissing => "module-missing",
            Self::InterfaceDown => "interface-down",
            Self::RpFilterStrict => "rp-filter-strict",
            Self::GuePortClosed => "gue-port-closed",
            Self::MssTooLarge => "mss-too-large",
            Self::NotListening => "not-listening",
            Self::WrongGateway => "wrong-gateway",
            Self::ChangedSinceUp => "changed-since-up",
            Self::Leftover => "leftover",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            at,
            expected,
            found,
            remedy,
            ..
        } = self;
        write!(
            f,
            "{code}: {at}: expected {expected}, found {found}; {remedy}"
        )
    }
}

const UP: &str = "run `isopath-agent real-server up`";

/// What makes the file impossible on this host; with any of it nothing is set up.
pub(super) fn refusals(file: &RealServerFile, observed: &Observed) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut refuse = |name: &str, expected: &str, found: String, key: &str| {
        findings.push(Finding {
            code: Code::WrongInterface,
            at: format!("interface {name}"),
            vip: None,
            expected: expected.to_owned(),
            found,
            remedy: format!("correct {key} in the file"),
        });
    };
    for name in &file.real_server.ingress {
        if !observed.interfaces.contains_key(name) {
            let expected = "the interface that the directors' packets come in over";
            refuse(name, expected, "no such interface".to_owned(), "ingress");
        }
    }
    for vip in &file.vip {
        let Some((name, device)) = carrier(file, vip) else {
            continue;
        };
        let Some(interface) = observed.interfaces.get(&name) else {
            continue;
        };
        if interface.kind.as_deref() != device.kind() {
            let expected = format!("kind {}", device.kind().unwrap_or("loopback"));
            let found = interface.kind.as_deref().unwrap_or("none");
            refuse(&name, &expected, format!("kind {found}"), "vip_interface");
        }
    }
    findings.dedup();
    findings
}

/// Everything that is wrong.
pub(super) fn audit(file: &RealServerFile, observed: &Observed, ledger: &Ledger) -> Vec<Finding> {
    let wanted = Wanted::new(file, observed);
    let mut findings = refusals(file, observed);
    for vip in &file.vip {
        audit_vip(vip, &wanted, observed, &mut findings);
        audit_arp(vip, observed, &mut findings);
        audit_sockets(vip, observed, &mut findings);
    }
    audit_devices(&wanted, observed, &mut findings);
    audit_ledger(&wanted, observed, ledger, &mut findings);
    findings
}

fn audit_vip(
    vip: &RealServerVip,
    wanted: &Wanted,
    observed: &Observed,
    findings: &mut Vec<Finding>,
) {
    let address = vip.address;
    let mut find = |code, at: String, expected: String, found: String, remedy: String| {
        findings.push(Finding {
            code,
            at,
            vip: Some(address),
            expected,
            found,
            remedy,
        });
    };
    let carrier = wanted.vips.get(&address);
    if let Some(name) = carrier
        && !observed.carries(name, address)
    {
        let (expected, found) = (format!("{address}/32"), "no such address".to_owned());
        let at = format!("interface {name}");
        find(Code::VipMissing, at, expected, found, UP.to_owned());
    }
    for (name, interface) in &observed.interfaces {
        for on in interface
            .addresses
            .iter()
            .filter(|it| it.address == address.0)
        {
            let found = format!("{}/{}", on.address, on.length);
            let remedy = format!("`ip address delete {found} dev {name}`");
            let at = format!("interface {name}");
            if carrier != Some(name) {
                let expected = format!(
                    "{address} on {} alone",
                    carrier.map_or("no interface", |it| it)
                );
                find(Code::VipElsewhere, at, expected, found, remedy);
            } else if on.length != 32 {
                let expected = format!("{address}/32");
                find(Code::VipWithNetwork, at, expected, found, remedy);
            }
        }
    }
    if let Some(gateway) = vip.gateway
        && !observed.gateways.contains(&gateway)
    {
        let all: Vec<_> = observed.gateways.iter().map(ToString::to_string).collect();
        let found = if all.is_empty() {
            "no default route".to_owned()
        } else {
            all.join(", ")
        };
        let remedy = format!("`ip route replace default via {gateway}`");
        let at = "default route".to_owned();
        find(Code::WrongGateway, at, gateway.to_string(), found, remedy);
    }
    if vip.forwarding == Forwarding::Tun {
        let most = wanted.mss.get(&address).copied().unwrap_or_default();
        let set = observed.mss.get(&address).copied();
        let at = "nf_tables table isopath-real-server".to_owned();
        if set != Some(most) {
            let expected = format!("the MSS of SYNs from {address} lowered to {most}");
            let found = set.map_or("no rule".to_owned(), |it| it.to_string());
            find(Code::MssTooLarge, at, expected, found, UP.to_owned());
        } else if let Some(room) = smallest_room(vip, wanted, observed)
            && most > room
        {
            let expected = format!("at most {room}, which is what the tunnel has room for");
            let remedy = "lower mss in the file".to_owned();
            find(Code::MssTooLarge, at, expected, most.to_string(), remedy);
        }
    }
}

fn smallest_room(vip: &RealServerVip, wanted: &Wanted, observed: &Observed) -> Option<u16> {
    let ingress = wanted.ingress.iter();
    let interfaces = ingress.filter_map(|name| observed.interfaces.get(name));
    let rooms = interfaces.map(|it| room(it.mtu, vip.tunnel()));
    rooms.min()
}

/// The classic: whatever has the VIP must not be heard to have it.
fn audit_arp(vip: &RealServerVip, observed: &Observed, findings: &mut Vec<Finding>) {
    let address = vip.address;
    let host_scope = |interface: &Interface| {
        let mut on = interface
            .addresses
            .iter()
            .filter(|it| it.address == address.0);
        on.next().map(|it| it.host_scope)
    };
    let scopes: Vec<bool> = observed
        .interfaces
        .values()
        .filter_map(host_scope)
        .collect();
    if scopes.is_empty() {
        return;
    }
    let in_host_scope = scopes.iter().all(|it| *it);
    let speaking = observed.speaking_arp().filter(|(_, it)| it.up);
    for (name, interface) in speaking {
        let here = host_scope(interface).is_some();
        let ignore = observed.effective(Setting::ArpIgnore, interface);
        if answers_arp(ignore, !here, in_host_scope) {
            let remedy = if here {
                format!(
                    "`ip address delete {address} dev {name}`: an interface answers for its own addresses"
                )
            } else {
                format!("{UP}, or `sysctl -w net.ipv4.conf.all.arp_ignore=1`")
            };
            findings.push(Finding {
                code: Code::VipAnswersArp,
                at: format!("interface {name}"),
                vip: Some(address),
                expected: format!("no answer to ARP for VIP {address} (arp_ignore 1, 2 or 8, and the VIP elsewhere)"),
                found: format!("an answer: {}", setting(observed, Setting::ArpIgnore, name, interface)),
                remedy,
            });
        }
        if observed.effective(Setting::ArpAnnounce, interface) != ARP_ANNOUNCE {
            findings.push(Finding {
                code: Code::VipInArpRequests,
                at: format!("interface {name}"),
                vip: Some(address),
                expected: format!("no ARP request from VIP {address} (arp_announce 2)"),
                found: setting(observed, Setting::ArpAnnounce, name, interface),
                remedy: format!("{UP}, or `sysctl -w net.ipv4.conf.all.arp_announce=2`"),
            });
        }
    }
}

/// A setting with the two values of which the greater counts.
fn setting(observed: &Observed, which: Setting, name: &str, interface: &Interface) -> String {
    format!(
        "{} {} in effect (all {}, {name} {})",
        which.name(),
        observed.effective(which, interface),
        observed.all.value(which),
        interface.conf.value(which),
    )
}

fn audit_sockets(vip: &RealServerVip, observed: &Observed, findings: &mut Vec<Finding>) {
    // The director has rewritten the address by then, to one that the file does not know.
    let rewritten = vip.forwarding == Forwarding::Nat;
    let tcp = vip.ports.iter().map(|port| (Transport::Tcp, "tcp", *port));
    let udp = vip
        .udp_ports
        .iter()
        .map(|port| (Transport::Udp, "udp", *port));
    for (transport, name, port) in tcp.chain(udp) {
        let listens = observed.listening.iter().any(|it| {
            let any = it.address.is_unspecified();
            let here = any || it.address == vip.address.0 || rewritten && !it.address.is_loopback();
            it.transport == transport && it.port == port && here
        });
        if !listens {
            let address = vip.address;
            findings.push(Finding {
                code: Code::NotListening,
                at: format!("{name} {address}:{port}"),
                vip: Some(address),
                expected: format!("a socket of {address}:{port} or 0.0.0.0:{port}"),
                found: "none".to_owned(),
                remedy: "start the service, or have it listen there".to_owned(),
            });
        }
    }
}

fn audit_devices(wanted: &Wanted, observed: &Observed, findings: &mut Vec<Finding>) {
    let mut find = |code, at: String, expected: &str, found: String, remedy: String| {
        findings.push(Finding {
            code,
            at,
            vip: None,
            expected: expected.to_owned(),
            found,
            remedy,
        });
    };
    for (name, device) in &wanted.devices {
        let at = format!("interface {name}");
        match observed.interfaces.get(name) {
            None if *device == Device::Dummy => {
                let found = "no such interface".to_owned();
                find(
                    Code::VipMissing,
                    at,
                    "a dummy interface",
                    found,
                    UP.to_owned(),
                );
            }
            None => {
                let module = device.module();
                let remedy = format!("{UP}, which loads {module}");
                let found = format!("no such interface: module {module} is not loaded");
                find(
                    Code::ModuleMissing,
                    at,
                    "what takes packets out of the tunnel",
                    found,
                    remedy,
                );
            }
            Some(interface) if !interface.up => {
                find(
                    Code::InterfaceDown,
                    at,
                    "up",
                    "down".to_owned(),
                    UP.to_owned(),
                );
            }
            Some(_) => {}
        }
    }
    if wanted.vips.is_empty() {
        return;
    }
    for name in wanted.tunnels().chain(&wanted.ingress) {
        if let Some(interface) = observed.interfaces.get(name)
            && observed.effective(Setting::RpFilter, interface) == STRICT
        {
            let found = setting(observed, Setting::RpFilter, name, interface);
            let remedy = format!(
                "{UP}, or `sysctl -w net.ipv4.conf.{}.rp_filter=2`",
                dotted(name)
            );
            let expected = "rp_filter 0 or 2 in effect";
            find(
                Code::RpFilterStrict,
                format!("interface {name}"),
                expected,
                found,
                remedy,
            );
        }
    }
    for port in wanted.ports.difference(&observed.ports) {
        let at = format!("UDP port {port}");
        let found = "a port that is not GUE's, or no module fou".to_owned();
        find(
            Code::GuePortClosed,
            at,
            "GUE packets taken",
            found,
            UP.to_owned(),
        );
    }
}

fn audit_ledger(
    wanted: &Wanted,
    observed: &Observed,
    ledger: &Ledger,
    findings: &mut Vec<Finding>,
) {
    let mut find = |code, at: String, expected: String, found: String, remedy: String| {
        findings.push(Finding {
            code,
            at,
            vip: None,
            expected,
            found,
            remedy,
        });
    };
    if ledger.place != observed.place {
        return;
    }
    for sysctl in &ledger.sysctls {
        let found = observed.sysctl(&sysctl.key);
        if found != Some(sysctl.set)
            && let Some(found) = found
        {
            let expected = format!("{}, as `up` has set it", sysctl.set);
            let remedy = format!("`down` will not touch it; {UP} if it was a mistake");
            let at = dotted(&sysctl.key);
            find(
                Code::ChangedSinceUp,
                at,
                expected,
                found.to_string(),
                remedy,
            );
        }
    }
    for placed in &ledger.vips {
        let (name, vip) = (&placed.interface, placed.vip);
        if wanted.vips.get(&vip) != Some(name) && observed.carries(name, vip) {
            let expected = format!("no {vip}, which the file no longer has there");
            let at = format!("interface {name}");
            find(
                Code::Leftover,
                at,
                expected,
                format!("{vip}/32"),
                UP.to_owned(),
            );
        }
    }
    for (vip, mss) in &observed.mss {
        if !wanted.mss.contains_key(vip) {
            let at = "nf_tables table isopath-real-server".to_owned();
            let expected = format!("no rule for {vip}, which the file does not have");
            let remedy = format!("{UP}, or `nft delete table ip isopath-real-server`");
            find(
                Code::Leftover,
                at,
                expected,
                format!("an MSS of {mss}"),
                remedy,
            );
        }
    }
    for port in ledger.ports.intersection(&observed.ports) {
        if !wanted.ports.contains(port) {
            let expected = "no GUE packets taken".to_owned();
            let at = format!("UDP port {port}");
            find(
                Code::Leftover,
                at,
                expected,
                "they are".to_owned(),
                UP.to_owned(),
            );
        }
    }
}

#[cfg(test)]
mod tests;
