//! Names in a path and numbers in a query, each refusal with problem details.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use isopath_api::ids::{ClusterName, DirectorName, Vip};
use serde::de::DeserializeOwned;

use crate::control::operation::ServerName;
use crate::error::Error;

/// The cluster of the path.
#[derive(Debug)]
pub(super) struct OfCluster(pub(super) ClusterName);

impl<S: Send + Sync> FromRequestParts<S> for OfCluster {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        named(parts, state, "cluster").await.map(Self)
    }
}

/// The cluster and the director of the path.
#[derive(Debug)]
pub(super) struct OfDirector(pub(super) ClusterName, pub(super) DirectorName);

impl<S: Send + Sync> FromRequestParts<S> for OfDirector {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        Ok(Self(
            named(parts, state, "cluster").await?,
            named(parts, state, "director").await?,
        ))
    }
}

/// The cluster and the real servers of the path.
#[derive(Debug)]
pub(super) struct OfRealServer(pub(super) ClusterName, pub(super) ServerName);

impl<S: Send + Sync> FromRequestParts<S> for OfRealServer {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        Ok(Self(
            named(parts, state, "cluster").await?,
            named(parts, state, "real_server").await?,
        ))
    }
}

/// The cluster and the VIP of the path.
#[derive(Debug)]
pub(super) struct OfVip(pub(super) ClusterName, pub(super) Vip);

impl<S: Send + Sync> FromRequestParts<S> for OfVip {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        Ok(Self(
            named(parts, state, "cluster").await?,
            named(parts, state, "vip").await?,
        ))
    }
}

/// The operation of the path.
#[derive(Debug)]
pub(super) struct OfOperation(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for OfOperation {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        named(parts, state, "operation").await.map(Self)
    }
}

/// The cluster and the revision of the path.
#[derive(Debug)]
pub(super) struct OfRevision(pub(super) ClusterName, pub(super) u64);

impl<S: Send + Sync> FromRequestParts<S> for OfRevision {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        Ok(Self(
            named(parts, state, "cluster").await?,
            named(parts, state, "revision").await?,
        ))
    }
}

/// What no thing can be called is the name of no thing: 404.
pub(super) async fn named<T: std::str::FromStr, S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    what: &str,
) -> Result<T, Error> {
    let params = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| Error::not_found("such resource"))?;
    let text = params
        .iter()
        .find(|(name, _)| *name == what)
        .map_or("", |(_, value)| value);
    text.parse()
        .map_err(|_| Error::not_found(format_args!("{what} {text:?}")))
}

/// The query of the request.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        axum::extract::Query::<T>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|rejection| Error::BadRequest {
                detail: rejection.body_text(),
            })
    }
}
