//! An operator's overrides of single VIPs, kept on disk until they are undone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use isopath_api::ids::Vip;
use isopath_api::speaker::OverrideAction;
use serde::{Deserialize, Serialize};

use crate::store::{self, StoreError};

/// What an operator said about one VIP on this director.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// The cost to announce it at; nothing to withdraw it.
    pub cost: Option<u16>,
    /// The operator's words.
    pub text: String,
}

/// The overrides in force and the file that holds them.
#[derive(Debug)]
pub struct Overrides {
    path: PathBuf,
    by_vip: BTreeMap<Vip, Override>,
}

impl Overrides {
    /// Reads the overrides that an earlier run left in `path`; none where there is no file.
    ///
    /// # Errors
    /// The file is there and cannot be read or understood: an operator's word is not dropped
    /// silently.
    pub fn load(path: PathBuf) -> Result<Self, StoreError> {
        let by_vip = store::read_json(&path)?.unwrap_or_default();
        Ok(Self { path, by_vip })
    }

    /// The overrides in force.
    pub fn by_vip(&self) -> &BTreeMap<Vip, Override> {
        &self.by_vip
    }

    /// Takes an operator's word: on disk first, then in force.
    ///
    /// # Errors
    /// The file cannot be written; nothing has changed then.
    pub fn set(
        &mut self,
        vip: Vip,
        action: OverrideAction,
        text: String,
    ) -> Result<(), StoreError> {
        let mut next = self.by_vip.clone();
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
        if next != self.by_vip {
            store::write_json(&self.path, &next)?;
            self.by_vip = next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;

    #[test]
    fn overrides_outlive_the_process_until_they_are_undone() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("overrides.json");
        let vip: Vip = "10.99.0.1".parse().unwrap();
        let mut first = Overrides::load(path.clone()).unwrap();
        first
            .set(vip, OverrideAction::Withdraw, "kernel".to_owned())
            .unwrap();

        let mut second = Overrides::load(path.clone()).unwrap();
        let kept = second.by_vip().get(&vip).expect("the override was lost");
        assert_eq!((kept.cost, kept.text.as_str()), (None, "kernel"));
        let action = OverrideAction::Announce { cost: 7 };
        second.set(vip, action, String::new()).unwrap();
        assert_eq!(second.by_vip()[&vip].cost, Some(7));

        second
            .set(vip, OverrideAction::Clear, String::new())
            .unwrap();
        let third = Overrides::load(path).unwrap();
        assert!(third.by_vip().is_empty(), "an undone override came back");
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
}
