//! Token buckets that slow down whoever asks too often.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// How many keys each of the two halves remembers. Whoever has more addresses or names than that
/// to spend gets back the bursts of those that were used longest ago, which are nearly full
/// again anyway.
const MOST_KEYS: usize = 4096;

/// One bucket a key, each filling up again with time. A key's bucket is in the younger half once
/// it was used after the last change of halves, so that forgetting costs the same for any number
/// of keys.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    burst: f64,
    per_second: f64,
    young: HashMap<K, Level>,
    old: HashMap<K, Level>,
}

/// How full a bucket was, and when.
type Level = (f64, Instant);

impl<K: Eq + Hash + Clone> Buckets<K> {
    /// Buckets that hold `burst` tries and regain one every `every`.
    pub(crate) fn new(burst: u32, every: Duration) -> Self {
        Self {
            burst: f64::from(burst),
            per_second: 1.0 / every.as_secs_f64(),
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    /// Takes one try, or says how long until there is one.
    pub(crate) fn take(&mut self, key: &K, now: Instant) -> Result<(), Duration> {
        let level = self.level(key, now);
        if level < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - level) / self.per_second));
        }
        let left = (level - 1.0, now);
        if let Some(known) = self.young.get_mut(key) {
            *known = left;
            return Ok(());
        }
        if self.young.len() >= MOST_KEYS {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(key);
        self.young.insert(key.clone(), left);
        Ok(())
    }

    /// Gives a key its whole burst again: its holder knew the password.
    pub(crate) fn reset(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    fn level(&self, key: &K, now: Instant) -> f64 {
        let known = self.young.get(key).or_else(|| self.old.get(key));
        known.map_or(self.burst, |(level, at)| {
            let regained = now.saturating_duration_since(*at).as_secs_f64() * self.per_second;
            (level + regained).min(self.burst)
        })
    }
}

/// What an address counts as: one host of IPv6 commonly has a whole /64 to choose from.
pub(crate) fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
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
    fn the_number_of_keys_is_bounded_and_the_busy_are_not_forgotten() {
        let now = Instant::now();
        let mut buckets = Buckets::new(1, Duration::from_secs(3600));
        assert_eq!(buckets.take(&usize::MAX, now), Ok(()));
        for key in 0..MOST_KEYS {
            assert_eq!(buckets.take(&key, now), Ok(()));
        }
        assert!(buckets.take(&usize::MAX, now).is_err(), "it is remembered");
        for key in 0..4 * MOST_KEYS {
            assert!(buckets.take(&(MOST_KEYS + key), now).is_ok());
        }
        assert!(buckets.young.len() + buckets.old.len() <= 2 * MOST_KEYS);
    }

    #[test]
    fn a_host_is_counted_once_however_many_addresses_it_has() {
        let of = |text: &str| counted_as(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
