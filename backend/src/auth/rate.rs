//! Token buckets that slow down whoever guesses passwords.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How many keys are remembered. Beyond that the longest unused one is forgotten, which only
/// helps someone who has as many addresses or names to spend.
const MOST_KEYS: usize = 4096;

/// One bucket a key, each filling up again with time.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    burst: f64,
    per_second: f64,
    filled: HashMap<K, (f64, Instant)>,
}

impl<K: Eq + Hash + Clone> Buckets<K> {
    /// Buckets that hold `burst` tries and regain one every `every`.
    pub(super) fn new(burst: u32, every: Duration) -> Self {
        Self {
            burst: f64::from(burst),
            per_second: 1.0 / every.as_secs_f64(),
            filled: HashMap::new(),
        }
    }

    /// Takes one try, or says how long until there is one.
    pub(super) fn take(&mut self, key: &K, now: Instant) -> Result<(), Duration> {
        let level = self.level(key, now);
        if level < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - level) / self.per_second));
        }
        if self.filled.len() >= MOST_KEYS && !self.filled.contains_key(key) {
            self.forget_one();
        }
        self.filled.insert(key.clone(), (level - 1.0, now));
        Ok(())
    }

    /// Gives a key its whole burst again: its holder knew the password.
    pub(super) fn reset(&mut self, key: &K) {
        self.filled.remove(key);
    }

    fn level(&self, key: &K, now: Instant) -> f64 {
        self.filled.get(key).map_or(self.burst, |(level, at)| {
            let regained = now.saturating_duration_since(*at).as_secs_f64() * self.per_second;
            (level + regained).min(self.burst)
        })
    }

    fn forget_one(&mut self) {
        let oldest = self.filled.iter().min_by_key(|(_, (_, at))| *at);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.filled.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_one_try_each_interval() {
        let now = Instant::now();
        let mut buckets = Buckets::new(2, Duration::from_secs(60));
        assert_eq!(buckets.take(&"a", now), Ok(()));
        assert_eq!(buckets.take(&"a", now), Ok(()));
        assert_eq!(buckets.take(&"a", now), Err(Duration::from_secs(60)));
        assert_eq!(
            buckets.take(&"b", now),
            Ok(()),
            "another key has its own bucket"
        );
        let later = now + Duration::from_secs(61);
        assert_eq!(buckets.take(&"a", later), Ok(()));
        assert!(buckets.take(&"a", later).is_err());
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let now = Instant::now();
        let mut buckets = Buckets::new(1, Duration::from_secs(60));
        for key in 0..2 * MOST_KEYS {
            let at = now + Duration::from_millis(key as u64);
            assert_eq!(buckets.take(&key, at), Ok(()));
        }
        assert_eq!(buckets.filled.len(), MOST_KEYS);
    }
}
