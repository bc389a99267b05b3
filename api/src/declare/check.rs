//! How real servers are checked.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{ParseIdError, serde_as_text};

/// How a service's real servers are checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CheckSpec {
    /// What is tried.
    #[serde(rename = "type")]
    pub kind: CheckKind,
    /// The port to check; the real server's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65535))]
    pub port: Option<u16>,
    /// The request's path (HTTP, HTTPS); `/` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 1024, pattern = "^/"))]
    pub path: Option<String>,
    /// The request's host and the TLS server name (HTTP, HTTPS); the VIP when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 253))]
    pub host: Option<String>,
    /// The statuses that count as success (HTTP, HTTPS); 200-399 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusRange>,
    /// Whether an HTTPS check verifies the certificate against the system's roots.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify: bool,
    /// The time from the start of one try to the start of the next.
    #[serde(default = "default_interval", with = "crate::duration")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "1s"))]
    pub interval: Duration,
    /// The time after which a try has failed; at most the interval.
    #[serde(default = "default_timeout", with = "crate::duration")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "1s"))]
    pub timeout: Duration,
    /// Successes in a row that make a real server healthy.
    #[serde(default = "default_rise")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub rise: u16,
    /// Failures in a row that make it unhealthy.
    #[serde(default = "default_rise")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub fall: u16,
}

fn default_interval() -> Duration {
    Duration::from_secs(1)
}

fn default_timeout() -> Duration {
    Duration::from_millis(500)
}

fn default_rise() -> u16 {
    2
}

/// What a check tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// Nothing: the real servers count as healthy.
    None,
    /// The TCP handshake.
    Tcp,
    /// A GET over HTTP/1.1.
    Http,
    /// A GET over HTTP/1.1 in TLS.
    Https,
}

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// An inclusive range of HTTP statuses, written `200-399` or `204`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatusRange {
    /// The lowest status.
    pub from: u16,
    /// The highest status.
    pub to: u16,
}

impl StatusRange {
    /// What counts as success when a check does not say.
    pub const DEFAULT: Self = Self { from: 200, to: 399 };

    /// Whether `status` lies in the range.
    pub fn contains(self, status: u16) -> bool {
        (self.from..=self.to).contains(&status)
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            self.from.fmt(f)
        } else {
            write!(f, "{}-{}", self.from, self.to)
        }
    }
}

impl FromStr for StatusRange {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseIdError {
            expected: "a status range such as 200-399, within 100 to 599",
            found: text.to_owned(),
        };
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let from = from.parse().map_err(|_| error())?;
        let to = to.parse().map_err(|_| error())?;
        if (100..=to).contains(&from) && to <= 599 {
            Ok(Self { from, to })
        } else {
            Err(error())
        }
    }
}

serde_as_text!(StatusRange);
