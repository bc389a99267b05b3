//! `isopath-agent enroll`: a certificate for a one-time token.

use std::path::{Path, PathBuf};

use isopath_api::config::DirectorFile;
use isopath_api::fleet::{EnrollRequest, Enrolled};
use thiserror::Error;

use crate::controller_link::{LinkError, Trust, client, succeeded};
use crate::identity::{AgentIdentity, IdentityError, Pending};
use crate::tls::Pin;

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum EnrollError {
    /// The URL.
    #[error(
        "expected an https:// URL, found {0:?}: the token would go over the network in the clear"
    )]
    Url(String),
    /// The pin.
    #[error(
        "expected the 64 hexadecimal digits that `isopath enroll-token create` printed as ca_pin, found {0:?}"
    )]
    Pin(String),
    /// The file with the token.
    #[error("cannot read the token from {}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key, or where it is kept.
    #[error("cannot make an identity")]
    Identity(#[from] IdentityError),
    /// The controller.
    #[error("cannot enrol")]
    Link(#[from] LinkError),
    /// The token was another's.
    #[error(
        "the token is for director {found} and the file for {wanted}: nothing was kept; have a \
         token made for {wanted}"
    )]
    Another {
        /// Whose the token was.
        found: String,
        /// Who this is.
        wanted: String,
    },
}

/// What the command is given.
#[derive(Debug)]
pub struct Enroll<'a> {
    /// The director's file.
    pub file: &'a DirectorFile,
    /// The controller's base URL; that of the file's `[controller]` where there is none.
    pub controller: Option<&'a str>,
    /// The file with the token.
    pub token_file: &'a Path,
    /// SHA-256 of the certificate of the controller's authority; without it, the file's `ca_file`
    /// or the system's authorities have to vouch for the controller.
    pub ca_pin: Option<&'a str>,
}

/// Enrols this director's agent and keeps what it gets: its identity.
///
/// # Errors
/// The controller is not the one of the pin, or refuses.
pub async fn enroll(wanted: Enroll<'_>) -> Result<Enrolled, EnrollError> {
    let director = &wanted.file.director;
    let config = wanted.file.controller.as_ref();
    let url = wanted.controller.or(config.map(|it| it.url.as_str()));
    let url = url.unwrap_or_default().trim_end_matches('/');
    if !url.starts_with("https://") {
        return Err(EnrollError::Url(url.to_owned()));
    }
    let trust = match wanted.ca_pin {
        Some(pin) => Trust::Pin(Pin::parse(pin).ok_or_else(|| EnrollError::Pin(pin.to_owned()))?),
        None => Trust::of_file(config.and_then(|it| it.ca_file.as_deref()))?,
    };
    let path = wanted.token_file;
    let token = std::fs::read_to_string(path).map_err(|source| EnrollError::Token {
        path: path.to_owned(),
        source,
    })?;
    let pending = Pending::new(&director.state_dir)?;
    let request = EnrollRequest {
        token: token.trim().to_owned(),
        agent: pending.request.clone(),
    };
    let client = client(url, trust, None)?;
    let request = client.post(format!("{url}/api/v1/enroll")).json(&request);
    let response = request.send().await.map_err(LinkError::from)?;
    let enrolled: Enrolled = succeeded(response)
        .await?
        .json()
        .await
        .map_err(LinkError::from)?;
    let is_ours = enrolled.director == director.name
        && config.is_none_or(|config| config.cluster == enrolled.cluster);
    if !is_ours {
        let name = |cluster: &str, director| format!("{director} in cluster {cluster}");
        return Err(EnrollError::Another {
            found: name(enrolled.cluster.as_str(), &enrolled.director),
            wanted: name(
                config.map_or("any", |it| it.cluster.as_str()),
                &director.name,
            ),
        });
    }
    let identity: AgentIdentity = pending.issued(enrolled.clone());
    identity.keep(&director.state_dir)?;
    Ok(enrolled)
}
