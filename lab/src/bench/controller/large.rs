//! How soon the view and the metrics of a large cluster are there.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::figures::{Line, Must, Unit};
use super::fleet::Fleet;
use super::rig::{Rig, SOON};
use super::set::cluster_name;

/// At least so long between two questions, and up to twice that.
const PAUSE: Duration = Duration::from_millis(100);

/// From the sending of the question to the end of the answer, while the directors report.
pub(super) async fn large(rig: &mut Rig, fleet: &Fleet, count: u16) -> Result<Vec<Line>> {
    fleet.acknowledged(Instant::now(), SOON).await?;
    let view = rig.view(0).await?;
    let seen = view
        .services
        .iter()
        .flat_map(|service| &service.real_servers);
    let seen: usize = seen.map(|server| server.seen.len()).sum();
    let path = format!("/api/v1/clusters/{}", cluster_name(0));
    let (took, length) = ask(rig, &path, count).await?;
    let what = format!("GET of {seen} real servers ({} KiB)", length / 1024);
    let get = Line::new(what, Unit::Milliseconds, took, Must::P99(0.030));
    let (took, length) = ask(rig, "/metrics", count).await?;
    let what = format!("/metrics of them ({} KiB)", length / 1024);
    let metrics = Line::new(what, Unit::Milliseconds, took, Must::P99(0.100));
    Ok(vec![get, metrics])
}

async fn ask(rig: &mut Rig, path: &str, count: u16) -> Result<(Vec<f64>, usize)> {
    let (mut took, mut length) = (Vec::new(), 0);
    for _ in 0..count {
        sleep(PAUSE.mul_f64(1.0 + fastrand::f64())).await;
        let begun = Instant::now();
        let answer = rig.ask(("GET", path), &[], None).await?;
        took.push(begun.elapsed().as_secs_f64());
        ensure!(
            answer.status == 200,
            "GET {path} was answered with {}",
            answer.status
        );
        length = answer.body.len();
    }
    Ok((took, length))
}
