//! Long-lived connections while one director leaves and comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use isopath_api::config::Dataplane;
use isopath_api::declare::{
    CheckKind, CheckSpec, Declaration, LvsSpec, Profile, Scheduler, ServiceSpec,
};
use isopath_api::ids::Protocol;
use isopath_api::operation::DrainRequest;

use crate::cluster::declaration;
use crate::controller::Controller;
use crate::plan;
use crate::report::say;
use crate::topology::{Lab, Spec};
use crate::wait::{self, Probe};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Lines;
use super::echo::Echo;
use super::figures::{Figure, Series, Who};
use super::flows::Flows;
use super::vrrp::Classic;

/// How many connections there are.
const CONNECTIONS: usize = 200;

/// Where the real servers echo.
pub(super) const PORT: u16 = 7;

/// How long the switch may take to see a change.
const SOON: Duration = Duration::from_secs(20);

/// How a director leaves, and comes back from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Departure {
    /// As an operator takes it out of service: a drain, or the end of keepalived.
    Drained,
    /// All daemons by SIGKILL; the kernel goes on.
    Killed,
    /// All interfaces down.
    PoweredOff,
}

impl Departure {
    const ALL: [Self; 3] = [Self::Drained, Self::Killed, Self::PoweredOff];

    fn figure(self) -> Figure {
        match self {
            Self::Drained => Figure::Drained,
            Self::Killed => Figure::Killed,
            Self::PoweredOff => Figure::PoweredOff,
        }
    }
}

/// Directors that carry connections. Each method returns when the way of the packets is as it
/// then stays.
pub(super) trait Directors: Send {
    /// How many can leave.
    fn count(&self) -> usize;
    fn leave(&mut self, index: usize, how: Departure) -> Result<()>;
    fn come_back(&mut self, index: usize, from: Departure) -> Result<()>;
}

/// Our directors in both profiles, one after the other on the same cluster, and then keepalived.
pub(super) fn connections(name: &str, repetitions: usize, lines: &mut Lines) {
    lines.measure("connections through our directors", |lines| {
        ours(name, repetitions, lines)
    });
    lines.measure("connections through keepalived's directors", |lines| {
        raise_descriptor_limit()?;
        let classic = Classic::start(name)?;
        let _echo = Echo::start(&classic.lab.real_servers, PORT)?;
        let mut run = Run::new(&classic.lab, Who::Keepalived, repetitions)?;
        run.repeat(classic, lines)
    });
}

fn ours(name: &str, repetitions: usize, lines: &mut Lines) -> Result<()> {
    raise_descriptor_limit()?;
    let spec = Spec {
        dataplane: Dataplane::Ipvs,
        ..Spec::new(format!("{name}-ecmp"))
    };
    Lab::with(spec, |lab| {
        lab.start(1, &mut |step| say(step))?;
        let _echo = Echo::start(&lab.real_servers, PORT)?;
        for (who, profile, scheduler) in [
            (Who::Isopath, Profile::Stateless, Scheduler::Mh),
            (Who::IsopathStateful, Profile::Stateful, Scheduler::Rr),
        ] {
            let declared = echo_declaration(&lab.spec, profile, scheduler);
            lab.controller.declare(&declared)?;
            wait_for_kernels(lab, profile, scheduler)?;
            wait_for_announcers(lab)?;
            let mut run = Run::new(lab, who, repetitions)?;
            lines.measure(who.name(), |lines| run.repeat(Cluster { lab }, lines));
        }
        Ok(())
    })
}

/// Both ends of each connection are in this process, and those of broken ones stay for a while.
fn raise_descriptor_limit() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).context("raising the limit of open files")
}

/// The lab's cluster with the one service that echoes.
fn echo_declaration(spec: &Spec, profile: Profile, scheduler: Scheduler) -> Declaration {
    let check = CheckSpec {
        kind: CheckKind::Tcp,
        port: None,
        path: None,
        host: None,
        status: None,
        verify: false,
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(2),
        rise: 1,
        fall: 3,
    };
    let mut declared = declaration(spec, 1);
    for service in &mut declared.service {
        *service = ServiceSpec {
            scheduler,
            real_server: service.real_server.clone(),
            ..ServiceSpec::to(Protocol::Tcp, plan::VIP, PORT, check.clone())
        };
    }
    declared.lvs = LvsSpec {
        profile: Some(profile),
        ..LvsSpec::default()
    };
    declared
}

/// Waits until every director's kernel has the service as declared, with all real servers in
/// use and the profile's `sloppy_tcp`: asked of the kernels, not of the agents.
fn wait_for_kernels(lab: &Lab, profile: Profile, scheduler: Scheduler) -> Result<()> {
    let sloppy = match profile {
        Profile::Stateless => "1",
        Profile::Stateful => "0",
    };
    let head = format!("TCP  {} {scheduler} ", hexadecimal(plan::VIP.0, PORT));
    for director in &lab.directors {
        let what = format!("{scheduler} in the kernel of {}", director.name);
        wait::until(what, SOON, || {
            let look = || -> Result<(String, String)> {
                let table = std::fs::read_to_string("/proc/thread-self/net/ip_vs")?;
                let sloppy = std::fs::read_to_string("/proc/sys/net/ipv4/vs/sloppy_tcp")?;
                Ok((table, sloppy))
            };
            let (table, found) = director.namespace().enter(look)??;
            let mut lines = table.lines();
            let has = lines.by_ref().any(|line| line.starts_with(&head));
            let servers = lines.take_while(|line| line.starts_with("  -> "));
            let in_use = servers.filter(|line| line.split_whitespace().nth(3) == Some("1"));
            let all = has && in_use.count() == lab.real_servers.len() && found.trim() == sloppy;
            Ok(Probe::when(all, (), || {
                format!("sloppy_tcp {}\n{table}", found.trim())
            }))
        })?;
    }
    Ok(())
}

/// Waits until the controller knows that all directors announce, and the switch has them all.
fn wait_for_announcers(lab: &Lab) -> Result<()> {
    wait::until("all directors to announce", SOON, || {
        let view = lab.controller.view()?;
        let announcers = view.vips.first().map_or(0, |vip| vip.real.len());
        let all = announcers == lab.directors.len();
        Ok(Probe::when(all, (), || view.verdict))
    })?;
    lab.wait_for_full_width()
}

/// An address as `/proc/net/ip_vs` has it.
fn hexadecimal(address: std::net::Ipv4Addr, port: u16) -> String {
    format!("{:08X}:{port:04X}", address.to_bits())
}

/// Four directors of ours behind the switch.
struct Cluster<'a> {
    lab: &'a mut Lab,
}

impl Cluster<'_> {
    fn wait_without(&self, index: usize) -> Result<()> {
        let gone = self.lab.directors[index].next_hop();
        let mut hops: BTreeSet<_> = self.lab.all_next_hops();
        hops.remove(&gone);
        self.lab.switch.wait_for_fib(plan::VIP, &hops, SOON)
    }
}

impl Directors for Cluster<'_> {
    fn count(&self) -> usize {
        self.lab.directors.len()
    }

    fn leave(&mut self, index: usize, how: Departure) -> Result<()> {
        let director = &mut self.lab.directors[index];
        match how {
            Departure::Drained => {
                let name = director.name.as_str();
                drain(&self.lab.controller, name)?;
            }
            Departure::Killed => {
                let (agent, speaker) = (director.take_agent()?, director.take_speaker()?);
                agent.crash()?;
                speaker.crash()?;
            }
            Departure::PoweredOff => director
                .namespace()
                .ip(INTERFACES.map(|name| format!("link set {name} down")))?,
        }
        self.wait_without(index)
    }

    fn come_back(&mut self, index: usize, from: Departure) -> Result<()> {
        let director = &mut self.lab.directors[index];
        match from {
            Departure::Drained => {
                let answer = self.lab.controller.undrain(director.name.as_str())?;
                ensure!(answer.status == 202, "the undrain was refused: {answer:?}");
            }
            Departure::Killed => {
                director.start_speaker()?;
                director.start_agent()?;
            }
            Departure::PoweredOff => power_on(director.namespace(), director.uplink.switch)?,
        }
        self.lab.wait_for_full_width()
    }
}

/// Drains a director as soon as the controller has heard from enough others.
fn drain(controller: &Controller, director: &str) -> Result<()> {
    let request = DrainRequest {
        reason: "benchmark".to_owned(),
        ..DrainRequest::default()
    };
    wait::until(format_args!("the drain of {director}"), SOON, || {
        let answer = controller.drain(director, &request)?;
        ensure!([202, 409].contains(&answer.status), "{answer:?}");
        Ok(Probe::when(answer.status == 202, (), || answer.body))
    })
}

pub(super) const INTERFACES: [&str; 3] = ["eth1", "lan", "mgmt"];

/// Sets a director's interfaces up again, with the route that went with one of them.
pub(super) fn power_on(
    namespace: &crate::netns::Namespace,
    gateway: std::net::Ipv4Addr,
) -> Result<()> {
    let up = INTERFACES.map(|name| format!("link set {name} up"));
    let route = format!("route replace default via {gateway}");
    namespace.ip(up.into_iter().chain([route]))
}

/// The connections of one kind of directors, and what became of them.
struct Run {
    flows: Flows,
    series: Vec<Series>,
    repetitions: usize,
}

impl Run {
    fn new(lab: &Lab, who: Who, repetitions: usize) -> Result<Self> {
        let server = SocketAddrV4::new(plan::VIP.0, PORT);
        let series = [
            (Figure::Drained, 1),
            (Figure::Killed, 1),
            (Figure::PoweredOff, 1),
            (Figure::Back, Departure::ALL.len()),
        ];
        Ok(Self {
            flows: Flows::new(&lab.client, server, CONNECTIONS)?,
            series: series
                .map(|(figure, each)| Series::new(figure, who, repetitions * each))
                .into(),
            repetitions,
        })
    }

    /// All departures and returns, each repetition with another director.
    fn repeat(&mut self, mut directors: impl Directors, lines: &mut Lines) -> Result<()> {
        let mut done = Ok(());
        for repetition in 0..self.repetitions {
            let index = repetition % directors.count();
            done = self.one(&mut directors, index).with_context(|| {
                let number = repetition + 1;
                format!("repetition {number}, director {}", index + 1)
            });
            // What did not come back would be missing in every repetition that follows.
            if done.is_err() {
                break;
            }
        }
        lines.add(std::mem::take(&mut self.series));
        done
    }

    fn one(&mut self, directors: &mut dyn Directors, index: usize) -> Result<()> {
        let mut told = Vec::new();
        let started = Instant::now();
        let before = self.flows.echoed();
        for how in Departure::ALL {
            let leave = || directors.leave(index, how);
            told.push(
                self.observe(how.figure(), leave)
                    .with_context(|| format!("{how:?}"))?,
            );
            let come_back = || directors.come_back(index, how);
            let back = self.observe(Figure::Back, come_back);
            told.push(back.with_context(|| format!("back from {how:?}"))?);
        }
        let (echoed, took) = (self.flows.echoed() - before, started.elapsed());
        let who = self.series.first().map_or("", |series| series.who.name());
        say(format_args!(
            "{who}: d{}: {}; {echoed} bytes echoed in {took:.1?}",
            index + 1,
            told.join(", ")
        ));
        Ok(())
    }

    /// What breaks while something happens and until every connection has shown that it lives.
    fn observe(
        &mut self,
        figure: Figure,
        happen: impl FnOnce() -> Result<()> + Send,
    ) -> Result<String> {
        self.flows.fill().context("opening connections")?;
        let started = Instant::now();
        self.flows.during(happen)?;
        let converged = started.elapsed();
        let broken: BTreeMap<&str, usize> = self.flows.settle()?;
        let count: usize = broken.values().sum();
        let settled = started.elapsed() - converged;
        for series in &mut self.series {
            if series.figure == figure {
                series.values.push(count as f64);
                series.notes.push(format!("{broken:?}"));
            }
        }
        Ok(format!("{count} ({converged:.1?} + {settled:.1?})"))
    }
}
