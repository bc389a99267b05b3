//! TLS of the checks and of the link to the controller: ring only.

use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
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
