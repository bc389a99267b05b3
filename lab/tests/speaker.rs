//! The speaker against real switches: FRR and BIRD, on point-to-point links and on a broadcast
//! segment. Each test prints what it measured (`--nocapture`).

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use isopath_api::config::NetworkType;
use isopath_api::declare::AnnounceAs;
use isopath_api::ids::{BfdState, NeighborState};
use isopath_api::reason::Reason;
use isopath_api::speaker::{
    Announcement, Neighbor, Owner, Reply, Request, Source as Voice, Status,
};
use isopath_lab::director::{Director, Source};
use isopath_lab::plan::VIP;
use isopath_lab::route_monitor::RouteMonitor;
use isopath_lab::switch::SwitchKind;
use isopath_lab::topology::{Lab, Spec};
use isopath_lab::wait::{self, Probe, scaled};

/// How long anything may take before the test fails.
const LIMIT: Duration = Duration::from_secs(20);

/// What an owner asks for in these tests.
const HOLD: Duration = Duration::from_secs(3);

/// Longer than the switch's MinLSArrival, so that the next change finds a quiet LSA.
const QUIET: Duration = Duration::from_millis(1200);

/// Long enough for a second origination that a switch dropped and that is sent again.
const FLAP_WATCH: Duration = Duration::from_secs(10);

/// Announcements and withdrawals that are timed.
const ROUNDS: usize = 5;

/// How long a change may take to the FIB. It is no measure of speed, which is printed and not
/// judged here: it lies below the 5 s that FRR and BIRD take where a mechanism is at work that
/// should not be (their MinLSInterval and retransmission), far above what a busy machine costs.
const CHANGE: Duration = Duration::from_secs(3);

/// How long a crash may take to the FIB: below RouterDeadInterval (4 s), so that it was BFD.
const CRASH: Duration = Duration::from_secs(3);

/// A switch and a network.
struct Case {
    name: &'static str,
    switch: SwitchKind,
    network: NetworkType,
}

impl Case {
    fn new(name: &'static str, switch: SwitchKind, network: NetworkType) -> Self {
        Self {
            name,
            switch,
            network,
        }
    }
}

#[test]
fn frr_point_to_point() -> Result<()> {
    run(&Case::new(
        "frr-ptp",
        SwitchKind::Frr,
        NetworkType::PointToPoint,
    ))
}

#[test]
fn frr_broadcast() -> Result<()> {
    run(&Case::new(
        "frr-bc",
        SwitchKind::Frr,
        NetworkType::Broadcast,
    ))
}

#[test]
fn bird_point_to_point() -> Result<()> {
    run(&Case::new(
        "bird-ptp",
        SwitchKind::Bird,
        NetworkType::PointToPoint,
    ))
}

#[test]
fn bird_broadcast() -> Result<()> {
    run(&Case::new(
        "bird-bc",
        SwitchKind::Bird,
        NetworkType::Broadcast,
    ))
}

fn run(case: &Case) -> Result<()> {
    let mut spec = Spec::new(format!("isb-{}", case.name));
    spec.directors = 2;
    spec.real_servers = 0;
    spec.switch = case.switch;
    spec.network = case.network;
    let mut lab = Lab::new(spec)?;
    lab.switch.start()?;
    prioritize(&mut lab)?;
    cold_start(case, &mut lab)?;
    owner_announces_and_withdraws(case, &lab)?;
    owner_that_goes_is_held(case, &lab)?;
    crash_and_restart(case, &mut lab)?;
    interface_goes_and_comes(case, &lab)?;
    switch_restarts(case, &mut lab)?;
    planned_stop(case, &mut lab)
}

/// Gives the programs that run so far a real-time priority.
fn prioritize(lab: &mut Lab) -> Result<()> {
    lab.processes().try_for_each(|process| process.prioritize())
}

#[expect(
    clippy::print_stdout,
    reason = "the measurements are for whoever runs the test"
)]
fn say(case: &Case, what: &str, value: impl std::fmt::Debug) {
    println!("{}: {what}: {value:.1?}", case.name);
}

/// Waits for exactly these next hops; how long after `since` the kernel had them.
fn hops_at(
    monitor: &mut RouteMonitor,
    hops: &BTreeSet<Ipv4Addr>,
    since: Instant,
) -> Result<Duration> {
    let wanted = format!("next hops {hops:?} to {VIP}");
    let change = monitor.wait_for(&wanted, LIMIT, |change| {
        change.destination == VIP.0 && change.next_hops == *hops
    })?;
    Ok(change.at.saturating_duration_since(since))
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

fn cold_start(case: &Case, lab: &mut Lab) -> Result<()> {
    let mut monitor = lab.switch.monitor()?;
    let start = Instant::now();
    for director in &mut lab.directors {
        director.write_config(&director.config(&Source::vip_only()))?;
        director.start_speaker()?;
    }
    let both = lab.all_next_hops();
    let took = hops_at(&mut monitor, &both, start)?;
    say(case, "cold start of two to both next hops in the FIB", took);

    for director in &lab.directors {
        let status = wait_for_status(director, "Full, BFD Up, acknowledged", |status| {
            joined(status)
                && status.announced.iter().all(|vip| vip.acknowledged)
                && status.announcers.get(&VIP).map(Vec::len) == Some(2)
        })?;
        let [announced] = status.announced.as_slice() else {
            bail!("expected one announced VIP: {:?}", status.announced);
        };
        ensure!(announced.in_lsdb && announced.source == Voice::File && announced.cost == 1);
        ensure!(status.owner == Owner::None, "{:?}", status.owner);
    }
    let neighbors = lab.switch.neighbors()?;
    let full = neighbors.iter().filter(|neighbor| neighbor.is_full());
    ensure!(full.count() == 2, "the switch sees {neighbors:?}");
    Ok(())
}

/// Whether a neighbour is Full and its BFD Up. On the broadcast segment the other director is
/// a neighbour, too, and stays 2-Way.
fn joined(status: &Status) -> bool {
    let joined = |n: &Neighbor| n.state == NeighborState::Full && n.bfd == Some(BfdState::Up);
    status.neighbors.iter().any(joined)
}

/// Whether no neighbour is Full.
fn alone(status: &Status) -> bool {
    let full = |n: &Neighbor| n.state == NeighborState::Full;
    !status.neighbors.iter().any(full)
}

/// A connection that speaks for the announced set, as the agent's does.
struct OwnerConnection {
    stream: BufReader<UnixStream>,
}

impl OwnerConnection {
    fn open(director: &Director) -> Result<Self> {
        let stream = UnixStream::connect(director.speaker_socket())?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    fn ask(&mut self, request: &Request) -> Result<Reply> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        self.read()
    }

    fn read(&mut self) -> Result<Reply> {
        let mut answer = String::new();
        self.stream.read_line(&mut answer)?;
        serde_json::from_str(&answer).with_context(|| format!("reading {answer:?}"))
    }

    /// Announces the VIP at this cost, or nothing.
    fn announce(&mut self, cost: Option<u16>) -> Result<Reply> {
        let vip = |cost| Announcement {
            vip: VIP,
            cost,
            kind: AnnounceAs::Stub,
        };
        let hold = scaled(HOLD).as_millis();
        self.ask(&Request::Announce {
            set: cost.map(vip).into_iter().collect(),
            withheld: Vec::new(),
            hold_ms: u64::try_from(hold)?,
        })
    }

    fn expect_ok(&mut self, cost: Option<u16>) -> Result<()> {
        let reply = self.announce(cost)?;
        ensure!(reply == Reply::Ok, "announcing {cost:?}: {reply:?}");
        Ok(())
    }

    /// Waits as an owner does, with a heartbeat each second at least.
    fn idle(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let reply = self.ask(&Request::Heartbeat)?;
            ensure!(reply == Reply::Ok, "heartbeat: {reply:?}");
            let left = end.saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(Duration::from_millis(500)));
        }
        Ok(())
    }
}

/// A connection that hears of changes.
struct Subscriber(OwnerConnection);

impl Subscriber {
    fn open(director: &Director) -> Result<Self> {
        let mut connection = OwnerConnection::open(director)?;
        match connection.ask(&Request::Subscribe)? {
            Reply::Status(_) => Ok(Self(connection)),
            other => bail!("a subscription was answered with {other:?}"),
        }
    }

    fn wait_for(&mut self, what: &str, holds: impl Fn(&Status) -> bool) -> Result<()> {
        loop {
            match self
                .0
                .read()
                .with_context(|| format!("waiting for {what}"))?
            {
                Reply::Changed(status) if holds(&status) => return Ok(()),
                Reply::Changed(_) => {}
                other => bail!("a subscriber was told {other:?}"),
            }
        }
    }
}

fn owner_announces_and_withdraws(case: &Case, lab: &Lab) -> Result<()> {
    let director = &lab.directors[0];
    let mut monitor = lab.switch.monitor()?;
    let mut owner = OwnerConnection::open(director)?;
    owner.expect_ok(Some(1))?;
    monitor
        .expect_quiet(VIP.0, scaled(QUIET))
        .context("an owner took over the same set")?;

    let mut second = OwnerConnection::open(director)?;
    let pid = std::process::id().to_string();
    match second.announce(None)? {
        Reply::Error { message } if message.contains(&pid) => {}
        other => bail!("a second owner was answered with {other:?}"),
    }

    let mut subscriber = Subscriber::open(director)?;
    let (both, other) = (lab.all_next_hops(), lab.next_hops([2]));
    let (mut withdraws, mut announces) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        owner.idle(scaled(QUIET))?;
        let start = Instant::now();
        owner.expect_ok(None)?;
        withdraws.push(hops_at(&mut monitor, &other, start)?);
        subscriber.wait_for("nothing announced", |status| status.announced.is_empty())?;
        owner.idle(scaled(QUIET))?;
        let start = Instant::now();
        owner.expect_ok(Some(1))?;
        announces.push(hops_at(&mut monitor, &both, start)?);
        subscriber.wait_for("announced and acknowledged", |status| {
            status.announced.iter().any(|vip| vip.acknowledged)
        })?;
    }
    say(case, "withdraw to FIB", &withdraws);
    say(case, "announce to FIB", &announces);
    for took in withdraws.iter().chain(&announces) {
        ensure!(*took <= scaled(CHANGE), "a change took {took:?}");
    }

    // Two changes in a row: the second waits for the switch's MinLSArrival and is not lost.
    owner.idle(scaled(QUIET))?;
    owner.expect_ok(None)?;
    hops_at(&mut monitor, &other, Instant::now())?;
    let start = Instant::now();
    owner.expect_ok(Some(1))?;
    let took = hops_at(&mut monitor, &both, start)?;
    say(case, "announce at once after a withdraw, to FIB", took);
    let bound = scaled(Duration::from_millis(1100) + CHANGE);
    ensure!(took <= bound, "{took:?} is above {bound:?}");
    Ok(())
}

fn owner_that_goes_is_held(case: &Case, lab: &Lab) -> Result<()> {
    let director = &lab.directors[0];
    let (both, other) = (lab.all_next_hops(), lab.next_hops([2]));
    let mut owner = OwnerConnection::open(director)?;
    wait::until("the former owner to be gone", LIMIT, || {
        Ok(match owner.announce(Some(1))? {
            Reply::Ok => Probe::Ready(()),
            reply => Probe::Waiting(format!("{reply:?}")),
        })
    })?;
    lab.switch.wait_for_fib(VIP, &both, LIMIT)?;

    let mut monitor = lab.switch.monitor()?;
    drop(owner);
    let gone = Instant::now();
    let held = |status: &Status| matches!(status.owner, Owner::Held { .. });
    wait_for_status(director, "its owner's set is held", held)?;
    let took = hops_at(&mut monitor, &other, gone)?;
    say(case, "owner gone to withdrawn, hold of 3 s", took);
    let hold = scaled(HOLD);
    ensure!(
        (hold - hold / 10..=hold + scaled(CHANGE)).contains(&took),
        "withdrawn after {took:?} with a hold of {hold:?}"
    );
    let status = director.speaker_status()?;
    ensure!(status.owner == Owner::Expired, "{:?}", status.owner);
    let silent = |reason: &Reason| matches!(reason, Reason::AgentSilent { .. });
    ensure!(
        status
            .withheld
            .iter()
            .any(|w| w.vip == VIP && silent(&w.reason)),
        "{:?}",
        status.withheld
    );

    let mut owner = OwnerConnection::open(director)?;
    owner.expect_ok(Some(1))?;
    hops_at(&mut monitor, &both, Instant::now()).context("a new owner announces again")?;
    Ok(())
}

fn crash_and_restart(case: &Case, lab: &mut Lab) -> Result<()> {
    let (both, other) = (lab.all_next_hops(), lab.next_hops([2]));
    lab.switch.wait_for_fib(VIP, &both, LIMIT)?;
    ensure!(
        lab.spec.timers.bfd.is_some() && lab.spec.timers.dead > CRASH,
        "nothing would tell BFD from the dead interval"
    );
    let mut monitor = lab.switch.monitor()?;
    let speaker = lab.directors[0].take_speaker()?;
    let start = Instant::now();
    speaker.crash()?;
    let took = hops_at(&mut monitor, &other, start)?;
    say(case, "SIGKILL to FIB", took);
    ensure!(took <= scaled(CRASH), "{took:?}: that was not BFD");

    monitor
        .expect_quiet(VIP.0, scaled(Duration::from_millis(500)))
        .context("the dead director came back")?;
    let start = Instant::now();
    lab.directors[0].start_speaker()?;
    let took = hops_at(&mut monitor, &both, start)?;
    say(case, "start after SIGKILL to FIB", took);
    monitor
        .expect_quiet(VIP.0, scaled(FLAP_WATCH))
        .context("the restarted speaker flapped")?;
    let status = lab.directors[0].speaker_status()?;
    let late = |name: &str| status.counters.get(name).copied().unwrap_or_default();
    let late = [late("hello_late_max_us"), late("bfd_late_max_us")];
    say(case, "latest Hello and BFD packet in µs", late);
    let pss = lab.directors[0].speaker()?.pss()? / 1024;
    say(case, "PSS in KiB", pss);
    Ok(())
}

/// Loses the carrier, then the address, and has it back each time.
fn interface_goes_and_comes(case: &Case, lab: &Lab) -> Result<()> {
    let director = &lab.directors[0];
    let (both, other) = (lab.all_next_hops(), lab.next_hops([2]));
    let address = format!("address add {}/24 dev eth1", director.next_hop());
    let ways = [
        ("address", "address flush dev eth1", address.as_str()),
        ("link", "link set eth1 down", "link set eth1 up"),
    ];
    for (what, take, give) in ways {
        wait_for_status(director, "joined", joined)?;
        lab.switch.wait_for_fib(VIP, &both, LIMIT)?;
        let start = Instant::now();
        director.namespace().ip([take])?;
        lab.switch.wait_for_fib(VIP, &other, LIMIT)?;
        let gone = start.elapsed();
        wait_for_status(director, "alone", alone)?;
        let start = Instant::now();
        director.namespace().ip([give])?;
        lab.switch.wait_for_fib(VIP, &both, LIMIT)?;
        say(
            case,
            &format!("{what} lost and regained, to FIB"),
            [gone, start.elapsed()],
        );
    }
    Ok(())
}

/// The switch crashes and is back: the same speakers join it again.
fn switch_restarts(case: &Case, lab: &mut Lab) -> Result<()> {
    lab.switch.crash()?;
    lab.switch.forget_route(VIP)?;
    for director in &lab.directors {
        wait_for_status(director, "the switch is gone", alone)?;
    }
    let start = Instant::now();
    lab.switch.start()?;
    prioritize(lab)?;
    for director in &lab.directors {
        wait_for_status(director, "joined again", |status| {
            joined(status) && status.announced.iter().all(|vip| vip.acknowledged)
        })?;
    }
    lab.switch.wait_for_fib(VIP, &lab.all_next_hops(), LIMIT)?;
    say(case, "start of the switch to FIB", start.elapsed());
    Ok(())
}

fn planned_stop(case: &Case, lab: &mut Lab) -> Result<()> {
    let other = lab.next_hops([2]);
    let mut monitor = lab.switch.monitor()?;
    let socket = lab.directors[0].speaker_socket();
    let speaker = lab.directors[0].take_speaker()?;
    let start = Instant::now();
    let status = speaker.stop(LIMIT)?;
    let stopped = start.elapsed();
    let withdrawn = hops_at(&mut monitor, &other, start)?;
    say(case, "SIGTERM to FIB", withdrawn);
    say(case, "SIGTERM to exit", stopped);
    ensure!(status.success(), "the speaker ended with {status}");
    ensure!(
        withdrawn < stopped,
        "the speaker left before the switch had let go"
    );
    ensure!(withdrawn <= scaled(CHANGE), "withdrawn after {withdrawn:?}");
    ensure!(!socket.exists(), "{} is left", socket.display());

    let gone = lab.directors[0].router_id;
    wait::until("the switch to forget the neighbour", LIMIT, || {
        let neighbors = lab.switch.neighbors()?;
        let there = neighbors.iter().any(|n| n.router_id == gone && n.is_full());
        Ok(Probe::when(!there, (), || format!("{neighbors:?}")))
    })
}
