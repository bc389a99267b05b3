use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::auth::LimitSettings;

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn own() -> TlsSettings {
    TlsSettings {
        own_ca: true,
        names: vec!["isopath.example".to_owned()],
        ..TlsSettings::default()
    }
}

fn authority(directory: &TempDir) -> Arc<Authority> {
    let made = Authority::load_or_make(directory.path(), Timestamp::now());
    Arc::new(made.unwrap())
}

fn load(
    directory: &TempDir,
    settings: &TlsSettings,
    now: Timestamp,
) -> (Arc<Authority>, ServerCertificate, CertificateRenewal) {
    let authority = authority(directory);
    let loaded = ServerCertificate::load(
        settings,
        Arc::clone(&authority),
        directory.path(),
        LOOPBACK,
        now,
    );
    let (certificate, renewal) = loaded.unwrap();
    (authority, certificate, renewal)
}

#[test]
fn the_authority_is_made_once_and_its_key_is_its_owners() {
    let directory = TempDir::new().unwrap();
    let pin = authority(&directory).pin();
    assert_eq!(authority(&directory).pin(), pin);
    let key = directory.path().join("ca.key");
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::remove_file(&key).unwrap();
    let lost = Authority::load_or_make(directory.path(), Timestamp::now()).unwrap_err();
    assert!(matches!(lost, TlsError::KeyLost { .. }), "{lost}");
    assert!(
        !key.exists(),
        "another key would make the certificate a lie"
    );
    std::fs::write(&key, "nonsense").unwrap();
    let wrong = Authority::load_or_make(directory.path(), Timestamp::now()).unwrap_err();
    assert!(wrong.to_string().contains("ca.key"), "{wrong}");
}

#[test]
fn an_own_certificate_is_kept_and_replaced_before_it_ends() {
    let directory = TempDir::new().unwrap();
    let now = Timestamp::now();
    let file = || std::fs::read(directory.path().join("server.pem")).unwrap();
    let (_, _, mut renewal) = load(&directory, &own(), now);
    let first = file();
    load(&directory, &own(), now);
    assert_eq!(file(), first, "a restart makes no other");
    let days = |days: u64| now + Duration::from_secs(days * 24 * 60 * 60);
    assert!(!renewal.renew(days(59)).unwrap());
    assert!(renewal.renew(days(61)).unwrap());
    let second = file();
    assert_ne!(second, first);
    let mut renamed = own();
    renamed.names.push("192.0.2.7".to_owned());
    load(&directory, &renamed, days(61));
    assert_ne!(file(), second, "it is good for another name now");
}

#[test]
fn the_operators_files_are_read_again_when_both_have_changed() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let write = |certificate: Option<&str>, key: Option<&str>| {
        for (name, text) in [("c.pem", certificate), ("c.key", key)] {
            if let Some(text) = text {
                std::fs::write(at(name), text).unwrap();
            }
        }
    };
    let pair = || {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["isopath.example".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let (first, second) = (pair(), pair());
    write(Some(&first.0), Some(&first.1));
    let settings = TlsSettings {
        certificate: Some(at("c.pem")),
        key: Some(at("c.key")),
        ..TlsSettings::default()
    };
    let now = Timestamp::now();
    let (_, _, mut renewal) = load(&directory, &settings, now);
    assert!(!renewal.renew(now).unwrap());
    write(Some(&second.0), None);
    let half = renewal.renew(now).unwrap_err();
    assert!(
        half.to_string().contains("the key of the certificate"),
        "{half}"
    );
    write(None, Some(&second.1));
    assert!(renewal.renew(now).unwrap());
}

#[test]
fn only_a_request_of_the_one_kind_of_key_is_taken() {
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let request = CertificateParams::default()
        .serialize_request(&p384)
        .unwrap();
    let error = AgentRequest::parse(&request.pem().unwrap()).unwrap_err();
    assert!(matches!(error, RequestError::Key), "{error}");
    let key = KeyPair::generate().unwrap();
    let good = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let mut forged = good.der().to_vec();
    // The last byte is the signature's.
    *forged.last_mut().unwrap() ^= 1;
    let text = |der: &[u8]| {
        let encoded = base64(der);
        format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{encoded}\n-----END CERTIFICATE REQUEST-----\n"
        )
    };
    assert!(AgentRequest::parse(&text(good.der())).is_ok());
    let error = AgentRequest::parse(&text(&forged)).unwrap_err();
    assert!(matches!(error, RequestError::Request(_)), "{error}");
    assert!(AgentRequest::parse("").is_err());
}

/// RFC 4648 §4, for as much as a test needs.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let of = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = (of(0) << 16) | (of(1) << 8) | of(2);
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place)) & 63;
            let shown = place <= chunk.len();
            text.push(if shown {
                char::from(ALPHABET[digit as usize])
            } else {
                '='
            });
        }
    }
    text
}

/// A server that answers who asks, and what a client needs to reach it.
struct Bench {
    address: std::net::SocketAddr,
    authority: Arc<Authority>,
    _directory: TempDir,
}

impl Bench {
    async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let (authority, certificate, _) = load(&directory, &own(), Timestamp::now());
        let config = server_config(&authority, &certificate).unwrap();
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TlsListener::new(listener, config).unwrap();
        let who = async |ConnectInfo(remote): ConnectInfo<Remote>| {
            let identity = remote.certificate.map(|it| it.identity.to_string());
            identity.unwrap_or_else(|| "nobody".to_owned())
        };
        let router = Router::new().route("/", get(who));
        let limits = LimitSettings::default();
        tokio::spawn(crate::connections::serve(
            listener,
            router,
            limits,
            CancellationToken::new(),
        ));
        Self {
            address,
            authority,
            _directory: directory,
        }
    }

    fn client(
        &self,
        shown: Option<(&str, &KeyPair)>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match shown {
            None => builder.with_no_client_auth(),
            Some((pem, key)) => {
                let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(vec![certificate], key)
                    .unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }

    /// What the server answers; an error where it does not.
    async fn ask(&self, connector: &TlsConnector) -> io::Result<String> {
        let stream = TcpStream::connect(self.address).await?;
        let name = rustls::pki_types::ServerName::from(self.address.ip());
        let mut stream = connector.connect(name, stream).await?;
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let body = answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned());
        body.ok_or_else(|| io::Error::other(answer))
    }

    fn issue(&self, authority: &Authority, at: Timestamp) -> (Uuid, String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let request = AgentRequest::parse(&request.pem().unwrap()).unwrap();
        let id = Uuid::new_v4();
        let issued = authority.issue_agent(&request, id, "d1", at).unwrap();
        (id, issued.pem, key)
    }
}

const BOTH: &[&rustls::SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

#[tokio::test]
async fn handlers_learn_whose_certificate_a_client_shows() {
    let bench = Bench::start().await;
    let nobody = bench.ask(&bench.client(None, BOTH)).await.unwrap();
    assert_eq!(nobody, "nobody");
    let old = bench.client(None, &[&rustls::version::TLS12]);
    assert_eq!(bench.ask(&old).await.unwrap(), "nobody", "people may");
    let (id, pem, key) = bench.issue(&bench.authority, Timestamp::now());
    let agent = bench.client(Some((&pem, &key)), BOTH);
    assert_eq!(bench.ask(&agent).await.unwrap(), id.to_string());
    let old = bench.client(Some((&pem, &key)), &[&rustls::version::TLS12]);
    assert!(bench.ask(&old).await.is_err(), "agents speak TLS 1.3");
}

#[tokio::test]
async fn a_strangers_certificate_and_one_that_has_ended_are_refused() {
    let bench = Bench::start().await;
    let elsewhere = TempDir::new().unwrap();
    let stranger = authority(&elsewhere);
    let (_, pem, key) = bench.issue(&stranger, Timestamp::now());
    assert!(
        bench
            .ask(&bench.client(Some((&pem, &key)), BOTH))
            .await
            .is_err()
    );
    let long_ago = Timestamp::now() - AGENT_VALIDITY - Duration::from_secs(60);
    let (_, pem, key) = bench.issue(&bench.authority, long_ago);
    assert!(
        bench
            .ask(&bench.client(Some((&pem, &key)), BOTH))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn clients_that_say_nothing_hold_up_nobody() {
    let bench = Bench::start().await;
    let mut silent = Vec::new();
    // More than there are handshakes at a time, all of them of one address.
    let one = std::net::Ipv4Addr::new(127, 0, 0, 2);
    for _ in 0..300 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((one, 0).into()).unwrap();
        silent.push(socket.connect(bench.address).await.unwrap());
    }
    let answer = bench.ask(&bench.client(None, BOTH)).await.unwrap();
    assert_eq!(answer, "nobody");
    let (mut first, mut last) = (silent.remove(0), silent.pop().unwrap());
    let (mut nothing, mut none) = ([0; 1], [0; 1]);
    // Both are cancel-safe: nothing is read of what is closed.
    tokio::select! {
        biased;
        closed = last.read(&mut none) => assert_eq!(closed.unwrap(), 0),
        closed = first.read(&mut nothing) => panic!("{closed:?}: the last one waited for it"),
    }
    // Each of the others gives its place back after the time of a handshake.
    assert_eq!(first.read(&mut nothing).await.unwrap(), 0, "it is closed");
}
