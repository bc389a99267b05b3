//! The weight a real server has in the kernel.

use isopath_api::observed::Health;

/// The weight that `declared` becomes.
///
/// A real server whose health is not known yet takes no connections, except where the kernel
/// gave it some already when this agent started: then an earlier agent knew it healthy, and
/// the restart of an agent moves nothing. `adopted` is the kernel's weight at that moment.
pub fn effective(declared: u16, health: Health, adopted: impl FnOnce() -> Option<u32>) -> u16 {
    match health {
        Health::Up => declared,
        Health::Down => 0,
        Health::Unknown => match adopted() {
            Some(1..) => declared,
            Some(0) | None => 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_healthy_or_an_adopted_real_server_takes_connections() {
        let cases = [
            (5, Health::Up, None, 5),
            (5, Health::Up, Some(0), 5),
            (0, Health::Up, Some(3), 0),
            (5, Health::Down, None, 0),
            (5, Health::Down, Some(5), 0),
            (5, Health::Unknown, None, 0),
            (5, Health::Unknown, Some(0), 0),
            (5, Health::Unknown, Some(5), 5),
            (7, Health::Unknown, Some(5), 7),
            (0, Health::Unknown, Some(5), 0),
        ];
        for (declared, health, adopted, expected) in cases {
            assert_eq!(
                effective(declared, health, || adopted),
                expected,
                "declared {declared}, {health}, kernel had {adopted:?} at the start"
            );
        }
    }
}
