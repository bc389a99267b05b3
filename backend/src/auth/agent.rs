//! Requests of agents.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use isopath_api::access::Role;
use tokio_util::sync::CancellationToken;

use super::certificate;
use super::principal::{bearer, path_cluster, path_name};
use crate::app::App;
use crate::error::Error;
use crate::store::tokens::{Clusters, Scope};

/// A request with the certificate of the path's `{director}`, or with a token that is good for
/// the agents of its `{cluster}`, as an extractor: an agent's, or an operator's, who could have
/// one made.
#[derive(Debug, Clone)]
pub struct Agent {
    /// The token's name, or the certificate's agent.
    pub name: String,
    /// Cancelled when the agent is revoked.
    pub ended: CancellationToken,
}

impl FromRequestParts<App> for Agent {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        if let Some(agent) = certificate::agent(parts, app).await? {
            certificate::check_path(parts, app, &agent).await?;
            limit(parts, app).await?;
            return Ok(Self {
                name: certificate::name(agent.row.id),
                ended: agent.ended,
            });
        }
        if app.tls().is_some_and(|tls| tls.require_client_certificates) {
            return Err(Error::Unauthenticated {
                detail: "agents show a certificate here: enrol this one".to_owned(),
            });
        }
        let token = bearer(parts, app).await?;
        let name = token.name;
        let forbidden = |detail: String| Error::Forbidden { detail };
        let clusters = match token.scope {
            Scope::User { role, clusters } if role >= Role::Operator => clusters,
            Scope::User { .. } => {
                let detail = format!("{name} is a viewer's token; this takes an agent's");
                return Err(forbidden(detail));
            }
            Scope::Agent { cluster } => Clusters::Only([cluster].into()),
        };
        let asked = path_cluster(parts).await;
        if asked.is_none_or(|asked| clusters.contains(&asked)) {
            limit(parts, app).await?;
            let ended = CancellationToken::new();
            return Ok(Self { name, ended });
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
    let director = path_name(parts, "director").await.unwrap_or_default();
    app.limits().report(&cluster, &director, app.clock().now())
}
