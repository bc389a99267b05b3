//! The certificate that the server shows, and its replacement while the server runs.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::authority::SERVER_VALIDITY;
use super::{Authority, ServerName, TlsError, TlsSettings, provider};
use crate::files::{FileError, replace_private};

/// How often the operator's files are looked at again, and an own certificate's age.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The certificate that the server shows now. A clone shows the same.
#[derive(Debug, Clone)]
pub struct ServerCertificate {
    shown: watch::Receiver<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.shown.borrow()))
    }
}

/// Where the certificate comes from.
enum Source {
    /// The operator's files.
    Files {
        certificate: PathBuf,
        key: PathBuf,
        /// What they held when they were read last.
        held: (Vec<u8>, Vec<u8>),
    },
    /// The controller's own authority.
    Own {
        authority: Arc<Authority>,
        directory: PathBuf,
        names: Vec<ServerName>,
        renew_at: Timestamp,
    },
}

/// Replaces the certificate when it is due.
pub struct CertificateRenewal {
    source: Source,
    shown: watch::Sender<Arc<CertifiedKey>>,
}

impl std::fmt::Debug for CertificateRenewal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CertificateRenewal")
    }
}

impl ServerCertificate {
    /// When what it shows now expires; nothing where that cannot be read.
    pub fn expires(&self) -> Option<Timestamp> {
        not_after(self.shown.borrow().cert.first()?)
    }

    /// The certificate that the settings name, and what replaces it when it is due.
    ///
    /// # Errors
    /// The files cannot be read, or do not belong together.
    pub fn load(
        settings: &TlsSettings,
        authority: Arc<Authority>,
        directory: &Path,
        listen: IpAddr,
        now: Timestamp,
    ) -> Result<(Self, CertificateRenewal), TlsError> {
        let (source, key) = match (&settings.certificate, &settings.key) {
            (Some(certificate), Some(key)) => {
                let held = (read(certificate)?, read(key)?);
                let certified = certified((certificate, &held.0), (key, &held.1))?;
                let (certificate, key) = (certificate.clone(), key.clone());
                let source = Source::Files {
                    certificate,
                    key,
                    held,
                };
                (source, certified)
            }
            (Some(_) | None, _) => {
                let names = names(settings, listen);
                let (certified, renew_at) = own(&authority, directory, &names, now)?;
                let source = Source::Own {
                    authority,
                    directory: directory.to_owned(),
                    names,
                    renew_at,
                };
                (source, certified)
            }
        };
        let (sender, shown) = watch::channel(Arc::new(key));
        let renewal = CertificateRenewal {
            source,
            shown: sender,
        };
        Ok((Self { shown }, renewal))
    }
}

impl CertificateRenewal {
    /// Looks again and again until `shutdown`. What cannot be used is named in the log, and the
    /// certificate that is shown stays.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(LOOK_AGAIN);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Both are cancel-safe: a tick stays due, a cancelled token stays so.
            tokio::select! {
                _ = tick.tick() => {}
                () = shutdown.cancelled() => return,
            }
            match self.renew(Timestamp::now()) {
                Ok(false) => {}
                Ok(true) => tracing::info!("the server shows a new certificate"),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "cannot replace the server's certificate");
                }
            }
        }
    }

    /// Replaces the certificate if it is due; whether it was.
    pub(super) fn renew(&mut self, now: Timestamp) -> Result<bool, TlsError> {
        let fresh = match &mut self.source {
            Source::Files {
                certificate,
                key,
                held,
            } => {
                let found = (read(certificate)?, read(key)?);
                if found == *held {
                    return Ok(false);
                }
                // Half of a replacement does not belong together; the other half follows.
                let fresh = certified((certificate, &found.0), (key, &found.1))?;
                *held = found;
                fresh
            }
            Source::Own {
                authority,
                directory,
                names,
                renew_at,
            } => {
                if now < *renew_at {
                    return Ok(false);
                }
                let (fresh, next) = own(authority, directory, names, now)?;
                *renew_at = next;
                fresh
            }
        };
        self.shown.send_replace(Arc::new(fresh));
        Ok(true)
    }
}

/// The names that the settings give, and those that are known without.
fn names(settings: &TlsSettings, listen: IpAddr) -> Vec<ServerName> {
    let mut names: BTreeSet<ServerName> = settings
        .names
        .iter()
        .filter_map(|name| ServerName::parse(name))
        .collect();
    names.insert(ServerName::Dns("localhost".to_owned()));
    names.insert(ServerName::Ip(Ipv4Addr::LOCALHOST.into()));
    names.insert(ServerName::Ip(Ipv6Addr::LOCALHOST.into()));
    if !listen.is_unspecified() {
        names.insert(ServerName::Ip(listen));
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    names.extend(ServerName::parse(host.trim()));
    names.into_iter().collect()
}

/// The certificate in `directory`, made anew where there is none that is good for these names
/// for long enough; and when it is to be made anew.
fn own(
    authority: &Authority,
    directory: &Path,
    names: &[ServerName],
    now: Timestamp,
) -> Result<(CertifiedKey, Timestamp), TlsError> {
    let (pem_file, key_file) = (directory.join("server.pem"), directory.join("server.key"));
    if let Some(kept) = kept(authority, (&pem_file, &key_file), names, now) {
        return Ok(kept);
    }
    let (pem, key) = authority.issue_server(names, now)?;
    // The authority's own certificate goes along: an agent that knows only its pin needs it.
    let chain = format!("{pem}{}", authority.pem());
    replace_private(&key_file, key.as_bytes())?;
    replace_private(&pem_file, chain.as_bytes())?;
    let certified = certified((&pem_file, chain.as_bytes()), (&key_file, key.as_bytes()))?;
    let renew_at = now.checked_add(SERVER_VALIDITY * 2 / 3);
    Ok((certified, renew_at.unwrap_or(Timestamp::MAX)))
}

/// What an earlier run made, if it is still good. Nothing is lost by making another.
fn kept(
    authority: &Authority,
    (pem_file, key_file): (&Path, &Path),
    names: &[ServerName],
    now: Timestamp,
) -> Option<(CertifiedKey, Timestamp)> {
    let (pem, key) = (fs::read(pem_file).ok()?, fs::read(key_file).ok()?);
    let certified = certified((pem_file, &pem), (key_file, &key)).ok()?;
    let [leaf, root, ..] = certified.cert.as_slice() else {
        return None;
    };
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let expires = Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()?;
    let renew_at = expires.checked_sub(SERVER_VALIDITY / 3).ok()?;
    let good = root == authority.certificate() && names_in(&parsed)? == names && now < renew_at;
    good.then_some((certified, renew_at))
}

/// When a certificate expires.
pub(super) fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
}

/// The names that a certificate is good for, in order.
fn names_in(certificate: &X509Certificate<'_>) -> Option<Vec<ServerName>> {
    let names = certificate.subject_alternative_name().ok()??;
    let names = names.value.general_names.iter();
    let names: BTreeSet<ServerName> = names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => ServerName::parse(name),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                address.ok().map(ServerName::Ip)
            }
            _ => None,
        })
        .collect();
    Some(names.into_iter().collect())
}

/// A chain and its key from the content of their files.
fn certified(
    (pem_file, pem): (&Path, &[u8]),
    (key_file, key): (&Path, &[u8]),
) -> Result<CertifiedKey, TlsError> {
    let wrong = |path: &Path, expected, found: String| TlsError::Content {
        path: path.to_owned(),
        expected,
        found,
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|e| wrong(pem_file, "certificates in PEM", e.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(pem_file, "certificates in PEM", "none".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|e| wrong(key_file, "a private key in PEM", e.to_string()))?;
    let key = provider().key_provider.load_private_key(key)?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(certified)
        }
        Err(error) => Err(wrong(
            key_file,
            "the key of the certificate",
            error.to_string(),
        )),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    Ok(fs::read(path).map_err(FileError::of("read", path))?)
}
