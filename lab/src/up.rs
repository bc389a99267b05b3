//! `isopath-lab up`: a cluster to look at and play with.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use isopath_api::config::Dataplane;

use crate::fetch::{Load, Tally};
use crate::forward;
use crate::plan;
use crate::registry;
use crate::report::{self, say};
use crate::topology::{Lab, Spec};
use crate::vm::{self, Forward, VmSpec};

/// Requests that the client sends once the cluster is up.
const REQUESTS: usize = 300;

/// What `isopath-lab up` was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The lab.
    pub spec: Spec,
    /// Where the dashboard shall answer on the machine that the lab runs on.
    pub listen: SocketAddr,
    /// What people shall type to get there.
    pub url: String,
    /// Never to use a virtual machine.
    pub direct: bool,
    /// This is the inside of a virtual machine: people reach the dashboard and nothing else.
    pub guest: bool,
}

/// What became of the requests, by who carried them.
#[derive(Debug, Clone)]
pub struct Spread {
    /// By real server, from the answers.
    pub tally: Tally,
    /// Connections scheduled by each director meanwhile, from its kernel's counters.
    pub directors: Vec<(String, u64)>,
}

/// Brings a cluster up, tells about it, and keeps it until SIGINT or SIGTERM ends the process. A
/// cluster with IPVS goes into a virtual machine where this kernel has none.
///
/// # Errors
/// Something does not start; then everything is removed again.
pub fn up(options: Options) -> Result<u8> {
    let wants_ipvs = options.spec.dataplane == Dataplane::Ipvs;
    if wants_ipvs && !options.direct && !vm::kernel_has_ipvs() {
        say("this kernel has no IPVS: the lab runs in a small virtual machine");
        return up_in_machine(&options);
    }
    up_here(options)
}

/// Runs this same program in a virtual machine and leads the dashboard's address into it.
fn up_in_machine(options: &Options) -> Result<u8> {
    let own = std::env::current_exe().context("finding the path of this program")?;
    let Spec {
        name,
        switch,
        directors,
        real_servers,
        ..
    } = &options.spec;
    let guest_port = plan::CONTROLLER.port();
    let command = [
        own.to_str().context("this program's path is not UTF-8")?,
        "up",
        "--direct",
        &format!("--name={name}"),
        &format!("--switch={switch}"),
        &format!("--directors={directors}"),
        &format!("--real-servers={real_servers}"),
        &format!("--listen={}:{guest_port}", vm::GUEST_ADDRESS),
        &format!("--guest-of={}", options.url),
    ];
    let spec = VmSpec {
        command: command.map(str::to_owned).to_vec(),
        forward: Some(Forward {
            host: options.listen,
            guest_port,
        }),
        ..VmSpec::default()
    };
    vm::run(&spec, &mut |step| say(step))
}

fn up_here(options: Options) -> Result<u8> {
    let started = Instant::now();
    let mut progress = |step: &dyn Display| {
        say(format_args!(
            "[{:5.1} s] {step}",
            started.elapsed().as_secs_f64()
        ));
    };
    let Options {
        spec,
        listen,
        url,
        guest,
        ..
    } = options;
    progress(&format_args!(
        "wiring {} directors, {} real servers, a switch, a client and a controller",
        spec.directors, spec.real_servers
    ));
    let listener = forward::listen(listen)?;
    let mut lab = Lab::new(spec)?;
    lab.start(1, &mut progress)?;
    forward::forward(
        listener,
        lab.controller.namespace(),
        plan::CONTROLLER.into(),
    );
    let spread = match lab.spec.dataplane {
        Dataplane::None => None,
        Dataplane::Ipvs => {
            progress(&format_args!("sending {REQUESTS} requests from the client"));
            Some(measure_spread(&lab, REQUESTS)?)
        }
    };
    report::cluster(&lab, &url, spread.as_ref())?;
    if !guest {
        report::inside(&lab);
    }
    say("Ctrl-C ends the lab and removes all of it.");
    watch(&mut lab)
}

/// Sends requests from the client to the VIP and says who carried them.
///
/// # Errors
/// A director's kernel has no IPVS.
pub fn measure_spread(lab: &Lab, requests: usize) -> Result<Spread> {
    let counters = || {
        lab.directors
            .iter()
            .map(|d| d.scheduled())
            .collect::<Result<Vec<_>>>()
    };
    let before = counters()?;
    let load = Load::new((plan::VIP.0, 80));
    let tally = lab.client.enter(|| load.send(requests))?;
    let after = counters()?;
    let directors = lab.directors.iter().zip(before.into_iter().zip(after));
    let directors = directors
        .map(|(director, (before, after))| {
            (director.name.to_string(), after.saturating_sub(before))
        })
        .collect();
    Ok(Spread { tally, directors })
}

/// Says which program has ended, once each; a signal ends the process from elsewhere.
fn watch(lab: &mut Lab) -> Result<u8> {
    registry::end_with_success();
    let mut told = Vec::new();
    loop {
        for (pid, what) in lab.ended()? {
            if !told.contains(&pid) {
                told.push(pid);
                say(what);
            }
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}
