//! The controller's REST API.

use isopath_api::ids::ClusterName;
use isopath_api::problem::Problem;
use isopath_api::view::ClusterSummary;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{HeaderMap, LINK};
use reqwest::{Certificate, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

use crate::args::Target;
use crate::failure::Failure;

/// A client of one controller.
pub(crate) struct Controller {
    client: Client,
    url: String,
    token: Option<String>,
}

impl Controller {
    /// The controller that the command line and `ISOPATH_TOKEN` name. The token is not an
    /// option, since arguments are seen by every user of the machine.
    pub(crate) fn new(target: &Target) -> Result<Self, Failure> {
        if let Err(other) = rustls::crypto::ring::default_provider().install_default() {
            // Someone installed one before: it serves as well.
            drop(other);
        }
        let url = target.url.trim_end_matches('/').to_owned();
        let failed = |source| Failure::Unreachable {
            url: url.clone(),
            source,
        };
        let mut client = Client::builder()
            .timeout(Duration::from_secs(15))
            .user_agent(concat!("isopath/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &target.ca_file {
            let pem = std::fs::read(path).map_err(|source| Failure::Read {
                path: path.clone(),
                source,
            })?;
            let authorities = Certificate::from_pem_bundle(&pem).map_err(failed)?;
            client = client.tls_certs_merge(authorities);
        }
        let client = client.build().map_err(failed)?;
        Ok(Self {
            client,
            url,
            token: std::env::var("ISOPATH_TOKEN").ok(),
        })
    }

    /// Reads a resource under `/api/v1`.
    pub(crate) fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, Failure> {
        self.send::<(), A>(Method::GET, path, None)
    }

    /// Reads a list under `/api/v1` to its end, page by page.
    pub(crate) fn all<A: DeserializeOwned>(&self, path: &str) -> Result<Vec<A>, Failure> {
        let mut all = Vec::new();
        let mut path = Some(path.to_owned());
        while let Some(page) = path.take() {
            let request = self.request(Method::GET, &page);
            let response = request.send().map_err(|source| Failure::Unreachable {
                url: self.url.clone(),
                source,
            })?;
            path = next_page(response.headers());
            all.extend(self.read::<Vec<A>>(response)?);
        }
        Ok(all)
    }

    /// Replaces a resource under `/api/v1` that is at `revision`, or makes it where there is
    /// none yet. It is refused where that is no longer so.
    pub(crate) fn put<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        revision: Option<u64>,
        body: &Q,
    ) -> Result<A, Failure> {
        let request = self.request(Method::PUT, path);
        let request = match revision {
            Some(revision) => request.header("if-match", format!("\"r{revision}\"")),
            None => request.header("if-none-match", "*"),
        };
        self.answer(request.json(body))
    }

    /// Sends a body to a resource under `/api/v1`.
    pub(crate) fn send<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Q>,
    ) -> Result<A, Failure> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.answer(request)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .client
            .request(method, format!("{}/api/v1{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    fn answer<A: DeserializeOwned>(&self, request: RequestBuilder) -> Result<A, Failure> {
        let response = request.send().map_err(|source| Failure::Unreachable {
            url: self.url.clone(),
            source,
        })?;
        self.read(response)
    }

    fn read<A: DeserializeOwned>(&self, response: Response) -> Result<A, Failure> {
        let status = response.status();
        let body = response.bytes().map_err(|source| Failure::Unreachable {
            url: self.url.clone(),
            source,
        })?;
        let unexpected = |what: String| Failure::Answer {
            peer: self.url.clone(),
            what,
        };
        if status.is_success() {
            // What was deleted is answered with nothing.
            let body: &[u8] = if body.is_empty() { b"null" } else { &body };
            return serde_json::from_slice(body).map_err(|error| unexpected(error.to_string()));
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(Failure::Problem(Box::new(problem))),
            Err(_) => Err(unexpected(format!("HTTP {status} without problem details"))),
        }
    }

    /// The cluster named on the command line, or the only one there is.
    pub(crate) fn cluster(&self, target: &Target) -> Result<ClusterName, Failure> {
        if let Some(name) = &target.cluster {
            return Ok(name.clone());
        }
        let clusters: Vec<ClusterSummary> = self.get("/clusters")?;
        match clusters.as_slice() {
            [only] => Ok(only.name.clone()),
            [] => Err(Failure::Usage(
                "no cluster is declared yet; declare one: isopath apply FILE --cluster NAME"
                    .to_owned(),
            )),
            several => {
                let names: Vec<_> = several.iter().map(|c| c.name.as_str()).collect();
                Err(Failure::Usage(format!(
                    "which cluster? --cluster {}",
                    names.join("|")
                )))
            }
        }
    }
}

/// Where a list goes on, under `/api/v1`: the target of its `Link` header (RFC 8288) with
/// `rel="next"`; nothing at the end.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|it| it.trim() == "rel=\"next\"");
    let path = target.strip_prefix("/api/v1")?;
    is_next.then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_goes_on_where_its_link_says() {
        let next = |link: &'static str| {
            let headers = [(LINK, link.parse().unwrap())];
            next_page(&headers.into_iter().collect())
        };
        let link = "</api/v1/agents?limit=50&cursor=edge%2Fd1-0a>; rel=\"next\"";
        let expected = "/agents?limit=50&cursor=edge%2Fd1-0a";
        assert_eq!(next(link).as_deref(), Some(expected));
        assert_eq!(next("</api/v1/agents>; rel=\"prev\""), None);
        assert_eq!(
            next("<https://elsewhere/api/v1/agents>; rel=\"next\""),
            None
        );
        assert_eq!(next_page(&HeaderMap::new()), None);
    }
}
