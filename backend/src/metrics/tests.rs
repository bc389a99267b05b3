//! The series of what is known, and that they are documented.

use std::time::Duration;

use isopath_api::desired::AdminState;
use isopath_api::operation::{OnDeadline, StepName};

use super::*;
use crate::control::operation::{Kind, Operation, Target, cancelling};
use crate::control::quiesced::QuiescedServer;
use crate::testing::{Known, SERVICE, Server, observed};

/// The series of a cluster whose names begin so.
fn series(known: &Known, prefix: &str) -> Vec<String> {
    let mut world = World::new(known.cluster.epoch.clone(), known.started);
    let cluster = known.cluster.clone();
    world.clusters.insert(cluster.name.clone(), cluster.into());
    let mut families = Families::default();
    ClusterMetrics::new(&world, known.now, &Clusters::All).write(&mut families);
    let text = families.text().unwrap();
    let lines = text.lines().filter(|line| line.starts_with(prefix));
    lines.map(str::to_owned).collect()
}

fn overdue(known: &Known) -> Vec<String> {
    series(known, "isopath_operation_overdue_seconds")
}

/// A drain of a director, due in 900 s.
fn drain(known: &Known) -> Operation {
    known.operation(Kind::Drain, "d1", StepName::Withdraw)
}

fn overdue_by(kind: &str, target: &str, seconds: u32) -> String {
    let labels = format!("cluster=\"edge\",kind=\"{kind}\",target=\"{target}\"");
    format!("isopath_operation_overdue_seconds{{{labels}}} {seconds}")
}

#[test]
fn an_operation_is_overdue_from_its_deadline_until_it_ends() {
    let mut known = Known::healthy(2);
    assert!(overdue(&known).is_empty(), "without an operation");
    known.cluster.operations = vec![drain(&known)];
    known.pass(Duration::from_secs(899));
    assert_eq!(overdue(&known), [overdue_by("director.drain", "d1", 0)]);
    known.pass(Duration::from_secs(62));
    assert_eq!(overdue(&known), [overdue_by("director.drain", "d1", 61)]);
    known.cluster.operations.clear();
    assert!(overdue(&known).is_empty(), "when it has ended");
}

/// What undoes an operation has no deadline: one of a week hence would hide that it hangs.
#[test]
fn a_cancelled_operation_is_due_when_it_was_cancelled() {
    let mut known = Known::healthy(2);
    let drain = Operation {
        deadline_at: known.now.wall + Duration::from_secs(7 * 24 * 3600),
        ..drain(&known)
    };
    known.pass(Duration::from_secs(30));
    known.cluster.operations = vec![cancelling(&drain, "ops", known.now)];
    known.pass(Duration::from_secs(61));
    assert_eq!(overdue(&known), [overdue_by("director.drain", "d1", 61)]);
}

/// A real server of several services is one target, with an operation in each of them.
#[test]
fn of_several_operations_of_one_name_the_oldest_counts() {
    let mut known = Known::healthy(2);
    let step = (StepName::Connections, OnDeadline::Hold);
    let of = |known: &Known, service: &str| {
        let service = service.parse().unwrap();
        let target = Target::RealServer("10.1.0.11".parse().unwrap(), Some(service));
        known.operation_of(Kind::Drain, target, step)
    };
    let first = of(&known, "tcp:10.99.0.1:80");
    known.pass(Duration::from_secs(100));
    let second = of(&known, "tcp:10.99.0.1:443");
    known.cluster.operations = vec![second, first];
    known.pass(Duration::from_secs(850));
    let labels = "cluster=\"edge\",kind=\"real_server.drain\",target=\"10.1.0.11\"";
    assert_eq!(
        overdue(&known),
        [overdue_by("real_server.drain", "10.1.0.11", 50)]
    );
    let age = format!("isopath_operation_age_seconds{{{labels}}} 950");
    assert_eq!(series(&known, "isopath_operation_age_seconds"), [age]);
}

/// Alerts about silence ask whether there was ever anything else.
#[tokio::test]
async fn that_an_agent_has_reported_is_known_across_a_restart() {
    let server = Server::start().await;
    server.declare(2).await;
    server.follow(observed(1, &[1])).await;
    let reported = |text: &str| {
        let of = |n: u8| format!("isopath_agent_reported{{cluster=\"edge\",director=\"d{n}\"}} ");
        let value = |n| {
            let of = of(n);
            let found = text.lines().find_map(|line| line.strip_prefix(&of));
            found.map(str::to_owned)
        };
        (value(1), value(2))
    };
    let expected = (Some("1".to_owned()), Some("0".to_owned()));
    assert_eq!(reported(&server.get("/metrics").await.text), expected);
    let again = server.killed_and_started_again().await;
    let text = again.get("/metrics").await.text;
    assert_eq!(reported(&text), expected);
    let ages = "isopath_agent_report_age_seconds{";
    assert!(!text.contains(ages), "nobody has reported since: {text}");
}

/// After a database was restored its agents may go on with what they had of the one before.
#[test]
fn a_director_that_follows_another_database_has_no_generation() {
    let mut known = Known::healthy(2);
    let mut stranger = observed(2, &[1, 2]);
    stranger.epoch = Some("older".to_owned());
    known.hear(stranger);
    let labels = |n: u8| format!("{{cluster=\"edge\",director=\"d{n}\"}}");
    assert_eq!(
        series(&known, "isopath_director_generation{"),
        [format!("isopath_director_generation{} 1", labels(1))]
    );
    let wanted = |n| format!("isopath_director_generation_wanted{} 1", labels(n));
    assert_eq!(
        series(&known, "isopath_director_generation_wanted{"),
        [wanted(1), wanted(2)]
    );
}

#[test]
fn a_real_server_is_out_of_service_while_an_operator_has_it_out() {
    let mut known = Known::healthy(2);
    let out = |known: &Known| series(known, "isopath_real_server_out_of_service");
    assert!(out(&known).is_empty());
    let key = (SERVICE.parse().unwrap(), "10.1.0.11:80".parse().unwrap());
    let labels = format!("cluster=\"edge\",service=\"{SERVICE}\",real_server=\"10.1.0.11:80\"");
    for state in [AdminState::Draining, AdminState::Drained] {
        let server = QuiescedServer {
            state,
            removed: false,
            reason: String::new(),
        };
        known.cluster.quiesced.real_servers.insert(key, server);
        assert_eq!(
            out(&known),
            [format!("isopath_real_server_out_of_service{{{labels}}} 1")]
        );
    }
    known.cluster.quiesced.real_servers.clear();
    assert!(out(&known).is_empty());
}

/// The table is what an operator builds dashboards and alerts on.
#[tokio::test]
async fn every_family_stands_in_the_documentation_as_it_is() {
    let server = Server::start().await;
    let described = families(&server.app, &Clusters::All).described;
    let expected: Vec<&str> = described.iter().map(String::as_str).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/METRICS.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("## Of the controller\n").unwrap();
    let (section, _) = rest.split_once("\n## ").unwrap();
    let is_row = |line: &&str| line.starts_with("| `");
    let found: Vec<&str> = section.lines().filter(is_row).collect();
    assert!(
        found == expected,
        "docs/METRICS.md does not have the controller's metrics; it should have\n{}",
        expected.join("\n")
    );
}

#[tokio::test]
async fn every_help_begins_with_desired_or_actual() {
    let server = Server::start().await;
    let described = families(&server.app, &Clusters::All).described;
    assert!(described.len() > 20, "{described:?}");
    for row in described {
        let help = row.split(" | ").nth(3).unwrap();
        let says = help.starts_with("Desired: ") || help.starts_with("Actual: ");
        assert!(says, "{row}");
    }
}
