//! Agents that enrol, renew and are revoked.

use std::sync::Arc;

use isopath_api::ids::{ClusterName, DirectorName};
use isopath_api::view::Severity;
use uuid::Uuid;

use super::actor::Actor;
use super::fleet::{AgentState, EnrollmentRefused, Fleet};
use super::state::Liveness;
use crate::auth::By;
use crate::error::Error;
use crate::store::agents::{self, AgentAbout, AgentRow, Revoked};
use crate::store::audit::{self, Entry, Outcome};
use crate::store::enroll_tokens::{self, Consumed, NewEnrollToken};
use crate::tls::{AgentRequest, Authority, IssuedCertificate};

/// An agent that shows a one-time token.
#[derive(Debug)]
pub struct Enroll {
    /// The token's hash.
    pub token: String,
    /// What it wants signed.
    pub wanted: Wanted,
    /// Who shows the token.
    pub by: By,
}

/// A certificate that an agent wants.
#[derive(Debug)]
pub struct Wanted {
    /// Its key, with the proof that it has it.
    pub request: AgentRequest,
    /// What it says of itself.
    pub about: AgentAbout,
    /// Who signs it.
    pub authority: Arc<Authority>,
}

/// A one-time token to store.
#[derive(Debug)]
pub struct MakeToken {
    /// Its hash.
    pub hash: String,
    /// What it is good for.
    pub token: NewEnrollToken,
    /// Who has it made.
    pub by: By,
}

/// What it gets.
#[derive(Debug)]
pub struct Issued {
    /// The agent.
    pub agent: Arc<AgentRow>,
    /// Its certificate in PEM.
    pub certificate: String,
}

/// An operator's word that an agent is one no more.
#[derive(Debug)]
pub struct Revoke {
    /// The agent.
    pub id: Uuid,
    /// Who says so.
    pub by: By,
    /// Their words.
    pub reason: String,
}

impl Actor {
    /// Stores a one-time token.
    pub(super) async fn make_enroll_token(
        &mut self,
        MakeToken { hash, token, by }: MakeToken,
    ) -> Result<(), Error> {
        let now = self.now().wall;
        let mut transaction = self.store.begin().await?;
        enroll_tokens::insert(&mut transaction, &hash, &token, now).await?;
        let what = "a token was made that enrols its agent".to_owned();
        let object = object(&token.director);
        let entry = Entry::done("enroll-token.create", &object, "").of(&token.cluster);
        audit::insert(&mut transaction, &by, entry, now).await?;
        let cluster = Some(&token.cluster);
        let event = self.event(cluster, Severity::Info, object, what, &by.name);
        let event = self.record(&mut transaction, event).await?;
        transaction.commit().await?;
        self.remember(vec![event]);
        self.publish();
        Ok(())
    }

    /// Uses a token up and issues a certificate, in one transaction: a token never makes two
    /// agents, and none is used up for nothing.
    pub(super) async fn enroll(&mut self, enroll: Enroll) -> Result<Issued, Error> {
        let now = self.now().wall;
        let id = Uuid::new_v4();
        let mut transaction = self.store.begin().await?;
        let consumed = enroll_tokens::consume(&mut transaction, &enroll.token, id, now).await?;
        let (cluster, director) = match consumed {
            Consumed::Good { cluster, director } => (cluster, director),
            Consumed::Unknown => {
                transaction.rollback().await?;
                self.count_enrollment(EnrollmentRefused::UnknownToken);
                return Err(Error::Unauthenticated {
                    detail: "the one-time token is not known here".to_owned(),
                });
            }
            Consumed::Spent {
                cluster,
                director,
                used,
                first,
            } => {
                transaction.rollback().await?;
                let told = first.then_some(enroll.token.as_str());
                let place = (&cluster, &director);
                return Err(self.spent(place, used, told, &enroll.by).await?);
            }
        };
        let before = self.world.fleet.of(&cluster, &director).cloned();
        if let Some(before) = &before
            && let Some(error) = self.lives_elsewhere(before, &enroll.wanted.about)
        {
            transaction.rollback().await?;
            self.alarm(&cluster, &director, &error).await;
            self.count_enrollment(EnrollmentRefused::AnotherMachine);
            return Err(error);
        }
        let (agent, issued) = issue(&enroll.wanted, (id, cluster, director), None, now)?;
        let revoked = Revoked {
            at: now,
            by: "controller".to_owned(),
            reason: format!("agent {id} enrolled in its place"),
        };
        if let Some(before) = &before {
            agents::revoke(&mut transaction, before.row.id, &revoked).await?;
        }
        let gone = agents::put(&mut transaction, &agent).await?;
        let what = match &before {
            None => format!("its agent enrolled as {id}"),
            Some(before) => format!("its agent enrolled as {id} in place of {}", before.row.id),
        };
        let object = object(&agent.director);
        let entry = Entry::done("agent.enroll", &object, &what).of(&agent.cluster);
        audit::insert(&mut transaction, &enroll.by, entry, now).await?;
        let cluster = Some(&agent.cluster);
        let event = self.event(cluster, Severity::Info, object, what, &enroll.by.name);
        let event = self.record(&mut transaction, event).await?;
        transaction.commit().await?;
        self.remember(vec![event]);
        if let Some(before) = before {
            self.end(&before, revoked);
        }
        self.change_fleet(|fleet| {
            fleet.agents.retain(|id, _| !gone.contains(id));
            fleet.agents.insert(id, AgentState::new(agent.clone()));
        });
        self.publish();
        Ok(Issued {
            agent: Arc::new(agent),
            certificate: issued.pem,
        })
    }

    /// Issues another certificate to an agent that has one.
    pub(super) async fn renew(
        &mut self,
        (id, by): (Uuid, By),
        wanted: Wanted,
    ) -> Result<Issued, Error> {
        let now = self.now().wall;
        let before = self.enrolled(id)?.clone();
        let place = (&before.row.cluster, &before.row.director);
        if before.row.about.machine != wanted.about.machine {
            let error = Error::Forbidden {
                detail: format!(
                    "agent {id} enrolled on another machine: its certificate is not renewed here"
                ),
            };
            self.alarm(place.0, place.1, &error).await;
            self.count_enrollment(EnrollmentRefused::AnotherMachine);
            return Err(error);
        }
        let of = (id, place.0.clone(), place.1.clone());
        let (agent, issued) = issue(&wanted, of, Some(before.row.enrolled), now)?;
        let mut transaction = self.store.begin().await?;
        let gone = agents::put(&mut transaction, &agent).await?;
        let what = format!("the certificate of agent {id} was renewed");
        let object = object(place.1);
        let entry = Entry::done("agent.renew", &object, &what).of(place.0);
        audit::insert(&mut transaction, &by, entry, now).await?;
        let event = self.event(Some(place.0), Severity::Info, object, what, &by.name);
        let event = self.record(&mut transaction, event).await?;
        transaction.commit().await?;
        self.remember(vec![event]);
        let agent = Arc::new(agent);
        self.change_fleet(|fleet| {
            fleet.agents.retain(|id, _| !gone.contains(id));
            if let Some(state) = fleet.agents.get_mut(&id) {
                state.row = Arc::clone(&agent);
            }
        });
        self.publish();
        Ok(Issued {
            agent,
            certificate: issued.pem,
        })
    }

    /// Revokes an agent: its streams end, and its certificate is good for nothing more. What its
    /// director announces stays: the router goes on without the controller.
    pub(super) async fn revoke(&mut self, revoke: Revoke) -> Result<Arc<AgentRow>, Error> {
        let Revoke { id, by, reason } = revoke;
        let state = self.world.fleet.agents.get(&id).cloned();
        let state = state.ok_or_else(|| Error::not_found(format_args!("agent {id}")))?;
        if state.row.revoked.is_some() {
            return Err(Error::conflict(format!("agent {id} is revoked already")));
        }
        let revoked = Revoked {
            at: self.now().wall,
            by: by.name.clone(),
            reason: reason.clone(),
        };
        let mut transaction = self.store.begin().await?;
        agents::revoke(&mut transaction, id, &revoked).await?;
        let mut what = format!("agent {id} was revoked");
        if !reason.is_empty() {
            what.push_str(&format!(": {reason}"));
        }
        let object = object(&state.row.director);
        let entry = Entry::done("agent.revoke", &object, &what).of(&state.row.cluster);
        audit::insert(&mut transaction, &by, entry, revoked.at).await?;
        let cluster = Some(&state.row.cluster);
        let event = self.event(cluster, Severity::Warning, object, what, &by.name);
        let event = self.record(&mut transaction, event).await?;
        transaction.commit().await?;
        self.remember(vec![event]);
        let row = self.end(&state, revoked);
        self.publish();
        Ok(row)
    }

    /// An agent whose certificate is good.
    pub(super) fn enrolled(&self, id: Uuid) -> Result<&AgentState, Error> {
        let agent = self.world.fleet.agents.get(&id);
        let agent = agent.ok_or_else(|| Error::Unauthenticated {
            detail: format!("agent {id} is not known here: enrol it"),
        })?;
        if agent.row.revoked.is_some() {
            return Err(Error::Forbidden {
                detail: format!("agent {id} was revoked: enrol it with a new token"),
            });
        }
        Ok(agent)
    }

    /// Counts an enrolment that was refused.
    pub(super) fn count_enrollment(&mut self, cause: EnrollmentRefused) {
        self.change_fleet(|fleet| *fleet.enrollments_refused.entry(cause).or_default() += 1);
        self.publish();
    }

    /// In memory, an agent that is revoked.
    fn end(&mut self, state: &AgentState, revoked: Revoked) -> Arc<AgentRow> {
        let row = Arc::new(AgentRow {
            revoked: Some(revoked),
            ..AgentRow::clone(&state.row)
        });
        state.ended.cancel();
        self.change_fleet(|fleet| {
            if let Some(state) = fleet.agents.get_mut(&row.id) {
                state.row = Arc::clone(&row);
            }
        });
        row
    }

    fn change_fleet(&mut self, change: impl FnOnce(&mut Fleet)) {
        change(Arc::make_mut(&mut self.world.fleet));
    }

    /// Why an agent may not take the place of another: that one is on another machine and
    /// reports. A silent one may be a machine that is no more.
    fn lives_elsewhere(&self, before: &AgentState, about: &AgentAbout) -> Option<Error> {
        let row = &before.row;
        if row.about.machine == about.machine {
            return None;
        }
        let director = self.director(&row.cluster, &row.director).ok()?;
        let liveness = director.liveness(self.now(), self.world.started);
        (liveness == Liveness::Fresh).then(|| {
            Error::conflict(format!(
                "director {} has agent {} on another machine, which reports: stop or revoke it \
                 first; the token is still good",
                row.director, row.id
            ))
        })
    }

    /// Refuses a token that is good no more; tells it once where `first` has the token's hash.
    async fn spent(
        &mut self,
        (cluster, director): (&ClusterName, &DirectorName),
        used: bool,
        first: Option<&str>,
        by: &By,
    ) -> Result<Error, Error> {
        let (cause, how) = match used {
            true => (EnrollmentRefused::UsedToken, "was used before"),
            false => (EnrollmentRefused::ExpiredToken, "is too old"),
        };
        self.count_enrollment(cause);
        let error = Error::Forbidden {
            detail: format!("the one-time token {how}: have a new one made"),
        };
        if let Some(hash) = first {
            let now = self.now().wall;
            let mut transaction = self.store.begin().await?;
            enroll_tokens::note_refused(&mut transaction, hash, now).await?;
            let what = format!("an enrolment was refused: its token {how}");
            let object = object(director);
            let entry = Entry {
                outcome: Outcome::Refused,
                status: Some(error.status().as_u16()),
                ..Entry::done("agent.enroll", &object, &what).of(cluster)
            };
            audit::insert(&mut transaction, by, entry, now).await?;
            let event = self.event(Some(cluster), Severity::Warning, object, what, "controller");
            let event = self.record(&mut transaction, event).await?;
            transaction.commit().await?;
            self.remember(vec![event]);
        }
        self.publish();
        Ok(error)
    }

    /// Tells of somebody who has what only a director's agent should have.
    async fn alarm(&mut self, cluster: &ClusterName, director: &DirectorName, error: &Error) {
        let what = format!("refused: {error}");
        let object = object(director);
        let event = self.event(Some(cluster), Severity::Error, object, what, "controller");
        self.tell(vec![event]).await;
        self.publish();
    }
}

fn object(director: &DirectorName) -> String {
    format!("director {director}")
}

/// Signs what an agent wants, as of `now`; `enrolled` is when it enrolled, for one that renews.
fn issue(
    wanted: &Wanted,
    (id, cluster, director): (Uuid, ClusterName, DirectorName),
    enrolled: Option<jiff::Timestamp>,
    now: jiff::Timestamp,
) -> Result<(AgentRow, IssuedCertificate), Error> {
    let issued = wanted
        .authority
        .issue_agent(&wanted.request, id, director.as_str(), now)
        .map_err(|error| Error::Internal {
            what: format!("cannot issue a certificate: {error}"),
        })?;
    let agent = AgentRow {
        id,
        cluster,
        director,
        about: wanted.about.clone(),
        fingerprint: issued.fingerprint.clone(),
        enrolled: enrolled.unwrap_or(now),
        issued: now,
        expires: issued.expires,
        revoked: None,
    };
    Ok((agent, issued))
}
