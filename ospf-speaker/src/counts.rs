//! Counters by name.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What was counted since the start, which an upgrade is not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Counts(BTreeMap<Cow<'static, str>, u64>);

impl Counts {
    pub(crate) fn add(&mut self, name: &'static str) {
        *self.0.entry(Cow::Borrowed(name)).or_default() += 1;
    }

    /// Sets what is not a count but the last or the largest of something.
    pub(crate) fn set(&mut self, name: &'static str, value: u64) {
        self.0.insert(Cow::Borrowed(name), value);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let counts = self.0.iter();
        counts.map(|(name, count)| (name.clone().into_owned(), *count))
    }
}
