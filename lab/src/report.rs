//! What the command prints for people.

use std::fmt::Display;
use std::io::Write as _;

use anyhow::{Context, Result};
use isopath_api::config::Dataplane;
use serde::Serialize;

use crate::binaries;
use crate::measure::{Drains, Times, Width};
use crate::plan;
use crate::topology::Lab;
use crate::up::Spread;

/// What a newcomer wants to know.
pub(crate) fn cluster(lab: &Lab, url: &str, spread: Option<&Spread>) -> Result<()> {
    let access = lab.controller.access()?;
    let fib = lab.switch.fib(plan::VIP)?;
    let hops: Vec<String> = lab
        .directors
        .iter()
        .filter(|director| fib.contains(&director.next_hop()))
        .map(|director| format!("{} ({})", director.next_hop(), director.name))
        .collect();
    say("");
    say(format_args!("Dashboard   {url}"));
    say(format_args!(
        "Login       {} / {}",
        access.user, access.password
    ));
    say(format_args!(
        "Command     ISOPATH_URL={url} ISOPATH_TOKEN={} {} status",
        access.operator_token,
        binaries::find("isopath")
            .map_or_else(|_| "isopath".into(), |path| path.display().to_string())
    ));
    say(format_args!(
        "Next hops   {} to {}, in the FIB of the switch's kernel:",
        fib.len(),
        plan::VIP
    ));
    say(format_args!("            {}", hops.join(", ")));
    match spread {
        Some(spread) => tell_spread(spread),
        None => say("Requests    none sent: no IPVS here (data plane \"none\")"),
    }
    Ok(())
}

/// How to look into a lab whose namespaces and files are on this machine.
pub(crate) fn inside(lab: &Lab) {
    if lab.spec.dataplane == Dataplane::Ipvs {
        let client = lab.client.name();
        say(format_args!(
            "A request   ip netns exec {client} curl http://{}/",
            plan::VIP
        ));
    }
    say(format_args!("Logs        {}", lab.directory().display()));
}

fn tell_spread(spread: &Spread) {
    let tally = &spread.tally;
    let (answers, failures) = (tally.answers(), tally.failures());
    say(format_args!(
        "Requests    {} sent, {answers} answered, {failures} failed",
        answers + failures
    ));
    for (why, count) in &tally.failed {
        say(format_args!("            {count} x {why}"));
    }
    let list = |counts: &mut dyn Iterator<Item = (&String, u64)>| {
        counts
            .map(|(name, count)| format!("{name} {count}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let directors = list(&mut spread.directors.iter().map(|(name, count)| (name, *count)));
    say(format_args!("            by director     {directors}"));
    let servers = list(
        &mut tally
            .answered
            .iter()
            .map(|(name, count)| (name, *count as u64)),
    );
    say(format_args!("            by real server  {servers}"));
}

/// What `isopath-lab down` did.
pub fn down(name: &str, found: bool, dead: &[String]) {
    if found {
        say(format_args!("ended and removed the lab {name}"));
    }
    for other in dead {
        say(format_args!("removed what the lab {other} had left"));
    }
    if !found && dead.is_empty() {
        say(format_args!("no lab {name}, and nothing left of any"));
    }
}

/// Prints a value as JSON.
///
/// # Errors
/// It has no form in JSON.
pub fn json(value: &impl Serialize) -> Result<()> {
    say(serde_json::to_string_pretty(value).context("writing JSON")?);
    Ok(())
}

/// What `isopath-lab measure drain` found.
pub fn drains(drains: &Drains) {
    say(format_args!(
        "from the call, after a quiet time, to the FIB of the {} switch, in ms:",
        drains.switch
    ));
    times("drain", &drains.drain);
    times("undrain", &drains.undrain);
    let memory = drains.memory;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    say(format_args!(
        "memory (PSS): speaker {:.1} MiB, agent {:.1} MiB, controller {:.1} MiB",
        mib(memory.speaker),
        mib(memory.agent),
        mib(memory.controller)
    ));
}

fn times(what: &str, times: &Times) {
    let each: Vec<String> = times.each_ms.iter().map(|ms| format!("{ms:.0}")).collect();
    say(format_args!(
        "{what:8} min {:.0}  median {:.0}  max {:.0}  ({})",
        times.min_ms,
        times.median_ms,
        times.max_ms,
        each.join(" ")
    ));
}

/// What `isopath-lab measure width` found.
pub fn width(width: &Width) {
    say(format_args!(
        "{} directors, {} switch: {} next hops to {} in the kernel's FIB",
        width.directors,
        width.switch,
        width.next_hops.len(),
        plan::VIP
    ));
    say(width.route.trim_end());
}

/// Tells the person at the terminal, who may be a program that has gone.
pub fn say(line: impl Display) {
    let mut output = std::io::stdout().lock();
    if let Err(error) = writeln!(output, "{line}").and_then(|()| output.flush())
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        eprintln!("isopath-lab: {error}");
    }
}
