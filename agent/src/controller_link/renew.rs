//! The renewal of the agent's certificate, before it ends.

use std::path::Path;
use std::time::Duration;

use isopath_api::fleet::Enrolled;
use jiff::Timestamp;
use reqwest::Client;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Api, LinkError, succeeded};
use crate::causes;
use crate::identity::{AgentIdentity, Pending, renewal_retry};

/// How often the clock is looked at: it may be set while the agent waits.
const LOOK_AGAIN: Duration = Duration::from_secs(10 * 60);

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Renewal<'a> {
    pub(super) api: &'a Api,
    pub(super) url: String,
    pub(super) state_dir: &'a Path,
    /// The certificate that is shown; nothing where a token is.
    pub(super) shown: Option<AgentIdentity>,
    pub(super) clients: &'a watch::Sender<Client>,
    pub(super) make: &'a (dyn Fn(Option<&AgentIdentity>) -> Result<Client, LinkError> + Sync),
}

impl Renewal<'_> {
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        while let Some(shown) = &self.shown {
            let due = shown.renew_at(fastrand::f64());
            let left = due.duration_since(Timestamp::now());
            if failures == 0 && left.is_positive() {
                sleep(left.unsigned_abs().min(LOOK_AGAIN)).await;
                continue;
            }
            match self.renew().await {
                Ok(renewed) => {
                    failures = 0;
                    tracing::info!(expires = %renewed.enrolled.expires_at, "renewed the certificate");
                    self.shown = Some(renewed);
                }
                Err(error) => {
                    let error = causes(&error);
                    tracing::warn!(error, "cannot renew the certificate");
                    sleep(renewal_retry(failures, fastrand::f64())).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    /// Gets a certificate for a fresh key and keeps it before it is shown.
    async fn renew(&self) -> Result<AgentIdentity, LinkError> {
        let pending = Pending::new(self.state_dir)?;
        let request = self.api.post_to(&self.url)?.json(&pending.request);
        let response = timeout(ANSWER_TIMEOUT, request.send())
            .await
            .map_err(|_| LinkError::Silent(ANSWER_TIMEOUT))??;
        let enrolled: Enrolled = succeeded(response).await?.json().await?;
        let renewed = pending.issued(enrolled);
        let client = (self.make)(Some(&renewed))?;
        renewed.keep(self.state_dir)?;
        self.clients.send_replace(client);
        Ok(renewed)
    }
}
