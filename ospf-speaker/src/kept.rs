//! What outlives the process: `speaker.json` in the state directory.
//!
//! Five things are kept. A reservation of sequence numbers, so that the first Router-LSA after
//! a crash goes above the copy that the area still holds. One of the cryptographic sequence
//! numbers of each interface, so that a neighbour does not take the first packets after a crash
//! for replayed ones. The BFD discriminators, because some peers ignore a new one until they
//! have found the old session dead. The operator's overrides. What a graceful restart leaves to
//! the next run, which takes it once: a crash is never one.
//!
//! Sequence numbers are reserved ahead in blocks, so the file is written every `BLOCK`
//! originations or `AUTH_BLOCK` packets and not at each. It is replaced by a rename without a
//! sync: waiting for a disk would stop BFD, and losing the file to a power failure costs one
//! exchange more at the start.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use isopath_api::ids::Vip;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::restart::Prepared;
use crate::wanted::Override;

/// How many sequence numbers one write reserves.
const BLOCK: i32 = 64;

/// How many cryptographic sequence numbers one write reserves: minutes of an interface, and few
/// enough that a speaker that crashes every second has enough of them for months.
const AUTH_BLOCK: u32 = 256;

/// A reservation above this cannot have come about by counting from any clock that is right
/// before the year 2100, and would leave nothing to count on with.
const LAST_AUTH_RESERVATION: u32 = u32::MAX - (1 << 27);

/// Above this reservation the count starts over; the core then answers a stale copy as
/// RFC 2328 §13.4 says, which is harmless and far away.
const LAST_RESERVATION: i32 = i32::MAX - 0x1_0000;

/// More peers than this were never met at the same time; older names are forgotten.
const MOST_DISCRIMINATORS: usize = 1024;

/// The file as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Contents {
    /// No instance above this sequence number has left.
    #[serde(default)]
    sequence_reserved: Option<i32>,
    /// By interface: no packet with a higher cryptographic sequence number has left.
    #[serde(default)]
    auth_reserved: BTreeMap<String, u32>,
    /// By interface and peer address.
    #[serde(default)]
    discriminators: BTreeMap<String, NonZeroU32>,
    #[serde(default)]
    overrides: BTreeMap<Vip, Override>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restart: Option<Prepared>,
}

/// The file and what it holds.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    contents: Contents,
    /// Whether the last write failed, so that a full disk is told once and not each time.
    failing: bool,
}

impl Kept {
    /// Reads the file of a state directory. One that is missing or cannot be read counts as
    /// empty: everything in it can be found anew.
    pub fn load(state_dir: &Path) -> Self {
        let path = state_dir.join("speaker.json");
        let contents = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                warn!(path = %path.display(), %error, "state file is not readable, starting anew");
                Contents::default()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    warn!(path = %path.display(), %error, "cannot read state file");
                }
                Contents::default()
            }
        };
        Self {
            path,
            contents,
            failing: false,
        }
    }

    /// What is kept, for a successor.
    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Goes on with what another process kept, whether it could write it or not.
    pub(crate) fn restore(state_dir: &Path, contents: Contents) -> Self {
        Self {
            path: state_dir.join("speaker.json"),
            contents,
            failing: false,
        }
    }

    /// The highest sequence number that an earlier run may have used.
    pub fn sequence_hint(&self) -> Option<i32> {
        let reserved = self.contents.sequence_reserved;
        reserved.filter(|reserved| *reserved < LAST_RESERVATION)
    }

    /// Keeps at least half a block reserved above `sequence`, the last that was used.
    pub fn reserve_above(&mut self, sequence: i32) {
        let enough = sequence.saturating_add(BLOCK / 2);
        let reserved = self.contents.sequence_reserved;
        // A reservation far above belongs to a count that has started over since.
        let current = |reserved: i32| reserved >= enough && reserved - BLOCK <= sequence;
        if !reserved.is_some_and(current) {
            self.contents.sequence_reserved = Some(sequence.saturating_add(BLOCK));
            self.store();
        }
    }

    /// The lowest cryptographic sequence number that an interface may begin with: above all that
    /// earlier runs used, and no lower than the clock, for neighbours that remember more.
    pub fn auth_floor(&self, interface: &str, unix_seconds: u32) -> u32 {
        let reserved = self.contents.auth_reserved.get(interface).copied();
        let reserved = reserved.filter(|reserved| *reserved <= LAST_AUTH_RESERVATION);
        reserved.map_or(unix_seconds, |reserved| unix_seconds.max(reserved + 1))
    }

    /// Has the file say, before a packet with cryptographic sequence number `next` can leave,
    /// that it may have.
    pub fn reserve_auth(&mut self, interface: &str, next: u32) {
        let reserved = self.contents.auth_reserved.get(interface);
        // A reservation far above belongs to a count that has started over since.
        let current = |reserved: u32| next <= reserved && reserved - next <= AUTH_BLOCK;
        if !reserved.is_some_and(|reserved| current(*reserved)) {
            let block = next.saturating_add(AUTH_BLOCK);
            let reserved = &mut self.contents.auth_reserved;
            reserved.insert(interface.to_owned(), block);
            self.store();
        }
    }

    /// The discriminator of the session with a peer, made by `random` if there was none.
    pub fn discriminator(
        &mut self,
        interface: &str,
        peer: Ipv4Addr,
        mut random: impl FnMut() -> u32,
    ) -> NonZeroU32 {
        let key = format!("{interface} {peer}");
        if let Some(discriminator) = self.contents.discriminators.get(&key) {
            return *discriminator;
        }
        let known = &mut self.contents.discriminators;
        if known.len() >= MOST_DISCRIMINATORS {
            known.pop_first();
        }
        let discriminator = loop {
            let candidate = NonZeroU32::new(random());
            let unused = |new: &NonZeroU32| !known.values().any(|old| old == new);
            if let Some(candidate) = candidate.filter(unused) {
                break candidate;
            }
        };
        known.insert(key, discriminator);
        self.store();
        discriminator
    }

    /// The operator's overrides.
    pub fn overrides(&self) -> &BTreeMap<Vip, Override> {
        &self.contents.overrides
    }

    /// Keeps the operator's overrides.
    pub fn set_overrides(&mut self, overrides: &BTreeMap<Vip, Override>) {
        if self.contents.overrides != *overrides {
            self.contents.overrides.clone_from(overrides);
            self.store();
        }
    }

    /// Takes the graceful restart that the last run prepared.
    pub fn take_restart(&mut self) -> Option<Prepared> {
        let restart = self.contents.restart.take();
        if restart.is_some() {
            self.store();
        }
        restart
    }

    /// Keeps a graceful restart for the next run; says whether that was possible.
    pub fn prepare_restart(&mut self, restart: Prepared) -> bool {
        self.contents.restart = Some(restart);
        self.store();
        !self.failing
    }

    fn store(&mut self) {
        let result = write(&self.path, &self.contents);
        if let Err(error) = &result
            && !self.failing
        {
            warn!(path = %self.path.display(), %error, "cannot write state file");
        }
        self.failing = result.is_err();
    }
}

fn write(path: &Path, contents: &Contents) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(contents)?;
    text.push(b'\n');
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let new = path.with_extension("json.new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use isopath_api::speaker::OverrideAction;

    use super::*;

    /// A directory of its own, removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let name = format!("isopath-speaker-kept-{}-{name}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            if let Err(error) = fs::remove_dir_all(&self.0) {
                eprintln!("{}: {error}", self.0.display());
            }
        }
    }

    #[test]
    fn sequence_numbers_are_reserved_ahead_and_rarely_written() {
        let directory = Directory::new("sequence");
        let mut kept = Kept::load(&directory.0);
        assert_eq!(kept.sequence_hint(), None);
        let first = i32::MIN + 1;
        let mut writes = 0;
        let mut last = None;
        for sequence in first..first + 200 {
            kept.reserve_above(sequence);
            let hint = Kept::load(&directory.0).sequence_hint();
            assert!(hint.unwrap() > sequence, "a crash would reuse {sequence}");
            writes += u32::from(hint != last);
            last = hint;
        }
        assert!(writes <= 7, "{writes} writes for 200 originations");
    }

    #[test]
    fn a_restart_goes_above_and_a_count_that_started_over_is_followed() {
        let directory = Directory::new("restart");
        let mut kept = Kept::load(&directory.0);
        kept.reserve_above(1000);
        let hint = Kept::load(&directory.0).sequence_hint().unwrap();
        assert!(hint > 1000);
        kept.reserve_above(5);
        assert!(kept.sequence_hint().unwrap() < 1000);
        kept.reserve_above(i32::MAX - 1);
        assert_eq!(
            kept.sequence_hint(),
            None,
            "no hint at the end of the space"
        );
    }

    #[test]
    fn no_run_begins_with_a_cryptographic_sequence_number_of_an_earlier_one() {
        let directory = Directory::new("auth");
        let unix = 1_800_000_000;
        let mut next = 0;
        for run in 0..20 {
            // The clock stands still, or was set back.
            let clock = unix - run;
            let mut kept = Kept::load(&directory.0);
            let first = kept.auth_floor("eth1", clock);
            assert!(
                first >= unix && first >= next,
                "run {run}: {first} < {next}"
            );
            next = first;
            for _ in 0..=run * 50 {
                next += 1;
                kept.reserve_auth("eth1", next);
            }
            assert_eq!(
                kept.auth_floor("eth2", clock),
                clock,
                "an interface of its own"
            );
        }
    }

    #[test]
    fn cryptographic_sequence_numbers_follow_the_clock_and_are_rarely_written() {
        let directory = Directory::new("auth-clock");
        let mut kept = Kept::load(&directory.0);
        assert_eq!(kept.auth_floor("eth1", 1000), 1000);
        let mut writes = 0;
        let mut last = 0;
        for next in 1000..3000 {
            kept.reserve_auth("eth1", next);
            let floor = Kept::load(&directory.0).auth_floor("eth1", 0);
            assert!(floor > next, "a crash would reuse {next}");
            writes += u32::from(floor != last);
            last = floor;
        }
        assert!(writes <= 8, "{writes} writes for 2000 packets");
        assert_eq!(kept.auth_floor("eth1", 5000), 5000);
        kept.reserve_auth("eth1", u32::MAX - 5);
        assert_eq!(kept.auth_floor("eth1", 5000), 5000, "nothing is left above");
    }

    #[test]
    fn discriminators_and_overrides_survive_and_stay_unique() {
        let directory = Directory::new("discriminators");
        let mut kept = Kept::load(&directory.0);
        let mut numbers = [0, 7, 7, 8].into_iter();
        let mut random = || numbers.next().unwrap();
        let peer = Ipv4Addr::new(10, 0, 1, 1);
        let first = kept.discriminator("eth1", peer, &mut random);
        let second = kept.discriminator("eth2", peer, &mut random);
        assert_eq!((first.get(), second.get()), (7, 8));
        let vip = "10.99.0.1".parse().unwrap();
        let override_ = Override {
            action: OverrideAction::Announce { cost: 3 },
            text: "by hand".to_owned(),
        };
        let overrides = BTreeMap::from([(vip, override_)]);
        kept.set_overrides(&overrides);

        let mut again = Kept::load(&directory.0);
        assert_eq!(again.discriminator("eth2", peer, || 99).get(), 8);
        assert_eq!(again.overrides(), &overrides);
    }

    #[test]
    fn a_prepared_restart_is_taken_once() {
        let directory = Directory::new("restart-once");
        let now = std::time::Instant::now();
        let present = crate::restart::Present::ask(now).unwrap();
        let router_id = isopath_api::ids::RouterId(Ipv4Addr::new(10, 0, 1, 2));
        let prepared = Prepared::new(&present, router_id, now, None);
        assert!(Kept::load(&directory.0).prepare_restart(prepared.clone()));
        assert_eq!(Kept::load(&directory.0).take_restart(), Some(prepared));
        assert_eq!(
            Kept::load(&directory.0).take_restart(),
            None,
            "a crash after it is no graceful restart"
        );
    }

    #[test]
    fn a_spoiled_file_counts_as_empty() {
        let directory = Directory::new("spoiled");
        fs::create_dir_all(&directory.0).unwrap();
        fs::write(directory.0.join("speaker.json"), b"{\"seq").unwrap();
        assert_eq!(Kept::load(&directory.0).sequence_hint(), None);
    }
}
