//! The controller's REST API.

use isopath_api::ids::ClusterName;
use isopath_api::problem::Problem;
use isopath_api::view::ClusterSummary;
use reqwest::Method;
use reqwest::blocking::{Client, Response};
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
        let client = Client::builder()
            .timeout(Duration::from_secs(15))
            .user_agent(concat!("isopath/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|source| Failure::Unreachable {
                url: url.clone(),
                source,
            })?;
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

    /// Sends a body to a resource under `/api/v1`.
    pub(crate) fn send<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Q>,
    ) -> Result<A, Failure> {
        let unreachable = |source| Failure::Unreachable {
            url: self.url.clone(),
            source,
        };
        let mut request = self
            .client
            .request(method, format!("{}/api/v1{path}", self.url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().map_err(unreachable)?;
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
            return serde_json::from_slice(&body).map_err(|error| unexpected(error.to_string()));
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
