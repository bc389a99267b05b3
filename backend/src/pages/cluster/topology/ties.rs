//! What joins two boxes of the picture.

use isopath_api::desired::AdminState;
use isopath_api::ids::NeighborState;
use isopath_api::view::{DirectorView, RealServerView, ServiceView, State, SwitchView, VipView};
use jiff::Timestamp;

use crate::pages::cluster::is_silent;
use crate::pages::status::{Kind, Status};

/// How a line is drawn, the better first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Line {
    /// Solid: it is there.
    Whole,
    /// Solid with a `!`: it is there for some directors only.
    Partly,
    /// Dotted: on its way out, or out, on an operator's word.
    Draining,
    /// Dashed with a `?`: nothing was heard of it lately.
    Unknown,
    /// Dashed with a `!`: wanted but missing.
    Missing,
}

impl Line {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Partly => "partly",
            Self::Draining => "leaving",
            Self::Unknown => "unheard",
            Self::Missing => "missing",
        }
    }

    /// The glyph in the line's middle.
    pub(super) fn glyph(self) -> Option<&'static str> {
        match self {
            Self::Whole | Self::Draining => None,
            Self::Unknown => Some(Kind::Unknown.class()),
            Self::Partly | Self::Missing => Some(Kind::Degraded.class()),
        }
    }
}

/// What joins two objects.
#[derive(Debug, PartialEq)]
pub(super) struct Tie {
    pub(super) line: Line,
    pub(super) status: Status,
    pub(super) note: String,
}

impl Tie {
    fn new(line: Line, kind: Kind, word: &'static str, note: impl Into<String>) -> Self {
        Self {
            line,
            status: Status::new(kind, word),
            note: note.into(),
        }
    }
}

/// Of the lines between two boxes that stand for several objects, the one to draw.
pub(super) fn worst(ties: impl Iterator<Item = Tie>) -> Option<Tie> {
    ties.reduce(|worst, tie| if tie.line > worst.line { tie } else { worst })
}

/// The adjacency of a director with a switch, as the director reports it.
pub(super) fn switch_director(switch: &SwitchView, director: &DirectorView, now: Timestamp) -> Tie {
    let neighbor = director
        .neighbors
        .iter()
        .filter(|n| n.router_id == switch.router_id)
        .max_by_key(|n| n.state);
    if is_silent(director, now) {
        return Tie::new(
            Line::Unknown,
            Kind::Unknown,
            "Unknown",
            "not heard of lately",
        );
    }
    match neighbor {
        Some(n) if n.state == NeighborState::Full => {
            Tie::new(Line::Whole, Kind::Up, "Full", format!("on {}", n.interface))
        }
        Some(n) => Tie {
            line: Line::Missing,
            status: n.state.into(),
            note: format!("on {}, not Full", n.interface),
        },
        None => Tie::new(Line::Missing, Kind::Down, "Down", "no adjacency"),
    }
}

/// A director's announcement of a VIP, as the LSDBs have it.
pub(super) fn director_vip(director: &DirectorView, vip: &VipView, now: Timestamp) -> Tie {
    let real = vip.real.contains(&director.name);
    let seen = director.vips.iter().find(|v| v.vip == vip.vip);
    let why = || seen.map_or_else(String::new, |v| v.reason_text.clone());
    if director.admin_state != AdminState::Active {
        return if real {
            Tie::new(Line::Draining, Kind::Draining, "Withdrawing", why())
        } else {
            Tie::new(Line::Draining, Kind::Safe, "Withdrawn", why())
        };
    }
    if real {
        let cost = seen.and_then(|v| v.cost);
        let note = cost.map_or_else(String::new, |cost| format!("cost {cost}"));
        return Tie::new(Line::Whole, Kind::Up, "Announced", note);
    }
    if is_silent(director, now) {
        return Tie::new(
            Line::Unknown,
            Kind::Unknown,
            "Unknown",
            "not heard of lately",
        );
    }
    Tie::new(Line::Missing, Kind::Down, "Missing", why())
}

/// The health of a VIP's real servers, one by one or a whole service; nothing where they are
/// another VIP's.
pub(super) fn vip_servers(
    vips: &[&VipView],
    servers: &[(&ServiceView, &RealServerView)],
) -> Option<Tie> {
    let own = |(service, _): &&(&ServiceView, &RealServerView)| {
        vips.iter().any(|v| v.vip == service.service.vip)
    };
    let states: Vec<State> = servers.iter().filter(own).map(|(_, r)| r.state).collect();
    let up = states.iter().filter(|s| **s == State::Up).count();
    match states.as_slice() {
        [] => None,
        [only] => Some(vip_server(*only)),
        all if up == all.len() => Some(Tie::new(Line::Whole, Kind::Up, "Up", "all are up")),
        all => {
            let note = format!("{up} of {} up", all.len());
            Some(if up > 0 {
                Tie::new(Line::Partly, Kind::Degraded, "Degraded", note)
            } else {
                Tie::new(Line::Missing, Kind::Down, "Down", note)
            })
        }
    }
}

fn vip_server(state: State) -> Tie {
    let (line, note) = match state {
        State::Up => (Line::Whole, ""),
        State::Degraded => (Line::Partly, "directors disagree"),
        State::Draining | State::Safe => (Line::Draining, "taken out by an operator"),
        State::Unknown => (Line::Unknown, "not heard of lately"),
        State::Down => (Line::Missing, "its checks fail"),
    };
    Tie {
        line,
        status: state.into(),
        note: note.to_owned(),
    }
}
