//! Whether a report can be true: pure, from the report, what its director was told before, and
//! what it said before.
//!
//! Which "older generation" is wrong takes some care, since an agent may rightly be behind, and
//! may rightly follow another epoch than this controller's: it goes on with what is on its disk
//! (fail static), after an older database was restored (which begins a new epoch) as well as
//! across its own restart (which begins a new run). So a report is refused
//!
//! - when a newer one of the same run has come ([`Refused::Overtaken`]): it is about the past;
//! - when its run had a later generation of the same epoch in force before
//!   ([`Refused::GenerationBack`]): an agent refuses to go back, so this is not that agent;
//! - when its generation, in this controller's epoch, is higher than any that was given out
//!   ([`Refused::GenerationAhead`]): this database is older than what the agent follows;
//! - when its run followed this controller's epoch before and now another or none
//!   ([`Refused::EpochBack`]): an agent never leaves the controller that it has followed.

use std::collections::BTreeSet;

use isopath_api::fault::Fault;
use isopath_api::observed::{Observed, Stats};
use isopath_api::reason::Reason;
use jiff::Timestamp;

use super::fleet::Refused;
use super::state::{ClusterState, DirectorState};
use crate::error::Error;

/// Integers above this are not exact in JSON everywhere (RFC 8259 §6).
const MOST_EXACT: u64 = (1 << 53) - 1;
/// The most of any counter: 2^60 bytes are decades at 100 Gbit/s, and sums of a cluster's still
/// fit.
const MOST_COUNTED: u64 = 1 << 60;
/// The most of any rate, a second.
const MOST_RATE: u64 = 1_000_000_000_000;
/// The longest name or number that a program gives itself.
const LONGEST_NAME: usize = 64;
/// The most of each list that a report may have; ten thousand real servers have to fit.
const MOST_ITEMS: usize = 1 << 16;
/// The most switches whose sets a report may tell: each makes series of metrics. A speaker names
/// sixteen.
const MOST_SWITCHES: usize = 64;
/// The most lines of what went wrong.
const MOST_LINES: usize = 256;
/// How far a director's clock may be off before its reports count for nothing. What is off by
/// less is shown.
const CLOCK_OFF: std::time::Duration = std::time::Duration::from_secs(366 * 24 * 60 * 60);

/// Why a report is refused, with the answer; nothing when it may be true.
pub(super) fn refusal(
    observed: &Observed,
    cluster: &ClusterState,
    director: &DirectorState,
    now: Timestamp,
) -> Option<(Refused, Error)> {
    let invalid = |cause, faults: Vec<Fault>| {
        (!faults.is_empty()).then_some((cause, Error::Invalid { faults }))
    };
    invalid(Refused::Absurd, absurd(observed, now))
        .or_else(|| {
            let (cause, detail) = out_of_turn(observed, cluster, director)?;
            Some((cause, Error::conflict(detail)))
        })
        .or_else(|| invalid(Refused::Undeclared, undeclared(observed, cluster, director)))
}

/// Whether a report is the one that was taken last, sent once more.
pub(super) fn is_repeated(observed: &Observed, director: &DirectorState) -> bool {
    director.report.as_ref().is_some_and(|last| {
        last.observed.run == observed.run && last.observed.sequence == observed.sequence
    })
}

/// A report of an older generation than its director had, or of one that it cannot have.
fn out_of_turn(
    observed: &Observed,
    cluster: &ClusterState,
    director: &DirectorState,
) -> Option<(Refused, String)> {
    let ours = observed.epoch.as_deref() == Some(cluster.epoch.as_str());
    if ours && observed.generation > director.generation {
        let detail = format!(
            "generation {} is in force there, and this controller gave out {} at most",
            observed.generation, director.generation
        );
        return Some((Refused::GenerationAhead, detail));
    }
    let last = &director.report.as_ref()?.observed;
    if last.run != observed.run {
        return None;
    }
    if observed.sequence < last.sequence {
        let detail = format!(
            "report {} of this run came after report {}",
            observed.sequence, last.sequence
        );
        return Some((Refused::Overtaken, detail));
    }
    let followed = last.epoch.as_deref() == Some(cluster.epoch.as_str());
    if followed && !ours {
        let detail = format!(
            "this run followed epoch {}, and now says {}",
            cluster.epoch,
            observed.epoch.as_deref().unwrap_or("none")
        );
        return Some((Refused::EpochBack, detail));
    }
    if last.epoch == observed.epoch && observed.generation < last.generation {
        let detail = format!(
            "generation {} is in force there, after generation {} in the same run",
            observed.generation, last.generation
        );
        return Some((Refused::GenerationBack, detail));
    }
    None
}

/// VIPs that it wants to announce and services that it has although the generation that it says
/// is in force has them not. What an earlier generation had, what is on its way out, and what an
/// operator announces by hand is explained.
fn undeclared(observed: &Observed, cluster: &ClusterState, director: &DirectorState) -> Vec<Fault> {
    if observed.epoch.as_deref() != Some(cluster.epoch.as_str())
        || observed.generation != director.generation
    {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (index, vip) in observed.vips.iter().enumerate() {
        let known = &cluster.declaration.vip;
        let declared = known.iter().any(|spec| spec.address == vip.vip);
        let explained = vip.cost.is_none() || matches!(vip.reason, Reason::Override { .. });
        if !declared && !explained {
            faults.push(Fault::new(
                format!("/vips/{index}/vip"),
                format_args!("a VIP of generation {}", director.generation),
                vip.vip,
            ));
        }
    }
    let specs = cluster.declaration.service.iter();
    let services: BTreeSet<_> = specs.map(|spec| spec.id()).collect();
    for (index, service) in observed.services.iter().enumerate() {
        if !services.contains(&service.service) {
            faults.push(Fault::new(
                format!("/services/{index}/service"),
                format_args!("a service of generation {}", director.generation),
                service.service,
            ));
        }
    }
    faults
}

/// Numbers, texts and times that cannot be, each with its pointer.
fn absurd(observed: &Observed, now: Timestamp) -> Vec<Fault> {
    let mut faults = Faults::default();
    for (pointer, text) in [
        ("/instance", &observed.instance),
        ("/run", &observed.run),
        ("/version", &observed.version),
    ] {
        faults.name(pointer, text);
    }
    if let Some(epoch) = &observed.epoch {
        faults.name("/epoch", epoch);
    }
    faults.most("/sequence", observed.sequence, MOST_EXACT);
    faults.most("/generation", observed.generation, MOST_EXACT);
    if observed.at.duration_since(now).unsigned_abs() > CLOCK_OFF {
        let expected = format!("a time within a year of the controller's, {now}");
        faults.0.push(Fault::new("/at", expected, observed.at));
    }
    faults.items("/vips", observed.vips.len(), MOST_ITEMS);
    faults.items("/services", observed.services.len(), MOST_ITEMS);
    for (index, service) in observed.services.iter().enumerate() {
        let at = format!("/services/{index}");
        let servers = &service.real_servers;
        faults.items(&format!("{at}/real_servers"), servers.len(), MOST_ITEMS);
        faults.stats(&at, service.stats.as_ref());
        for (index, server) in servers.iter().enumerate() {
            faults.stats(&format!("{at}/real_servers/{index}"), server.stats.as_ref());
        }
    }
    let dataplane = &observed.dataplane;
    let failures = dataplane.failures.len();
    faults.items("/dataplane/failures", failures, MOST_LINES);
    let conditions = &dataplane.conditions;
    faults.items("/dataplane/conditions", conditions.len(), MOST_LINES);
    for (index, condition) in conditions.iter().enumerate() {
        // A metric's label has it.
        faults.name(
            &format!("/dataplane/conditions/{index}/code"),
            &condition.code,
        );
    }
    if let Some(speaker) = &observed.speaker {
        for (what, count) in [
            ("neighbors", speaker.neighbors.len()),
            ("announced", speaker.announced.len()),
            ("withheld", speaker.withheld.len()),
            ("announcers", speaker.announcers.len()),
            ("widths", speaker.widths.len()),
            ("interfaces", speaker.interfaces.len()),
            ("counters", speaker.counters.len()),
            ("lateness", speaker.lateness.len()),
        ] {
            faults.items(&format!("/speaker/{what}"), count, MOST_ITEMS);
        }
        let switches = speaker.widths.iter().map(|width| width.router_id);
        let switches: BTreeSet<_> = switches.collect();
        faults.items("/speaker/widths", switches.len(), MOST_SWITCHES);
        faults.most("/speaker/up_ms", speaker.up_ms, MOST_EXACT);
    }
    faults.0
}

/// Faults that are being looked for.
#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn name(&mut self, pointer: &str, text: &str) {
        let visible = text.chars().all(|c| c.is_ascii_graphic());
        if !(1..=LONGEST_NAME).contains(&text.len()) || !visible {
            let found: String = text.chars().take(LONGEST_NAME).collect();
            let expected = format!("1 to {LONGEST_NAME} visible ASCII characters");
            self.0
                .push(Fault::new(pointer, expected, format_args!("{found:?}")));
        }
    }

    fn most(&mut self, pointer: &str, found: u64, most: u64) {
        if found > most {
            let expected = format!("a number of at most {most}");
            self.0.push(Fault::new(pointer, expected, found));
        }
    }

    fn items(&mut self, pointer: &str, found: usize, most: usize) {
        if found > most {
            let expected = format!("at most {most} of them");
            self.0.push(Fault::new(pointer, expected, found));
        }
    }

    fn stats(&mut self, at: &str, stats: Option<&Stats>) {
        let Some(stats) = stats else { return };
        for (what, found, most) in [
            ("connections", stats.connections, MOST_COUNTED),
            ("in_packets", stats.in_packets, MOST_COUNTED),
            ("out_packets", stats.out_packets, MOST_COUNTED),
            ("in_bytes", stats.in_bytes, MOST_COUNTED),
            ("out_bytes", stats.out_bytes, MOST_COUNTED),
            (
                "connections_per_second",
                stats.connections_per_second,
                MOST_RATE,
            ),
            (
                "in_packets_per_second",
                stats.in_packets_per_second,
                MOST_RATE,
            ),
        ] {
            if found > most {
                self.most(&format!("{at}/stats/{what}"), found, most);
            }
        }
    }
}

#[cfg(test)]
mod tests;
