//! What is counted of requests while they are served.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use super::families::{Families, Timings};
use crate::app::App;

/// The bounds of the latencies, in seconds. The figures that are promised lie at 0.02 and 0.05.
const BOUNDS: [f64; 8] = [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.5];

/// What a request that no route took is counted under: its path may be anything.
const NO_ROUTE: &str = "none";

/// The most routes that are told apart, some times more than there are.
const MOST_ROUTES: usize = 256;

/// Counts of requests, streams and sign-ins. Nothing else of a request is kept.
#[derive(Default)]
pub(crate) struct Requests {
    served: Mutex<Served>,
    streams: [Arc<AtomicU64>; Stream::ALL.len()],
    logins: [AtomicU64; LoginOutcome::ALL.len()],
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Requests")
    }
}

#[derive(Default)]
struct Served {
    by_route: BTreeMap<(String, &'static str), Route>,
}

struct Route {
    statuses: BTreeMap<u16, u64>,
    timings: Timings<{ BOUNDS.len() }>,
}

/// What a stream that stays open is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// An agent's, of what is wanted of its director.
    Desired,
    /// A page's, of what it shows.
    Page,
}

impl Stream {
    const ALL: [Self; 2] = [Self::Desired, Self::Page];

    fn as_str(self) -> &'static str {
        match self {
            Self::Desired => "desired",
            Self::Page => "page",
        }
    }
}

/// How a try to sign in ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoginOutcome {
    /// With a session.
    Accepted,
    /// The name or the password was wrong.
    Refused,
    /// There were too many tries.
    Limited,
    /// It was not looked at: the server was busy or failed, or the form was another site's.
    Failed,
}

impl LoginOutcome {
    const ALL: [Self; 4] = [Self::Accepted, Self::Refused, Self::Limited, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Limited => "limited",
            Self::Failed => "failed",
        }
    }
}

/// Counts a stream as open until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenStream(Arc<AtomicU64>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Requests {
    /// Counts a stream as open.
    pub(crate) fn open(&self, stream: Stream) -> OpenStream {
        let open = &self.streams[stream as usize];
        open.fetch_add(1, Ordering::Relaxed);
        OpenStream(Arc::clone(open))
    }

    /// Counts a try to sign in.
    pub(crate) fn login(&self, outcome: LoginOutcome) {
        self.logins[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn served(&self) -> MutexGuard<'_, Served> {
        // Counts are right whatever else a thread that panicked was at.
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, route: Option<MatchedPath>, method: &Method, status: u16, seconds: f64) {
        let mut served = self.served();
        let is_full = served.by_route.len() >= MOST_ROUTES;
        let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
        let mut key = (route.to_owned(), method_name(method));
        if is_full && !served.by_route.contains_key(&key) {
            key = (NO_ROUTE.to_owned(), "other");
        }
        let counted = served.by_route.entry(key).or_insert_with(|| Route {
            statuses: BTreeMap::new(),
            timings: Timings::NONE,
        });
        *counted.statuses.entry(status).or_default() += 1;
        counted.timings.add(&BOUNDS, seconds);
    }

    /// Adds what was counted.
    pub(super) fn write(&self, families: &mut Families) {
        let open = Stream::ALL.map(|of| {
            let open = self.streams[of as usize].load(Ordering::Relaxed);
            ([of.as_str()], open as f64)
        });
        let help = "Actual: streams that are open, by what they are of.";
        families.gauges("isopath_streams_open", help, ["stream"], open);
        let logins = LoginOutcome::ALL.map(|outcome| {
            let count = self.logins[outcome as usize].load(Ordering::Relaxed);
            ([outcome.as_str()], count)
        });
        let help = "Actual: tries to sign in since the controller started, by how they ended.";
        families.counters("isopath_logins_total", help, ["outcome"], logins);
        let served = self.served();
        let statuses = served.by_route.iter().flat_map(|((route, method), of)| {
            of.statuses.iter().map(move |(status, count)| {
                let labels = [route.clone(), (*method).to_owned(), status.to_string()];
                (labels, *count)
            })
        });
        families.counters(
            "isopath_http_requests_total",
            "Actual: requests answered since the controller started, by the route's template; \
             those that no route took are of the route none.",
            ["route", "method", "status"],
            statuses,
        );
        let timings = served.by_route.iter().map(|((route, method), of)| {
            let labels = [route.clone(), (*method).to_owned()];
            (labels, of.timings)
        });
        families.histograms(
            "isopath_http_request_duration_seconds",
            "Actual: the time from a request to the head of its answer; a stream's is over when \
             it begins.",
            (["route", "method"], BOUNDS),
            timings,
        );
    }
}

/// A method's name; one that no route takes may be anything.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Counts each request by its route.
pub(crate) async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let response = next.run(request).await;
    let seconds = began.elapsed().as_secs_f64();
    let requests = app.requests();
    requests.count(route, &method, response.status().as_u16(), seconds);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_counts_while_it_is_open() {
        let requests = Requests::default();
        let text = || {
            let mut families = Families::default();
            requests.write(&mut families);
            families.text().unwrap()
        };
        let one = requests.open(Stream::Desired);
        let two = requests.open(Stream::Desired);
        assert!(text().contains("isopath_streams_open{stream=\"desired\"} 2\n"));
        drop((one, two));
        assert!(text().contains("isopath_streams_open{stream=\"desired\"} 0\n"));
    }

    #[test]
    fn a_latency_is_in_every_bucket_that_it_is_within() {
        let requests = Requests::default();
        for seconds in [0.0005, 0.03, 9.0] {
            requests.count(None, &Method::GET, 404, seconds);
        }
        let mut families = Families::default();
        requests.write(&mut families);
        let text = families.text().unwrap();
        let line = |bound: &str, count: u8| {
            format!(
                "isopath_http_request_duration_seconds_bucket{{route=\"none\",method=\"GET\",\
                 le=\"{bound}\"}} {count}\n"
            )
        };
        for line in [
            line("0.001", 1),
            line("0.02", 1),
            line("0.05", 2),
            line("+Inf", 3),
        ] {
            assert!(text.contains(&line), "no {line} in {text}");
        }
    }

    #[test]
    fn no_request_makes_more_series_than_there_may_be() {
        let requests = Requests::default();
        for n in 0..1000 {
            let method = Method::from_bytes(format!("M{n}").as_bytes()).unwrap();
            requests.count(None, &method, 405, 0.0);
        }
        assert_eq!(requests.served().by_route.len(), 1);
    }
}
