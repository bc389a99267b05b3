//! The one task that owns what the controller knows, and the queue to it.
//!
//! A command that changes anything durable is answered after its commit; the snapshot that
//! readers see is published after that, and then the directors' streams are told. Reports
//! are kept in memory alone.

mod actor;
mod agents;
mod apply;
pub mod desired;
pub(crate) mod drains;
mod enroll;
pub mod fleet;
mod in_use;
pub mod operation;
mod outbox;
mod plausible;
pub mod quiesced;
mod staged;
pub mod state;
mod transitions;

use std::sync::Arc;

use isopath_api::declare::Declaration;
use isopath_api::desired::Desired;
use isopath_api::ids::{ClusterName, DirectorName, RouterId};
use isopath_api::observed::{Acknowledged, Observed};
use isopath_api::operation::{DrainRequest, OperationView};
use isopath_api::view::Applied;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::auth::By;
use crate::clock::{Clock, Moment};
use crate::error::Error;
use crate::rest::etag;
use crate::store::Store;
use crate::store::agents::AgentRow;
use crate::store::idempotency::Key;
pub use enroll::{Enroll, Issued, MakeToken, Revoke, Wanted};
use fleet::{EnrollmentRefused, Refused};
use state::World;
use uuid::Uuid;

/// Commands that may wait: a second's reports of four full clusters. Whoever comes later waits
/// for a place, which slows agents and callers down instead of filling the memory.
const QUEUE: usize = 256;

/// How long a one-time token of an agent is good.
pub const TOKEN_VALIDITY: std::time::Duration = std::time::Duration::from_secs(60 * 60);

/// The most characters of an operator's words.
pub const LONGEST_REASON: usize = 500;

/// The way to the task. A clone leads to the same one.
#[derive(Debug, Clone)]
pub struct Control {
    clock: Clock,
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
    let (actor, world, version) = actor::Actor::load(store, clock.clone()).await?;
    let task = tokio::spawn(actor.run(queue, shutdown));
    let control = Control {
        clock,
        commands,
        world,
        version,
    };
    Ok((control, task))
}

type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// What the task is asked, each with the way back for the answer.
enum Command {
    Apply(Box<Apply>, Answer<Applied>),
    Change(Change, Answer<OperationView>),
    Cancel(Cancel, Answer<OperationView>),
    Attach(Claim, Answer<watch::Receiver<Arc<Desired>>>),
    Report(Box<Reported>, Moment, Answer<Acknowledged>),
    Refused((ClusterName, DirectorName), Refused, String, Answer<()>),
    MakeEnrollToken(Box<MakeToken>, Answer<()>),
    Enroll(Box<Enroll>, Answer<Issued>),
    RefusedEnrollment(EnrollmentRefused, Answer<()>),
    Renew((Uuid, By), Box<Wanted>, Answer<Issued>),
    Revoke(Box<Revoke>, Answer<Arc<AgentRow>>),
}

/// A declaration to put in force.
#[derive(Debug)]
pub struct Apply {
    /// The cluster.
    pub cluster: ClusterName,
    /// A valid declaration.
    pub declaration: Declaration,
    /// Who declares it.
    pub by: By,
    /// Their words.
    pub reason: String,
    /// Only say what it would do.
    pub dry_run: bool,
    /// What the caller knows of the revision in force.
    pub expected: Precondition,
    /// Guards to pass over.
    pub override_guards: Vec<String>,
    /// The request's own name.
    pub key: Option<Key>,
}

/// What a caller knows of the revision in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing: good for a cluster that is not declared yet.
    None,
    /// That the cluster is declared already; whatever it is.
    Exists,
    /// That the cluster is not declared yet.
    Absent,
    /// That it is one of these.
    Revision(Vec<u64>),
}

impl Precondition {
    /// Whether it holds for the revision in force; nothing where the cluster is not declared.
    ///
    /// # Errors
    /// [`Error::PreconditionRequired`] where a change of what is declared does not say what it
    /// knows, [`Error::PreconditionFailed`] where it is wrong.
    pub fn check(&self, cluster: &ClusterName, current: Option<u64>) -> Result<(), Error> {
        let failed = |detail| Err(Error::PreconditionFailed { detail, current });
        match (self, current) {
            (Self::None | Self::Absent, None) | (Self::Exists, Some(_)) => Ok(()),
            (Self::Revision(expected), Some(current)) if expected.contains(&current) => Ok(()),
            (Self::None, Some(current)) => Err(Error::PreconditionRequired {
                detail: format!(
                    "cluster {cluster} is declared, at revision {current}; say which revision \
                     this changes, with If-Match: {}",
                    etag(current)
                ),
            }),
            (Self::Exists | Self::Revision(_), None) => {
                failed(format!("cluster {cluster} is not declared yet"))
            }
            (Self::Absent, Some(current)) => failed(format!(
                "cluster {cluster} is declared already, at revision {current}"
            )),
            (Self::Revision(_), Some(current)) => failed(format!(
                "cluster {cluster} is at revision {current} by now: look at what changed and \
                 send yours again"
            )),
        }
    }
}

/// A drain or an undrain.
#[derive(Debug)]
pub struct Change {
    /// Which of them.
    pub kind: operation::Kind,
    /// The cluster.
    pub cluster: ClusterName,
    /// What it changes.
    pub target: operation::Target,
    /// The operator's words and overrides.
    pub request: DrainRequest,
    /// Who asks.
    pub by: By,
    /// The request's own name, where it may be sent again.
    pub key: Option<Key>,
}

/// The end of an operation before its time.
#[derive(Debug)]
pub struct Cancel {
    /// The operation.
    pub id: String,
    /// Who asks.
    pub by: By,
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
    /// The protocol that it speaks.
    pub protocol: u32,
}

/// A report and where it was sent.
#[derive(Debug)]
pub struct Reported {
    /// Who says to have sent it, as far as the body does not tell.
    pub claim: Claim,
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
        self.ask(|answer| Command::Apply(Box::new(apply), answer))
            .await
    }

    /// Drains or undrains a director, real servers or a VIP.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], [`Error::Conflict`], [`Error::Guard`],
    /// [`Error::Storage`], [`Error::Stopping`].
    pub async fn change(&self, change: Change) -> Result<OperationView, Error> {
        self.ask(|answer| Command::Change(change, answer)).await
    }

    /// Cancels an operation.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it has ended, [`Error::Guard`] for an undrain whose target must not
    /// go again, [`Error::Storage`], [`Error::Stopping`].
    pub async fn cancel(&self, cancel: Cancel) -> Result<OperationView, Error> {
        self.ask(|answer| Command::Cancel(cancel, answer)).await
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
        // It counts from now on, however long it waits for its turn.
        let arrived = self.clock.now();
        self.ask(|answer| Command::Report(Box::new(reported), arrived, answer))
            .await
    }

    /// Counts and shows a body that is no report.
    ///
    /// # Errors
    /// [`Error::Stopping`].
    pub async fn refused(
        &self,
        cluster: ClusterName,
        director: DirectorName,
        code: Refused,
        cause: String,
    ) -> Result<(), Error> {
        let place = (cluster, director);
        self.ask(|answer| Command::Refused(place, code, cause, answer))
            .await
    }

    /// Counts an enrolment that was refused before it came to its token.
    ///
    /// # Errors
    /// [`Error::Stopping`].
    pub async fn refused_enrollment(&self, cause: EnrollmentRefused) -> Result<(), Error> {
        self.ask(|answer| Command::RefusedEnrollment(cause, answer))
            .await
    }

    /// Stores a one-time token by its hash.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::ReadOnly`], [`Error::Stopping`].
    pub async fn make_enroll_token(&self, make: MakeToken) -> Result<(), Error> {
        self.ask(|answer| Command::MakeEnrollToken(Box::new(make), answer))
            .await
    }

    /// Makes an agent of whoever has a one-time token.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] and [`Error::Forbidden`] for its token, [`Error::Conflict`]
    /// where the director has another agent that lives, [`Error::Storage`], [`Error::ReadOnly`],
    /// [`Error::Stopping`].
    pub async fn enroll(&self, enroll: Enroll) -> Result<Issued, Error> {
        self.ask(|answer| Command::Enroll(Box::new(enroll), answer))
            .await
    }

    /// Issues another certificate to an agent.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] and [`Error::Forbidden`] for one that is none any more or is on
    /// another machine, [`Error::Storage`], [`Error::ReadOnly`], [`Error::Stopping`].
    pub async fn renew(&self, (id, by): (Uuid, By), wanted: Wanted) -> Result<Issued, Error> {
        self.ask(|answer| Command::Renew((id, by), Box::new(wanted), answer))
            .await
    }

    /// Revokes an agent.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Conflict`] for one that is revoked already,
    /// [`Error::Storage`], [`Error::ReadOnly`], [`Error::Stopping`].
    pub async fn revoke(&self, revoke: Revoke) -> Result<Arc<AgentRow>, Error> {
        self.ask(|answer| Command::Revoke(Box::new(revoke), answer))
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
