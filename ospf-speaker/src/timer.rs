//! One timer with the kernel's precision: epoll's own timeout counts whole milliseconds.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// A timer descriptor (`timerfd_create(2)`).
#[derive(Debug)]
pub(crate) struct Timer {
    descriptor: OwnedFd,
    armed: Option<Instant>,
}

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self {
            descriptor: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            armed: None,
        })
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Becomes readable at `deadline`; never without one. Setting it again also clears it.
    pub(crate) fn arm(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        if self.armed == deadline {
            return Ok(());
        }
        // Zero would disarm it.
        let soonest = Duration::from_nanos(1);
        let left = deadline.map_or(Duration::ZERO, |at| {
            at.saturating_duration_since(Instant::now()).max(soonest)
        });
        let value = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(left).map_err(io::Error::other)?,
        };
        timerfd_settime(&self.descriptor, TimerfdTimerFlags::empty(), &value)?;
        self.armed = deadline;
        Ok(())
    }

    /// It became readable: the next [`Self::arm`] sets it anew even for the same time.
    pub(crate) fn fired(&mut self) {
        self.armed = None;
    }
}
