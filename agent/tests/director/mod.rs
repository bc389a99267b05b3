//! A director whose kernel has IPVS, and what is wanted of it.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;

use isopath_agent::dataplane::{Dataplane, RealServerWanted, Report, ServiceWanted, Wanted};
use isopath_api::config;
use isopath_api::declare::{Forwarding, Lvs, Scheduler, SchedulerFlag};
use isopath_api::ids::Vip;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

pub(crate) use crate::shell::run;

/// A director: a network namespace that this test's thread lives in, and a state directory.
pub(crate) struct Director {
    namespace: String,
    pub(crate) state: TempDir,
}

impl Director {
    /// Enters a fresh namespace, or says why the test is skipped.
    pub(crate) fn enter(name: &str) -> Option<Self> {
        if std::env::var_os("ISOPATH_TEST_IPVS").is_none() {
            // Written past the test harness, which keeps what a passing test prints to itself.
            let line = format!("{name}: skipped: needs IPVS; run by the VM test\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        }
        let namespace = format!("dp-{}-{name}", std::process::id());
        run(&format!("ip netns add {namespace}"));
        let director = Self {
            namespace,
            state: TempDir::new().unwrap(),
        };
        let file = File::open(format!("/run/netns/{}", director.namespace)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        run("ip link set lo up");
        Some(director)
    }

    pub(crate) fn dataplane(&self) -> Dataplane {
        let kind = config::Dataplane::Ipvs;
        Dataplane::new(kind, "vips".to_owned(), self.state.path()).unwrap()
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        run(&format!("ip netns del {}", self.namespace));
    }
}

/// The rules as ipvsadm saves them, sorted.
pub(crate) fn rules() -> Vec<String> {
    let saved = run("ipvsadm -Sn");
    let mut lines: Vec<_> = saved.lines().map(|it| it.trim().to_owned()).collect();
    lines.sort();
    lines
}

pub(crate) fn sysctl(name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap();
    text.trim().to_owned()
}

pub(crate) fn vip(text: &str) -> Vip {
    text.parse().unwrap()
}

pub(crate) fn server(id: &str, weight: u16, effective_weight: u16) -> RealServerWanted {
    RealServerWanted {
        id: id.parse().unwrap(),
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
        effective_weight,
    }
}

pub(crate) fn service(id: &str, scheduler: Scheduler, forwarding: Forwarding) -> ServiceWanted {
    let flags = match scheduler {
        Scheduler::Mh => [SchedulerFlag::MhFallback, SchedulerFlag::MhPort].into(),
        _ => [].into(),
    };
    ServiceWanted {
        id: id.parse().unwrap(),
        scheduler,
        flags,
        persistence: None,
        forwarding,
        tunnel: None,
        real_servers: Vec::new(),
    }
}

pub(crate) fn wanted(services: Vec<ServiceWanted>) -> Wanted {
    Wanted {
        vips: services.iter().map(|service| service.id.vip).collect(),
        services: services
            .into_iter()
            .map(|service| (service.id, Arc::new(service)))
            .collect(),
        lvs: Lvs::default(),
    }
}

/// One of its services.
pub(crate) fn of<'a>(wanted: &'a mut Wanted, id: &str) -> &'a mut ServiceWanted {
    let service = wanted.services.get_mut(&id.parse().unwrap());
    Arc::make_mut(service.unwrap())
}

/// One service of each scheduler and forwarding method.
pub(crate) fn three() -> Wanted {
    let mut services = vec![
        service("tcp:10.99.0.1:80", Scheduler::Mh, Forwarding::Dr),
        service("tcp:10.99.0.2:443", Scheduler::Wlc, Forwarding::Nat),
        service("udp:10.99.0.3:53", Scheduler::Rr, Forwarding::Tun),
    ];
    for service in &mut services {
        service.real_servers = vec![
            server("10.1.0.12:8080", 3, 0),
            server("10.1.0.11:80", 1, 1),
            server("10.1.0.13:80", 2, 2),
        ];
    }
    wanted(services)
}

pub(crate) fn assert_ready(report: &Report) {
    assert_eq!(report.failures, [""; 0]);
    for (vip, ready) in &report.vips {
        assert_eq!(*ready, Ok(()), "{vip}");
    }
}
