//! Packet authentication against real switches: every algorithm that a switch has, a wrong key
//! that says so, and keys that follow each other without a flap.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use isopath_api::ids::NeighborState;
use isopath_api::interface::{Authentication, Interface};
use isopath_api::speaker::Status;
use isopath_lab::auth::{Algorithm, Auth, Key, write_secret};
use isopath_lab::director::{Director, Source};
use isopath_lab::plan::VIP;
use isopath_lab::switch::SwitchKind;
use isopath_lab::topology::{Lab, Spec};
use isopath_lab::wait::{self, Probe, scaled};
use jiff::Timestamp;

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

/// The director's key file says something else than the switch's configuration.
fn wrong_key(name: &str, switch: SwitchKind, auth: Auth) -> Result<()> {
    let Some(spec) = spec(name, switch, auth) else {
        return Ok(());
    };
    Lab::with(spec, |lab| {
        let file = lab.directors[0].directory().join("ospf-1.key");
        write_secret(&file, "the-wrong-one")?;
        start(lab, |text| text)?;
        let director = &lab.directors[0];
        let complaint = |status: &Status| {
            let complaints = status.interfaces.iter().flat_map(Interface::complaints);
            let words = "authentication: key id 1 with a digest that is not ours";
            let of_eth1 = format!("on eth1 from {}", director.uplink.switch);
            complaints
                .into_iter()
                .any(|complaint| complaint.starts_with(words) && complaint.ends_with(&of_eth1))
        };
        let status = wait_for_status(director, "the wrong key is told", |status| {
            complaint(status) && refused(status) >= 3
        })?;
        ensure!(status.neighbors.is_empty(), "{:?}", status.neighbors);
        // The switch does not take our packets either.
        let neighbors = lab.switch.neighbors()?;
        ensure!(neighbors.is_empty(), "the switch sees {neighbors:?}");

        // The right key in its place, and the next start is Full.
        lab.directors[0].take_speaker()?.stop(LIMIT)?;
        let Auth::Cryptographic(keys) = &lab.spec.auth else {
            bail!("no keys");
        };
        write_secret(&file, &keys[0].secret)?;
        lab.directors[0].start_speaker()?;
        wait_for_status(&lab.directors[0], "Full", is_full)?;
        Ok(())
    })
    .with_context(|| format!("{switch} with {name}"))
}

#[test]
fn frr_with_another_key() -> Result<()> {
    wrong_key("au-frr-wrong", SwitchKind::Frr, Auth::with(Algorithm::Md5))
}

/// The switch knows both keys; the director sends with the first until a moment in the test,
/// with the second from then on, and after a crash goes on above the numbers that it used.
#[test]
fn keys_follow_each_other_without_a_flap() -> Result<()> {
    let key = |id: u8| Key {
        algorithm: Algorithm::HmacSha256,
        id,
        secret: format!("secret-{id}"),
    };
    let auth = Auth::Cryptographic(vec![key(1), key(2)]);
    let Some(spec) = spec("au-rollover", SwitchKind::Bird, auth) else {
        return Ok(());
    };
    Lab::with(spec, |lab| {
        let moment = Timestamp::now() + scaled(Duration::from_secs(4));
        let lifetimes = |text: String| {
            text.replace(
                "key_id = 1,",
                &format!("key_id = 1, send_until = \"{moment}\","),
            )
            .replace(
                "key_id = 2,",
                &format!("key_id = 2, send_from = \"{moment}\","),
            )
        };
        start(lab, lifetimes)?;
        let director = &lab.directors[0];
        wait_for_status(director, "Full", is_full)?;
        let before = wait_for_status(director, "sending with key 1", |status| sends(status, 1))?;
        ensure!(
            is_full(&before) && Timestamp::now() < moment,
            "too late: no rollover to see"
        );
        let after = wait_for_status(director, "sending with key 2", |status| sends(status, 2))?;
        // A few Hellos with the new key, in both directions.
        let packets = after.counters["packets_received"] + 3;
        let later = wait_for_status(director, "packets after the rollover", |status| {
            status.counters["packets_received"] >= packets
        })?;
        let [neighbor] = later.neighbors.as_slice() else {
            bail!("neighbours {:?}", later.neighbors);
        };
        ensure!(neighbor.state == NeighborState::Full, "{neighbor:?}");
        let full_before = neighbor.state_ms > later.up_ms - before.up_ms;
        ensure!(full_before, "the adjacency flapped: {neighbor:?}");
        ensure!(refused(&later) == 0, "{:?}", later.counters);
        ensure!(
            neighbor.auth_key == Some(2),
            "the switch sends with {neighbor:?}"
        );

        // BIRD would take lower numbers for a replay for the whole dead interval.
        lab.directors[0].take_speaker()?.crash()?;
        lab.directors[0].start_speaker()?;
        let again = wait_for_status(&lab.directors[0], "Full again", is_full)?;
        ensure!(sends(&again, 2), "{:?}", again.interfaces);
        Ok(())
    })
}

fn sends(status: &Status, key: u8) -> bool {
    status.interfaces.iter().any(|interface| {
        matches!(&interface.auth, Authentication::Cryptographic { key_id, .. } if *key_id == key)
    })
}
