//! A deterministic simulator: speakers and switches on faulty links and a virtual clock, with
//! the properties that must hold whatever happens. A seed decides everything that happens.
//!
//! ```text
//! cargo test -p isopath-ospf --test simulator              2,000 seeds
//! SEEDS=20000 cargo test -p isopath-ospf --test simulator  more of them
//! SEED=1234 cargo test -p isopath-ospf --test simulator -- --nocapture   one, with its trace
//! ```

#[cfg(feature = "sabotage")]
mod mutations;
mod network;
mod properties;
mod rng;
mod scenario;
mod speaker;
mod switch;
mod watch;
mod words;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use scenario::Options;

/// How many seeds are run where nobody says otherwise.
const SEEDS: u64 = 2000;
/// So many failing seeds are enough to look at.
const ENOUGH: usize = 10;
/// One seed of so many is run twice, for property 17.
const REPEATED: u64 = 50;

#[test]
fn the_properties_hold_for_every_seed() {
    if let Some(seed) = setting("SEED") {
        replay(seed);
        return;
    }
    let seeds = setting("SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    if let Err(violation) = check(seed) {
                        let mut failures = failures.lock().expect("no worker panics with it");
                        failures.push((seed, violation));
                        if failures.len() >= ENOUGH {
                            next.store(seeds, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().expect("no worker panics with it");
    failures.sort_by_key(|(seed, _)| *seed);
    if let Some((seed, _)) = failures.first() {
        let all = failures
            .iter()
            .fold(String::new(), |all, (seed, violation)| {
                format!("{all}seed {seed}: {violation}\n")
            });
        panic!("{all}{}", report(*seed));
    }
}

fn check(seed: u64) -> Result<(), properties::Violation> {
    let outcome = scenario::run(seed, Options::default());
    outcome.result?;
    if seed.is_multiple_of(REPEATED) {
        let again = scenario::run(seed, Options::default());
        properties::the_same_seed_gives_the_same_trace(outcome.hash, again.hash)?;
    }
    Ok(())
}

/// Plays a seed with its whole trace.
#[expect(
    clippy::print_stdout,
    reason = "the trace is for the one who asked for it"
)]
fn replay(seed: u64) {
    let options = Options {
        prints: true,
        ..Options::default()
    };
    let outcome = scenario::run(seed, options);
    println!("trace {:#x}", outcome.hash);
    if let Err(violation) = outcome.result {
        panic!("seed {seed}: {violation}");
    }
}

/// A seed that fails, played again for the tail of its trace.
fn report(seed: u64) -> String {
    let options = Options {
        keeps: true,
        ..Options::default()
    };
    let outcome = scenario::run(seed, options);
    let what = match outcome.result {
        Ok(()) => match check(seed) {
            Err(violation) => violation.to_string(),
            Ok(()) => "failed once and holds when it is repeated: property 17".to_owned(),
        },
        Err(violation) => violation.to_string(),
    };
    format!(
        "seed {seed}: {what}\nthe last of the trace (SEED={seed} shows all of it):\n{}",
        outcome.tail
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "the simulator's seeds are the caller's, the core's settings are not asked"
)]
fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}
