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
        // With its body: one that never ends must not keep the agent from asking again.
        let answered = async {
            let response = succeeded(request.send().await?).await?;
            Ok::<Enrolled, LinkError>(response.json().await?)
        };
        let enrolled = timeout(ANSWER_TIMEOUT, answered)
            .await
            .map_err(|_| LinkError::Silent(ANSWER_TIMEOUT))??;
        let renewed = pending.issued(enrolled);
        let client = (self.make)(Some(&renewed))?;
        renewed.keep(self.state_dir)?;
        self.clients.send_replace(client);
        Ok(renewed)
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::controller_link::{Trust, client};

    #[tokio::test]
    async fn an_answer_that_never_ends_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let controller = async {
            let (mut io, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            // The body of the request is JSON.
            while !asked.ends_with(b"}") {
                asked.push(io.read_u8().await.unwrap());
            }
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{";
            io.write_all(head).await.unwrap();
            // From now on there is nothing to wait for but the time.
            tokio::time::pause();
            std::future::pending::<()>().await;
        };
        let directory = TempDir::new().unwrap();
        let make = |_: Option<&AgentIdentity>| client(&url, Trust::System, None);
        let (clients, seen) = watch::channel(make(None).unwrap());
        let api = Api {
            client: seen,
            base: url.clone(),
            token_file: None,
            headers: HeaderMap::new(),
        };
        let renewal = Renewal {
            api: &api,
            url: format!("{url}/api/v1/agents/renew"),
            state_dir: directory.path(),
            shown: None,
            clients: &clients,
            make: &make,
        };
        let answer = async { timeout(Duration::from_secs(60), renewal.renew()).await };
        // Both are cancel-safe: the test ends with either.
        let answer = tokio::select! {
            answer = answer => answer.expect("it waits for ever"),
            () = controller => unreachable!("it never ends"),
        };
        assert!(
            matches!(answer, Err(LinkError::Silent(ANSWER_TIMEOUT))),
            "{answer:?}"
        );
    }
}
