//! How many of something anybody has at the same time.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// As many places for each key. Nothing is kept for whoever has none, so that there are never
/// more keys than places taken.
pub(crate) struct Places<K> {
    most: u32,
    taken: Arc<Mutex<HashMap<K, u32>>>,
}

/// One of them, until it is dropped.
pub(crate) struct Place<K: Eq + Hash> {
    taken: Arc<Mutex<HashMap<K, u32>>>,
    key: K,
}

impl<K: Eq + Hash + Clone> Places<K> {
    /// `most` places for each key.
    pub(crate) fn new(most: u32) -> Self {
        Self {
            most,
            taken: Arc::default(),
        }
    }

    /// A place; nothing where the key has all of its own.
    pub(crate) fn take(&self, key: &K) -> Option<Place<K>> {
        let mut taken = lock(&self.taken);
        if taken.get(key).is_some_and(|count| *count >= self.most) {
            return None;
        }
        *taken.entry(key.clone()).or_default() += 1;
        Some(Place {
            taken: Arc::clone(&self.taken),
            key: key.clone(),
        })
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        let Some(count) = taken.get_mut(&self.key) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            taken.remove(&self.key);
        }
    }
}

impl<K> fmt::Debug for Places<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places")
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

impl<K: Eq + Hash> fmt::Debug for Place<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

/// The lock is never held over an await, and a panic leaves nothing half done behind it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_and_each_key_has_its_own() {
        let places = Places::new(2);
        let mut taken: Vec<_> = (0..2).map(|_| places.take(&"a").unwrap()).collect();
        assert!(places.take(&"a").is_none());
        assert!(places.take(&"b").is_some());
        drop(taken.pop());
        taken.push(places.take(&"a").unwrap());
        assert!(places.take(&"a").is_none());
        drop(taken);
        assert!(lock(&places.taken).is_empty(), "nothing is kept");
    }
}
