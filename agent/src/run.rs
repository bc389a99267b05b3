//! The agent's life: what is started in which order, and what is left when it ends.
//!
//! A restart of the agent moves nothing. Where the speaker runs by itself, the agent ends
//! without a word: the speaker keeps the announced set for `agent_hold`, and the next agent
//! finds it there. IPVS and the VIPs stay in the kernel as they are in every case, so what
//! still arrives is still forwarded. Only a speaker that the agent itself started ends with
//! it, and then everything is withdrawn first; an agent that is killed leaves even that one.

mod source;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use isopath_api::config::{DirectorConfig, DirectorFile};
use isopath_api::fault::FileFaults;
use isopath_api::sections::Sections;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::control::{self, About, Channels, State};
use crate::controller_link::LinkHealth;
use crate::dataplane::Dataplane;
use crate::desired::Intent;
use crate::health::{CheckKey, Checks};
use crate::kernel::{self, KernelReport, NumberedWanted};
use crate::metrics::MetricsServer;
use crate::overrides::{ByVip, OverrideRequest, Overrides};
use crate::readiness::{Gate, GateReport, Place};
use crate::socket::{Socket, SocketError, Sources};
use crate::speaker_link::{self, Publication, SpeakerEvent, SpeakerLink, SpeakerProcess};
use crate::store::{self, StoreError};

pub(crate) use source::last_good;
use source::{ControllerParts, Reload, ignore_hangups};

/// Events of the speaker that wait for the control loop, which takes each at once.
const SPEAKER_EVENTS: usize = 16;

/// Questions that wait for the control loop: one of each of the socket's connections, the
/// scrapers and the link to the controller.
const QUESTIONS: usize = 64;

/// The longest time between two signs of life to the speaker.
const MAX_BEAT: Duration = Duration::from_secs(1);

/// How the agent is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The director's file.
    pub config: PathBuf,
    /// Whether the agent starts a speaker where none answers.
    pub start_speaker: bool,
    /// The sections of the director's file as it was read; without them it is parsed whole each
    /// time that it is reread.
    pub sections: Option<Sections>,
    /// Whether it is asked in ARP who else has a VIP, on every Ethernet of this host.
    pub ask_in_arp: bool,
}

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is malformed; each fault has its line and column.
    #[error(transparent)]
    Faults(#[from] FileFaults),
}

/// Why the agent cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The state directory.
    #[error("cannot use the state directory")]
    Store(#[from] StoreError),
    /// The agent's socket.
    #[error("cannot serve the agent's socket")]
    Socket(#[from] SocketError),
    /// The address of the metrics.
    #[error("cannot serve metrics on {address}")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Signals.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
}

/// Reads a director's file.
///
/// # Errors
/// It cannot be read or has faults.
pub fn read_file(path: &Path) -> Result<DirectorFile, FileError> {
    read_sections(path).map(|(file, _)| file)
}

/// Reads a director's file, and what tells which of its services a later text has changed.
///
/// # Errors
/// It cannot be read or has faults.
pub fn read_sections(path: &Path) -> Result<(DirectorFile, Option<Sections>), FileError> {
    let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    let file = DirectorFile::parse(&path.display().to_string(), &text)?;
    let sections = Sections::of(&text, &file);
    Ok((file, sections))
}

/// What a file says, in one line.
pub fn summary(file: &DirectorFile) -> String {
    let count = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    };
    let director = format!(
        "director {} ({}), {}",
        file.director.name,
        file.director.router_id,
        count(file.ospf.interface.len(), "interface"),
    );
    match &file.controller {
        Some(controller) => format!(
            "{director}, cluster {} of {}",
            controller.cluster, controller.url
        ),
        None => {
            let servers = file.service.iter().map(|service| service.real_server.len());
            format!(
                "{director}, {}, {}, {}",
                count(file.vip.len(), "VIP"),
                count(file.service.len(), "service"),
                count(servers.sum(), "real server"),
            )
        }
    }
}

/// Runs the agent until it is told to end.
///
/// # Errors
/// It cannot start.
pub async fn run(file: DirectorFile, options: Options) -> Result<(), StartError> {
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    run_until(file, options, stop).await
}

/// Runs the agent until `stop`.
///
/// # Errors
/// It cannot start.
pub async fn run_until(
    file: DirectorFile,
    options: Options,
    stop: CancellationToken,
) -> Result<(), StartError> {
    let director = &file.director;
    // First of all, since nothing may be touched where another agent runs.
    let socket = Socket::listen(&director.socket).await?;
    store::make_directory(&director.state_dir)?;
    raise_descriptor_limit();
    let instance = store::instance(&director.state_dir)?;
    let overrides = Overrides::load(director.state_dir.join("overrides.json"))?;

    // What runs beside the control loop; all of it ends when this is dropped.
    let mut tasks = JoinSet::new();
    let (asks, snapshots) = mpsc::channel(QUESTIONS);
    let (intents_sender, intents) = watch::channel(None);
    let urgent = Arc::new(Notify::new());
    let overrides = start_overrides(overrides, &intents, &mut tasks);
    tasks.spawn(socket.serve(Sources {
        snapshots: asks.clone(),
        overrides: overrides.requests,
        speaker_socket: director.speaker_socket.clone(),
    }));
    if let Some(address) = director.metrics {
        let server = MetricsServer::listen(address, asks.clone());
        let failed = |source| StartError::Metrics { address, source };
        tasks.spawn(server.await.map_err(failed)?.serve());
    }
    let place = Place {
        vip_interface: director.vip_interface.clone(),
        uplinks: file
            .ospf
            .interface
            .iter()
            .map(|it| it.name.clone())
            .collect(),
        dataplane: director.dataplane,
    };
    let gate = Gate::new(place, options.ask_in_arp);
    let kernel = start_kernel(director, gate, &mut tasks).await?;
    let speaker = start_speaker_link(director, &options);
    let source = ControllerParts {
        director,
        area_type: file.ospf.area_type,
        instance: &instance,
        snapshots: asks,
        urgent: &urgent,
        intents: intents_sender,
    };
    let controller = start_source(source, &file, &options, &mut tasks)?;

    let (checks, outcomes) = Checks::new();
    let about = About {
        director: director.name.clone(),
        router_id: director.router_id,
        instance,
        run: Uuid::new_v4().to_string(),
        dataplane: director.dataplane,
    };
    tracing::info!(summary = summary(&file), run = about.run, "started");
    let in_force = overrides.in_force.borrow().clone();
    let state = State::new(about, checks, in_force, kernel.adopted);
    let channels = Channels {
        intents,
        outcomes,
        speaker: speaker.events,
        kernel: kernel.reports,
        gate: kernel.gate,
        snapshots,
        overrides: overrides.in_force,
        controller,
        published: speaker.published,
        wanted: kernel.wanted,
        urgent,
        beat: MAX_BEAT.min(director.agent_hold / 4),
        stop,
    };
    control::run(state, channels).await;
    speaker.stop.cancel();
    if let Err(error) = speaker.task.await {
        tracing::error!(%error, "the speaker's link did not end well");
    }
    tasks.shutdown().await;
    tracing::info!("ended");
    Ok(())
}

/// The ends of the overrides' task.
struct OverridesEnds {
    requests: mpsc::Sender<OverrideRequest>,
    in_force: watch::Receiver<ByVip>,
}

fn start_overrides(
    overrides: Overrides,
    intents: &watch::Receiver<Option<Arc<Intent>>>,
    tasks: &mut JoinSet<()>,
) -> OverridesEnds {
    let (requests, receiver) = mpsc::channel(QUESTIONS);
    let (sender, in_force) = watch::channel(overrides.by_vip());
    tasks.spawn(overrides.run(receiver, intents.clone(), sender));
    OverridesEnds { requests, in_force }
}

/// The ends of the kernel's task and of the gate's, which are told the same.
struct KernelEnds {
    wanted: watch::Sender<Option<Arc<NumberedWanted>>>,
    reports: watch::Receiver<Arc<KernelReport>>,
    gate: watch::Receiver<Arc<GateReport>>,
    adopted: BTreeMap<CheckKey, u32>,
}

async fn start_kernel(
    director: &DirectorConfig,
    gate: Gate,
    tasks: &mut JoinSet<()>,
) -> Result<KernelEnds, StartError> {
    let interface = director.vip_interface.clone();
    let mut dataplane = Dataplane::new(director.dataplane, interface, &director.state_dir)?;
    let adopted = kernel::adopted_weights(&mut dataplane).await;
    let (wanted, wanted_receiver) = watch::channel(None);
    let (gate_sender, gate_reports) = watch::channel(Arc::new(GateReport::default()));
    tasks.spawn(gate.run(wanted_receiver.clone(), gate_sender));
    let (sender, reports) = watch::channel(Arc::new(KernelReport::default()));
    tasks.spawn(kernel::run(dataplane, wanted_receiver, sender));
    Ok(KernelEnds {
        wanted,
        reports,
        gate: gate_reports,
        adopted,
    })
}

/// The ends of the speaker's link, which outlives the control loop to stop the agent's own
/// speaker after it.
struct SpeakerEnds {
    published: watch::Sender<Option<Publication>>,
    events: mpsc::Receiver<SpeakerEvent>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn start_speaker_link(director: &DirectorConfig, options: &Options) -> SpeakerEnds {
    let (published, publications) = watch::channel(None);
    let (sender, events) = mpsc::channel(SPEAKER_EVENTS);
    let stop = CancellationToken::new();
    let link = SpeakerLink {
        path: director.speaker_socket.clone(),
        hold: director.agent_hold,
        publications,
        events: sender,
        process: speaker_process(options, &director.state_dir),
        stop: stop.clone(),
    };
    SpeakerEnds {
        published,
        events,
        stop,
        task: tokio::spawn(link.run()),
    }
}

fn speaker_process(options: &Options, state_dir: &Path) -> SpeakerProcess {
    let now = Instant::now();
    if options.start_speaker {
        SpeakerProcess::new(speaker_link::program(), &options.config, state_dir, now)
    } else {
        SpeakerProcess::foreign(now)
    }
}

/// Starts what says the desired state; answers how the link to the controller is, where that is
/// it.
fn start_source(
    source: ControllerParts<'_>,
    file: &DirectorFile,
    options: &Options,
    tasks: &mut JoinSet<()>,
) -> Result<Option<watch::Receiver<LinkHealth>>, StartError> {
    if let Some(controller) = &file.controller {
        tasks.spawn(ignore_hangups()?);
        return Ok(Some(source.start(controller, tasks)));
    }
    let intents = source.intents;
    intents.send_replace(Some(Arc::new(Intent::from_file(file))));
    let reload = Reload::new(
        &options.config,
        file.clone(),
        options.sections.clone(),
        intents,
    )?;
    tasks.spawn(reload.run());
    Ok(None)
}

/// Ends the agent on SIGTERM and SIGINT.
fn stop_on_signals(stop: &CancellationToken) -> Result<(), StartError> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(StartError::Signals)?;
        let stop = stop.clone();
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                stop.cancel();
            }
        });
    }
    Ok(())
}

/// Each check that is under way takes a descriptor: takes as many as the system grants.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

#[cfg(test)]
mod tests;
