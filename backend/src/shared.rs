//! The JSON of a cluster's view, made once for all who ask for it at the same time.
//!
//! That of a large cluster is some megabytes and takes a processor some hundredths of a second: a
//! dozen scripts and dashboards that ask each second must not cost a dozen times that, and the
//! making must not keep reports waiting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use isopath_api::ids::ClusterName;
use tokio::sync::OnceCell;

use crate::clock::Moment;
use crate::control::state::{ClusterState, Storage};
use crate::error::Error;

/// What was made is good for so long, and only while nothing has changed: what follows from time
/// alone is counted in seconds.
const GOOD_FOR: Duration = Duration::from_millis(250);

/// From so many real servers on, as many as their directors together report, a view is made in a
/// thread of its own.
const LARGE: usize = 500;

/// The texts that were made last; those that are not good any more go with the next one.
#[derive(Debug, Default)]
pub(crate) struct SharedViews {
    made: Mutex<BTreeMap<ClusterName, Made>>,
}

/// A text that is being made or was made.
#[derive(Debug)]
struct Made {
    /// Of what. It does not keep it: reports may be large as well.
    of: Weak<ClusterState>,
    storage: Storage,
    at: Moment,
    text: Arc<OnceCell<Bytes>>,
}

impl SharedViews {
    /// The text of a cluster as of now, or as of a moment ago if nothing changed since; `make`
    /// makes it where there is none.
    ///
    /// # Errors
    /// [`Error::Internal`] when `make` panics.
    pub(crate) async fn text(
        &self,
        (state, storage): (&Arc<ClusterState>, &Storage),
        now: Moment,
        make: impl FnOnce() -> Vec<u8> + Send + 'static,
    ) -> Result<Bytes, Error> {
        let text = self.place(state, storage, now);
        let made = text.get_or_try_init(|| async {
            if seen(state) < LARGE {
                return Ok(Bytes::from(make()));
            }
            let made = tokio::task::spawn_blocking(make).await;
            made.map(Bytes::from).map_err(|error| Error::Internal {
                what: format!("cannot make the view of cluster {}: {error}", state.name),
            })
        });
        made.await.cloned()
    }

    fn place(
        &self,
        state: &Arc<ClusterState>,
        storage: &Storage,
        now: Moment,
    ) -> Arc<OnceCell<Bytes>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|_, made| now.since(made.at) <= GOOD_FOR);
        let same = made.get(&state.name).filter(|made| {
            std::ptr::eq(made.of.as_ptr(), Arc::as_ptr(state)) && made.storage == *storage
        });
        if let Some(same) = same {
            return Arc::clone(&same.text);
        }
        let text = Arc::default();
        let fresh = Made {
            of: Arc::downgrade(state),
            storage: storage.clone(),
            at: now,
            text: Arc::clone(&text),
        };
        made.insert(state.name.clone(), fresh);
        text
    }
}

/// The bytes that the text of a cluster will have, or some more: what grows while it is written
/// is copied again and again.
pub(crate) fn expected_length(state: &ClusterState) -> usize {
    16_384 + 256 * seen(state)
}

/// How many real servers the view tells of, counted for each director.
fn seen(state: &ClusterState) -> usize {
    let services = state.declaration.service.iter();
    let servers: usize = services.map(|service| service.real_server.len()).sum();
    servers * state.directors.len()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::testing::{Known, observed};

    /// Asks, and says how often a text was made until then.
    async fn ask(
        views: &SharedViews,
        (state, storage): (&Arc<ClusterState>, &Storage),
        now: Moment,
        count: &Arc<AtomicUsize>,
    ) -> usize {
        let counted = Arc::clone(count);
        let make = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            b"{}".to_vec()
        };
        views.text((state, storage), now, make).await.unwrap();
        count.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_text_is_made_anew_when_anything_changed_or_time_has_passed() {
        let (views, count) = (SharedViews::default(), Arc::default());
        let mut known = Known::healthy(2);
        let usual = Storage::default();
        let first = Arc::new(known.cluster.clone());
        assert_eq!(ask(&views, (&first, &usual), known.now, &count).await, 1);
        assert_eq!(ask(&views, (&first, &usual), known.now, &count).await, 1);
        known.hear(observed(1, &[1]));
        let second = Arc::new(known.cluster.clone());
        assert_eq!(
            ask(&views, (&second, &usual), known.now, &count).await,
            2,
            "a report"
        );
        let waiting = Storage {
            waiting: 1,
            ..Storage::default()
        };
        assert_eq!(
            ask(&views, (&second, &waiting), known.now, &count).await,
            3,
            "the disk"
        );
        known.pass(GOOD_FOR + Duration::from_millis(1));
        assert_eq!(
            ask(&views, (&second, &waiting), known.now, &count).await,
            4,
            "time"
        );
    }

    #[tokio::test]
    async fn who_asks_at_the_same_time_waits_for_the_same_text() {
        let (views, count) = (SharedViews::default(), Arc::default());
        let known = Known::healthy(2);
        let (state, storage) = (Arc::new(known.cluster.clone()), Storage::default());
        let asked = (0..8).map(|_| ask(&views, (&state, &storage), known.now, &count));
        futures_util::future::join_all(asked).await;
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}
