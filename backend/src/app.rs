//! What the API and the pages are built on: the controller as its callers see it.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue};
use isopath_api::ids::{ClusterName, DirectorName};
use isopath_api::view::{ClusterView, DrainRequest, OperationView};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::auth::Session;
use crate::error::Error;

/// The controller. A clone is cheap and is the same controller.
#[derive(Debug, Clone)]
pub struct App {}

impl App {
    /// The clusters' names, in their order.
    pub fn clusters(&self) -> Vec<ClusterName> {
        unimplemented!()
    }

    /// A cluster as of now; nothing when there is no such cluster.
    pub fn cluster_view(&self, cluster: &ClusterName) -> Option<ClusterView> {
        unimplemented!("{cluster}")
    }

    /// Changes its number whenever any cluster's view may have changed. A reader that is slow
    /// sees only the last number, and never waits for the ones before.
    pub fn changes(&self) -> watch::Receiver<u64> {
        unimplemented!()
    }

    /// Ends when the server stops: streams to browsers and agents must end with it.
    pub fn shutdown(&self) -> CancellationToken {
        unimplemented!()
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
        unimplemented!("{cluster} {director} {request:?} {actor}")
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
        unimplemented!("{cluster} {director} {request:?} {actor}")
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
        unimplemented!("{headers:?} {peer} {user} {password}")
    }

    /// Signs out whoever the cookie names: the value of the answer's `Set-Cookie`.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn logout(&self, headers: &HeaderMap) -> Result<HeaderValue, Error> {
        unimplemented!("{headers:?}")
    }

    /// Who is signed in by the request's cookie; nobody when it is absent, unknown or too old.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn session(&self, headers: &HeaderMap) -> Result<Option<Session>, Error> {
        unimplemented!("{headers:?}")
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
        unimplemented!("{headers:?} {session:?} {token}")
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
