//! The picture's columns: what has a box of its own, and what is counted.

use isopath_api::view::{
    ClusterView, DirectorView, RealServerView, ServiceView, State, SwitchView, VipView,
};

use super::{NODE_HEIGHT, Node, PITCH, TOP, column_x};
use crate::pages::cluster::service_anchor;
use crate::pages::status::{Kind, Status};
use crate::pages::text::{Count, plural};

/// Directors that are drawn one by one; of more, those that are Up are counted.
const DIRECTORS: usize = 8;
/// VIPs that are drawn one by one with their lines.
const VIPS: usize = 3;
/// Real servers that are drawn one by one; more become one box a service.
const SERVERS: usize = 8;
/// Services that are drawn one by one.
const SERVICES: usize = 8;
/// Objects of a large column that are named because they are not Up.
const NAMED: usize = 12;
/// Characters that fit a box's first line.
const LINE: usize = 18;

/// A column; each box stands for one object or for several.
pub(super) struct Column<M> {
    pub(super) boxes: Vec<Placed<M>>,
    /// Whether it has too many objects for their lines to be drawn.
    pub(super) dense: bool,
}

pub(super) struct Placed<M> {
    pub(super) node: Node,
    pub(super) stands_for: Vec<M>,
}

impl<M> Column<M> {
    /// Sets the column in the middle of a picture `rows` boxes high.
    pub(super) fn place(&mut self, column: u32, rows: u32) {
        let own = u32::try_from(self.boxes.len()).unwrap_or(rows);
        let above = TOP + rows.saturating_sub(own) * PITCH / 2;
        for (index, placed) in (0..).zip(&mut self.boxes) {
            placed.node.x = column_x(column);
            placed.node.y = above + index * PITCH;
        }
    }

    pub(super) fn nodes(self) -> impl Iterator<Item = Node> {
        self.boxes.into_iter().map(|placed| placed.node)
    }
}

/// The routers that directors are neighbours of; a box that says so where none is known.
pub(super) fn switches(view: &ClusterView) -> Column<&SwitchView> {
    let mut boxes: Vec<_> = view
        .switches
        .iter()
        .map(|s| Placed {
            node: switch_node(s),
            stands_for: vec![s],
        })
        .collect();
    if boxes.is_empty() {
        boxes.push(Placed {
            node: node(
                "no-switch",
                "directors",
                Status::new(Kind::Unknown, "Unknown"),
                Label {
                    name: "No switch seen".to_owned(),
                    ..Label::default()
                },
            ),
            stands_for: Vec::new(),
        });
    }
    Column {
        boxes,
        dense: false,
    }
}

fn switch_node(switch: &SwitchView) -> Node {
    let (full, all) = (switch.full.len(), switch.full.len() + switch.not_full.len());
    let state = match (full, switch.not_full.len()) {
        (0, _) => State::Down,
        (_, 0) => State::Up,
        _ => State::Degraded,
    };
    let id = switch.router_id.to_string();
    let label = Label {
        name: switch.name.clone().unwrap_or_else(|| id.clone()),
        aside: id.clone(),
        figure: format!("{full}/{all} Full"),
        what: "switch",
    };
    node(&format!("switch {id}"), "directors", state.into(), label)
}

/// The directors.
pub(super) fn directors(view: &ClusterView) -> Column<&DirectorView> {
    let one = |director: &DirectorView| {
        let label = Label {
            name: director.name.to_string(),
            aside: director.router_id.to_string(),
            figure: match director.last_report {
                Some(_) => format!("{}/s", Count(director.connections_per_second)),
                None => String::new(),
            },
            what: "director",
        };
        let anchor = format!("director-{}", director.name);
        node(&anchor, &anchor, director.state.into(), label)
    };
    column(&view.directors, DIRECTORS, |d| d.state, one, "director")
}

/// The VIPs.
pub(super) fn vips(view: &ClusterView) -> Column<&VipView> {
    let one = |vip: &VipView| {
        let label = Label {
            name: vip.vip.to_string(),
            aside: "ECMP".to_owned(),
            figure: format!("{} of {}", vip.real.len(), vip.wanted.len()),
            what: "VIP",
        };
        let anchor = format!("vip-{}", vip.vip);
        node(&anchor, &anchor, vip.state.into(), label)
    };
    column(&view.vips, VIPS, |v| v.state, one, "VIP")
}

/// The real servers, one by one while they are few, a box a service beyond that.
pub(super) fn servers(view: &ClusterView) -> Column<(&ServiceView, &RealServerView)> {
    let total: usize = view.services.iter().map(|s| s.real_servers.len()).sum();
    let boxes = if total <= SERVERS {
        let of = |service| move |server| (service, server);
        let each = view
            .services
            .iter()
            .flat_map(|service| service.real_servers.iter().map(of(service)));
        each.map(|(service, server)| Placed {
            node: server_node(service, server),
            stands_for: vec![(service, server)],
        })
        .collect()
    } else {
        let services = column(
            &view.services,
            SERVICES,
            |s| s.state,
            service_node,
            "service",
        );
        let members = |service| {
            let service: &ServiceView = service;
            service.real_servers.iter().map(move |r| (service, r))
        };
        let services = services.boxes.into_iter().map(|placed| Placed {
            node: placed.node,
            stands_for: placed.stands_for.into_iter().flat_map(members).collect(),
        });
        services.collect()
    };
    Column {
        boxes,
        dense: false,
    }
}

fn server_node(service: &ServiceView, server: &RealServerView) -> Node {
    let anchor = format!(
        "{}-{}",
        service_anchor(&service.service.to_string()),
        server.real_server
    );
    let label = Label {
        name: server.real_server.to_string(),
        aside: String::new(),
        figure: format!("{}/s", Count(server.connections_per_second)),
        what: "real server",
    };
    node(&anchor, &anchor, server.state.into(), label)
}

fn service_node(service: &ServiceView) -> Node {
    let up = |r: &&RealServerView| r.state == State::Up;
    let count = service.real_servers.iter().filter(up).count();
    let label = Label {
        name: service.service.packets.to_string(),
        aside: String::new(),
        figure: format!("{count} of {}", service.real_servers.len()),
        what: "real servers of",
    };
    let anchor = service_anchor(&service.service.to_string());
    node(&anchor, &anchor, service.state.into(), label)
}

/// A box for each object, or where there are more than `limit`, for each that is not Up, with
/// one box that counts the rest of those and one that counts all that are.
fn column<'a, T>(
    all: &'a [T],
    limit: usize,
    state: impl Fn(&T) -> State,
    one: impl Fn(&T) -> Node,
    noun: &'static str,
) -> Column<&'a T> {
    let dense = all.len() > limit;
    let (up, other): (Vec<_>, Vec<_>) = all.iter().partition(|t| dense && state(t) == State::Up);
    let named = if dense { NAMED } else { limit };
    let mut boxes: Vec<_> = other
        .iter()
        .take(named)
        .map(|t| Placed {
            node: one(t),
            stands_for: vec![*t],
        })
        .collect();
    let mut count = |group: Vec<&'a T>, key: &str, status: Status, name: String| {
        if !group.is_empty() {
            let label = Label {
                name,
                ..Label::default()
            };
            boxes.push(Placed {
                node: node(
                    &format!("{noun} {key}"),
                    &format!("{}s", noun.to_lowercase()),
                    status,
                    label,
                ),
                stands_for: group,
            });
        }
    };
    let more = other.get(named..).unwrap_or_default().to_vec();
    let name = format!("+ {}", plural(more.len(), noun));
    count(more, "more", Status::new(Kind::Degraded, "Not up"), name);
    let name = plural(up.len(), noun);
    count(up, "rest", State::Up.into(), name);
    Column { boxes, dense }
}

/// What is written in a box.
#[derive(Default)]
struct Label {
    name: String,
    aside: String,
    figure: String,
    what: &'static str,
}

/// A box that has no place yet.
fn node(key: &str, anchor: &str, status: Status, label: Label) -> Node {
    let parts = [
        format!("{} {}", label.what, label.name),
        label.aside.clone(),
        status.word.to_owned(),
        label.figure.clone(),
    ];
    let parts: Vec<_> = parts
        .iter()
        .map(|p| p.trim())
        .filter(|p| !p.is_empty())
        .collect();
    let title = parts.join(", ");
    let fits = label.name.chars().count() + label.aside.chars().count() <= LINE;
    Node {
        key: key.to_owned(),
        anchor: anchor.to_owned(),
        x: 0,
        y: TOP.max(NODE_HEIGHT),
        status,
        name: shortened(&label.name),
        aside: if fits && label.aside != label.name {
            label.aside
        } else {
            String::new()
        },
        figure: label.figure,
        title,
    }
}

/// A name that fits the box; the whole one stands in its title.
fn shortened(name: &str) -> String {
    if name.chars().count() <= LINE {
        name.to_owned()
    } else {
        let kept: String = name.chars().take(LINE - 1).collect();
        format!("{kept}…")
    }
}
