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
        let other = (n == 1).then_some("020000000000000000");
        server
            .follow(with_digest(observed(n, &[1, 2]), other))
            .await;
    }
    let text = metrics(&server).await;
    for line in [
        "isopath_digest_mismatch{cluster=\"edge\",service=\"tcp:10.99.0.1:80\"} 1",
        "isopath_vip_ecmp_width_wanted{cluster=\"edge\",vip=\"10.99.0.1\"} 2",
        "isopath_director_up{cluster=\"edge\",director=\"d1\"} 1",
        "isopath_director_admin_state{admin_state=\"active\",cluster=\"edge\",director=\"d2\"} 1",
        "isopath_vip_announcers{cluster=\"edge\",vip=\"10.99.0.1\"} 2",
        "isopath_vip_ecmp_width{cluster=\"edge\",switch=\"10.0.0.1\",vip=\"10.99.0.1\"} 2",
        "isopath_vip_announcers_wanted{cluster=\"edge\",vip=\"10.99.0.1\"} 2",
        "isopath_real_server_up{cluster=\"edge\",director=\"d1\",\
         real_server=\"10.1.0.11:80\",service=\"tcp:10.99.0.1:80\"} 1",
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
    server.call("PUT", "clusters/edge", &empty).await;
    let text = metrics(&server).await;
    assert!(!text.contains("isopath_digest_mismatch{"), "{text}");
}

#[tokio::test]
async fn what_is_not_known_is_absent_rather_than_zero() {
    let server = Server::start().await;
    server.declare(1).await;
    let text = metrics(&server).await;
    assert!(!text.contains("isopath_vip_announcers{"), "{text}");
    assert!(!text.contains("isopath_real_server_up{"), "{text}");
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
