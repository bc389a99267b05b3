//! How soon what an operator asks for reaches the agents.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use isopath_api::desired::AdminState;
use tokio::time::{Instant, sleep, timeout_at};

use super::agent::{Heard, Wanted};
use super::figures::{Line, Must, Unit};
use super::fleet::Fleet;
use super::rig::{Rig, SOON};
use super::set::{DIRECTORS, Shape, cluster_name};

/// At least so long between two changes, and up to twice that: an operator's script, and phases
/// that do not keep step with the agents' reports.
const PAUSE: Duration = Duration::from_millis(60);

/// From the sending of a changed declaration until the last of its cluster's agents has it.
pub(super) async fn declared(rig: &mut Rig, fleet: &mut Fleet, count: u16) -> Result<Line> {
    let mut revision = rig.view(0).await?.revision;
    let mut took = Vec::new();
    for change in 0..count {
        pause().await;
        fleet.forget();
        let begun = Instant::now();
        let applied = rig
            .declare(0, Shape::USUAL, 2 + change % 2, Some(revision))
            .await?;
        if !applied.changed {
            bail!("the declaration changed nothing");
        }
        revision = applied.revision;
        let mut missing: BTreeSet<usize> = (0..usize::from(DIRECTORS)).collect();
        let mut last = begun;
        while !missing.is_empty() {
            let heard = hear(fleet, begun, |wanted| wanted.revision == revision).await?;
            missing.remove(&heard.agent);
            last = last.max(heard.at);
        }
        took.push(last.duration_since(begun).as_secs_f64());
    }
    let what = format!("a declaration until {DIRECTORS} agents have it");
    Ok(Line::new(what, Unit::Milliseconds, took, Must::P99(0.050)))
}

/// From the sending of a drain until its director's agent has been told to withdraw.
pub(super) async fn drained(rig: &mut Rig, fleet: &mut Fleet, count: u16) -> Result<Line> {
    let mut took = Vec::new();
    let clusters = rig.tokens.len().max(1);
    for drain in 0..usize::from(count) {
        // Another director of another cluster each time.
        let cluster = drain % clusters;
        let director = (drain / clusters) % usize::from(DIRECTORS);
        let place = cluster * usize::from(DIRECTORS) + director;
        let name = cluster_name(u16::try_from(cluster).context("too many clusters")?);
        let path = format!("/api/v1/clusters/{name}/directors/d{}", director + 1);
        pause().await;
        fleet.forget();
        let begun = Instant::now();
        post(
            rig,
            &format!("{path}/drain"),
            r#"{"reason":"bench","immediate":true}"#,
        )
        .await?;
        let heard = hear(fleet, begun, |wanted| wanted.admin == AdminState::Drained);
        let heard = until(heard, place).await?;
        took.push(heard.duration_since(begun).as_secs_f64());
        post(rig, &format!("{path}/undrain"), "{}").await?;
        let back = hear(fleet, begun, |wanted| wanted.admin == AdminState::Active);
        until(back, place).await?;
    }
    let what = "a drain until its agent is told to withdraw";
    Ok(Line::new(what, Unit::Milliseconds, took, Must::P99(0.020)))
}

async fn pause() {
    sleep(PAUSE.mul_f64(1.0 + fastrand::f64())).await;
}

async fn until(heard: impl Future<Output = Result<Heard>>, place: usize) -> Result<Instant> {
    let heard = heard.await?;
    if heard.agent != place {
        bail!("agent {} was told in the place of {place}", heard.agent);
    }
    Ok(heard.at)
}

/// The next state of this kind that reached an agent.
async fn hear(fleet: &mut Fleet, since: Instant, is: impl Fn(&Wanted) -> bool) -> Result<Heard> {
    loop {
        let heard = timeout_at(since + SOON, fleet.heard.recv()).await;
        let heard = heard.context("no agent was told")?;
        let heard = heard.context("the agents have ended")?;
        if is(&heard.wanted) {
            return Ok(heard);
        }
    }
}

async fn post(rig: &mut Rig, path: &str, body: &str) -> Result<()> {
    let answer = rig.ask(("POST", path), &[], Some(body.as_bytes())).await?;
    if answer.status != 202 {
        let body = String::from_utf8_lossy(&answer.body);
        bail!("POST {path} was refused: {} {body}", answer.status);
    }
    Ok(())
}
