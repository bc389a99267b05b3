//! The link to the controller.
//!
//! Two tasks share one HTTP client: `stream.rs` keeps a stream of the desired state open,
//! `report.rs` posts what this director observes. Neither is needed for the director to go on:
//! what was accepted last is on disk and in force.

mod renew;
mod report;
mod sse;
mod stream;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use isopath_api::config::{AgentIdentityKind, ControllerConfig};
use isopath_api::desired::Desired;
use isopath_api::fleet::{MACHINE_HEADER, PROTOCOL, PROTOCOL_HEADER};
use isopath_api::observed::{ControllerObserved, Observed};
use isopath_api::problem::Problem;
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, redirect};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::desired::{Identity, Intent, Refusal};
use crate::identity::{self, AgentIdentity, IdentityError};
use crate::store::StoreError;
use crate::tls::{self, Pin, PinnedAuthority};

/// How long the TCP (and TLS) handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The most that is read of an error's body.
const MAX_PROBLEM: usize = 64 << 10;

/// Within this the first attempt after a failure is made: a controller that restarts finds a whole
/// fleet's handshakes spread over it.
const FIRST_RETRY: Duration = Duration::from_secs(5);

/// The bound of the time between attempts.
const MAX_RETRY: Duration = Duration::from_secs(15);

/// The most that the controller may ask for: it may have been wrong about itself.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

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
    /// The certificate of the enrolment.
    #[error("there is no identity to show")]
    Identity(#[from] IdentityError),
    /// The file with the authority that vouches for the controller.
    #[error("cannot read the authority in {}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// What TLS is made of.
    #[error("cannot speak TLS with the certificate or the authority")]
    Tls(#[from] rustls::Error),
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
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
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
        let state_dir = self.desired_file.parent().unwrap_or(Path::new("."));
        let shown = match self.config.identity {
            None => None,
            Some(AgentIdentityKind::Enrolled) => {
                let Identity {
                    cluster, director, ..
                } = &self.identity;
                Some(AgentIdentity::load(state_dir, cluster, director)?)
            }
        };
        let root = self.config.url.trim_end_matches('/');
        let make = |shown: Option<&AgentIdentity>| enrolled_client(&self.config, shown, state_dir);
        let (clients, client) = watch::channel(make(shown.as_ref())?);
        let api = Api {
            client,
            base: format!(
                "{root}/api/v1/clusters/{}/directors/{}",
                self.identity.cluster, self.identity.director,
            ),
            token_file: self.config.token_file.clone(),
            headers: headers(&self.instance, &self.identity, state_dir)?,
        };
        let renewal = renew::Renewal {
            api: &api,
            url: format!("{root}/api/v1/agents/renew"),
            state_dir,
            shown,
            clients: &clients,
            make: &make,
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
        tokio::join!(stream.run(), report.run(), renewal.run());
        Ok(())
    }
}

/// Requests to this director's part of the API.
struct Api {
    /// Another one after each renewal.
    client: watch::Receiver<Client>,
    base: String,
    /// Without it the client's certificate tells who asks.
    token_file: Option<PathBuf>,
    headers: HeaderMap,
}

impl Api {
    fn get(&self, path: &str) -> Result<RequestBuilder, LinkError> {
        let client = self.client.borrow().clone();
        self.authorized(client.get(format!("{}/{path}", self.base)))
    }

    fn post(&self, path: &str) -> Result<RequestBuilder, LinkError> {
        self.post_to(&format!("{}/{path}", self.base))
    }

    fn post_to(&self, url: &str) -> Result<RequestBuilder, LinkError> {
        let client = self.client.borrow().clone();
        self.authorized(client.post(url))
    }

    /// Reads the token each time: it may be replaced while the agent runs.
    fn authorized(&self, request: RequestBuilder) -> Result<RequestBuilder, LinkError> {
        let request = request.headers(self.headers.clone());
        let Some(path) = &self.token_file else {
            return Ok(request);
        };
        let text = std::fs::read_to_string(path).map_err(|source| LinkError::Token {
            path: path.clone(),
            source,
        })?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", text.trim()))
            .map_err(|_| LinkError::TokenForm(path.clone()))?;
        value.set_sensitive(true);
        Ok(request.header(AUTHORIZATION, value))
    }
}

fn headers(
    instance: &str,
    identity: &Identity,
    state_dir: &Path,
) -> Result<HeaderMap, IdentityError> {
    let router_id = identity.router_id.to_string();
    let machine = identity::machine(state_dir)?;
    let protocol = PROTOCOL.to_string();
    let headers = [
        ("isopath-instance", instance),
        ("isopath-router-id", &router_id),
        (MACHINE_HEADER, &machine),
        (PROTOCOL_HEADER, &protocol),
    ];
    let headers = headers.into_iter().map(|(name, value)| {
        let value = HeaderValue::try_from(value);
        let value = value.expect("a UUID, a dotted quad, digits and a number are ASCII");
        (reqwest::header::HeaderName::from_static(name), value)
    });
    Ok(headers.collect())
}

/// Who may vouch for the controller.
pub(crate) enum Trust {
    /// The authorities that the system trusts.
    System,
    /// These.
    Authorities(Vec<CertificateDer<'static>>),
    /// Whichever certificate this is the hash of.
    Pin(Pin),
}

impl Trust {
    /// The authority of a file, or those of the system without one.
    pub(crate) fn of_file(path: Option<&Path>) -> Result<Self, LinkError> {
        let Some(path) = path else {
            return Ok(Self::System);
        };
        let read = CertificateDer::pem_file_iter(path);
        let read = read.and_then(Iterator::collect::<Result<Vec<_>, _>>);
        read.map(Self::Authorities)
            .map_err(|source| LinkError::Authority {
                path: path.to_owned(),
                source,
            })
    }
}

/// A client that shows what is configured: the certificate of the enrolment, or none.
fn enrolled_client(
    config: &ControllerConfig,
    shown: Option<&AgentIdentity>,
    state_dir: &Path,
) -> Result<Client, LinkError> {
    let mut trust = Trust::of_file(config.ca_file.as_deref())?;
    let Some(shown) = shown else {
        return client(&config.url, trust, None);
    };
    if let (Trust::System, Some(ca)) = (&trust, &shown.enrolled.ca) {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(ca.as_bytes()).collect();
        trust = Trust::Authorities(read.map_err(|source| LinkError::Authority {
            path: AgentIdentity::file(state_dir),
            source,
        })?);
    }
    client(&config.url, trust, Some(shown.certified(state_dir)?))
}

/// A client without proxies and redirects: what it shows goes nowhere but to the configured URL.
pub(crate) fn client(
    url: &str,
    trust: Trust,
    shown: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<Client, LinkError> {
    let builder = tls::client_config();
    let verified = match trust {
        // The system's roots take time and memory to read, so only where they are of use.
        Trust::System if !url.starts_with("https:") => {
            builder.with_root_certificates(rustls::RootCertStore::empty())
        }
        Trust::System => builder.with_root_certificates(tls::system_roots()),
        Trust::Authorities(authorities) => {
            let mut roots = rustls::RootCertStore::empty();
            for authority in authorities {
                roots.add(authority)?;
            }
            builder.with_root_certificates(roots)
        }
        Trust::Pin(pin) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedAuthority(pin))),
    };
    let tls = match shown {
        None => verified.with_no_client_auth(),
        Some((chain, key)) => verified.with_client_auth_cert(chain, key)?,
    };
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("isopath-agent/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(1)
        .tcp_keepalive(Duration::from_secs(15))
        .build()?;
    Ok(client)
}

/// An answer that is a success; an error with the controller's own words otherwise.
pub(crate) async fn succeeded(mut response: Response) -> Result<Response, LinkError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = retry_after(response.headers());
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
        retry_after,
    })
}

/// How long the controller asks to be left alone (RFC 9110 §10.2.3, in seconds).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let asked = Duration::from_secs(value.trim().parse().ok()?);
    Some(asked.min(MAX_RETRY_AFTER))
}

/// The time before attempt `attempt` (from 0) after `error`: uniform in 0 to 5 s at first, later
/// in 0 to a bound that doubles up to [`MAX_RETRY`]; all of it after what the controller asked
/// for. The jitter comes after the bound, so that many agents whose controller was away for long
/// do not end up in step.
fn retry_delay(attempt: u32, error: &LinkError, random: f64) -> Duration {
    let bound = FIRST_RETRY
        .saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX))
        .min(MAX_RETRY);
    asked_for(error) + bound.mul_f64(random)
}

/// How long the controller asked to be left alone.
fn asked_for(error: &LinkError) -> Duration {
    match error {
        LinkError::Refused {
            retry_after: Some(asked),
            ..
        } => *asked,
        _ => Duration::ZERO,
    }
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
