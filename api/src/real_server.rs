//! The real server's file: what a host needs to be a real server of DR, TUN or NAT services.
//!
//! It stands on its own, because a real server runs no daemon of ours: the agent's
//! `real-server` command reads it, sets the host up or takes that away again, and ends.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::config::is_interface_name;
use crate::declare::{Forwarding, Tunnel, TunnelChecksum, TunnelKind};
use crate::fault::{Fault, FileFaults, parse_toml};
use crate::ids::Vip;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealServerFile {
    /// The host itself.
    #[serde(default)]
    pub real_server: RealServerConfig,
    /// The VIPs that it serves, at least one.
    #[serde(default)]
    pub vip: Vec<RealServerVip>,
}

/// `[real_server]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealServerConfig {
    /// Where it is written down what was there before.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// What carries the VIPs of `dr`: `lo`, or a dummy interface, which is made where there is
    /// none. Those of `tun` are on the tunnel's own interface.
    #[serde(default = "default_vip_interface")]
    pub vip_interface: String,
    /// The interfaces that the directors' packets come in over; when empty, all that answer ARP
    /// and have an IPv4 address.
    #[serde(default)]
    pub ingress: Vec<String>,
}

impl Default for RealServerConfig {
    fn default() -> Self {
        Self {
            state_dir: default_state_dir(),
            vip_interface: default_vip_interface(),
            ingress: Vec::new(),
        }
    }
}

fn default_state_dir() -> PathBuf {
    "/var/lib/isopath".into()
}

fn default_vip_interface() -> String {
    LOOPBACK.to_owned()
}

/// The interface that is never made, raised or taken away.
pub const LOOPBACK: &str = "lo";

/// `[[vip]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealServerVip {
    /// The address.
    pub address: Vip,
    /// How the directors forward to this host.
    pub forwarding: Forwarding,
    /// What the directors put the packets into; only with `tun`, where it is IPIP when absent.
    #[serde(default)]
    pub tunnel: Option<Tunnel>,
    /// The largest TCP segment that clients are asked for (536 to 65495); only with `tun`, where
    /// it is what the tunnel leaves of the ingress interfaces' MTU when absent.
    #[serde(default)]
    pub mss: Option<u16>,
    /// The director's address that the replies go back through; only and always with `nat`.
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// The TCP ports that somebody must listen on.
    #[serde(default)]
    pub ports: BTreeSet<u16>,
    /// The same for UDP.
    #[serde(default)]
    pub udp_ports: BTreeSet<u16>,
}

/// The smallest segment that every host takes (RFC 9293 §3.7.1).
const SMALLEST_MSS: u16 = 536;

/// The largest one that fits into an IPv4 packet.
const LARGEST_MSS: u16 = 65535 - 40;

impl RealServerFile {
    /// Reads the text of the file called `file`.
    ///
    /// # Errors
    /// Every fault with its line and column.
    pub fn parse(file: &str, text: &str) -> Result<Self, FileFaults> {
        parse_toml(file, text, Self::validate)
    }

    fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.real_server.validate(&mut faults);
        if self.vip.is_empty() {
            faults.push(Fault::new("", "at least one [[vip]]", "none"));
        }
        for (index, vip) in self.vip.iter().enumerate() {
            vip.validate(index, &mut faults);
            let earlier = &self.vip[..index];
            if earlier.iter().any(|other| other.address == vip.address) {
                let at = format!("/vip/{index}/address");
                let found = format_args!("{} again", vip.address);
                faults.push(Fault::new(at, "each VIP once", found));
            }
        }
        faults
    }
}

impl RealServerConfig {
    fn validate(&self, faults: &mut Vec<Fault>) {
        if !is_interface_name(&self.vip_interface) {
            let expected = "\"lo\" or the name of a dummy interface, of 1 to 15 characters";
            let found = format_args!("{:?}", self.vip_interface);
            faults.push(Fault::new("/real_server/vip_interface", expected, found));
        }
        for (index, name) in self.ingress.iter().enumerate() {
            let at = format!("/real_server/ingress/{index}");
            if !is_interface_name(name) {
                let expected = "an interface name of 1 to 15 characters";
                faults.push(Fault::new(at, expected, format_args!("{name:?}")));
            } else if *name == self.vip_interface || name == LOOPBACK {
                let expected = "an interface that packets come in over";
                let found = format_args!("{name:?}, which carries addresses only");
                faults.push(Fault::new(at, expected, found));
            }
        }
    }
}

impl RealServerVip {
    fn validate(&self, index: usize, faults: &mut Vec<Fault>) {
        let at = |key: &str| format!("/vip/{index}/{key}");
        let mut only = |key, present, method: Forwarding| {
            if present && self.forwarding != method {
                let expected = format!("no {key} but with forwarding \"{method}\"");
                let found = format_args!("forwarding \"{}\"", self.forwarding);
                faults.push(Fault::new(at(key), expected, found));
            }
        };
        only("tunnel", self.tunnel.is_some(), Forwarding::Tun);
        only("mss", self.mss.is_some(), Forwarding::Tun);
        only("gateway", self.gateway.is_some(), Forwarding::Nat);
        if self.forwarding == Forwarding::Nat && self.gateway.is_none() {
            let expected = "gateway, the director's address that replies go back through";
            faults.push(Fault::new(at("gateway"), expected, "none"));
        }
        if let Some(mss) = self.mss
            && !(SMALLEST_MSS..=LARGEST_MSS).contains(&mss)
        {
            let expected = format_args!("a number from {SMALLEST_MSS} to {LARGEST_MSS}");
            faults.push(Fault::new(at("mss"), expected, mss));
        }
        if self.forwarding == Forwarding::Tun {
            validate_tunnel(self.tunnel(), &at("tunnel"), faults);
        }
        for (key, ports) in [("ports", &self.ports), ("udp_ports", &self.udp_ports)] {
            if ports.contains(&0) {
                faults.push(Fault::new(at(key), "ports from 1 to 65535", 0));
            }
        }
    }

    /// What the directors put the packets into.
    pub fn tunnel(&self) -> Tunnel {
        self.tunnel.unwrap_or_default()
    }
}

fn validate_tunnel(tunnel: Tunnel, at: &str, faults: &mut Vec<Fault>) {
    let Tunnel {
        kind,
        port,
        checksum,
    } = tunnel;
    match (kind, port) {
        (TunnelKind::Gue, None | Some(0)) => {
            let expected = "the UDP port that the directors send GUE packets to";
            let found = if port.is_some() { "0" } else { "none" };
            faults.push(Fault::new(format!("{at}/port"), expected, found));
        }
        (TunnelKind::Gue, Some(_)) | (TunnelKind::Ipip | TunnelKind::Gre, None) => {}
        (TunnelKind::Ipip | TunnelKind::Gre, Some(port)) => {
            let expected = "no port but with type \"gue\"";
            faults.push(Fault::new(format!("{at}/port"), expected, port));
        }
    }
    let place = format!("{at}/checksum");
    match (kind, checksum) {
        (TunnelKind::Gue, _) | (_, TunnelChecksum::None) => {}
        (TunnelKind::Ipip, TunnelChecksum::Csum | TunnelChecksum::Remcsum) => {
            let expected = "no checksum with type \"ipip\", which has none";
            faults.push(Fault::new(place, expected, format_args!("{checksum:?}")));
        }
        // The kernel's gre0 drops a packet with a checksum and cannot be told otherwise
        // (`ip_tunnel_rcv`, `ip_tunnel_changelink`).
        (TunnelKind::Gre, TunnelChecksum::Csum | TunnelChecksum::Remcsum) => {
            let expected = "checksum \"none\" with type \"gre\": gre0 takes no other packets";
            faults.push(Fault::new(place, expected, format_args!("{checksum:?}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[real_server]
vip_interface = "lo"
ingress = ["eth0"]
[[vip]]
address = "192.168.101.100"
forwarding = "dr"
ports = [80]
[[vip]]
address = "192.168.101.101"
forwarding = "tun"
tunnel = { type = "gue", port = 6080 }
mss = 1400
[[vip]]
address = "192.168.101.102"
forwarding = "nat"
gateway = "192.168.101.8"
"#;

    #[test]
    fn every_key_is_read_and_the_shortest_file_is_a_vip_and_its_method() {
        let file = RealServerFile::parse("rs.toml", GOOD).unwrap();
        assert_eq!(file.real_server.ingress, ["eth0"]);
        assert_eq!(file.vip[0].ports, [80].into());
        assert_eq!(file.vip[1].tunnel().port, Some(6080));
        let short = "[[vip]]\naddress = \"10.0.0.1\"\nforwarding = \"tun\"\n";
        let file = RealServerFile::parse("rs.toml", short).unwrap();
        assert_eq!(file.real_server, RealServerConfig::default());
        assert_eq!(file.vip[0].tunnel(), Tunnel::default());
    }

    /// `GOOD` with one line changed: the line, what it becomes, and the fault with its place.
    const BAD: [(&str, &str, &str); 12] = [
        ("ports = [80]", "port = 80", "8:1: unknown field `port`"),
        ("ports = [80]", "ports = [0]", "8:9: expected ports from 1"),
        (
            "\"192.168.101.101\"",
            "\"192.168.101.100\"",
            "10:11: expected each VIP once",
        ),
        ("\"lo\"", "\"\"", "3:17: expected \"lo\" or the name"),
        ("[\"eth0\"]", "[\"lo\"]", "4:12: expected an interface"),
        ("\"dr\"", "\"drr\"", "7:14: unknown variant `drr`"),
        ("ports = [80]", "mss = 1400", "8:7: expected no mss but"),
        (", port = 6080", "", "12:10: expected the UDP port"),
        ("\"gue\"", "\"gre\"", "12:33: expected no port but"),
        (
            "\"gue\", port = 6080",
            "\"gre\", checksum = \"csum\"",
            "12:37: expected checksum \"none\"",
        ),
        (
            "mss = 1400",
            "mss = 100",
            "13:7: expected a number from 536",
        ),
        (
            "gateway = \"192.168.101.8\"",
            "",
            "14:1: expected gateway, the director's address",
        ),
    ];

    #[test]
    fn every_fault_is_named_with_its_place() {
        for (line, replacement, expected) in BAD {
            assert!(GOOD.contains(line), "{line:?} is not in the good file");
            let text = GOOD.replacen(line, replacement, 1);
            let faults = RealServerFile::parse("rs.toml", &text).unwrap_err();
            let found = faults.to_string();
            assert!(
                found.starts_with(&format!("rs.toml:{expected}")),
                "{replacement:?}: {found}"
            );
        }
    }

    #[test]
    fn a_file_without_vips_is_refused() {
        let faults = RealServerFile::parse("rs.toml", "[real_server]\n").unwrap_err();
        assert_eq!(
            faults.to_string(),
            "rs.toml:1:1: expected at least one [[vip]], found none"
        );
    }
}
