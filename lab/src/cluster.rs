//! A whole cluster in a lab: what is declared for it, and bringing all of it up.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use isopath_api::declare::{
    Announce, CheckKind, CheckSpec, Declaration, DirectorSpec, LvsSpec, RealServerSpec, Require,
    ServiceSpec, SwitchSpec, VipSpec,
};
use isopath_api::fault::parse_toml;
use isopath_api::ids::Protocol;

use crate::classic;
use crate::controller::CLUSTER;
use crate::director::{Director, Source};
use crate::plan;
use crate::real_server::CHECK_PATH;
use crate::topology::{Lab, Spec};
use crate::wait::scaled;

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

/// The cluster of `deploy/examples/ospf-cluster`, under the name that a lab's tokens are for. Its
/// addresses are those of a lab with four directors and three real servers.
///
/// # Errors
/// The example cannot be read, or is not valid.
pub fn example() -> Result<Declaration> {
    let path = classic::example("ospf-cluster/cluster.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut declared = parse_toml(&path.display().to_string(), &text, Declaration::validate)?;
    declared.cluster = Some(CLUSTER.parse().expect("the constant is a name"));
    for service in &mut declared.service {
        // As for a lab's own: an answer that is merely slow is no failure.
        service.check.timeout = scaled(service.check.timeout);
        service.check.interval = service.check.interval.max(service.check.timeout);
    }
    Ok(declared)
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
        self.start_declared(&declaration, progress)
    }

    /// The same with a declaration of somebody else's for this lab's machines.
    ///
    /// # Errors
    /// Something does not start, or the routes do not come in time.
    pub fn start_declared(
        &mut self,
        declaration: &Declaration,
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
        start_directors(&mut self.directors, &source)?;
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
}

/// Starts the daemons of all directors at the same time.
fn start_directors(directors: &mut [Director], source: &Source) -> Result<()> {
    std::thread::scope(|scope| {
        let start = |director: &mut Director| -> Result<()> {
            director.write_config(&director.config(source))?;
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
