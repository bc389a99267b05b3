//! Real-time priority.

use std::io;

use rustix::process::{Resource, getrlimit};

/// Gives the calling thread up to the ordinary scheduler, which may do otherwise than its
/// process.
pub(crate) fn set_ordinary() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 0 };
    #[expect(
        unsafe_code,
        reason = "no safe wrapper of sched_setscheduler(2) is among our crates"
    )]
    // SAFETY: 0 means the calling thread, and the kernel only reads the structure, which
    // outlives the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const parameter) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Low among the real-time priorities, above everything that is not: the kernel's own threads
/// go before us, a busy agent does not.
const PRIORITY: libc::c_int = 10;

/// Real-time, but not for the programs that this process starts: a successor asks for it when
/// it is about to take over, and one that hangs before takes no processor from us.
const POLICY: libc::c_int = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;

/// Asks for `SCHED_FIFO`, unless whoever started us has given it already. It needs CAP_SYS_NICE
/// or an rtprio limit; systemd can grant either.
pub(crate) fn set_real_time() -> io::Result<()> {
    let mut parameter = libc::sched_param {
        sched_priority: PRIORITY,
    };
    // Without a limit of its own a successor could not have back what we were given.
    let limit = getrlimit(Resource::Rtprio).current;
    let may_ask_again = limit.is_none_or(|limit| limit > 0);
    #[expect(
        unsafe_code,
        reason = "no safe wrapper of sched_setscheduler(2) is among our crates"
    )]
    // SAFETY: 0 means the calling process, and the kernel only writes or reads the structure,
    // which outlives the calls.
    let result = unsafe {
        let present = libc::sched_getscheduler(0);
        if present == POLICY || (present == libc::SCHED_FIFO && !may_ask_again) {
            return Ok(());
        }
        if present == libc::SCHED_FIFO && libc::sched_getparam(0, &raw mut parameter) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::sched_setscheduler(0, POLICY, &raw const parameter)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
