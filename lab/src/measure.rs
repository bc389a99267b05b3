//! `isopath-lab measure`: times and sizes of a real cluster.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use isopath_api::operation::DrainRequest;
use serde::Serialize;

use crate::plan;
use crate::route_monitor::RouteMonitor;
use crate::topology::{Lab, Spec};

/// How long one change may take to reach the FIB before the measurement fails.
const LIMIT: Duration = Duration::from_secs(20);

/// Times of one kind, in milliseconds, in the order they were taken.
#[derive(Debug, Clone, Serialize)]
pub struct Times {
    /// Each.
    pub each_ms: Vec<f64>,
    /// The least.
    pub min_ms: f64,
    /// The middle one, or the mean of the two in the middle.
    pub median_ms: f64,
    /// The greatest.
    pub max_ms: f64,
}

impl Times {
    /// Sums up at least one time.
    ///
    /// # Errors
    /// There is none.
    pub fn new(times: &[Duration]) -> Result<Self> {
        let each_ms: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        let mut sorted = each_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let (Some(&min_ms), Some(&max_ms)) = (sorted.first(), sorted.last()) else {
            bail!("no time was taken");
        };
        let middle = sorted.len() / 2;
        let median_ms = if sorted.len().is_multiple_of(2) {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        } else {
            sorted[middle]
        };
        Ok(Self {
            each_ms,
            min_ms,
            median_ms,
            max_ms,
        })
    }
}

/// What [`drain`] found.
#[derive(Debug, Clone, Serialize)]
pub struct Drains {
    /// The switch's suite.
    pub switch: String,
    /// From the call of drain to the switch's FIB without the next hop.
    pub drain: Times,
    /// From the call of undrain to the switch's FIB with the next hop.
    pub undrain: Times,
    /// Memory of the daemons afterwards.
    pub memory: Memory,
}

/// Proportional set sizes in bytes: the mean over the directors, and the controller's.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// Of a speaker.
    pub speaker: u64,
    /// Of an agent.
    pub agent: u64,
    /// Of the controller.
    pub controller: u64,
}

/// Drains and undrains one director after the other, `count` times in all, each after a quiet
/// time, and takes the times from the REST call to the route change in the switch's kernel.
///
/// # Errors
/// The cluster does not come up, or a change does not arrive.
pub fn drain(spec: Spec, count: usize) -> Result<Drains> {
    if spec.directors < 2 {
        bail!("draining wants at least 2 directors: the last announcer may not be drained");
    }
    let switch = spec.switch.to_string();
    let mut lab = Lab::new(spec)?;
    lab.start(1, &mut |_| {})?;
    let mut monitor = lab.switch.monitor()?;
    let (mut drains, mut undrains) = (Vec::new(), Vec::new());
    for index in 0..count {
        let director = index % lab.directors.len();
        settle(index);
        drains.push(one(&lab, &mut monitor, director, true)?);
        settle(index);
        undrains.push(one(&lab, &mut monitor, director, false)?);
        lab.wait_for_full_width()?;
    }
    let memory = memory(&mut lab)?;
    let (drain, undrain) = (Times::new(&drains)?, Times::new(&undrains)?);
    Ok(Drains {
        switch,
        drain,
        undrain,
        memory,
    })
}

/// A quiet time, so that the next change leaves at once: a second one within the switch's
/// MinLSArrival of 1 s is held back to the end of it. It also moves on against a switch's tick
/// of whole seconds.
fn settle(index: usize) {
    let step = u64::try_from(index).unwrap_or(0) * 370 % 1000;
    std::thread::sleep(Duration::from_millis(1500 + step));
}

/// The time from one drain or undrain call to its effect in the FIB.
fn one(lab: &Lab, monitor: &mut RouteMonitor, index: usize, away: bool) -> Result<Duration> {
    let director = &lab.directors[index];
    let (name, hop) = (director.name.as_str(), director.next_hop());
    monitor.take()?;
    let called = Instant::now();
    let answer = if away {
        let reason = "measuring".to_owned();
        lab.controller.drain(
            name,
            &DrainRequest {
                reason,
                ..DrainRequest::default()
            },
        )?
    } else {
        lab.controller.undrain(name)?
    };
    let verb = if away { "drain" } else { "undrain" };
    if answer.status != 202 {
        bail!(
            "the controller answered a {verb} of {name} with {} {}",
            answer.status,
            answer.body
        );
    }
    let change = monitor.wait_for(&format!("{verb} of {name}"), LIMIT, |change| {
        change.destination == plan::VIP.0 && change.next_hops.contains(&hop) != away
    })?;
    Ok(change.at.duration_since(called))
}

/// What [`width`] found.
#[derive(Debug, Clone, Serialize)]
pub struct Width {
    /// The switch's suite.
    pub switch: String,
    /// How many directors announce the VIP.
    pub directors: usize,
    /// The next hops in the switch's FIB.
    pub next_hops: BTreeSet<Ipv4Addr>,
    /// The route as `ip route show` prints it.
    pub route: String,
}

/// Brings a cluster up and reads the VIP's next hops from the switch's kernel.
///
/// # Errors
/// The cluster does not come up at its full width.
pub fn width(spec: Spec) -> Result<Width> {
    let mut lab = Lab::new(spec)?;
    lab.start(1, &mut |_| {})?;
    let mut show = Command::new("ip");
    let output =
        lab.switch
            .namespace()
            .run(show.args(["route", "show", &plan::VIP.to_string()]))?;
    Ok(Width {
        switch: lab.spec.switch.to_string(),
        directors: lab.directors.len(),
        next_hops: lab.switch.fib(plan::VIP)?,
        route: String::from_utf8_lossy(&output.stdout).into_owned(),
    })
}

fn memory(lab: &mut Lab) -> Result<Memory> {
    let count = u64::try_from(lab.directors.len()).context("counting the directors")?;
    let (mut speaker, mut agent) = (0, 0);
    for director in &mut lab.directors {
        speaker += director.speaker()?.pss()?;
        agent += director.agent()?.pss()?;
    }
    let controller = lab.controller.process()?.pss()?;
    Ok(Memory {
        speaker: speaker / count,
        agent: agent / count,
        controller,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_the_sorted_times() {
        let times = |millis: &[u64]| {
            let times: Vec<_> = millis.iter().copied().map(Duration::from_millis).collect();
            Times::new(&times).unwrap()
        };
        let odd = times(&[30, 10, 20]);
        assert_eq!((odd.min_ms, odd.median_ms, odd.max_ms), (10.0, 20.0, 30.0));
        assert_eq!(times(&[40, 10, 20, 30]).median_ms, 25.0);
        assert_eq!(
            odd.each_ms,
            [30.0, 10.0, 20.0],
            "the order of the times is lost"
        );
        assert!(Times::new(&[]).is_err(), "no time has a median");
    }
}
