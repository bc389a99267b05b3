//! Rise and fall: when a row of results makes a real server healthy or unhealthy.

use isopath_api::observed::Health;

/// The health of one checked real server.
///
/// Results are counted in a row, so one good result among failures starts the count anew
/// (a total over a window would let a real server that fails every other check stay up):
///
/// ```text
///            rise successes in a row
/// Unknown ─────────────────────────────▶ Up
///    │                                  │  ▲
///    │ fall failures in a row           │  │ rise successes in a row
///    ▼                                  ▼  │
///  Down ◀───────────────────────────────┘  │
///    └──────── fall failures in a row ─────┘ (Up to Down)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthState {
    health: Health,
    last: Option<bool>,
    in_a_row: u32,
}

impl HealthState {
    /// A real server that was never checked.
    pub fn unknown() -> Self {
        Self::resumed(Health::Unknown)
    }

    /// A real server whose check was changed: it keeps its health until the new check decides,
    /// so that an operator who lengthens an interval withdraws nothing.
    pub fn resumed(health: Health) -> Self {
        Self {
            health,
            last: None,
            in_a_row: 0,
        }
    }

    /// The health as it stands.
    pub fn health(self) -> Health {
        self.health
    }

    /// Results of the last kind in a row.
    pub fn in_a_row(self) -> u32 {
        self.in_a_row
    }

    /// Counts one result; answers the new health where it changed.
    pub fn observe(&mut self, ok: bool, rise: u16, fall: u16) -> Option<Health> {
        if self.last == Some(ok) {
            self.in_a_row = self.in_a_row.saturating_add(1);
        } else {
            self.last = Some(ok);
            self.in_a_row = 1;
        }
        let next = match (self.health, ok) {
            (Health::Unknown | Health::Down, true) if self.in_a_row >= u32::from(rise) => {
                Health::Up
            }
            (Health::Unknown | Health::Up, false) if self.in_a_row >= u32::from(fall) => {
                Health::Down
            }
            (Health::Unknown | Health::Down | Health::Up, true | false) => return None,
        };
        self.health = next;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays results (`+` good, `-` bad) and returns the health after each (`?`, `U`, `D`).
    fn play(start: HealthState, rise: u16, fall: u16, results: &str) -> String {
        let mut state = start;
        let letter = |health| match health {
            Health::Unknown => '?',
            Health::Up => 'U',
            Health::Down => 'D',
        };
        results
            .chars()
            .map(|result| {
                let before = state.health();
                let change = state.observe(result == '+', rise, fall);
                let after = state.health();
                assert_eq!(
                    change.is_some(),
                    before != after,
                    "a change is reported exactly when there is one"
                );
                letter(after)
            })
            .collect()
    }

    #[test]
    fn results_in_a_row_decide() {
        let cases = [
            // (rise, fall, results, health after each)
            (1, 1, "+-+", "UDU"),
            (2, 2, "++", "?U"),
            (2, 2, "--", "?D"),
            (2, 2, "+-+-+-", "??????"),
            (2, 3, "++--+--+---", "?UUUUUUUUUD"),
            (3, 1, "-++-+++", "DDDDDDU"),
            (3, 2, "+++-+-+--", "??UUUUUUD"),
        ];
        for (rise, fall, results, expected) in cases {
            let got = play(HealthState::unknown(), rise, fall, results);
            assert_eq!(got, expected, "rise {rise}, fall {fall}, results {results}");
        }
    }

    #[test]
    fn a_changed_check_starts_from_the_old_health_with_a_new_count() {
        let mut old = HealthState::unknown();
        old.observe(true, 1, 3);
        old.observe(false, 1, 3);
        old.observe(false, 1, 3);
        let resumed = HealthState::resumed(old.health());
        assert_eq!(
            play(resumed, 2, 3, "---"),
            "UUD",
            "failures of the old check must not count for the new one"
        );
    }

    #[test]
    fn the_count_is_of_the_last_kind() {
        let mut state = HealthState::unknown();
        for ok in [true, true, true, false, false] {
            state.observe(ok, 2, 5);
        }
        assert_eq!(state.in_a_row(), 2);
    }
}
