//! A whole cluster in a lab: what is declared for it, and bringing all of it up.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use isopath_api::declare::{
    Announce, CheckKind, CheckSpec, Declaration, DirectorSpec, LvsSpec, RealServerSpec, Require,
    ServiceSpec, SwitchSpec, VipSpec,
};
use isopath_api::fault::parse_toml;
use isopath_api::ids::Protocol;
use isopath_api::view::{DirectorView, State};

use crate::classic;
use crate::controller::CLUSTER;
use crate::director::{Director, Source};
use crate::plan;
use crate::real_server::CHECK_PATH;
use crate::topology::{Lab, Spec};
use crate::wait::{scaled, slowness};

/// How long a cluster may take from the start of its daemons to its routes: on a broadcast
/// segment the wait for the designated router alone takes the dead interval.
const ROUTES: Duration = Duration::from_secs(30);

/// The cluster of a lab: one VIP with one HTTP service on all real servers, by direct routing,
/// in the profile that several directors can share.
pub fn declaration(spec: &Spec, quorum: u16) -> Declaration {
    let name = |n: u8| format!("d{n}").parse().expect("d and a number is a name");
    let director = |n| DirectorSpec {
        name: name(n),
        router_id: plan::router_id(n),
    };
    let real_server = |n| RealServerSpec::new(plan::real_server(n));
    Declaration {
        cluster: Some(CLUSTER.parse().expect("the constant is a name")),
        max_paths: spec.max_paths,
        min_directors: None,
        director: (1..=spec.directors).map(director).collect(),
        lvs: LvsSpec::default(),
        switch: vec![SwitchSpec {
            name: "sw".to_owned(),
            router_id: plan::SWITCH_ROUTER_ID,
        }],
        vip: vec![VipSpec {
            address: plan::VIP,
            announce: Announce::default(),
            director_cost: BTreeMap::new(),
            require: Require::All,
        }],
        service: vec![ServiceSpec {
            quorum,
            real_server: (1..=spec.real_servers).map(real_server).collect(),
            ..ServiceSpec::to(Protocol::Tcp, plan::VIP, 80, check())
        }],
    }
}

/// Makes the text of a director's file.
type DirectorFile<'a> = dyn Fn(&Director, &Source) -> Result<String> + Sync + 'a;

/// The example's declaration, under the name that a lab's tokens are for.
fn example() -> Result<Declaration> {
    let (name, text) = classic::read_example("ospf-cluster/cluster.toml")?;
    let mut declared = parse_toml(&name, &text, Declaration::validate)?;
    declared.cluster = Some(CLUSTER.parse().expect("the constant is a name"));
    for service in &mut declared.service {
        // As for a lab's own: an answer that is merely slow is no failure.
        service.check.timeout = scaled(service.check.timeout);
        service.check.interval = service.check.interval.max(service.check.timeout);
    }
    Ok(declared)
}

/// The example's file of d1 as this director's: its page says what is different in the others',
/// and the lab has paths, a token and, on a slow machine, patience of its own.
fn example_file(director: &Director, source: &Source) -> Result<String> {
    let Source::Controller {
        cluster,
        token_file,
    } = source
    else {
        bail!("a director of the example belongs to a controller");
    };
    let (name, mut text) = classic::read_example("ospf-cluster/d1.toml")?;
    let mut replace = |from: &str, to: String| -> Result<()> {
        ensure!(text.contains(from), "{name} does not have {from:?}");
        text = text.replace(from, &to);
        Ok(())
    };
    let directory = director.directory().display();
    replace("\"d1\"", format!("\"{}\"", director.name))?;
    replace("\"10.0.1.2\"", format!("\"{}\"", director.router_id))?;
    replace("/var/lib/isopath", format!("{directory}/state"))?;
    replace("/run/isopath", directory.to_string())?;
    replace("\"edge\"", format!("\"{cluster}\""))?;
    replace("/etc/isopath/agent.token", token_file.display().to_string())?;
    if slowness() > 1.0 {
        replace(
            "dead_interval = \"4s\"",
            "dead_interval = \"20s\"".to_owned(),
        )?;
        replace("\"50ms\"", "\"1s\"".to_owned())?;
        replace("agent_hold = \"10s\"", "agent_hold = \"50s\"".to_owned())?;
    }
    Ok(text)
}

fn check() -> CheckSpec {
    // A slow machine takes whole fractions of a second for one answer.
    let timeout = scaled(Duration::from_millis(500));
    CheckSpec {
        kind: CheckKind::Http,
        port: None,
        path: Some(CHECK_PATH.to_owned()),
        host: None,
        status: None,
        verify: false,
        interval: timeout.max(Duration::from_secs(1)),
        timeout,
        rise: 2,
        fall: 2,
    }
}

impl Lab {
    /// Starts everything: the switch, the real servers, the controller with the cluster's
    /// declaration, and the directors; returns when the switch's FIB has a next hop to every
    /// director, or as many as it takes. Each step is told to `progress`.
    ///
    /// # Errors
    /// Something does not start, or the routes do not come in time.
    pub fn start(&mut self, quorum: u16, progress: &mut dyn FnMut(&dyn Display)) -> Result<()> {
        let declaration = declaration(&self.spec, quorum);
        let file = |director: &Director, source: &Source| Ok(director.config(source));
        self.start_with(&declaration, &file, progress)
    }

    /// The same with the files of `deploy/examples/ospf-cluster`, whose addresses are those of a
    /// lab with four directors and three real servers.
    ///
    /// # Errors
    /// An example cannot be read or is not valid, something does not start, or the routes do not
    /// come in time.
    pub fn start_example(&mut self, progress: &mut dyn FnMut(&dyn Display)) -> Result<()> {
        self.start_with(&example()?, &example_file, progress)
    }

    fn start_with(
        &mut self,
        declaration: &Declaration,
        file: &DirectorFile<'_>,
        progress: &mut dyn FnMut(&dyn Display),
    ) -> Result<()> {
        progress(&format_args!(
            "starting {} on the switch",
            self.switch.kind()
        ));
        self.switch.start()?;
        progress(&format_args!(
            "starting {} real servers",
            self.real_servers.len()
        ));
        for server in &mut self.real_servers {
            server.start()?;
        }
        progress(&"starting the controller");
        self.controller
            .prepare()
            .context("preparing the controller")?;
        self.controller.start()?;
        self.controller.declare(declaration)?;
        let count = self.directors.len();
        progress(&format_args!(
            "starting speaker and agent of {count} directors"
        ));
        let source = self.source()?;
        start_directors(&mut self.directors, &|director| file(director, &source))?;
        progress(&"waiting for the routes");
        self.wait_for_full_width()?;
        progress(&"the switch has all routes");
        Ok(())
    }

    /// The part of a director's file that makes it a member of the lab's cluster.
    ///
    /// # Errors
    /// The controller was not prepared.
    pub fn source(&self) -> Result<Source> {
        let token_file = self.controller.access()?.agent_token_file.clone();
        Ok(Source::Controller {
            cluster: CLUSTER.to_owned(),
            token_file,
        })
    }

    /// Waits until the switch has a next hop to every director, or as many as it takes.
    ///
    /// # Errors
    /// It has not in time.
    pub fn wait_for_full_width(&self) -> Result<()> {
        if self.directors.len() <= usize::from(self.spec.max_paths) {
            return self
                .switch
                .wait_for_fib(plan::VIP, &self.all_next_hops(), ROUTES);
        }
        let width = usize::from(self.spec.max_paths);
        crate::wait::until(
            format_args!("{width} next hops to {}", plan::VIP),
            ROUTES,
            || {
                let fib = self.switch.fib(plan::VIP)?;
                Ok(crate::wait::Probe::when(fib.len() == width, (), || {
                    format!("{fib:?}")
                }))
            },
        )
    }

    /// Waits until the controller sees every director Up and announcing: it knows of what the
    /// switch has from the reports that come after.
    ///
    /// # Errors
    /// It does not in time, or does not answer.
    pub fn wait_for_all_up(&self) -> Result<()> {
        crate::wait::until("all directors to be seen announcing", ROUTES, || {
            let directors = self.controller.view()?.directors;
            let announces = |director: &DirectorView| {
                let mut vips = director.vips.iter();
                vips.len() > 0 && vips.all(|vip| vip.in_lsdb)
            };
            let up = directors
                .iter()
                .all(|director| director.state == State::Up && announces(director));
            let states = || {
                directors
                    .iter()
                    .map(|d| format!("{} {}: {} {:?}; ", d.name, d.state, d.why, d.vips))
            };
            Ok(crate::wait::Probe::when(up, (), || states().collect()))
        })
    }
}

/// Starts the daemons of all directors at the same time, each with its file.
fn start_directors(
    directors: &mut [Director],
    file: &(dyn Fn(&Director) -> Result<String> + Sync),
) -> Result<()> {
    std::thread::scope(|scope| {
        let start = |director: &mut Director| -> Result<()> {
            director.write_config(&file(director)?)?;
            director.start_speaker()?;
            director.start_agent()
        };
        let threads: Vec<_> = directors
            .iter_mut()
            .map(|director| scope.spawn(move || start(director)))
            .collect();
        for thread in threads {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(())
    })
}
