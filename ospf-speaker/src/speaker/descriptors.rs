//! What every process has of its own, before it has any state.

use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use isopath_api::config::DirectorFile;
use mio::Poll;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR2};

use super::{RunError, Source, watch};
use crate::link::{Links, Watched};
use crate::paths::Paths;
use crate::timer::Timer;
use crate::wall_clock::WallClock;

/// Descriptors and threads that are not handed over, because a new one is as good.
pub(super) struct Descriptors {
    pub(super) poll: Poll,
    pub(super) timer: Timer,
    pub(super) wall_clock: WallClock,
    /// Of SIGTERM and SIGINT.
    pub(super) signals: UnixStream,
    /// Of SIGUSR2. Not of SIGHUP, which a terminal that closes sends, too.
    pub(super) upgrade_signals: UnixStream,
    /// Whether SIGINT is among the signals.
    pub(super) interrupted: Arc<AtomicBool>,
    pub(super) links: Links,
    pub(super) paths: Paths,
}

impl Descriptors {
    pub(super) fn open(file: &DirectorFile) -> Result<Self, RunError> {
        let poll = Poll::new().map_err(RunError::io("create an epoll instance"))?;
        let timer = Timer::new().map_err(RunError::io("create a timer"))?;
        let wall_clock = WallClock::watch().map_err(RunError::io("watch the clock"))?;
        let failed = RunError::io("watch for signals");
        let interrupted = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGINT, Arc::clone(&interrupted)).map_err(&failed)?;
        let signals = signals(&[SIGTERM, SIGINT]).map_err(&failed)?;
        let upgrade_signals = self::signals(&[SIGUSR2]).map_err(&failed)?;
        let links = Links::watch(file.ospf.interface.iter().map(Watched::from).collect())
            .map_err(RunError::io("watch the interfaces (netlink)"))?;
        let watched = [
            (signals.as_raw_fd(), Source::Signals),
            (upgrade_signals.as_raw_fd(), Source::UpgradeSignal),
            (timer.descriptor(), Source::Timer),
            (links.descriptor(), Source::Links),
            (wall_clock.descriptor(), Source::WallClock),
        ];
        for (descriptor, source) in watched {
            watch(&poll, descriptor, source).map_err(RunError::io("watch a descriptor"))?;
        }
        let paths = Paths::start(poll.registry(), Source::Paths.token())
            .map_err(RunError::io("start the calculation of paths"))?;
        Ok(Self {
            poll,
            timer,
            wall_clock,
            signals,
            upgrade_signals,
            interrupted,
            links,
            paths,
        })
    }
}

/// The readable end of a pair whose other end the signals' handlers write to.
fn signals(signals: &[i32]) -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

/// How many signals have come.
pub(super) fn drain_signals(signals: &mut UnixStream) -> usize {
    let mut bytes = [0; 16];
    let mut count = 0;
    loop {
        match signals.read(&mut bytes) {
            Ok(0) => return count,
            Ok(length) => count += length,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return count,
        }
    }
}
