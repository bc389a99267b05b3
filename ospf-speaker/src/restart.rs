//! What a graceful restart leaves to the next run, on a clock that both runs read.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use isopath_api::ids::RouterId;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::wanted::WantedSnapshot;

/// Changes with every start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A restart that the last run has prepared, as `speaker.json` keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    router_id: RouterId,
    /// The run of the machine: another one has another kernel, whose data plane is empty.
    boot_id: String,
    /// When this was written, in milliseconds since the machine was started.
    written_ms: u64,
    /// The end of the grace period, on the same clock.
    expires_ms: u64,
    /// What the agent said last.
    wanted: Option<WantedSnapshot>,
}

/// What is left of a prepared restart.
#[derive(Debug, PartialEq, Eq)]
pub struct Return {
    /// When the grace period ends.
    pub expires: Instant,
    /// What the agent said last, as it was when it was written.
    pub wanted: Option<WantedSnapshot>,
    /// When that was.
    pub written: Instant,
}

/// The time since the machine was started, the times that it slept included.
fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The present on both clocks, and which run of the machine it is.
#[derive(Debug, Clone)]
pub struct Present {
    now: Instant,
    since_boot: Duration,
    boot_id: String,
}

impl Present {
    /// Asks the kernel.
    ///
    /// # Errors
    /// It does not say which run of the machine this is.
    pub fn ask(now: Instant) -> io::Result<Self> {
        Ok(Self {
            now,
            since_boot: since_boot(),
            boot_id: fs::read_to_string(Path::new(BOOT_ID))?.trim().to_owned(),
        })
    }

    fn boot_ms(&self, at: Instant) -> u64 {
        millis(self.since_boot + at.saturating_duration_since(self.now))
    }

    /// A time on the other clock; nothing from before the process' own began.
    fn instant(&self, boot_ms: u64) -> Option<Instant> {
        let at = Duration::from_millis(boot_ms);
        match at.checked_sub(self.since_boot) {
            Some(ahead) => self.now.checked_add(ahead),
            None => self.now.checked_sub(self.since_boot.saturating_sub(at)),
        }
    }
}

impl Prepared {
    /// A restart whose grace period ends at `expires`.
    pub fn new(
        present: &Present,
        router_id: RouterId,
        expires: Instant,
        wanted: Option<WantedSnapshot>,
    ) -> Self {
        Self {
            router_id,
            boot_id: present.boot_id.clone(),
            written_ms: present.boot_ms(present.now),
            expires_ms: present.boot_ms(expires),
            wanted,
        }
    }

    /// What is left of it now: nothing for another router, after a start of the machine, or
    /// when the grace period is over.
    pub fn resume(self, present: &Present, router_id: RouterId) -> Option<Return> {
        if self.router_id != router_id || self.boot_id != present.boot_id {
            return None;
        }
        let expires = present.instant(self.expires_ms)?;
        (expires > present.now).then_some(Return {
            expires,
            wanted: self.wanted,
            written: present.instant(self.written_ms)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: RouterId = RouterId(std::net::Ipv4Addr::new(10, 0, 1, 2));

    fn present(boot_id: &str, since_boot: u64) -> Present {
        Present {
            now: Instant::now() + Duration::from_secs(1000),
            since_boot: Duration::from_secs(since_boot),
            boot_id: boot_id.to_owned(),
        }
    }

    #[test]
    fn the_next_run_has_what_is_left_of_the_grace_period() {
        let before = present("a", 100);
        let expires = before.now + Duration::from_secs(10);
        let prepared = Prepared::new(&before, OURS, expires, None);
        let text = serde_json::to_string(&prepared).unwrap();
        let prepared: Prepared = serde_json::from_str(&text).unwrap();

        let after = present("a", 103);
        let left = prepared.clone().resume(&after, OURS).unwrap();
        assert_eq!(left.expires - after.now, Duration::from_secs(7));
        assert_eq!(after.now - left.written, Duration::from_secs(3));

        let cases = [
            ("too late", present("a", 110), OURS),
            ("another start of the machine", present("b", 103), OURS),
            (
                "another router",
                present("a", 103),
                RouterId([10, 0, 1, 3].into()),
            ),
        ];
        for (case, after, router_id) in cases {
            assert_eq!(prepared.clone().resume(&after, router_id), None, "{case}");
        }
    }

    #[test]
    fn the_kernel_says_which_run_of_the_machine_it_is() {
        let present = Present::ask(Instant::now()).unwrap();
        assert_eq!(present.boot_id.len(), 36, "{present:?}");
        assert!(present.since_boot > Duration::ZERO);
    }
}
