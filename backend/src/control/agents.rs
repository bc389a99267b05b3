//! Agents: which one is a director's, and what it reports.

use std::sync::Arc;
use std::time::Duration;

use isopath_api::desired::Desired;
use isopath_api::fleet::{OLDEST_PROTOCOL, PROTOCOL, is_supported};
use isopath_api::ids::{ClusterName, DirectorName};
use isopath_api::observed::Acknowledged;
use isopath_api::view::Severity;
use tokio::sync::watch;

use super::actor::Actor;
use super::fleet::Refused;
use super::state::{CONFLICT_SHOWN, Conflict, DirectorState, RefusedCount, Report, STALE};
use super::{Claim, Reported, plausible};
use crate::clock::Moment;
use crate::error::Error;

/// How often an agent reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Why an agent is not the one that belongs to a director; nothing when it may be.
///
/// The agent heard last keeps its place until it was silent for [`STALE`]; so does, for as
/// long after the controller's start, the one heard last before.
fn refusal(
    name: &DirectorName,
    director: &DirectorState,
    claim: &Claim,
    now: Moment,
    started: Moment,
) -> Option<String> {
    if let Some(claimed) = claim.name.as_ref().filter(|claimed| *claimed != name) {
        return Some(format!(
            "an agent that calls itself {claimed} speaks for {name}"
        ));
    }
    if let Some(router_id) = claim.router_id.filter(|id| *id != director.router_id) {
        return Some(format!(
            "an agent with router id {router_id} speaks for {name}, whose declared router id \
             is {}",
            director.router_id
        ));
    }
    let holder = director.instance.as_deref()?;
    let heard = director
        .report
        .as_ref()
        .map_or(started, |report| report.received);
    let claimed = claim.instance.as_deref()?;
    (claimed != holder && now.since(heard) <= STALE).then(|| {
        format!(
            "a second agent (instance {claimed}) speaks for {name} while the first (instance \
             {holder}) is there"
        )
    })
}

impl Actor {
    /// Joins an agent to its director's desired states.
    pub(super) async fn attach(
        &mut self,
        claim: Claim,
    ) -> Result<watch::Receiver<Arc<Desired>>, Error> {
        self.admit(&claim).await?;
        self.feeds
            .get(&(claim.cluster, claim.director.clone()))
            .map(watch::Sender::subscribe)
            .ok_or_else(|| Error::not_found(format_args!("director {}", claim.director)))
    }

    /// Takes a report that came at `arrived`: what is done meanwhile makes it older.
    pub(super) async fn report(
        &mut self,
        reported: Reported,
        arrived: Moment,
    ) -> Result<Acknowledged, Error> {
        let Reported { claim, observed } = reported;
        let claim = Claim {
            name: Some(observed.director.clone()),
            router_id: Some(observed.router_id),
            instance: Some(observed.instance.clone()),
            ..claim
        };
        self.admit(&claim).await?;
        let protocol = claim.protocol;
        let Claim {
            cluster, director, ..
        } = claim;
        let now = self.now();
        let state = self.director(&cluster, &director)?;
        let acknowledged = Acknowledged {
            epoch: self.world.epoch.clone(),
            generation: state.generation,
            interval_ms: u64::try_from(REPORT_EVERY.as_millis()).unwrap_or(u64::MAX),
        };
        // Somebody on the way sent it once more.
        if plausible::is_repeated(&observed, state) {
            return Ok(acknowledged);
        }
        let of = self.cluster(&cluster)?;
        if let Some((code, error)) = plausible::refusal(&observed, of, state, now.wall) {
            let cause = error.in_full();
            self.refuse((&cluster, &director), code, cause).await;
            return Err(error);
        }
        if state.instance.as_deref() != Some(&observed.instance) {
            self.change_instance(&cluster, &director, &observed.instance)
                .await?;
        }
        if let Some(interfaces) = self
            .director(&cluster, &director)?
            .other_interfaces(&observed)
        {
            self.agent_changed(&cluster, &director);
            self.update(&cluster, |cluster| {
                if let Some(director) = cluster.directors.get_mut(&director) {
                    director.interfaces = Some(interfaces.into());
                }
            });
        }
        let report = Report {
            observed: Arc::new(observed),
            received: arrived,
        };
        self.update(&cluster, |cluster| {
            if let Some(director) = cluster.directors.get_mut(&director) {
                director.skewed = report.is_skewed().then(|| director.skewed.unwrap_or(now));
                director.protocol = Some(protocol);
                director.report = Some(report);
                director.reports += 1;
            }
        });
        self.advance(&cluster).await;
        self.unpublished = true;
        Ok(acknowledged)
    }

    /// Refuses an agent that does not belong to its director, and shows it.
    async fn admit(&mut self, claim: &Claim) -> Result<(), Error> {
        let now = self.now();
        let place = (&claim.cluster, &claim.director);
        let director = self.director(place.0, place.1)?;
        if !is_supported(claim.protocol) {
            let cause = format!(
                "an agent speaks protocol {}, and this controller {OLDEST_PROTOCOL} to {PROTOCOL}",
                claim.protocol
            );
            self.refuse(place, Refused::Protocol, cause.clone()).await;
            return Err(Error::conflict(cause));
        }
        let Some(cause) = refusal(&claim.director, director, claim, now, self.world.started) else {
            return Ok(());
        };
        self.refuse(place, Refused::WrongAgent, cause.clone()).await;
        Err(Error::conflict(format!("{cause}; this one is refused")))
    }

    /// Counts and shows something that was refused; the same thing over and over is one event.
    pub(super) async fn refuse(
        &mut self,
        (cluster, director): (&ClusterName, &DirectorName),
        code: Refused,
        cause: String,
    ) {
        let now = self.now();
        let Ok(state) = self.director(cluster, director) else {
            tracing::debug!(%cluster, %director, cause, "refused for a director that is not declared");
            return;
        };
        let before = state.refused.get(&code).copied();
        let lately = before.is_some_and(|before| now.since(before.last) <= CONFLICT_SHOWN);
        let since = state.conflict(now).filter(|shown| shown.code == code);
        let since = since.map_or(now, |shown| shown.since);
        let shown = code.is_shown();
        if shown && !lately {
            let event = self.event(
                Some(cluster),
                Severity::Error,
                format!("director {director}"),
                format!("refused: {cause}"),
                "controller",
            );
            self.tell(vec![event]).await;
        }
        self.update(cluster, |cluster| {
            if let Some(director) = cluster.directors.get_mut(director) {
                let count = before.map_or(0, |before| before.count) + 1;
                let tally = RefusedCount { count, last: now };
                director.refused.insert(code, tally);
                if shown {
                    director.conflict = Some(Conflict {
                        code,
                        cause,
                        since,
                        last: now,
                    });
                }
            }
        });
        self.publish();
    }

    async fn change_instance(
        &mut self,
        cluster: &ClusterName,
        director: &DirectorName,
        instance: &str,
    ) -> Result<(), Error> {
        let before = self.director(cluster, director)?.instance.clone();
        let (severity, what) = match before {
            None => (
                Severity::Info,
                "its agent reported for the first time".to_owned(),
            ),
            Some(before) => (
                Severity::Warning,
                format!("another agent (instance {instance}) took over from instance {before}"),
            ),
        };
        let object = format!("director {director}");
        let event = self.event(Some(cluster), severity, object, what, "controller");
        self.update(cluster, |cluster| {
            if let Some(director) = cluster.directors.get_mut(director) {
                director.instance = Some(instance.to_owned());
            }
        });
        // In memory it counts from now on: a disk that takes no writes silences no agent.
        self.agent_changed(cluster, director);
        self.tell(vec![event]).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::store::Store;
    use crate::testing::{CLUSTER, Server, observed};

    /// A disk that is slow for a while keeps the task, and everybody who reports, waiting.
    #[tokio::test]
    async fn a_report_that_waited_for_its_turn_is_as_old_as_that() {
        let server = Server::start().await;
        server.declare(1).await;
        let store = Store::open(&server.url()).await.unwrap();
        let clock = Clock::default();
        let (mut actor, ..) = Actor::load(store, clock.clone()).await.unwrap();
        let mut observed = observed(1, &[1]);
        (observed.epoch, observed.generation) = (None, 0);
        let claim = Claim {
            cluster: CLUSTER.parse().unwrap(),
            director: observed.director.clone(),
            name: None,
            router_id: None,
            instance: None,
            protocol: PROTOCOL,
        };
        let arrived = clock.now();
        clock.advance(STALE + Duration::from_secs(1));
        let reported = Reported { claim, observed };
        actor.report(reported, arrived).await.unwrap();
        let cluster = CLUSTER.parse().unwrap();
        let director = actor.director(&cluster, &"d1".parse().unwrap()).unwrap();
        assert!(director.fresh(actor.now()).is_none(), "{director:?}");
    }
}
