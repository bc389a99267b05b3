//! Packet authentication against real switches: every algorithm that a switch has, a wrong key
//! that says so, and keys that follow each other without a flap.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use isopath_api::ids::NeighborState;
use isopath_api::speaker::Status;
use isopath_lab::auth::{Algorithm, Auth};
use isopath_lab::director::{Director, Source};
use isopath_lab::plan::VIP;
use isopath_lab::switch::SwitchKind;
use isopath_lab::topology::{Lab, Spec};
use isopath_lab::wait::{self, Probe};

/// How long anything may take before the test fails.
const LIMIT: Duration = Duration::from_secs(20);

fn spec(name: &str, switch: SwitchKind, auth: Auth) -> Option<Spec> {
    let mut spec = Spec::for_test(name)?;
    spec.directors = 1;
    spec.real_servers = 0;
    spec.switch = switch;
    spec.auth = auth;
    Some(spec)
}

/// Starts the switch and the one speaker with this change of its file.
fn start(lab: &mut Lab, change: impl FnOnce(String) -> String) -> Result<()> {
    lab.switch.start()?;
    let director = &mut lab.directors[0];
    director.write_config(&change(director.config(&Source::vip_only())))?;
    director.start_speaker()
}

fn wait_for_status(
    director: &Director,
    what: &str,
    holds: impl Fn(&Status) -> bool,
) -> Result<Status> {
    wait::until(format_args!("{}: {what}", director.name), LIMIT, || {
        let status = director.speaker_status()?;
        let seen = format!("{status:?}");
        Ok(Probe::when(holds(&status), status, || seen))
    })
}

fn is_full(status: &Status) -> bool {
    let full = |state| state == NeighborState::Full;
    status.neighbors.iter().any(|neighbor| full(neighbor.state))
}

/// Packets refused for want of the right authentication.
fn refused(status: &Status) -> u64 {
    let counters = status.counters.iter();
    let refusals = counters.filter(|(name, _)| name.starts_with("drop_auth"));
    refusals.map(|(_, count)| count).sum()
}

/// A switch and a speaker of one mind: the VIP is in the FIB and no packet was refused.
fn agree(name: &str, switch: SwitchKind, auth: Auth) -> Result<()> {
    let Some(spec) = spec(name, switch, auth) else {
        return Ok(());
    };
    Lab::with(spec, |lab| {
        start(lab, |text| text)?;
        lab.switch.wait_for_fib(VIP, &lab.all_next_hops(), LIMIT)?;
        let status = wait_for_status(&lab.directors[0], "Full", is_full)?;
        ensure!(refused(&status) == 0, "{:?}", status.counters);
        Ok(())
    })
    .with_context(|| format!("{switch} with {name}"))
}

#[test]
fn frr_simple() -> Result<()> {
    agree(
        "au-frr-simple",
        SwitchKind::Frr,
        Auth::Simple("pass".to_owned()),
    )
}

#[test]
fn frr_md5() -> Result<()> {
    agree("au-frr-md5", SwitchKind::Frr, Auth::with(Algorithm::Md5))
}

#[test]
fn bird_simple() -> Result<()> {
    agree(
        "au-bird-simple",
        SwitchKind::Bird,
        Auth::Simple("eightbyt".to_owned()),
    )
}

#[test]
fn bird_hmac_sha_256() -> Result<()> {
    let auth = Auth::with(Algorithm::HmacSha256);
    agree("au-bird-sha256", SwitchKind::Bird, auth)
}
