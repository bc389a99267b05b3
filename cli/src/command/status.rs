//! `isopath status`: of a cluster, of an agent, or of a speaker.

use std::fmt::Write as _;
use std::process::ExitCode;

use isopath_api::desired::AdminState;
use isopath_api::ids::NeighborState;
use isopath_api::observed::{Condition, Health, Observed};
use isopath_api::view::{ClusterView, DirectorView, State, VipView};
use isopath_api::{agent, speaker};
use jiff::Timestamp;

use super::{Daemon, ask_agent, ask_speaker, print, print_json, unexpected};
use crate::args::Args;
use crate::controller::Controller;
use crate::failure::{DEGRADED, Failure};
use crate::table::{Column, Table, count, printable, span};

pub(super) fn run(args: &Args, exit_status: bool) -> Result<ExitCode, Failure> {
    let well = match Daemon::of(&args.target) {
        Some(Daemon::Agent(path)) => match ask_agent(path, &agent::Request::Status)? {
            agent::Reply::Status(observed) => {
                if args.json {
                    print_json("isopath.agent-status/1", "agent", &observed)?;
                } else {
                    print(&agent_text(&observed))?;
                }
                agent_is_well(&observed)
            }
            _ => return Err(unexpected("the agent")),
        },
        Some(Daemon::Speaker(path)) => match ask_speaker(path, &speaker::Request::Status)? {
            speaker::Reply::Status(status) => {
                if args.json {
                    print_json("isopath.speaker-status/1", "speaker", &status)?;
                } else {
                    print(&speaker_text(&status))?;
                }
                speaker_is_well(&status)
            }
            _ => return Err(unexpected("the speaker")),
        },
        None => {
            let controller = Controller::new(&args.target)?;
            let name = controller.cluster(&args.target)?;
            let view: ClusterView = controller.get(&format!("/clusters/{name}"))?;
            if args.json {
                print_json("isopath.status/1", "cluster", &view)?;
            } else {
                print(&cluster_text(&view))?;
            }
            view.state == State::Up
        }
    };
    Ok(if exit_status && !well {
        ExitCode::from(DEGRADED)
    } else {
        ExitCode::SUCCESS
    })
}

fn cluster_text(view: &ClusterView) -> String {
    let mut text = String::new();
    let problems = match view.problems.len() {
        0 => "no problems".to_owned(),
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    };
    writeln!(
        text,
        "{}  {}  {problems}  rev {}  as of {}\n{}",
        view.name,
        view.state.word().to_uppercase(),
        view.revision,
        clock(view.as_of),
        printable(&view.verdict),
    )
    .expect("a String takes all writes");
    for problem in &view.problems {
        let since = problem.since.map_or_else(String::new, |since| {
            format!(" ({})", span(view.as_of.as_second() - since.as_second()))
        });
        writeln!(
            text,
            "! {}: {}{since}\n  Next: {}",
            printable(&problem.object),
            printable(&problem.cause),
            printable(&problem.next),
        )
        .expect("a String takes all writes");
    }
    for warning in &view.warnings {
        writeln!(
            text,
            "warning {}: {}",
            warning.code,
            printable(&warning.text)
        )
        .expect("a String takes all writes");
    }
    text.push('\n');
    text.push_str(&directors(view));
    for director in &view.directors {
        for condition in &director.conditions {
            text.push_str(&condition_text(
                director.name.as_str(),
                condition,
                view.as_of,
            ));
        }
    }
    text.push('\n');
    text.push_str(&vips(view));
    if !view.services.is_empty() {
        text.push('\n');
        text.push_str(&services(view));
    }
    text
}

fn directors(view: &ClusterView) -> String {
    let mut table = Table::new(vec![
        Column::Left("DIRECTOR"),
        Column::Left("STATE"),
        Column::Left("ADMIN"),
        Column::Right("OSPF"),
        Column::Right("VIPS"),
        Column::Right("ACTIVE"),
        Column::Right("CONN/S"),
        Column::Right("REPORT"),
        Column::Left("WHY"),
    ]);
    for director in &view.directors {
        table.row([
            director.name.to_string(),
            director.state.to_string(),
            admin(director),
            ratio(full(director), director.neighbors.len()),
            ratio(
                director.vips.iter().filter(|vip| vip.in_lsdb).count(),
                director.vips.len(),
            ),
            count(director.active),
            count(director.connections_per_second),
            director.last_report.map_or_else(
                || "never".to_owned(),
                |at| span(view.as_of.as_second() - at.as_second()),
            ),
            director.why.clone(),
        ]);
    }
    table.render()
}

fn admin(director: &DirectorView) -> String {
    match director.admin_state {
        AdminState::Active => "-".to_owned(),
        AdminState::Draining | AdminState::Drained => director.admin_state.to_string(),
    }
}

fn full(director: &DirectorView) -> usize {
    director
        .neighbors
        .iter()
        .filter(|neighbor| neighbor.state == NeighborState::Full)
        .count()
}

fn vips(view: &ClusterView) -> String {
    let mut table = Table::new(vec![
        Column::Left("VIP"),
        Column::Left("STATE"),
        Column::Right("ECMP"),
        Column::Left("ANNOUNCED BY"),
        Column::Left("MISSING"),
        Column::Left("WIDTH AT"),
    ]);
    for vip in &view.vips {
        let missing = vip.wanted.iter().filter(|name| !vip.real.contains(name));
        table.row([
            vip.vip.to_string(),
            vip.state.to_string(),
            ratio(vip.real.len(), vip.wanted.len()),
            names(vip.real.iter()),
            names(missing),
            widths(vip),
        ]);
    }
    table.render()
}

/// Each switch with its number of next hops: `sw1 4/4 sw2 3/4`.
fn widths(vip: &VipView) -> String {
    // Backups have no part in it.
    let wanted = vip.lowest.len();
    let seen = vip.widths.iter();
    let seen = seen.map(|seen| format!("{} {}/{wanted}", seen.switch_name(), seen.width));
    let seen: Vec<String> = seen.collect();
    seen.join(" ")
}

fn services(view: &ClusterView) -> String {
    let mut table = Table::new(vec![
        Column::Left("SERVICE"),
        Column::Left("REAL SERVER"),
        Column::Left("STATE"),
        Column::Right("UP ON"),
        Column::Right("WEIGHT"),
        Column::Right("ACTIVE"),
        Column::Right("INACTIVE"),
        Column::Right("CONN/S"),
        Column::Left("LAST FAILURE"),
    ]);
    for service in &view.services {
        for server in &service.real_servers {
            let up = server
                .seen
                .iter()
                .filter(|seen| seen.health == Health::Up)
                .count();
            let failure = server
                .seen
                .iter()
                .filter_map(|seen| seen.last_check.as_ref().filter(|check| !check.ok))
                .map(|check| check.detail.clone())
                .next();
            table.row([
                service.service.to_string(),
                server.real_server.to_string(),
                server.state.to_string(),
                ratio(up, server.seen.len()),
                server.weight.to_string(),
                count(server.active),
                count(server.inactive),
                count(server.connections_per_second),
                failure.unwrap_or_default(),
            ]);
        }
    }
    table.render()
}

/// Something that withdraws nothing, and what to do about it.
fn condition_text(of: &str, condition: &Condition, now: Timestamp) -> String {
    format!(
        "! {of}: {} ({}, {})\n  Next: {}\n",
        printable(&condition.text),
        printable(&condition.code),
        span(now.as_second() - condition.since.as_second()),
        printable(&condition.remedy),
    )
}

fn agent_text(observed: &Observed) -> String {
    let mut text = format!(
        "{}  router id {}  version {}  generation {}  as of {}\n",
        observed.director,
        observed.router_id,
        printable(&observed.version),
        observed.generation,
        clock(observed.at),
    );
    match &observed.speaker {
        Some(speaker) => text.push_str(&speaker_text(speaker)),
        None => text.push_str("! the speaker does not answer\n"),
    }
    for failure in &observed.dataplane.failures {
        writeln!(text, "! data plane: {}", printable(failure)).expect("a String takes all writes");
    }
    for vip in observed.vips.iter().filter(|vip| vip.cost.is_none()) {
        if let Some(remedy) = vip.reason.remedy() {
            writeln!(text, "! {}: {}\n  Next: {remedy}", vip.vip, vip.reason)
                .expect("a String takes all writes");
        }
    }
    for condition in &observed.dataplane.conditions {
        text.push_str(&condition_text("condition", condition, observed.at));
    }
    let mut table = Table::new(vec![
        Column::Left("VIP"),
        Column::Left("WANTED"),
        Column::Right("SINCE"),
        Column::Left("REASON"),
    ]);
    for vip in &observed.vips {
        table.row([
            vip.vip.to_string(),
            vip.cost
                .map_or_else(|| "withdrawn".to_owned(), |cost| format!("cost {cost}")),
            span(observed.at.as_second() - vip.since.as_second()),
            vip.reason.to_string(),
        ]);
    }
    text.push('\n');
    text.push_str(&table.render());
    let mut table = Table::new(vec![
        Column::Left("SERVICE"),
        Column::Left("REAL SERVER"),
        Column::Left("HEALTH"),
        Column::Right("WEIGHT"),
        Column::Right("ACTIVE"),
        Column::Right("INACTIVE"),
        Column::Left("LAST CHECK"),
    ]);
    for service in &observed.services {
        for server in &service.real_servers {
            let effective = server
                .effective_weight
                .map_or_else(|| "-".to_owned(), |weight| weight.to_string());
            table.row([
                service.service.to_string(),
                server.real_server.to_string(),
                server.health.to_string(),
                format!("{effective}/{}", server.weight),
                count(u64::from(server.active)),
                count(u64::from(server.inactive)),
                server
                    .last_check
                    .as_ref()
                    .map_or_else(String::new, |check| {
                        format!(
                            "{} in {} ms, {} in a row",
                            check.detail, check.took_ms, check.in_a_row
                        )
                    }),
            ]);
        }
    }
    text.push('\n');
    text.push_str(&table.render());
    text
}

fn speaker_text(status: &speaker::Status) -> String {
    let full = status
        .neighbors
        .iter()
        .filter(|n| n.state == NeighborState::Full)
        .count();
    let owner = match &status.owner {
        speaker::Owner::None => "no agent has taken over".to_owned(),
        speaker::Owner::Connected { pid, .. } => format!("agent {pid}"),
        speaker::Owner::Held { left_ms } => format!("agent gone, set kept for {left_ms} ms more"),
        speaker::Owner::Expired => "agent gone, set withdrawn".to_owned(),
    };
    let mut text = format!(
        "speaker {}  router id {}  area {}  up {}  neighbors {}  {owner}\n",
        printable(&status.version),
        status.router_id,
        status.area,
        span(i64::try_from(status.up_ms / 1000).unwrap_or(i64::MAX)),
        ratio(full, status.neighbors.len()),
    );
    for announced in &status.announced {
        let place = match (announced.in_lsdb, announced.acknowledged) {
            (true, true) => "in every neighbour's database",
            (true, false) => "in our database, not acknowledged yet",
            (false, _) => "not originated yet",
        };
        writeln!(
            text,
            "  announces {} as {} at cost {}: {place}",
            announced.vip, announced.kind, announced.cost
        )
        .expect("a String takes all writes");
    }
    for withheld in &status.withheld {
        let reason = printable(&withheld.reason.to_string());
        writeln!(text, "  does not announce {}: {reason}", withheld.vip)
            .expect("a String takes all writes");
    }
    for seen in &status.widths {
        let vips: Vec<String> = seen.vips.iter().take(3).map(ToString::to_string).collect();
        let more = match seen.vips.len().saturating_sub(vips.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (switch, width, vips) = (seen.router_id, seen.width, vips.join(" "));
        let hops = if width == 1 { "next hop" } else { "next hops" };
        writeln!(text, "  {switch} has {width} {hops} to {vips}{more}")
            .expect("a String takes all writes");
    }
    text
}

fn agent_is_well(observed: &Observed) -> bool {
    observed.speaker.as_ref().is_some_and(speaker_is_well)
        && observed.vips.iter().all(|vip| vip.cost.is_some())
        && observed.dataplane.failures.is_empty()
}

fn speaker_is_well(status: &speaker::Status) -> bool {
    status.withheld.is_empty()
        && status
            .announced
            .iter()
            .all(|announced| announced.acknowledged)
        && status
            .neighbors
            .iter()
            .any(|neighbor| neighbor.state == NeighborState::Full)
}

fn ratio(part: usize, whole: usize) -> String {
    format!("{part}/{whole}")
}

fn names<T: std::fmt::Display>(names: impl Iterator<Item = T>) -> String {
    let list: Vec<String> = names.map(|name| name.to_string()).collect();
    if list.is_empty() {
        "-".to_owned()
    } else {
        list.join(",")
    }
}

/// The time of day in UTC, to the second.
fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%SZ").to_string()
}
