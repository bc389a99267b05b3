//! TLS of the checks and of the link to the controller: ring only.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsConnector;

/// The two ways in which a check looks at a real server's certificate.
pub(crate) struct CheckTls {
    /// Each is made when the first check wants it: many directors check nothing over TLS, and the
    /// system's roots take time and memory to read.
    unverified: OnceLock<TlsConnector>,
    verified: OnceLock<TlsConnector>,
}

impl std::fmt::Debug for CheckTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CheckTls")
    }
}

impl CheckTls {
    pub(crate) fn new() -> Self {
        Self {
            unverified: OnceLock::new(),
            verified: OnceLock::new(),
        }
    }

    pub(crate) fn connector(&self, verify: bool) -> &TlsConnector {
        if !verify {
            return self.unverified.get_or_init(|| {
                let verifier = Arc::new(AnyCertificate(provider()));
                let config = client_config()
                    .dangerous()
                    .with_custom_certificate_verifier(verifier)
                    .with_no_client_auth();
                connector(config)
            });
        }
        self.verified.get_or_init(|| {
            let config = client_config()
                .with_root_certificates(system_roots())
                .with_no_client_auth();
            connector(config)
        })
    }
}

/// The crypto provider of everything in this process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificate authorities that the system trusts. Those that cannot be read are named in
/// the log and left out.
pub(crate) fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read a certificate authority of the system");
    }
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "read the system's certificate authorities");
    roots
}

/// The start of a client's configuration, with what rustls takes for safe.
pub(crate) fn client_config() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of the default protocol versions")
}

/// SHA-256 of a certificate: what a first contact knows an authority by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pin(String);

impl Pin {
    /// Reads 64 hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| Self(text.to_ascii_lowercase()))
    }

    fn is_of(&self, certificate: &CertificateDer<'_>) -> bool {
        let hash = Sha256::digest(certificate);
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        hash == self.0
    }
}

/// Takes a server that shows the pinned authority and a certificate which that has issued for the
/// server's name.
#[derive(Debug)]
pub(crate) struct PinnedAuthority(pub(crate) Pin);

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.iter().find(|it| self.0.is_of(it));
        let authority = authority.ok_or_else(|| {
            let shown = "the controller does not show the authority of the pin: it is another \
                         controller, or somebody is in between";
            rustls::Error::General(shown.to_owned())
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Each check does a whole handshake: that is what it is to test, and a session cache of
/// thousands of real servers would be memory for nothing.
fn connector(mut config: ClientConfig) -> TlsConnector {
    config.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

/// Takes any certificate and any signature by it.
///
/// A check asks whether the real server answers. Real servers behind a VIP mostly carry the
/// VIP's certificate or a private one, which no authority vouches for under the name that the
/// check uses; nothing secret is sent. `verify = true` in a check asks for more.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
