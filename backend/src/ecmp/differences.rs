//! How what is wanted, what is said and what is real differ at this moment.

use std::collections::BTreeSet;

use isopath_api::ecmp::EcmpCode;
use isopath_api::ids::{DirectorName, NeighborState, RouterId};
use isopath_api::observed::Observed;
use isopath_api::speaker::Status;

use super::conditions::{Difference, Key};
use super::truth::{SwitchTruth, VipTruth, Wish};
use super::{Deaf, Equal};
use crate::clock::Moment;
use crate::control::state::{ClusterState, DirectorState, is_connected};

/// As many announcers of a route does a speaker list (`isopath_ospf::spf::MAX_WIDTH`).
const LISTED: usize = 64;
/// As many switches does a speaker's status name: one that is not among so many may be there.
const SWITCHES: usize = 16;

/// Every difference, by its identity.
pub(super) fn differences(
    cluster: &ClusterState,
    truths: &[VipTruth],
    now: Moment,
) -> Vec<(Key, Difference)> {
    let mut found = Found {
        cluster,
        now,
        differences: Vec::new(),
    };
    for truth in truths {
        if truth.is_known() {
            found.announcements(truth);
            found.foreign(truth);
            found.dissent(truth);
            for switch in &truth.switches {
                found.switch(truth, switch);
            }
        } else {
            found.unwitnessed(truth);
        }
    }
    found.unreached();
    found.differences
}

struct Found<'a> {
    cluster: &'a ClusterState,
    now: Moment,
    differences: Vec<(Key, Difference)>,
}

/// What a difference is about.
#[derive(Default)]
struct About<'a> {
    director: Option<&'a DirectorName>,
    router: Option<RouterId>,
    of: Option<&'a VipTruth>,
}

impl Found<'_> {
    fn add(&mut self, code: EcmpCode, about: &About<'_>, cause: String, next: &'static str) {
        let key = Key {
            code,
            director: about.director.cloned(),
            router: about.router,
            vip: about.of.map(|truth| truth.vip),
        };
        self.differences.push((key, Difference { cause, next }));
    }

    fn unwitnessed(&mut self, truth: &VipTruth) {
        let early = |(_, why): &(DirectorName, Deaf)| *why == Deaf::NotYetHeard;
        let Some((name, _)) = truth.deaf.first() else {
            return;
        };
        // Nor is it known what those would say that have not reported again yet.
        if truth.deaf.iter().any(early) {
            return;
        }
        let more = match truth.deaf.len() - 1 {
            0 => String::new(),
            1 => " nor that of another director".to_owned(),
            more => format!(" nor those of {more} others"),
        };
        let cause =
            format!("nobody knows who announces it: the LSDB of {name} cannot be counted{more}");
        let about = About {
            of: Some(truth),
            ..About::default()
        };
        let next = "see why the directors' reports do not arrive or their neighbours are not Full";
        self.add(EcmpCode::NoWitness, &about, cause, next);
    }

    fn announcements(&mut self, truth: &VipTruth) {
        let cluster = self.cluster;
        for (name, director) in &cluster.directors {
            let about = About {
                director: Some(name),
                of: Some(truth),
                ..About::default()
            };
            let announced = truth.announcers.contains(&director.router_id);
            match (truth.wishes.get(name), announced) {
                (Some(Wish::Announce { .. }), false) => {
                    let (cause, next) = why_not(truth, director, self.now);
                    self.add(EcmpCode::VipNotAnnounced, &about, cause, next);
                }
                (Some(Wish::Out), true) => {
                    let cause = "it is to be out, and still announces it".to_owned();
                    let next = "see whether an override on the director announces it, and \
                                whether isopath-agent runs there";
                    self.add(EcmpCode::AnnouncingWhileDrained, &about, cause, next);
                }
                (Some(Wish::Announce { .. }), true)
                | (Some(Wish::Leaving), true | false)
                | (Some(Wish::Out), false)
                | (None, true | false) => {}
            }
        }
    }

    fn foreign(&mut self, truth: &VipTruth) {
        let foreign = truth.announcers.iter().copied();
        for router in foreign.filter(|router| self.cluster.director_of(*router).is_none()) {
            let about = About {
                router: Some(router),
                of: Some(truth),
                ..About::default()
            };
            let cause = format!("announced by {router}, which is no director");
            let next = "find the router of that id: a director removed from the declaration goes \
                        on announcing until its speaker is stopped";
            self.add(EcmpCode::ForeignAnnouncer, &about, cause, next);
        }
    }

    fn dissent(&mut self, truth: &VipTruth) {
        let mut told = BTreeSet::new();
        let of_announcers = truth.dissent.iter();
        let of_announcers = of_announcers.map(|it| {
            let has = self.names(&it.has);
            let most = self.names(&truth.announcers);
            let what = format!("its LSDB has it announced by {has}, most have {most}");
            (&it.witness, what)
        });
        let of_sets = truth.switches.iter().flat_map(|of| {
            of.dissent.iter().map(|it| {
                let (switch, most) = (of.switch, of.equal.width);
                let has = it.has.width;
                let what =
                    format!("by its LSDB the ECMP width of {switch} is {has}, by most {most}");
                (&it.witness, what)
            })
        });
        let all: Vec<_> = of_announcers.chain(of_sets).collect();
        for (witness, cause) in all {
            if told.insert(witness) {
                let about = About {
                    director: Some(witness),
                    of: Some(truth),
                    ..About::default()
                };
                let next = "compare `isopath lsdb` on the directors: flooding to one of them is \
                            broken, or the network is parted";
                self.add(EcmpCode::WitnessesDisagree, &about, cause, next);
            }
        }
    }

    fn switch(&mut self, truth: &VipTruth, switch: &SwitchTruth) {
        let Equal { through, width, .. } = &switch.equal;
        let at_switch = About {
            router: Some(switch.switch),
            of: Some(truth),
            ..About::default()
        };
        if through.is_empty() {
            if !truth.announcers.is_empty() {
                let by = self.names(&truth.announcers);
                let cause = format!("it has no path to it, though it is announced by {by}");
                let next = "see the OSPF neighbours of the switch";
                self.add(EcmpCode::SwitchSeesNothing, &at_switch, cause, next);
            }
            return;
        }
        let (mut expected, mut missing) = (0_usize, 0_usize);
        let cluster = self.cluster;
        let is_adjacent = is_adjacent(cluster, switch.switch, self.now);
        for (name, director) in &cluster.directors {
            let about = About {
                director: Some(name),
                ..at_switch
            };
            let inside = through.contains(&director.router_id);
            if inside {
                self.inside(truth, switch, name, &about);
            }
            let Some(uplink) = is_adjacent
                .then(|| meant_by(truth, switch, (name, director), self.now))
                .flatten()
            else {
                continue;
            };
            expected += 1;
            if !inside {
                missing += 1;
                let (cause, next) = why_outside(truth, switch, name, uplink);
                self.add(EcmpCode::AnnouncedNotInSet, &about, cause, next);
            }
        }
        self.width(&at_switch, through, *width, (expected, missing));
    }

    fn width(
        &mut self,
        about: &About<'_>,
        through: &BTreeSet<RouterId>,
        width: u32,
        (expected, missing): (usize, usize),
    ) {
        let most = usize::from(self.cluster.declaration.max_paths);
        let width = usize::try_from(width).unwrap_or(usize::MAX);
        if width < expected {
            let why = match missing {
                0 => "; some of them share a next hop".to_owned(),
                1 => "; one of them is not in its set".to_owned(),
                missing => format!("; {missing} of them are not in its set"),
            };
            let cause = format!(
                "its ECMP width is {width}, and {expected} directors announce it at the lowest \
                 cost{why}"
            );
            let next = "compare the OSPF costs of the links between the switch and the directors";
            self.add(EcmpCode::WidthBelowAnnouncers, about, cause, next);
        } else if through.len() > most {
            let cause = format!(
                "{} routers share the lowest cost, and max_paths is {most}: it uses {most} of them",
                through.len()
            );
            let next = "find the routers that are no directors, or raise the switch's limit and \
                        max_paths";
            self.add(EcmpCode::WidthBelowAnnouncers, about, cause, next);
        }
    }

    /// A director that is in the equal-cost set of a switch.
    fn inside(
        &mut self,
        truth: &VipTruth,
        switch: &SwitchTruth,
        name: &DirectorName,
        about: &About<'_>,
    ) {
        let with_lowest = || {
            let lowest = truth.lowest.iter();
            let routers = lowest.filter_map(|name| self.cluster.directors.get(name));
            let mut routers = routers.map(|director| director.router_id);
            routers.any(|router| switch.equal.through.contains(&router))
        };
        match truth.wishes.get(name) {
            Some(Wish::Out) => {
                let cause = "it is to be out, and the switch still sends it clients".to_owned();
                let next = "see whether isopath-speaker still announces it there";
                self.add(EcmpCode::InSetNotWanted, about, cause, next);
            }
            // A backup alone is what a backup is for.
            Some(Wish::Announce { cost }) if !truth.lowest.contains(name) && with_lowest() => {
                let cause = format!(
                    "it is a backup of cost {cost}, and the switch uses it beside those of the \
                     lowest cost"
                );
                let next = "compare the OSPF costs of the links between the switch and the \
                            directors: they add to the VIP's";
                self.add(EcmpCode::InSetNotWanted, about, cause, next);
            }
            Some(Wish::Announce { .. } | Wish::Leaving) | None => {}
        }
    }

    /// Declared switches that no database reaches.
    fn unreached(&mut self) {
        let cluster = self.cluster;
        let now = self.now;
        let speakers: Vec<&Status> = cluster
            .directors
            .values()
            .filter_map(|director| director.fresh(now))
            .filter(|observed| is_connected(observed))
            .filter_map(|observed| observed.speaker.as_ref())
            .filter(|speaker| !speaker.widths.is_empty())
            .collect();
        let is_full = |speaker: &&Status| {
            let routers: BTreeSet<_> = speaker.widths.iter().map(|it| it.router_id).collect();
            routers.len() >= SWITCHES
        };
        if speakers.is_empty() || speakers.iter().any(is_full) {
            return;
        }
        for switch in &cluster.declaration.switch {
            let is_it = |router: RouterId| router == switch.router_id;
            let reached = speakers.iter().any(|speaker| {
                speaker.widths.iter().any(|it| is_it(it.router_id))
                    || speaker.neighbors.iter().any(|it| is_it(it.router_id))
            });
            if !reached {
                let about = About {
                    router: Some(switch.router_id),
                    ..About::default()
                };
                let cause = format!("no director's LSDB reaches {}", switch.name);
                let next = "see whether it runs and has the declared router id";
                self.add(EcmpCode::SwitchNotReached, &about, cause, next);
            }
        }
    }

    fn names(&self, routers: &BTreeSet<RouterId>) -> String {
        let name = |router: &RouterId| {
            let director = self.cluster.director_of(*router);
            director.map_or_else(|| router.to_string(), ToString::to_string)
        };
        let names: Vec<String> = routers.iter().map(name).collect();
        match names.as_slice() {
            [] => "nobody".to_owned(),
            names => names.join(", "),
        }
    }
}

/// Whether some director is Full with a router: a router farther away spreads a VIP over its own
/// next hops, not over directors.
fn is_adjacent(cluster: &ClusterState, router: RouterId, now: Moment) -> bool {
    let reports = cluster.directors.values();
    let mut speakers = reports
        .filter_map(|director| director.fresh(now))
        .filter_map(|observed| observed.speaker.as_ref());
    speakers.any(|speaker| {
        let mut neighbors = speaker.neighbors.iter();
        neighbors.any(|it| it.router_id == router && it.state == NeighborState::Full)
    })
}

/// How many directors a switch should spread a VIP over, as things are: those that announce it at
/// the lowest cost wanted, as far as they are in its set or meant to be its neighbours.
pub fn meant(cluster: &ClusterState, truth: &VipTruth, switch: &SwitchTruth, now: Moment) -> usize {
    if !is_adjacent(cluster, switch.switch, now) {
        return 0;
    }
    let directors = cluster.directors.iter();
    let meant = directors.filter(|of| meant_by(truth, switch, *of, now).is_some());
    meant.count()
}

/// How a director is tied to a switch whose set it should be in; nothing where it should not, or
/// cannot say.
fn meant_by(
    truth: &VipTruth,
    switch: &SwitchTruth,
    (name, director): (&DirectorName, &DirectorState),
    now: Moment,
) -> Option<Uplink> {
    let announces = truth.announcers.contains(&director.router_id);
    if !announces || !truth.lowest.contains(name) {
        return None;
    }
    if switch.equal.through.contains(&director.router_id) {
        return Some(Uplink::Full);
    }
    let observed = director.fresh(now)?;
    uplink(observed.speaker.as_ref()?, switch.switch)
}

/// How a director is tied to a switch that it should be in the set of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Uplink {
    Full,
    Not(NeighborState),
    /// It does not see it, and has an interface without a Full neighbour.
    Unseen {
        interface: String,
    },
}

/// How a director is tied to a switch; nothing where it is not meant to be.
fn uplink(speaker: &Status, switch: RouterId) -> Option<Uplink> {
    let mut ties = speaker.neighbors.iter().filter(|it| it.router_id == switch);
    if let Some(first) = ties.clone().next() {
        let full = ties.any(|it| it.state == NeighborState::Full);
        return Some(if full {
            Uplink::Full
        } else {
            Uplink::Not(first.state)
        });
    }
    let is_idle = |interface: &str| {
        let mut neighbors = speaker.neighbors.iter();
        !neighbors.any(|it| it.interface == interface && it.state == NeighborState::Full)
    };
    let idle = speaker.interfaces.iter().find(|it| is_idle(&it.name))?;
    Some(Uplink::Unseen {
        interface: idle.name.clone(),
    })
}

/// Why a director that announces a VIP is not in the set of a switch.
fn why_outside(
    truth: &VipTruth,
    switch: &SwitchTruth,
    name: &DirectorName,
    uplink: Uplink,
) -> (String, &'static str) {
    let neighbours = "see `isopath neighbors` on the director, and the switch's neighbours";
    let costs = "compare the OSPF costs of the links between the switch and the directors";
    let wished = match truth.wishes.get(name) {
        Some(Wish::Announce { cost }) => Some(*cost),
        Some(Wish::Leaving | Wish::Out) | None => None,
    };
    let said = truth.said.get(name).map(|said| said.cost);
    match (uplink, wished, said) {
        (Uplink::Not(state), _, _) => (
            format!("it announces it, but its adjacency with the switch is {state}"),
            neighbours,
        ),
        (Uplink::Unseen { interface }, _, _) => (
            format!(
                "it announces it, but has no adjacency with the switch: its uplink {interface} \
                 has no Full neighbour"
            ),
            neighbours,
        ),
        (Uplink::Full, Some(wished), Some(said)) if wished < said => (
            format!("it announces it at cost {said}, {wished} is declared"),
            "see whether an override on the director announces it at another cost",
        ),
        (Uplink::Full, _, _) if switch.equal.through.len() >= LISTED => (
            format!("{LISTED} others share the lowest cost, more are not used"),
            "find the routers that are no directors",
        ),
        (Uplink::Full, _, _) => (
            match switch.equal.cost {
                Some(cost) => format!("its path costs more than the {cost} of those in the set"),
                None => "the switch has no path through it".to_owned(),
            },
            costs,
        ),
    }
}

/// Why a director does not announce a VIP that it should.
fn why_not(truth: &VipTruth, director: &DirectorState, now: Moment) -> (String, &'static str) {
    let Some(observed) = director.fresh(now) else {
        let what = match director.report {
            Some(_) => "its agent is silent, and no LSDB has it announce it",
            None => "its agent was never heard, and no LSDB has it announce it",
        };
        let next = "see on the director whether isopath-agent runs and reaches the controller";
        return (what.to_owned(), next);
    };
    if observed.speaker.is_none() {
        return (
            "its agent cannot reach its speaker".to_owned(),
            "see on the director whether isopath-speaker runs",
        );
    }
    decided_not(truth, observed).unwrap_or_else(|| {
        if !is_connected(observed) {
            return (
                "no OSPF neighbour of it is Full".to_owned(),
                "see `isopath neighbors` on the director",
            );
        }
        (
            "it wants to announce it, and the LSDBs do not have it".to_owned(),
            "see the log of isopath-speaker on the director",
        )
    })
}

/// The agent's own decision not to announce it.
fn decided_not(truth: &VipTruth, observed: &Observed) -> Option<(String, &'static str)> {
    let decision = observed.vips.iter().find(|it| it.vip == truth.vip);
    let Some(decision) = decision else {
        return Some((
            "its agent does not know of it yet".to_owned(),
            "see whether the director has taken the generation that is wanted of it",
        ));
    };
    if decision.cost.is_some() {
        return None;
    }
    let next = decision.reason.remedy();
    Some((
        format!("its agent withholds it: {}", decision.reason),
        next.unwrap_or("see the log of isopath-agent on the director"),
    ))
}
