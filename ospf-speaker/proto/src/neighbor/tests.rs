use super::Action as A;
use super::NeighborEvent as E;
use super::State as S;
use super::*;

const EVENTS: [E; 15] = [
    E::HelloReceived,
    E::TwoWayReceived { adjacent: true },
    E::TwoWayReceived { adjacent: false },
    E::NegotiationDone,
    E::ExchangeDone {
        nothing_to_request: true,
    },
    E::ExchangeDone {
        nothing_to_request: false,
    },
    E::BadLsReq,
    E::LoadingDone,
    E::AdjOk { adjacent: true },
    E::AdjOk { adjacent: false },
    E::SeqNumberMismatch,
    E::OneWayReceived,
    E::KillNbr,
    E::InactivityTimer,
    E::LlDown,
];

/// The whole table of RFC 2328 §10.3: a row for each event of [`EVENTS`], a column for each
/// state of [`State::ALL`]. `None` is an event that changes nothing and asks for nothing.
#[rustfmt::skip]
fn table() -> [[Option<(S, A)>; 7]; 15] {
    let go = |state, action| Some((state, action));
    let hello = |state| go(state, A::RestartInactivity);
    let forget = go(S::Down, A::Forget);
    let restart = go(S::ExStart, A::RestartExchange);
    let start = go(S::ExStart, A::StartExchange);
    let one_way = go(S::Init, A::ClearLists);
    let break_up = go(S::TwoWay, A::ClearLists);
    [
        // Down            Init               2-Way              ExStart            Exchange             Loading            Full
        [hello(S::Init),   hello(S::Init),    hello(S::TwoWay),  hello(S::ExStart), hello(S::Exchange),  hello(S::Loading), hello(S::Full)],
        [None,             start,             None,              None,              None,                None,              None],
        [None,             go(S::TwoWay, A::None), None,         None,              None,                None,              None],
        [None,             None,              None,              go(S::Exchange, A::Summarize), None,    None,              None],
        [None,             None,              None,              None,              go(S::Full, A::None), None,             None],
        [None,             None,              None,              None,              go(S::Loading, A::None), None,          None],
        [None,             None,              None,              None,              restart,             restart,           restart],
        [None,             None,              None,              None,              None,                go(S::Full, A::None), None],
        [None,             None,              start,             None,              None,                None,              None],
        [None,             None,              None,              break_up,          break_up,            break_up,          break_up],
        [None,             None,              None,              None,              restart,             restart,           restart],
        [None,             None,              one_way,           one_way,           one_way,             one_way,           one_way],
        [forget,           forget,            forget,            forget,            forget,              forget,            forget],
        [forget,           forget,            forget,            forget,            forget,              forget,            forget],
        [forget,           forget,            forget,            forget,            forget,              forget,            forget],
    ]
}

#[test]
fn every_state_and_event_goes_where_the_rfc_says() {
    for (event, row) in EVENTS.into_iter().zip(table()) {
        for (state, expected) in State::ALL.into_iter().zip(row) {
            let expected = expected.unwrap_or((state, Action::None));
            assert_eq!(transition(state, event), expected, "{event:?} in {state}");
        }
    }
}

#[test]
fn only_a_database_exchange_leads_to_full() {
    for state in State::ALL {
        for event in EVENTS {
            let (next, _) = transition(state, event);
            if next == State::Full && state != State::Full {
                let complete = matches!(
                    (state, event),
                    (
                        State::Exchange,
                        E::ExchangeDone {
                            nothing_to_request: true
                        }
                    ) | (State::Loading, E::LoadingDone)
                );
                assert!(complete, "{event:?} in {state} leads to Full");
            }
        }
    }
}
