//! The netlink socket: whole requests out, whole answers in.
//!
//! The kernel handles a request while it is being sent (`netlink_unicast_kernel`), and goes on
//! with a dump while its last part is being read (`netlink_recvmsg`). Everything there is to read
//! is therefore there when a call returns, and nothing here ever waits.

use std::os::fd::OwnedFd;

use netlink_packet_core::{
    DecodeError, Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer, NetlinkHeader, parse_i32,
};
use netlink_packet_generic::GenlHeader;
use netlink_packet_generic::constants::GENL_HDRLEN;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::{GENERIC, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::attribute::Writer;

const NETLINK_HEADER_LENGTH: usize = 16;

/// The most that the kernel puts into one part of a dump (`netlink_recvmsg`), so that a dump
/// takes as few calls as it can.
const BUFFER: usize = 32 << 10;

/// How many requests are sent in one call. All could be refused, and a refusal repeats the
/// request: 128 of them, at up to 1,280 bytes of kernel memory each, fit the receive buffer that
/// Linux gives a socket (`net.core.rmem_default`, 212,992 bytes). More would hardly be faster.
pub(crate) const WINDOW: usize = 128;

/// Requests that are ready to be sent in one call, but for what the socket adds.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    bytes: Vec<u8>,
    /// Where each begins.
    starts: Vec<usize>,
}

impl Requests {
    pub(crate) fn one(
        family: u16,
        header: GenlHeader,
        attributes: impl FnOnce(&mut Writer<'_>),
    ) -> Self {
        let mut requests = Self::default();
        requests.push(family, header, attributes);
        requests
    }

    pub(crate) fn push(
        &mut self,
        family: u16,
        header: GenlHeader,
        attributes: impl FnOnce(&mut Writer<'_>),
    ) {
        let start = self.bytes.len();
        self.starts.push(start);
        self.bytes
            .resize(start + NETLINK_HEADER_LENGTH + GENL_HDRLEN, 0);
        header.emit(&mut self.bytes[start + NETLINK_HEADER_LENGTH..]);
        attributes(&mut Writer::new(&mut self.bytes));
        let mut netlink = NetlinkHeader::default();
        netlink.length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        netlink.message_type = family;
        netlink.flags = NLM_F_REQUEST;
        netlink.emit(&mut self.bytes[start..]);
    }

    /// Empties it, but keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }

    /// The bodies, each from its generic netlink header on.
    #[cfg(test)]
    pub(crate) fn bodies(&self) -> Vec<&[u8]> {
        let ends = self.starts[1..].iter().copied().chain([self.bytes.len()]);
        let requests = self.starts.iter().zip(ends);
        let body = |(start, end): (&usize, usize)| &self.bytes[start + NETLINK_HEADER_LENGTH..end];
        requests.map(body).collect()
    }
}

/// The end that a request's answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// One message.
    One,
    /// A message that says so, after any number of others.
    Dump,
}

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The kernel refused, with this error number.
    Refused(i32),
    /// The socket failed.
    Socket(Errno),
    /// The kernel's answer did not fit the receive buffer.
    Lost,
    /// The answer ended before its end.
    Incomplete,
    /// The answer was not understood.
    Decode(DecodeError),
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

/// A message of an answer.
enum Reply<'a> {
    /// A generic netlink message, from its header on.
    Message(&'a [u8]),
    /// The request was done.
    Acknowledged,
    /// The request was refused, with this error number.
    Refused(i32),
    /// The end of a dump.
    Done,
}

/// A generic netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: OwnedFd,
    /// The last sequence number given.
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    pub(crate) fn open() -> Result<Self, Errno> {
        let kind = SocketType::RAW;
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, kind, flags, Some(GENERIC))?;
        // Port 0 is the kernel's; a connected socket hears nobody else.
        rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Sends a request and hands each message of its answer over, from its generic netlink
    /// header on.
    pub(crate) fn ask(
        &mut self,
        requests: &mut Requests,
        answer: Answer,
        take: impl FnMut(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<(), Failure> {
        let last = match answer {
            Answer::One => 0,
            Answer::Dump => NLM_F_DUMP,
        };
        self.send(requests, last).map_err(Failure::Socket)?;
        let result = self.gather(answer, take);
        if result.is_err() {
            self.drain();
        }
        result
    }

    fn gather(
        &mut self,
        answer: Answer,
        mut take: impl FnMut(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<(), Failure> {
        let asked = self.sequence;
        loop {
            let length = self.receive()?;
            let mut ended = false;
            for reply in replies(&self.buffer[..length]) {
                let (sequence, reply) = reply?;
                if sequence != asked {
                    continue;
                }
                match reply {
                    Reply::Message(message) => {
                        take(message)?;
                        ended |= answer == Answer::One;
                    }
                    Reply::Acknowledged | Reply::Done => ended = true,
                    Reply::Refused(errno) => return Err(Failure::Refused(errno)),
                }
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Sends requests that have no answer but that they were done or not, and says which, in
    /// their order.
    ///
    /// Only the last one asks for an acknowledgement. The kernel goes through them in order,
    /// answers a refused one unasked, and says when an answer was lost: so those before an
    /// acknowledgement that were not refused were done.
    pub(crate) fn tell(&mut self, requests: &mut Requests) -> Vec<Result<(), Failure>> {
        let count = requests.starts.len();
        if count == 0 {
            return Vec::new();
        }
        if let Err(errno) = self.send(requests, NLM_F_ACK) {
            return (0..count).map(|_| Err(Failure::Socket(errno))).collect();
        }
        let mut results: Vec<_> = (0..count).map(|_| None).collect();
        let heard = self.hear(&mut results);
        if heard.is_err() {
            self.drain();
        }
        let unheard = || match &heard {
            Ok(()) => Ok(()),
            Err(Failure::Decode(error)) => Err(Failure::Decode(error.to_string().into())),
            Err(_) => Err(Failure::Lost),
        };
        let results = results.into_iter();
        results.map(|it| it.unwrap_or_else(&unheard)).collect()
    }

    /// Notes what was refused of the requests sent last, until the last of them is answered.
    fn hear(&mut self, results: &mut [Option<Result<(), Failure>>]) -> Result<(), Failure> {
        let last = self.sequence;
        loop {
            let length = self.receive()?;
            for reply in replies(&self.buffer[..length]) {
                let (sequence, reply) = reply?;
                let back = usize::try_from(last.wrapping_sub(sequence)).unwrap_or(usize::MAX);
                let end = results.len().checked_sub(1);
                let Some(at) = end.and_then(|end| end.checked_sub(back)) else {
                    continue;
                };
                let result = match reply {
                    Reply::Refused(errno) => Err(Failure::Refused(errno)),
                    Reply::Acknowledged | Reply::Done => Ok(()),
                    Reply::Message(_) => continue,
                };
                results[at] = Some(result);
                if sequence == last {
                    return Ok(());
                }
            }
        }
    }

    /// Sends the requests, numbered, the last one with `last` among its flags.
    fn send(&mut self, requests: &mut Requests, last: u16) -> Result<(), Errno> {
        let end = requests.starts.len();
        for (number, start) in requests.starts.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let mut header = NetlinkBuffer::new(&mut requests.bytes[*start..]);
            header.set_sequence_number(self.sequence);
            if number + 1 == end {
                header.set_flags(NLM_F_REQUEST | last);
            }
        }
        let send = || rustix::net::send(&self.socket, &requests.bytes, SendFlags::empty());
        retry_on_intr(send).map(|_| ())
    }

    /// Reads one datagram into the buffer and returns its length.
    fn receive(&mut self) -> Result<usize, Failure> {
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let received =
            retry_on_intr(|| rustix::net::recv(&self.socket, self.buffer.as_mut_slice(), flags));
        match received {
            Ok((_, length)) if length <= self.buffer.len() => Ok(length),
            Ok(_) | Err(Errno::NOBUFS) => Err(Failure::Lost),
            Err(Errno::AGAIN) => Err(Failure::Incomplete),
            Err(errno) => Err(Failure::Socket(errno)),
        }
    }

    /// Reads what is left of an answer that failed, which ends the kernel's dump, if any.
    fn drain(&mut self) {
        while matches!(self.receive(), Ok(_) | Err(Failure::Lost)) {}
    }
}

/// The messages of a datagram, each with its sequence number.
fn replies(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u32, Reply<'_>), Failure>> {
    std::iter::from_fn(move || {
        while !bytes.is_empty() {
            let message = match NetlinkBuffer::new_checked(bytes) {
                Ok(message) => message,
                Err(error) => {
                    bytes = &[];
                    return Some(Err(error.into()));
                }
            };
            let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
            if let Some(reply) = reply(&message).transpose() {
                return Some(reply.map(|reply| (message.sequence_number(), reply)));
            }
        }
        None
    })
}

/// What a message says; nothing where it is to be passed over.
fn reply<'a>(message: &NetlinkBuffer<&'a [u8]>) -> Result<Option<Reply<'a>>, Failure> {
    let payload = message.payload();
    let code = || match payload.first_chunk::<4>() {
        Some(code) => Ok(parse_i32(code)?),
        None => Err(DecodeError::invalid_buffer("error code", payload.len(), 4)),
    };
    Ok(match message.message_type() {
        NLMSG_NOOP => None,
        NLMSG_OVERRUN => return Err(Failure::Lost),
        NLMSG_ERROR => Some(match code()? {
            0 => Reply::Acknowledged,
            code => Reply::Refused(code.saturating_abs()),
        }),
        NLMSG_DONE => match code()? {
            code @ ..0 => return Err(Failure::Refused(code.saturating_abs())),
            0.. => Some(Reply::Done),
        },
        _ => Some(Reply::Message(payload)),
    })
}

#[cfg(test)]
mod tests;
