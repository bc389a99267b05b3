//! Point-to-point links without a subnet, against real switches: one address of the switch's on
//! all ports, one of each director's own, on the link itself or borrowed from its loopback
//! interface.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use isopath_api::ids::{BfdState, NeighborState};
use isopath_lab::director::Source;
use isopath_lab::plan::{UNNUMBERED_SWITCH, VIP};
use isopath_lab::switch::{NextHop, SwitchKind};
use isopath_lab::topology::{Lab, Spec};
use isopath_lab::wait::{self, Probe};

/// How long anything may take before the test fails.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn frr() -> Result<()> {
    run("un-frr", SwitchKind::Frr)
}

#[test]
fn bird() -> Result<()> {
    run("un-bird", SwitchKind::Bird)
}

fn run(name: &str, switch: SwitchKind) -> Result<()> {
    let Some(mut spec) = Spec::for_test(name) else {
        return Ok(());
    };
    spec.directors = 2;
    spec.real_servers = 0;
    spec.switch = switch;
    spec.unnumbered = true;
    Lab::with(spec, |lab| {
        lab.switch.start()?;
        for director in &mut lab.directors {
            director.write_config(&director.config(&Source::vip_only()))?;
            director.start_speaker()?;
        }
        for director in &lab.directors {
            wait::until(
                format_args!("{}: Full, BFD Up", director.name),
                LIMIT,
                || {
                    let neighbors = director.speaker_status()?.neighbors;
                    let joined = neighbors.iter().any(|neighbor| {
                        neighbor.address == UNNUMBERED_SWITCH
                            && neighbor.state == NeighborState::Full
                            && neighbor.bfd == Some(BfdState::Up)
                    });
                    Ok(Probe::when(joined, (), || format!("{neighbors:?}")))
                },
            )?;
        }
        lab.switch.wait_for_fib(VIP, &lab.all_next_hops(), LIMIT)?;
        // Nothing but the port says where such a next hop is.
        let wanted: BTreeSet<NextHop> = lab
            .directors
            .iter()
            .map(|director| NextHop {
                gateway: director.next_hop(),
                port: director.name.to_string(),
            })
            .collect();
        let found = lab.switch.next_hops(VIP)?;
        ensure!(found == wanted, "{found:?} in place of {wanted:?}");

        // One port's loss is that director's alone, though all have the switch's one address.
        let speaker = lab.directors[0].take_speaker()?;
        speaker.crash()?;
        lab.switch.wait_for_fib(VIP, &lab.next_hops([2]), LIMIT)
    })
}
