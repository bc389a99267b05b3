//! A status on a page: always a glyph, a word and a colour, so that none of them has to be
//! told apart alone.

use askama::Template;
use askama::filters::HtmlSafe;
use isopath_api::ids::{BfdState, NeighborState};
use isopath_api::observed::Health;
use isopath_api::operation::OperationState;
use isopath_api::view::{Severity, State};

/// What the glyph and the colour say. The style sheet and the glyphs know these by
/// [`Kind::class`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As it should be.
    Up,
    /// Works, but not all of it.
    Degraded,
    /// Does not work.
    Down,
    /// On its way out on an operator's word.
    Draining,
    /// Out on an operator's word.
    Safe,
    /// Not in use, and nothing is wrong with that.
    Off,
    /// Not known.
    Unknown,
    /// For information.
    Info,
}

impl Kind {
    /// Every kind, for the test that the style sheet and the glyphs know them all.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 8] = [
        Self::Up,
        Self::Degraded,
        Self::Down,
        Self::Draining,
        Self::Safe,
        Self::Off,
        Self::Unknown,
        Self::Info,
    ];

    /// The CSS class and the glyph's name.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Draining => "draining",
            Self::Safe => "safe",
            Self::Off => "off",
            Self::Unknown => "unknown",
            Self::Info => "info",
        }
    }
}

/// A glyph, a word and a colour.
#[derive(Template, Debug, Clone, Copy, PartialEq, Eq)]
#[template(path = "part/status.html")]
pub(crate) struct Status {
    pub(crate) kind: Kind,
    pub(crate) word: &'static str,
}

impl HtmlSafe for Status {}

impl Status {
    pub(crate) fn new(kind: Kind, word: &'static str) -> Self {
        Self { kind, word }
    }
}

impl From<State> for Status {
    fn from(state: State) -> Self {
        let kind = match state {
            State::Up => Kind::Up,
            State::Draining => Kind::Draining,
            State::Safe => Kind::Safe,
            State::Degraded => Kind::Degraded,
            State::Unknown => Kind::Unknown,
            State::Down => Kind::Down,
        };
        Self::new(kind, state.word())
    }
}

impl From<Health> for Status {
    fn from(health: Health) -> Self {
        match health {
            Health::Unknown => Self::new(Kind::Unknown, "Unknown"),
            Health::Up => Self::new(Kind::Up, "Up"),
            Health::Down => Self::new(Kind::Down, "Down"),
        }
    }
}

/// 2-Way is where two routers stay that are neither DR nor BDR (RFC 2328 §10.4): no fault.
impl From<NeighborState> for Status {
    fn from(state: NeighborState) -> Self {
        match state {
            NeighborState::Down => Self::new(Kind::Down, "Down"),
            NeighborState::Attempt => Self::new(Kind::Degraded, "Attempt"),
            NeighborState::Init => Self::new(Kind::Degraded, "Init"),
            NeighborState::TwoWay => Self::new(Kind::Off, "2-Way"),
            NeighborState::ExStart => Self::new(Kind::Degraded, "ExStart"),
            NeighborState::Exchange => Self::new(Kind::Degraded, "Exchange"),
            NeighborState::Loading => Self::new(Kind::Degraded, "Loading"),
            NeighborState::Full => Self::new(Kind::Up, "Full"),
        }
    }
}

impl From<BfdState> for Status {
    fn from(state: BfdState) -> Self {
        match state {
            BfdState::AdminDown => Self::new(Kind::Off, "AdminDown"),
            BfdState::Down => Self::new(Kind::Down, "Down"),
            BfdState::Init => Self::new(Kind::Degraded, "Init"),
            BfdState::Up => Self::new(Kind::Up, "Up"),
        }
    }
}

impl From<OperationState> for Status {
    fn from(state: OperationState) -> Self {
        match state {
            OperationState::Pending => Self::new(Kind::Draining, "Pending"),
            OperationState::Applying => Self::new(Kind::Draining, "Applying"),
            OperationState::Settling => Self::new(Kind::Draining, "Settling"),
            OperationState::Blocked => Self::new(Kind::Degraded, "Blocked"),
            OperationState::Cancelling => Self::new(Kind::Draining, "Cancelling"),
            OperationState::Failed => Self::new(Kind::Down, "Failed"),
            OperationState::Succeeded => Self::new(Kind::Up, "Done"),
            OperationState::Cancelled => Self::new(Kind::Off, "Cancelled"),
        }
    }
}

impl From<Severity> for Status {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Info => Self::new(Kind::Info, "Info"),
            Severity::Warning => Self::new(Kind::Degraded, "Warning"),
            Severity::Error => Self::new(Kind::Down, "Error"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_glyph_word_and_colour() {
        assert_eq!(
            Status::from(State::Degraded).to_string(),
            "<span class=\"status degraded\">\
             <svg class=\"glyph\" aria-hidden=\"true\" focusable=\"false\">\
             <use href=\"#glyph-degraded\"/></svg>Degraded</span>"
        );
    }
}
