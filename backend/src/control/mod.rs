//! The one task that owns what the controller knows, and the queue to it.
//!
//! A command that changes anything durable is answered after its commit; the snapshot that
//! readers see is published after that, and then the directors' streams are told. Reports
//! are kept in memory alone.

mod actor;
mod agents;
mod apply;
pub mod desired;
mod drains;
pub mod operation;
pub mod state;
mod transitions;

use std::sync::Arc;

use isopath_api::declare::Declaration;
use isopath_api::desired::Desired;
use isopath_api::ids::{ClusterName, DirectorName, RouterId};
use isopath_api::observed::{Acknowledged, Observed};
use isopath_api::view::{Applied, DrainRequest, OperationView};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::Error;
use crate::store::Store;
use state::World;

/// Commands that may wait: a second's reports of four full clusters. Whoever comes later waits
/// for a place, which slows agents and callers down instead of filling the memory.
const QUEUE: usize = 256;

/// The most characters of an operator's words.
pub const LONGEST_REASON: usize = 500;

/// The way to the task. A clone leads to the same one.
#[derive(Debug, Clone)]
pub struct Control {
    commands: mpsc::Sender<Command>,
    world: watch::Receiver<Arc<World>>,
    version: watch::Receiver<u64>,
}

/// Starts the task with what the database holds. It ends with `shutdown`.
///
/// # Errors
/// When the database cannot be read.
pub async fn start(
    store: Store,
    clock: Clock,
    shutdown: CancellationToken,
) -> Result<(Control, JoinHandle<()>), Error> {
    let (commands, queue) = mpsc::channel(QUEUE);
    let (actor, world, version) = actor::Actor::load(store, clock).await?;
    let task = tokio::spawn(actor.run(queue, shutdown));
    let control = Control {
        commands,
        world,
        version,
    };
    Ok((control, task))
}

type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// What the task is asked, each with the way back for the answer.
enum Command {
    Apply(Apply, Answer<Applied>),
    Change(Change, Answer<OperationView>),
    Attach(Claim, Answer<watch::Receiver<Arc<Desired>>>),
    Report(Box<Reported>, Answer<Acknowledged>),
}

/// A declaration to put in force.
#[derive(Debug)]
pub struct Apply {
    /// The cluster.
    pub cluster: ClusterName,
    /// A valid declaration.
    pub declaration: Declaration,
    /// Who declares it.
    pub actor: String,
    /// Their words.
    pub reason: String,
    /// Only say what it would do.
    pub dry_run: bool,
}

/// A drain or an undrain.
#[derive(Debug)]
pub struct Change {
    /// Which of them.
    pub kind: operation::Kind,
    /// The cluster.
    pub cluster: ClusterName,
    /// The director.
    pub director: DirectorName,
    /// The operator's words and overrides.
    pub request: DrainRequest,
    /// Who asks.
    pub actor: String,
}

/// Who an agent says it is.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The cluster of the path.
    pub cluster: ClusterName,
    /// The director of the path.
    pub director: DirectorName,
    /// The name that the agent has, where it says so itself.
    pub name: Option<DirectorName>,
    /// The router id that the agent has.
    pub router_id: Option<RouterId>,
    /// The agent's instance.
    pub instance: Option<String>,
}

/// A report and where it was sent.
#[derive(Debug)]
pub struct Reported {
    /// The cluster of the path.
    pub cluster: ClusterName,
    /// The director of the path.
    pub director: DirectorName,
    /// What the agent says.
    pub observed: Observed,
}

impl Control {
    /// What is known now.
    pub fn world(&self) -> Arc<World> {
        Arc::clone(&self.world.borrow())
    }

    /// Changes with every published snapshot.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.version.clone()
    }

    /// Puts a declaration in force.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Stopping`].
    pub async fn apply(&self, apply: Apply) -> Result<Applied, Error> {
        self.ask(|answer| Command::Apply(apply, answer)).await
    }

    /// Drains or undrains a director.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], [`Error::Conflict`], [`Error::Guard`],
    /// [`Error::Storage`], [`Error::Stopping`].
    pub async fn change(&self, change: Change) -> Result<OperationView, Error> {
        self.ask(|answer| Command::Change(change, answer)).await
    }

    /// The desired states of a director from now on, the present one first.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Conflict`] for an agent that does not belong there.
    pub async fn attach(&self, claim: Claim) -> Result<watch::Receiver<Arc<Desired>>, Error> {
        self.ask(|answer| Command::Attach(claim, answer)).await
    }

    /// Takes an agent's report.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Conflict`] for an agent that does not belong there.
    pub async fn report(&self, reported: Reported) -> Result<Acknowledged, Error> {
        self.ask(|answer| Command::Report(Box::new(reported), answer))
            .await
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(command(answer))
            .await
            .map_err(|_| Error::Stopping)?;
        answered.await.map_err(|_| Error::Stopping)?
    }
}
