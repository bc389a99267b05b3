//! The body of an agent's report: how large it may be follows what its cluster declares.

use std::collections::HashMap;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use isopath_api::declare::Declaration;
use isopath_api::fault::parse_json;
use isopath_api::observed::Observed;

use super::body::is_json;
use crate::app::App;
use crate::error::Error;

/// What a report may always have, in bytes: the speaker's status and a few services. A report of
/// what was declared before a large part of it was removed may be larger for a moment; it is
/// refused, and the next one is of the new state.
const LEAST: usize = 256 << 10;
/// What one more object that is declared may add: a real server with its last check and its
/// counters takes 450 bytes, and the words of a failed check come on top.
const EACH: usize = 1 << 10;
/// What no report may have: that of ten thousand real servers.
const MOST: usize = 12 << 20;

/// The largest report of a director of this cluster, in bytes.
pub(super) fn limit(declaration: &Declaration) -> usize {
    let servers = declaration.service.iter().map(|it| it.real_server.len());
    let objects = declaration.vip.len() + declaration.service.len() + servers.sum::<usize>();
    EACH.saturating_mul(objects).clamp(LEAST, MOST)
}

/// A report that was read whole and understood.
#[derive(Debug)]
pub(super) struct ReportBody(pub(super) Observed);

impl FromRequest<App> for ReportBody {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self, Error> {
        let is_json = is_json(request.headers());
        let (mut parts, body) = request.into_parts();
        let path = Path::<HashMap<String, String>>::from_request_parts(&mut parts, app).await;
        let cluster = path
            .ok()
            .and_then(|Path(path)| path.get("cluster")?.parse().ok());
        let world = app.world();
        let cluster = cluster.and_then(|name| world.clusters.get(&name));
        let cluster = cluster.ok_or_else(|| Error::not_found("such cluster"))?;
        let limit = limit(&cluster.declaration);
        drop(world);
        let bytes = read(body, limit).await?;
        if !is_json {
            return Err(Error::MediaType {
                expected: "application/json",
            });
        }
        parse_json(&bytes, |_| Vec::new())
            .map(Self)
            .map_err(|faults| Error::Invalid { faults })
    }
}

/// The whole body, or none of it where it says itself that it is too large.
async fn read(body: Body, limit: usize) -> Result<Bytes, Error> {
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(Error::TooLarge);
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Error::TooLarge),
        Err(error) => Err(Error::BadRequest {
            detail: format!("the body could not be read: {error}"),
        }),
    }
}
