//! Netlink messages of the two families that are only needed here, nf_tables and fou. Both have
//! a header of four bytes between netlink's own and the attributes.

use std::io;

use netlink_sys::{Socket, SocketAddr};

/// An acknowledgement or an error (`NLMSG_ERROR`).
const ERROR: u16 = 2;

/// The end of a list (`NLMSG_DONE`).
const DONE: u16 = 3;

/// `NLM_F_REQUEST`.
pub(super) const REQUEST: u16 = 0x1;

/// `NLM_F_ACK`.
pub(super) const ACK: u16 = 0x4;

/// `NLM_F_ROOT | NLM_F_MATCH`.
pub(super) const DUMP: u16 = 0x300;

/// `NLM_F_CREATE`.
pub(super) const CREATE: u16 = 0x400;

/// `NLM_F_APPEND`.
pub(super) const APPEND: u16 = 0x800;

/// `NLA_F_NESTED`; it and the flag beside it are no part of an attribute's type.
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// Netlink's own header, and with the four bytes behind it.
const HEADER: usize = 16;
const HEADERS: usize = 20;

/// A list of attributes, as bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn put(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).expect("attributes of ours are short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.put(kind | NESTED, &inner.0)
    }

    /// A text with the zero that the kernel expects behind it.
    pub(super) fn text(self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }
}

/// A message.
pub(super) fn message(kind: u16, flags: u16, header: [u8; 4], attributes: &Attributes) -> Vec<u8> {
    let length = u32::try_from(HEADERS + attributes.0.len()).expect("messages of ours are short");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | REQUEST).to_ne_bytes());
    // Sequence number and sender: one exchange at a time needs neither.
    bytes.extend([0; 8]);
    bytes.extend(header);
    bytes.extend(&attributes.0);
    bytes
}

/// The attributes that follow each other in these bytes; what is cut off is left out.
pub(super) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some((length, kind)) = u16_at(bytes, 0).zip(u16_at(bytes, 2)) {
        let length = usize::from(length);
        let Some(value) = bytes.get(4..length) else {
            break;
        };
        found.push((kind & TYPE_MASK, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    found
}

/// The value of an attribute.
pub(super) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    let all = attributes(bytes);
    all.into_iter()
        .find(|(it, _)| *it == kind)
        .map(|(_, it)| it)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes([two[0], two[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
}

/// A conversation with one netlink protocol of this thread's network namespace. The kernel
/// answers before `send` returns, so that nothing here waits.
pub(super) struct Conversation(Socket);

impl Conversation {
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Sends messages and reads up to the first error, acknowledgement or end of a list. The
    /// answers come back without their headers.
    pub(super) fn ask(&self, messages: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.0.send(messages, 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.0.recv_from_full()?;
            if take(&datagram, &mut answers)? {
                return Ok(answers);
            }
        }
    }
}

/// Takes the messages of a datagram, and says whether one of them was the last.
fn take(mut datagram: &[u8], answers: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    while let Some((length, kind)) = u32_at(datagram, 0).zip(u16_at(datagram, 4)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let cut = || io::Error::new(io::ErrorKind::InvalidData, "a netlink message is cut off");
        let message = datagram.get(HEADER..length).ok_or_else(cut)?;
        match kind {
            ERROR => {
                let code = u32_at(message, 0).ok_or_else(cut)?.cast_signed();
                return match code {
                    0 => Ok(true),
                    _ => Err(io::Error::from_raw_os_error(code.saturating_abs())),
                };
            }
            DONE => return Ok(true),
            _ => answers.push(message.get(HEADERS - HEADER..).ok_or_else(cut)?.to_vec()),
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_back_as_they_were_put() {
        let inner = Attributes::default().text(1, "isopath");
        let outer = Attributes::default().put(3, &[7]).nest(4, &inner);
        let list = attributes(&outer.0);
        assert_eq!(list[0], (3, &[7][..]));
        assert_eq!(list[1].0, 4, "the flag of a nest is no part of the type");
        assert_eq!(find(list[1].1, 1), Some(&b"isopath\0"[..]));
        assert_eq!(find(&outer.0, 5), None);
    }

    #[test]
    fn bytes_that_are_cut_off_are_no_attribute_and_no_panic() {
        let whole = Attributes::default().put(3, &[1, 2, 3, 4, 5]).0;
        for length in 0..9 {
            assert_eq!(attributes(&whole[..length]), [], "{length} bytes");
        }
        assert_eq!(attributes(&[2, 0, 1, 0]), [], "shorter than its own header");
    }

    #[test]
    fn a_list_ends_and_an_error_is_the_kernels_number() {
        let mut answers = Vec::new();
        let body = Attributes::default().put(1, &[9]);
        let mut datagram = message(20, 0, [0; 4], &body);
        datagram.extend(message(DONE, 0, [0; 4], &Attributes::default()));
        assert!(take(&datagram, &mut answers).unwrap());
        assert_eq!(answers, [body.0]);
        let refused = message(ERROR, 0, (-95_i32).to_ne_bytes(), &Attributes::default());
        let error = take(&refused, &mut answers).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(95));
        assert!(take(&datagram[..26], &mut answers).is_err());
    }
}
