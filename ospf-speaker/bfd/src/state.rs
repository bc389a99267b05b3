//! The session state machine (RFC 5880 §6.2, §6.8.6).
//!
//! ```text
//!                             +--+
//!                             |  | UP, ADMIN DOWN, TIMER
//!                             |  V
//!                     DOWN  +------+  INIT
//!              +------------|      |------------+
//!              |            | DOWN |            |
//!              |  +-------->|      |<--------+  |
//!              |  |         +------+         |  |
//!              |  |                          |  |
//!              |  |               ADMIN DOWN,|  |
//!              |  |ADMIN DOWN,          DOWN,|  |
//!              |  |TIMER                TIMER|  |
//!              V  |                          |  V
//!            +------+                      +------+
//!       +----|      |                      |      |----+
//!   DOWN|    | INIT |--------------------->|  UP  |    |INIT, UP
//!       +--->|      | INIT, UP             |      |<---+
//!            +------+                      +------+
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a session (RFC 5880 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Held down by an operator; says nothing about the path.
    AdminDown,
    /// Down, or just created.
    Down,
    /// The peer is heard and does not hear us yet, as far as we know.
    Init,
    /// Both hear each other.
    Up,
}

impl State {
    /// All states, in the order of their code.
    pub const ALL: [Self; 4] = [Self::AdminDown, Self::Down, Self::Init, Self::Up];

    /// The state of the two lowest bits.
    pub(crate) fn from_bits(bits: u8) -> Self {
        match bits & 0b11 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    pub(crate) fn bits(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        })
    }
}

/// Why a session last changed to Down or AdminDown (RFC 5880 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the variants are RFC 5880's own names")]
pub enum Diagnostic {
    None,
    ControlDetectionTimeExpired,
    EchoFunctionFailed,
    NeighborSignaledSessionDown,
    ForwardingPlaneReset,
    PathDown,
    ConcatenatedPathDown,
    AdministrativelyDown,
    ReverseConcatenatedPathDown,
    /// A code that RFC 5880 reserves (9 to 31).
    Reserved(u8),
}

impl Diagnostic {
    /// The diagnostic of the five lowest bits.
    pub(crate) fn from_code(code: u8) -> Self {
        match code & 0x1f {
            0 => Self::None,
            1 => Self::ControlDetectionTimeExpired,
            2 => Self::EchoFunctionFailed,
            3 => Self::NeighborSignaledSessionDown,
            4 => Self::ForwardingPlaneReset,
            5 => Self::PathDown,
            6 => Self::ConcatenatedPathDown,
            7 => Self::AdministrativelyDown,
            8 => Self::ReverseConcatenatedPathDown,
            code => Self::Reserved(code),
        }
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::ControlDetectionTimeExpired => 1,
            Self::EchoFunctionFailed => 2,
            Self::NeighborSignaledSessionDown => 3,
            Self::ForwardingPlaneReset => 4,
            Self::PathDown => 5,
            Self::ConcatenatedPathDown => 6,
            Self::AdministrativelyDown => 7,
            Self::ReverseConcatenatedPathDown => 8,
            Self::Reserved(code) => code & 0x1f,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no diagnostic",
            Self::ControlDetectionTimeExpired => "control detection time expired",
            Self::EchoFunctionFailed => "echo function failed",
            Self::NeighborSignaledSessionDown => "neighbor signaled session down",
            Self::ForwardingPlaneReset => "forwarding plane reset",
            Self::PathDown => "path down",
            Self::ConcatenatedPathDown => "concatenated path down",
            Self::AdministrativelyDown => "administratively down",
            Self::ReverseConcatenatedPathDown => "reverse concatenated path down",
            Self::Reserved(code) => return write!(f, "reserved diagnostic {code}"),
        })
    }
}

/// What a session's state reacts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    /// A packet that carries this state of the peer.
    Received(State),
    /// No packet within the detection time.
    DetectionTimeExpired,
    /// The caller takes the session down without a word about the path.
    AdminDown,
    /// The caller takes the session down, and the peer must act on it.
    Down,
    /// The caller lets the session come up.
    Enable,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Transition {
    /// The new state.
    pub to: State,
    /// The new local diagnostic; the old one stays where there is none.
    pub diagnostic: Option<Diagnostic>,
}

/// The next state, or nothing where the input changes nothing.
pub fn transition(state: State, input: Input) -> Option<Transition> {
    use Input::{AdminDown, DetectionTimeExpired, Down, Enable, Received};

    let to = |to, diagnostic| Some(Transition { to, diagnostic });
    match (state, input) {
        (State::AdminDown, Enable) => to(State::Down, Some(Diagnostic::None)),
        (State::AdminDown, Received(_) | DetectionTimeExpired | AdminDown | Down) => None,

        (State::Down, Received(State::Down)) => to(State::Init, None),
        (State::Down, Received(State::Init)) => to(State::Up, Some(Diagnostic::None)),
        // An Up from the peer is a leftover of a session that we have lost: it must go Down first.
        (State::Down, Received(State::AdminDown | State::Up)) => None,
        (State::Down, DetectionTimeExpired | Down | Enable) => None,

        (State::Init, Received(State::Init | State::Up)) => to(State::Up, Some(Diagnostic::None)),
        (State::Init, Received(State::Down) | Enable) => None,

        (State::Up, Received(State::Init | State::Up) | Enable) => None,
        (State::Up, Received(State::Down))
        | (State::Init | State::Up, Received(State::AdminDown)) => {
            to(State::Down, Some(Diagnostic::NeighborSignaledSessionDown))
        }

        (State::Init | State::Up, DetectionTimeExpired) => {
            to(State::Down, Some(Diagnostic::ControlDetectionTimeExpired))
        }
        (State::Init | State::Up, Down) => to(State::Down, Some(Diagnostic::AdministrativelyDown)),
        (State::Down | State::Init | State::Up, AdminDown) => {
            to(State::AdminDown, Some(Diagnostic::AdministrativelyDown))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Input::{AdminDown, DetectionTimeExpired, Down, Enable, Received};
    use super::*;

    /// RFC 5880 §6.2 and §6.8.6 as a table: each row is an input, each column a state.
    /// `-` stays, otherwise the first letter of the new state (`A`, `D`, `I`, `U`).
    const TABLE: [(Input, &str); 8] = [
        //                              AdminDown Down Init Up
        (Received(State::AdminDown), "- - D D"),
        (Received(State::Down), "- I - D"),
        (Received(State::Init), "- U U -"),
        (Received(State::Up), "- - U -"),
        (DetectionTimeExpired, "- - D D"),
        (AdminDown, "- A A A"),
        (Down, "- - D D"),
        (Enable, "D - - -"),
    ];

    #[test]
    fn the_whole_table_holds() {
        for (input, row) in TABLE {
            for (state, expected) in State::ALL.into_iter().zip(row.split(' ')) {
                let found = match transition(state, input).map(|change| change.to) {
                    None => "-",
                    Some(State::AdminDown) => "A",
                    Some(State::Down) => "D",
                    Some(State::Init) => "I",
                    Some(State::Up) => "U",
                };
                assert_eq!(found, expected, "{state} on {input:?}");
            }
        }
    }

    #[test]
    fn each_way_down_has_its_diagnostic() {
        let cases = [
            (
                Received(State::Down),
                Diagnostic::NeighborSignaledSessionDown,
            ),
            (
                Received(State::AdminDown),
                Diagnostic::NeighborSignaledSessionDown,
            ),
            (
                DetectionTimeExpired,
                Diagnostic::ControlDetectionTimeExpired,
            ),
            (Down, Diagnostic::AdministrativelyDown),
            (AdminDown, Diagnostic::AdministrativelyDown),
        ];
        for (input, diagnostic) in cases {
            let change = transition(State::Up, input).unwrap();
            assert_eq!(change.diagnostic, Some(diagnostic), "{input:?}");
        }
    }

    #[test]
    fn codes_survive_the_wire() {
        for state in State::ALL {
            assert_eq!(State::from_bits(state.bits()), state);
        }
        for code in 0..32 {
            assert_eq!(Diagnostic::from_code(code).code(), code);
        }
    }
}
