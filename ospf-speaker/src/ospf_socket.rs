//! The raw OSPF socket of one interface (RFC 2328 §A.1).

use std::io::{self, IoSlice, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use isopath_ospf::LinkState;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

/// The IP protocol number of OSPF.
const OSPF: i32 = 89;

/// The group of all OSPF routers. 224.0.0.6 is the Designated Routers', which we never are.
const ALL_SPF_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 5);

/// IP precedence Internetwork Control, for both protocols' packets.
pub(crate) const INTERNETWORK_CONTROL: u32 = 0xc0;

/// The largest IP packet.
pub(crate) const MAX_PACKET: usize = 65535;

/// A socket bound to one interface as it is now: after a change of its index or address a new
/// one is opened.
#[derive(Debug)]
pub(crate) struct OspfSocket {
    socket: Socket,
    /// Goes with each packet: what it leaves by and what its source is. An unnumbered link has
    /// no address of its own by which the kernel could find out either.
    source: libc::in_pktinfo,
}

/// A received packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Datagram<'a> {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) payload: &'a [u8],
}

impl AsFd for OspfSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl OspfSocket {
    pub(crate) fn open(interface: &str, link: LinkState) -> io::Result<Self> {
        let protocol = Some(Protocol::from(OSPF));
        let socket = Socket::new(Domain::IPV4, Type::RAW.nonblocking(), protocol)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_tos_v4(INTERNETWORK_CONTROL)?;
        socket.set_ttl_v4(1)?;
        socket.set_multicast_ttl_v4(1)?;
        socket.set_multicast_loop_v4(false)?;
        let index = InterfaceIndexOrAddress::Index(link.index);
        socket.join_multicast_v4_n(&ALL_SPF_ROUTERS, &index)?;
        let source = source_of(link)?;
        Ok(Self { socket, source })
    }

    /// Goes on with a socket that another process has opened.
    pub(crate) fn adopt(descriptor: OwnedFd, link: LinkState) -> io::Result<Self> {
        Ok(Self {
            socket: Socket::from(descriptor),
            source: source_of(link)?,
        })
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub(crate) fn send(&self, destination: Ipv4Addr, payload: &[u8]) -> io::Result<()> {
        let to = SockaddrIn::from(SocketAddrV4::new(destination, 0));
        let parts = [IoSlice::new(payload)];
        let source = [ControlMessage::Ipv4PacketInfo(&self.source)];
        let flags = MsgFlags::empty();
        sendmsg(self.descriptor(), &parts, &source, flags, Some(&to))?;
        Ok(())
    }

    /// The next packet, or nothing where its IP header is not whole.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<Datagram<'a>>> {
        let length = (&self.socket).read(buffer)?;
        Ok(buffer.get(..length).and_then(parse_ip))
    }
}

fn source_of(link: LinkState) -> io::Result<libc::in_pktinfo> {
    Ok(libc::in_pktinfo {
        ipi_ifindex: i32::try_from(link.index).map_err(io::Error::other)?,
        ipi_spec_dst: libc::in_addr {
            s_addr: link.address.to_bits().to_be(),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    })
}

/// Takes the IPv4 header off, which the kernel leaves on raw packets and has checked.
fn parse_ip(packet: &[u8]) -> Option<Datagram<'_>> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_length < header.len() {
        return None;
    }
    Some(Datagram {
        source: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
        destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]),
        payload: packet.get(header_length..total_length)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: [u8; 26] = [
        0x46, 0xc0, 0, 26, 0, 1, 0, 0, 1, 89, 0, 0, 10, 0, 1, 1, 224, 0, 0, 5, 0x94, 0x04, 0, 0, 2,
        1,
    ];

    #[test]
    fn options_are_part_of_the_header_and_padding_is_not_of_the_payload() {
        let mut padded = PACKET.to_vec();
        padded.extend([0; 20]);
        let expected = Datagram {
            source: Ipv4Addr::new(10, 0, 1, 1),
            destination: ALL_SPF_ROUTERS,
            payload: &[2, 1],
        };
        assert_eq!(parse_ip(&padded), Some(expected));
    }

    #[test]
    fn a_header_that_is_not_whole_is_no_packet() {
        for length in 0..PACKET.len() {
            assert_eq!(parse_ip(&PACKET[..length]), None, "{length} bytes");
        }
        for (at, value) in [(0, 0x44), (0, 0x66), (3, 10), (3, 27)] {
            let mut packet = PACKET;
            packet[at] = value;
            assert_eq!(parse_ip(&packet), None, "byte {at} = {value:#x}");
        }
    }
}
