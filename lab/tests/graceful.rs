//! What survives a planned restart of the speaker that asks the switch to keep its routes
//! (`on_exit = "keep"`, RFC 3623), by switch: the route monitor sees whether the next hop leaves
//! the FIB, and a capture of the director's link why. docs/OSPF.md has the same as a table.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use isopath_api::config::{NetworkType, OnExit};
use isopath_api::ids::{BfdState, NeighborState, Vip};
use isopath_api::speaker::{Announcement, OverrideAction, Owner, Reply, Request};
use isopath_bfd::{ControlPacket, State};
use isopath_lab::capture::{Capture, Captured, Payload};
use isopath_lab::director::{Director, Source};
use isopath_lab::netns::checked;
use isopath_lab::plan::{Uplink, VIP};
use isopath_lab::route_monitor::RouteMonitor;
use isopath_lab::switch::{SwitchHelper, SwitchKind};
use isopath_lab::topology::{Lab, Spec};
use isopath_lab::wait::{self, Probe};
use isopath_ospf::packet::{
    Body, GRACE_LSA_ID, GraceLsa, LsType, Lsa, LsaKey, MAX_AGE, Packet, RestartReason,
};

/// How long anything may take before the test fails.
const LIMIT: Duration = Duration::from_secs(20);

/// Longer than RouterDeadInterval (4 s): without help the next hop would be gone.
const AWAY: Duration = Duration::from_millis(4500);

/// Long enough for whatever the return may still upset.
const AFTER: Duration = Duration::from_secs(2);

/// A switch, how it is set up, and what is expected of it.
struct Case {
    name: &'static str,
    switch: SwitchKind,
    network: NetworkType,
    helper: SwitchHelper,
    bfd: bool,
    away: Away,
    expected: Expected,
}

/// What happens while the speaker is away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Away {
    /// Nothing, for longer than RouterDeadInterval.
    Long,
    /// The other director announces something else.
    Change,
    /// It does not come back.
    ForEver,
}

/// What the switch does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The next hop never leaves the FIB.
    Stays,
    /// The switch agrees, and the next hop leaves all the same.
    Leaves,
    /// The speaker withdraws, and gives this reason.
    Withdrawn(&'static str),
}

const P2P: NetworkType = NetworkType::PointToPoint;

#[test]
fn frr_strict_keeps_it() -> Result<()> {
    run(&Case {
        name: "frr-strict",
        switch: SwitchKind::Frr,
        network: P2P,
        helper: SwitchHelper::Strict,
        bfd: false,
        away: Away::Long,
        expected: Expected::Stays,
    })
}

#[test]
fn frr_keeps_it_on_a_segment() -> Result<()> {
    run(&Case {
        name: "frr-bc",
        switch: SwitchKind::Frr,
        network: NetworkType::Broadcast,
        helper: SwitchHelper::Strict,
        bfd: false,
        away: Away::Long,
        expected: Expected::Stays,
    })
}

#[test]
fn frr_strict_gives_up_when_anything_changes() -> Result<()> {
    run(&Case {
        name: "frr-change",
        switch: SwitchKind::Frr,
        network: P2P,
        helper: SwitchHelper::Strict,
        bfd: false,
        away: Away::Change,
        expected: Expected::Leaves,
    })
}

#[test]
fn frr_lenient_keeps_it_when_something_changes() -> Result<()> {
    run(&Case {
        name: "frr-lenient",
        switch: SwitchKind::Frr,
        network: P2P,
        helper: SwitchHelper::Lenient,
        bfd: false,
        away: Away::Change,
        expected: Expected::Stays,
    })
}

#[test]
fn frr_stock_takes_no_opaque_lsas() -> Result<()> {
    run(&Case {
        name: "frr-stock",
        switch: SwitchKind::Frr,
        network: P2P,
        helper: SwitchHelper::Stock,
        bfd: false,
        away: Away::ForEver,
        expected: Expected::Withdrawn("not_opaque"),
    })
}

#[test]
fn frr_lets_go_after_the_grace_period() -> Result<()> {
    run(&Case {
        name: "frr-gone",
        switch: SwitchKind::Frr,
        network: P2P,
        helper: SwitchHelper::Strict,
        bfd: false,
        away: Away::ForEver,
        expected: Expected::Leaves,
    })
}

#[test]
fn frr_takes_the_pause_of_bfd_for_a_failure() -> Result<()> {
    run(&Case {
        name: "frr-bfd",
        switch: SwitchKind::Frr,
        network: P2P,
        helper: SwitchHelper::Strict,
        bfd: true,
        away: Away::ForEver,
        expected: Expected::Withdrawn("adjacency"),
    })
}

#[test]
fn bird_keeps_it() -> Result<()> {
    run(&Case {
        name: "bird",
        switch: SwitchKind::Bird,
        network: P2P,
        helper: SwitchHelper::Stock,
        bfd: false,
        away: Away::Long,
        expected: Expected::Stays,
    })
}

#[test]
fn bird_keeps_it_on_a_segment() -> Result<()> {
    run(&Case {
        name: "bird-bc",
        switch: SwitchKind::Bird,
        network: NetworkType::Broadcast,
        helper: SwitchHelper::Stock,
        bfd: false,
        away: Away::Long,
        expected: Expected::Stays,
    })
}

#[test]
fn bird_lets_go_after_the_grace_period() -> Result<()> {
    run(&Case {
        name: "bird-gone",
        switch: SwitchKind::Bird,
        network: P2P,
        helper: SwitchHelper::Stock,
        bfd: false,
        away: Away::ForEver,
        expected: Expected::Leaves,
    })
}

#[test]
fn bird_takes_the_pause_of_bfd_for_a_failure() -> Result<()> {
    run(&Case {
        name: "bird-bfd",
        switch: SwitchKind::Bird,
        network: P2P,
        helper: SwitchHelper::Stock,
        bfd: true,
        away: Away::ForEver,
        expected: Expected::Withdrawn("adjacency"),
    })
}

/// The next run keeps what the agent announced, but no longer than the last one would have.
#[test]
fn an_agent_that_does_not_come_back_is_not_trusted_for_longer() -> Result<()> {
    let Some(mut spec) = Spec::for_test("gr-agent") else {
        return Ok(());
    };
    spec.directors = 2;
    spec.real_servers = 0;
    spec.helper = SwitchHelper::Strict;
    spec.on_exit = OnExit::Keep;
    spec.timers.bfd = None;
    let hold = spec.timers.dead + Duration::from_secs(4);
    spec.agent_hold = hold;
    Lab::with(spec, |lab| {
        start(lab, false)?;
        let agent = announce_as_agent(&lab.directors[0], hold)?;
        let said = Instant::now();
        let mut monitor = lab.switch.monitor()?;
        lab.directors[0].take_speaker()?.stop(LIMIT)?;
        drop(agent);
        lab.directors[0].start_speaker()?;
        wait_until_settled(&lab.directors[0], false)?;
        let status = lab.directors[0].speaker_status()?;
        ensure!(
            matches!(status.owner, Owner::Held { left_ms } if left_ms > 0),
            "{:?}",
            status.owner
        );
        let gone = gone_at(&mut monitor, lab, said)?;
        let bounds = hold - Duration::from_millis(500)..hold + Duration::from_secs(3);
        ensure!(
            bounds.contains(&gone),
            "withdrawn after {gone:?}, not {hold:?}"
        );
        Ok(())
    })
}

/// The other rule of BFD: who leaves for good says Down, so that the peer acts on it.
#[test]
fn a_stop_for_good_takes_bfd_down() -> Result<()> {
    let Some(mut spec) = Spec::for_test("gr-stop") else {
        return Ok(());
    };
    spec.directors = 1;
    spec.real_servers = 0;
    Lab::with(spec, |lab| {
        start(lab, true)?;
        let director = &mut lab.directors[0];
        let capture = Capture::start(director.namespace(), "eth1", director.directory())?;
        let status = director.take_speaker()?.stop(LIMIT)?;
        ensure!(status.success(), "the speaker ended with {status}");
        let packets = capture.finish()?;
        let story = Story {
            packets: &packets,
            director: director.uplink.director,
            switch: director.uplink.switch,
        };
        let states: Vec<State> = story.bfd()?.iter().map(|(state, _)| *state).collect();
        ensure!(
            states.last() == Some(&State::Down) && !states.contains(&State::AdminDown),
            "{states:?}"
        );
        let router_lsas = story.lsas(LsType::Router)?;
        let ages: Vec<u16> = router_lsas.iter().map(|lsa| lsa.header().age).collect();
        ensure!(
            ages.first().is_some_and(|age| *age < MAX_AGE) && ages.last() == Some(&MAX_AGE),
            "not a withdrawal and then a flush: ages {ages:?}"
        );
        ensure!(story.says_good_bye()?, "no 1-Way Hello");
        Ok(())
    })
}

/// Takes the announced set over, for as long as what is returned is open.
fn announce_as_agent(director: &Director, hold: Duration) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(director.speaker_socket())?;
    let request = Request::Announce {
        set: vec![Announcement {
            vip: VIP,
            cost: 1,
            kind: isopath_api::declare::AnnounceAs::Stub,
        }],
        withheld: Vec::new(),
        hold_ms: u64::try_from(hold.as_millis())?,
    };
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer)?;
    let reply: Reply = serde_json::from_str(&answer)?;
    ensure!(reply == Reply::Ok, "{reply:?}");
    Ok(stream)
}

fn run(case: &Case) -> Result<()> {
    let Some(mut spec) = Spec::for_test(&format!("gr-{}", case.name)) else {
        return Ok(());
    };
    spec.directors = 2;
    spec.real_servers = 0;
    spec.switch = case.switch;
    spec.network = case.network;
    spec.helper = case.helper;
    spec.on_exit = OnExit::Keep;
    if !case.bfd {
        spec.timers.bfd = None;
    }
    // The grace period is what RouterDeadInterval leaves of it.
    let grace = match case.away {
        Away::Long | Away::Change => AWAY + Duration::from_secs(4),
        Away::ForEver => Duration::from_secs(2),
    };
    spec.agent_hold = spec.timers.dead + grace;
    Lab::with(spec, |lab| restart(case, lab))
}

/// Both directors announce the VIP.
fn start(lab: &mut Lab, bfd: bool) -> Result<()> {
    lab.switch.start()?;
    prioritize(lab)?;
    for director in &mut lab.directors {
        director.write_config(&director.config(&Source::vip_only()))?;
        director.start_speaker()?;
    }
    lab.switch.wait_for_fib(VIP, &lab.all_next_hops(), LIMIT)?;
    for director in &lab.directors {
        wait_until_settled(director, bfd)?;
    }
    Ok(())
}

fn restart(case: &Case, lab: &mut Lab) -> Result<()> {
    start(lab, case.bfd)?;
    let mut monitor = lab.switch.monitor()?;
    let capture = Capture::start(lab.switch.namespace(), "d1", &lab.directory())?;

    let speaker = lab.directors[0].take_speaker()?;
    let start = Instant::now();
    let status = speaker.stop(LIMIT)?;
    ensure!(status.success(), "the speaker ended with {status}");
    say(case, "SIGTERM to exit", start.elapsed());
    let log = fs::read_to_string(lab.directors[0].directory().join("speaker.log"))?;
    let kept = log.contains("the neighbors keep the routes");
    if let Expected::Withdrawn(reason) = case.expected {
        ensure!(!kept, "the switch agreed");
        let reason = format!("reason=\"{reason}\"");
        ensure!(log.contains(&reason), "not withdrawn for {reason}");
    } else {
        ensure!(kept, "the switch did not agree");
    }

    match case.away {
        Away::Long => monitor
            .expect_quiet(VIP.0, AWAY)
            .context("while the speaker was away")?,
        Away::Change => change_elsewhere(lab)?,
        Away::ForEver => {
            let gone = gone_at(&mut monitor, lab, start)?;
            say(case, "SIGTERM to the next hop gone", gone);
            let bound = lab.spec.agent_hold + Duration::from_secs(3);
            ensure!(gone <= bound, "it was announced for {gone:?}");
        }
    }
    let back = Instant::now();
    lab.directors[0].start_speaker()?;
    match (case.expected, case.away) {
        (Expected::Stays, _) => {
            wait_until_settled(&lab.directors[0], case.bfd)?;
            monitor
                .expect_quiet(VIP.0, AFTER)
                .context("after the speaker was back")?;
        }
        (Expected::Leaves, Away::Long | Away::Change) => {
            gone_at(&mut monitor, lab, back).context("the switch helped")?;
        }
        (Expected::Leaves | Expected::Withdrawn(_), _) => {}
    }
    lab.switch.wait_for_fib(VIP, &lab.all_next_hops(), LIMIT)?;
    wait_until_settled(&lab.directors[0], case.bfd)?;
    judge(case, &capture.finish()?, lab.directors[0].uplink)
}

#[expect(
    clippy::print_stdout,
    reason = "the measurements are for whoever runs the test"
)]
fn say(case: &Case, what: &str, value: impl std::fmt::Debug) {
    println!("{}: {what}: {value:.1?}", case.name);
}

/// As in the tests of the speaker: the switch's control plane has a processor to itself.
fn prioritize(lab: &mut Lab) -> Result<()> {
    for process in lab.processes() {
        let mut chrt = Command::new("chrt");
        chrt.args(["--all-tasks", "--fifo", "--pid", "5"]);
        checked(chrt.arg(process.pid().to_string()))?;
    }
    Ok(())
}

/// Waits until the switch is Full, has acknowledged everything, and BFD is Up.
fn wait_until_settled(director: &Director, bfd: bool) -> Result<()> {
    let what = format!("{} to be settled", director.name);
    wait::until(what, LIMIT, || {
        let status = director.speaker_status()?;
        let joined = status.neighbors.iter().any(|neighbor| {
            let up = neighbor.bfd == Some(BfdState::Up);
            neighbor.state == NeighborState::Full && up == bfd
        });
        let acknowledged = status.announced.iter().all(|vip| vip.acknowledged);
        let announced = !status.announced.is_empty() && acknowledged;
        let seen = format!("{status:?}");
        Ok(Probe::when(joined && announced, (), || seen))
    })
}

/// The other director announces another VIP, which does not concern this one.
fn change_elsewhere(lab: &Lab) -> Result<()> {
    let other = Vip(Ipv4Addr::new(10, 99, 0, 2));
    let request = Request::Override {
        vip: other,
        action: OverrideAction::Announce { cost: 1 },
        text: String::new(),
    };
    let reply = lab.directors[1].ask_speaker(&request)?;
    ensure!(reply == Reply::Ok, "{reply:?}");
    lab.switch.wait_for_fib(other, &lab.next_hops([2]), LIMIT)
}

/// When the first director's next hop left the FIB.
fn gone_at(monitor: &mut RouteMonitor, lab: &Lab, since: Instant) -> Result<Duration> {
    let hop = lab.directors[0].next_hop();
    let change = monitor.wait_for("the next hop gone", LIMIT, |change| {
        change.destination == VIP.0 && !change.next_hops.contains(&hop)
    })?;
    Ok(change.at.saturating_duration_since(since))
}

/// What the two ends said, in order.
struct Story<'a> {
    packets: &'a [Captured],
    director: Ipv4Addr,
    switch: Ipv4Addr,
}

impl Story<'_> {
    /// The OSPF packets from one of the two.
    fn ospf(&self, from: Ipv4Addr) -> Result<Vec<Body>> {
        let mut bodies = Vec::new();
        for packet in self.packets {
            if let Payload::Ospf(bytes) = &packet.payload
                && packet.source == from
            {
                let packet = Packet::decode(bytes);
                bodies.push(packet.context("decoding an OSPF packet")?.body);
            }
        }
        Ok(bodies)
    }

    /// The states and discriminators of the director's BFD packets.
    fn bfd(&self) -> Result<Vec<(State, u32)>> {
        let mut seen = Vec::new();
        for packet in self.packets {
            if let Payload::Bfd(bytes) = &packet.payload
                && packet.source == self.director
            {
                let packet = ControlPacket::parse(bytes);
                let packet = packet.map_err(|reason| anyhow::anyhow!("BFD: {reason:?}"))?;
                seen.push((packet.state, packet.my_discriminator.get()));
            }
        }
        Ok(seen)
    }

    /// Whether the director sent a 1-Way Hello.
    fn says_good_bye(&self) -> Result<bool> {
        Ok(self.ospf(self.director)?.iter().any(|body| match body {
            Body::Hello(hello) => hello.neighbors.is_empty(),
            Body::DbDesc(_) | Body::Request(_) | Body::Update(_) | Body::Ack(_) => false,
        }))
    }

    /// The LSAs that the director sent of one type.
    fn lsas(&self, ls_type: LsType) -> Result<Vec<Lsa>> {
        let mut lsas = Vec::new();
        for body in self.ospf(self.director)? {
            if let Body::Update(update) = body {
                lsas.extend(
                    update
                        .into_iter()
                        .filter(|lsa| lsa.key().ls_type == ls_type),
                );
            }
        }
        Ok(lsas)
    }

    /// Whether the switch acknowledged an LSA. A Designated Router floods it on, which acknowledges
    /// it, too (RFC 2328 §13, table 19).
    fn acknowledges(&self, key: LsaKey) -> Result<bool> {
        Ok(self.ospf(self.switch)?.iter().any(|body| match body {
            Body::Ack(headers) => headers.iter().any(|header| header.key == key),
            Body::Update(lsas) => lsas.iter().any(|lsa| lsa.key() == key),
            Body::Hello(_) | Body::DbDesc(_) | Body::Request(_) => false,
        }))
    }
}

fn judge(case: &Case, packets: &[Captured], uplink: Uplink) -> Result<()> {
    let story = Story {
        packets,
        director: uplink.director,
        switch: uplink.switch,
    };
    match case.expected {
        Expected::Stays | Expected::Leaves => judge_agreed(case, &story)?,
        Expected::Withdrawn(_) => judge_withdrawn(case, &story)?,
    }
    judge_bfd(case, &story)
}

/// The Grace-LSA was acknowledged, and the director left without a word.
fn judge_agreed(case: &Case, story: &Story<'_>) -> Result<()> {
    let grace_lsas = story.lsas(LsType::OpaqueLink)?;
    let first = grace_lsas.first().context("no Grace-LSA was sent")?;
    ensure!(first.key().link_state_id == GRACE_LSA_ID, "{first:?}");
    let says = GraceLsa::decode(first.body()).context("reading the Grace-LSA")?;
    let address = (case.network == NetworkType::Broadcast).then_some(story.director);
    ensure!(
        says.reason == RestartReason::Software && says.address == address,
        "{says:?}"
    );
    ensure!(
        story.acknowledges(first.key())?,
        "the Grace-LSA was not acknowledged"
    );
    ensure!(!story.says_good_bye()?, "a 1-Way Hello");
    let router_lsas = story.lsas(LsType::Router)?;
    ensure!(
        router_lsas.iter().all(|lsa| lsa.header().age < MAX_AGE),
        "the Router-LSA was flushed"
    );
    if case.expected == Expected::Stays {
        let last = grace_lsas.last().context("no Grace-LSA was sent")?;
        ensure!(
            last.header().age == MAX_AGE,
            "the Grace-LSA was not flushed in the end"
        );
        ensure!(!router_lsas.is_empty(), "no Router-LSA after the return");
    }
    Ok(())
}

/// Whoever cannot be asked is told plainly. One that has dropped the adjacency says so in its next
/// Hello alone: it may be asked until then, and does not answer.
fn judge_withdrawn(case: &Case, story: &Story<'_>) -> Result<()> {
    for lsa in story.lsas(LsType::OpaqueLink)? {
        ensure!(
            case.bfd,
            "{}: a Grace-LSA was sent to a switch that cannot help",
            case.name
        );
        let acknowledged = story.acknowledges(lsa.key())?;
        ensure!(!acknowledged, "{}: the switch helps", case.name);
    }
    ensure!(story.says_good_bye()?, "no 1-Way Hello");
    Ok(())
}

/// A pause is AdminDown, the end is Down, and the discriminator stays the same over the restart.
fn judge_bfd(case: &Case, story: &Story<'_>) -> Result<()> {
    let seen = story.bfd()?;
    ensure!(seen.is_empty() != case.bfd, "{} BFD packets", seen.len());
    let Some((_, discriminator)) = seen.first() else {
        return Ok(());
    };
    if let Some(other) = seen.iter().find(|(_, other)| other != discriminator) {
        bail!("the discriminator was {discriminator}, then {other:?}");
    }
    // The capture may have begun after the last packet of the session that was Up.
    let mut states: Vec<State> = seen.iter().map(|(state, _)| *state).collect();
    states.dedup();
    let since_up = states.iter().skip_while(|state| **state == State::Up);
    ensure!(
        since_up.take(2).eq(&[State::AdminDown, State::Down]),
        "{states:?}"
    );
    ensure!(states.last() == Some(&State::Up), "{states:?}");
    Ok(())
}
