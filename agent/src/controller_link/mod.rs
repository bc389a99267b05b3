//! The link to the controller.
//!
//! Two tasks share one HTTP client: `stream.rs` keeps a stream of the desired state open,
//! `report.rs` posts what this director observes. Neither is needed for the director to go on:
//! what was accepted last is on disk and in force.

mod report;
mod sse;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use isopath_api::config::ControllerConfig;
use isopath_api::desired::Desired;
use isopath_api::observed::{ControllerObserved, Observed};
use isopath_api::problem::Problem;
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, redirect};
use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::desired::{Identity, Intent, Refusal};
use crate::store::StoreError;
use crate::tls;

/// How long the TCP (and TLS) handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The most that is read of an error's body.
const MAX_PROBLEM: usize = 64 << 10;

/// The longest time between attempts, and between reports that fail.
const MAX_RETRY: Duration = Duration::from_secs(15);

/// A question for what is observed right now.
pub type SnapshotRequest = oneshot::Sender<Box<Observed>>;

/// Everything that the link's tasks need.
pub struct ControllerLink {
    /// Where the controller is.
    pub config: ControllerConfig,
    /// Who this director is.
    pub identity: Identity,
    /// The identity kept in the state directory.
    pub instance: String,
    /// Where the desired state is kept.
    pub desired_file: PathBuf,
    /// The desired state in force at the start: the one on disk.
    pub in_force: Option<Desired>,
    /// Takes what is accepted to the control loop; the latest wins.
    pub intents: watch::Sender<Option<Arc<Intent>>>,
    /// Asks the control loop for a report.
    pub snapshots: mpsc::Sender<SnapshotRequest>,
    /// Something changed that the controller should see at once.
    pub urgent: Arc<Notify>,
    /// How the link is, for the status.
    pub health: watch::Sender<LinkHealth>,
}

/// How the link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkHealth {
    url: String,
    connected: bool,
    since: Timestamp,
    stream_problem: Option<String>,
    report_problem: Option<String>,
}

impl LinkHealth {
    /// A link that was not tried yet.
    pub fn new(url: &str, now: Timestamp) -> Self {
        Self {
            url: url.to_owned(),
            connected: false,
            since: now,
            stream_problem: None,
            report_problem: None,
        }
    }

    /// The same as the status shows it.
    pub fn observed(&self) -> ControllerObserved {
        ControllerObserved {
            url: self.url.clone(),
            connected: self.connected,
            since: self.since,
            problem: self
                .report_problem
                .as_ref()
                .or(self.stream_problem.as_ref())
                .cloned(),
        }
    }
}

/// Why the controller could not be spoken to, or what it refused.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The file of the token.
    #[error("cannot read the token from {}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The token is no text that a header may carry.
    #[error("the token in {} is not a line of printable ASCII", .0.display())]
    TokenForm(PathBuf),
    /// No answer, or a broken one.
    #[error("cannot reach the controller")]
    Transport(#[source] reqwest::Error),
    /// The controller answered with an error.
    #[error("the controller refused with {status}: {detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its words.
        detail: String,
    },
    /// Nothing came for too long.
    #[error("nothing came from the controller for {0:?}")]
    Silent(Duration),
    /// The controller closed the stream.
    #[error("the controller closed the stream")]
    Closed,
    /// The stream is not one of server-sent events.
    #[error("the stream cannot be understood")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Reports are answered with a generation that this stream did not bring.
    #[error("the stream did not bring generation {0}, which the controller wants")]
    Behind(String),
    /// A desired state was refused.
    #[error("refused a desired state")]
    Desired(#[from] Refusal),
    /// A desired state could not be kept, so it was not applied.
    #[error("cannot keep the desired state")]
    Store(#[from] StoreError),
}

impl From<reqwest::Error> for LinkError {
    /// Without the URL, which the status shows beside it.
    fn from(error: reqwest::Error) -> Self {
        Self::Transport(error.without_url())
    }
}

impl ControllerLink {
    /// Runs both tasks until this is dropped.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub async fn run(self) -> Result<(), LinkError> {
        let api = Api {
            client: client(&self.config.url)?,
            base: format!(
                "{}/api/v1/clusters/{}/directors/{}",
                self.config.url.trim_end_matches('/'),
                self.identity.cluster,
                self.identity.director,
            ),
            token_file: self.config.token_file.clone(),
            headers: headers(&self.instance, &self.identity),
        };
        let (wanted, wanted_seen) = watch::channel(None);
        let health = &self.health;
        let stream = stream::Stream {
            api: &api,
            identity: &self.identity,
            desired_file: &self.desired_file,
            in_force: self.in_force.map(Arc::new),
            intents: &self.intents,
            health,
            wanted: wanted_seen,
        };
        let report = report::Reports {
            api: &api,
            snapshots: self.snapshots.clone(),
            urgent: &self.urgent,
            health,
            wanted,
        };
        tokio::join!(stream.run(), report.run());
        Ok(())
    }
}

/// Requests to this director's part of the API.
struct Api {
    client: Client,
    base: String,
    token_file: PathBuf,
    headers: HeaderMap,
}

impl Api {
    fn get(&self, path: &str) -> Result<RequestBuilder, LinkError> {
        self.authorized(self.client.get(format!("{}/{path}", self.base)))
    }

    fn post(&self, path: &str) -> Result<RequestBuilder, LinkError> {
        self.authorized(self.client.post(format!("{}/{path}", self.base)))
    }

    /// Reads the token each time: it may be replaced while the agent runs.
    fn authorized(&self, request: RequestBuilder) -> Result<RequestBuilder, LinkError> {
        let path = &self.token_file;
        let text = std::fs::read_to_string(path).map_err(|source| LinkError::Token {
            path: path.clone(),
            source,
        })?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", text.trim()))
            .map_err(|_| LinkError::TokenForm(path.clone()))?;
        value.set_sensitive(true);
        Ok(request
            .headers(self.headers.clone())
            .header(AUTHORIZATION, value))
    }
}

fn headers(instance: &str, identity: &Identity) -> HeaderMap {
    let router_id = identity.router_id.to_string();
    [
        ("isopath-instance", instance),
        ("isopath-router-id", &router_id),
    ]
    .into_iter()
    .map(|(name, value)| {
        let value = HeaderValue::try_from(value).expect("a UUID and a dotted quad are ASCII");
        (reqwest::header::HeaderName::from_static(name), value)
    })
    .collect()
}

/// A client without proxies and redirects: a token goes nowhere but to the configured URL.
fn client(url: &str) -> reqwest::Result<Client> {
    // The system's roots take time and memory to read, so only where they are of use.
    let roots = if url.starts_with("https:") {
        tls::system_roots()
    } else {
        rustls::RootCertStore::empty()
    };
    let tls = tls::client_config().with_root_certificates(roots);
    Client::builder()
        .tls_backend_preconfigured(tls.with_no_client_auth())
        .user_agent(concat!("isopath-agent/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(1)
        .tcp_keepalive(Duration::from_secs(15))
        .build()
}

/// An answer that is a success; an error with the controller's own words otherwise.
async fn succeeded(mut response: Response) -> Result<Response, LinkError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let mut body = Vec::new();
    while body.len() < MAX_PROBLEM
        && let Some(piece) = response.chunk().await?
    {
        body.extend_from_slice(&piece);
    }
    let detail = match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => problem.detail,
        Err(_) => status
            .canonical_reason()
            .unwrap_or("no reason given")
            .to_owned(),
    };
    Err(LinkError::Refused {
        status: status.as_u16(),
        detail,
    })
}

/// The time before attempt `attempt` (from 0): uniform in 0 to 1 s at first, later in 0 to a
/// bound that doubles up to [`MAX_RETRY`]. The jitter comes after the bound, so that many
/// agents whose controller was away for long do not end up in step.
fn retry_delay(attempt: u32, random: f64) -> Duration {
    let bound = Duration::from_secs(1)
        .saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX))
        .min(MAX_RETRY);
    bound.mul_f64(random)
}

/// Logs a problem when it is another than before, and shows it in the status.
fn note(before: &mut Option<String>, now: Option<String>, what: &str) {
    if *before == now {
        return;
    }
    match &now {
        Some(problem) => tracing::warn!(problem, "{what} the controller"),
        None => tracing::info!("{what} the controller: well again"),
    }
    *before = now;
}

#[cfg(test)]
mod tests;
