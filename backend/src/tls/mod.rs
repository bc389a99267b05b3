//! TLS of the server: what it shows of itself, and whom it takes for an agent.
//!
//! [`Authority`] is the controller's own certificate authority: it vouches for the agents that
//! have enrolled and, where the operator brings no certificate, for the server.
//! [`ServerCertificate`] is what the server shows, replaced while it runs. [`TlsListener`] and
//! [`PlainListener`] accept connections and tell handlers who is at the other end ([`Remote`]).

mod authority;
mod certificate;
mod listener;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde::Deserialize;

use crate::files::FileError;

pub use authority::{AGENT_VALIDITY, AgentRequest, Authority, IssuedCertificate, RequestError};
pub use certificate::{CertificateRenewal, ServerCertificate};
pub use listener::{ClientCertificate, PlainListener, Remote, TlsListener};

/// `[tls]` of the controller's file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The operator's own certificate, with what leads to its authority, in PEM.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Its private key.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Whether the controller's own authority vouches for the server instead.
    #[serde(default)]
    pub own_ca: bool,
    /// Names and addresses under which the server is reached, for a certificate of its own; this
    /// host's name, `localhost` and the address it listens on are among them anyway.
    #[serde(default)]
    pub names: Vec<String>,
    /// Whether agents must show a certificate: their tokens alone are refused then.
    #[serde(default)]
    pub require_client_certificates: bool,
    /// Where the authority's key is kept: `tls` beside the database unless told otherwise.
    #[serde(default)]
    pub directory: Option<PathBuf>,
}

impl TlsSettings {
    /// What is wrong with them, each with its pointer.
    pub fn faults(&self) -> Vec<isopath_api::fault::Fault> {
        use isopath_api::fault::Fault;
        let mut faults = Vec::new();
        let files = (self.certificate.is_some(), self.key.is_some());
        match (files, self.own_ca) {
            ((true, true), false) | ((false, false), true) => {}
            ((false, false), false) => faults.push(Fault::new(
                "/tls",
                "`certificate` and `key`, or own_ca = true",
                "neither",
            )),
            ((true, true), true) => faults.push(Fault::new(
                "/tls/own_ca",
                "no own_ca beside `certificate` and `key`",
                "it",
            )),
            ((true, false), _) => {
                faults.push(Fault::new("/tls", "`key` beside `certificate`", "no `key`"));
            }
            ((false, true), _) => faults.push(Fault::new(
                "/tls",
                "`certificate` beside `key`",
                "no `certificate`",
            )),
        }
        for (index, name) in self.names.iter().enumerate() {
            if ServerName::parse(name).is_none() {
                faults.push(Fault::new(
                    format!("/tls/names/{index}"),
                    "a DNS name or an IP address",
                    format_args!("{name:?}"),
                ));
            }
        }
        faults
    }
}

/// What the controller knows of the TLS that it is served with.
#[derive(Debug, Clone)]
pub struct TlsServed {
    /// Vouches for the agents.
    pub authority: Arc<Authority>,
    /// What the server shows.
    pub certificate: ServerCertificate,
    /// Whether it vouches for the server as well.
    pub own_certificate: bool,
    /// Whether agents must show a certificate.
    pub require_client_certificates: bool,
}

impl TlsServed {
    /// When the certificates that the server shows and vouches with expire, as far as it can be
    /// read.
    pub fn expiries(&self) -> [(&'static str, Option<Timestamp>); 2] {
        let authority = certificate::not_after(self.authority.certificate());
        [
            ("server", self.certificate.expires()),
            ("authority", authority),
        ]
    }
}

/// A name or an address that a certificate is good for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerName {
    /// A name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl ServerName {
    /// Reads either.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Ip(address));
        }
        rustls::pki_types::DnsName::try_from(text)
            .ok()
            .map(|name| Self::Dns(name.as_ref().to_ascii_lowercase()))
    }
}

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file that holds something else than it should.
    #[error("expected {expected} in {}, found {found}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// The authority's certificate without its key.
    #[error(
        "{} is there without {}: put the key back from a backup, or remove the certificate and \
         enrol every agent anew",
        certificate.display(),
        key.display()
    )]
    KeyLost {
        /// The certificate.
        certificate: PathBuf,
        /// Where its key should be.
        key: PathBuf,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Issue(#[from] rcgen::Error),
    /// rustls takes it not.
    #[error("cannot use the certificate")]
    Rustls(#[from] rustls::Error),
    /// The verification of clients.
    #[error("cannot verify agents")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The crypto provider of everything in this process.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What a handshake is done with: anybody may connect, and who shows a certificate must show one
/// that `authority` has issued.
///
/// # Errors
/// The authority's certificate is none.
pub fn server_config(
    authority: &Authority,
    certificate: &ServerCertificate,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(certificate.clone()));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;
