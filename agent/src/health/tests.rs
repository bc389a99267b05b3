//! Checks against servers on the loopback interface.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use isopath_api::declare::{CheckKind, CheckSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A test that waits longer than this has failed.
const DEADLINE: Duration = Duration::from_secs(10);

fn service() -> ServiceId {
    "tcp:10.99.0.1:80".parse().unwrap()
}

fn spec(kind: CheckKind) -> CheckSpec {
    CheckSpec {
        kind,
        port: None,
        path: None,
        host: None,
        status: None,
        verify: false,
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
        rise: 1,
        fall: 1,
    }
}

async fn listen() -> (TcpListener, RealServerId) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
        panic!("an IPv6 address for an IPv4 socket");
    };
    (listener, RealServerId(address))
}

/// Reads a request's head and answers with `response`; gives the head back.
async fn answer<S>(mut stream: S, response: &str) -> String
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(response.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    String::from_utf8(head).unwrap()
}

/// Tries once against a server that answers with `response`: what was found, and the request.
async fn http(spec: CheckSpec, response: &'static str) -> (Result<String, String>, String) {
    let (listener, server) = listen().await;
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        answer(stream, response).await
    });
    let found = try_once(server, &spec).await;
    (found, serving.await.unwrap())
}

async fn try_once(server: RealServerId, spec: &CheckSpec) -> Result<String, String> {
    let target = Target::new((service(), server), spec, Arc::new(CheckTls::new()));
    timeout(DEADLINE, target.probe())
        .await
        .expect("the try did not end")
        .map_err(|failure| failure.to_string())
}

#[tokio::test]
async fn a_tcp_check_says_whether_the_real_server_accepts() {
    let (listener, server) = listen().await;
    let good = try_once(server, &spec(CheckKind::Tcp)).await;
    assert_eq!(good.as_deref(), Ok("TCP connected"));
    drop(listener);
    let refused = try_once(server, &spec(CheckKind::Tcp)).await;
    assert_eq!(refused, Err("TCP refused".to_owned()));
}

#[tokio::test]
async fn an_http_check_wants_its_status() {
    let ok = "HTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(
        http(spec(CheckKind::Http), ok).await.0.as_deref(),
        Ok("HTTP 204")
    );

    let down = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    let (found, _) = http(spec(CheckKind::Http), down).await;
    assert_eq!(found, Err("HTTP 503, wanted 200-399".to_owned()));

    let only = CheckSpec {
        status: Some("503".parse().unwrap()),
        ..spec(CheckKind::Http)
    };
    assert_eq!(http(only, down).await.0.as_deref(), Ok("HTTP 503"));
}

#[tokio::test]
async fn an_http_check_asks_for_its_path_and_host() {
    let ok = "HTTP/1.0 200 OK\r\n\r\nok";
    let (_, head) = http(spec(CheckKind::Http), ok).await;
    assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains("host: 10.99.0.1\r\n"),
        "the VIP is the host: {head}"
    );
    assert!(head.contains("connection: close\r\n"), "{head}");

    let named = CheckSpec {
        path: Some("/healthz?deep=1".to_owned()),
        host: Some("web.example:8080".to_owned()),
        ..spec(CheckKind::Http)
    };
    let (_, head) = http(named, ok).await;
    assert!(
        head.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("host: web.example:8080\r\n"), "{head}");
}

#[tokio::test]
async fn what_is_no_whole_response_fails() {
    for (response, expected) in [
        ("", "HTTP connection closed before message completed"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP invalid"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "HTTP"),
    ] {
        let (found, _) = http(spec(CheckKind::Http), response).await;
        let failure = found.expect_err("half a response was taken for a whole one");
        assert!(failure.starts_with(expected), "{response:?}: {failure}");
    }
}

#[tokio::test]
async fn a_silent_real_server_runs_into_the_timeout() {
    let (listener, server) = listen().await;
    let slow = CheckSpec {
        timeout: Duration::from_millis(50),
        ..spec(CheckKind::Http)
    };
    let found = try_once(server, &slow).await;
    let expected = "timeout after 50ms waiting for the response";
    assert_eq!(found, Err(expected.to_owned()));
    drop(listener);
}

/// A TLS server with a certificate that it signed itself, for `web.example`.
fn self_signed() -> TlsAcceptor {
    let certified = rcgen::generate_simple_self_signed(["web.example".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(crate::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.unwrap())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Tries once over TLS: what was found, and the server name that the handshake asked for.
async fn https(spec: CheckSpec) -> (Result<String, String>, Option<String>) {
    let (listener, server) = listen().await;
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = self_signed().accept(stream).await.ok()?;
        let name = stream.get_ref().1.server_name().map(str::to_owned);
        answer(stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        name
    });
    let found = try_once(server, &spec).await;
    (found, serving.await.unwrap())
}

#[tokio::test]
async fn an_https_check_takes_any_certificate_unless_it_is_to_verify() {
    let named = CheckSpec {
        host: Some("web.example".to_owned()),
        ..spec(CheckKind::Https)
    };
    let (found, name) = https(named.clone()).await;
    assert_eq!(found.as_deref(), Ok("HTTP 200"));
    assert_eq!(
        name.as_deref(),
        Some("web.example"),
        "the server name asked for"
    );

    let by_address = https(spec(CheckKind::Https)).await;
    assert_eq!(by_address, (Ok("HTTP 200".to_owned()), None));

    let verified = CheckSpec {
        verify: true,
        ..named
    };
    let failure = https(verified)
        .await
        .0
        .expect_err("a self-signed certificate was trusted");
    assert!(
        failure.starts_with("TLS invalid peer certificate"),
        "{failure}"
    );
}

/// A service with one real server on the loopback interface.
fn declared(server: RealServerId, check: CheckSpec) -> Vec<Arc<ServiceSpec>> {
    let check = serde_json::to_value(check).unwrap();
    let json = serde_json::json!({
        "vip": "10.99.0.1", "protocol": "tcp", "port": 80, "check": check,
        "real_server": [{ "address": server.0.ip(), "port": server.0.port() }],
    });
    vec![Arc::new(serde_json::from_value(json).unwrap())]
}

async fn next(outcomes: &mut mpsc::Receiver<Outcome>) -> Outcome {
    timeout(DEADLINE, outcomes.recv())
        .await
        .expect("no check was tried")
        .expect("the checks ended")
}

/// Accepts forever.
fn accept_all(listener: TcpListener) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut kept: Vec<TcpStream> = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    }))
}

#[tokio::test]
async fn an_unchanged_check_keeps_its_state_and_a_changed_one_its_health() {
    let (listener, server) = listen().await;
    let _serving = accept_all(listener);
    let (mut checks, mut outcomes) = Checks::new();
    let quick = CheckSpec {
        interval: Duration::from_millis(10),
        timeout: Duration::from_millis(10),
        ..spec(CheckKind::Tcp)
    };
    let services = declared(server, quick.clone());
    checks.apply(&services, Timestamp::UNIX_EPOCH);
    assert_eq!(checks.of(service()).health(server), Health::Unknown);

    let outcome = next(&mut outcomes).await;
    let change = checks.take(outcome, Timestamp::UNIX_EPOCH);
    assert_eq!(change, Some(((service(), server), Health::Up)));

    let before = checks.check(service(), server).unwrap().serial;
    checks.apply(&services, Timestamp::UNIX_EPOCH);
    let same = checks.check(service(), server).unwrap();
    assert_eq!(same.serial, before, "an unchanged check was started anew");
    assert!(
        same.last.is_some(),
        "an unchanged check lost its last result"
    );

    let changed = CheckSpec { rise: 3, ..quick };
    checks.apply(&declared(server, changed), Timestamp::UNIX_EPOCH);
    let now = checks.check(service(), server).unwrap();
    assert_ne!(now.serial, before, "a changed check was not started anew");
    assert_eq!(
        now.health(),
        Health::Up,
        "a changed check forgot its health"
    );

    // The old check's outcomes may still be in the channel; they must not count.
    while let Ok(late) = outcomes.try_recv() {
        if late.serial == before {
            assert_eq!(checks.take(late, Timestamp::UNIX_EPOCH), None);
            let untouched = checks.check(service(), server).unwrap();
            assert!(
                untouched.last.is_none(),
                "a replaced check's outcome counted"
            );
        }
    }

    checks.apply(&[], Timestamp::UNIX_EPOCH);
    assert!(checks.check(service(), server).is_none());
}

#[tokio::test]
async fn without_a_check_a_real_server_is_up_and_a_check_that_comes_keeps_that() {
    let (listener, server) = listen().await;
    let _serving = accept_all(listener);
    let (mut checks, _outcomes) = Checks::new();
    let (first, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
    checks.apply(&declared(server, spec(CheckKind::None)), first);
    assert_eq!(checks.of(service()).health(server), Health::Up);
    checks.apply(&declared(server, spec(CheckKind::None)), later);
    assert_eq!(checks.of(service()).since(server), Some(first));
    let other = RealServerId("127.0.0.9:80".parse().unwrap());
    assert_eq!(checks.of(service()).health(other), Health::Unknown);

    checks.apply(&declared(server, spec(CheckKind::Tcp)), later);
    let check = checks.check(service(), server).expect("the check runs");
    assert_eq!((check.health(), check.since), (Health::Up, first));
    assert_eq!(checks.of(service()).health(other), Health::Unknown);
}

#[tokio::test]
async fn many_hanging_real_servers_do_not_delay_another_check() {
    // Nobody listens at the far end of these; the loopback interface drops nothing, so a
    // listener that never accepts and never answers stands in for a dead path.
    let (silent, dead) = listen().await;
    let (listener, good) = listen().await;
    let _serving = accept_all(listener);
    let (mut checks, mut outcomes) = Checks::new();
    let mut services = declared(
        dead,
        CheckSpec {
            interval: Duration::from_millis(500),
            timeout: Duration::from_millis(500),
            ..spec(CheckKind::Http)
        },
    );
    for port in 1..=200 {
        let mut copy = ServiceSpec::clone(&services[0]);
        copy.port = Some(1000 + port);
        services.push(Arc::new(copy));
    }
    let mut quick = declared(
        good,
        CheckSpec {
            interval: Duration::from_millis(20),
            timeout: Duration::from_millis(20),
            ..spec(CheckKind::Tcp)
        },
    );
    services.append(&mut quick);
    Arc::make_mut(services.last_mut().unwrap()).port = Some(90);
    checks.apply(&services, Timestamp::UNIX_EPOCH);

    let mut good_tries = 0;
    let mut hanging = 0;
    while hanging < 200 {
        let outcome = next(&mut outcomes).await;
        if outcome.key.1 == good {
            assert!(
                outcome.ok,
                "the good real server failed: {}",
                outcome.detail
            );
            good_tries += 1;
        } else {
            hanging += 1;
        }
    }
    assert!(
        good_tries >= 10,
        "{good_tries} tries of a 20 ms check while 200 checks hung for 500 ms each"
    );
    drop(silent);
}

#[test]
fn intervals_are_spread_by_a_tenth() {
    let interval = Duration::from_secs(10);
    let spread: Vec<Duration> = (0..1000).map(|_| jittered(interval)).collect();
    let (low, high) = (Duration::from_secs(9), Duration::from_secs(11));
    assert!(spread.iter().all(|one| (low..=high).contains(one)));
    let early = spread.iter().filter(|one| **one < interval).count();
    assert!(
        (300..700).contains(&early),
        "{early} of 1000 before the interval"
    );
}

#[test]
fn the_checked_port_may_be_another_than_the_service_s() {
    let server = RealServerId(SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 11), 80));
    let check = CheckSpec {
        port: Some(8081),
        ..spec(CheckKind::Tcp)
    };
    let target = Target::new((service(), server), &check, Arc::new(CheckTls::new()));
    assert_eq!(target.address().to_string(), "10.1.0.11:8081");
}
