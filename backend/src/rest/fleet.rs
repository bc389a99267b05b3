//! Agents: one-time tokens, enrolment, renewal, revocation, and which there are.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use isopath_api::fault::Fault;
use isopath_api::fleet::{
    AgentState, AgentView, CertificateRequest, EnrollRequest, EnrollToken, EnrollTokenRequest,
    Enrolled, RevokeRequest,
};
use isopath_api::ids::{ClusterName, DirectorName};
use jiff::Timestamp;
use uuid::Uuid;

use super::body::JsonBody;
use super::openapi::{Changes, Reads, Reports};
use super::page::{Cursor, Page};
use super::path::{Query, named};
use crate::app::{App, Peer};
use crate::asked::request_id;
use crate::auth::{Admin, By, TokenKind, Via, Viewer, certificate, new_token, token_hash};
use crate::control::fleet::EnrollmentRefused;
use crate::control::state::{DirectorState, World};
use crate::control::{Enroll, Issued, MakeToken, Revoke, TOKEN_VALIDITY, Wanted};
use crate::error::Error;
use crate::store::agents::{AgentAbout, AgentRow};
use crate::store::enroll_tokens::NewEnrollToken;
use crate::tls::{AgentRequest, TlsServed};

/// `POST /enroll-tokens`: a one-time token for a director's agent.
#[utoipa::path(
    post,
    path = "/enroll-tokens",
    tag = "agents",
    request_body = EnrollTokenRequest,
    responses((status = 201, description = "The token, shown this once", body = EnrollToken), Changes)
)]
pub(super) async fn make_token(
    Admin(admin): Admin,
    State(app): State<App>,
    body: JsonBody,
) -> Result<(StatusCode, Json<EnrollToken>), Error> {
    let request: EnrollTokenRequest = body.parse(|_| Vec::new())?;
    let tls = authority(&app)?;
    let token = new_token(TokenKind::Enrolment);
    let now = app.clock().now().wall;
    let expires = now.checked_add(TOKEN_VALIDITY).unwrap_or(Timestamp::MAX);
    let make = MakeToken {
        hash: token_hash(&token),
        token: NewEnrollToken {
            cluster: request.cluster.clone(),
            director: request.director.clone(),
            made_by: admin.name.clone(),
            expires,
        },
        by: admin.by(),
    };
    app.control().make_enroll_token(make).await?;
    let made = EnrollToken {
        token,
        cluster: request.cluster,
        director: request.director,
        expires_at: expires,
        ca_pin: tls.own_certificate.then(|| tls.authority.pin()),
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// `POST /enroll`: a certificate for whoever has a one-time token.
#[utoipa::path(
    post,
    path = "/enroll",
    tag = "agents",
    security(()),
    request_body = EnrollRequest,
    responses((status = 201, description = "The agent's certificate", body = Enrolled), Reports)
)]
pub(super) async fn enroll(
    Peer(peer): Peer,
    State(app): State<App>,
    body: JsonBody,
) -> Result<(StatusCode, Json<Enrolled>), Error> {
    let request: EnrollRequest = body.parse(|it: &EnrollRequest| it.agent.validate("/agent"))?;
    let tls = authority(&app)?;
    let wanted = wanted(&app, tls, request.agent, "/agent").await?;
    let enroll = Enroll {
        token: token_hash(&request.token),
        wanted,
        by: By {
            name: "whoever has the token".to_owned(),
            via: Via::Nothing,
            peer: Some(peer),
            request_id: request_id(),
        },
    };
    let issued = app.control().enroll(enroll).await?;
    Ok((StatusCode::CREATED, Json(enrolled(tls, &issued))))
}

/// `POST /agents/renew`: another certificate for an agent that shows one.
#[utoipa::path(
    post,
    path = "/agents/renew",
    tag = "agents",
    security(("certificate" = [])),
    request_body = CertificateRequest,
    responses((status = 200, description = "The agent's new certificate", body = Enrolled), Reports)
)]
pub(super) async fn renew(
    WithCertificate(id): WithCertificate,
    Peer(peer): Peer,
    State(app): State<App>,
    body: JsonBody,
) -> Result<Json<Enrolled>, Error> {
    let request: CertificateRequest = body.parse(|it: &CertificateRequest| it.validate(""))?;
    let tls = authority(&app)?;
    let wanted = wanted(&app, tls, request, "").await?;
    let by = By {
        name: certificate::name(id),
        via: Via::Certificate,
        peer: Some(peer),
        request_id: request_id(),
    };
    let issued = app.control().renew((id, by), wanted).await?;
    Ok(Json(enrolled(tls, &issued)))
}

/// Which agents are listed.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Only those of this cluster.
    #[serde(default)]
    cluster: Option<ClusterName>,
    /// How many.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Where the last answer ended: the `cursor` of its `Link` header.
    #[param(max_length = 256)]
    cursor: Option<String>,
}

/// `GET /agents`: those that have enrolled, and those that report with a token.
#[utoipa::path(
    get,
    path = "/agents",
    tag = "agents",
    params(Filter),
    responses((status = 200, description = "The agents", body = Vec<AgentView>), Reads)
)]
pub(super) async fn list(
    Viewer(viewer): Viewer,
    Query(filter): Query<Filter>,
    State(app): State<App>,
) -> Result<Response, Error> {
    let cluster = filter.cluster.as_ref();
    let given: Vec<_> = cluster
        .map(|cluster| ("cluster", cluster.to_string()))
        .into_iter()
        .collect();
    let asked = format!("agents {given:?}");
    let page: Page<Place> = Page::new(filter.limit, filter.cursor.as_deref(), &asked)?;
    let last = page.last();
    let mut agents = views(&app.world(), app.clock().now().wall);
    agents.retain(|agent| {
        viewer.may_touch(&agent.cluster)
            && cluster.is_none_or(|cluster| agent.cluster == *cluster)
            && last.as_ref().is_none_or(|last| Place::of(agent) > *last)
    });
    agents.truncate(usize::try_from(page.fetch()).unwrap_or(usize::MAX));
    let cursor = |agent: &AgentView| Cursor::new(Place::of(agent), &asked);
    Ok(page.answer(agents, "/api/v1/agents", &given, cursor))
}

/// What the list of agents goes by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    cluster: ClusterName,
    director: DirectorName,
    /// Nothing of one that reports with a token.
    enrolled: Option<(Timestamp, Uuid)>,
}

impl Place {
    fn of(agent: &AgentView) -> Self {
        let id = agent.id.as_deref().and_then(|id| id.parse().ok());
        Self {
            cluster: agent.cluster.clone(),
            director: agent.director.clone(),
            enrolled: agent.enrolled_at.zip(id),
        }
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.cluster, self.director)?;
        match self.enrolled {
            Some((at, id)) => write!(f, "/{at}/{}", id.simple()),
            None => Ok(()),
        }
    }
}

impl FromStr for Place {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('/');
        let mut part = || parts.next();
        let place = Self {
            cluster: part().ok_or(())?.parse().map_err(drop)?,
            director: part().ok_or(())?.parse().map_err(drop)?,
            enrolled: match (part(), part()) {
                (None, _) => None,
                (Some(at), Some(id)) => {
                    Some((at.parse().map_err(drop)?, id.parse().map_err(drop)?))
                }
                (Some(_), None) => return Err(()),
            },
        };
        part().is_none().then_some(place).ok_or(())
    }
}

/// `POST /agents/{id}/revoke`: its streams end, its certificate is good for nothing more.
#[utoipa::path(
    post,
    path = "/agents/{id}/revoke",
    tag = "agents",
    params(("id" = String, Path, description = "The agent's identity, a UUID")),
    request_body = Option<RevokeRequest>,
    responses((status = 200, description = "The agent that was revoked", body = AgentView), Changes)
)]
pub(super) async fn revoke(
    Admin(admin): Admin,
    OfAgent(id): OfAgent,
    State(app): State<App>,
    body: JsonBody,
) -> Result<Json<AgentView>, Error> {
    let request: RevokeRequest = body.parse_or_default()?;
    let faults = request.validate();
    if !faults.is_empty() {
        return Err(Error::Invalid { faults });
    }
    let revoke = Revoke {
        id,
        by: admin.by(),
        reason: request.reason,
    };
    let row = app.control().revoke(revoke).await?;
    let now = app.clock().now().wall;
    Ok(Json(view(&app.world(), &row, now)))
}

/// The agent of the path.
#[derive(Debug)]
pub(super) struct OfAgent(Uuid);

impl<S: Send + Sync> FromRequestParts<S> for OfAgent {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        named(parts, state, "id").await.map(Self)
    }
}

/// An agent that shows its certificate and has not had too many others made lately.
#[derive(Debug)]
pub(super) struct WithCertificate(Uuid);

impl FromRequestParts<App> for WithCertificate {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        match certificate::agent(parts, app).await? {
            Some(agent) => {
                let row = &agent.row;
                let now = app.clock().now();
                app.limits().renewal(&row.cluster, &row.director, now)?;
                Ok(Self(row.id))
            }
            None => Err(Error::Unauthenticated {
                detail: "this takes an agent's certificate".to_owned(),
            }),
        }
    }
}

fn authority(app: &App) -> Result<&TlsServed, Error> {
    app.tls().ok_or_else(|| {
        Error::conflict(
            "this controller is not served with TLS, so agents cannot show certificates: set \
             [tls] in its file, or let them use tokens",
        )
    })
}

/// What an agent wants signed, its request verified; a request that cannot be used is counted.
async fn wanted(
    app: &App,
    tls: &TlsServed,
    request: CertificateRequest,
    at: &str,
) -> Result<Wanted, Error> {
    let parsed = match AgentRequest::parse(&request.csr) {
        Ok(parsed) => parsed,
        Err(error) => {
            let cause = EnrollmentRefused::BadRequest;
            app.control().refused_enrollment(cause).await?;
            let expected = "a certificate signing request in PEM of an ECDSA P-256 key";
            let fault = Fault::new(format!("{at}/csr"), expected, error);
            return Err(Error::Invalid {
                faults: vec![fault],
            });
        }
    };
    Ok(Wanted {
        request: parsed,
        about: AgentAbout {
            machine: request.machine,
            boot: request.boot,
            version: request.version,
            protocol: request.protocol,
        },
        authority: Arc::clone(&tls.authority),
    })
}

fn enrolled(tls: &TlsServed, issued: &Issued) -> Enrolled {
    let Issued { agent, certificate } = issued;
    Enrolled {
        id: agent.id.to_string(),
        cluster: agent.cluster.clone(),
        director: agent.director.clone(),
        certificate: certificate.clone(),
        ca: tls.own_certificate.then(|| tls.authority.pem().to_owned()),
        issued_at: agent.issued,
        expires_at: agent.expires,
    }
}

/// All agents, in the order of cluster, director and enrolment.
fn views(world: &World, now: Timestamp) -> Vec<AgentView> {
    let rows = world.fleet.agents.values().map(|agent| &agent.row);
    let mut views: Vec<_> = rows.map(|row| view(world, row, now)).collect();
    for cluster in world.clusters.values() {
        for (name, director) in &cluster.directors {
            let enrolled = world.fleet.of(&cluster.name, name).is_some();
            if !enrolled && director.report.is_some() {
                let epoch = &cluster.epoch;
                views.push(with_token(&cluster.name, name, director, epoch));
            }
        }
    }
    views.sort_by_cached_key(Place::of);
    views
}

/// An agent that has enrolled. What its director reports is its own only while it is the
/// director's agent.
fn view(world: &World, row: &AgentRow, now: Timestamp) -> AgentView {
    let state = match (&row.revoked, row.expires > now) {
        (Some(_), _) => AgentState::Revoked,
        (None, true) => AgentState::Enrolled,
        (None, false) => AgentState::Expired,
    };
    let cluster = world.clusters.get(&row.cluster);
    let director = cluster.and_then(|cluster| cluster.directors.get(&row.director));
    let base = match director {
        Some(director) if row.revoked.is_none() => {
            with_token(&row.cluster, &row.director, director, &world.epoch)
        }
        Some(_) | None => nothing_known(&row.cluster, &row.director),
    };
    let revoked = row.revoked.as_ref();
    AgentView {
        id: Some(row.id.to_string()),
        state,
        version: base.version.or_else(|| Some(row.about.version.clone())),
        protocol: base.protocol.or(Some(row.about.protocol)),
        machine: Some(row.about.machine.clone()),
        enrolled_at: Some(row.enrolled),
        expires_at: Some(row.expires),
        revoked_at: revoked.map(|revoked| revoked.at),
        revoked_by: revoked.map(|revoked| revoked.by.clone()),
        revoke_reason: revoked.map(|revoked| revoked.reason.clone()),
        ..base
    }
}

/// What a director's reports tell of its agent.
fn with_token(
    cluster: &ClusterName,
    name: &DirectorName,
    director: &DirectorState,
    epoch: &str,
) -> AgentView {
    let report = director.report.as_ref();
    let refused = director.refused.iter();
    let refused = refused.map(|(cause, tally)| (cause.as_str().to_owned(), tally.count));
    AgentView {
        version: report.map(|report| report.observed.version.clone()),
        protocol: director.protocol,
        last_seen: report.map(|report| report.received.wall),
        clock_skew_ms: report.map(|report| report.skew_ms()),
        generation: Some(director.generation),
        acknowledged_generation: director.acknowledged(epoch),
        refused: refused.collect(),
        ..nothing_known(cluster, name)
    }
}

fn nothing_known(cluster: &ClusterName, director: &DirectorName) -> AgentView {
    AgentView {
        id: None,
        cluster: cluster.clone(),
        director: director.clone(),
        state: AgentState::Token,
        version: None,
        protocol: None,
        machine: None,
        enrolled_at: None,
        expires_at: None,
        revoked_at: None,
        revoked_by: None,
        revoke_reason: None,
        last_seen: None,
        clock_skew_ms: None,
        generation: None,
        acknowledged_generation: None,
        refused: BTreeMap::new(),
    }
}
