//! The properties, numbered as in docs/TESTING.md. Each is a function that says what it found
//! where it does not hold. 14, and what concerns BFD in 13, is asserted in
//! `ospf-speaker/bfd/tests`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use isopath_ospf::packet::{
    ExternalLsa, Hello, LsType, Lsa, LsaHeader, LsaKey, MAX_AGE, Packet, RouterLsa,
};
use isopath_ospf::{Event, ExternalKind, LinkKind, NeighborView, Router, RouterId, State};

use crate::network::{End, Network, Node, Time};
use crate::scenario::is_vip;
use crate::speaker::Wanted;
use crate::watch::{self, Departure, Instance, View, database, instance, is_synchronizing};
use crate::words;

/// Full adjacencies are expected this long after all faults are gone: a dead interval to notice,
/// one to elect, and two rounds of a switch's RxmtInterval.
pub(crate) const RECOVERY: Duration = Duration::from_secs(40);
/// A packet's way through the network, with every hop's.
const TRAVEL: Duration = Duration::from_millis(100);
/// The speakers' RxmtInterval.
pub(crate) const RXMT: Duration = Duration::from_secs(1);
/// More LSAs than a scenario has routers, segments, addresses and externals.
const MOST_LSAS: usize = 400;

/// A property that does not hold.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) property: u8,
    pub(crate) what: String,
    pub(crate) moment: Time,
    pub(crate) node: Option<usize>,
}

impl Violation {
    fn new(property: u8, what: String) -> Self {
        Self {
            property,
            what,
            moment: Time::ZERO,
            node: None,
        }
    }

    pub(crate) fn at(self, moment: Time, node: usize) -> Self {
        Self {
            moment,
            node: Some(node),
            ..self
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "property {} at {:.4} s",
            self.property,
            self.moment.as_secs_f64()
        )?;
        if let Some(node) = self.node {
            write!(f, ", node {node}")?;
        }
        write!(f, ": {}", self.what)
    }
}

fn holds(property: u8, condition: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if condition {
        Ok(())
    } else {
        Err(Violation::new(property, what()))
    }
}

/// 1: when all is quiet, every database is the same.
pub(crate) fn quiescence_means_one_database(network: &Network) -> Result<(), Violation> {
    let mut databases = Vec::new();
    for (index, node) in network.nodes.iter().enumerate() {
        if let Some(database) = live_database(network, node) {
            databases.push((index, database));
        }
    }
    let Some((first, rest)) = databases.split_first() else {
        return Ok(());
    };
    for other in rest {
        let only = |a: &Live, b: &Live| -> Vec<String> {
            let missing = a.iter().filter(|(key, it)| b.get(key) != Some(it));
            missing.map(|(key, it)| format!("{key:?} {it:?}")).collect()
        };
        let (mine, theirs) = (only(&first.1, &other.1), only(&other.1, &first.1));
        holds(1, mine.is_empty() && theirs.is_empty(), || {
            format!(
                "all is quiet, and nodes {} and {} differ: {mine:?} against {theirs:?}",
                first.0, other.0
            )
        })
        .map_err(|violation| violation.at(network.now, other.0))?;
    }
    Ok(())
}

type Live = BTreeMap<LsaKey, (i32, u16)>;

fn live_database(network: &Network, node: &Node) -> Option<Live> {
    match node {
        Node::Speaker(speaker) => {
            let database = database(speaker.router.as_ref()?, network.instant());
            let live = database.into_values().filter(|header| header.age < MAX_AGE);
            Some(
                live.map(|header| (header.key, (header.sequence, header.checksum)))
                    .collect(),
            )
        }
        Node::Switch(switch) => {
            let database = switch.database(network.now).into_iter();
            Some(
                database
                    .map(|(key, sequence, checksum)| (key, (sequence, checksum)))
                    .collect(),
            )
        }
        Node::Off(_) => None,
    }
}

/// 2: on a network without faults every switch has the latest set of addresses within the pace
/// and a RxmtInterval after the last change. `since` is that of the speaker.
pub(crate) fn the_last_wanted_set_arrives_in_time(
    network: &Network,
    speaker: usize,
    since: Time,
) -> Result<(), Violation> {
    let Node::Speaker(it) = &network.nodes[speaker] else {
        return Ok(());
    };
    if it.router.is_none() || network.now < since + it.watch.gap() + RXMT + TRAVEL {
        return Ok(());
    }
    let wanted = hosts_of(&it.wanted);
    for (index, node) in network.nodes.iter().enumerate() {
        if let Node::Switch(switch) = node {
            let found = switch.lsas_of(network.now, it.id());
            let found: BTreeSet<Host> = found.flat_map(|(key, body)| hosts_in(key, body)).collect();
            holds(2, found == wanted, || {
                format!(
                    "{:?} after the last change node {speaker} wants {wanted:?} and the switch has \
                     {found:?}",
                    network.now - since
                )
            })
            .map_err(|violation| violation.at(network.now, index))?;
        }
    }
    Ok(())
}

/// An announced host: its address, how it is announced (0 as a stub, else the external metric's
/// type), at which metric.
type Host = (Ipv4Addr, u8, u32);

fn external_kind(kind: ExternalKind) -> u8 {
    match kind {
        ExternalKind::Type1 => 1,
        ExternalKind::Type2 => 2,
    }
}

fn hosts_of(wanted: &Wanted) -> BTreeSet<Host> {
    let stubs = wanted.stubs.iter();
    let stubs = stubs.map(|stub| (stub.prefix, 0, u32::from(stub.metric)));
    let externals = wanted.externals.iter();
    let externals = externals.map(|it| (it.prefix, external_kind(it.kind), u32::from(it.metric)));
    stubs.chain(externals).collect()
}

/// The hosts that an LSA announces.
fn hosts_in(key: LsaKey, body: &[u8]) -> Vec<Host> {
    match key.ls_type {
        LsType::Router => {
            let links = RouterLsa::decode(body).map_or_else(|_| Vec::new(), |lsa| lsa.links);
            let is_host =
                |link: &&isopath_ospf::RouterLink| link.kind == LinkKind::Stub && is_vip(link.id);
            let hosts = links.iter().filter(is_host);
            hosts
                .map(|link| (link.id, 0, u32::from(link.metric)))
                .collect()
        }
        LsType::AsExternal | LsType::Nssa => ExternalLsa::decode(body)
            .ok()
            .map(|lsa| {
                (
                    key.link_state_id,
                    external_kind(lsa.kind),
                    lsa.metric.value(),
                )
            })
            .into_iter()
            .collect(),
        LsType::Network
        | LsType::SummaryNetwork
        | LsType::SummaryAsbr
        | LsType::OpaqueLink
        | LsType::OpaqueArea
        | LsType::OpaqueAs
        | LsType::Unknown(_) => Vec::new(),
    }
}

/// 3: no two instances of an own LSA leave within the neighbours' MinLSArrival and the margin.
/// Answers to copies from the network (§13.4) are not asked.
pub(crate) fn instances_keep_their_distance(
    header: &LsaHeader,
    last: Option<Departure>,
    now: Departure,
    gap: Duration,
) -> Result<(), Violation> {
    let Some(last) = last else {
        return Ok(());
    };
    holds(3, now.at - last.at >= gap, || {
        format!(
            "{} left {:?} after instance {:#x}, sooner than {gap:?}",
            words::header(header),
            now.at - last.at,
            last.sequence
        )
    })
}

/// 4: the first instance after a restart with a kept hint is above all that ever left.
pub(crate) fn the_sequence_rises_across_a_crash(
    header: &LsaHeader,
    floor: Option<i32>,
) -> Result<(), Violation> {
    let Some(floor) = floor else {
        return Ok(());
    };
    holds(4, header.sequence > floor, || {
        format!(
            "{} is the first of this run, and {floor:#x} left before",
            words::header(header)
        )
    })
}

/// 5, first half: what was discarded is not acknowledged.
pub(crate) fn only_what_was_taken_is_acknowledged(
    header: &LsaHeader,
    taken: &BTreeSet<Instance>,
) -> Result<(), Violation> {
    holds(5, taken.contains(&instance(header)), || {
        format!(
            "{} is acknowledged and was not taken",
            words::header(header)
        )
    })
}

/// 5, second half: what a neighbour has acknowledged it is not sent again.
pub(crate) fn what_was_acknowledged_is_not_sent_again(
    header: &LsaHeader,
    acknowledged: Option<&BTreeSet<Instance>>,
) -> Result<(), Violation> {
    let is_acknowledged = acknowledged.is_some_and(|them| them.contains(&instance(header)));
    holds(5, !is_acknowledged, || {
        format!(
            "{} is sent to one that has acknowledged it",
            words::header(header)
        )
    })
}

/// 6, first half: an LSA at MaxAge leaves as soon as nobody holds it (§14).
pub(crate) fn max_age_leaves_when_nobody_holds_it(
    view: &View<'_>,
    leaving: &BTreeSet<LsaKey>,
) -> Result<(), Violation> {
    let is_held = is_synchronizing(view.router)
        || view
            .router
            .neighbors()
            .any(|neighbor| neighbor.unacknowledged > 0);
    // An LSA that turns MaxAge at this very moment has its timer still to come.
    let is_due = view
        .router
        .poll_timeout()
        .is_some_and(|at| at <= view.instant);
    holds(6, is_held || is_due || leaving.is_empty(), || {
        format!("nobody holds {leaving:?}, which is at MaxAge and in the database")
    })
}

/// 6, second half: and no sooner.
pub(crate) fn max_age_stays_while_somebody_holds_it(
    view: &View<'_>,
    key: &LsaKey,
    holders: Option<&BTreeSet<(usize, Ipv4Addr)>>,
) -> Result<(), Violation> {
    // Who entered Exchange with this very input may have done so after the LSA left.
    let entered = view.events.iter().any(|event| {
        matches!(event, Event::NeighborState { from, to, .. }
            if *from < State::Exchange && *to >= State::Exchange)
    });
    holds(6, entered || !is_synchronizing(view.router), || {
        format!("{key:?} at MaxAge left the database while a neighbour is in Exchange or Loading")
    })?;
    holds(6, holders.is_none_or(BTreeSet::is_empty), || {
        format!("{key:?} at MaxAge left the database before {holders:?} acknowledged it")
    })
}

/// 7: the links of our Router-LSA to routers and transit networks cost 0xffff.
pub(crate) fn transit_costs_the_maximum(lsa: &Lsa) -> Result<(), Violation> {
    if lsa.key().ls_type != LsType::Router {
        return Ok(());
    }
    let router_lsa = RouterLsa::decode(lsa.body())
        .map_err(|error| Violation::new(7, format!("our Router-LSA cannot be read: {error}")))?;
    for link in router_lsa.links {
        let is_stub = link.kind == LinkKind::Stub;
        holds(7, is_stub || link.metric == 0xffff, || {
            format!("transit below 0xffff: {link:?}")
        })?;
    }
    Ok(())
}

/// 8: priority 0, and never in the place of a Designated Router or its Backup.
pub(crate) fn never_designated(hello: &Hello, own: Option<Ipv4Addr>) -> Result<(), Violation> {
    holds(8, hello.priority == 0, || {
        format!("a Hello with priority {}", hello.priority)
    })?;
    let named = [hello.dr, hello.bdr];
    holds(8, own.is_none_or(|own| !named.contains(&own)), || {
        format!(
            "a Hello names ourselves: dr {}, bdr {}",
            hello.dr, hello.bdr
        )
    })
}

/// 8: a Network-LSA is a Designated Router's. One that the network has under our name we may
/// only flush.
pub(crate) fn we_originate_no_network(header: &LsaHeader) -> Result<(), Violation> {
    let is_network = header.key.ls_type == LsType::Network;
    holds(8, !is_network || header.age >= MAX_AGE, || {
        format!("{} is originated by us", words::header(header))
    })
}

/// 9: a neighbour that is Full has nothing that it described and we lack.
pub(crate) fn full_means_nothing_left_to_request(
    view: &View<'_>,
    described: &BTreeMap<LsaKey, LsaHeader>,
    taken: &BTreeSet<Instance>,
) -> Result<(), Violation> {
    let database = database(view.router, view.instant);
    for header in described.values() {
        let has = database
            .get(&header.key)
            .is_some_and(|present| present.recency(header).is_ge());
        // It came, at MaxAge, and left at once.
        let has_left = header.age >= MAX_AGE
            || taken.iter().any(|(key, sequence, _, leaving)| {
                *leaving && *key == header.key && *sequence >= header.sequence
            });
        let is_ours = header.key.advertising_router == view.config.router_id;
        holds(9, has || has_left || is_ours, || {
            format!(
                "Full without {}, which the neighbour described; the database has {:?}",
                words::header(header),
                database.get(&header.key).map(words::header)
            )
        })?;
    }
    Ok(())
}

/// 10: every exchange ends, whatever the network does to packets; `complete` says whether it did
/// in time.
pub(crate) fn the_exchange_ends(network: &Network, complete: bool) -> Result<(), Violation> {
    holds(10, complete, || {
        let mut states = Vec::new();
        for (index, node) in network.nodes.iter().enumerate() {
            match node {
                Node::Speaker(speaker) => {
                    let neighbors = speaker.router.iter().flat_map(|router| router.neighbors());
                    states.extend(neighbors.map(|it| (index, it.router_id.to_string(), it.state)));
                }
                Node::Switch(switch) => {
                    let neighbors = switch.neighbors();
                    states.extend(neighbors.map(|(_, id, state)| (index, id.to_string(), state)));
                }
                Node::Off(_) => {}
            }
        }
        format!("not all adjacencies are Full: {states:?}")
    })
    .map_err(|violation| Violation {
        moment: network.now,
        ..violation
    })
}

/// 12: what leaves as a new instance or a refresh names wanted addresses only.
pub(crate) fn nothing_unwanted_is_originated(lsa: &Lsa, view: &View<'_>) -> Result<(), Violation> {
    if lsa.header().age >= MAX_AGE {
        return Ok(());
    }
    let wanted: BTreeSet<Ipv4Addr> = hosts_of(view.wanted)
        .into_iter()
        .map(|(prefix, ..)| prefix)
        .collect();
    let hosts = hosts_in(lsa.key(), lsa.body());
    let unwanted = hosts.iter().find(|(prefix, ..)| !wanted.contains(prefix));
    holds(12, unwanted.is_none(), || {
        format!(
            "{} announces {unwanted:?}, which is not wanted",
            words::header(lsa.header())
        )
    })
}

/// 13: the process that takes over has the neighbours of the one before, in their states.
pub(crate) fn a_handover_keeps_the_neighbors(
    before: &Router,
    after: &Router,
) -> Result<(), Violation> {
    let of = |router: &Router| -> Vec<NeighborView> { router.neighbors().collect() };
    let (before, after) = (of(before), of(after));
    holds(13, before == after, || {
        format!("neighbours before a handover: {before:?}, after it: {after:?}")
    })
}

/// 13: after a handover every Hello lists whom the process before listed.
pub(crate) fn a_handover_sends_no_one_way(
    hello: &Hello,
    expected: Option<&BTreeSet<RouterId>>,
) -> Result<(), Violation> {
    let Some(expected) = expected else {
        return Ok(());
    };
    let missing = expected.iter().find(|id| !hello.neighbors.contains(id));
    holds(13, missing.is_none(), || {
        format!("after a handover a Hello does not list {missing:?}")
    })
}

/// 11: cryptographic sequence numbers rise from packet to packet, whatever happened between.
pub(crate) fn authentication_sequences_rise(last: Option<u32>, now: u32) -> Result<(), Violation> {
    holds(11, last.is_none_or(|last| now > last), || {
        format!("a packet has the authentication sequence {now}, the one before had {last:?}")
    })
}

/// 15: what is sent reads back as what was meant, byte for byte.
pub(crate) fn encoding_is_the_inverse_of_decoding(payload: &[u8]) -> Result<Packet, Violation> {
    let packet = Packet::decode(payload)
        .map_err(|error| Violation::new(15, format!("we sent what cannot be read: {error}")))?;
    holds(15, packet.encode() == payload, || {
        format!("a packet that we sent reads back differently: {packet:?}")
    })?;
    Ok(packet)
}

/// 15: nothing grows without bound.
pub(crate) fn memory_is_bounded(view: &View<'_>, lsas: usize) -> Result<(), Violation> {
    holds(15, lsas <= MOST_LSAS, || {
        format!("{lsas} LSAs in a small network")
    })?;
    for neighbor in view.router.neighbors() {
        let holds_lists = neighbor.state >= State::Exchange || neighbor.unacknowledged == 0;
        holds(
            15,
            holds_lists && neighbor.unacknowledged <= MOST_LSAS,
            || format!("a list that nobody empties: {neighbor:?}"),
        )?;
    }
    Ok(())
}

/// 16: after a timeout the next one is later.
pub(crate) fn the_next_timeout_is_later(view: &View<'_>) -> Result<(), Violation> {
    let next = view.router.poll_timeout();
    holds(16, next.is_none_or(|at| at > view.instant), || {
        "the next timeout is not later than the last".to_owned()
    })
}

/// 17: the same seed gives the same trace.
pub(crate) fn the_same_seed_gives_the_same_trace(first: u64, second: u64) -> Result<(), Violation> {
    holds(17, first == second, || {
        format!("two runs of one seed have the traces {first:#x} and {second:#x}")
    })
}

/// One side of an adjacency that should be: a node, its port, the other's router id.
pub(crate) type Side = (usize, usize, RouterId);

/// Every side of every adjacency that should be among the nodes that run.
pub(crate) fn adjacencies(network: &Network) -> Vec<Side> {
    let mut all = Vec::new();
    for link in &network.links {
        let running = link
            .ends
            .iter()
            .filter(|end| is_running(&network.nodes[end.node]));
        let running: Vec<&End> = running.collect();
        // On a segment the speakers are adjacent to the switches only.
        let is_switch = |end: &End| matches!(network.nodes[end.node], Node::Switch(_));
        for end in &running {
            let others = running.iter().filter(|other| {
                other.node != end.node
                    && (link.ends.len() == 2 || is_switch(end) || is_switch(other))
            });
            let sides = others.map(|other| (end.node, end.port, id_of(&network.nodes[other.node])));
            all.extend(sides);
        }
    }
    all
}

/// Whether every adjacency that should be is, in the view of both.
pub(crate) fn all_are_full(network: &Network) -> bool {
    adjacencies(network)
        .iter()
        .all(|side| is_full(network, side))
}

pub(crate) fn is_full(network: &Network, &(node, port, other): &Side) -> bool {
    match &network.nodes[node] {
        Node::Speaker(speaker) => speaker.router.as_ref().is_some_and(|router| {
            let mut neighbors = router.neighbors();
            neighbors
                .any(|it| (it.interface.0, it.router_id, it.state) == (port, other, State::Full))
        }),
        Node::Switch(switch) => {
            let mut neighbors = switch.neighbors();
            neighbors.any(|it| it == (port, other, State::Full))
        }
        Node::Off(_) => false,
    }
}

fn is_running(node: &Node) -> bool {
    match node {
        Node::Speaker(speaker) => speaker.router.is_some(),
        Node::Switch(_) => true,
        Node::Off(_) => false,
    }
}

pub(crate) fn id_of(node: &Node) -> RouterId {
    match node {
        Node::Speaker(speaker) => speaker.id(),
        Node::Switch(switch) => switch.id(),
        Node::Off(setup) => setup.id,
    }
}

/// Whether nothing is on its way: no list waits for anybody.
pub(crate) fn is_quiet(network: &Network) -> bool {
    network.nodes.iter().all(|node| match node {
        Node::Speaker(speaker) => speaker.router.as_ref().is_none_or(|router| {
            !watch::is_synchronizing(router)
                && router
                    .neighbors()
                    .all(|neighbor| neighbor.unacknowledged == 0)
        }),
        Node::Switch(switch) => switch.is_quiet(),
        Node::Off(_) => true,
    })
}
