//! An operator's overrides of single VIPs, kept on disk until they are undone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use isopath_api::ids::Vip;
use isopath_api::speaker::OverrideAction;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use crate::desired::Intent;
use crate::store::{self, StoreError};

/// What an operator said about one VIP on this director.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// The cost to announce it at; nothing to withdraw it.
    pub cost: Option<u16>,
    /// The operator's words.
    pub text: String,
}

/// The overrides in force.
pub type ByVip = Arc<BTreeMap<Vip, Override>>;

/// Why an override was not taken; nothing has changed then.
#[derive(Debug, Error)]
pub enum OverrideError {
    /// The VIP is none of this director's.
    #[error("{0} is not a VIP of this director")]
    UnknownVip(Vip),
    /// OSPF's metrics for VIPs start at 1.
    #[error("expected a cost from 1 to 65535, found 0")]
    ZeroCost,
    /// It could not be kept, so it is not in force either.
    #[error("cannot keep the override")]
    Store(#[from] StoreError),
}

/// An operator's override and where its outcome goes.
#[derive(Debug)]
pub struct OverrideRequest {
    /// The VIP.
    pub vip: Vip,
    /// What to do with it.
    pub action: OverrideAction,
    /// The operator's words.
    pub text: String,
    /// Where the outcome goes.
    pub reply: oneshot::Sender<Result<(), OverrideError>>,
}

/// The owner of the overrides and of the file that holds them.
#[derive(Debug)]
pub struct Overrides {
    path: PathBuf,
    by_vip: ByVip,
}

impl Overrides {
    /// Reads the overrides that an earlier run left in `path`; none where there is no file.
    ///
    /// # Errors
    /// The file is there and cannot be read or understood: an operator's word is not dropped
    /// silently.
    pub fn load(path: PathBuf) -> Result<Self, StoreError> {
        let by_vip = store::read_json(&path)?.unwrap_or_default();
        Ok(Self {
            path,
            by_vip: Arc::new(by_vip),
        })
    }

    /// The overrides in force.
    pub fn by_vip(&self) -> ByVip {
        Arc::clone(&self.by_vip)
    }

    /// Takes overrides until nobody can ask for one any more. It is a task of its own because
    /// the disk may be slow, and the control loop waits for nothing.
    pub async fn run(
        mut self,
        mut requests: mpsc::Receiver<OverrideRequest>,
        intents: watch::Receiver<Option<Arc<Intent>>>,
        in_force: watch::Sender<ByVip>,
    ) {
        while let Some(request) = requests.recv().await {
            let OverrideRequest {
                vip,
                action,
                text,
                reply,
            } = request;
            tracing::warn!(%vip, ?action, text, "an operator's override");
            let intent = intents.borrow().clone();
            let outcome = match check(vip, action, intent.as_deref()) {
                Ok(()) => self
                    .set(vip, action, text)
                    .await
                    .map_err(OverrideError::from),
                Err(error) => Err(error),
            };
            in_force.send_replace(self.by_vip());
            if reply.send(outcome).is_err() {
                tracing::debug!(%vip, "nobody waits for the outcome of the override any more");
            }
        }
    }

    /// Takes an operator's word: on disk first, then in force.
    async fn set(
        &mut self,
        vip: Vip,
        action: OverrideAction,
        text: String,
    ) -> Result<(), StoreError> {
        let mut next = BTreeMap::clone(&self.by_vip);
        match action {
            OverrideAction::Announce { cost } => {
                let cost = Some(cost);
                next.insert(vip, Override { cost, text });
            }
            OverrideAction::Withdraw => {
                next.insert(vip, Override { cost: None, text });
            }
            OverrideAction::Clear => {
                next.remove(&vip);
            }
        }
        if next != *self.by_vip {
            let next = Arc::new(next);
            store::write_json_apart(self.path.clone(), Arc::clone(&next)).await?;
            self.by_vip = next;
        }
        Ok(())
    }
}

/// Whether an override makes sense on this director. Undoing one always does.
fn check(vip: Vip, action: OverrideAction, intent: Option<&Intent>) -> Result<(), OverrideError> {
    let known = || {
        let vips = intent.into_iter().flat_map(|intent| &intent.vips);
        vips.into_iter().any(|spec| spec.address == vip)
    };
    match action {
        OverrideAction::Announce { cost: 0 } => Err(OverrideError::ZeroCost),
        OverrideAction::Announce { .. } | OverrideAction::Withdraw if !known() => {
            Err(OverrideError::UnknownVip(vip))
        }
        OverrideAction::Announce { .. } | OverrideAction::Withdraw | OverrideAction::Clear => {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;

    fn vip() -> Vip {
        "10.99.0.1".parse().unwrap()
    }

    /// A director with the one VIP.
    fn intent() -> Intent {
        Intent {
            epoch: None,
            generation: 0,
            admin_state: isopath_api::desired::AdminState::Active,
            admin_reason: String::new(),
            withdraw: BTreeMap::new(),
            lvs: isopath_api::declare::Lvs::default(),
            digests: BTreeMap::new(),
            vips: serde_json::from_value(serde_json::json!([{ "address": "10.99.0.1" }])).unwrap(),
            services: Vec::new(),
        }
    }

    #[tokio::test]
    async fn overrides_outlive_the_process_until_they_are_undone() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("overrides.json");
        let mut first = Overrides::load(path.clone()).unwrap();
        let text = "kernel".to_owned();
        first
            .set(vip(), OverrideAction::Withdraw, text)
            .await
            .unwrap();

        let mut second = Overrides::load(path.clone()).unwrap();
        let by_vip = second.by_vip();
        let kept = by_vip.get(&vip()).expect("the override was lost");
        assert_eq!((kept.cost, kept.text.as_str()), (None, "kernel"));
        let action = OverrideAction::Announce { cost: 7 };
        second.set(vip(), action, String::new()).await.unwrap();
        assert_eq!(second.by_vip()[&vip()].cost, Some(7));

        let clear = OverrideAction::Clear;
        second.set(vip(), clear, String::new()).await.unwrap();
        let third = Overrides::load(path).unwrap();
        assert!(third.by_vip().is_empty(), "an undone override came back");
    }

    #[tokio::test]
    async fn an_override_that_cannot_be_kept_is_not_in_force() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("overrides.json");
        let mut overrides = Overrides::load(path.clone()).unwrap();
        std::fs::create_dir(&path).unwrap();
        let action = OverrideAction::Withdraw;
        let error = overrides
            .set(vip(), action, String::new())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("overrides.json"), "{error}");
        assert!(overrides.by_vip().is_empty());
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("overrides.json");
        std::fs::write(&path, "{\"10.99.0.1\":").unwrap();
        let error = Overrides::load(path).unwrap_err();
        assert!(
            error.to_string().contains("overrides.json"),
            "{error} does not name the file"
        );
    }

    #[test]
    fn overrides_are_for_vips_of_this_director_and_costs_from_1() {
        let other: Vip = "10.99.0.9".parse().unwrap();
        let announce = |cost| OverrideAction::Announce { cost };
        let intent = intent();
        let refusal = |vip, action| match check(vip, action, Some(&intent)) {
            Ok(()) => "taken".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(refusal(vip(), announce(1)), "taken");
        assert_eq!(refusal(vip(), OverrideAction::Withdraw), "taken");
        assert_eq!(refusal(other, OverrideAction::Clear), "taken");
        assert!(refusal(vip(), announce(0)).contains("from 1 to 65535"));
        for action in [announce(1), OverrideAction::Withdraw] {
            let text = refusal(other, action);
            assert_eq!(text, "10.99.0.9 is not a VIP of this director");
        }
        let early = check(vip(), OverrideAction::Withdraw, None);
        assert!(early.is_err(), "without a desired state there are no VIPs");
    }
}
