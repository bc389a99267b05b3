//! What the kernel says about our interfaces (rtnetlink).
//!
//! Notifications only say that it is time to look again; what holds is always what a fresh
//! query answers. So a lost notification or one read twice does no harm, and an interface that
//! appears, is renumbered or comes back under another index is just another answer.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, RawFd};

use isopath_api::config::{InterfaceConfig, NetworkType};
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
    watched: Vec<Watched>,
    notifications: Socket,
    queries: Socket,
    sequence: u32,
}

/// An interface of the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    name: String,
    network: NetworkType,
    /// The interface whose address it borrows.
    lender: Option<String>,
    /// The kernel's indices of it and of its lender, of the last answer.
    indices: [Option<u32>; 2],
}

impl From<&InterfaceConfig> for Watched {
    fn from(config: &InterfaceConfig) -> Self {
        Self {
            name: config.name.clone(),
            network: config.network,
            lender: config.unnumbered.clone(),
            indices: [None; 2],
        }
    }
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
    pub(crate) fn watch(watched: Vec<Watched>) -> io::Result<Self> {
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
            watched,
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
    /// exist, is not up and running, or has no address to speak from. An address of a host that
    /// is announced is none to speak from.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(crate) fn query(
        &mut self,
        place: usize,
        is_announced: impl Fn(Ipv4Addr) -> bool,
    ) -> io::Result<Option<LinkState>> {
        let Some(Watched {
            name,
            network,
            lender,
            ..
        }) = self.watched.get(place).cloned()
        else {
            return Ok(None);
        };
        let link = self.describe(&name)?;
        let lender = match &lender {
            Some(lender) => Some(self.describe(lender)?.unwrap_or_default()),
            None => None,
        };
        if let Some(watched) = self.watched.get_mut(place) {
            let index = |link: Option<&Described>| link.map(|link| link.index);
            watched.indices = [index(link.as_ref()), index(lender.as_ref())];
        }
        let Some(link) = link else {
            return Ok(None);
        };
        let address = match (&lender, network) {
            (Some(lender), _) => borrowed(lender, is_announced),
            (None, NetworkType::PointToPoint) => {
                numbered(&link).or_else(|| unnumbered(&link, is_announced))
            }
            (None, NetworkType::Broadcast) => numbered(&link),
        };
        Ok(address.and_then(|address| usable(&link, address)))
    }

    fn concerns_us(&self, payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
        let ours = |index: u32| {
            let watched = self.watched.iter();
            watched
                .flat_map(|watched| watched.indices)
                .any(|own| own == Some(index))
        };
        let ours_by_name = |name: &str| {
            self.watched
                .iter()
                .any(|own| own.name == name || own.lender.as_deref() == Some(name))
        };
        let NetlinkPayload::InnerMessage(message) = payload else {
            return false;
        };
        match message {
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                ours(link.header.index) || name_of(link).is_some_and(ours_by_name)
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

/// An address and the length of its prefix.
type Address = (Ipv4Addr, u8);

/// The length of the prefix of an address that has no subnet.
const HOST: u8 = 32;

/// The first primary address with a subnet.
fn numbered(link: &Described) -> Option<Address> {
    let mut addresses = link.addresses.iter();
    addresses
        .find(|(_, prefix_len)| *prefix_len < HOST)
        .copied()
}

/// The first primary address without a subnet, unless it is a VIP's.
fn unnumbered(link: &Described, is_announced: impl Fn(Ipv4Addr) -> bool) -> Option<Address> {
    let mut addresses = link.addresses.iter();
    let (address, _) =
        addresses.find(|(address, prefix_len)| *prefix_len >= HOST && !is_announced(*address))?;
    Some((*address, HOST))
}

/// The first primary address of another interface that others can reach.
fn borrowed(lender: &Described, is_announced: impl Fn(Ipv4Addr) -> bool) -> Option<Address> {
    let mut addresses = lender.addresses.iter();
    let (address, _) =
        addresses.find(|(address, _)| !address.is_loopback() && !is_announced(*address))?;
    Some((*address, HOST))
}

/// The link if it is up, to be spoken on from this address.
fn usable(link: &Described, (address, prefix_len): Address) -> Option<LinkState> {
    link.up.then(|| LinkState {
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

    fn is_vip(address: Ipv4Addr) -> bool {
        address == VIP.0
    }

    #[test]
    fn the_address_to_speak_from_has_a_subnet_or_is_a_host_but_no_vip() {
        const HOST: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 255, 0, 2), 32);
        const LOCAL: (Ipv4Addr, u8) = (Ipv4Addr::LOCALHOST, 8);
        type Found = Option<(Ipv4Addr, u8)>;
        let cases: [(&str, &[Address], Found, Found, Found); 6] = [
            ("a subnet", &[OWN], Some(OWN), None, Some((OWN.0, 32))),
            (
                "a VIP before it",
                &[VIP, OWN],
                Some(OWN),
                None,
                Some((OWN.0, 32)),
            ),
            ("only a VIP", &[VIP], None, None, None),
            ("a host", &[VIP, HOST], None, Some(HOST), Some(HOST)),
            (
                "a loopback",
                &[LOCAL, HOST],
                Some(LOCAL),
                Some(HOST),
                Some(HOST),
            ),
            ("no address", &[], None, None, None),
        ];
        for (name, addresses, subnet, host, lent) in cases {
            let link = link(true, addresses);
            assert_eq!(numbered(&link), subnet, "{name}: numbered");
            assert_eq!(unnumbered(&link, is_vip), host, "{name}: unnumbered");
            assert_eq!(borrowed(&link, is_vip), lent, "{name}: borrowed");
        }
    }

    #[test]
    fn a_link_without_a_carrier_is_of_no_use_and_a_jumbo_mtu_beyond_the_field_is_the_largest() {
        assert_eq!(usable(&link(false, &[OWN]), OWN), None);
        let loopback = Described {
            mtu: 65536,
            ..link(true, &[OWN])
        };
        assert_eq!(usable(&loopback, OWN).unwrap().mtu, 65535);
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
