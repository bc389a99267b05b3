//! The controller's own certificate authority (ECDSA P-256).

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{ServerName, TlsError};
use crate::files::{FileError, make_directory, replace_private};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the authority itself lasts: enrolling every agent anew is nothing to do often.
const AUTHORITY_VALIDITY: Duration = DAY.saturating_mul(3650);
/// How long a server's certificate lasts.
pub(super) const SERVER_VALIDITY: Duration = DAY.saturating_mul(90);
/// How long an agent's certificate lasts. It is renewed at two thirds of that, so a controller
/// may be away for ten days before the first agent has to enrol again.
pub const AGENT_VALIDITY: Duration = DAY.saturating_mul(30);
/// Certificates are good from before they were made: the clock of whoever reads one may be late.
const BACKDATED: Duration = DAY;

/// The controller's own certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("pin", &self.pin())
            .finish_non_exhaustive()
    }
}

/// A certificate that was made for somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// The certificate in PEM.
    pub pem: String,
    /// SHA-256 of it in DER, in hexadecimal.
    pub fingerprint: String,
    /// When it ends.
    pub expires: Timestamp,
}

impl Authority {
    /// The authority kept in `directory`; made there at the first call.
    ///
    /// # Errors
    /// Its files cannot be read or made, or hold something else.
    pub fn load_or_make(directory: &Path, now: Timestamp) -> Result<Self, TlsError> {
        make_directory(directory).map_err(FileError::of("make the directory", directory))?;
        let (pem_file, key_file) = (directory.join("ca.pem"), directory.join("ca.key"));
        let pem = read_if_there(&pem_file)?;
        let key = read_if_there(&key_file)?;
        if pem.is_some() && key.is_none() {
            return Err(TlsError::KeyLost {
                certificate: pem_file,
                key: key_file,
            });
        }
        let key = match key {
            Some(text) => KeyPair::from_pem(&text).map_err(|error| TlsError::Content {
                path: key_file,
                expected: "a private key in PEM",
                found: error.to_string(),
            })?,
            None => {
                let key = KeyPair::generate()?;
                replace_private(&key_file, key.serialize_pem().as_bytes())?;
                key
            }
        };
        // A crash between the two leaves the key alone, which has signed nothing yet.
        let pem = match pem {
            Some(pem) => pem,
            None => {
                let pem = params_of_authority(now).self_signed(&key)?.pem();
                replace_private(&pem_file, pem.as_bytes())?;
                pem
            }
        };
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
        let certificate = certificate.map_err(|error| TlsError::Content {
            path: pem_file,
            expected: "a certificate in PEM",
            found: error.to_string(),
        })?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&certificate, key)?,
            certificate,
            pem,
        })
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// What a first contact knows it by: SHA-256 of its certificate, in hexadecimal.
    pub fn pin(&self) -> String {
        fingerprint(&self.certificate)
    }

    /// A certificate for the server under `names`, with its private key, both in PEM.
    pub(super) fn issue_server(
        &self,
        names: &[ServerName],
        now: Timestamp,
    ) -> Result<(String, String), TlsError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("isopathd");
        for name in names {
            params.subject_alt_names.push(match name {
                ServerName::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
                ServerName::Ip(address) => SanType::IpAddress(*address),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, SERVER_VALIDITY);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// A certificate for the agent `identity` with the key of its request. Nothing but the key is
    /// taken from the request; `label` is for people.
    ///
    /// # Errors
    /// The certificate cannot be signed.
    pub fn issue_agent(
        &self,
        request: &AgentRequest,
        identity: Uuid,
        label: &str,
        now: Timestamp,
    ) -> Result<IssuedCertificate, TlsError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(label);
        let uri = identity_uri(identity);
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let expires = set_validity(&mut params, now, AGENT_VALIDITY);
        let certificate = params.signed_by(&request.0.public_key, &self.issuer)?;
        Ok(IssuedCertificate {
            pem: certificate.pem(),
            fingerprint: fingerprint(certificate.der()),
            expires,
        })
    }
}

/// An agent's request for a certificate (PKCS #10), its signature verified: whoever made it has
/// the key.
pub struct AgentRequest(CertificateSigningRequestParams);

impl std::fmt::Debug for AgentRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentRequest")
    }
}

impl AgentRequest {
    /// Reads one in PEM.
    ///
    /// # Errors
    /// It is none, its signature is wrong, or its key is not of the only kind that is taken.
    pub fn parse(pem: &str) -> Result<Self, RequestError> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())?;
        let request = CertificateSigningRequestParams::from_der(&der)?;
        if *request.public_key.algorithm() != rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(RequestError::Key);
        }
        Ok(Self(request))
    }
}

/// Why a request for a certificate is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It is no PEM of a request.
    #[error("no certificate signing request in PEM")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// It cannot be read, or its signature is wrong.
    #[error("one that cannot be used: {0}")]
    Request(#[from] rcgen::Error),
    /// Its key.
    #[error("one whose key is not of ECDSA P-256")]
    Key,
}

/// The URI by which a certificate names an agent (RFC 9562 §4, RFC 8141).
fn identity_uri(identity: Uuid) -> String {
    identity.urn().to_string()
}

/// The agent that a certificate's URI names.
pub(super) fn identity_of(uri: &str) -> Option<Uuid> {
    Uuid::parse_str(uri.strip_prefix("urn:uuid:")?).ok()
}

/// SHA-256 of a certificate, in hexadecimal.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let hash = Sha256::digest(certificate);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn params_of_authority(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Two controllers' authorities have two names, so that a store of both is not confused.
    let name = format!("Isopath authority {}", Uuid::new_v4().simple());
    params.distinguished_name = common_name(&name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, AUTHORITY_VALIDITY);
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Good for `validity` from now on; when that ends.
fn set_validity(params: &mut CertificateParams, now: Timestamp, validity: Duration) -> Timestamp {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let second = u64::try_from(now.as_second()).unwrap_or(0);
    let now = Duration::from_secs(second);
    let expires = now.saturating_add(validity);
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + expires;
    let expires = i64::try_from(expires.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(expires).unwrap_or(Timestamp::MAX)
}

fn read_if_there(path: &Path) -> Result<Option<String>, TlsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::of("read", path)(error).into()),
    }
}
