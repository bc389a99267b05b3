//! Agents that show a certificate.

use std::sync::Arc;

use axum::extract::FromRequestParts as _;
use axum::extract::{ConnectInfo, RawPathParams};
use axum::http::request::Parts;
use isopath_api::fleet::MACHINE_HEADER;
use uuid::Uuid;

use super::Via;
use crate::app::App;
use crate::asked::Asked;
use crate::control::fleet::{AgentState, Refused};
use crate::error::Error;
use crate::tls::{ClientCertificate, Remote};

/// The certificate of the connection.
pub(super) fn shown(parts: &Parts) -> Option<&Arc<ClientCertificate>> {
    let ConnectInfo(remote) = parts.extensions.get::<ConnectInfo<Remote>>()?;
    remote.certificate.as_ref()
}

/// The agent whose certificate the connection has; nothing without one. It is looked up each
/// time, so that one that was revoked is refused at once.
///
/// # Errors
/// [`Error::Unauthenticated`] for one that is not known and for a certificate that has ended,
/// [`Error::Forbidden`] for one that was revoked or that is used on another machine than the one
/// it was issued to, [`Error::TooMany`] where that was so again and again.
pub(crate) async fn agent(parts: &Parts, app: &App) -> Result<Option<AgentState>, Error> {
    let Some(certificate) = shown(parts) else {
        return Ok(None);
    };
    let id = certificate.identity;
    Asked::note(parts, &name(id), Via::Certificate);
    let world = app.world();
    let agent = world.fleet.agents.get(&id);
    let agent = agent.ok_or_else(|| Error::Unauthenticated {
        detail: format!("agent {id} is not known here: enrol it"),
    })?;
    if agent.row.revoked.is_some() {
        return Err(Error::Forbidden {
            detail: format!("agent {id} was revoked: enrol it with a new token"),
        });
    }
    // It was good when the connection was made, or when the session that this one resumes was.
    if certificate.expires <= app.clock().now().wall {
        return Err(Error::Unauthenticated {
            detail: format!(
                "this certificate of agent {id} ended at {:.0}: show the renewed one, or enrol \
                 the agent with a new token",
                certificate.expires
            ),
        });
    }
    let machine = parts.headers.get(MACHINE_HEADER);
    let machine = machine.and_then(|value| value.to_str().ok());
    if machine != Some(agent.row.about.machine.as_str()) {
        let cause = format!(
            "the certificate of agent {id} is used on another machine than the one it enrolled on"
        );
        return Err(refuse(app, agent, cause).await?);
    }
    Ok(Some(agent.clone()))
}

/// What an agent is called in events and in the audit log.
pub(crate) fn name(id: Uuid) -> String {
    format!("agent {id}")
}

/// Refuses an agent that speaks for a director which is not its own.
///
/// # Errors
/// [`Error::Forbidden`].
pub(super) async fn check_path(
    parts: &mut Parts,
    app: &App,
    agent: &AgentState,
) -> Result<(), Error> {
    let params = RawPathParams::from_request_parts(parts, &()).await;
    let params = params.map_err(|_| Error::not_found("such resource"))?;
    let part = |name| {
        let found = params.iter().find(|(key, _)| *key == name);
        found.map_or("", |(_, value)| value)
    };
    let (cluster, director) = (part("cluster"), part("director"));
    let row = &agent.row;
    if (cluster, director) == (row.cluster.as_str(), row.director.as_str()) {
        return Ok(());
    }
    let cause = format!(
        "agent {}, which is that of director {} in cluster {}, speaks for director {director:?} \
         in cluster {cluster:?}",
        row.id, row.director, row.cluster
    );
    Err(refuse(app, agent, cause).await?)
}

/// Counts and shows it on the director whose certificate it is.
async fn refuse(app: &App, agent: &AgentState, cause: String) -> Result<Error, Error> {
    let (cluster, director) = (agent.row.cluster.clone(), agent.row.director.clone());
    app.limits()
        .refused(&cluster, &director, app.clock().now())?;
    let control = app.control();
    control
        .refused(cluster, director, Refused::WrongIdentity, cause.clone())
        .await?;
    Ok(Error::Forbidden { detail: cause })
}
