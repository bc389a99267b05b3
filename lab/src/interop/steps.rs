//! The steps of a cell. Each leaves the rig as it found it: Full, with the route in the FIB.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use isopath_api::ids::{BfdState, NeighborState};
use isopath_api::speaker::{OverrideAction, Reply, Request, Status};

use super::rig::{End, PAUSE, Rig, Uplink, uplinks};
use super::{Cell, Step};
use crate::plan::{self, VIP};
use crate::wait::{self, Probe, scaled};

/// How long a condition may take. What takes longest is FRR's own start after a crash: it
/// outbids its former Router-LSA at MinLSInterval, twice.
const LIMIT: Duration = Duration::from_secs(40);

pub(super) fn take(rig: &mut Rig, step: Step) -> Result<()> {
    match step {
        Step::Full => full(rig),
        Step::Announce => announced(rig),
        Step::Withdraw => withdraw(rig),
        Step::Crash => crash(rig),
        Step::PeerRestart => peer_restart(rig),
        Step::CutAtDirector => {
            let [first, second] = uplinks(rig.cell.network);
            cut(rig, first, End::Director, second)
        }
        Step::CutAtSwitch => {
            let [first, second] = uplinks(rig.cell.network);
            cut(rig, second, End::Switch, first)
        }
    }
}

fn full(rig: &mut Rig) -> Result<()> {
    rig.start_switch()?;
    rig.start_speaker()?;
    joined(rig)
}

/// Waits until both uplinks have a neighbour that is Full, as either side sees it.
fn joined(rig: &Rig) -> Result<()> {
    let cell = rig.cell;
    let what = if cell.bfd {
        "Full and BFD Up on both uplinks"
    } else {
        "Full on both uplinks, without BFD"
    };
    rig.await_status(what, LIMIT, |status| sees_both_full(cell, status))?;
    wait::until_every(
        PAUSE,
        "the switch to see both adjacencies Full",
        LIMIT,
        || {
            let neighbors = rig.switch.neighbors()?;
            let full = neighbors
                .iter()
                .filter(|n| n.router_id == plan::router_id(1) && n.is_full());
            Ok(Probe::when(full.count() == 2, (), || {
                format!("{neighbors:?}")
            }))
        },
    )
}

fn sees_both_full(cell: Cell, status: &Status) -> bool {
    uplinks(cell.network).iter().all(|uplink| {
        status.neighbors.iter().any(|neighbor| {
            neighbor.interface == uplink.interface
                && neighbor.router_id == plan::SWITCH_ROUTER_ID
                && neighbor.state == NeighborState::Full
                && neighbor.bfd == cell.bfd.then_some(BfdState::Up)
        })
    })
}

/// Waits until the VIP is routed to as many uplinks as the cell's kind of LSA allows, and
/// acknowledged, and connects to it.
fn announced(rig: &Rig) -> Result<()> {
    let width = rig.cell.width();
    let what = format!("{width} next hops to {VIP}");
    rig.await_ports(&what, LIMIT, |ports| ports.len() == width)?;
    rig.await_status("the VIP acknowledged", LIMIT, |status| {
        let acknowledged = |vip: &isopath_api::speaker::Announced| vip.in_lsdb && vip.acknowledged;
        !status.announced.is_empty() && status.announced.iter().all(acknowledged)
    })?;
    rig.reach()
}

fn withdraw(rig: &Rig) -> Result<()> {
    act(rig, OverrideAction::Withdraw)?;
    rig.await_ports("no route to the VIP", LIMIT, |ports| ports.is_empty())?;
    ensure!(
        sees_both_full(rig.cell, &rig.status()?),
        "a withdrawal took an adjacency with it: {:?}",
        rig.status()?.neighbors
    );
    act(rig, OverrideAction::Clear)?;
    announced(rig)
}

fn act(rig: &Rig, action: OverrideAction) -> Result<()> {
    let reply = rig.ask(&Request::Override {
        vip: VIP,
        action,
        text: "interop".to_owned(),
    })?;
    ensure!(reply == Reply::Ok, "{action:?} was answered with {reply:?}");
    Ok(())
}

fn crash(rig: &mut Rig) -> Result<()> {
    let start = Instant::now();
    rig.crash_speaker()?;
    wait::until_every(PAUSE, "the switch to miss the speaker", LIMIT, || {
        let neighbors = rig.switch.neighbors()?;
        let full = neighbors.iter().any(|neighbor| neighbor.is_full());
        Ok(Probe::when(!full, (), || format!("{neighbors:?}")))
    })?;
    if rig.cell.bfd {
        // The last Hello may be a HelloInterval old; what was faster than the rest of the dead
        // interval was BFD. The route may take longer: BIRD computes when it has described its
        // links anew, at MinLSInterval.
        let bound = scaled(rig.timers.dead - rig.timers.hello);
        let took = start.elapsed();
        ensure!(took <= bound, "missed after {took:?}: that was not BFD");
    }
    rig.await_ports("no route to the VIP", LIMIT, |ports| ports.is_empty())?;
    rig.start_speaker()?;
    announced(rig)?;
    joined(rig)
}

fn peer_restart(rig: &mut Rig) -> Result<()> {
    rig.switch.crash()?;
    // A killed suite leaves its routes in the kernel.
    rig.switch.forget_route(VIP)?;
    rig.start_switch()?;
    announced(rig)?;
    joined(rig)
}

/// Takes an uplink's link at one end and gives it back; `other` is the uplink that is left.
fn cut(rig: &Rig, uplink: Uplink, end: End, other: Uplink) -> Result<()> {
    rig.set_link(&uplink, end, false)?;
    let what = format!("only {} after a cut of {}", other.port, uplink.port);
    rig.await_ports(&what, LIMIT, |ports| {
        ports.len() == 1 && ports.contains(other.port)
    })?;
    rig.reach()?;
    // BIRD 2.0.12 describes a link at MinLSInterval. One that was gone for less is never left out,
    // and when it is back BIRD takes no route through it before something else changes.
    let what = "the switch to describe one link only";
    wait::until_every(PAUSE, what, LIMIT, || {
        let links = switch_links(rig)?;
        Ok(Probe::when(links == 1, (), || format!("{links} links")))
    })?;
    rig.set_link(&uplink, end, true)?;
    joined(rig)?;
    announced(rig)
}

/// The links to other routers or to segments in the switch's Router-LSA.
fn switch_links(rig: &Rig) -> Result<usize> {
    let lsas = match rig.ask(&Request::Lsdb)? {
        Reply::Lsdb { lsas } => lsas,
        other => bail!("the speaker answered a look at its database with {other:?}"),
    };
    let router = plan::SWITCH_ROUTER_ID;
    let lsa = lsas
        .iter()
        .find(|lsa| lsa.ls_type == 1 && lsa.advertising_router == router);
    let lsa = lsa.context("no Router-LSA of the switch in the speaker's database")?;
    Ok(lsa.links.iter().filter(|link| link.link_type < 3).count())
}
