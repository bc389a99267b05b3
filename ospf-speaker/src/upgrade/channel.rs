//! The socket between a speaker and its successor: one message a datagram, descriptors with it.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest message. The offer is the longest, with some hundred bytes an interface.
const MAX_MESSAGE: usize = 64 << 10;

/// How many descriptors go with one message; the kernel takes 253 (`SCM_MAX_FD`).
const DESCRIPTORS: usize = 128;

/// What became of a message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    /// Nothing came within the time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The other side has closed its end.
    #[error("the other side is gone")]
    Gone,
    /// What came is no message of ours.
    #[error("the answer is not understood: {0}")]
    Garbage(String),
    /// The system refused.
    #[error("cannot {operation}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    /// Both ends.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(ours), Self(theirs)))
    }

    /// The end that our predecessor gave us as standard input.
    pub(crate) fn from_stdin() -> io::Result<Self> {
        // Above the three standard descriptors, and not for children of ours.
        let descriptor = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
        rustix::net::sockopt::socket_type(&descriptor)?;
        Ok(Self(descriptor))
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(crate) fn into_descriptor(self) -> OwnedFd {
        self.0
    }

    /// Sends a message and descriptors. It never waits: the few messages of a handover fit the
    /// socket's buffer.
    pub(crate) fn send<T: Serialize>(
        &self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let failed = |source: io::Error| match source.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => ChannelError::Gone,
            _ => ChannelError::Io {
                operation: "send",
                source,
            },
        };
        let text = serde_json::to_vec(message).map_err(|error| failed(error.into()))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(failed(io::Error::from(ErrorKind::ArgumentListTooLong)));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.0, &[IoSlice::new(&text)], &mut control, flags)
            .map_err(|error| failed(error.into()))?;
        Ok(())
    }

    /// Sends descriptors, as many to a message as it takes.
    pub(crate) fn send_descriptors<T: Serialize>(
        &self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        descriptors
            .chunks(DESCRIPTORS)
            .try_for_each(|some| self.send(message, some))
    }

    /// The next message and its descriptors, waited for until `deadline`.
    pub(crate) fn receive<T: DeserializeOwned>(
        &self,
        deadline: Instant,
    ) -> Result<(T, Vec<OwnedFd>), ChannelError> {
        self.wait(deadline)?;
        let failed = |error: rustix::io::Errno| match io::Error::from(error) {
            source if source.kind() == ErrorKind::ConnectionReset => ChannelError::Gone,
            source => ChannelError::Io {
                operation: "receive",
                source,
            },
        };
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut buffer)],
            &mut control,
            flags,
        )
        .map_err(failed)?;
        let descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptors: Vec<OwnedFd> = descriptors.flatten().collect();
        let text = buffer.get(..received.bytes).unwrap_or_default();
        if text.is_empty() {
            return Err(ChannelError::Gone);
        }
        let message = serde_json::from_slice(text)
            .map_err(|error| ChannelError::Garbage(error.to_string()))?;
        Ok((message, descriptors))
    }

    fn wait(&self, deadline: Instant) -> Result<(), ChannelError> {
        let begin = Instant::now();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|error| ChannelError::Io {
                operation: "wait",
                source: io::Error::other(error),
            })?;
            let mut descriptors = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut descriptors, Some(&timeout)) {
                Ok(0) => {
                    let waited = deadline.saturating_duration_since(begin);
                    return Err(ChannelError::Silent(waited));
                }
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    return Err(ChannelError::Io {
                        operation: "wait",
                        source: error.into(),
                    });
                }
            }
        }
    }
}

/// The sockets that a speaker gives to its successor, in the order in which they were put in.
#[derive(Debug, Default)]
pub(crate) struct Outgoing<'a>(Vec<BorrowedFd<'a>>);

impl<'a> Outgoing<'a> {
    /// Puts a descriptor in; its place.
    pub(crate) fn put(&mut self, descriptor: &'a impl AsFd) -> usize {
        self.0.push(descriptor.as_fd());
        self.0.len() - 1
    }

    pub(crate) fn as_slice(&self) -> &[BorrowedFd<'a>] {
        &self.0
    }
}

/// The sockets that a successor got.
#[derive(Debug, Default)]
pub(crate) struct Incoming(Vec<Option<OwnedFd>>);

impl Incoming {
    pub(crate) fn extend(&mut self, descriptors: Vec<OwnedFd>) {
        self.0.extend(descriptors.into_iter().map(Some));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes the descriptor of a place.
    ///
    /// # Errors
    /// When there is none, or none any more.
    pub(crate) fn take(&mut self, place: usize) -> Result<OwnedFd, MissingDescriptor> {
        let descriptor = self.0.get_mut(place).and_then(Option::take);
        descriptor.ok_or(MissingDescriptor(place))
    }
}

/// A snapshot names a descriptor that did not come with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("descriptor {0} did not come with the snapshot")]
pub(crate) struct MissingDescriptor(usize);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn messages_stay_apart_and_descriptors_arrive_in_order() {
        let (ours, theirs) = Channel::pair().unwrap();
        let pairs: Vec<_> = (0..300).map(|_| UnixStream::pair().unwrap()).collect();
        let mut outgoing = Outgoing::default();
        for (place, (reader, _)) in pairs.iter().enumerate() {
            assert_eq!(outgoing.put(reader), place);
        }
        ours.send(&"first", &[]).unwrap();
        ours.send_descriptors(&"more", outgoing.as_slice()).unwrap();
        let (first, none) = theirs.receive::<String>(soon()).unwrap();
        assert_eq!((first.as_str(), none.len()), ("first", 0));
        let mut incoming = Incoming::default();
        while incoming.len() < pairs.len() {
            incoming.extend(theirs.receive::<String>(soon()).unwrap().1);
        }
        (&pairs[299].1).write_all(b"x").unwrap();
        let mut last = UnixStream::from(incoming.take(299).unwrap());
        let mut byte = [0];
        last.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        assert_eq!(incoming.take(299).unwrap_err(), MissingDescriptor(299));
        assert_eq!(incoming.take(300).unwrap_err(), MissingDescriptor(300));
    }

    #[test]
    fn silence_garbage_and_an_end_are_told_apart() {
        let (ours, theirs) = Channel::pair().unwrap();
        let error = ours.receive::<String>(Instant::now()).unwrap_err();
        assert!(matches!(error, ChannelError::Silent(_)), "{error}");
        rustix::io::write(&theirs.0, b"what?").unwrap();
        let error = ours.receive::<String>(soon()).unwrap_err();
        assert!(matches!(error, ChannelError::Garbage(_)), "{error}");
        drop(theirs);
        let error = ours.receive::<String>(soon()).unwrap_err();
        assert!(matches!(error, ChannelError::Gone), "{error}");
        let error = ours.send(&"too late", &[]).unwrap_err();
        assert!(matches!(error, ChannelError::Gone), "{error}");
    }
}
