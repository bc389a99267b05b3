//! What is known of the request under way, for its answer, the log and the audit log.

use std::sync::{Arc, OnceLock};

use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use isopath_api::ids::ClusterName;
use uuid::Uuid;

use crate::app::{App, Peer};
use crate::audit::Refusal;
use crate::auth::{By, Via};
use crate::error::Error;

/// The header that names a request's id in its answer.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The routes that answer whoever asks, whatever the request carries. Besides these there are
/// `/metrics` for this host, and what is no route.
pub(crate) const OPEN: [&str; 6] = [
    "/api/openapi.json",
    "/api/v1/enroll",
    "/assets/{name}",
    "/healthz",
    "/login",
    "/readyz",
];

/// The most characters of a path and of a reason that are kept: whoever asks chooses them.
const LONGEST: usize = 300;

tokio::task_local! {
    /// Of the request that this task serves: errors are made far from the request.
    static CURRENT: Arc<str>;
}

/// The id of the request that is being served; nothing outside of one.
pub fn request_id() -> Option<String> {
    CURRENT.try_with(|id| id.to_string()).ok()
}

/// What becomes known of a request on its way, as an extension of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    known: Arc<OnceLock<(String, Via)>>,
}

impl Asked {
    /// Notes who asks, also where they are refused afterwards.
    pub(crate) fn note(parts: &Parts, name: &str, via: Via) {
        if let Some(asked) = parts.extensions.get::<Self>() {
            asked.known.get_or_init(|| (name.to_owned(), via));
        }
    }
}

/// Why a request was refused, as an extension of its answer.
#[derive(Debug, Clone)]
pub(crate) struct Why(pub(crate) String);

/// Gives each request an id, which its answer carries, and tells the audit log of refusals.
pub(crate) async fn identify(State(app): State<App>, request: Request, next: Next) -> Response {
    // Never the client's own: whoever asks must not choose what the log says.
    let id: Arc<str> = Uuid::now_v7().to_string().into();
    let (mut parts, body) = request.into_parts();
    let asked = Asked::default();
    parts.extensions.insert(asked.clone());
    let what = What::of(&parts);
    let shows_something = [header::AUTHORIZATION, header::COOKIE]
        .iter()
        .any(|header| parts.headers.contains_key(header))
        || Peer::has_certificate(&parts);
    // Anybody may send such a header: it is worth something only where somebody looks at it.
    let is_looked_at = shows_something && !what.is_open();
    let anonymous = || app.limits().anonymous(what.peer, app.clock().now());
    let allowed = match is_looked_at {
        true => Ok(()),
        false => anonymous(),
    };
    let within = app.limits().request_timeout();
    let answer = async move {
        match allowed {
            // A stream's answer begins at once; what takes long is a body that does not come.
            Ok(()) => {
                let served = next.run(Request::from_parts(parts, body));
                let served = tokio::time::timeout(within, served).await;
                let within_s = within.as_secs();
                served.unwrap_or_else(|_| Error::TooSlow { within_s }.into_response())
            }
            Err(error) => error.into_response(),
        }
    };
    let mut response = CURRENT.scope(Arc::clone(&id), answer).await;
    // What the request showed was worth nothing, so nothing was done: it counts as one that
    // showed nothing.
    let is_nobody = asked.known.get().is_none() || response.status() == StatusCode::UNAUTHORIZED;
    if is_looked_at
        && is_nobody
        && let Err(error) = anonymous()
    {
        response = error.into_response();
    }
    if let Some(refusal) = what.refusal(&asked, &id, &response) {
        app.audit().refused(refusal);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// What is asked for.
struct What {
    method: axum::http::Method,
    /// With the names of what it may have in it, such as `/clusters/{cluster}`.
    route: Option<MatchedPath>,
    path: String,
    peer: std::net::IpAddr,
}

impl What {
    fn of(parts: &Parts) -> Self {
        Self {
            method: parts.method.clone(),
            route: parts.extensions.get::<MatchedPath>().cloned(),
            path: shortened(parts.uri.path()),
            peer: Peer::of(parts),
        }
    }

    /// Whether it answers whoever asks.
    fn is_open(&self) -> bool {
        let route = self.route.as_ref().map(MatchedPath::as_str);
        route.is_none_or(|route| OPEN.contains(&route))
    }

    /// The refusal that an answer is; nothing where it is none that is worth an entry.
    fn refusal(self, asked: &Asked, id: &str, response: &Response) -> Option<Refusal> {
        let status = response.status();
        let known = asked.known.get();
        let route = self.route.as_ref().map_or("", MatchedPath::as_str);
        let is_login = route == "/login";
        let counts = match status {
            StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => is_login || known.is_some(),
            StatusCode::FORBIDDEN
            | StatusCode::CONFLICT
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::UNPROCESSABLE_ENTITY => true,
            _ => false,
        };
        if !counts {
            return None;
        }
        let (name, via) = known.cloned().unwrap_or((String::new(), Via::Nothing));
        let why = response.extensions().get::<Why>();
        Some(Refusal {
            by: By {
                name,
                via,
                peer: Some(self.peer),
                request_id: Some(id.to_owned()),
            },
            action: format!("{} {route}", self.method),
            cluster: cluster_of(route, &self.path),
            object: self.path,
            status: status.as_u16(),
            detail: why.map_or(String::new(), |Why(why)| shortened(why)),
        })
    }
}

/// The cluster in a path, which its route says where to find.
fn cluster_of(route: &str, path: &str) -> Option<ClusterName> {
    let mut parts = route.split('/').zip(path.split('/'));
    let (_, name) = parts.find(|(part, _)| *part == "{cluster}")?;
    name.parse().ok()
}

fn shortened(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_of_a_path_is_where_its_route_has_it() {
        let route = "/api/v1/clusters/{cluster}/directors/{director}";
        let of = |path| cluster_of(route, path).map(|name| name.to_string());
        assert_eq!(
            of("/api/v1/clusters/edge/directors/d1").as_deref(),
            Some("edge")
        );
        assert_eq!(of("/api/v1/clusters/No!/directors/d1"), None);
        assert_eq!(cluster_of("/api/v1/events", "/api/v1/events"), None);
        assert_eq!(cluster_of("", "/"), None);
    }

    #[test]
    fn what_whoever_asks_chose_is_cut() {
        assert_eq!(shortened(&"ä".repeat(1000)).chars().count(), LONGEST);
    }
}
