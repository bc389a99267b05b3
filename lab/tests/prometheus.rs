//! A real Prometheus scrapes a cluster by the files of `deploy/prometheus`, and fires when a
//! director dies.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use isopath_lab::http;
use isopath_lab::plan;
use isopath_lab::prometheus::{self, Alert, Prometheus, check_metrics};
use isopath_lab::report;
use isopath_lab::topology::{Lab, Spec};

/// A report is stale after five seconds, and each step after that takes one or two.
const SOON: Duration = Duration::from_secs(25);

#[test]
fn a_killed_director_fires_and_a_whole_cluster_does_not() -> Result<()> {
    let Some(spec) = Spec::for_test("prom") else {
        return Ok(());
    };
    if !prometheus::is_installed() {
        report::say(format_args!(
            "SKIPPED: a_killed_director_fires_and_a_whole_cluster_does_not: prometheus is not \
             installed; scripts/setup metrics installs it"
        ));
        return Ok(());
    }
    let spec = Spec {
        directors: 3,
        real_servers: 2,
        ..spec
    };
    Lab::with(spec, |lab| {
        lab.start(1, &mut |_| {})?;
        expositions_are_as_they_should_be(lab)?;
        let prometheus = Prometheus::start(lab)?;
        prometheus
            .wait_for_firing("no alert on a whole cluster", SOON, <[Alert]>::is_empty)
            .context("with three directors up")?;

        let director = &mut lab.directors[1];
        director.take_agent()?.crash()?;
        director.take_speaker()?.crash()?;
        let lost = prometheus.wait_for_firing("d2 to be lost", SOON, |firing| {
            let names: BTreeSet<&str> = firing.iter().map(Alert::name).collect();
            let wanted = [
                "IsopathDirectorLost",
                "IsopathVipNotEverywhere",
                "IsopathAgentMetricsDown",
            ];
            wanted.iter().all(|name| names.contains(name))
        })?;
        for alert in lost.iter().filter(|it| it.name() == "IsopathDirectorLost") {
            let (director, summary) = (alert.label("director"), &alert.annotations["summary"]);
            ensure!(director == "d2", "{director} is said to be lost");
            ensure!(summary == "Director d2 of cluster lab is lost", "{summary}");
        }
        let agent_lost = lost.iter().find(|it| it.name() == "IsopathAgentLost");
        ensure!(
            agent_lost.is_none(),
            "the others say that d2 is gone, not its agent alone: {agent_lost:?}"
        );

        let director = &mut lab.directors[1];
        director.start_speaker()?;
        director.start_agent()?;
        prometheus
            .wait_for_firing("no alert any more", SOON, <[Alert]>::is_empty)
            .context("with d2 back")?;

        // With the last of them the number of announcers is not 0: there is none.
        for director in &mut lab.directors {
            director.take_agent()?.crash()?;
            director.take_speaker()?.crash()?;
        }
        prometheus.wait_for_firing("nobody to tell", SOON, |firing| {
            firing.iter().any(|it| it.name() == "IsopathVipUnknown")
        })?;
        Ok(())
    })
}

/// What `promtool check metrics` wants, and the series that this cluster must have.
fn expositions_are_as_they_should_be(lab: &Lab) -> Result<()> {
    let controller = lab.controller.request("GET", "/metrics", None)?;
    ensure!(controller.status == 200, "{controller:?}");
    check_metrics("the controller", &controller.body)?;
    ensure!(
        controller.body.contains("isopath_vip_announcers_wanted{"),
        "{}",
        controller.body
    );
    let address = (plan::director_management(1), 9477).into();
    let namespace = lab.controller.namespace();
    let agent = namespace.enter(|| http::get(address, "/metrics"))??;
    ensure!(agent.status == 200, "{agent:?}");
    check_metrics("the agent of d1", &agent.body)?;
    ensure!(
        agent.body.contains("isopath_vip_in_lsdb{"),
        "{}",
        agent.body
    );
    Ok(())
}
