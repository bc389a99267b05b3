//! The sockets that take connections or packets, as `/proc/net` lists them.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use super::error::RealServerError;
use super::observed::{Listening, Transport};

/// The lists, what is in them, and the state that a socket in use has (`TCP_LISTEN`; a UDP
/// socket without a peer is in `TCP_CLOSE`).
const LISTS: [(&str, Transport, &str); 4] = [
    ("tcp", Transport::Tcp, "0A"),
    ("tcp6", Transport::Tcp, "0A"),
    ("udp", Transport::Udp, "07"),
    ("udp6", Transport::Udp, "07"),
];

/// Reads the lists; `root` is `/proc/thread-self/net`.
pub(super) fn read(root: &Path) -> Result<BTreeSet<Listening>, RealServerError> {
    let mut listening = BTreeSet::new();
    for (name, transport, state) in LISTS {
        let path = root.join(name);
        let text = match std::fs::read_to_string(&path) {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            result => result.map_err(|source| RealServerError::Read { path, source })?,
        };
        listening.extend(text.lines().filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (address, port) = fields.next()?.split_once(':')?;
            (fields.nth(1)? == state).then_some(())?;
            Some(Listening {
                transport,
                address: parse(address)?,
                port: u16::from_str_radix(port, 16).ok()?,
            })
        }));
    }
    Ok(listening)
}

/// An address as words of 32 bits in the host's order, in hexadecimal. An IPv4 address that
/// stands in an IPv6 one is that IPv4 address.
fn parse(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    if text.len() == 8 {
        return Some(IpAddr::from(word(0)?));
    }
    let mut bytes = [0; 16];
    for (index, four) in bytes.chunks_exact_mut(4).enumerate() {
        four.copy_from_slice(&word(index * 8)?);
    }
    Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn sockets_that_listen_are_read_and_others_are_not() {
        let root = tempfile::tempdir().unwrap();
        let write = |name, text| std::fs::write(root.path().join(name), text).unwrap();
        write(
            "tcp",
            "  sl  local_address rem_address   st tx_queue\n\
             \x20  0: 6401A8C0:0050 00000000:0000 0A 00000000:00000000\n\
             \x20  1: 0100007F:1F90 0100007F:D431 01 00000000:00000000\n",
        );
        write(
            "tcp6",
            "  sl  local_address remote_address st\n\
             \x20 0: 00000000000000000000000000000000:01BB \
             00000000000000000000000000000000:0000 0A 0\n\
             \x20 1: 0000000000000000FFFF00006401A8C0:1F90 \
             00000000000000000000000000000000:0000 0A 0\n",
        );
        write("udp", "  sl\n 7: 00000000:0035 00000000:0000 07 0\n");
        let found = read(root.path()).unwrap();
        let listening = |transport, address: &str, port| Listening {
            transport,
            address: address.parse().unwrap(),
            port,
        };
        let expected = [
            listening(Transport::Tcp, "192.168.1.100", 80),
            listening(Transport::Tcp, "192.168.1.100", 8080),
            listening(Transport::Tcp, "::", 443),
            listening(Transport::Udp, "0.0.0.0", 53),
        ];
        assert_eq!(found, expected.into());
    }
}
