//! By which interface the kernel would send to a real server, and how much fits into a packet
//! there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteMetric};
use rtnetlink::{Handle, RouteMessageBuilder};
use thiserror::Error;

/// Why the routes could not be read.
#[derive(Debug, Error)]
pub(super) enum PathError {
    #[error("cannot open rtnetlink")]
    Open(#[source] std::io::Error),
    #[error("cannot read the interfaces")]
    Links(#[source] rtnetlink::Error),
}

/// The way to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) interface: String,
    /// The largest packet: the route's, where it has one of its own or the kernel has learnt it,
    /// else the interface's.
    pub(super) mtu: u32,
}

/// The paths to these addresses; those without a route are left out, since checks find them dead.
pub(super) async fn paths(
    addresses: &BTreeSet<Ipv4Addr>,
) -> Result<BTreeMap<Ipv4Addr, Path>, PathError> {
    let mut paths = BTreeMap::new();
    if addresses.is_empty() {
        return Ok(paths);
    }
    let (connection, handle, _) = rtnetlink::new_connection().map_err(PathError::Open)?;
    // Ends when the handle is dropped.
    tokio::spawn(connection);
    let links = links(&handle).await.map_err(PathError::Links)?;
    for address in addresses {
        let question = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(*address, 32);
        let answer = handle.route().get(question.build()).execute();
        // "Network is unreachable" comes as an error.
        if let Some(Ok(route)) = std::pin::pin!(answer).next().await
            && let Some(path) = path(&route, &links)
        {
            paths.insert(*address, path);
        }
    }
    Ok(paths)
}

/// The name and MTU of each interface, by index.
type Links = BTreeMap<u32, Path>;

async fn links(handle: &Handle) -> Result<Links, rtnetlink::Error> {
    let messages = handle.link().get().execute();
    let messages: Vec<_> = messages.try_collect().await?;
    let link = |message: rtnetlink::packet_route::link::LinkMessage| {
        let (mut name, mut mtu) = (None, None);
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(it) => name = Some(it),
                LinkAttribute::Mtu(it) => mtu = Some(it),
                _ => {}
            }
        }
        let path = Path {
            interface: name?,
            mtu: mtu?,
        };
        Some((message.header.index, path))
    };
    Ok(messages.into_iter().filter_map(link).collect())
}

fn path(route: &RouteMessage, links: &Links) -> Option<Path> {
    let (mut link, mut own_mtu) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = links.get(index),
            RouteAttribute::Metrics(metrics) => {
                own_mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let link = link?;
    Some(Path {
        mtu: own_mtu.unwrap_or(link.mtu),
        ..link.clone()
    })
}
