//! What monitoring reads.

use axum::http::StatusCode;

use crate::testing::{Server, declaration_json, observed, request, with_digest};

async fn metrics(server: &Server) -> String {
    let answer = server.send(request("GET", "/metrics", None, None)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        answer.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    answer.text
}

#[tokio::test]
async fn metrics_show_what_is_wanted_and_what_is() {
    let server = Server::start().await;
    server.declare(2).await;
    for n in [1, 2] {
        let other = (n == 1).then_some("030000000000000000");
        server
            .follow(with_digest(observed(n, &[1, 2]), other))
            .await;
    }
    let text = metrics(&server).await;
    for line in [
        "isopath_digest_mismatch{cluster=\"edge\",service=\"tcp:10.99.0.1:80\"} 1",
        "isopath_vip_ecmp_width_wanted{cluster=\"edge\",vip=\"10.99.0.1\"} 2",
        "isopath_director_up{cluster=\"edge\",director=\"d1\"} 1",
        "isopath_director_admin_state{cluster=\"edge\",director=\"d2\",admin_state=\"active\"} 1",
        "isopath_vip_announcers{cluster=\"edge\",vip=\"10.99.0.1\"} 2",
        "isopath_vip_ecmp_width{cluster=\"edge\",vip=\"10.99.0.1\",switch=\"10.0.0.1\"} 2",
        "isopath_vip_ecmp_width_announced{cluster=\"edge\",vip=\"10.99.0.1\",switch=\"10.0.0.1\"} 2",
        "isopath_vip_announcers_said{cluster=\"edge\",vip=\"10.99.0.1\"} 2",
        "isopath_vip_announcers_foreign{cluster=\"edge\",vip=\"10.99.0.1\"} 0",
        "isopath_director_heard{cluster=\"edge\",director=\"d2\"} 1",
        "isopath_agent_up{cluster=\"edge\",director=\"d2\"} 1",
        "isopath_vip_announcers_wanted{cluster=\"edge\",vip=\"10.99.0.1\"} 2",
        "isopath_real_server_directors_up{cluster=\"edge\",service=\"tcp:10.99.0.1:80\",\
         real_server=\"10.1.0.11:80\"} 2",
        "isopath_controller_revision{cluster=\"edge\"} 1",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "no {line} in\n{text}"
        );
    }
    let undocumented = text
        .lines()
        .filter(|line| line.starts_with("# HELP"))
        .count();
    let typed = text
        .lines()
        .filter(|line| line.starts_with("# TYPE"))
        .count();
    assert_eq!(undocumented, typed);
    let foreign = text.lines().filter(|line| !line.starts_with('#'));
    assert!(
        foreign.clone().all(|line| line.starts_with("isopath_")),
        "{text}"
    );
}

#[tokio::test]
async fn what_is_declared_no_more_leaves_no_series_behind() {
    let server = Server::start().await;
    server.declare(2).await;
    server.follow(observed(2, &[1, 2])).await;
    assert!(metrics(&server).await.contains("director=\"d2\""));
    server.declare(1).await;
    let text = metrics(&server).await;
    assert!(!text.contains("director=\"d2\""), "{text}");
    assert!(text.contains("isopath_digest_mismatch{"), "{text}");
    let mut empty = declaration_json(1);
    empty["service"] = serde_json::json!([]);
    let path = "clusters/edge?override_guards=large_removal&reason=gone";
    server.call("PUT", path, &empty).await;
    let text = metrics(&server).await;
    assert!(!text.contains("isopath_digest_mismatch{"), "{text}");
}

#[tokio::test]
async fn what_is_not_known_is_absent_rather_than_zero() {
    let server = Server::start().await;
    server.declare(1).await;
    let text = metrics(&server).await;
    assert!(!text.contains("isopath_vip_announcers{"), "{text}");
    assert!(!text.contains("isopath_real_server_directors"), "{text}");
    assert!(!text.contains("isopath_director_heard"), "{text}");
}

#[tokio::test]
async fn ready_means_that_the_database_answers() {
    let server = Server::start().await;
    for path in ["/healthz", "/readyz"] {
        let answer = server.send(request("GET", path, None, None)).await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (StatusCode::OK, "ok\n"),
            "{path}"
        );
    }
    server.app.store().close().await;
    let answer = server.send(request("GET", "/readyz", None, None)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let alive = server.send(request("GET", "/healthz", None, None)).await;
    assert_eq!(alive.status, StatusCode::OK);
}

/// Whoever reads from elsewhere shows who it is, and sees the clusters that it may touch.
#[tokio::test]
async fn metrics_are_open_to_the_own_host_alone() {
    use crate::tls::Remote;
    let server = Server::start().await;
    server.declare(1).await;
    let from = |address: &str, proxied: bool, token: Option<&str>| {
        let mut request = request("GET", "/metrics", token, None);
        let remote = Remote {
            address: format!("{address}:40000").parse().unwrap(),
            tls: false,
            certificate: None,
        };
        let extensions = request.extensions_mut();
        extensions.insert(axum::extract::ConnectInfo(remote));
        if proxied {
            let value = "192.0.2.7".parse().unwrap();
            request.headers_mut().insert("x-forwarded-for", value);
        }
        request
    };
    let (ops, agent) = (server.operator.as_str(), server.agent.as_str());
    for (address, proxied, token, expected) in [
        ("127.0.0.1", false, None, StatusCode::OK),
        ("127.0.0.1", true, None, StatusCode::UNAUTHORIZED),
        ("192.0.2.7", false, None, StatusCode::UNAUTHORIZED),
        ("192.0.2.7", false, Some(ops), StatusCode::OK),
        ("127.0.0.1", true, Some(ops), StatusCode::OK),
        ("192.0.2.7", false, Some(agent), StatusCode::FORBIDDEN),
        (
            "127.0.0.1",
            false,
            Some("ispu_no"),
            StatusCode::UNAUTHORIZED,
        ),
    ] {
        let answer = server.send(from(address, proxied, token)).await;
        let who = format!("{address}, passed on: {proxied}, {token:?}");
        assert_eq!(answer.status, expected, "{who}: {}", answer.text);
    }
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_path() {
    let server = Server::start().await;
    server.declare(1).await;
    for path in [
        "clusters/edge",
        "clusters/none",
        "/nothing/at/all",
        "/no/such",
    ] {
        server.get(path).await;
    }
    let text = metrics(&server).await;
    for line in [
        "isopath_http_requests_total{route=\"/api/v1/clusters/{cluster}\",method=\"GET\",\
         status=\"200\"} 1",
        "isopath_http_requests_total{route=\"/api/v1/clusters/{cluster}\",method=\"GET\",\
         status=\"404\"} 1",
        "isopath_http_requests_total{route=\"none\",method=\"GET\",status=\"404\"} 2",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "no {line} in\n{text}"
        );
    }
    let duration = "isopath_http_request_duration_seconds_count{route=\"none\",method=\"GET\"} 2";
    assert!(text.lines().any(|found| found == duration), "{text}");
}

#[tokio::test]
async fn certificates_say_when_they_expire() {
    let server = Server::with_tls(false).await;
    let text = metrics(&server).await;
    let expiry = |of: &str| -> f64 {
        let name = "isopath_certificate_not_after_timestamp_seconds";
        let series = format!("{name}{{certificate=\"{of}\"}} ");
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(&series));
        value
            .unwrap_or_else(|| panic!("no {series} in {text}"))
            .parse()
            .unwrap()
    };
    let now = jiff::Timestamp::now().as_second() as f64;
    assert!(now < expiry("server"), "{text}");
    assert!(expiry("server") < expiry("authority"), "{text}");
}

#[tokio::test]
async fn what_is_refused_of_an_agent_is_counted_by_its_cause() {
    let server = Server::start().await;
    server.declare(1).await;
    let mut impostor = observed(1, &[1]);
    impostor.router_id = "10.9.9.9".parse().unwrap();
    assert_eq!(server.report(&impostor).await.status, StatusCode::CONFLICT);
    let text = metrics(&server).await;
    for line in [
        "isopath_director_reports_refused_total{cluster=\"edge\",director=\"d1\"} 1",
        "isopath_reports_refused_total{cluster=\"edge\",director=\"d1\",cause=\"wrong-agent\"} 1",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "no {line} in\n{text}"
        );
    }
}
