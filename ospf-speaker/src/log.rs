//! Log lines to standard error, but never at the price of a Hello.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Lines that nobody took. A log is one for the whole process, and so is this.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Standard error for the log: a line that would have to wait for its reader is dropped and
/// counted. A blocking write to a stalled journal would stop OSPF and BFD. The descriptor stays
/// in blocking mode, since it may be shared with whoever started us.
#[derive(Debug, Default)]
pub struct Stderr;

/// How many lines were dropped since the start.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        if is_writable(&stderr) {
            return stderr.lock().write(line);
        }
        DROPPED.fetch_add(1, Ordering::Relaxed);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a write of a line returns at once. A pipe that is writable takes 4096 bytes, a
/// socket no less.
fn is_writable(descriptor: &impl AsFd) -> bool {
    let mut descriptors = [PollFd::new(descriptor.as_fd(), PollFlags::POLLOUT)];
    matches!(poll(&mut descriptors, PollTimeout::ZERO), Ok(1))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_reader_that_stalls_is_not_waited_for() {
        let (mut writer, reader) = UnixStream::pair().unwrap();
        let line = [b'x'; 200];
        let mut written = 0;
        while is_writable(&writer) {
            // Would wait for ever if it did not return at once.
            writer.write_all(&line).unwrap();
            written += 1;
        }
        assert!(written > 10, "{written} lines are no buffer");
        drop(reader);
    }
}
