//! Requests of agents.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use isopath_api::access::Role;
use isopath_api::ids::DirectorName;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::certificate;
use super::principal::{bearer, path_cluster, path_name};
use crate::app::App;
use crate::error::Error;
use crate::store::tokens::{Clusters, Scope};

/// A request with the certificate of the path's `{director}`, or with a token that is good for
/// the agents of its `{cluster}`, as an extractor: an agent's, or an admin's, who could have one
/// made. Not an operator's: what agents report is what guards go by, over which only an admin
/// passes.
#[derive(Debug, Clone)]
pub struct Agent {
    /// The token's name, or the certificate's agent.
    pub name: String,
    /// Cancelled when the agent is revoked.
    pub ended: CancellationToken,
    shown: Shown,
}

/// What the request showed.
#[derive(Debug, Clone)]
enum Shown {
    /// A certificate that is good until then.
    Certificate(Timestamp),
    /// A token of this hash.
    Token(String),
}

impl Agent {
    /// Whether what the request showed is still good, for a stream, which goes on for long after
    /// its request.
    pub(crate) async fn is_good(&self, app: &App) -> bool {
        let now = app.clock().now().wall;
        match &self.shown {
            Shown::Certificate(until) => now < *until,
            Shown::Token(hash) => match app.token(hash).await {
                Ok(token) => token.is_some_and(|token| token.refusal(now).is_none()),
                // A database that fails for a moment takes nobody's stream away.
                Err(_) => true,
            },
        }
    }
}

impl FromRequestParts<App> for Agent {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        if let Some(agent) = certificate::agent(parts, app).await? {
            certificate::check_path(parts, app, &agent).await?;
            limit(parts, app).await?;
            let until = certificate::shown(parts).map(|it| it.expires);
            return Ok(Self {
                name: certificate::name(agent.row.id),
                ended: agent.ended,
                shown: Shown::Certificate(until.unwrap_or(Timestamp::MIN)),
            });
        }
        if app.tls().is_some_and(|tls| tls.require_client_certificates) {
            return Err(Error::Unauthenticated {
                detail: "agents show a certificate here: enrol this one".to_owned(),
            });
        }
        let (token, hash) = bearer(parts, app).await?;
        let name = token.name;
        let forbidden = |detail: String| Error::Forbidden { detail };
        let clusters = match token.scope {
            Scope::User { role, clusters } if role >= Role::Admin => clusters,
            Scope::User { role, .. } => {
                let detail = format!("this takes an agent's token; {name} is of the role {role}");
                return Err(forbidden(detail));
            }
            Scope::Agent { cluster } => Clusters::Only([cluster].into()),
        };
        let asked = path_cluster(parts).await;
        if asked.is_none_or(|asked| clusters.contains(&asked)) {
            limit(parts, app).await?;
            let ended = CancellationToken::new();
            let shown = Shown::Token(hash);
            return Ok(Self { name, ended, shown });
        }
        let good_for: Vec<_> = match &clusters {
            Clusters::All => Vec::new(),
            Clusters::Only(clusters) => clusters.iter().map(ToString::to_string).collect(),
        };
        Err(forbidden(format!(
            "this token is good for cluster {} only",
            good_for.join(", ")
        )))
    }
}

/// Refuses a director's agent that asks too often.
async fn limit(parts: &mut Parts, app: &App) -> Result<(), Error> {
    let Some(cluster) = path_cluster(parts).await else {
        return Ok(());
    };
    let director = path_name(parts, "director").await;
    let director = director.and_then(|name| name.parse::<DirectorName>().ok());
    let world = app.world();
    let declared = world.clusters.get(&cluster).map(|it| &it.directors);
    let director = director.filter(|name| declared.is_some_and(|it| it.contains_key(name)));
    app.limits()
        .report(&cluster, director.as_ref(), app.clock().now())
}
