//! Prometheus metrics, built at each scrape from what is known then: what is declared no more
//! leaves no series behind. Each help text says whether the value is desired or actual.

mod clusters;
mod families;
mod requests;

use clusters::ClusterMetrics;
use families::Families;
pub(crate) use requests::{LoginOutcome, OpenStream, Requests, Stream, count};

use crate::app::App;
use crate::control::state::World;
use crate::store::tokens::Clusters;

/// Everything in the text format, of the clusters that are among `shown`.
///
/// # Errors
/// A family without a name, which would be a mistake of this crate.
pub(crate) fn text(app: &App, shown: &Clusters) -> Result<String, prometheus::Error> {
    families(app, shown).text()
}

fn families(app: &App, shown: &Clusters) -> Families {
    let world = app.world();
    let now = app.clock().now();
    let mut families = Families::default();
    let up_s = now.since(world.started).as_secs_f64();
    controller(&world, up_s, &mut families);
    app.requests().write(&mut families);
    certificates(app, &mut families);
    ClusterMetrics::new(&world, now, shown).write(&mut families);
    families
}

/// The controller itself.
fn controller(world: &World, up_s: f64, families: &mut Families) {
    families.gauges(
        "isopath_build_info",
        "Actual: always 1; the labels say the program and its version.",
        ["component", "version"],
        [(["controller", env!("CARGO_PKG_VERSION")], 1.0)],
    );
    let help = "Actual: seconds since the controller started.";
    families.gauge("isopath_controller_uptime_seconds", help, up_s);
    let storage = &world.storage;
    families.gauge(
        "isopath_controller_database_read_only",
        "Actual: 1 while the database takes no writes because its disk does not.",
        truth(storage.read_only.is_some()),
    );
    families.gauge(
        "isopath_controller_events_waiting",
        "Actual: events that wait for the database to take them.",
        storage.waiting as f64,
    );
    let events = world.events_total.iter();
    families.counters(
        "isopath_events_total",
        "Actual: events since the controller started, by severity.",
        ["severity"],
        events.map(|(severity, count)| ([*severity], *count)),
    );
    let refused = world.fleet.enrollments_refused.iter();
    families.counters(
        "isopath_enrollments_refused_total",
        "Actual: enrolments and renewals of agents refused since the controller started, by \
         cause; no series for what never happened.",
        ["cause"],
        refused.map(|(cause, count)| ([cause.as_str()], *count)),
    );
    let ended = world.operations_ended.iter();
    families.counters(
        "isopath_operations_ended_total",
        "Actual: operations that ended since the controller started, by kind and final state.",
        ["kind", "state"],
        ended.map(|((kind, state), count)| ([*kind, *state], *count)),
    );
}

/// What the server shows and vouches with; nothing over plain HTTP.
fn certificates(app: &App, families: &mut Families) {
    let expiries = app.tls().map(crate::tls::TlsServed::expiries);
    let expiries = expiries.into_iter().flatten().filter_map(|(of, expires)| {
        let seconds = expires?.as_second();
        Some(([of], seconds as f64))
    });
    families.gauges(
        "isopath_certificate_not_after_timestamp_seconds",
        "Actual: when the controller's own certificates expire; no series over plain HTTP.",
        ["certificate"],
        expiries,
    );
}

fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}

#[cfg(test)]
mod tests;
