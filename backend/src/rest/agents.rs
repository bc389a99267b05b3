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
use isopath_api::fleet::PROTOCOL_HEADER;
use isopath_api::ids::{ClusterName, DirectorName};
use isopath_api::observed::{Acknowledged, Observed};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::openapi::Reports;
use super::path::OfDirector;
use super::report::ReportBody;
use crate::app::App;
use crate::auth::Agent;
use crate::control::fleet::Refused;
use crate::control::{Claim, Reported};
use crate::error::Error;
use crate::metrics::{self, OpenStream};

/// The agent drops a stream that was silent for three of these.
const PING_EVERY: Duration = Duration::from_secs(10);

/// How often it is looked whether what opened a stream is still good: a token that was revoked, or
/// that or a certificate has ended.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// An event of the stream of the desired state.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "it is the form that axum writes events in")]
pub(super) struct DesiredEvent {
    /// The epoch and the generation.
    #[schema(example = "3e8467276f5f4b48be8866aa41d186f0:1")]
    id: String,
    /// Always `desired`.
    #[schema(example = "desired")]
    event: String,
    /// A whole desired state, `Desired`, as JSON.
    data: String,
}

/// `GET /clusters/{cluster}/directors/{director}/desired`: the whole desired state as a
/// server-sent event, now and at each change. A reader that is slow gets the latest only.
#[utoipa::path(
    get,
    path = "/clusters/{cluster}/directors/{director}/desired",
    tag = "agents",
    params(("cluster" = ClusterName, Path, description = "The cluster"), ("director" = DirectorName, Path, description = "The director")),
    responses(
        (status = 200, description = "A stream of events, each with a whole desired state", body = DesiredEvent, content_type = "text/event-stream"),
        Reports,
    )
)]
pub(super) async fn desired(
    agent: Agent,
    OfDirector(cluster, director): OfDirector,
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Error> {
    let claim = claim((cluster, director), &headers)?;
    let feed = app.control().attach(claim).await?;
    let ping = KeepAlive::new().interval(PING_EVERY).text("ping");
    let mut looks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ends = Ends {
        shutdown: app.shutdown(),
        looks,
        agent,
        _counted: app.requests().open(metrics::Stream::Desired),
        app,
    };
    let stream = Sse::new(events(feed, ends)).keep_alive(ping);
    // nginx as a TLS proxy would hold events back until its buffer is full.
    Ok(([("x-accel-buffering", "no")], stream))
}

/// Who speaks for which director, by the headers.
fn claim(
    (cluster, director): (ClusterName, DirectorName),
    headers: &HeaderMap,
) -> Result<Claim, Error> {
    Ok(Claim {
        cluster,
        director,
        name: None,
        router_id: from_header(headers, "isopath-router-id")?,
        instance: from_header(headers, "isopath-instance")?,
        protocol: from_header(headers, PROTOCOL_HEADER)?.unwrap_or(1),
    })
}

/// What ends a stream besides the end of the director's place in the declaration, and what
/// counts it until then.
struct Ends {
    shutdown: CancellationToken,
    looks: Interval,
    agent: Agent,
    app: App,
    _counted: OpenStream,
}

impl Ends {
    /// Waits for another desired state; whether there is one and the agent may still have it.
    async fn changed(&mut self, feed: &mut watch::Receiver<Arc<Desired>>) -> bool {
        loop {
            // All are cancel-safe: a change stays unseen until `borrow_and_update`, a tick stays
            // due, and a cancelled token stays so. Nothing more is told to an agent that was
            // revoked.
            let changed = tokio::select! {
                biased;
                () = self.agent.ended.cancelled() => return false,
                () = self.shutdown.cancelled() => return false,
                changed = feed.changed() => changed.is_ok(),
                _ = self.looks.tick() => {
                    if self.agent.is_good(&self.app).await {
                        continue;
                    }
                    return false;
                }
            };
            return changed && self.agent.is_good(&self.app).await;
        }
    }
}

fn events(
    mut feed: watch::Receiver<Arc<Desired>>,
    ends: Ends,
) -> impl Stream<Item = Result<Event, Infallible>> {
    feed.mark_changed();
    unfold((feed, ends), |(mut feed, mut ends)| async move {
        if !ends.changed(&mut feed).await {
            return None;
        }
        let event = event(&feed.borrow_and_update());
        Some((Ok(event), (feed, ends)))
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
#[utoipa::path(
    post,
    path = "/clusters/{cluster}/directors/{director}/observed",
    tag = "agents",
    params(("cluster" = ClusterName, Path, description = "The cluster"), ("director" = DirectorName, Path, description = "The director")),
    request_body = Observed,
    responses((status = 200, description = "What is wanted", body = Acknowledged), Reports)
)]
pub(super) async fn observed(
    _: Agent,
    OfDirector(cluster, director): OfDirector,
    State(app): State<App>,
    headers: HeaderMap,
    body: Result<ReportBody, Error>,
) -> Result<Json<Acknowledged>, Error> {
    let observed = match body {
        Ok(ReportBody(observed)) => observed,
        Err(error) => {
            if error.status().is_client_error() {
                let (code, cause) = (Refused::Malformed, error.in_full());
                let control = app.control();
                control.refused(cluster, director, code, cause).await?;
            }
            return Err(error);
        }
    };
    let claim = claim((cluster, director), &headers)?;
    let reported = Reported { claim, observed };
    app.control().report(reported).await.map(Json)
}
