//! The neighbour state machine (RFC 2328 §10.3).

use std::fmt;

/// A neighbour's state (RFC 2328 §10.1). Attempt belongs to NBMA networks, which we do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
