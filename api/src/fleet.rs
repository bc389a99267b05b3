//! Agents as the controller knows them: how one enrols, and which there are.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::ids::{ClusterName, DirectorName};

/// The protocol between agent and controller: counts what an older party would misunderstand.
pub const PROTOCOL: u32 = 1;

/// The oldest protocol that a controller of this release takes: that of the release before, since
/// the controller is upgraded first.
pub const OLDEST_PROTOCOL: u32 = 1;

/// The header in which an agent says its protocol; 1 where there is none.
pub const PROTOCOL_HEADER: &str = "isopath-protocol";
/// The header in which an agent says the hash of its machine's id.
pub const MACHINE_HEADER: &str = "isopath-machine";

/// The most characters of a request for a certificate in PEM: one of ECDSA P-256 has some 400.
pub const LONGEST_CSR: usize = 4096;
/// The most characters of an operator's words.
const LONGEST_REASON: usize = 500;

/// The body of `POST /enroll-tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EnrollTokenRequest {
    /// The cluster of the director; it need not be declared yet.
    pub cluster: ClusterName,
    /// The director whose agent it makes.
    pub director: DirectorName,
}

/// A one-time token. It is shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrollToken {
    /// The token, for `isopath-agent enroll --token-file`.
    pub token: String,
    /// The cluster of the director.
    pub cluster: ClusterName,
    /// The director whose agent it makes.
    pub director: DirectorName,
    /// Until when it is good.
    pub expires_at: Timestamp,
    /// SHA-256 of the authority's certificate, for `isopath-agent enroll --ca-pin`; nothing where
    /// another authority vouches for the controller.
    pub ca_pin: Option<String>,
}

impl std::fmt::Debug for EnrollToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrollToken")
            .field("cluster", &self.cluster)
            .field("director", &self.director)
            .finish_non_exhaustive()
    }
}

/// The body of `POST /enroll`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// The one-time token.
    #[cfg_attr(feature = "openapi", schema(max_length = 128))]
    pub token: String,
    /// What the agent says of itself.
    pub agent: CertificateRequest,
}

impl std::fmt::Debug for EnrollRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrollRequest")
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

/// What an agent says of itself when it wants a certificate; the body of `POST /agents/renew`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// A certificate signing request (PKCS #10) in PEM, of an ECDSA P-256 key. Only its key is
    /// taken from it.
    #[cfg_attr(feature = "openapi", schema(max_length = 4096))]
    pub csr: String,
    /// A hash of the machine's id: 64 hexadecimal digits.
    #[cfg_attr(
        feature = "openapi",
        schema(pattern = "^[0-9a-f]{64}$", max_length = 64)
    )]
    pub machine: String,
    /// The machine's boot.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
    pub boot: String,
    /// The agent's version.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
    pub version: String,
    /// The agent's protocol.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1))]
    pub protocol: u32,
}

impl CertificateRequest {
    /// What is wrong with it, apart from the request itself; `at` is its own pointer.
    pub fn validate(&self, at: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.csr.len() > LONGEST_CSR {
            let expected = format!("at most {LONGEST_CSR} characters");
            faults.push(Fault::new(format!("{at}/csr"), expected, self.csr.len()));
        }
        if !is_machine(&self.machine) {
            let found = format!("{:?}", shortened(&self.machine));
            faults.push(Fault::new(
                format!("{at}/machine"),
                "64 lower-case hexadecimal digits",
                found,
            ));
        }
        for (key, text) in [("boot", &self.boot), ("version", &self.version)] {
            let visible = text.chars().all(|c| c.is_ascii_graphic());
            if !(1..=64).contains(&text.len()) || !visible {
                let found = format!("{:?}", shortened(text));
                faults.push(Fault::new(
                    format!("{at}/{key}"),
                    "1 to 64 visible ASCII characters",
                    found,
                ));
            }
        }
        if !is_supported(self.protocol) {
            let expected = format!("a protocol from {OLDEST_PROTOCOL} to {PROTOCOL}");
            faults.push(Fault::new(
                format!("{at}/protocol"),
                expected,
                self.protocol,
            ));
        }
        faults
    }
}

/// Whether a controller of this release understands a protocol.
pub fn is_supported(protocol: u32) -> bool {
    (OLDEST_PROTOCOL..=PROTOCOL).contains(&protocol)
}

/// Whether a text is the hash of a machine's id.
pub fn is_machine(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// What an agent gets for its token, and each time that it renews.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Enrolled {
    /// The agent's identity, a UUID: it is in the certificate.
    pub id: String,
    /// The cluster of its director.
    pub cluster: ClusterName,
    /// Its director.
    pub director: DirectorName,
    /// The certificate in PEM.
    pub certificate: String,
    /// The authority that vouches for the controller, in PEM; nothing where that is another than
    /// the controller's own.
    pub ca: Option<String>,
    /// When the certificate was made, by the controller's clock.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// The body of `POST /agents/{id}/revoke`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// The operator's words.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_length = 500))]
    pub reason: String,
}

impl RevokeRequest {
    /// What is wrong with it.
    pub fn validate(&self) -> Vec<Fault> {
        let length = self.reason.chars().count();
        let expected = || format!("at most {LONGEST_REASON} characters");
        let too_long = (length > LONGEST_REASON).then(|| Fault::new("/reason", expected(), length));
        too_long.into_iter().collect()
    }
}

/// Where an agent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum AgentState {
    /// Its certificate is good.
    Enrolled,
    /// Its certificate has ended: it has to enrol again.
    Expired,
    /// It was revoked.
    Revoked,
    /// It has no certificate and reports with a token.
    Token,
}

impl AgentState {
    /// The word used in the API and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Token => "token",
        }
    }
}

/// An agent that has enrolled, or that reports with a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentView {
    /// Its identity; nothing for one that reports with a token.
    pub id: Option<String>,
    /// The cluster of its director.
    pub cluster: ClusterName,
    /// Its director.
    pub director: DirectorName,
    /// Where it stands.
    pub state: AgentState,
    /// Its version.
    pub version: Option<String>,
    /// Its protocol.
    pub protocol: Option<u32>,
    /// A hash of its machine's id.
    pub machine: Option<String>,
    /// When it enrolled.
    pub enrolled_at: Option<Timestamp>,
    /// When its certificate ends.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// By whom.
    pub revoked_by: Option<String>,
    /// Their words.
    pub revoke_reason: Option<String>,
    /// When it reported last, by the controller's clock.
    pub last_seen: Option<Timestamp>,
    /// How far its clock is before the controller's, in milliseconds, by the last report.
    pub clock_skew_ms: Option<i64>,
    /// The generation wanted of its director.
    pub generation: Option<u64>,
    /// The generation that it says is in force.
    pub acknowledged_generation: Option<u64>,
    /// What was refused of it since the controller started, by cause.
    pub refused: BTreeMap<String, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_one_time_token_is_not_printed_by_chance() {
        let token = EnrollToken {
            token: "ispe_secret".to_owned(),
            cluster: "edge".parse().unwrap(),
            director: "d1".parse().unwrap(),
            expires_at: Timestamp::UNIX_EPOCH,
            ca_pin: None,
        };
        let shown = format!("{token:?}");
        assert!(shown.contains("edge"), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
    }
}
