//! An interface whose MTU is not the switch's, against real switches: FRR refuses a larger one,
//! BIRD any other, and both take `advertise_mtu = 0` (RFC 2328 §10.6).

use std::time::Duration;

use anyhow::Result;
use isopath_api::ids::NeighborState;
use isopath_lab::director::{Director, Source};
use isopath_lab::plan::VIP;
use isopath_lab::switch::SwitchKind;
use isopath_lab::topology::{Lab, Spec};
use isopath_lab::wait::{self, Probe};

/// How long anything may take before the test fails.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn frr() -> Result<()> {
    run("mtu-frr", SwitchKind::Frr)
}

#[test]
fn bird() -> Result<()> {
    run("mtu-bird", SwitchKind::Bird)
}

/// The first director tells its MTU, the second does not.
fn run(name: &str, switch: SwitchKind) -> Result<()> {
    let Some(mut spec) = Spec::for_test(name) else {
        return Ok(());
    };
    spec.directors = 2;
    spec.real_servers = 0;
    spec.switch = switch;
    Lab::with(spec, |lab| {
        lab.switch.start()?;
        for director in &lab.directors {
            director.namespace().ip(["link set eth1 mtu 9000"])?;
        }
        let [telling, silent] = lab.directors.as_mut_slice() else {
            anyhow::bail!("two directors were asked for");
        };
        telling.write_config(&telling.config(&Source::vip_only()))?;
        let next = "dead_interval";
        let silent_config = silent.config(&Source::vip_only()).replacen(
            next,
            &format!("advertise_mtu = 0\n{next}"),
            1,
        );
        silent.write_config(&silent_config)?;
        telling.start_speaker()?;
        silent.start_speaker()?;

        let second = lab.next_hops([2]);
        lab.switch.wait_for_fib(VIP, &second, LIMIT)?;
        // Both started together, so that the other had the time to get as far; what it gets to
        // is told by a neighbour that starts over again and again.
        wait::until("d1 is refused", LIMIT, || {
            let state = state(&lab.directors[0])?;
            let refused = state == Some(NeighborState::ExStart);
            Ok(Probe::when(refused, (), || format!("{state:?}")))
        })?;
        lab.switch.wait_for_fib(VIP, &second, LIMIT)
    })
}

fn state(director: &Director) -> Result<Option<NeighborState>> {
    let neighbors = director.speaker_status()?.neighbors;
    Ok(neighbors.first().map(|neighbor| neighbor.state))
}
