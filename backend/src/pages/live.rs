//! `/live`: the sections of a page, sent again as they change (server-sent events).
//!
//! `frag` carries the HTML of one section, `tick` the server's time every five seconds. A
//! stream that was opened again starts with every section, so nothing has to be replayed. It
//! ends when the server stops, the session ends or the cluster is gone.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use isopath_api::ids::ClusterName;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::cluster::Fragment;
use crate::app::App;
use crate::asked::Asked;
use crate::auth::{Place, Via};
use crate::metrics::{self, OpenStream};

/// How long a section stays as it is after it was sent.
const HOLD: Duration = Duration::from_secs(1);

/// The least time between two looks at the cluster: many directors report each second.
const LOOK: Duration = Duration::from_millis(50);

/// The page takes three missed ticks for a dead stream.
const TICK: Duration = Duration::from_secs(5);

/// What a stream is of.
#[derive(Debug, Deserialize)]
#[serde(tag = "page", rename_all = "lowercase")]
pub(super) enum Subject {
    /// The sections of a cluster's page.
    Cluster { cluster: ClusterName },
}

/// `GET /live?page=cluster&cluster=c`.
pub(super) async fn get(
    State(app): State<App>,
    Query(Subject::Cluster { cluster }): Query<Subject>,
    parts: Parts,
) -> Response {
    let session = match app.session(&parts.headers).await {
        Ok(Some(session)) => session,
        Ok(None) => return StatusCode::UNAUTHORIZED.into_response(),
        Err(error) => return error.into_response(),
    };
    Asked::note(&parts, &session.user, Via::Session);
    let allowed = app.limits().api(&session.user, app.clock().now());
    let place = match allowed.and_then(|()| app.limits().stream(&session.user)) {
        Ok(place) => place,
        Err(error) => return error.into_response(),
    };
    if app.cluster_view(&cluster).is_none() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let feed = Feed::new(app, cluster, parts.headers, (session.may_operate(), place));
    Sse::new(stream::unfold(feed, Feed::next)).into_response()
}

/// One browser's stream.
struct Feed {
    app: App,
    cluster: ClusterName,
    /// Of the request: they carry the cookie that is looked at again.
    headers: HeaderMap,
    /// As the session has it, which ends when its user's role changes.
    may_operate: bool,
    changes: watch::Receiver<u64>,
    shutdown: CancellationToken,
    ticks: Interval,
    pacer: Pacer,
    /// When to look at the cluster next.
    look_at: Option<Instant>,
    /// The earliest that may be.
    not_before: Instant,
    /// Whether a change was heard of since the last look.
    changed: bool,
    /// Counts it as open.
    _open: OpenStream,
    /// Its place among its user's.
    _place: Place<String>,
    /// At most one look's events and a tick, so it needs no bound of its own.
    queue: VecDeque<Event>,
}

impl Feed {
    fn new(
        app: App,
        cluster: ClusterName,
        headers: HeaderMap,
        (may_operate, place): (bool, Place<String>),
    ) -> Self {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            changes: app.changes(),
            shutdown: app.shutdown(),
            _open: app.requests().open(metrics::Stream::Page),
            _place: place,
            app,
            cluster,
            headers,
            may_operate,
            ticks,
            pacer: Pacer::default(),
            look_at: None,
            not_before: Instant::now(),
            changed: false,
            queue: VecDeque::new(),
        }
    }

    /// The stream's next event; nothing at its end.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some((Ok(event), self));
            }
            self.wait().await?;
        }
    }

    /// Waits for something to send and queues it; nothing at the stream's end.
    async fn wait(&mut self) -> Option<()> {
        // Every arm is cancel-safe: a change stays marked until it is seen, an interval and a
        // deadline are only waited for, a cancelled token stays cancelled. In this order a
        // stream starts with the server's time, by which the page then counts ages.
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            _ = self.ticks.tick() => {
                self.tick().await?;
                self.look()
            }
            changed = self.changes.changed(), if !self.changed => {
                changed.ok()?;
                self.changed = true;
                self.look_by(self.not_before);
                Some(())
            }
            () = at(self.look_at) => self.look(),
        }
    }

    fn look_by(&mut self, deadline: Instant) {
        self.look_at = Some(self.look_at.map_or(deadline, |at| at.min(deadline)));
    }

    /// Queues the time, while the session lasts.
    async fn tick(&mut self) -> Option<()> {
        // A database that fails for a moment does not sign anyone out.
        if matches!(self.app.session(&self.headers).await, Ok(None)) {
            return None;
        }
        let now = Timestamp::now().to_string();
        self.queue
            .push_back(Event::default().event("tick").data(now));
        Some(())
    }

    /// Queues the sections that differ from what the browser has and may be sent by now. A
    /// section may also change without a change of the state: by what has grown old.
    fn look(&mut self) -> Option<()> {
        let number = *self.changes.borrow_and_update();
        let view = self.app.cluster_view(&self.cluster)?;
        let started = self.app.world().started.wall.as_millisecond();
        let id = format!("{started}-{number}");
        let now = Instant::now();
        let offer = self
            .pacer
            .offer(Fragment::all(&view, self.may_operate), now);
        for html in offer.due {
            let event = Event::default().event("frag").id(&id).data(html);
            self.queue.push_back(event);
        }
        self.look_at = offer.again;
        self.not_before = now + LOOK;
        self.changed = false;
        Some(())
    }
}

/// Waits for a deadline, for ever when there is none.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What a browser has, and since when.
#[derive(Debug, Default)]
struct Pacer {
    sent: Vec<(Fragment, Instant)>,
}

/// What to send now, and when to look again for what had to wait.
#[derive(Debug, PartialEq)]
struct Offer {
    due: Vec<String>,
    again: Option<Instant>,
}

impl Pacer {
    /// Compares the page's sections with those sent, in the same order.
    fn offer(&mut self, fragments: Vec<Fragment>, now: Instant) -> Offer {
        let mut offer = Offer {
            due: Vec::new(),
            again: None,
        };
        for (index, fragment) in fragments.into_iter().enumerate() {
            match self.sent.get_mut(index) {
                Some((sent, _)) if *sent == fragment => {}
                Some((_, at)) if now < *at + HOLD => {
                    let again = *at + HOLD;
                    offer.again = Some(offer.again.map_or(again, |sooner| sooner.min(again)));
                }
                Some(slot) => {
                    offer.due.push(fragment.to_string());
                    *slot = (fragment, now);
                }
                None => {
                    offer.due.push(fragment.to_string());
                    self.sent.push((fragment, now));
                }
            }
        }
        offer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::fixture;

    #[test]
    fn the_first_change_goes_out_at_once_and_the_next_a_second_later() {
        let mut pacer = Pacer::default();
        let start = Instant::now();
        let healthy = fixture::healthy();
        let first = pacer.offer(Fragment::all(&healthy, true), start);
        assert_eq!(
            first.due.len(),
            Fragment::all(&healthy, true).len(),
            "all of the page"
        );

        let later = start + Duration::from_secs(10);
        let mut busy = healthy.clone();
        busy.directors[0].active += 1;
        let changed = pacer.offer(Fragment::all(&busy, true), later);
        assert_eq!(changed.again, None);
        assert!(
            changed
                .due
                .iter()
                .any(|html| html.contains("id=\"directors\""))
        );
        assert!(!changed.due.iter().any(|html| html.contains("id=\"vips\"")));

        let soon = later + Duration::from_millis(300);
        busy.directors[0].active += 1;
        let held = pacer.offer(Fragment::all(&busy, true), soon);
        assert_eq!(held.due, Vec::<String>::new(), "at most one a second");
        assert_eq!(held.again, Some(later + HOLD));

        let mut drained = busy.clone();
        drained.events.clear();
        let other = pacer.offer(Fragment::all(&drained, true), soon);
        assert_eq!(other.due.len(), 1, "the pace of one section holds no other");

        let released = pacer.offer(Fragment::all(&drained, true), later + HOLD);
        assert!(
            released
                .due
                .iter()
                .any(|html| html.contains("id=\"directors\""))
        );
        assert_eq!(released.again, None);
    }

    #[test]
    fn time_alone_changes_nothing() {
        let mut pacer = Pacer::default();
        let start = Instant::now();
        let mut view = fixture::narrow();
        pacer.offer(Fragment::all(&view, true), start);
        view.as_of = view.as_of.checked_add(Duration::from_secs(2)).unwrap();
        let offer = pacer.offer(Fragment::all(&view, true), start + Duration::from_secs(2));
        assert_eq!(
            offer.due,
            Vec::<String>::new(),
            "ages are the page's to count"
        );
    }
}
