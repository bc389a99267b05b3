//! Notices when somebody sets the wall clock, by which keys have their lifetimes.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// As late as a timer can be set for: it is there to be cancelled, never to expire.
const NEVER: Itimerspec = Itimerspec {
    it_interval: Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    },
    it_value: Timespec {
        tv_sec: i64::MAX / 1_000_000_000,
        tv_nsec: 0,
    },
};

/// A timer that the kernel cancels when the wall clock jumps (`TFD_TIMER_CANCEL_ON_SET` of
/// timerfd_create(2)). A clock that is slewed needs no notice: the monotonic clock goes along.
#[derive(Debug)]
pub(crate) struct WallClock {
    descriptor: OwnedFd,
}

impl WallClock {
    pub(crate) fn watch() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let clock = Self {
            descriptor: timerfd_create(TimerfdClockId::Realtime, flags)?,
        };
        clock.arm()?;
        Ok(clock)
    }

    /// The descriptor that becomes readable when the clock was set.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Whether the clock was set since this was last asked.
    pub(crate) fn was_set(&self) -> io::Result<bool> {
        match rustix::io::read(&self.descriptor, &mut [0; 8]) {
            // Cancelled, or expired because the clock was set to the end of time.
            Err(Errno::CANCELED) | Ok(_) => {
                self.arm()?;
                Ok(true)
            }
            Err(error) if io::Error::from(error).kind() == ErrorKind::WouldBlock => Ok(false),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn arm(&self) -> io::Result<()> {
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        match timerfd_settime(&self.descriptor, flags, &NEVER) {
            // The clock was set since the last look. The timer is armed for the next time; whoever
            // armed it looks at the clock afterwards.
            Ok(_) | Err(Errno::CANCELED) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_nobody_sets_says_nothing() {
        let clock = WallClock::watch().unwrap();
        assert!(!clock.was_set().unwrap());
    }
}
