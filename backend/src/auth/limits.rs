//! How often anybody may ask.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use isopath_api::fault::Fault;
use isopath_api::ids::{ClusterName, DirectorName};
use serde::Deserialize;

use super::places::{Place, Places};
use super::rate::{Buckets, counted_as};
use crate::clock::Moment;
use crate::error::Error;

/// `[limits]`: how often anybody may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Tries to sign in that one address has a minute.
    pub logins_per_minute: u32,
    /// Requests that one user or token has a second; twice as many at once.
    pub api_per_second: u32,
    /// Reports and streams that one director has a second; five times as many at once. An agent
    /// reports each second, and at once of each step of a change: one that is refused here is
    /// silent for seconds, so the limit is far from what a director in trouble has to tell.
    pub reports_per_second: u32,
    /// Requests without a token or a session that one address has a second; twice as many at
    /// once. Loopback addresses have no limit: everybody behind a proxy has that one.
    pub anonymous_per_second: u32,
    /// Connections open at a time.
    pub connections: u32,
    /// How long the headers of a request may take, and a connection may stay open between two.
    #[serde(with = "isopath_api::duration")]
    pub header_timeout: Duration,
    /// How long a request may take until its answer begins, with its body.
    #[serde(with = "isopath_api::duration")]
    pub request_timeout: Duration,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            logins_per_minute: 20,
            api_per_second: 50,
            reports_per_second: 10,
            anonymous_per_second: 50,
            connections: 8192,
            header_timeout: Duration::from_secs(35),
            request_timeout: Duration::from_secs(30),
        }
    }
}

impl LimitSettings {
    /// The most that any of them can be.
    const MOST: u32 = 1_000_000;

    /// What is wrong with them.
    pub fn faults(&self) -> Vec<Fault> {
        [
            ("logins_per_minute", self.logins_per_minute),
            ("api_per_second", self.api_per_second),
            ("reports_per_second", self.reports_per_second),
            ("anonymous_per_second", self.anonymous_per_second),
            ("connections", self.connections),
        ]
        .into_iter()
        .filter(|(_, value)| !(1..=Self::MOST).contains(value))
        .map(|(key, value)| {
            let expected = format!("a number of 1 to {}", Self::MOST);
            Fault::new(format!("/limits/{key}"), expected, value)
        })
        .chain(
            [
                ("header_timeout", self.header_timeout),
                ("request_timeout", self.request_timeout),
            ]
            .into_iter()
            .filter(|(_, time)| !TIMES.contains(time))
            .map(|(key, time)| {
                let expected = "a time of 100ms to 10m";
                Fault::new(format!("/limits/{key}"), expected, format_args!("{time:?}"))
            }),
        )
        .collect()
    }
}

/// The times that may be waited for a client.
const TIMES: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(600);

/// A director's reports at once, in seconds of its rate.
const REPORTS_AT_ONCE: u32 = 5;

/// Certificates that one agent may have made at once, and how often one more. Each is signed,
/// committed and kept in the audit log; an agent wants one in twenty days.
const RENEWALS: (u32, Duration) = (5, Duration::from_secs(60));

/// Streams to pages that one user may have open: many times a person's tabs, and few of the
/// connections that there are.
const STREAMS: u32 = 64;

/// What is left of the limits, in memory alone.
#[derive(Debug)]
pub(crate) struct Limits {
    api: Mutex<Buckets<String>>,
    /// By director and not by token: a fleet may share one.
    reports: Mutex<Buckets<(ClusterName, Reporter)>>,
    renewals: Mutex<Buckets<(ClusterName, DirectorName)>>,
    anonymous: Mutex<Buckets<IpAddr>>,
    /// By their users.
    streams: Places<String>,
    request_timeout: Duration,
}

/// Who reports, within a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Reporter {
    /// The agent of a declared director.
    Of(DirectorName),
    /// Whoever speaks for a director that is not declared: all of them together, since there is
    /// no end of such names.
    Undeclared,
    /// Whoever is refused with the certificate of this director's agent, which itself may be
    /// well: it does not share its limit with them.
    Refused(DirectorName),
}

impl Limits {
    pub(crate) fn new(settings: &LimitSettings) -> Self {
        let buckets = |per_second: u32, bursts: u32| {
            let every = Duration::from_secs(1) / per_second.max(1);
            (per_second.saturating_mul(bursts), every)
        };
        let (api, reports, anonymous) = (
            buckets(settings.api_per_second, 2),
            buckets(settings.reports_per_second, REPORTS_AT_ONCE),
            buckets(settings.anonymous_per_second, 2),
        );
        Self {
            api: Mutex::new(Buckets::new(api.0, api.1)),
            reports: Mutex::new(Buckets::new(reports.0, reports.1)),
            renewals: Mutex::new(Buckets::new(RENEWALS.0, RENEWALS.1)),
            anonymous: Mutex::new(Buckets::new(anonymous.0, anonymous.1)),
            streams: Places::new(STREAMS),
            request_timeout: settings.request_timeout,
        }
    }

    /// How long a request may take until its answer begins.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// A request of somebody known.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub(crate) fn api(&self, name: &str, now: Moment) -> Result<(), Error> {
        take(&self.api, &name.to_owned(), now)
    }

    /// A report of a director's agent, or a stream to it; nothing for a director that is not
    /// declared.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub(crate) fn report(
        &self,
        cluster: &ClusterName,
        director: Option<&DirectorName>,
        now: Moment,
    ) -> Result<(), Error> {
        let director = director.cloned();
        let reporter = director.map_or(Reporter::Undeclared, Reporter::Of);
        take(&self.reports, &(cluster.clone(), reporter), now)
    }

    /// A request that is refused although it shows the certificate of a director's agent.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub(crate) fn refused(
        &self,
        cluster: &ClusterName,
        director: &DirectorName,
        now: Moment,
    ) -> Result<(), Error> {
        let reporter = Reporter::Refused(director.clone());
        take(&self.reports, &(cluster.clone(), reporter), now)
    }

    /// A certificate for a director's agent that has one.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub(crate) fn renewal(
        &self,
        cluster: &ClusterName,
        director: &DirectorName,
        now: Moment,
    ) -> Result<(), Error> {
        take(&self.renewals, &(cluster.clone(), director.clone()), now)
    }

    /// A stream to a page of a user, which holds its place while it is open.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub(crate) fn stream(&self, user: &str) -> Result<Place<String>, Error> {
        let place = self.streams.take(&user.to_owned());
        place.ok_or(Error::TooMany { retry_after_s: 5 })
    }

    /// A request of somebody unknown.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub(crate) fn anonymous(&self, peer: IpAddr, now: Moment) -> Result<(), Error> {
        if peer.to_canonical().is_loopback() {
            return Ok(());
        }
        take(&self.anonymous, &counted_as(peer), now)
    }
}

fn take<K: Eq + std::hash::Hash + Clone>(
    buckets: &Mutex<Buckets<K>>,
    key: &K,
    now: Moment,
) -> Result<(), Error> {
    // Never held over an await, and a panic leaves nothing half done behind it.
    let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
    buckets
        .take(key, now.instant)
        .map_err(|wait| Error::TooMany {
            retry_after_s: wait.as_secs() + 1,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn each_has_limits_of_their_own() {
        let limits = Limits::new(&LimitSettings {
            api_per_second: 1,
            reports_per_second: 1,
            anonymous_per_second: 1,
            ..LimitSettings::default()
        });
        let now = Clock::default().now();
        let edge = "edge".parse().unwrap();
        for _ in 0..2 {
            limits.api("ada", now).unwrap();
        }
        assert!(matches!(
            limits.api("ada", now),
            Err(Error::TooMany {
                retry_after_s: 1..=2
            })
        ));
        limits.api("bob", now).unwrap();
        let [d1, d2] = ["d1", "d2"].map(|name| name.parse().unwrap());
        for _ in 0..REPORTS_AT_ONCE {
            limits.report(&edge, Some(&d1), now).unwrap();
        }
        assert!(limits.report(&edge, Some(&d1), now).is_err());
        limits.report(&edge, Some(&d2), now).unwrap();
        limits.report(&edge, None, now).unwrap();
        limits.refused(&edge, &d1, now).unwrap();
        for _ in 0..RENEWALS.0 {
            limits.renewal(&edge, &d1, now).unwrap();
        }
        assert!(limits.renewal(&edge, &d1, now).is_err());
        limits.renewal(&edge, &d2, now).unwrap();
        let (far, near) = ("192.0.2.1".parse().unwrap(), "127.0.0.1".parse().unwrap());
        for _ in 0..2 {
            limits.anonymous(far, now).unwrap();
        }
        assert!(limits.anonymous(far, now).is_err());
        for _ in 0..100 {
            limits.anonymous(near, now).unwrap();
        }
    }

    #[test]
    fn a_limit_of_nothing_is_a_fault() {
        let settings = LimitSettings {
            api_per_second: 0,
            ..LimitSettings::default()
        };
        let faults = settings.faults();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].pointer, "/limits/api_per_second");
    }
}
