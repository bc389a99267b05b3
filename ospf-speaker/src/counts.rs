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

    /// Raises what is not a count but the largest of something.
    pub(crate) fn raise(&mut self, name: &'static str, value: u64) {
        let largest = self.0.entry(Cow::Borrowed(name)).or_default();
        *largest = value.max(*largest);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let counts = self.0.iter();
        counts.map(|(name, count)| (name.clone().into_owned(), *count))
    }
}
