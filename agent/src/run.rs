//! The agent's life: what is started in which order, and what is left when it ends.
//!
//! A restart of the agent moves nothing. Where the speaker runs by itself, the agent ends
//! without a word: the speaker keeps the announced set for `agent_hold`, and the next agent
//! finds it there. IPVS and the VIPs stay in the kernel as they are in every case, so what
//! still arrives is still forwarded. Only a speaker that the agent itself started ends with
//! it, and then everything is withdrawn first; an agent that is killed leaves even that one.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use isopath_api::config::{ControllerConfig, DirectorFile};
use isopath_api::desired::Desired;
use isopath_api::fault::FileFaults;
use jiff::Timestamp;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::causes;
use crate::control::{self, About, Channels, State};
use crate::controller_link::{ControllerLink, LinkHealth, SnapshotRequest};
use crate::dataplane::Dataplane;
use crate::desired::{Admission, Identity, Intent, admit};
use crate::health::Checks;
use crate::kernel::{self, KernelReport};
use crate::metrics::MetricsServer;
use crate::overrides::Overrides;
use crate::socket::{Socket, SocketError, Sources};
use crate::speaker_link::{self, SpeakerLink, SpeakerProcess};
use crate::store::{self, StoreError};

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
    let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(DirectorFile::parse(&path.display().to_string(), &text)?)
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

    let (snapshots, snapshots_receiver) = mpsc::channel(QUESTIONS);
    let (override_requests, override_receiver) = mpsc::channel(QUESTIONS);
    let (in_force, overrides_receiver) = watch::channel(overrides.by_vip());
    let (intents, intents_receiver) = watch::channel(None);
    let (published, publications) = watch::channel(None);
    let (wanted, wanted_receiver) = watch::channel(None);
    let (reports, kernel) = watch::channel(Arc::new(KernelReport::default()));
    let (speaker_events, speaker) = mpsc::channel(SPEAKER_EVENTS);
    let urgent = Arc::new(Notify::new());

    // What runs beside the control loop; all of it ends when this is dropped.
    let mut tasks = JoinSet::new();
    tasks.spawn(socket.serve(Sources {
        snapshots: snapshots.clone(),
        overrides: override_requests,
        speaker_socket: director.speaker_socket.clone(),
    }));
    tasks.spawn(overrides.run(override_receiver, intents_receiver.clone(), in_force));
    if let Some(address) = director.metrics {
        let server = MetricsServer::listen(address, snapshots.clone())
            .await
            .map_err(|source| StartError::Metrics { address, source })?;
        tasks.spawn(server.serve());
    }
    let interface = director.vip_interface.clone();
    let mut dataplane = Dataplane::new(director.dataplane, interface, &director.state_dir)?;
    let adopted = kernel::adopted_weights(&mut dataplane).await;
    tasks.spawn(kernel::run(dataplane, wanted_receiver, reports));
    let link_stop = CancellationToken::new();
    let link = SpeakerLink {
        path: director.speaker_socket.clone(),
        hold: director.agent_hold,
        publications,
        events: speaker_events,
        process: speaker_process(&options, &director.state_dir),
        stop: link_stop.clone(),
    };
    let link = tokio::spawn(link.run());
    let controller = match &file.controller {
        Some(controller) => {
            let parts = ControllerParts {
                file: &file,
                instance: &instance,
                snapshots,
                urgent: &urgent,
                intents,
            };
            tasks.spawn(ignore_hangups()?);
            Some(parts.start(controller, &mut tasks))
        }
        None => {
            intents.send_replace(Some(Arc::new(Intent::from_file(&file))));
            let reload = Reload::new(&options.config, file.clone(), intents)?;
            tasks.spawn(reload.run());
            None
        }
    };

    let (checks, outcomes) = Checks::new();
    let about = About {
        director: director.name.clone(),
        router_id: director.router_id,
        instance,
        run: Uuid::new_v4().to_string(),
        dataplane: director.dataplane,
    };
    tracing::info!(summary = summary(&file), run = about.run, "started");
    let state = State::new(about, checks, overrides_receiver.borrow().clone(), adopted);
    let channels = Channels {
        intents: intents_receiver,
        outcomes,
        speaker,
        kernel,
        snapshots: snapshots_receiver,
        overrides: overrides_receiver,
        controller,
        published,
        wanted,
        urgent: Arc::clone(&urgent),
        beat: MAX_BEAT.min(director.agent_hold / 4),
        stop,
    };
    control::run(state, channels).await;
    link_stop.cancel();
    if let Err(error) = link.await {
        tracing::error!(%error, "the speaker's link did not end well");
    }
    tasks.shutdown().await;
    tracing::info!("ended");
    Ok(())
}

fn speaker_process(options: &Options, state_dir: &Path) -> SpeakerProcess {
    let now = Instant::now();
    if options.start_speaker {
        SpeakerProcess::new(speaker_link::program(), &options.config, state_dir, now)
    } else {
        SpeakerProcess::foreign(now)
    }
}

/// The parts of the link to the controller.
struct ControllerParts<'a> {
    file: &'a DirectorFile,
    instance: &'a str,
    snapshots: mpsc::Sender<SnapshotRequest>,
    urgent: &'a Arc<Notify>,
    intents: watch::Sender<Option<Arc<Intent>>>,
}

impl ControllerParts<'_> {
    /// Starts the link with the last good desired state from the disk in force.
    fn start(
        self,
        config: &ControllerConfig,
        tasks: &mut JoinSet<()>,
    ) -> watch::Receiver<LinkHealth> {
        let director = &self.file.director;
        let identity = Identity {
            cluster: config.cluster.clone(),
            director: director.name.clone(),
            router_id: director.router_id,
        };
        let desired_file = director.state_dir.join("desired.json");
        let in_force = last_good(&desired_file, &identity);
        if let Some(desired) = &in_force {
            let intent = Intent::from(desired.clone());
            self.intents.send_replace(Some(Arc::new(intent)));
        }
        let (health, health_receiver) =
            watch::channel(LinkHealth::new(&config.url, Timestamp::now()));
        let link = ControllerLink {
            config: config.clone(),
            identity,
            instance: self.instance.to_owned(),
            desired_file,
            in_force,
            intents: self.intents,
            snapshots: self.snapshots,
            urgent: Arc::clone(self.urgent),
            health,
        };
        tasks.spawn(async move {
            if let Err(error) = link.run().await {
                let error = causes(&error);
                tracing::error!(error, "there is no link to the controller");
            }
        });
        health_receiver
    }
}

/// The desired state that an earlier run accepted last. One that cannot be used is named in
/// the log and left where it is: the controller's next word replaces it.
fn last_good(path: &Path, identity: &Identity) -> Option<Desired> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::error!(%error, file = %path.display(), "cannot read the last desired state");
            return None;
        }
    };
    match admit(&bytes, None, identity) {
        Ok(Admission::New(desired)) => Some(desired),
        Ok(Admission::InForce) => None,
        Err(refusal) => {
            let file = path.display();
            tracing::error!(%refusal, %file, "cannot use the last desired state");
            None
        }
    }
}

/// Rereads the file on SIGHUP, where it is what says the desired state.
struct Reload {
    path: PathBuf,
    /// The file as it is in force.
    file: DirectorFile,
    intents: watch::Sender<Option<Arc<Intent>>>,
    hangups: Signal,
}

impl Reload {
    fn new(
        path: &Path,
        file: DirectorFile,
        intents: watch::Sender<Option<Arc<Intent>>>,
    ) -> Result<Self, StartError> {
        Ok(Self {
            path: path.to_owned(),
            file,
            intents,
            hangups: signal(SignalKind::hangup()).map_err(StartError::Signals)?,
        })
    }

    async fn run(mut self) {
        while self.hangups.recv().await.is_some() {
            self.reread();
        }
    }

    /// Takes VIPs and services from the file; a malformed file changes nothing.
    fn reread(&mut self) {
        let file = match read_file(&self.path) {
            Ok(file) => file,
            Err(error) => {
                let error = causes(&error);
                tracing::error!(error, "the file is not taken, what was in force stays");
                return;
            }
        };
        let settings = |file: &DirectorFile| {
            let DirectorFile {
                director,
                ospf,
                controller,
                vip: _,
                service: _,
            } = file;
            (director.clone(), ospf.clone(), controller.clone())
        };
        if settings(&file) != settings(&self.file) {
            tracing::warn!("only VIPs and services are reread, the rest needs a restart");
        }
        tracing::info!(summary = summary(&file), "reread the file");
        self.intents
            .send_replace(Some(Arc::new(Intent::from_file(&file))));
        self.file.vip = file.vip;
        self.file.service = file.service;
    }
}

/// With a controller there is nothing to reread, and SIGHUP must not end the agent.
fn ignore_hangups() -> Result<impl Future<Output = ()> + Send + 'static, StartError> {
    let mut hangups = signal(SignalKind::hangup()).map_err(StartError::Signals)?;
    Ok(async move {
        while hangups.recv().await.is_some() {
            tracing::info!("SIGHUP: the desired state comes from the controller");
        }
    })
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
