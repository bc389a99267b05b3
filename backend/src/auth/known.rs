//! Tokens as they were looked up last.
//!
//! A thousand agents show theirs each second. Each is looked up once, and whether any of them
//! changed is asked of the database in one question: after each commit of this process, and each
//! second for what a command beside it did. A token that was revoked here is refused from the
//! answer to its revocation on.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::store::Store;
use crate::store::tokens::{self, Fingerprint, TokenRow};

/// For so long nobody asks whether another process has changed a token.
const TRUSTED: Duration = Duration::from_secs(1);

/// What is known. It never holds more than there are tokens: what is not one is not kept.
#[derive(Debug)]
pub(crate) struct KnownTokens {
    known: Mutex<Known>,
    trusted: Duration,
}

impl Default for KnownTokens {
    fn default() -> Self {
        Self::trusted_for(TRUSTED)
    }
}

#[derive(Debug, Default)]
struct Known {
    /// As of which commit of this process, and when that was asked.
    asked: Option<(u64, Instant)>,
    fingerprint: Option<Fingerprint>,
    rows: HashMap<String, TokenRow>,
}

impl Known {
    fn is_current(&self, commits: u64, trusted: Duration) -> bool {
        self.asked
            .is_some_and(|(of, at)| of == commits && at.elapsed() < trusted)
    }
}

impl KnownTokens {
    fn trusted_for(trusted: Duration) -> Self {
        Self {
            known: Mutex::default(),
            trusted,
        }
    }

    /// The token of a hash, whether or not it is still good.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(crate) async fn find(
        &self,
        store: &Store,
        hash: &str,
    ) -> Result<Option<TokenRow>, sqlx::Error> {
        // Read before the database is: what is committed meanwhile is asked for the next time.
        let commits = store.commits();
        {
            let known = self.lock();
            if known.is_current(commits, self.trusted)
                && let Some(row) = known.rows.get(hash)
            {
                return Ok(Some(row.clone()));
            }
        }
        let mut reader = store.read().await?;
        let fingerprint = tokens::fingerprint(&mut reader).await?;
        {
            let mut known = self.lock();
            if known.fingerprint != Some(fingerprint) {
                known.rows.clear();
                known.fingerprint = Some(fingerprint);
            }
            known.asked = Some((commits, Instant::now()));
            if let Some(row) = known.rows.get(hash) {
                return Ok(Some(row.clone()));
            }
        }
        let row = tokens::find(&mut reader, hash).await?;
        let mut known = self.lock();
        if let Some(row) = &row
            && known.fingerprint == Some(fingerprint)
        {
            known.rows.insert(hash.to_owned(), row.clone());
        }
        Ok(row)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tempfile::TempDir;

    use super::*;
    use crate::store::tokens::Scope;

    async fn stores() -> (TempDir, Store, Store) {
        let directory = TempDir::new().unwrap();
        let url = format!("sqlite://{}", directory.path().join("t.db").display());
        let ours = Store::open(&url).await.unwrap();
        let scope = Scope::Agent {
            cluster: "edge".parse().unwrap(),
        };
        for name in ["a", "b"] {
            let token = TokenRow::new(name, scope.clone(), "test", Timestamp::now());
            let mut write = ours.begin().await.unwrap();
            assert!(tokens::insert(&mut write, name, &token).await.unwrap());
            write.commit().await.unwrap();
        }
        let others = Store::open(&url).await.unwrap();
        (directory, ours, others)
    }

    async fn revoke(store: &Store, name: &str) {
        let mut write = store.begin().await.unwrap();
        tokens::revoke(&mut write, name, Timestamp::now())
            .await
            .unwrap();
        write.commit().await.unwrap();
    }

    async fn is_good(known: &KnownTokens, store: &Store, hash: &str) -> bool {
        let row = known.find(store, hash).await.unwrap().unwrap();
        row.revoked.is_none()
    }

    #[tokio::test]
    async fn a_revocation_here_counts_at_once_and_one_elsewhere_when_it_is_asked_for() {
        let (_directory, ours, others) = stores().await;
        let known = KnownTokens::trusted_for(Duration::MAX);
        assert!(is_good(&known, &ours, "a").await && is_good(&known, &ours, "b").await);
        revoke(&others, "a").await;
        assert!(
            is_good(&known, &ours, "a").await,
            "nobody asks the database again"
        );
        revoke(&ours, "b").await;
        assert!(!is_good(&known, &ours, "b").await, "revoked here");
        assert!(
            !is_good(&known, &ours, "a").await,
            "found out at the same time"
        );

        let (_directory, ours, others) = stores().await;
        let known = KnownTokens::trusted_for(Duration::ZERO);
        assert!(is_good(&known, &ours, "a").await);
        revoke(&others, "a").await;
        assert!(
            !is_good(&known, &ours, "a").await,
            "revoked by another process"
        );
    }

    #[tokio::test]
    async fn what_is_no_token_is_looked_up_each_time() {
        let (_directory, ours, others) = stores().await;
        let known = KnownTokens::trusted_for(Duration::MAX);
        assert_eq!(known.find(&ours, "new").await.unwrap(), None);
        let row = known.find(&ours, "a").await.unwrap().unwrap();
        let token = TokenRow::new("new", row.scope, "test", Timestamp::now());
        let mut write = others.begin().await.unwrap();
        assert!(tokens::insert(&mut write, "new", &token).await.unwrap());
        write.commit().await.unwrap();
        assert!(
            is_good(&known, &ours, "new").await,
            "made by another process"
        );
    }
}
