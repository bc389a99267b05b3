//! The equal-cost sets and what is wrong with them.

use std::time::Duration;

use axum::http::StatusCode;
use isopath_api::ecmp::{EcmpCode, EcmpView};
use isopath_api::observed::Observed;
use isopath_api::view::ClusterView;

use crate::testing::{Server, observed, router_id};

/// Reports by which the switch spreads the VIP over the first director only.
fn narrow() -> [Observed; 2] {
    [1, 2].map(|n| {
        let mut observed = observed(n, &[1, 2]);
        let width = &mut observed.speaker.as_mut().unwrap().widths[0];
        (width.width, width.through) = (1, vec![router_id(1)]);
        observed
    })
}

async fn ecmp(server: &Server) -> EcmpView {
    let answer = server.get("clusters/edge/ecmp").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    serde_json::from_value(answer.json).unwrap()
}

/// Sends the reports until `is_so`, while the controller's clock runs ahead of ours.
async fn report_until(
    server: &Server,
    reports: &[Observed],
    what: &str,
    is_so: impl Fn(&EcmpView, &ClusterView) -> bool,
) -> EcmpView {
    let until = async {
        loop {
            for report in reports {
                server.follow(report.clone()).await;
            }
            let found = ecmp(server).await;
            if is_so(&found, &server.view().await) {
                return found;
            }
            server.clock.advance(Duration::from_millis(500));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), until).await;
    waited.unwrap_or_else(|_| panic!("never: {what}"))
}

#[tokio::test]
async fn what_is_wanted_said_and_real_stands_side_by_side() {
    let server = Server::start().await;
    server.declare(2).await;
    for report in narrow() {
        server.follow(report).await;
    }
    let view = ecmp(&server).await;
    let vip = &view.vips[0];
    assert!(vip.wanted.iter().all(|it| it.lowest && it.cost == Some(1)));
    assert_eq!(
        (vip.wanted.len(), vip.said.len(), vip.witnesses.len()),
        (2, 2, 2)
    );
    assert_eq!(vip.announcers.len(), 2);
    let [the_switch] = &vip.switches[..] else {
        panic!("{:?}", vip.switches)
    };
    assert_eq!(the_switch.name.as_deref(), Some("sw1"));
    assert_eq!(the_switch.width, 1);
    let through = the_switch.through[0].director.as_ref().unwrap();
    assert_eq!(through.as_str(), "d1");
    let nobody = server.get("clusters/none/ecmp").await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_condition_is_an_event_when_it_begins_and_when_it_ends_and_a_problem_meanwhile() {
    let server = Server::start().await;
    server.declare(2).await;
    let is_narrow = |ecmp: &EcmpView, view: &ClusterView| {
        !ecmp.conditions.is_empty() && view.problems.iter().any(|it| it.object == "director d2")
    };
    let found = report_until(&server, &narrow(), "d2 is missing in the set", is_narrow).await;
    let codes: Vec<EcmpCode> = found.conditions.iter().map(|it| it.code).collect();
    let expected = [EcmpCode::AnnouncedNotInSet, EcmpCode::WidthBelowAnnouncers];
    assert_eq!(codes, expected);
    let view = server.view().await;
    let objects: Vec<&str> = view.problems.iter().map(|it| it.object.as_str()).collect();
    assert_eq!(objects, ["director d2"], "the width is not told again");
    assert_eq!(view.problems[0].since, Some(found.conditions[0].since));

    let healthy = [1, 2].map(|n| observed(n, &[1, 2]));
    let is_over = |ecmp: &EcmpView, _: &ClusterView| ecmp.conditions.is_empty();
    report_until(&server, &healthy, "the set is whole", is_over).await;
    let events = server.view().await.events;
    let told: Vec<String> = events
        .iter()
        .filter(|event| event.what.contains("-set") || event.what.contains("width-"))
        .map(|event| {
            format!(
                "{} {}: {}",
                event.severity.as_str(),
                event.object,
                event.what
            )
        })
        .collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[3].starts_with(
        "warning director d2 at switch 10.0.0.1: announced-not-in-set VIP 10.99.0.1: its path"
    ));
    assert_eq!(
        told[1],
        "info director d2 at switch 10.0.0.1: announced-not-in-set VIP 10.99.0.1 no more"
    );
}
