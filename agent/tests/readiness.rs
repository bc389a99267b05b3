//! The gate in network namespaces: another host that answers for a VIP, one that knows better, a
//! link that is down, a path that is too narrow. These need root.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

mod shell;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use isopath_agent::dataplane::{RealServerWanted, ServiceWanted, Wanted};
use isopath_agent::kernel::NumberedWanted;
use isopath_agent::readiness::{Findings, Gate, GateReport, Notice, Place};
use isopath_api::config::Dataplane;
use isopath_api::declare::{Forwarding, Scheduler};
use isopath_api::ids::Vip;
use isopath_api::reason::Reason;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use shell::run;
use tokio::sync::watch;
use tokio::time::timeout;

/// A test that waits longer than this has failed.
const DEADLINE: Duration = Duration::from_secs(60);

const VIP: &str = "192.0.2.100";
const OTHER_VIP: &str = "192.0.2.101";

/// A director on one Ethernet with two hosts, .3 and .4; this test's thread lives in its
/// namespace. The hosts' namespaces are named after the director's.
struct Network {
    namespace: String,
}

impl Network {
    /// Builds it, or says why the test is skipped.
    fn enter(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            // Written past the test harness, which keeps what a passing test prints to itself.
            let line = format!("SKIPPED: {name}: needs root for its network namespaces\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        }
        let network = Self {
            namespace: format!("gate-{}-{name}", std::process::id()),
        };
        let director = &network.namespace;
        run(&format!("ip netns add {director}"));
        let file = File::open(format!("/run/netns/{director}")).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        run("ip link add lan type bridge");
        run("ip address add 192.0.2.8/24 dev lan");
        run("ip link set lan up");
        run("ip link set lo up");
        for host in [3, 4] {
            let there = network.host(host);
            run(&format!("ip netns add {there}"));
            run(&format!(
                "ip link add port{host} type veth peer name eth0 netns {there}"
            ));
            run(&format!("ip link set port{host} master lan up"));
            network.on(host, "ip link set lo up");
            network.on(host, "ip link set eth0 up");
            network.on(host, &format!("ip address add 192.0.2.{host}/24 dev eth0"));
        }
        Some(network)
    }

    fn host(&self, host: u8) -> String {
        format!("{}-{host}", self.namespace)
    }

    fn on(&self, host: u8, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.host(host)))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in [3, 4] {
            run(&format!("ip netns del {}", self.host(host)));
        }
        run(&format!("ip netns del {}", self.namespace));
    }
}

/// A gate at work.
struct Running {
    wanted: watch::Sender<Option<Arc<NumberedWanted>>>,
    reports: watch::Receiver<Arc<GateReport>>,
}

impl Running {
    fn start(wanted: Wanted) -> Self {
        let place = Place {
            vip_interface: "vips".to_owned(),
            uplinks: vec!["lan".to_owned()],
            dataplane: Dataplane::Ipvs,
        };
        let number = 1;
        let (wanted, receiver) = watch::channel(Some(Arc::new(NumberedWanted { number, wanted })));
        let (sender, reports) = watch::channel(Arc::new(GateReport::default()));
        tokio::spawn(Gate::new(place, true).run(receiver, sender));
        Self { wanted, reports }
    }

    /// The first findings that fit.
    async fn finds(&mut self, what: &str, fits: impl Fn(&Findings) -> bool) -> Findings {
        let fit = self.reports.wait_for(|report| fits(&report.findings));
        let found = timeout(DEADLINE, fit)
            .await
            .ok()
            .map(|it| it.unwrap().clone());
        let last = || format!("{what}: the gate last found {:?}", self.reports.borrow());
        found
            .unwrap_or_else(|| panic!("{}", last()))
            .findings
            .clone()
    }

    /// The findings on the VIPs, once each has been looked into.
    async fn of(&mut self, vips: &[&str]) -> Vec<Vec<Reason>> {
        let vips: Vec<Vip> = vips.iter().map(|it| it.parse().unwrap()).collect();
        let all = |found: &Findings| vips.iter().all(|vip| found.vips.contains_key(vip));
        let found = self.finds("each VIP", all).await;
        vips.iter().map(|vip| found.vips[vip].clone()).collect()
    }
}

fn wanted(vips: &[&str], services: Vec<ServiceWanted>) -> Wanted {
    Wanted {
        vips: vips.iter().map(|it| it.parse().unwrap()).collect(),
        services: services
            .into_iter()
            .map(|it| (it.id, Arc::new(it)))
            .collect(),
        ..Wanted::default()
    }
}

fn service(forwarding: Forwarding, servers: &[&str]) -> ServiceWanted {
    let server = |address: &&str| RealServerWanted {
        id: format!("{address}:80").parse().unwrap(),
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        effective_weight: 1,
    };
    ServiceWanted {
        id: format!("tcp:{VIP}:80").parse().unwrap(),
        scheduler: Scheduler::Rr,
        flags: BTreeSet::new(),
        persistence: None,
        forwarding,
        tunnel: None,
        real_servers: servers.iter().map(server).collect(),
    }
}

#[tokio::test]
async fn a_host_that_answers_for_a_vip_is_found_and_one_that_ignores_the_question_is_not() {
    let Some(network) = Network::enter("arp") else {
        return;
    };
    // The classic: a real server of direct routing that was not told to be silent, beside one
    // that was.
    for (host, vip) in [(3, VIP), (4, OTHER_VIP)] {
        network.on(host, &format!("ip address add {vip}/32 dev lo"));
    }
    network.on(4, "sysctl -qw net.ipv4.conf.all.arp_ignore=1");
    // The director's own, which answers on every interface of its namespace for now.
    run("ip link add vips type bridge");
    run("ip link set vips up");
    run(&format!("ip address add {VIP}/32 dev vips"));
    run(&format!("ip address add {OTHER_VIP}/32 dev vips"));

    let mut gate = Running::start(wanted(&[VIP, OTHER_VIP], Vec::new()));
    let found = gate.of(&[VIP, OTHER_VIP]).await;
    let mac = network.on(3, "cat /sys/class/net/eth0/address");
    let elsewhere = Reason::VipAnsweredElsewhere {
        interface: "lan".to_owned(),
        mac: mac.trim().to_owned(),
    };
    assert_eq!(found, [vec![elsewhere], vec![]]);

    // Mended, it is found to be so without a change of anything else.
    network.on(3, "sysctl -qw net.ipv4.conf.all.arp_ignore=1");
    let mended = |found: &Findings| found.vips.values().all(Vec::is_empty);
    gate.finds("a host that was told to be silent", mended)
        .await;
}

#[tokio::test]
async fn what_changes_on_the_links_is_found() {
    let Some(network) = Network::enter("links") else {
        return;
    };
    let service = service(Forwarding::Dr, &["192.0.2.3", "192.0.2.4"]);
    let mut gate = Running::start(wanted(&[VIP], vec![service]));
    assert_eq!(gate.of(&[VIP]).await, [vec![]]);

    // Both hosts are switched off: the bridge loses its carrier.
    for host in [3, 4] {
        network.on(host, "ip link set eth0 down");
    }
    let down = Reason::InterfaceDown {
        interface: "lan".to_owned(),
    };
    let vip: Vip = VIP.parse().unwrap();
    let is_down = |found: &Findings| found.vips.get(&vip).is_some_and(|it| it.contains(&down));
    gate.finds("a link that went down", is_down).await;

    // One comes back, and is another machine now: it has the VIP.
    network.on(3, &format!("ip address add {VIP}/32 dev lo"));
    network.on(3, "ip link set eth0 up");
    let answered = |found: &Findings| {
        let found = found.vips.get(&vip).map_or(&[][..], Vec::as_slice);
        matches!(found, [Reason::VipAnsweredElsewhere { .. }])
    };
    gate.finds("a link that came up with another host", answered)
        .await;
}

#[tokio::test]
async fn the_narrowest_way_to_a_tunnels_end_counts() {
    let Some(_network) = Network::enter("tunnel") else {
        return;
    };
    let tunnel = |ends: &[&str]| wanted(&[VIP], vec![service(Forwarding::Tun, ends)]);
    let mut gate = Running::start(tunnel(&["192.0.2.3"]));
    // Ethernet's 1500 everywhere: it works, with a word on the MSS.
    assert_eq!(gate.of(&[VIP]).await, [vec![]]);
    let clamp = |found: &Findings| {
        let notice = found.notices.first();
        notice.is_some_and(|it| {
            it.code == Notice::TUN_MTU && it.remedy == "clamp the MSS to 1440 on the real servers"
        })
    };
    gate.finds("a way of 1500 bytes", clamp).await;

    run("ip route add 192.0.2.4/32 dev lan mtu 590");
    let next = NumberedWanted {
        number: 2,
        wanted: tunnel(&["192.0.2.3", "192.0.2.4"]),
    };
    gate.wanted.send_replace(Some(Arc::new(next)));
    let narrow = Reason::MtuTooSmall {
        interface: "lan".to_owned(),
        mtu: 590,
        needed: 596,
    };
    let vip: Vip = VIP.parse().unwrap();
    let is_narrow = |found: &Findings| found.vips.get(&vip).is_some_and(|it| it.contains(&narrow));
    gate.finds("a route of 590 bytes", is_narrow).await;
}
