//! Which desired states are taken from the controller, and what is done with one.

use std::collections::BTreeMap;
use std::sync::Arc;

use isopath_api::config::{AreaType, DirectorFile};
use isopath_api::declare::{
    Lvs, Profile, ServiceSpec, VipSpec, validate_kinds, validate_services, validate_vips,
};
use isopath_api::desired::{AdminState, Desired};
use isopath_api::digest::{self, ServiceDigest};
use isopath_api::fault::{Fault, parse_json};
use isopath_api::ids::{ClusterName, DirectorName, RouterId, ServiceId, Vip};
use isopath_api::sections::Placed;
use thiserror::Error;

/// What this director shall do, wherever it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The life of the controller's database; nothing with a local file.
    pub epoch: Option<String>,
    /// The generation in that epoch; 0 with a local file.
    pub generation: u64,
    /// Whether the director shall announce.
    pub admin_state: AdminState,
    /// The operator's words for an admin state other than active.
    pub admin_reason: String,
    /// The VIPs that are not announced although they are there, and the operator's words.
    pub withdraw: BTreeMap<Vip, String>,
    /// The settings that all services share.
    pub lvs: Lvs,
    /// What the digest of each service must be, where that decides anything.
    pub digests: BTreeMap<ServiceId, ServiceDigest>,
    /// The VIPs.
    pub vips: Vec<VipSpec>,
    /// The services. One that stays as it is may stay the same allocation from one to the next:
    /// among a thousand services that tells at once which of them changed.
    pub services: Vec<Arc<ServiceSpec>>,
}

impl Intent {
    /// What a file without `[controller]` asks for.
    pub fn from_file(file: &DirectorFile) -> Self {
        let lvs = file.lvs();
        Self {
            epoch: None,
            generation: 0,
            admin_state: AdminState::Active,
            admin_reason: String::new(),
            withdraw: BTreeMap::new(),
            lvs,
            digests: own_digests(&file.service, &lvs),
            vips: file
                .vip
                .iter()
                .map(|vip| vip.at(&file.director.name))
                .collect(),
            services: file.service.clone(),
        }
    }

    /// The same with other services in the place of those with the same identity, of a director
    /// that goes by its own file.
    #[must_use]
    pub fn with(&self, changed: &[Placed]) -> Self {
        let mut next = self.clone();
        for (place, service) in changed {
            let alone = std::slice::from_ref(service);
            next.digests.extend(own_digests(alone, &self.lvs));
            next.services[*place].clone_from(service);
        }
        next
    }
}

/// What the digests of a director's own services must be. Where directors share no connections,
/// nobody compares them.
fn own_digests(services: &[Arc<ServiceSpec>], lvs: &Lvs) -> BTreeMap<ServiceId, ServiceDigest> {
    match lvs.profile {
        Profile::Stateless => digest::expected(services, lvs),
        Profile::Stateful => BTreeMap::new(),
    }
}

impl From<Desired> for Intent {
    fn from(desired: Desired) -> Self {
        let digests = expected_digests(&desired);
        Self {
            epoch: Some(desired.epoch),
            generation: desired.generation,
            admin_state: desired.admin_state,
            admin_reason: desired.admin_reason,
            withdraw: desired.withdraw,
            lvs: desired.lvs,
            digests,
            vips: desired.vip,
            services: desired.service.into_iter().map(Arc::new).collect(),
        }
    }
}

/// The digests that the controller expects; where it has none, or one of another version, what
/// this director makes of the same desired state.
fn expected_digests(desired: &Desired) -> BTreeMap<ServiceId, ServiceDigest> {
    let mut digests = digest::expected(&desired.service, &desired.lvs);
    for (service, ours) in &mut digests {
        let Some(theirs) = desired.digests.get(service) else {
            continue;
        };
        if theirs.is_comparable(ours) && theirs != ours {
            tracing::warn!(%service, %ours, %theirs, "the controller expects another digest");
            ours.clone_from(theirs);
        }
    }
    digests
}

/// Who this director is: a desired state for anybody else is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its name.
    pub director: DirectorName,
    /// Its OSPF router id.
    pub router_id: RouterId,
    /// The type of its area, which decides how VIPs can be announced.
    pub area_type: AreaType,
}

/// Why a desired state was refused as a whole; the one in force stays.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It is not a desired state.
    #[error("the desired state is malformed: {}", list(.0))]
    Malformed(Vec<Fault>),
    /// A VIP is to be announced by a kind of LSA that this director's area cannot have.
    #[error("the desired state does not fit this director's area: {}", list(.0))]
    Unannounceable(Vec<Fault>),
    /// It is for another director.
    #[error("the desired state is for {found}, this is {expected}")]
    NotForUs {
        /// This director.
        expected: String,
        /// The one it is for.
        found: String,
    },
    /// It is older than the one in force.
    #[error("generation {found} is lower than {in_force}, which is in force")]
    Older {
        /// The generation in force.
        in_force: u64,
        /// The generation refused.
        found: u64,
    },
    /// It is another state under the number of the one in force.
    #[error("generation {0} has other content than the generation {0} in force")]
    SameNumber(u64),
    /// The stream says it is another generation than it says itself.
    #[error("the desired state {expected} came under the id {found:?}")]
    Mislabelled {
        /// The id of the event.
        found: String,
        /// The id that the desired state makes.
        expected: String,
    },
}

fn list(faults: &[Fault]) -> String {
    let texts: Vec<String> = faults.iter().map(Fault::to_string).collect();
    texts.join("; ")
}

/// What becomes of a desired state that is not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It is to be written to disk and then applied.
    New(Box<Desired>),
    /// It is in force already.
    InForce,
}

/// Reads a desired state and holds it against the rules of [`Desired`].
///
/// # Errors
/// Why it is refused.
pub fn admit(
    json: &[u8],
    in_force: Option<&Desired>,
    identity: &Identity,
) -> Result<Admission, Refusal> {
    let desired: Desired = parse_json(json, validate).map_err(Refusal::Malformed)?;
    check_identity(&desired, identity)?;
    let faults = validate_kinds(&desired.vip, identity.area_type);
    if !faults.is_empty() {
        return Err(Refusal::Unannounceable(faults));
    }
    let Some(current) = in_force.filter(|current| current.epoch == desired.epoch) else {
        return Ok(Admission::New(Box::new(desired)));
    };
    if desired.generation < current.generation {
        return Err(Refusal::Older {
            in_force: current.generation,
            found: desired.generation,
        });
    }
    if desired.generation > current.generation {
        return Ok(Admission::New(Box::new(desired)));
    }
    if desired == *current {
        Ok(Admission::InForce)
    } else {
        Err(Refusal::SameNumber(desired.generation))
    }
}

fn validate(desired: &Desired) -> Vec<Fault> {
    let mut faults = validate_vips(&desired.vip);
    faults.extend(validate_services(&desired.vip, &desired.service));
    faults
}

fn check_identity(desired: &Desired, identity: &Identity) -> Result<(), Refusal> {
    let found = Identity {
        cluster: desired.cluster.clone(),
        director: desired.director.clone(),
        router_id: desired.router_id,
        area_type: identity.area_type,
    };
    if found == *identity {
        return Ok(());
    }
    let name = |id: &Identity| format!("{}/{} ({})", id.cluster, id.director, id.router_id);
    Err(Refusal::NotForUs {
        expected: name(identity),
        found: name(&found),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn identity() -> Identity {
        Identity {
            cluster: "lab".parse().unwrap(),
            director: "d1".parse().unwrap(),
            router_id: "10.0.1.2".parse().unwrap(),
            area_type: AreaType::Normal,
        }
    }

    fn desired(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut value = json!({
            "epoch": "e1", "generation": 5, "revision": 2, "cluster": "lab", "director": "d1",
            "router_id": "10.0.1.2", "admin_state": "active",
            "vip": [{ "address": "10.99.0.1" }], "service": [],
        });
        change(&mut value);
        value.to_string().into_bytes()
    }

    fn in_force() -> Desired {
        match admit(&desired(|_| {}), None, &identity()).unwrap() {
            Admission::New(desired) => *desired,
            Admission::InForce => panic!("nothing was in force"),
        }
    }

    #[test]
    fn generations_only_rise_within_an_epoch() {
        let current = in_force();
        let generation = |value: Result<Admission, Refusal>| match value {
            Ok(Admission::New(desired)) => format!("new {}", desired.generation),
            Ok(Admission::InForce) => "in force".to_owned(),
            Err(refusal) => refusal.to_string(),
        };
        let cases = [
            ("the same", desired(|_| {}), "in force"),
            (
                "a later one",
                desired(|d| d["generation"] = json!(6)),
                "new 6",
            ),
            (
                "an earlier one",
                desired(|d| d["generation"] = json!(4)),
                "generation 4 is lower than 5",
            ),
            (
                "another under the same number",
                desired(|d| d["admin_state"] = json!("drained")),
                "generation 5 has other content",
            ),
            (
                "an earlier one of a restored database",
                desired(|d| {
                    d["epoch"] = json!("e2");
                    d["generation"] = json!(1);
                }),
                "new 1",
            ),
        ];
        for (what, json, expected) in cases {
            let got = generation(admit(&json, Some(&current), &identity()));
            assert!(got.contains(expected), "{what}: {got:?}, not {expected:?}");
        }
    }

    #[test]
    fn what_is_malformed_or_for_another_director_is_refused_whole() {
        let cases = [
            (
                desired(|d| d["director"] = json!("d2")),
                "is for lab/d2 (10.0.1.2)",
            ),
            (
                desired(|d| d["router_id"] = json!("10.0.1.9")),
                "(10.0.1.9)",
            ),
            (
                desired(|d| d["cluster"] = json!("other")),
                "is for other/d1",
            ),
            (
                desired(|d| d["vip"][0]["address"] = json!("10.99.0.0/24")),
                "/vip/0/address",
            ),
            (
                desired(|d| d["vip"][0]["announce"] = json!({ "as": "nssa" })),
                "/vip/0/announce/as",
            ),
            (desired(|d| d["feature"] = json!(1)), "feature"),
            (
                desired(|d| d["vip"] = json!([{"address": "10.99.0.1"}, {"address": "10.99.0.1"}])),
                "/vip/1/address",
            ),
            (b"{".to_vec(), "EOF"),
        ];
        for (json, expected) in cases {
            let refusal = admit(&json, None, &identity()).unwrap_err().to_string();
            assert!(
                refusal.contains(expected),
                "{refusal:?} does not say {expected:?}"
            );
        }
    }

    /// Two directors' service, expected by the controller with this digest.
    fn with_digest(expected: &str) -> Intent {
        let json = desired(|d| {
            d["lvs"] = json!({
                "profile": "stateless", "drain_limit": "60s",
                "timeouts": { "tcp": "15m", "tcp_fin": "2m", "udp": "5m" },
            });
            d["digests"] = json!({ "tcp:10.99.0.1:80": expected });
            d["service"] = json!([{
                "vip": "10.99.0.1", "protocol": "tcp", "port": 80, "check": { "type": "tcp" },
                "real_server": [{ "address": "10.1.0.11" }],
            }]);
        });
        match admit(&json, None, &identity()).unwrap() {
            Admission::New(desired) => Intent::from(*desired),
            Admission::InForce => panic!("nothing was in force"),
        }
    }

    #[test]
    fn the_controller_s_digest_counts_where_it_is_of_our_version_and_ours_where_not() {
        let digest = |intent: Intent| intent.digests.values().next().unwrap().to_string();
        assert_eq!(
            digest(with_digest("03ffffffffffffffff")),
            "03ffffffffffffffff"
        );
        let later = with_digest("04ffffffffffffffff");
        let ours = digest::expected(&later.services, &later.lvs);
        assert_eq!(later.digests, ours);
    }
}
