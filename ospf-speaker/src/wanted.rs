//! Which VIPs are to be announced, and why each other one is not.
//!
//! Three voices are heard, the later ones first: the file, the owner of the announced set (the
//! agent), and operators' overrides. The owner is trusted for `hold` after its last word; then
//! health is unknown and its set is withdrawn.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use isopath_api::config::{AreaType, DirectorFile};
use isopath_api::declare::{Announce, AnnounceAs};
use isopath_api::ids::{ServiceId, Vip};
use isopath_api::reason::Reason;
use isopath_api::speaker::{Announcement, OverrideAction, Owner, Source, Withheld};
use serde::{Deserialize, Serialize};

mod snapshot;
#[cfg(test)]
mod tests;

pub use snapshot::WantedSnapshot;

/// The longest time that an owner may ask for its set to be kept without a word from it.
const LONGEST_HOLD: Duration = Duration::from_secs(24 * 60 * 60);

/// The most overrides that are kept.
const MAX_OVERRIDES: usize = isopath_ospf::MAX_STUBS;

/// A connection of the control socket, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub usize);

/// Why a request about the announced set is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another connection speaks for the set.
    #[error("process {pid} owns the announced set")]
    Owned {
        /// The owner's process id.
        pid: u32,
    },
    /// A cost of 0.
    #[error("{vip}: expected a cost from 1 to 65535, found 0")]
    ZeroCost {
        /// The VIP.
        vip: Vip,
    },
    /// A VIP that stands in the set more than once.
    #[error("{vip} stands in the set more than once")]
    Twice {
        /// The VIP.
        vip: Vip,
    },
    /// More VIPs of a kind than can be announced.
    #[error("expected at most {limit} VIPs {what}, found {found}")]
    TooMany {
        /// As what: stub links, external routes, overridden by an operator.
        what: &'static str,
        /// How many there can be.
        limit: usize,
        /// How many there are.
        found: usize,
    },
    /// A kind of LSA that the area cannot have.
    #[error("{vip}: expected {}, found \"{kind}\": {why}", AnnounceAs::allowed_in(*.area))]
    Kind {
        /// The VIP.
        vip: Vip,
        /// Its kind.
        kind: AnnounceAs,
        /// The area's type.
        area: AreaType,
        /// Why not.
        why: &'static str,
    },
    /// A hold of zero or beyond a day.
    #[error("expected a hold from 1 to {} ms, found {found}", LONGEST_HOLD.as_millis())]
    Hold {
        /// The hold in milliseconds.
        found: u64,
    },
    /// The speaker is stopping.
    #[error("the speaker is stopping")]
    Stopping,
}

/// What is to be done with a VIP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Announce it.
    Announce {
        /// By this kind of LSA, at this cost.
        how: Announce,
        /// Because this voice says so.
        source: Source,
    },
    /// Do not announce it.
    Withhold(Reason),
}

/// An operator's override as it is kept over restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// What to do; never [`OverrideAction::Clear`].
    pub action: OverrideAction,
    /// The operator's words.
    pub text: String,
}

/// The voices and what follows from them.
#[derive(Debug)]
pub struct Wanted {
    area: AreaType,
    file: BTreeMap<Vip, FileVip>,
    set: Option<OwnedSet>,
    overrides: BTreeMap<Vip, Override>,
    stopping: bool,
}

#[derive(Debug)]
struct FileVip {
    how: Announce,
    /// Why the file alone is not enough to announce it.
    waits: Option<Reason>,
}

/// The set of the owner, present from its first word on.
#[derive(Debug)]
struct OwnedSet {
    /// The owner while it is connected.
    owner: Option<Client>,
    announced: BTreeMap<Vip, Announce>,
    withheld: BTreeMap<Vip, Reason>,
    hold: Duration,
    last_word: Instant,
    expired: bool,
}

#[derive(Debug, Clone, Copy)]
struct Client {
    id: ClientId,
    pid: u32,
}

impl Wanted {
    /// Begins with the file and the overrides that an earlier run kept. A VIP with a service
    /// waits for the agent, which knows its health; `wait_for_agent` makes every VIP wait.
    pub fn new(
        file: &DirectorFile,
        wait_for_agent: bool,
        overrides: BTreeMap<Vip, Override>,
    ) -> Self {
        let first_service = |vip: Vip| -> Option<ServiceId> {
            let of_vip = file.service.iter().find(|service| service.vip == vip);
            of_vip.map(|service| service.id())
        };
        let file_vip = |vip: Vip, how: Announce| FileVip {
            how,
            waits: match first_service(vip) {
                Some(service) => Some(Reason::Undecided { service }),
                None if wait_for_agent => Some(Reason::DataplaneNotReady {
                    what: "waiting for the agent".to_owned(),
                }),
                None => None,
            },
        };
        let vips = file.vip.iter();
        Self {
            area: file.ospf.area_type,
            file: vips
                .map(|vip| (vip.address, file_vip(vip.address, vip.announce)))
                .collect(),
            set: None,
            overrides,
            stopping: false,
        }
    }

    /// A connection takes the announced set over, or changes it.
    ///
    /// # Errors
    /// When another live connection owns it or the set cannot be announced; then nothing changed.
    pub fn announce(
        &mut self,
        now: Instant,
        client: ClientId,
        pid: u32,
        set: &[Announcement],
        withheld: Vec<Withheld>,
        hold_ms: u64,
    ) -> Result<(), Refusal> {
        if self.stopping {
            return Err(Refusal::Stopping);
        }
        if let Some(owner) = self.live_owner()
            && owner.id != client
        {
            return Err(Refusal::Owned { pid: owner.pid });
        }
        let announced = checked(set, self.area)?;
        let hold = Duration::from_millis(hold_ms);
        if hold.is_zero() || hold > LONGEST_HOLD {
            return Err(Refusal::Hold { found: hold_ms });
        }
        self.set = Some(OwnedSet {
            owner: Some(Client { id: client, pid }),
            announced,
            withheld: withheld
                .into_iter()
                .map(|withheld| (withheld.vip, withheld.reason))
                .collect(),
            hold,
            last_word: now,
            expired: false,
        });
        Ok(())
    }

    /// A connection said something. An owner that was silent for too long and speaks again has
    /// its set back: it would have changed or given it up had it known better.
    pub fn heard(&mut self, now: Instant, client: ClientId) {
        if let Some(set) = &mut self.set
            && set.owner.is_some_and(|owner| owner.id == client)
        {
            set.last_word = now;
            set.expired = false;
        }
    }

    /// What a heartbeat is answered with.
    ///
    /// # Errors
    /// When another live connection owns the set, so that the sender learns that it does not.
    pub fn heartbeat(&self, client: ClientId) -> Result<(), Refusal> {
        match self.live_owner() {
            Some(owner) if owner.id != client => Err(Refusal::Owned { pid: owner.pid }),
            Some(_) | None => Ok(()),
        }
    }

    /// A connection closed. If it was the owner's, its set is kept until the hold runs out.
    pub fn closed(&mut self, client: ClientId) {
        if let Some(set) = &mut self.set
            && set.owner.is_some_and(|owner| owner.id == client)
        {
            set.owner = None;
        }
    }

    /// An operator's override, or its end.
    ///
    /// # Errors
    /// When it names a cost of 0 or the speaker is stopping.
    pub fn set_override(
        &mut self,
        vip: Vip,
        action: OverrideAction,
        text: String,
    ) -> Result<(), Refusal> {
        if self.stopping {
            return Err(Refusal::Stopping);
        }
        match action {
            OverrideAction::Clear => {
                self.overrides.remove(&vip);
            }
            OverrideAction::Announce { cost: 0 } => return Err(Refusal::ZeroCost { vip }),
            OverrideAction::Announce { .. } | OverrideAction::Withdraw => {
                let found = self.overrides.len() + 1;
                if found > MAX_OVERRIDES {
                    return Err(Refusal::TooMany {
                        what: "with an override",
                        limit: MAX_OVERRIDES,
                        found,
                    });
                }
                self.overrides.insert(vip, Override { action, text });
            }
        }
        Ok(())
    }

    /// The overrides, to be kept over restarts.
    pub fn overrides(&self) -> &BTreeMap<Vip, Override> {
        &self.overrides
    }

    /// The process stops: from now on nothing is announced.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Withdraws the owner's set if its hold has run out.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(set) = &mut self.set
            && set.deadline() <= now
        {
            set.expired = true;
        }
    }

    /// When the owner's hold runs out.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let set = self.set.as_ref()?;
        (!set.expired).then(|| set.deadline())
    }

    /// Every VIP that anybody spoke of and what is to be done with it.
    pub fn verdicts(&self) -> BTreeMap<Vip, Verdict> {
        let mut verdicts = match &self.set {
            None => self.file_verdicts(),
            Some(set) => self.owned_verdicts(set),
        };
        for (vip, override_) in &self.overrides {
            let verdict = match override_.action {
                OverrideAction::Announce { cost } => Verdict::Announce {
                    how: Announce {
                        kind: self.kind(*vip),
                        cost,
                    },
                    source: Source::Override,
                },
                OverrideAction::Withdraw => Verdict::Withhold(Reason::Override {
                    text: override_.text.clone(),
                }),
                OverrideAction::Clear => continue,
            };
            verdicts.insert(*vip, verdict);
        }
        if self.stopping {
            for verdict in verdicts.values_mut() {
                *verdict = Verdict::Withhold(Reason::Stopping);
            }
        }
        verdicts
    }

    /// The owner's state, for show.
    pub fn owner(&self, now: Instant) -> Owner {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match &self.set {
            None => Owner::None,
            Some(set) if set.expired => Owner::Expired,
            Some(set) => match set.owner {
                Some(owner) => Owner::Connected {
                    pid: owner.pid,
                    silent_ms: millis(now.saturating_duration_since(set.last_word)),
                },
                None => Owner::Held {
                    left_ms: millis(set.deadline().saturating_duration_since(now)),
                },
            },
        }
    }

    /// The kind of LSA that the owner, else the file, has for a VIP.
    fn kind(&self, vip: Vip) -> AnnounceAs {
        let owned = self.set.as_ref().and_then(|set| set.announced.get(&vip));
        let in_file = || self.file.get(&vip).map(|in_file| &in_file.how);
        owned
            .or_else(in_file)
            .map(|how| how.kind)
            .unwrap_or_default()
    }

    fn live_owner(&self) -> Option<Client> {
        let set = self.set.as_ref()?;
        set.owner.filter(|_| !set.expired)
    }

    fn file_verdicts(&self) -> BTreeMap<Vip, Verdict> {
        let verdict = |vip: &FileVip| match &vip.waits {
            Some(reason) => Verdict::Withhold(reason.clone()),
            None => Verdict::Announce {
                how: vip.how,
                source: Source::File,
            },
        };
        let vips = self.file.iter();
        vips.map(|(vip, in_file)| (*vip, verdict(in_file)))
            .collect()
    }

    fn owned_verdicts(&self, set: &OwnedSet) -> BTreeMap<Vip, Verdict> {
        let expired = || Reason::AgentSilent {
            hold_ms: u64::try_from(set.hold.as_millis()).unwrap_or(u64::MAX),
        };
        let announced = set.announced.iter().map(|(vip, how)| {
            let verdict = if set.expired {
                Verdict::Withhold(expired())
            } else {
                Verdict::Announce {
                    how: *how,
                    source: Source::Agent,
                }
            };
            (*vip, verdict)
        });
        let in_file = self
            .file
            .keys()
            .map(|vip| (*vip, Verdict::Withhold(Reason::NotWanted)));
        let withheld = set
            .withheld
            .iter()
            .map(|(vip, reason)| (*vip, Verdict::Withhold(reason.clone())));
        in_file.chain(withheld).chain(announced).collect()
    }
}

impl OwnedSet {
    fn deadline(&self) -> Instant {
        self.last_word + self.hold
    }
}

fn checked(set: &[Announcement], area: AreaType) -> Result<BTreeMap<Vip, Announce>, Refusal> {
    let mut announced = BTreeMap::new();
    for &Announcement { vip, cost, kind } in set {
        if cost == 0 {
            return Err(Refusal::ZeroCost { vip });
        }
        if let Some(why) = kind.refused_in(area) {
            return Err(Refusal::Kind {
                vip,
                kind,
                area,
                why,
            });
        }
        if announced.insert(vip, Announce { kind, cost }).is_some() {
            return Err(Refusal::Twice { vip });
        }
    }
    let stubs = announced
        .values()
        .filter(|how| how.kind == AnnounceAs::Stub)
        .count();
    let externals = announced.len() - stubs;
    for (what, limit, found) in [
        ("as stub links", isopath_ospf::MAX_STUBS, stubs),
        ("as external routes", isopath_ospf::MAX_EXTERNALS, externals),
    ] {
        if found > limit {
            return Err(Refusal::TooMany { what, limit, found });
        }
    }
    Ok(announced)
}
