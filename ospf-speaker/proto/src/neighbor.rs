//! A neighbour and its state machine (RFC 2328 §10.1 to §10.4).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::auth::Received;
use crate::dbdesc::Exchange;
use crate::ids::RouterId;
use crate::lsdb::DbKey;
use crate::packet::LsaHeader;

mod snapshot;

pub(crate) use snapshot::NeighborSnapshot;

/// A neighbour's state (RFC 2328 §10.1). Attempt belongs to NBMA networks, which we do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the variants are the RFC's own state names")]
pub enum State {
    Down,
    Init,
    TwoWay,
    ExStart,
    Exchange,
    Loading,
    Full,
}

impl State {
    /// Every state, in the RFC's order.
    pub const ALL: [Self; 7] = [
        Self::Down,
        Self::Init,
        Self::TwoWay,
        Self::ExStart,
        Self::Exchange,
        Self::Loading,
        Self::Full,
    ];

    /// Whether a database exchange with the neighbour has begun and is not complete; LSAs at
    /// MaxAge stay while there is such a neighbour (§14).
    pub(crate) fn is_synchronizing(self) -> bool {
        matches!(self, Self::Exchange | Self::Loading)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "Down",
            Self::Init => "Init",
            Self::TwoWay => "2-Way",
            Self::ExStart => "ExStart",
            Self::Exchange => "Exchange",
            Self::Loading => "Loading",
            Self::Full => "Full",
        })
    }
}

/// What happens to a neighbour (§10.2). Start belongs to NBMA networks. `adjacent` is the answer
/// of §10.4 to whether an adjacency should be with this neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NeighborEvent {
    HelloReceived,
    TwoWayReceived { adjacent: bool },
    NegotiationDone,
    ExchangeDone { nothing_to_request: bool },
    BadLsReq,
    LoadingDone,
    AdjOk { adjacent: bool },
    SeqNumberMismatch,
    OneWayReceived,
    KillNbr,
    InactivityTimer,
    LlDown,
}

/// What a transition asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing.
    None,
    /// Start the inactivity timer anew.
    RestartInactivity,
    /// Declare ourselves master and send the first Database Description.
    StartExchange,
    /// Clear the lists, then start the exchange anew.
    RestartExchange,
    /// List the database for the neighbour.
    Summarize,
    /// Clear the three lists; there is no adjacency any more.
    ClearLists,
    /// Forget the neighbour.
    Forget,
}

/// The next state of a neighbour, and what to do (§10.3).
///
/// ```text
///  Down ── Hello ──▶ Init ── 2-Way ──▶ ExStart ──▶ Exchange ──▶ Loading ──▶ Full
///                     │      (no adjacency)  ▲  ▲      │            │         │
///                     └─────▶ 2-Way ── AdjOK? ┘  └──── SeqNumberMismatch, BadLSReq
/// ```
pub(crate) fn transition(state: State, event: NeighborEvent) -> (State, Action) {
    use Action as A;
    use NeighborEvent as E;
    use State as S;

    match (state, event) {
        (S::Down, E::HelloReceived) => (S::Init, A::RestartInactivity),
        (
            S::Init | S::TwoWay | S::ExStart | S::Exchange | S::Loading | S::Full,
            E::HelloReceived,
        ) => (state, A::RestartInactivity),

        (S::Init, E::TwoWayReceived { adjacent: true }) => (S::ExStart, A::StartExchange),
        (S::Init, E::TwoWayReceived { adjacent: false }) => (S::TwoWay, A::None),
        (S::ExStart, E::NegotiationDone) => (S::Exchange, A::Summarize),
        (
            S::Exchange,
            E::ExchangeDone {
                nothing_to_request: true,
            },
        ) => (S::Full, A::None),
        (
            S::Exchange,
            E::ExchangeDone {
                nothing_to_request: false,
            },
        ) => (S::Loading, A::None),
        (S::Loading, E::LoadingDone) => (S::Full, A::None),

        (S::TwoWay, E::AdjOk { adjacent: true }) => (S::ExStart, A::StartExchange),
        (S::ExStart | S::Exchange | S::Loading | S::Full, E::AdjOk { adjacent: false }) => {
            (S::TwoWay, A::ClearLists)
        }

        (S::Exchange | S::Loading | S::Full, E::SeqNumberMismatch | E::BadLsReq) => {
            (S::ExStart, A::RestartExchange)
        }

        (S::TwoWay | S::ExStart | S::Exchange | S::Loading | S::Full, E::OneWayReceived) => {
            (S::Init, A::ClearLists)
        }
        (
            S::Down | S::Init | S::TwoWay | S::ExStart | S::Exchange | S::Loading | S::Full,
            E::KillNbr | E::InactivityTimer | E::LlDown,
        ) => (S::Down, A::Forget),

        // The events that say what is so already.
        (S::TwoWay | S::ExStart | S::Exchange | S::Loading | S::Full, E::TwoWayReceived { .. })
        | (S::Init, E::OneWayReceived)
        | (S::Down | S::Init, E::AdjOk { .. })
        | (S::TwoWay, E::AdjOk { adjacent: false })
        | (S::ExStart | S::Exchange | S::Loading | S::Full, E::AdjOk { adjacent: true }) => {
            (state, A::None)
        }

        // The events that no packet or timer raises in these states.
        (S::Down, E::TwoWayReceived { .. } | E::OneWayReceived)
        | (
            S::Down | S::Init | S::TwoWay | S::Exchange | S::Loading | S::Full,
            E::NegotiationDone,
        )
        | (
            S::Down | S::Init | S::TwoWay | S::ExStart | S::Loading | S::Full,
            E::ExchangeDone { .. },
        )
        | (S::Down | S::Init | S::TwoWay | S::ExStart | S::Exchange | S::Full, E::LoadingDone)
        | (S::Down | S::Init | S::TwoWay | S::ExStart, E::SeqNumberMismatch | E::BadLsReq) => {
            (state, A::None)
        }
    }
}

/// A neighbour (§10).
#[derive(Debug)]
pub(crate) struct Neighbor {
    pub(crate) router_id: RouterId,
    pub(crate) address: Ipv4Addr,
    pub(crate) priority: u8,
    /// The Designated Router that the neighbour declares, or 0.0.0.0.
    pub(crate) dr: Ipv4Addr,
    /// The Backup Designated Router that the neighbour declares, or 0.0.0.0.
    pub(crate) bdr: Ipv4Addr,
    pub(crate) state: State,
    pub(crate) since: Instant,
    /// What its last packet was authenticated by; nothing without cryptographic authentication.
    /// It goes with the neighbour, so that one that restarted may count from anywhere.
    pub(crate) received: Option<Received>,
    pub(crate) exchange: Exchange,
    /// The Link state request list: what the neighbour has and we lack (§10.9).
    pub(crate) requests: BTreeMap<DbKey, LsaHeader>,
    /// Those of the request list that the last Link State Request asked for.
    pub(crate) outstanding: BTreeSet<DbKey>,
    /// The Link state retransmission list: what was flooded and not acknowledged, and when it
    /// was last sent. The instance is always the database's (§13 step 5c).
    pub(crate) retransmit: BTreeMap<DbKey, Instant>,
}

impl Neighbor {
    pub(crate) fn new(
        now: Instant,
        router_id: RouterId,
        address: Ipv4Addr,
        dd_sequence: u32,
    ) -> Self {
        Self {
            router_id,
            address,
            priority: 0,
            dr: Ipv4Addr::UNSPECIFIED,
            bdr: Ipv4Addr::UNSPECIFIED,
            state: State::Down,
            since: now,
            received: None,
            exchange: Exchange::new(dd_sequence),
            requests: BTreeMap::new(),
            outstanding: BTreeSet::new(),
            retransmit: BTreeMap::new(),
        }
    }

    /// Clears the three lists of an adjacency.
    pub(crate) fn clear_lists(&mut self) {
        self.exchange.summary.clear();
        self.exchange.last_sent = None;
        self.exchange.last_received = None;
        self.requests.clear();
        self.outstanding.clear();
        self.retransmit.clear();
    }

    /// Whether it takes part in flooding (§13.3 step 1a).
    pub(crate) fn takes_floods(&self) -> bool {
        self.state >= State::Exchange
    }
}

#[cfg(test)]
mod tests;
