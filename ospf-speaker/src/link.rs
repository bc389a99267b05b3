//! What the kernel says about our interfaces (rtnetlink).
//!
//! Notifications only say that it is time to look again; what holds is always what a fresh
//! query answers. So a lost notification or one read twice does no harm, and an interface that
//! appears, is renumbered or comes back under another index is just another answer.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, RawFd};

use isopath_ospf::LinkState;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// `RTMGRP_LINK` and `RTMGRP_IPV4_IFADDR` of linux/rtnetlink.h.
const GROUPS: u32 = 0x1 | 0x10;

/// The interfaces' state and the notifications of its changes.
pub(crate) struct Links {
    names: Vec<String>,
    /// The kernel's index of each interface, of the last answer.
    indices: Vec<Option<u32>>,
    notifications: Socket,
    queries: Socket,
    sequence: u32,
}

/// One interface as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Described {
    index: u32,
    up: bool,
    mtu: u32,
    /// The primary addresses with their prefix lengths, in the kernel's order.
    addresses: Vec<(Ipv4Addr, u8)>,
}

impl Links {
    /// Begins to watch these interfaces, whether they exist or not.
    ///
    /// # Errors
    /// When there is no netlink.
    pub(crate) fn watch(names: Vec<String>) -> io::Result<Self> {
        let mut notifications = Socket::new(NETLINK_ROUTE)?;
        notifications.bind(&SocketAddr::new(0, GROUPS))?;
        notifications.set_non_blocking(true)?;
        let mut queries = Socket::new(NETLINK_ROUTE)?;
        queries.bind_auto()?;
        queries.connect(&SocketAddr::new(0, 0))?;
        // Lets a dump of addresses be of one interface only (Linux 4.20); without it the answer
        // is longer and filtered here.
        if let Err(error) = queries.set_netlink_get_strict_chk(true) {
            tracing::debug!(%error, "no strict checking of netlink requests");
        }
        Ok(Self {
            indices: vec![None; names.len()],
            names,
            notifications,
            queries,
            sequence: 0,
        })
    }

    /// The descriptor that becomes readable with a notification.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.notifications.as_raw_fd()
    }

    /// Reads all notifications; whether one may concern our interfaces.
    pub(crate) fn changed(&self) -> bool {
        let mut changed = false;
        loop {
            match self.notifications.recv_from_full() {
                Ok((datagram, _)) => {
                    changed |= messages(&datagram).any(|message| match message {
                        Ok(message) => self.concerns_us(&message.payload),
                        Err(_) => true,
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return changed,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The queue overflowed (ENOBUFS): what was lost may have been ours. Any other
                // error ends the reading, and looking again is the right answer to it, too.
                Err(error) => {
                    tracing::debug!(%error, "notifications of interfaces were lost");
                    changed = true;
                    if error.raw_os_error() != Some(libc::ENOBUFS) {
                        return changed;
                    }
                }
            }
        }
    }

    /// Asks for the state of the interface at this place of the list; nothing when it does not
    /// exist, is not up and running, or has no address to speak from.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(crate) fn query(&mut self, place: usize) -> io::Result<Option<LinkState>> {
        let Some(name) = self.names.get(place).cloned() else {
            return Ok(None);
        };
        let described = self.describe(&name)?;
        if let Some(index) = self.indices.get_mut(place) {
            *index = described.as_ref().map(|link| link.index);
        }
        Ok(described.as_ref().and_then(usable))
    }

    fn concerns_us(&self, payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
        let ours = |index: u32| self.indices.contains(&Some(index));
        let NetlinkPayload::InnerMessage(message) = payload else {
            return false;
        };
        match message {
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                ours(link.header.index)
                    || name_of(link).is_some_and(|name| self.names.iter().any(|own| own == name))
            }
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                ours(address.header.index)
            }
            _ => false,
        }
    }

    fn describe(&mut self, name: &str) -> io::Result<Option<Described>> {
        let mut request = LinkMessage::default();
        request
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let answers = match self.ask(RouteNetlinkMessage::GetLink(request), NLM_F_REQUEST) {
            Ok(answers) => answers,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
            Err(error) => return Err(error),
        };
        let link = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
        let Some(link) = link else {
            return Ok(None);
        };
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet;
        request.header.index = link.header.index;
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let answers = self.ask(RouteNetlinkMessage::GetAddress(request), flags)?;
        let addresses = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        });
        Ok(Some(described(&link, addresses)))
    }

    /// Sends a request and collects its answers. The kernel answers within the send, so the
    /// read does not wait.
    fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.queries.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.queries.recv_from_full()?;
            for message in messages(&datagram) {
                let message = message?;
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => {
                        answers.push(answer);
                        if flags & NLM_F_DUMP == 0 {
                            return Ok(answers);
                        }
                    }
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}

/// The messages of a datagram; an error ends them.
fn messages(
    datagram: &[u8],
) -> impl Iterator<Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>> + '_ {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) {
            Ok(message) => {
                // Messages are padded to four bytes (NLMSG_ALIGN).
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                let padded = length.saturating_add(3) & !3;
                rest = rest.get(padded.max(4)..).unwrap_or_default();
                Some(Ok(message))
            }
            Err(error) => {
                rest = &[];
                Some(Err(io::Error::new(
                    ErrorKind::InvalidData,
                    error.to_string(),
                )))
            }
        }
    })
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
}

fn described(link: &LinkMessage, addresses: impl Iterator<Item = AddressMessage>) -> Described {
    let index = link.header.index;
    let mtu = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
    let local = |address: AddressMessage| {
        let secondary = address.header.flags.contains(AddressHeaderFlags::Secondary);
        if address.header.index != index || secondary {
            return None;
        }
        // IFA_LOCAL is our end; IFA_ADDRESS is the other one on a link with a peer address.
        address
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(local)) => {
                    Some((*local, address.header.prefix_len))
                }
                _ => None,
            })
    };
    Described {
        index,
        up: link
            .header
            .flags
            .contains(LinkFlags::Up | LinkFlags::Running),
        mtu: mtu.unwrap_or_default(),
        addresses: addresses.filter_map(local).collect(),
    }
}

/// The first primary address with a subnet is the one that OSPF speaks from: a /32 is a VIP or
/// a loopback's.
fn usable(link: &Described) -> Option<LinkState> {
    let addresses = link.addresses.iter();
    let (address, prefix_len) = *addresses
        .filter(|(_, prefix_len)| *prefix_len < 32)
        .find(|_| link.up)?;
    Some(LinkState {
        address,
        prefix_len,
        mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX),
        index: link.index,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 1, 2), 30);
    const VIP: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 99, 0, 1), 32);

    fn link(up: bool, addresses: &[(Ipv4Addr, u8)]) -> Described {
        Described {
            index: 7,
            up,
            mtu: 1500,
            addresses: addresses.to_vec(),
        }
    }

    #[test]
    fn the_address_with_a_subnet_on_a_running_link_is_ours() {
        let cases = [
            ("plain", link(true, &[OWN]), Some(OWN.0)),
            ("a VIP before it", link(true, &[VIP, OWN]), Some(OWN.0)),
            ("no carrier", link(false, &[OWN]), None),
            ("only a VIP", link(true, &[VIP]), None),
            ("no address", link(true, &[]), None),
        ];
        for (name, link, address) in cases {
            assert_eq!(usable(&link).map(|state| state.address), address, "{name}");
        }
    }

    #[test]
    fn a_jumbo_mtu_beyond_the_field_is_the_largest() {
        let loopback = Described {
            mtu: 65536,
            ..link(true, &[OWN])
        };
        assert_eq!(usable(&loopback).unwrap().mtu, 65535);
    }

    #[test]
    fn messages_are_described_by_our_end_and_without_secondaries() {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.flags = LinkFlags::Up | LinkFlags::Running;
        message.attributes.push(LinkAttribute::Mtu(9000));
        let address = |index: u32, last: u8, flags| {
            let mut address = AddressMessage::default();
            address.header.index = index;
            address.header.prefix_len = 24;
            address.header.flags = flags;
            let local = IpAddr::V4(Ipv4Addr::new(10, 0, 1, last));
            let peer = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 99));
            address.attributes = vec![
                AddressAttribute::Address(peer),
                AddressAttribute::Local(local),
            ];
            address
        };
        let plain = AddressHeaderFlags::empty();
        let addresses = [
            address(8, 1, plain),
            address(7, 2, AddressHeaderFlags::Secondary),
            address(7, 3, plain),
        ];
        let expected = Described {
            index: 7,
            up: true,
            mtu: 9000,
            addresses: vec![(Ipv4Addr::new(10, 0, 1, 3), 24)],
        };
        assert_eq!(described(&message, addresses.into_iter()), expected);
    }

    #[test]
    fn spoiled_datagrams_end_the_reading() {
        for length in 1..40 {
            let spoiled = vec![0xff; length];
            assert_eq!(messages(&spoiled).filter(Result::is_err).count(), 1);
        }
        let zero = [0; 64];
        assert!(messages(&zero).count() <= 16);
    }
}
