//! The set of services that is programmed, in the language of each program.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

/// A set of services, the same for all programs: TCP, direct routing, `rr`, no checks. The table
/// of `mh` would cost the kernel more than all else, whoever asks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Set {
    /// How many services.
    pub(super) services: u16,
    /// How many real servers each of them has.
    pub(super) real_servers: u8,
    /// The weight of the last real server of the last service; all others have 1.
    pub(super) last_weight: u32,
}

impl Set {
    /// What the figures are about.
    pub(super) const STOCK: Self = Self {
        services: 1_000,
        real_servers: 20,
        last_weight: 1,
    };

    /// How many services have a VIP in common.
    const PER_VIP: u16 = 100;

    /// The same with another weight of its last real server.
    pub(super) fn with_last_weight(self, last_weight: u32) -> Self {
        Self {
            last_weight,
            ..self
        }
    }

    /// How many real servers all services have together.
    pub(super) fn all_real_servers(self) -> usize {
        usize::from(self.services) * usize::from(self.real_servers)
    }

    fn vip(index: u16) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 99, 0, 1).to_bits() + u32::from(index))
    }

    /// The address of a service: ascending, so that every program adds the last one last.
    fn service(index: u16) -> SocketAddrV4 {
        let port = 1_000 + index % Self::PER_VIP;
        SocketAddrV4::new(Self::vip(index / Self::PER_VIP), port)
    }

    fn real_server(service: u16, server: u8) -> SocketAddrV4 {
        let network = Ipv4Addr::new(10, 128, 0, 0).to_bits();
        let host = u32::from(service) * 256 + u32::from(server) + 1;
        SocketAddrV4::new(
            Ipv4Addr::from_bits(network + host),
            Self::service(service).port(),
        )
    }

    fn weight(self, service: u16, server: u8) -> u32 {
        let is_last = service + 1 == self.services && server + 1 == self.real_servers;
        if is_last { self.last_weight } else { 1 }
    }

    /// The service that is added last.
    pub(super) fn last_service(self) -> SocketAddrV4 {
        Self::service(self.services.saturating_sub(1))
    }

    /// The real server whose weight changes.
    pub(super) fn last_real_server(self) -> SocketAddrV4 {
        Self::real_server(
            self.services.saturating_sub(1),
            self.real_servers.saturating_sub(1),
        )
    }

    /// What `ipvsadm -R` reads.
    pub(super) fn ipvsadm(self) -> String {
        let mut text = String::new();
        for service in 0..self.services {
            let vip = Self::service(service);
            line(&mut text, format_args!("-A -t {vip} -s rr"));
            for server in 0..self.real_servers {
                let address = Self::real_server(service, server);
                let weight = self.weight(service, server);
                line(
                    &mut text,
                    format_args!("-a -t {vip} -r {address} -g -w {weight}"),
                );
            }
        }
        text
    }

    /// What keepalived reads: without checkers it takes every real server for alive.
    pub(super) fn keepalived(self) -> String {
        let mut text = "global_defs {\n  router_id bench\n}\n".to_owned();
        for service in 0..self.services {
            let (vip, port) = parts(Self::service(service));
            line(
                &mut text,
                format_args!(
                    "virtual_server {vip} {port} {{\n  lvs_sched rr\n  lvs_method DR\n  protocol TCP"
                ),
            );
            for server in 0..self.real_servers {
                let (address, port) = parts(Self::real_server(service, server));
                let weight = self.weight(service, server);
                line(
                    &mut text,
                    format_args!("  real_server {address} {port} {{\n    weight {weight}\n  }}"),
                );
            }
            text.push_str("}\n");
        }
        text
    }

    /// The director's file, with everything that the agent keeps in `directory`.
    pub(super) fn director_file(self, directory: &Path) -> String {
        let directory = directory.display();
        let mut text = format!(
            "[director]
name = \"d1\"
router_id = \"10.0.1.2\"
state_dir = \"{directory}/state\"
socket = \"{directory}/agent.sock\"
speaker_socket = \"{directory}/speaker.sock\"
metrics = \"{METRICS}\"
dataplane = \"ipvs\"

[ospf]
[[ospf.interface]]
name = \"eth1\"
network = \"point-to-point\"
"
        );
        for index in 0..self.services.div_ceil(Self::PER_VIP) {
            let vip = Self::vip(index);
            line(&mut text, format_args!("[[vip]]\naddress = \"{vip}/32\"\n"));
        }
        for service in 0..self.services {
            let (vip, port) = parts(Self::service(service));
            line(
                &mut text,
                format_args!(
                    "[[service]]\nvip = \"{vip}\"\nprotocol = \"tcp\"\nport = {port}\n\
                     scheduler = \"rr\"\nforwarding = \"dr\"\ncheck = {{ type = \"none\" }}"
                ),
            );
            for server in 0..self.real_servers {
                let address = Self::real_server(service, server).ip().to_owned();
                let weight = self.weight(service, server);
                line(
                    &mut text,
                    format_args!(
                        "[[service.real_server]]\naddress = \"{address}\"\nweight = {weight}"
                    ),
                );
            }
            text.push('\n');
        }
        text
    }
}

/// Where the agent tells its metrics, in its own namespace.
pub(super) const METRICS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9477);

fn parts(address: SocketAddrV4) -> (Ipv4Addr, u16) {
    (*address.ip(), address.port())
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use isopath_api::config::DirectorFile;

    use super::*;

    const SMALL: Set = Set {
        services: 250,
        real_servers: 3,
        last_weight: 2,
    };

    #[test]
    fn every_program_is_told_the_same_set() {
        let ipvsadm = SMALL.ipvsadm();
        let keepalived = SMALL.keepalived();
        let file = SMALL.director_file(Path::new("/run/x"));
        let file = DirectorFile::parse("bench.toml", &file).unwrap();
        let starting = |text: &str, start: &str| {
            let lines = text.lines().map(str::trim_start);
            lines.filter(|line| line.starts_with(start)).count()
        };
        assert_eq!(starting(&ipvsadm, "-A "), 250);
        assert_eq!(starting(&keepalived, "virtual_server "), 250);
        assert_eq!(file.service.len(), 250);
        assert_eq!(starting(&ipvsadm, "-a "), 750);
        assert_eq!(starting(&keepalived, "real_server "), 750);
        let servers = file.service.iter().map(|it| it.real_server.len());
        assert_eq!(servers.sum::<usize>(), SMALL.all_real_servers());
    }

    #[test]
    fn only_the_last_real_server_has_another_weight_and_the_last_service_has_it() {
        let file = SMALL.director_file(Path::new("/run/x"));
        let file = DirectorFile::parse("bench.toml", &file).unwrap();
        let services = file.service.iter();
        let mut heavy = services.flat_map(|service| {
            let servers = service.real_server.iter().filter(|it| it.weight == 2);
            servers.map(move |server| (service.vip.0, server.address))
        });
        let (service, server) = (SMALL.last_service(), SMALL.last_real_server());
        assert_eq!(heavy.next(), Some((*service.ip(), *server.ip())));
        assert_eq!(heavy.next(), None);
        let wanted = format!("-a -t {service} -r {server} -g -w 2");
        assert_eq!(SMALL.ipvsadm().lines().last(), Some(wanted.as_str()));
    }
}
