//! The picture: switches, directors, VIPs and real servers in four columns, with the lines
//! that the neighbours and the link-state databases tell of. The same stands in a table.
//!
//! It is laid out here, in pixels: every object keeps its place while it is absent, and a
//! cluster too large for the picture is counted where all is well and named where it is not.

mod columns;
mod ties;

use askama::Template;
use isopath_api::view::ClusterView;

use self::columns::Column;
use self::ties::{Line, Tie, director_vip, switch_director, vip_servers, worst};
use crate::pages::status::Status;

const NODE_WIDTH: u32 = 168;
const NODE_HEIGHT: u32 = 48;
const PITCH: u32 = 60;
const COLUMN_PITCH: u32 = 248;
/// The room above the first node, for the columns' headings.
const TOP: u32 = 32;
/// The room for a focus ring at the picture's edge.
const MARGIN: u32 = 4;

#[derive(Template, Debug, PartialEq)]
#[template(path = "cluster/topology.html")]
pub(crate) struct Topology {
    width: u32,
    height: u32,
    headings: [Heading; 4],
    edges: Vec<Edge>,
    nodes: Vec<Node>,
    links: Vec<Link>,
    /// Whether lines were left out because there are too many.
    dense: bool,
}

#[derive(Debug, PartialEq)]
struct Heading {
    x: u32,
    text: &'static str,
}

/// A box of the picture.
#[derive(Debug, PartialEq)]
struct Node {
    key: String,
    /// The id of what it stands for in the tables below.
    anchor: String,
    x: u32,
    y: u32,
    status: Status,
    name: String,
    aside: String,
    figure: String,
    /// Everything about it in one line, whatever does not fit the box.
    title: String,
}

/// A line between two boxes.
#[derive(Debug, PartialEq)]
struct Edge {
    key: String,
    path: String,
    line: Line,
    /// Its middle, where a line that is wanted and missing has its mark.
    middle: (u32, u32),
}

/// A line of the picture as a row of its table.
#[derive(Debug, PartialEq)]
struct Link {
    key: String,
    from: String,
    to: String,
    status: Status,
    note: String,
}

impl Topology {
    pub(super) fn new(view: &ClusterView) -> Self {
        let mut switches = columns::switches(view);
        let mut directors = columns::directors(view);
        let mut vips = columns::vips(view);
        let mut servers = columns::servers(view);
        let lengths = [
            switches.boxes.len(),
            directors.boxes.len(),
            vips.boxes.len(),
            servers.boxes.len(),
        ];
        let rows = lengths.into_iter().max().unwrap_or_default().max(1);
        let rows = u32::try_from(rows).unwrap_or(u32::MAX / PITCH);
        switches.place(0, rows);
        directors.place(1, rows);
        vips.place(2, rows);
        servers.place(3, rows);

        let mut drawing = Drawing::default();
        drawing.connect(&switches, &directors, |switches, directors| {
            worst(pairs(switches, directors).map(|(s, d)| switch_director(s, d, view.as_of)))
        });
        if !vips.dense {
            drawing.connect(&directors, &vips, |directors, vips| {
                worst(pairs(directors, vips).map(|(d, v)| director_vip(d, v, view.as_of)))
            });
            drawing.connect(&vips, &servers, vip_servers);
        }
        Self {
            width: column_x(3) + NODE_WIDTH + MARGIN,
            height: TOP + rows * PITCH - (PITCH - NODE_HEIGHT) + MARGIN,
            headings: [
                (0, "Switch"),
                (1, "Directors"),
                (2, "VIPs"),
                (3, "Real servers"),
            ]
            .map(|(column, text)| Heading {
                x: column_x(column),
                text,
            }),
            edges: drawing.edges,
            links: drawing.links,
            dense: vips.dense,
            nodes: (switches.nodes())
                .chain(directors.nodes())
                .chain(vips.nodes())
                .chain(servers.nodes())
                .collect(),
        }
    }
}

fn column_x(column: u32) -> u32 {
    MARGIN + column * COLUMN_PITCH
}

fn pairs<'a, A, B>(a: &'a [A], b: &'a [B]) -> impl Iterator<Item = (&'a A, &'a B)> {
    a.iter().flat_map(move |a| b.iter().map(move |b| (a, b)))
}

#[derive(Default)]
struct Drawing {
    edges: Vec<Edge>,
    links: Vec<Link>,
}

impl Drawing {
    /// Draws the lines between two neighbouring columns.
    fn connect<A, B>(
        &mut self,
        left: &Column<A>,
        right: &Column<B>,
        tie: impl Fn(&[A], &[B]) -> Option<Tie>,
    ) {
        for (from, to) in pairs(&left.boxes, &right.boxes) {
            if let Some(tie) = tie(&from.stands_for, &to.stands_for) {
                self.draw(&from.node, &to.node, tie);
            }
        }
    }

    fn draw(&mut self, from: &Node, to: &Node, tie: Tie) {
        let key = format!("{} {}", from.key, to.key);
        let (x1, y1) = (from.x + NODE_WIDTH, from.y + NODE_HEIGHT / 2);
        let (x2, y2) = (to.x, to.y + NODE_HEIGHT / 2);
        let middle = ((x1 + x2) / 2, (y1 + y2) / 2);
        self.edges.push(Edge {
            path: format!("M{x1} {y1}C{m} {y1} {m} {y2} {x2} {y2}", m = middle.0),
            key: format!("edge {key}"),
            line: tie.line,
            middle,
        });
        self.links.push(Link {
            key: format!("link {key}"),
            from: from.name.clone(),
            to: to.name.clone(),
            status: tie.status,
            note: tie.note,
        });
    }
}
