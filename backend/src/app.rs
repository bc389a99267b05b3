//! What the API and the pages are built on: the controller as its callers see it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use isopath_api::ecmp::EcmpView;
use isopath_api::ids::ClusterName;
use isopath_api::operation::{DrainPreview, DrainRequest, OperationView};
use isopath_api::view::ClusterView;
use jiff::Timestamp;
use sqlx::SqliteConnection;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::audit::{self, Audit};
use crate::auth::{self, By, KnownTokens, LimitSettings, Limits, Login, Session};
use crate::clock::Clock;
use crate::control::operation::{Kind, Operation, Target};
use crate::control::state::World;
use crate::control::{self, Change, Control};
use crate::ecmp;
use crate::error::Error;
use crate::metrics::{LoginOutcome, Requests};
use crate::preview;
use crate::samples::{self, Open};
use crate::shared::{self, SharedViews};
use crate::store::Store;
use crate::store::tokens::TokenRow;
use crate::tls::{Remote, TlsServed};
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
    samples: watch::Receiver<Open>,
    login: Login,
    tokens: KnownTokens,
    views: SharedViews,
    requests: Requests,
    limits: Limits,
    audit: Audit,
    tls: Option<TlsServed>,
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
        Self::start_with(store, clock, None, LimitSettings::default(), shutdown).await
    }

    /// The same with limits of its own, served with TLS where there is any.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn start_with(
        store: Store,
        clock: Clock,
        tls: Option<TlsServed>,
        limits: LimitSettings,
        shutdown: CancellationToken,
    ) -> Result<(Self, JoinHandle<()>), Error> {
        tokio::spawn(store.clone().watch_disk(shutdown.clone()));
        let (control, task) =
            control::start(store.clone(), clock.clone(), shutdown.clone()).await?;
        let audit = audit::start(store.clone(), clock.clone(), shutdown.clone());
        let (shown, samples) = watch::channel(Open::default());
        let measuring = (store.clone(), clock.clone(), control.clone());
        let measuring = tokio::spawn(samples::run(measuring, shown, shutdown.clone()));
        let sampler = tokio::spawn(async move {
            // Without measurements all else goes on.
            if let Err(error) = measuring.await {
                tracing::error!(%error, "the task that measures failed");
            }
        });
        let task = tokio::spawn(async move {
            // Where the task that owns the state failed, nobody waits for the other; where it
            // ended with `shutdown`, what was measured last is still to be stored. The other
            // cannot fail.
            if task.await.is_ok() {
                drop(sampler.await);
            }
        });
        let inner = Inner {
            store,
            clock,
            control,
            samples,
            login: Login::new(limits.logins_per_minute),
            limits: Limits::new(&limits),
            tokens: KnownTokens::default(),
            views: SharedViews::default(),
            requests: Requests::default(),
            audit,
            tls,
            shutdown,
        };
        Ok((
            Self {
                inner: Arc::new(inner),
            },
            task,
        ))
    }

    /// The TLS that this controller is served with; nothing over plain HTTP, behind a proxy that
    /// ends TLS as well.
    pub fn tls(&self) -> Option<&TlsServed> {
        self.inner.tls.as_ref()
    }

    /// Whether this controller itself is served with TLS.
    pub fn is_tls(&self) -> bool {
        self.inner.tls.is_some()
    }

    /// What is counted of requests.
    pub(crate) fn requests(&self) -> &Requests {
        &self.inner.requests
    }

    /// The way to the task that owns the state.
    pub(crate) fn control(&self) -> &Control {
        &self.inner.control
    }

    /// The way to the audit log for refusals.
    pub(crate) fn audit(&self) -> &Audit {
        &self.inner.audit
    }

    /// The database.
    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    /// What was measured and is not stored yet.
    pub(crate) fn samples(&self) -> Open {
        self.inner.samples.borrow().clone()
    }

    /// The clock.
    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// What is known now.
    pub(crate) fn world(&self) -> Arc<World> {
        self.inner.control.world()
    }

    /// The token of a hash. One that was revoked is found as revoked at once.
    pub(crate) async fn token(&self, hash: &str) -> Result<Option<TokenRow>, Error> {
        let inner = &self.inner;
        Ok(inner.tokens.find(&inner.store, hash).await?)
    }

    /// The clusters' names, in their order.
    pub fn clusters(&self) -> Vec<ClusterName> {
        self.world().clusters.keys().cloned().collect()
    }

    /// A cluster as of now; nothing when there is no such cluster.
    pub fn cluster_view(&self, cluster: &ClusterName) -> Option<ClusterView> {
        let world = self.world();
        let state = world.clusters.get(cluster)?;
        let mut view = view::build(state, self.inner.clock.now(), world.started);
        view::add_storage(&mut view, &world.storage);
        Some(view)
    }

    /// The same as JSON, with its revision: made once for all who ask at the same time.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Internal`].
    pub(crate) async fn cluster_json(&self, cluster: &ClusterName) -> Result<(u64, Bytes), Error> {
        let world = self.world();
        let state = world.clusters.get(cluster);
        let state = state.ok_or_else(|| Error::not_found(format_args!("cluster {cluster}")))?;
        let now = self.inner.clock.now();
        let (of, snapshot) = (Arc::clone(state), Arc::clone(&world));
        let make = move || {
            let mut view = view::build(&of, now, snapshot.started);
            view::add_storage(&mut view, &snapshot.storage);
            let mut text = Vec::with_capacity(shared::expected_length(&of));
            serde_json::to_writer(&mut text, &view)
                .expect("a view has string keys only, so it is JSON");
            text
        };
        let views = &self.inner.views;
        let text = views.text((state, &world.storage), now, make).await?;
        Ok((state.revision, text))
    }

    /// The equal-cost sets of a cluster as of now; nothing when there is no such cluster.
    pub fn cluster_ecmp(&self, cluster: &ClusterName) -> Option<EcmpView> {
        let world = self.world();
        let state = world.clusters.get(cluster)?;
        Some(ecmp::view(state, self.inner.clock.now(), world.started))
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

    /// Takes something out of service or puts it back, on somebody's word.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], [`Error::Guard`] when a guard refuses that is not
    /// overridden, [`Error::Conflict`] when it is so already.
    pub async fn change(
        &self,
        kind: Kind,
        (cluster, target): (&ClusterName, Target),
        request: DrainRequest,
        by: By,
    ) -> Result<OperationView, Error> {
        let change = Change {
            kind,
            cluster: cluster.clone(),
            target,
            request,
            by,
            key: None,
        };
        self.inner.control.change(change).await
    }

    /// What a change would do, from what is known now.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`].
    pub(crate) fn preview(&self, change: &Change) -> Result<DrainPreview, Error> {
        let world = self.world();
        let cluster = world.clusters.get(&change.cluster);
        let cluster =
            cluster.ok_or_else(|| Error::not_found(format_args!("cluster {}", change.cluster)))?;
        preview::of(cluster, change, (self.inner.clock.now(), world.started))
    }

    /// An operation that has not ended, as of now.
    pub(crate) fn open_operation(&self, id: &str) -> Option<OperationView> {
        let world = self.world();
        let now = self.inner.clock.now();
        world.clusters.values().find_map(|cluster| {
            let mut open = cluster.operations.iter();
            let found = open.find(|operation| operation.id == id)?;
            Some(found.view(Some((&**cluster, now))))
        })
    }

    /// A stored operation, with what is known of it now where it has not ended.
    pub(crate) fn show(&self, stored: &Operation) -> OperationView {
        self.open_operation(&stored.id)
            .unwrap_or_else(|| stored.view(None))
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
        let from = auth::SignIn {
            headers,
            peer,
            is_tls: self.is_tls(),
        };
        let ended = self
            .inner
            .login
            .login(&self.inner.store, now, from, (user, password))
            .await;
        self.inner.requests.login(match &ended {
            Ok(_) => LoginOutcome::Accepted,
            Err(Error::Unauthenticated { .. }) => LoginOutcome::Refused,
            Err(Error::TooMany { .. }) => LoginOutcome::Limited,
            Err(_) => LoginOutcome::Failed,
        });
        ended
    }

    /// Checks and hashes passwords, at a bounded rate.
    pub(crate) fn login_state(&self) -> &Login {
        &self.inner.login
    }

    /// How often anybody may ask.
    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Starts a session of whoever has just set a new password: the value of the answer's
    /// `Set-Cookie`.
    pub(crate) async fn start_session(
        &self,
        connection: &mut SqliteConnection,
        by: &By,
        now: Timestamp,
    ) -> Result<HeaderValue, sqlx::Error> {
        let peer = by.peer.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        auth::start_session(connection, &by.name, (peer, self.is_tls()), now).await
    }

    /// Signs out whoever the cookie names: the value of the answer's `Set-Cookie`.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn logout(&self, headers: &HeaderMap, by: &By) -> Result<HeaderValue, Error> {
        let now = self.inner.clock.now().wall;
        auth::end_session(&self.inner.store, headers, self.is_tls(), by, now).await
    }

    /// Who is signed in by the request's cookie; nobody when it is absent, unknown or too old.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn session(&self, headers: &HeaderMap) -> Result<Option<Session>, Error> {
        let now = self.inner.clock.now().wall;
        auth::find_session(&self.inner.store, headers, self.is_tls(), now).await
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
        Ok(Self(Self::of(parts)))
    }
}

impl Peer {
    /// Whether the connection showed a certificate of ours.
    pub(crate) fn has_certificate(parts: &axum::http::request::Parts) -> bool {
        let remote = parts.extensions.get::<axum::extract::ConnectInfo<Remote>>();
        remote.is_some_and(|axum::extract::ConnectInfo(remote)| remote.certificate.is_some())
    }

    /// The address that a request came from.
    pub(crate) fn of(parts: &axum::http::request::Parts) -> IpAddr {
        use axum::extract::ConnectInfo;
        parts
            .extensions
            .get::<ConnectInfo<Remote>>()
            .map_or(IpAddr::from([127, 0, 0, 1]), |ConnectInfo(remote)| {
                remote.address.ip()
            })
    }
}
