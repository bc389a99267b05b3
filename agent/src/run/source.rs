//! Where the desired state comes from: the controller, or the director's own file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isopath_api::config::{AreaType, ControllerConfig, DirectorConfig, DirectorFile};
use isopath_api::desired::Desired;
use isopath_api::sections::Sections;
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::{StartError, read_sections, summary};
use crate::causes;
use crate::controller_link::{ControllerLink, LinkHealth, SnapshotRequest};
use crate::desired::{Admission, Identity, Intent, admit};

/// The parts of the link to the controller.
pub(super) struct ControllerParts<'a> {
    pub(super) director: &'a DirectorConfig,
    pub(super) area_type: AreaType,
    pub(super) instance: &'a str,
    pub(super) snapshots: mpsc::Sender<SnapshotRequest>,
    pub(super) urgent: &'a Arc<Notify>,
    pub(super) intents: watch::Sender<Option<Arc<Intent>>>,
}

impl ControllerParts<'_> {
    /// Starts the link with the last good desired state from the disk in force.
    pub(super) fn start(
        self,
        config: &ControllerConfig,
        tasks: &mut JoinSet<()>,
    ) -> watch::Receiver<LinkHealth> {
        let director = self.director;
        let identity = Identity {
            cluster: config.cluster.clone(),
            director: director.name.clone(),
            router_id: director.router_id,
            area_type: self.area_type,
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
pub(crate) fn last_good(path: &Path, identity: &Identity) -> Option<Desired> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::error!(%error, file = %path.display(), "cannot read the last desired state");
            return None;
        }
    };
    match admit(&bytes, None, identity) {
        Ok(Admission::New(desired)) => Some(*desired),
        Ok(Admission::InForce) => None,
        Err(refusal) => {
            let file = path.display();
            tracing::error!(%refusal, %file, "cannot use the last desired state");
            None
        }
    }
}

/// Rereads the file on SIGHUP, where it is what says the desired state.
pub(super) struct Reload {
    path: PathBuf,
    /// The file as it is in force.
    file: DirectorFile,
    /// Its text, as far as it tells which services another text has changed.
    sections: Option<Sections>,
    intents: watch::Sender<Option<Arc<Intent>>>,
    hangups: Signal,
}

impl Reload {
    pub(super) fn new(
        path: &Path,
        file: DirectorFile,
        sections: Option<Sections>,
        intents: watch::Sender<Option<Arc<Intent>>>,
    ) -> Result<Self, StartError> {
        Ok(Self {
            path: path.to_owned(),
            file,
            sections,
            intents,
            hangups: signal(SignalKind::hangup()).map_err(StartError::Signals)?,
        })
    }

    pub(super) async fn run(mut self) {
        while self.hangups.recv().await.is_some() {
            self.reread();
        }
    }

    /// Takes VIPs and services from the file; a malformed file changes nothing.
    pub(super) fn reread(&mut self) {
        if self.reread_services() {
            return;
        }
        let (file, sections) = match read_sections(&self.path) {
            Ok(read) => read,
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
                lvs: _,
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
        self.file.lvs = file.lvs;
        self.file.vip = file.vip;
        self.file.service = file.service;
        self.sections = sections;
    }

    /// Takes the services that have changed where nothing else has; whether that is so. What is
    /// wrong with the file is for the whole of it to say.
    fn reread_services(&mut self) -> bool {
        let Some(sections) = &self.sections else {
            return false;
        };
        let Ok(text) = std::fs::read_to_string(&self.path) else {
            return false;
        };
        let Some((sections, changed)) = sections.changed(&text, &self.file) else {
            return false;
        };
        let in_force = self.intents.borrow().clone();
        let intent = match in_force {
            Some(in_force) => in_force.with(&changed),
            None => return false,
        };
        let services = changed.len();
        for (place, service) in changed {
            self.file.service[place] = service;
        }
        self.sections = Some(sections);
        tracing::info!(services, "reread the file, only services have changed");
        self.intents.send_replace(Some(Arc::new(intent)));
        true
    }
}

/// With a controller there is nothing to reread, and SIGHUP must not end the agent.
pub(super) fn ignore_hangups() -> Result<impl Future<Output = ()> + Send + 'static, StartError> {
    let mut hangups = signal(SignalKind::hangup()).map_err(StartError::Signals)?;
    Ok(async move {
        while hangups.recv().await.is_some() {
            tracing::info!("SIGHUP: the desired state comes from the controller");
        }
    })
}
