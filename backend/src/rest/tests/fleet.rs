//! Agents that enrol, renew and are revoked, and what is refused of others.

use std::time::Duration;

use axum::http::StatusCode;
use isopath_api::fleet::{AgentState, AgentView, EnrollToken, Enrolled};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::auth::LimitSettings;
use crate::testing::{
    Answer, Server, as_agent, as_agent_until, declaration_json, machine_hash, observed, request,
};

/// What an agent on `machine` says of itself, with a fresh key.
fn about(machine: char) -> Value {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    json!({
        "csr": csr.pem().unwrap(), "machine": machine_hash(machine), "boot": "boot-1",
        "version": "0.1.0", "protocol": 1,
    })
}

async fn token(server: &Server, cluster: &str, director: &str) -> EnrollToken {
    let body = json!({ "cluster": cluster, "director": director });
    let answer = server.call("POST", "enroll-tokens", &body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    serde_json::from_value(answer.json).unwrap()
}

async fn enroll(server: &Server, token: &str, machine: char) -> Answer {
    let body = json!({ "token": token, "agent": about(machine) });
    server
        .send(request("POST", "enroll", None, Some(&body)))
        .await
}

/// An agent of `director` on `machine`.
async fn enrolled(server: &Server, cluster: &str, director: &str, machine: char) -> Enrolled {
    let token = token(server, cluster, director).await.token;
    let answer = enroll(server, &token, machine).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    serde_json::from_value(answer.json).unwrap()
}

fn id(agent: &Enrolled) -> Uuid {
    agent.id.parse().unwrap()
}

async fn agents(server: &Server) -> Vec<AgentView> {
    serde_json::from_value(server.get("agents").await.json).unwrap()
}

/// A report of `director` from an agent's own connection.
async fn report(server: &Server, id: Uuid, machine: char, (cluster, n): (&str, u8)) -> Answer {
    let body = serde_json::to_value(observed(n, &[n])).unwrap();
    let path = format!("clusters/{cluster}/directors/d{n}/observed");
    let request = request("POST", &path, None, Some(&body));
    server.send(as_agent(id, machine, request)).await
}

#[tokio::test]
async fn a_token_makes_one_agent() {
    let server = Server::with_tls(false).await;
    server.declare(1).await;
    let made = token(&server, "edge", "d1").await;
    assert!(made.token.starts_with("ispe_"), "{}", made.token);
    assert_eq!(made.ca_pin.as_ref().map(String::len), Some(64));
    let first = enroll(&server, &made.token, 'a').await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.text);
    let agent: Enrolled = serde_json::from_value(first.json).unwrap();
    assert_eq!(
        (agent.cluster.as_str(), agent.director.as_str()),
        ("edge", "d1")
    );
    assert!(agent.ca.unwrap().contains("BEGIN CERTIFICATE"));

    for _ in 0..2 {
        let again = enroll(&server, &made.token, 'a').await;
        assert_eq!(again.status, StatusCode::FORBIDDEN);
        assert!(again.text.contains("was used before"), "{}", again.text);
    }
    let unknown = enroll(&server, "ispe_none", 'a').await;
    assert_eq!(unknown.status, StatusCode::UNAUTHORIZED, "{}", unknown.text);
    let world = server.app.world();
    let refused: Vec<_> = world.fleet.enrollments_refused.iter().collect();
    let refused: Vec<_> = refused.iter().map(|(c, n)| (c.as_str(), **n)).collect();
    assert_eq!(refused, [("unknown-token", 1), ("used-token", 2)]);
    let events = server.view().await.events;
    let told = events.iter().filter(|e| e.what.contains("was used before"));
    assert_eq!(told.count(), 1, "two tries are one thing: {events:?}");

    let agents = agents(&server).await;
    assert_eq!(agents.len(), 1);
    assert_eq!(agents[0].id.as_deref(), Some(agent.id.as_str()));
    assert_eq!(agents[0].state, AgentState::Enrolled);
}

#[tokio::test]
async fn a_token_that_is_too_old_makes_none() {
    let server = Server::with_tls(false).await;
    let made = token(&server, "edge", "d1").await;
    server.clock.advance(Duration::from_secs(3601));
    let answer = enroll(&server, &made.token, 'a').await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.text.contains("is too old"), "{}", answer.text);
    assert!(agents(&server).await.is_empty());
}

#[tokio::test]
async fn a_request_that_cannot_be_used_does_not_use_the_token_up() {
    let server = Server::with_tls(false).await;
    let made = token(&server, "edge", "d1").await;
    for (key, value, pointer) in [
        ("csr", json!("none"), "/agent/csr"),
        ("machine", json!("../etc"), "/agent/machine"),
        ("boot", json!(""), "/agent/boot"),
        ("version", json!("v".repeat(65)), "/agent/version"),
        ("protocol", json!(2), "/agent/protocol"),
        ("protocol", json!(-1), "/agent/protocol"),
    ] {
        let mut agent = about('a');
        agent[key] = value;
        let body = json!({ "token": made.token, "agent": agent });
        let answer = server
            .send(request("POST", "enroll", None, Some(&body)))
            .await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{key}");
        assert_eq!(
            answer.json["errors"][0]["pointer"], pointer,
            "{}",
            answer.text
        );
    }
    let answer = enroll(&server, &made.token, 'a').await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
}

#[tokio::test]
async fn a_certificate_is_good_for_its_own_director_only() {
    let server = Server::with_tls(false).await;
    server.declare(2).await;
    let mut other = declaration_json(2);
    other["director"][0]["router_id"] = json!("10.0.7.2");
    server.call("PUT", "clusters/core", &other).await;
    let agent = enrolled(&server, "edge", "d1", 'a').await;
    let own = report(&server, id(&agent), 'a', ("edge", 1)).await;
    assert_eq!(own.status, StatusCode::OK, "{}", own.text);
    for place in [("edge", 2), ("core", 1), ("core", 2)] {
        let answer = report(&server, id(&agent), 'a', place).await;
        assert_eq!(
            answer.status,
            StatusCode::FORBIDDEN,
            "{place:?}: {}",
            answer.text
        );
        let path = format!("clusters/{}/directors/d{}/desired", place.0, place.1);
        let stream = as_agent(id(&agent), 'a', request("GET", &path, None, None));
        assert_eq!(server.send(stream).await.status, StatusCode::FORBIDDEN);
    }
    let listed = request("GET", "clusters/edge", None, None);
    let listed = server.send(as_agent(id(&agent), 'a', listed)).await;
    assert_eq!(listed.status, StatusCode::UNAUTHORIZED, "it is no operator");
    let view = server.view().await;
    let problem = view
        .problems
        .iter()
        .find(|p| p.object == "agent of director d1");
    let problem = problem.unwrap();
    assert!(problem.cause.contains("speaks for director"), "{problem:?}");
    assert!(problem.next.contains("revoke"), "{problem:?}");
    assert_eq!(agents(&server).await[0].refused["wrong-identity"], 6);
    let unknown = report(&server, Uuid::new_v4(), 'a', ("edge", 1)).await;
    assert_eq!(unknown.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_copied_key_is_noticed() {
    let server = Server::with_tls(false).await;
    server.declare(1).await;
    let agent = enrolled(&server, "edge", "d1", 'a').await;
    let answer = report(&server, id(&agent), 'b', ("edge", 1)).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(
        answer.text.contains("on another machine"),
        "{}",
        answer.text
    );
    let renewal = request("POST", "agents/renew", None, Some(&about('b')));
    let renewal = server.send(as_agent(id(&agent), 'a', renewal)).await;
    assert_eq!(renewal.status, StatusCode::FORBIDDEN, "{}", renewal.text);
    let events = server.view().await.events;
    let alarms = events
        .iter()
        .filter(|event| event.what.starts_with("refused"));
    assert_eq!(alarms.count(), 2, "{events:?}");
}

#[tokio::test]
async fn a_revoked_agent_is_refused_at_once_and_its_stream_ends() {
    let server = Server::with_tls(false).await;
    server.declare(1).await;
    let agent = enrolled(&server, "edge", "d1", 'a').await;
    let path = "clusters/edge/directors/d1/desired";
    let opened = as_agent(id(&agent), 'a', request("GET", path, None, None));
    let mut stream = server.open(opened).await;
    let (_, before) = stream.next().await.unwrap();
    let path = format!("agents/{}/revoke", agent.id);
    let body = json!({ "reason": "stolen" });
    let revoked = server.call("POST", &path, &body).await;
    assert_eq!(revoked.status, StatusCode::OK, "{}", revoked.text);
    assert_eq!(revoked.json["state"], "revoked");
    assert_eq!(revoked.json["revoke_reason"], "stolen");
    assert!(stream.next().await.is_none(), "the stream goes on");
    let answer = report(&server, id(&agent), 'a', ("edge", 1)).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.text.contains("was revoked"), "{}", answer.text);
    let renewal = request("POST", "agents/renew", None, Some(&about('a')));
    let renewal = server.send(as_agent(id(&agent), 'a', renewal)).await;
    assert_eq!(renewal.status, StatusCode::FORBIDDEN, "{}", renewal.text);
    let again = server.call("POST", &path, &json!({})).await;
    assert_eq!(again.status, StatusCode::CONFLICT);

    let server = server.killed_and_started_again().await;
    let answer = report(&server, id(&agent), 'a', ("edge", 1)).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "it stays revoked");
    // The router stays in service, and so does what is wanted of it.
    let (_, after) = server.stream("d1").await.next().await.unwrap();
    assert_eq!(after, before);
    let missing = format!("agents/{}/revoke", Uuid::new_v4());
    let missing = server.call("POST", &missing, &json!({})).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_machine_that_was_replaced_enrols_in_place_of_the_old_one() {
    let server = Server::with_tls(false).await;
    server.declare(1).await;
    let old = enrolled(&server, "edge", "d1", 'a').await;
    report(&server, id(&old), 'a', ("edge", 1)).await;
    let made = token(&server, "edge", "d1").await;
    let answer = enroll(&server, &made.token, 'b').await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "the old one reports");
    assert!(
        answer.text.contains("on another machine"),
        "{}",
        answer.text
    );
    server.clock.advance(Duration::from_secs(6));
    let answer = enroll(&server, &made.token, 'b').await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let new: Enrolled = serde_json::from_value(answer.json).unwrap();
    let answer = report(&server, id(&old), 'a', ("edge", 1)).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let mut first = observed(1, &[1]);
    first.instance = "after-the-replacement".to_owned();
    first.at = server.app.clock().now().wall;
    let body = serde_json::to_value(first).unwrap();
    let path = "clusters/edge/directors/d1/observed";
    let first = request("POST", path, None, Some(&body));
    let answer = server.send(as_agent(id(&new), 'b', first)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let states: Vec<_> = agents(&server).await.iter().map(|a| a.state).collect();
    assert_eq!(states, [AgentState::Revoked, AgentState::Enrolled]);
}

#[tokio::test]
async fn a_director_that_is_declared_again_finds_its_agent() {
    let server = Server::with_tls(false).await;
    server.declare(2).await;
    let agent = enrolled(&server, "edge", "d2", 'a').await;
    server.declare(1).await;
    let answer = report(&server, id(&agent), 'a', ("edge", 2)).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text);
    // It may enrol anew meanwhile, and go on with what it had as well.
    server.declare(2).await;
    let answer = report(&server, id(&agent), 'a', ("edge", 2)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    server.declare(1).await;
    let anew = enrolled(&server, "edge", "d2", 'a').await;
    server.declare(2).await;
    let answer = report(&server, id(&anew), 'a', ("edge", 2)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}

#[tokio::test]
async fn a_renewed_certificate_is_the_same_agents() {
    let server = Server::with_tls(false).await;
    server.declare(1).await;
    let agent = enrolled(&server, "edge", "d1", 'a').await;
    server.clock.advance(Duration::from_secs(20 * 24 * 60 * 60));
    let renewal = request("POST", "agents/renew", None, Some(&about('a')));
    let answer = server.send(as_agent(id(&agent), 'a', renewal)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let renewed: Enrolled = serde_json::from_value(answer.json).unwrap();
    assert_eq!(renewed.id, agent.id);
    assert!(renewed.expires_at > agent.expires_at);
    let without = request(
        "POST",
        "agents/renew",
        Some(&server.agent),
        Some(&about('a')),
    );
    let without = server.send(without).await;
    assert_eq!(without.status, StatusCode::UNAUTHORIZED, "{}", without.text);
    let server = server.killed_and_started_again().await;
    let kept = agents(&server).await;
    assert_eq!(kept[0].expires_at, Some(renewed.expires_at));
}

#[tokio::test]
async fn an_agent_has_few_certificates_made_at_a_time() {
    let server = Server::with_tls(false).await;
    server.declare(2).await;
    let [one, other] = [
        enrolled(&server, "edge", "d1", 'a').await,
        enrolled(&server, "edge", "d2", 'b').await,
    ];
    let renew = async |agent: &Enrolled, machine: char| {
        let renewal = request("POST", "agents/renew", None, Some(&about(machine)));
        server.send(as_agent(id(agent), machine, renewal)).await
    };
    let mut made = 0;
    let refused = loop {
        let answer = renew(&one, 'a').await;
        if answer.status != StatusCode::OK {
            break answer;
        }
        made += 1;
        assert!(made < 100, "there is no end of them");
    };
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.json["type"], "/problems/too-many-requests");
    let wait = refused.headers["retry-after"].to_str().unwrap();
    let wait: u64 = wait.parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    assert_eq!(renew(&other, 'b').await.status, StatusCode::OK);
    let own = report(&server, id(&one), 'a', ("edge", 1)).await;
    assert_eq!(own.status, StatusCode::OK, "it reports on: {}", own.text);
    server.clock.advance(Duration::from_secs(wait));
    let again = renew(&one, 'a').await;
    assert_eq!(again.status, StatusCode::OK, "{}", again.text);
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_good_for_nothing_on_an_open_connection() {
    let server = Server::with_tls(false).await;
    server.declare(1).await;
    let agent = enrolled(&server, "edge", "d1", 'a').await;
    let until = server.app.clock().now().wall + Duration::from_secs(60);
    let with = |request| as_agent_until(until, id(&agent), 'a', request);
    let path = "clusters/edge/directors/d1/desired";
    let opened = with(request("GET", path, None, None));
    let mut stream = server.open(opened).await;
    stream.next().await.unwrap();
    server.clock.advance(Duration::from_secs(61));
    assert!(stream.next().await.is_none(), "the stream goes on");
    let body = serde_json::to_value(observed(1, &[1])).unwrap();
    let observed = "clusters/edge/directors/d1/observed";
    for (method, path, body) in [
        ("GET", path, None),
        ("POST", observed, Some(body)),
        ("POST", "agents/renew", Some(about('a'))),
    ] {
        let request = request(method, path, None, body.as_ref());
        let answer = server.send(with(request)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text);
        assert!(answer.text.contains("ended at"), "{}", answer.text);
    }
}

#[tokio::test]
async fn whoever_has_a_copied_key_asks_no_more_often_than_its_agent() {
    let limits = LimitSettings {
        reports_per_second: 1,
        ..LimitSettings::default()
    };
    let server = Server::limited(limits).await.behind_tls(false).await;
    server.declare(1).await;
    let agent = enrolled(&server, "edge", "d1", 'a').await;
    for _ in 0..20 {
        let answer = report(&server, id(&agent), 'b', ("edge", 1)).await;
        assert!(answer.status.is_client_error(), "{}", answer.text);
    }
    let answer = report(&server, id(&agent), 'b', ("edge", 1)).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    let own = report(&server, id(&agent), 'a', ("edge", 1)).await;
    assert_eq!(own.status, StatusCode::OK, "the agent itself is heard");
    let counted = agents(&server).await[0].refused["wrong-identity"];
    assert!((1..20).contains(&counted), "{counted}");
}

#[tokio::test]
async fn certificates_may_be_required_of_agents() {
    let server = Server::with_tls(true).await;
    server.declare(1).await;
    let answer = server.report(&observed(1, &[1])).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.text.contains("enrol"), "{}", answer.text);
    let agent = enrolled(&server, "edge", "d1", 'a').await;
    let answer = report(&server, id(&agent), 'a', ("edge", 1)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}

#[tokio::test]
async fn without_tls_nobody_enrols() {
    let server = Server::start().await;
    let body = json!({ "cluster": "edge", "director": "d1" });
    let answer = server.call("POST", "enroll-tokens", &body).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.text.contains("[tls]"), "{}", answer.text);
}

#[tokio::test]
async fn twenty_clusters_keep_their_agents_apart() {
    let server = Server::with_tls(false).await;
    let mut fleet = Vec::new();
    for cluster in 0..20 {
        let name = format!("c{cluster}");
        let path = format!("clusters/{name}");
        let mut declared = declaration_json(2);
        // Each cluster has a VIP of its own.
        for place in ["/vip/0/address", "/service/0/vip"] {
            *declared.pointer_mut(place).unwrap() = json!(format!("10.99.{cluster}.1"));
        }
        let answer = server.call("PUT", &path, &declared).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        let agent = enrolled(&server, &name, "d1", 'a').await;
        fleet.push((name, id(&agent)));
    }
    for (own, id) in &fleet {
        for (name, _) in &fleet {
            let answer = report(&server, *id, 'a', (name, 1)).await;
            let expected = if own == name {
                StatusCode::OK
            } else {
                StatusCode::FORBIDDEN
            };
            assert_eq!(answer.status, expected, "{own} speaks for {name}");
            let path = format!("clusters/{name}/directors/d1/desired");
            let stream = as_agent(*id, 'a', request("GET", &path, None, None));
            if own == name {
                let (_, desired) = server.open(stream).await.next().await.unwrap();
                assert_eq!(desired.cluster.as_str(), own);
            } else {
                assert_eq!(server.send(stream).await.status, StatusCode::FORBIDDEN);
            }
        }
    }
}

#[tokio::test]
async fn a_protocol_of_tomorrow_is_refused_and_shown() {
    let server = Server::with_tls(false).await;
    server.declare(1).await;
    let body = serde_json::to_value(observed(1, &[1])).unwrap();
    let path = "clusters/edge/directors/d1/observed";
    let mut tomorrow = request("POST", path, Some(&server.agent), Some(&body));
    let headers = tomorrow.headers_mut();
    headers.insert("isopath-protocol", "2".parse().unwrap());
    let answer = server.send(tomorrow).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
    let problems = server.view().await.problems;
    let problem = problems.iter().find(|p| p.object == "agent of director d1");
    assert!(
        problem.unwrap().next.contains("controller first"),
        "{problem:?}"
    );
}

#[tokio::test]
async fn agents_are_listed_in_pages_without_one_twice_or_left_out() {
    let server = Server::with_tls(false).await;
    server.declare(3).await;
    for director in ["d2", "d1"] {
        enrolled(&server, "edge", director, 'a').await;
    }
    server.clock.advance(Duration::from_secs(6));
    enrolled(&server, "edge", "d1", 'b').await;
    let mut with_token = observed(3, &[3]);
    with_token.at = server.app.clock().now().wall;
    assert_eq!(server.report(&with_token).await.status, StatusCode::OK);
    let all = agents(&server).await;
    let (mut paged, mut next) = (Vec::new(), Some("agents?cluster=edge&limit=1".to_owned()));
    while let Some(path) = next.take() {
        let answer = server.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        let page: Vec<AgentView> = serde_json::from_value(answer.json).unwrap();
        assert_eq!(page.len(), 1, "{path}");
        paged.extend(page);
        let link = answer.headers.get("link");
        let link = link.map(|link| link.to_str().unwrap()[1..].to_owned());
        next = link.and_then(|link| Some(link.split_once('>')?.0.to_owned()));
    }
    assert_eq!(paged, all);
    let names: Vec<_> = all.iter().map(|agent| agent.director.as_str()).collect();
    assert_eq!(names, ["d1", "d1", "d2", "d3"]);
}
