//! A look at a kernel's routes that starts no program: it is taken many times a second while
//! something is waited for.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::route::{RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::route_monitor::{destination, next_hops};

/// The gateways to a host, by the main table of the namespace that the calling thread is in;
/// none without a route to exactly this host.
pub(crate) fn gateways(host: Ipv4Addr) -> Result<BTreeSet<Ipv4Addr>> {
    let mut found = BTreeSet::new();
    dump(|route| {
        if route.header.table == RouteHeader::RT_TABLE_MAIN
            && destination(route) == Some((host, 32))
        {
            found.extend(next_hops(route));
        }
    })?;
    Ok(found)
}

fn dump(mut each: impl FnMut(&RouteMessage)) -> Result<()> {
    let socket = Socket::new(NETLINK_ROUTE).context("opening a netlink socket")?;
    socket
        .connect(&SocketAddr::new(0, 0))
        .context("connecting to the kernel")?;
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(route));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0).context("asking for the routes")?;
    loop {
        let (datagram, _) = socket.recv_from_full().context("reading the routes")?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .context("decoding a route")?;
            let length = usize::try_from(message.header.length).context("a netlink length")?;
            // Netlink messages are aligned to 4 bytes (NLMSG_ALIGN).
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => each(&route),
                NetlinkPayload::Done(_) => return Ok(()),
                other => bail!("expected a route, found {other:?}"),
            }
        }
    }
}
