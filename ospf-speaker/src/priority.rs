//! Real-time priority.

use std::io;

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

/// Asks for `SCHED_FIFO`, unless whoever started us has given it already. It needs CAP_SYS_NICE
/// or an rtprio limit; systemd can grant either.
pub(crate) fn set_real_time() -> io::Result<()> {
    let parameter = libc::sched_param {
        sched_priority: PRIORITY,
    };
    #[expect(
        unsafe_code,
        reason = "no safe wrapper of sched_setscheduler(2) is among our crates"
    )]
    // SAFETY: 0 means the calling process, and the kernel only reads the structure, which
    // outlives the calls.
    let result = unsafe {
        if libc::sched_getscheduler(0) == libc::SCHED_FIFO {
            return Ok(());
        }
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
