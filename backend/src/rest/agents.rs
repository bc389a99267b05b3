//! What agents use: the stream of the desired state, and the reports.

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use isopath_api::desired::Desired;
use isopath_api::observed::{Acknowledged, Observed};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::body::JsonBody;
use super::path::OfDirector;
use crate::app::App;
use crate::auth::Agent;
use crate::control::{Claim, Reported};
use crate::error::Error;

/// The agent drops a stream that was silent for three of these.
const PING_EVERY: Duration = Duration::from_secs(10);

/// `GET /clusters/{cluster}/directors/{director}/desired`: the whole desired state as a
/// server-sent event, now and at each change. A reader that is slow gets the latest only.
pub(super) async fn desired(
    _: Agent,
    OfDirector(cluster, director): OfDirector,
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Error> {
    let claim = Claim {
        cluster,
        director,
        name: None,
        router_id: from_header(&headers, "isopath-router-id")?,
        instance: from_header(&headers, "isopath-instance")?,
    };
    let feed = app.control().attach(claim).await?;
    let ping = KeepAlive::new().interval(PING_EVERY).text("ping");
    let stream = Sse::new(events(feed, app.shutdown())).keep_alive(ping);
    // nginx as a TLS proxy would hold events back until its buffer is full.
    Ok(([("x-accel-buffering", "no")], stream))
}

/// Ends with the director's place in the declaration, or with the server.
fn events(
    mut feed: watch::Receiver<Arc<Desired>>,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<Event, Infallible>> {
    feed.mark_changed();
    unfold((feed, shutdown), |(mut feed, shutdown)| async move {
        // Both are cancel-safe: a change stays unseen until `borrow_and_update`, and a
        // cancelled token stays so.
        let changed = tokio::select! {
            changed = feed.changed() => changed.is_ok(),
            () = shutdown.cancelled() => false,
        };
        if !changed {
            return None;
        }
        let event = event(&feed.borrow_and_update());
        Some((Ok(event), (feed, shutdown)))
    })
}

fn event(desired: &Desired) -> Event {
    let json = serde_json::to_string(desired).expect("it has string keys only, so it is JSON");
    Event::default()
        .event("desired")
        .id(format!("{}:{}", desired.epoch, desired.generation))
        .data(json)
}

fn from_header<T: FromStr<Err: std::fmt::Display>>(
    headers: &HeaderMap,
    name: &str,
) -> Result<Option<T>, Error> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let bad = |detail: String| Error::BadRequest {
        detail: format!("header {name}: {detail}"),
    };
    let text = value.to_str().map_err(|error| bad(error.to_string()))?;
    text.parse()
        .map(Some)
        .map_err(|error: T::Err| bad(error.to_string()))
}

/// `POST /clusters/{cluster}/directors/{director}/observed`
pub(super) async fn observed(
    _: Agent,
    OfDirector(cluster, director): OfDirector,
    State(app): State<App>,
    body: JsonBody,
) -> Result<Json<Acknowledged>, Error> {
    let observed: Observed = body.parse(|_| Vec::new())?;
    let reported = Reported {
        cluster,
        director,
        observed,
    };
    app.control().report(reported).await.map(Json)
}
