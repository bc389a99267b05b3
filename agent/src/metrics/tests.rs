//! The page for one report, and the server that serves it.

use std::net::Ipv4Addr;
use std::time::Duration;

use isopath_api::auth::Algorithm;
use isopath_api::config::Dataplane;
use isopath_api::ids::NeighborState;
use isopath_api::interface::{Authentication, Interface, Refused, Standing};
use isopath_api::observed::{
    CheckResult, ControllerObserved, DataplaneObserved, Reconciles, Timed, VipObserved,
};
use isopath_api::paths::{Lateness, Width};
use isopath_api::reason::Reason;
use isopath_api::speaker::{Announced, Neighbor, Owner, Source, Status};
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::*;

fn status() -> Status {
    Status {
        version: "0.0.0".to_owned(),
        pid: 1,
        origin_pid: 1,
        router_id: "10.0.1.2".parse().unwrap(),
        area: "0.0.0.0".parse().unwrap(),
        up_ms: 1,
        neighbors: vec![Neighbor {
            interface: "eth1".to_owned(),
            router_id: "10.0.1.1".parse().unwrap(),
            address: Ipv4Addr::new(10, 0, 1, 1),
            state: NeighborState::Full,
            priority: 1,
            state_ms: 1,
            dead_ms: 1,
            bfd: Some(BfdState::Down),
            auth_key: None,
        }],
        announced: vec![Announced {
            vip: "10.99.0.1".parse().unwrap(),
            cost: 1,
            kind: isopath_api::declare::AnnounceAs::Stub,
            source: Source::Agent,
            in_lsdb: true,
            acknowledged: false,
        }],
        withheld: Vec::new(),
        owner: Owner::None,
        announcers: std::collections::BTreeMap::new(),
        interfaces: vec![Interface {
            name: "eth1".to_owned(),
            address: Some(Ipv4Addr::new(10, 0, 1, 2)),
            unnumbered: false,
            auth: Authentication::Cryptographic {
                key_id: 3,
                algorithm: Algorithm::HmacSha256,
                standing: Standing::Expired,
                accepted: vec![3],
            },
            refused: Some(Refused {
                count: 12,
                address: Ipv4Addr::new(10, 0, 1, 1),
                detail: "authentication: key id 4 unknown, ours: 3".to_owned(),
                ago_ms: 5,
            }),
        }],
        widths: vec![Width {
            router_id: "10.0.1.1".parse().unwrap(),
            vips: vec!["10.99.0.1".parse().unwrap()],
            width: 4,
            through: Vec::new(),
            cost: None,
        }],
        lateness: std::collections::BTreeMap::from([(
            "hello".to_owned(),
            Lateness {
                packets: [5, 1, 0, 0, 0, 1],
                sum_us: 250_000,
                max_us: 200_000,
            },
        )]),
        counters: [
            ("hello_sent".to_owned(), 7),
            ("drop_bad-checksum".to_owned(), 2),
            ("hello_late_max_us".to_owned(), 1500),
        ]
        .into(),
    }
}

fn real_server(text: &str, health: Health, stats: Option<Stats>) -> RealServerObserved {
    RealServerObserved {
        real_server: text.parse().unwrap(),
        health,
        since: Timestamp::UNIX_EPOCH,
        last_check: Some(CheckResult {
            ok: true,
            detail: "HTTP 200".to_owned(),
            took_ms: 12,
            in_a_row: 1,
            at: Timestamp::UNIX_EPOCH,
        }),
        weight: 3,
        effective_weight: stats.map(|_| 3),
        active: 4,
        inactive: 5,
        stats,
    }
}

fn observed() -> Observed {
    let stats = Stats {
        connections: 9,
        in_bytes: 100,
        ..Stats::default()
    };
    let vip = |text: &str, cost, reason| VipObserved {
        vip: text.parse().unwrap(),
        cost,
        reason,
        since: Timestamp::UNIX_EPOCH,
    };
    let text = String::new();
    Observed {
        director: "d1".parse().unwrap(),
        router_id: "10.0.1.2".parse().unwrap(),
        instance: "i".to_owned(),
        run: "r".to_owned(),
        version: "9.9.9".to_owned(),
        at: Timestamp::UNIX_EPOCH,
        sequence: 1,
        epoch: Some("e1".to_owned()),
        generation: 7,
        speaker: Some(status()),
        vips: vec![
            vip("10.99.0.1", Some(1), Reason::Healthy),
            vip("10.99.0.2", None, Reason::Drained { text }),
        ],
        services: vec![ServiceObserved {
            service: "tcp:10.99.0.1:80".parse().unwrap(),
            real_servers: vec![
                real_server("10.1.0.11:80", Health::Up, Some(stats)),
                real_server("10.1.0.12:80", Health::Unknown, None),
            ],
            leaving: Vec::new(),
            stats: Some(stats),
            digest: None,
        }],
        dataplane: DataplaneObserved {
            kind: Dataplane::Ipvs,
            steps: 11,
            drift_repaired: 1,
            reconciles: Reconciles {
                unchanged: Timed {
                    count: 40,
                    took_us: 1_500_000,
                },
                changed: Timed {
                    count: 1,
                    took_us: 250_000,
                },
            },
            failures: vec!["x".to_owned()],
            conditions: vec![isopath_api::observed::Condition {
                code: "tun-mtu".to_owned(),
                text: "a tunnel is narrow".to_owned(),
                remedy: "clamp the MSS".to_owned(),
                since: Timestamp::UNIX_EPOCH,
            }],
        },
        controller: Some(ControllerObserved {
            url: "http://10.0.0.5:8080".to_owned(),
            connected: true,
            since: Timestamp::UNIX_EPOCH,
            problem: None,
        }),
    }
}

#[test]
fn each_thing_has_its_series() {
    let page = page(&observed()).unwrap();
    let server = r#"local_address="10.99.0.1",local_mark="",local_port="80",proto="TCP",remote_address="10.1.0.11",remote_port="80""#;
    let service = r#"local_address="10.99.0.1",local_mark="",local_port="80",proto="TCP""#;
    for line in [
        r#"isopath_build_info{version="9.9.9"} 1"#,
        "isopath_desired_generation 7",
        "isopath_controller_connected 1",
        "isopath_speaker_connected 1",
        "isopath_dataplane_steps_total 11",
        "isopath_dataplane_drift_repaired_total 1",
        r#"isopath_dataplane_reconciles_total{outcome="unchanged"} 40"#,
        r#"isopath_dataplane_reconciles_total{outcome="changed"} 1"#,
        r#"isopath_dataplane_reconcile_seconds_total{outcome="unchanged"} 1.5"#,
        r#"isopath_dataplane_reconcile_seconds_total{outcome="changed"} 0.25"#,
        "isopath_dataplane_failures 1",
        r#"isopath_conditions{code="tun-mtu"} 1"#,
        r#"isopath_vip_announce_wanted{reason="healthy",vip="10.99.0.1"} 1"#,
        r#"isopath_vip_announce_wanted{reason="drained",vip="10.99.0.2"} 0"#,
        r#"isopath_vip_held_down{vip="10.99.0.1"} 0"#,
        r#"isopath_vip_in_lsdb{vip="10.99.0.1"} 1"#,
        r#"isopath_vip_in_lsdb{vip="10.99.0.2"} 0"#,
        r#"isopath_ospf_neighbor_state{interface="eth1",router_id="10.0.1.1"} 8"#,
        r#"isopath_bfd_up{interface="eth1",router_id="10.0.1.1"} 0"#,
        r#"isopath_ospf_auth_key_valid{interface="eth1",key_id="3"} 0"#,
        r#"isopath_ospf_auth_refused_total{interface="eth1"} 12"#,
        r#"isopath_ospf_ecmp_width{router="10.0.1.1",vip="10.99.0.1"} 4"#,
        r#"isopath_speaker_packet_late_seconds_bucket{packet="hello",le="0.001"} 5"#,
        r#"isopath_speaker_packet_late_seconds_bucket{packet="hello",le="0.1"} 6"#,
        r#"isopath_speaker_packet_late_seconds_bucket{packet="hello",le="+Inf"} 7"#,
        r#"isopath_speaker_packet_late_seconds_sum{packet="hello"} 0.25"#,
        r#"isopath_speaker_packet_late_seconds_count{packet="hello"} 7"#,
        "isopath_speaker_hello_sent_total 7",
        "isopath_speaker_drop_bad_checksum_total 2",
        "isopath_speaker_hello_late_max_seconds 0.0015",
        &format!("isopath_ipvs_connections_total{{{service}}} 9"),
        &format!("isopath_ipvs_incoming_bytes_total{{{service}}} 100"),
        &format!("isopath_real_server_up{{{server}}} 1"),
        &format!("isopath_real_server_weight{{{server}}} 3"),
        &format!("isopath_real_server_weight_effective{{{server}}} 3"),
        &format!("isopath_real_server_active_connections{{{server}}} 4"),
        &format!("isopath_real_server_inactive_connections{{{server}}} 5"),
        &format!("isopath_real_server_connections_total{{{server}}} 9"),
        &format!("isopath_check_duration_seconds{{{server}}} 0.012"),
    ] {
        assert!(
            page.lines().any(|it| it == line),
            "{line} is not in\n{page}"
        );
    }
}

/// As node_exporter reads them from `/proc/net/ip_vs`, where the kernel writes
/// `FWM  10001000 wlc`.
#[test]
fn a_marks_service_has_the_labels_of_node_exporter() {
    let mut observed = observed();
    let of = |service: &str, server: &str| ServiceObserved {
        service: service.parse().unwrap(),
        real_servers: vec![real_server(server, Health::Up, None)],
        ..observed.services[0].clone()
    };
    observed.services = vec![
        of("fwmark:10.99.0.1:7", "10.1.0.11:0"),
        of("fwmark:10.99.0.2:268439552", "10.1.0.12:3306"),
    ];
    let page = page(&observed).unwrap();
    let labels =
        |mark: &str| format!(r#"local_address="",local_mark="{mark}",local_port="0",proto="FWM""#);
    let (small, large) = (labels("00000007"), labels("10001000"));
    for line in [
        format!("isopath_ipvs_connections_total{{{small}}} 9"),
        format!("isopath_ipvs_connections_total{{{large}}} 9"),
        format!(
            r#"isopath_real_server_weight{{{small},remote_address="10.1.0.11",remote_port="0"}} 3"#
        ),
        format!(
            r#"isopath_real_server_weight{{{large},remote_address="10.1.0.12",remote_port="3306"}} 3"#
        ),
    ] {
        assert!(
            page.lines().any(|it| it == line),
            "{line} is not in\n{page}"
        );
    }
}

#[test]
fn what_is_unknown_or_gone_has_no_series() {
    let page_of = |observed: &Observed| page(observed).unwrap();
    let undecided = page_of(&observed());
    let up: Vec<_> = undecided
        .lines()
        .filter(|line| line.starts_with("isopath_real_server_up{"))
        .collect();
    assert_eq!(
        up.len(),
        1,
        "an undecided real server is neither up nor down: {up:?}"
    );

    let mut gone = observed();
    gone.services.clear();
    gone.vips.clear();
    gone.speaker = None;
    gone.controller = None;
    let page = page_of(&gone);
    for name in [
        "10.99.0.1",
        "10.1.0.11",
        "neighbor",
        "controller",
        "hello_sent",
        "ecmp_width",
        "packet_late",
    ] {
        assert!(!page.contains(name), "{name} is still in\n{page}");
    }
    assert!(page.contains("isopath_speaker_connected 0"), "{page}");
}

#[test]
fn every_help_says_desired_or_actual() {
    let page = page(&observed()).unwrap();
    let helps = page.lines().filter_map(|line| line.strip_prefix("# HELP "));
    let helps: Vec<&str> = helps.collect();
    assert!(helps.len() > 20, "{helps:?}");
    for help in helps {
        let (_, words) = help.split_once(' ').unwrap();
        let says = words.starts_with("Desired: ") || words.starts_with("Actual: ");
        assert!(says, "{help}");
    }
}

/// The table is what an operator builds dashboards and alerts on.
#[test]
fn every_family_stands_in_the_documentation_as_it_is() {
    let page = page(&observed()).unwrap();
    let families = page.split("# HELP ").skip(1).map(|family| {
        let mut lines = family.lines();
        let (name, help) = lines.next().unwrap().split_once(' ').unwrap();
        let kind = lines.next().unwrap().rsplit(' ').next().unwrap();
        let labels = lines.next().unwrap().split_once('{');
        let labels = labels.map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
        let names = labels.split(',').filter_map(|pair| pair.split_once('='));
        let names: Vec<&str> = names
            .map(|(name, _)| name)
            .filter(|it| *it != "le")
            .collect();
        let row = format!("| `{name}` | {kind} | {} | {help} |", names.join(", "));
        (help, row)
    });
    // What a speaker counts depends on what it met; the documentation names the pattern.
    let counted = ["counted by the speaker", "the largest such time"];
    let families = families.filter(|(help, _)| !counted.iter().any(|it| help.contains(it)));
    let expected: Vec<String> = families.map(|(_, row)| row).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/METRICS.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("## Of an agent\n").unwrap();
    let (section, _) = rest.split_once("\n## ").unwrap();
    let found: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    assert!(
        found == expected,
        "docs/METRICS.md does not have the agent's metrics; it should have\n{}",
        expected.join("\n")
    );
}

async fn get(address: std::net::SocketAddr, request: &str) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    timeout(Duration::from_secs(10), exchange)
        .await
        .expect("no answer")
}

#[tokio::test]
async fn the_page_is_served_to_scrapers() {
    let (snapshots, mut receiver) = mpsc::channel(1);
    let address = "127.0.0.1:0".parse().unwrap();
    let server = MetricsServer::listen(address, snapshots).await.unwrap();
    let address = server.local_addr().unwrap();
    let _serving = AbortOnDropHandle::new(tokio::spawn(server.serve()));
    let _control = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(reply) = receiver.recv().await {
            let reply: crate::controller_link::SnapshotRequest = reply;
            reply.send(Box::new(observed())).expect("the scraper waits");
        }
    }));
    let page = get(address, "GET /metrics").await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(
        page.contains("content-type: text/plain; version=0.0.4"),
        "{page}"
    );
    assert!(
        page.contains("isopath_build_info{version=\"9.9.9\"} 1"),
        "{page}"
    );
    let other = get(address, "GET /").await;
    assert!(other.starts_with("HTTP/1.1 404"), "{other}");
    let post = get(address, "POST /metrics").await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
}
