//! What the API and the pages are built on: the controller as its callers see it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue};
use isopath_api::ids::{ClusterName, DirectorName};
use isopath_api::view::{ClusterView, DrainRequest, OperationView};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::auth::{self, Login, Session};
use crate::clock::Clock;
use crate::control::operation::Kind;
use crate::control::state::World;
use crate::control::{self, Change, Control};
use crate::error::Error;
use crate::store::Store;
use crate::store::tokens::{self, TokenRow};
use crate::view;

/// The controller. A clone is cheap and is the same controller.
#[derive(Debug, Clone)]
pub struct App {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    clock: Clock,
    control: Control,
    login: Login,
    shutdown: CancellationToken,
}

impl App {
    /// Starts the controller on a database. The task that comes with it owns the state and
    /// ends with `shutdown`; it never ends before.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn start(
        store: Store,
        clock: Clock,
        shutdown: CancellationToken,
    ) -> Result<(Self, JoinHandle<()>), Error> {
        let (control, task) =
            control::start(store.clone(), clock.clone(), shutdown.clone()).await?;
        let inner = Inner {
            store,
            clock,
            control,
            login: Login::default(),
            shutdown,
        };
        Ok((
            Self {
                inner: Arc::new(inner),
            },
            task,
        ))
    }

    /// The way to the task that owns the state.
    pub(crate) fn control(&self) -> &Control {
        &self.inner.control
    }

    /// The database.
    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The clock.
    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// What is known now.
    pub(crate) fn world(&self) -> Arc<World> {
        self.inner.control.world()
    }

    /// The token of a hash, looked up each time so that a revoked one is refused at once.
    pub(crate) async fn token(&self, hash: &str) -> Result<Option<TokenRow>, Error> {
        let mut reader = self.inner.store.read().await?;
        Ok(tokens::find(&mut reader, hash).await?)
    }

    /// The clusters' names, in their order.
    pub fn clusters(&self) -> Vec<ClusterName> {
        self.world().clusters.keys().cloned().collect()
    }

    /// A cluster as of now; nothing when there is no such cluster.
    pub fn cluster_view(&self, cluster: &ClusterName) -> Option<ClusterView> {
        let world = self.world();
        let state = world.clusters.get(cluster)?;
        Some(view::build(state, self.inner.clock.now(), world.started))
    }

    /// Changes its number whenever any cluster's view may have changed. A reader that is slow
    /// sees only the last number, and never waits for the ones before.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.control.version()
    }

    /// Ends when the server stops: streams to browsers and agents must end with it.
    pub fn shutdown(&self) -> CancellationToken {
        self.inner.shutdown.clone()
    }

    /// Takes a director out of service on `actor`'s word.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Guard`] when the drain would lose a VIP and
    /// `last_announcer` is not overridden, [`Error::Conflict`] when it is drained already.
    pub async fn drain(
        &self,
        cluster: &ClusterName,
        director: &DirectorName,
        request: DrainRequest,
        actor: &str,
    ) -> Result<OperationView, Error> {
        self.change(Kind::Drain, cluster, director, request, actor)
            .await
    }

    async fn change(
        &self,
        kind: Kind,
        cluster: &ClusterName,
        director: &DirectorName,
        request: DrainRequest,
        actor: &str,
    ) -> Result<OperationView, Error> {
        let change = Change {
            kind,
            cluster: cluster.clone(),
            director: director.clone(),
            request,
            actor: actor.to_owned(),
        };
        self.inner.control.change(change).await
    }

    /// Puts a director back into service on `actor`'s word; ends a drain that is under way.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Conflict`] when it is in service already.
    pub async fn undrain(
        &self,
        cluster: &ClusterName,
        director: &DirectorName,
        request: DrainRequest,
        actor: &str,
    ) -> Result<OperationView, Error> {
        self.change(Kind::Undrain, cluster, director, request, actor)
            .await
    }

    /// Signs someone in: the value of the answer's `Set-Cookie`. Refuses a form that another
    /// site posted, so the sign-in form needs no token.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for a wrong name or password (never saying which),
    /// [`Error::TooMany`], [`Error::Busy`], [`Error::Forbidden`] for another site's form.
    pub async fn login(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        user: &str,
        password: &str,
    ) -> Result<HeaderValue, Error> {
        let now = self.inner.clock.now();
        self.inner
            .login
            .login(&self.inner.store, now, (headers, peer), (user, password))
            .await
    }

    /// Signs out whoever the cookie names: the value of the answer's `Set-Cookie`.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn logout(&self, headers: &HeaderMap) -> Result<HeaderValue, Error> {
        auth::end_session(&self.inner.store, headers).await
    }

    /// Who is signed in by the request's cookie; nobody when it is absent, unknown or too old.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn session(&self, headers: &HeaderMap) -> Result<Option<Session>, Error> {
        let now = self.inner.clock.now().wall;
        auth::find_session(&self.inner.store, headers, now).await
    }

    /// Refuses a posted form that another site sent or that lacks the session's token.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn check_form(
        &self,
        headers: &HeaderMap,
        session: &Session,
        token: &str,
    ) -> Result<(), Error> {
        auth::check_form(headers, session, token)
    }
}

/// The address a request came from, as an extractor; loopback where the server does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

impl<S: Sync> axum::extract::FromRequestParts<S> for Peer {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        _state: &S,
    ) -> Result<Self, Self::Rejection> {
        use axum::extract::ConnectInfo;
        let address = parts
            .extensions
            .get::<ConnectInfo<std::net::SocketAddr>>()
            .map_or(IpAddr::from([127, 0, 0, 1]), |ConnectInfo(address)| {
                address.ip()
            });
        Ok(Self(address))
    }
}
