//! What is found in a kernel, played by the test, against what is declared.

use isopath_api::declare::{LvsSpec, ServiceSpec};
use isopath_api::observed::Stats;
use serde_json::{Value, json};

use super::*;
use crate::dataplane::KernelRealServer;

/// `mh` over 10.1.0.11, .12 and .13, and what is declared besides.
fn declared(besides: Value) -> ServiceSpec {
    let mut service = json!({
        "vip": "10.99.0.1", "protocol": "tcp", "port": 80, "check": { "type": "tcp" },
        "real_server": [
            { "address": "10.1.0.11" }, { "address": "10.1.0.12" }, { "address": "10.1.0.13" },
        ],
    });
    for (key, value) in besides.as_object().unwrap() {
        service[key] = value.clone();
    }
    serde_json::from_value(service).unwrap()
}

fn lvs() -> Lvs {
    LvsSpec::default().resolve(2)
}

/// A kernel in which all that is wanted was done, and the agent's books.
struct Kernel {
    wanted: ServiceWanted,
    service: KernelService,
    observed: Observed,
    ledger: Ledger,
}

impl Kernel {
    fn with(spec: &ServiceSpec) -> Self {
        let wanted = ServiceWanted::of(spec, |_, weight| weight);
        let mut servers: Vec<RealServerWanted> = wanted.real_servers.clone();
        servers.sort_by_key(|server| Reverse(server.id));
        let destinations = servers.iter().map(|server| destination(&wanted, *server));
        let sysctls = digest::sysctls(lvs().profile, wanted.id.packets);
        let observed = Observed {
            sysctls: sysctls
                .map(|(key, value)| (key.to_owned(), Some(value.to_owned())))
                .collect(),
            timeouts: Some(timeouts(&lvs().timeouts)),
            ..Observed::default()
        };
        let table = servers.iter();
        let table = table.map(|server| (SocketAddr::V4(server.id.0), u32::from(server.weight)));
        let table: BTreeMap<_, _> = table.collect();
        let ledger = Ledger {
            services: [(wanted.id, table)].into(),
            ..Ledger::default()
        };
        Self {
            service: KernelService {
                spec: service_spec(&wanted),
                stats: Stats::default(),
                real_servers: destinations.collect(),
            },
            wanted,
            observed,
            ledger,
        }
    }

    fn placement(&self) -> Placement {
        found(
            &self.wanted,
            &lvs(),
            &self.observed,
            &self.service,
            &self.ledger,
        )
    }

    fn digest(&self) -> ServiceDigest {
        self.placement().digest()
    }

    /// Adds a real server that nobody wants, at the head of the list.
    fn add_stranger(&mut self, weight: u32) {
        let mut stranger = self.service.real_servers[0].clone();
        stranger.spec.address = "10.1.0.99:80".parse().unwrap();
        stranger.spec.weight = weight;
        let mut servers = std::mem::take(&mut self.service.real_servers).into_vec();
        servers.insert(0, stranger);
        self.service.real_servers = servers.into();
    }
}

fn destination(service: &ServiceWanted, server: RealServerWanted) -> KernelRealServer {
    KernelRealServer {
        spec: destination_spec(service, server),
        active: 0,
        inactive: 0,
        stats: Stats::default(),
    }
}

#[test]
fn a_kernel_that_has_what_is_declared_has_the_declared_digest() {
    for besides in [
        json!({}),
        json!({ "scheduler": "wlc", "persistence": { "timeout": "50s", "netmask": "24" } }),
        json!({ "forwarding": "tun" }),
        json!({ "forwarding": "tun", "tunnel": { "type": "gue", "port": 5555, "checksum": "csum" } }),
        json!({ "forwarding": "nat", "flags": [] }),
        json!({ "protocol": null, "port": null, "fwmark": 7 }),
        json!({ "real_server": [
            { "address": "10.1.0.12", "port": 8080, "weight": 3, "upper_threshold": 9 },
            { "address": "10.1.0.11", "weight": 0 },
        ] }),
    ] {
        let spec = declared(besides);
        let declared = Placement::declared(&spec, &lvs());
        let kernel = Kernel::with(&spec);
        assert_eq!(wanted(&kernel.wanted, &lvs()), declared);
        assert_eq!(declared.differences(&kernel.placement()), [""; 0]);
        assert_eq!(kernel.digest(), declared.digest(), "{spec:?}");
    }
}

#[test]
fn whatever_was_changed_in_the_kernel_is_found_and_told() {
    type Case = (&'static str, fn(&mut Kernel));
    let cases: [Case; 10] = [
        ("the order", |it| it.service.real_servers.swap(0, 1)),
        ("a weight", |it| {
            it.service.real_servers[1].spec.weight = 2;
        }),
        ("forwarding", |it| {
            it.service.real_servers[1].spec.forwarding = isopath_ipvs::Forwarding::Masquerade;
        }),
        ("a threshold", |it| {
            it.service.real_servers[1].spec.upper_threshold = 9;
        }),
        ("a real server less", |it| {
            let servers = std::mem::take(&mut it.service.real_servers);
            it.service.real_servers = servers.into_iter().skip(1).collect();
        }),
        ("a stranger", |it| it.add_stranger(1)),
        ("the flags", |it| {
            it.service.spec.flags = isopath_ipvs::ServiceFlags::NONE;
        }),
        ("a timeout", |it| {
            let mut kept = timeouts(&lvs().timeouts);
            kept.udp += 1;
            it.observed.timeouts = Some(kept);
        }),
        ("a sysctl", |it| {
            let value = Some("0".to_owned());
            let key = "net/ipv4/vs/sloppy_tcp".to_owned();
            it.observed.sysctls.insert(key, value);
        }),
        ("what nobody can read back", |it| {
            it.service.real_servers[1].spec.weight = 0;
            it.ledger = Ledger::default();
        }),
    ];
    let spec = declared(json!({}));
    let declared = Placement::declared(&spec, &lvs());
    for (what, change) in cases {
        let mut kernel = Kernel::with(&spec);
        change(&mut kernel);
        assert_ne!(kernel.digest(), declared.digest(), "{what} is not found");
        let told = declared.differences(&kernel.placement());
        assert_ne!(told, [""; 0], "{what} is not told");
    }
}

/// A kernel that does not take associations of other directors is another one to SCTP alone.
#[test]
fn a_setting_of_sctp_is_found_where_sctp_may_come() {
    for (besides, found) in [
        (json!({ "protocol": "sctp" }), true),
        (json!({ "protocol": null, "port": null, "fwmark": 7 }), true),
        (json!({}), false),
    ] {
        let spec = declared(besides);
        let declared = Placement::declared(&spec, &lvs()).digest();
        let mut kernel = Kernel::with(&spec);
        assert_eq!(kernel.digest(), declared, "{}", spec.id());
        let key = "net/ipv4/vs/sloppy_sctp".to_owned();
        kernel.observed.sysctls.insert(key, Some("0".to_owned()));
        assert_eq!(kernel.digest() != declared, found, "{}", spec.id());
    }
}

#[test]
fn health_and_what_is_on_its_way_out_have_no_say() {
    type Case = (&'static str, Value, fn(&mut Kernel));
    let dead = |it: &mut Kernel| {
        it.wanted.real_servers[1].effective_weight = 0;
        it.service.real_servers[1].spec.weight = 0;
    };
    let cases: [Case; 4] = [
        ("a dead real server of mh", json!({}), dead),
        ("one of wlc", json!({ "scheduler": "wlc" }), dead),
        ("one on its way out", json!({}), |it| it.add_stranger(0)),
        ("the order of wlc", json!({ "scheduler": "wlc" }), |it| {
            it.service.real_servers.swap(0, 1);
        }),
    ];
    for (what, besides, change) in cases {
        let spec = declared(besides);
        let mut kernel = Kernel::with(&spec);
        change(&mut kernel);
        let declared = Placement::declared(&spec, &lvs());
        let told = declared.differences(&kernel.placement());
        assert_eq!(told, [""; 0], "{what}");
        assert_eq!(kernel.digest(), declared.digest(), "{what}");
    }
}
