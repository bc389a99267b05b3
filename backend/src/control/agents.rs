//! Agents: which one is a director's, and what it reports.

use std::sync::Arc;
use std::time::Duration;

use isopath_api::desired::Desired;
use isopath_api::ids::{ClusterName, DirectorName};
use isopath_api::observed::Acknowledged;
use isopath_api::view::Severity;
use tokio::sync::watch;

use super::actor::Actor;
use super::state::{Conflict, DirectorState, Report, STALE};
use super::{Claim, Reported};
use crate::clock::Moment;
use crate::error::Error;
use crate::store::directors;

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

    /// Takes a report.
    pub(super) async fn report(&mut self, reported: Reported) -> Result<Acknowledged, Error> {
        let Reported {
            cluster,
            director,
            observed,
        } = reported;
        self.admit(&Claim {
            cluster: cluster.clone(),
            director: director.clone(),
            name: Some(observed.director.clone()),
            router_id: Some(observed.router_id),
            instance: Some(observed.instance.clone()),
        })
        .await?;
        let now = self.now();
        let state = self.director(&cluster, &director)?;
        let acknowledged = Acknowledged {
            epoch: self.world.epoch.clone(),
            generation: state.generation,
            interval_ms: u64::try_from(REPORT_EVERY.as_millis()).unwrap_or(u64::MAX),
        };
        // Reports may overtake each other on their way; the newest stands.
        let overtaken = state.report.as_ref().is_some_and(|last| {
            last.observed.run == observed.run && last.observed.sequence >= observed.sequence
        });
        if overtaken {
            return Ok(acknowledged);
        }
        if state.instance.as_deref() != Some(&observed.instance) {
            self.change_instance(&cluster, &director, &observed.instance)
                .await?;
        }
        let report = Report {
            observed: Arc::new(observed),
            received: now,
        };
        self.update(&cluster, |cluster| {
            if let Some(director) = cluster.directors.get_mut(&director) {
                director.report = Some(report);
            }
        });
        self.advance(&cluster).await;
        self.publish();
        Ok(acknowledged)
    }

    /// Refuses an agent that does not belong to its director, and shows it.
    async fn admit(&mut self, claim: &Claim) -> Result<(), Error> {
        let now = self.now();
        let director = self.director(&claim.cluster, &claim.director)?;
        let Some(cause) = refusal(&claim.director, director, claim, now, self.world.started) else {
            return Ok(());
        };
        let shown = director.conflict(now).filter(|shown| shown.cause == cause);
        let since = shown.map(|shown| shown.since);
        if since.is_none() {
            let event = self.event(
                Some(&claim.cluster),
                Severity::Error,
                format!("director {}", claim.director),
                format!("refused: {cause}"),
                "controller",
            );
            let mut transaction = self.store.begin().await?;
            let event = self.record(&mut transaction, event).await?;
            transaction.commit().await?;
            self.remember(vec![event]);
        }
        let conflict = Conflict {
            cause: cause.clone(),
            since: since.unwrap_or(now),
            last: now,
        };
        self.update(&claim.cluster, |cluster| {
            if let Some(director) = cluster.directors.get_mut(&claim.director) {
                director.conflict = Some(conflict);
            }
        });
        self.publish();
        Err(Error::conflict(format!("{cause}; this one is refused")))
    }

    async fn change_instance(
        &mut self,
        cluster: &ClusterName,
        director: &DirectorName,
        instance: &str,
    ) -> Result<(), Error> {
        let before = self.director(cluster, director)?.instance.clone();
        let mut transaction = self.store.begin().await?;
        directors::set_instance(&mut transaction, cluster, director, instance).await?;
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
        let event = self.record(&mut transaction, event).await?;
        transaction.commit().await?;
        self.remember(vec![event]);
        self.update(cluster, |cluster| {
            if let Some(director) = cluster.directors.get_mut(director) {
                director.instance = Some(instance.to_owned());
            }
        });
        Ok(())
    }
}
