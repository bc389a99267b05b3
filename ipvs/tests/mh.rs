//! The model of the scheduler `mh` against the kernel: whatever the table, the destination that
//! the kernel picks for a flow is the one that the model gives. This needs a kernel with IPVS and
//! root; `ISOPATH_TEST_IPVS=1` says that both are there, as in the test VM.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use isopath_ipvs::mh::{ClientHash, Table};
use isopath_ipvs::{
    Change, DestinationSpec, Family, Forwarding, Ipvs, Scheduler, ServiceFlags, ServiceKey,
    ServiceSpec,
};

use self::support::{Namespace, run};

/// A service to send flows to.
struct Case {
    name: &'static str,
    family: Family,
    flags: ServiceFlags,
    /// Its real servers' weights, in the order in which they are added.
    weights: &'static [u32],
    /// The one whose weight is set to 0 afterwards.
    drained: Option<usize>,
    /// How many flows.
    flows: Flows,
}

enum Flows {
    /// One for each slot.
    EverySlot,
    /// As many of different addresses and ports.
    Some(u16),
}

const PORT: ServiceFlags = ServiceFlags::MH_PORT;

fn cases() -> Vec<Case> {
    let case = |name, family, flags, weights| Case {
        name,
        family,
        flags,
        weights,
        drained: None,
        flows: Flows::Some(250),
    };
    let fallback = ServiceFlags::MH_FALLBACK;
    let drained = |case: Case| Case {
        drained: Some(1),
        ..case
    };
    let (v4, v6) = (Family::V4, Family::V6);
    let none = ServiceFlags::NONE;
    vec![
        Case {
            flows: Flows::EverySlot,
            ..case("every slot", v4, PORT | fallback, &[1; 5])
        },
        case("by address", v4, none, &[1, 1, 1]),
        case("a common divisor", v4, PORT, &[100, 300, 200]),
        case("weights too large", v4, PORT, &[1000, 1, 333, 70_000]),
        case("one without weight", v4, PORT, &[3, 0, 1]),
        case("all without weight", v4, PORT | fallback, &[0, 0]),
        drained(case("drained", v4, PORT, &[2, 2, 2])),
        drained(case("drained, fallback", v4, PORT | fallback, &[2, 3, 2])),
        case("IPv6", v6, PORT | fallback, &[1; 7]),
        case("IPv6 by address", v6, none, &[5, 10, 15]),
    ]
}

impl Case {
    fn key(&self, number: u8) -> ServiceKey {
        ServiceKey::udp(SocketAddr::new(self.ip([99, 0, number]), 53))
    }

    /// An address that is local in the test's namespace.
    fn ip(&self, [net, high, low]: [u8; 3]) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::new(10, net, high, low).into(),
            Family::V6 => {
                let low = u16::from_be_bytes([high, low]);
                Ipv6Addr::new(0xfd00, u16::from(net), 0, 0, 0xabc, 0, 7, low).into()
            }
        }
    }

    fn hash(&self) -> ClientHash {
        if self.flags.contains(ServiceFlags::MH_PORT) {
            ClientHash::AddressAndPort
        } else {
            ClientHash::Address
        }
    }

    /// The service is filled without a scheduler and given `mh` then, as one fills many.
    fn changes(&self, key: ServiceKey) -> Vec<Change> {
        let spec = |scheduler| ServiceSpec::new(key, scheduler).with_flags(self.flags);
        let mut changes = vec![Change::AddService(spec(Scheduler::from("none")))];
        let server = |(number, weight): (u8, &u32)| {
            let address = SocketAddr::new(self.ip([97, 0, number]), 53);
            DestinationSpec::new(address, Forwarding::DirectRoute, *weight)
        };
        let servers: Vec<_> = (1..).zip(self.weights).map(server).collect();
        let add = |server: &DestinationSpec| Change::AddDestination(key, server.clone());
        changes.extend(servers.iter().map(add));
        changes.push(Change::SetService(spec(Scheduler::Mh)));
        changes.extend(self.drained.map(|at| {
            let weight = 0;
            let server = servers[at].clone();
            Change::SetDestination(key, DestinationSpec { weight, ..server })
        }));
        changes
    }

    fn clients(&self, table: &Table) -> Vec<SocketAddr> {
        let client = |number: u32| {
            let [_, _, high, low] = number.to_be_bytes();
            let port = 1024 + (number * 7920 % 60_000) as u16;
            SocketAddr::new(self.ip([98, high, low]), port)
        };
        match self.flows {
            Flows::Some(count) => (0..u32::from(count)).map(client).collect(),
            Flows::EverySlot => {
                let mut slots = BTreeSet::new();
                (0..65_536)
                    .map(client)
                    .filter(|client| slots.insert(table.slot(*client, self.hash())))
                    .collect()
            }
        }
    }
}

/// The kernel's connections: which destination a client got at a service.
fn connections() -> BTreeMap<(SocketAddr, SocketAddr), SocketAddr> {
    let text = std::fs::read_to_string("/proc/thread-self/net/ip_vs_conn").unwrap();
    let address = |ip: &str, port: &str| {
        let ip: IpAddr = match u32::from_str_radix(ip, 16) {
            Ok(ip) => Ipv4Addr::from(ip).into(),
            Err(_) => ip.trim_matches(['[', ']']).parse().unwrap(),
        };
        SocketAddr::new(ip, u16::from_str_radix(port, 16).unwrap())
    };
    let connection = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["UDP", from, from_port, to, to_port, server, server_port, ..] => {
            let flow = (address(from, from_port), address(to, to_port));
            (flow, address(server, server_port))
        }
        _ => panic!("not a UDP connection: {line}"),
    };
    text.lines().skip(1).map(connection).collect()
}

#[tokio::test]
async fn the_kernel_picks_what_the_model_says() {
    let Some(_namespace) = Namespace::enter("mh") else {
        return;
    };
    for net in ["97", "98", "99"] {
        let v4 = format!("10.{net}.0.0/16");
        run("ip", &["route", "add", "local", &v4, "dev", "lo"]);
        let hex = format!("{:x}", net.parse::<u8>().unwrap());
        let v6 = format!("fd00:{hex}::/32");
        run("ip", &["-6", "route", "add", "local", &v6, "dev", "lo"]);
    }
    // A route makes an IPv4 address one to bind to, but not an IPv6 address.
    std::fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").unwrap();
    let ipvs = Ipvs::connect().await.unwrap();
    let mut expected = BTreeMap::new();
    let mut denied = 0;
    for (number, case) in (1..).zip(cases()) {
        let key = case.key(number);
        for result in ipvs.apply(&case.changes(key)).await {
            result.unwrap_or_else(|error| panic!("{}: {error}: {}", case.name, error.cause));
        }
        let servers = ipvs.destinations(&key).await.unwrap();
        let weights: BTreeMap<_, _> = (1..)
            .zip(case.weights)
            .map(|(number, weight)| (case.ip([97, 0, number]), *weight))
            .collect();
        let listed: Vec<_> = servers
            .iter()
            .map(|it| (it.spec.address, weights[&it.spec.address.ip()]))
            .collect();
        let available = |address| {
            servers
                .iter()
                .any(|it| it.spec.address == address && it.spec.weight > 0)
        };
        let table = Table::new(case.family, &listed);
        let ServiceKey::Address { address: vip, .. } = key else {
            panic!("{key}");
        };
        for client in case.clients(&table) {
            let fallback = case.flags.contains(ServiceFlags::MH_FALLBACK);
            match table.select(client, case.hash(), fallback, available) {
                Some(server) => drop(expected.insert((client, vip), server)),
                None => denied += 1,
            }
            let socket = UdpSocket::bind(client).unwrap();
            // What is not scheduled is answered by ICMP, which the socket may see at once.
            drop(socket.send_to(b"?", vip));
        }
    }
    assert!(expected.len() > 4093 + 1500, "{}", expected.len());
    assert!(
        denied > 250 + 50,
        "{denied}: nobody was denied where servers are drained"
    );
    let found = connections();
    for (flow, server) in &expected {
        assert_eq!(found.get(flow), Some(server), "{flow:?}");
    }
    assert_eq!(
        found.len(),
        expected.len(),
        "the kernel took what the model denies"
    );
}
