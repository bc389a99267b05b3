//! `isopath neighbors` and `isopath lsdb`.

use isopath_api::interface::{Authentication, Interface};
use isopath_api::speaker::{ExternalRoute, Link, Lsa, Neighbor};
use isopath_api::view::ClusterView;
use isopath_api::{agent, speaker};
use serde::Serialize;

use super::{Daemon, ask_agent, ask_speaker, print, print_json, unexpected};
use crate::args::Args;
use crate::controller::Controller;
use crate::failure::Failure;
use crate::table::{Column, Table, span};

/// A neighbour and the director that has it.
#[derive(Serialize)]
struct Row {
    /// Nothing where one daemon was asked about itself.
    director: Option<String>,
    #[serde(flatten)]
    neighbor: Neighbor,
}

pub(super) fn neighbors(args: &Args) -> Result<(), Failure> {
    let (rows, interfaces) = match Daemon::of(&args.target) {
        Some(Daemon::Agent(path)) => match ask_agent(path, &agent::Request::Neighbors)? {
            agent::Reply::Neighbors {
                neighbors,
                interfaces,
            } => (own(neighbors), interfaces),
            _ => return Err(unexpected("the agent")),
        },
        Some(Daemon::Speaker(path)) => match ask_speaker(path, &speaker::Request::Neighbors)? {
            speaker::Reply::Neighbors {
                neighbors,
                interfaces,
            } => (own(neighbors), interfaces),
            _ => return Err(unexpected("the speaker")),
        },
        None => (of_cluster(args)?, Vec::new()),
    };
    if args.json {
        return print_json("isopath.neighbors/1", "neighbors", &rows);
    }
    print(&neighbor_table(&rows, &interfaces))
}

fn own(neighbors: Vec<Neighbor>) -> Vec<Row> {
    neighbors
        .into_iter()
        .map(|neighbor| Row {
            director: None,
            neighbor,
        })
        .collect()
}

fn of_cluster(args: &Args) -> Result<Vec<Row>, Failure> {
    let controller = Controller::new(&args.target)?;
    let name = controller.cluster(&args.target)?;
    let view: ClusterView = controller.get(&format!("/clusters/{name}"))?;
    let rows = view.directors.into_iter().flat_map(|director| {
        let name = director.name.to_string();
        director.neighbors.into_iter().map(move |neighbor| Row {
            director: Some(name.clone()),
            neighbor,
        })
    });
    Ok(rows.collect())
}

/// The columns and their order are those of FRR's `show ip ospf neighbor`.
///
/// Below stands what keeps a neighbour out that has no row.
fn neighbor_table(rows: &[Row], interfaces: &[Interface]) -> String {
    let mut table = Table::new(vec![
        Column::Left("DIRECTOR"),
        Column::Left("NEIGHBOR ID"),
        Column::Right("PRI"),
        Column::Left("STATE"),
        Column::Right("UP TIME"),
        Column::Right("DEAD TIME"),
        Column::Left("ADDRESS"),
        Column::Left("INTERFACE"),
        Column::Left("BFD"),
        Column::Left("AUTH"),
    ]);
    for Row { director, neighbor } in rows {
        table.row([
            director.clone().unwrap_or_else(|| "-".to_owned()),
            neighbor.router_id.to_string(),
            neighbor.priority.to_string(),
            neighbor.state.to_string(),
            span(i64::try_from(neighbor.state_ms / 1000).unwrap_or(i64::MAX)),
            format!(
                "{}.{:01}s",
                neighbor.dead_ms / 1000,
                neighbor.dead_ms % 1000 / 100
            ),
            neighbor.address.to_string(),
            neighbor.interface.clone(),
            neighbor
                .bfd
                .map_or_else(|| "-".to_owned(), |state| state.to_string()),
            authentication(neighbor, interfaces),
        ]);
    }
    let mut text = table.render();
    for complaint in interfaces.iter().flat_map(Interface::complaints) {
        text.push_str(&complaint);
        text.push('\n');
    }
    text
}

/// How we authenticate towards a neighbour, and its key where that is another one.
fn authentication(neighbor: &Neighbor, interfaces: &[Interface]) -> String {
    let theirs = neighbor.auth_key.map(|key| format!("key {key}"));
    let interface = interfaces.iter().find(|at| at.name == neighbor.interface);
    let Some(Interface { auth, .. }) = interface else {
        return theirs.unwrap_or_else(|| "-".to_owned());
    };
    match auth {
        Authentication::None => "-".to_owned(),
        Authentication::Simple => auth.to_string(),
        Authentication::Cryptographic { key_id, .. } => match neighbor.auth_key {
            Some(other) if other != *key_id => format!("{auth}, its key {other}"),
            Some(_) | None => auth.to_string(),
        },
    }
}

pub(super) fn lsdb(args: &Args) -> Result<(), Failure> {
    let lsas = match Daemon::wanted(&args.target, "lsdb")? {
        Daemon::Agent(path) => match ask_agent(path, &agent::Request::Lsdb)? {
            agent::Reply::Lsdb { lsas } => lsas,
            _ => return Err(unexpected("the agent")),
        },
        Daemon::Speaker(path) => match ask_speaker(path, &speaker::Request::Lsdb)? {
            speaker::Reply::Lsdb { lsas } => lsas,
            _ => return Err(unexpected("the speaker")),
        },
    };
    if args.json {
        return print_json("isopath.lsdb/1", "lsas", &lsas);
    }
    print(&lsdb_table(&lsas))
}

fn lsdb_table(lsas: &[Lsa]) -> String {
    let mut table = Table::new(vec![
        Column::Left("TYPE"),
        Column::Left("LINK-STATE ID"),
        Column::Left("ADV ROUTER"),
        Column::Right("AGE"),
        Column::Left("SEQ"),
        Column::Left("CHECKSUM"),
        Column::Right("LEN"),
        Column::Left("CARRIES"),
    ]);
    for lsa in lsas {
        table.row([
            type_name(lsa.ls_type),
            lsa.link_state_id.to_string(),
            lsa.advertising_router.to_string(),
            lsa.age.to_string(),
            format!("0x{:08x}", lsa.sequence),
            format!("0x{:04x}", lsa.checksum),
            lsa.length.to_string(),
            carried(lsa),
        ]);
    }
    table.render()
}

/// The name of an LS type (RFC 2328 §A.4.1, RFC 3101, RFC 5250).
fn type_name(ls_type: u8) -> String {
    match ls_type {
        1 => "Router".to_owned(),
        2 => "Network".to_owned(),
        3 => "Summary-Net".to_owned(),
        4 => "Summary-ASBR".to_owned(),
        5 => "External".to_owned(),
        7 => "NSSA".to_owned(),
        9 => "Opaque-Link".to_owned(),
        10 => "Opaque-Area".to_owned(),
        11 => "Opaque-AS".to_owned(),
        other => format!("type {other}"),
    }
}

/// What an LSA carries, as far as it is looked into.
fn carried(lsa: &Lsa) -> String {
    let Some(route) = &lsa.external else {
        return links(lsa);
    };
    let length = route.mask.to_bits().leading_ones();
    let via = match route.forwarding_address {
        address if address.is_unspecified() => String::new(),
        address => format!(" via {address}"),
    };
    let ExternalRoute {
        metric_type,
        metric,
        ..
    } = route;
    format!(
        "{}/{length}@E{metric_type}:{metric}{via}",
        lsa.link_state_id
    )
}

/// The links of a Router-LSA, hosts first: what an operator looks for is who announces a VIP.
/// Then routers and networks that it is attached to, then subnets; or the routers of a
/// Network-LSA. A row has so many, the JSON has all.
fn links(lsa: &Lsa) -> String {
    let rank = |link: &Link| match link.link_type {
        HOST_OR_SUBNET if link.data.is_broadcast() => 0,
        HOST_OR_SUBNET => 2,
        _ => 1,
    };
    let mut links: Vec<&Link> = lsa.links.iter().collect();
    links.sort_by_key(|link| rank(link));
    let mut parts: Vec<String> = links.into_iter().take(SHOWN).map(link_text).collect();
    let routers = lsa.routers.iter().take(SHOWN);
    parts.extend(routers.map(|router| format!("router {router}")));
    let more = (lsa.links.len() + lsa.routers.len()).saturating_sub(parts.len());
    if more > 0 {
        parts.push(format!("+{more}"));
    }
    parts.join(" ")
}

/// So many links are shown in a row.
const SHOWN: usize = 4;

/// A stub network's link type (RFC 2328 §A.4.2).
const HOST_OR_SUBNET: u8 = 3;

fn link_text(link: &Link) -> String {
    let metric = link.metric;
    match link.link_type {
        1 => format!("router {}@{metric}", link.id),
        2 => format!("network {}@{metric}", link.id),
        HOST_OR_SUBNET => {
            let length = link.data.to_bits().leading_ones();
            format!("{}/{length}@{metric}", link.id)
        }
        4 => format!("virtual {}@{metric}", link.id),
        other => format!("type {other} {}@{metric}", link.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isopath_api::auth::Algorithm;
    use isopath_api::ids::{NeighborState, RouterId};
    use isopath_api::interface::Standing;
    use std::net::Ipv4Addr;

    #[test]
    fn a_router_lsa_shows_the_hosts_it_announces() {
        let link = |link_type, id: &str, data: &str| Link {
            link_type,
            id: id.parse().unwrap(),
            data: data.parse().unwrap(),
            metric: 1,
        };
        let lsa = Lsa {
            ls_type: 1,
            link_state_id: Ipv4Addr::new(10, 0, 1, 2),
            advertising_router: RouterId(Ipv4Addr::new(10, 0, 1, 2)),
            age: 7,
            sequence: i32::MIN + 3,
            checksum: 0x1a2,
            length: 60,
            links: vec![
                link(1, "10.0.0.1", "10.0.1.2"),
                link(3, "10.99.0.1", "255.255.255.255"),
                link(3, "10.0.1.0", "255.255.255.0"),
            ],
            routers: Vec::new(),
            external: None,
        };
        let network = Lsa {
            ls_type: 2,
            links: Vec::new(),
            routers: (1..=6)
                .map(|n| RouterId(Ipv4Addr::new(10, 0, n, 2)))
                .collect(),
            ..lsa.clone()
        };
        let external = Lsa {
            ls_type: 7,
            link_state_id: Ipv4Addr::new(10, 99, 0, 2),
            links: Vec::new(),
            external: Some(ExternalRoute {
                mask: Ipv4Addr::BROADCAST,
                metric_type: 2,
                metric: 20,
                forwarding_address: Ipv4Addr::new(10, 0, 1, 2),
                tag: 0,
            }),
            ..lsa.clone()
        };
        let text = lsdb_table(&[lsa, external, network]);
        let row = text.lines().nth(1).unwrap();
        assert!(
            row.ends_with(
                "0x80000003  0x01a2     60  10.99.0.1/32@1 router 10.0.0.1@1 10.0.1.0/24@1"
            ),
            "{row}"
        );
        let row = text.lines().nth(2).unwrap();
        assert!(row.ends_with("10.99.0.2/32@E2:20 via 10.0.1.2"), "{row}");
        let row = text.lines().nth(3).unwrap();
        let shown = "router 10.0.1.2 router 10.0.2.2 router 10.0.3.2 router 10.0.4.2 +2";
        assert!(row.ends_with(shown), "{row}");
    }

    #[test]
    fn neighbours_have_frrs_columns() {
        let row = Row {
            director: Some("d1".to_owned()),
            neighbor: Neighbor {
                interface: "eth1".to_owned(),
                router_id: "10.0.0.1".parse().unwrap(),
                address: "10.0.1.1".parse().unwrap(),
                state: NeighborState::TwoWay,
                priority: 1,
                state_ms: 252_000,
                dead_ms: 3_456,
                bfd: None,
                auth_key: Some(1),
            },
        };
        let interface = Interface {
            name: "eth1".to_owned(),
            address: None,
            unnumbered: false,
            auth: Authentication::Cryptographic {
                key_id: 2,
                algorithm: Algorithm::Md5,
                standing: Standing::Expired,
                accepted: vec![2],
            },
            refused: None,
        };
        let text = neighbor_table(&[row], &[interface]);
        let cells: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            cells[..9],
            [
                "d1", "10.0.0.1", "1", "2-Way", "4m12s", "3.4s", "10.0.1.1", "eth1", "-"
            ]
        );
        assert_eq!(cells[9..], ["md5", "key", "2,", "its", "key", "1"]);
        let complaint = text.lines().nth(2).unwrap();
        assert!(
            complaint.contains("every key on eth1 has expired"),
            "{text}"
        );
    }
}
