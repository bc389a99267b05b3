//! The sockets and sessions of BFD as plain data, with the descriptors beside it.

use std::net::Ipv4Addr;
use std::time::Instant;

use isopath_api::config::BfdConfig;
use isopath_bfd::{Session, SessionSnapshot};
use isopath_ospf::InterfaceId;
use serde::{Deserialize, Serialize};
use socket2::Socket;

use super::{Bfd, Interface, Open, Peer};
use crate::counts::Counts;
use crate::late::Lateness;
use crate::upgrade::{Incoming, Outgoing, TakeOverError};

/// All BFD of the speaker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BfdSnapshot {
    /// In the order of the interfaces.
    interfaces: Vec<Option<OpenSnapshot>>,
    peers: Vec<PeerSnapshot>,
    counters: Counts,
    lateness: Lateness,
}

#[derive(Debug, Serialize, Deserialize)]
struct OpenSnapshot {
    /// The place of its descriptor.
    socket: usize,
    address: Ipv4Addr,
}

#[derive(Debug, Serialize, Deserialize)]
struct PeerSnapshot {
    interface: InterfaceId,
    address: Ipv4Addr,
    /// The place of its descriptor.
    socket: usize,
    session: SessionSnapshot,
}

impl Bfd {
    /// All sessions, and their sockets.
    pub(crate) fn snapshot<'a>(&'a self, now: Instant, out: &mut Outgoing<'a>) -> BfdSnapshot {
        let Self {
            interfaces,
            peers,
            // What was lost has been told to OSPF by the end of every turn.
            lost: _,
            counters,
            lateness,
            changed: _,
            // Only an exit pauses, and a speaker that stops is not upgraded.
            paused: _,
        } = self;
        let mut open = |interface: &'a Interface| {
            let Interface {
                name: _,
                config: _,
                open,
            } = interface;
            open.as_ref().map(|Open { socket, address }| OpenSnapshot {
                socket: out.put(socket),
                address: *address,
            })
        };
        let interfaces = interfaces.iter().map(&mut open).collect();
        let peer = |peer: &'a Peer| {
            let Peer {
                interface,
                address,
                socket,
                session,
            } = peer;
            PeerSnapshot {
                interface: *interface,
                address: *address,
                socket: out.put(socket),
                session: session.snapshot(now),
            }
        };
        BfdSnapshot {
            interfaces,
            peers: peers.iter().map(peer).collect(),
            counters: counters.clone(),
            lateness: *lateness,
        }
    }

    /// Goes on with the sessions of a snapshot that was taken at `taken`.
    pub(crate) fn restore(
        interfaces: impl Iterator<Item = (String, Option<BfdConfig>)>,
        snapshot: BfdSnapshot,
        taken: Instant,
        incoming: &mut Incoming,
    ) -> Result<Self, TakeOverError> {
        let BfdSnapshot {
            interfaces: opened,
            peers,
            counters,
            lateness,
        } = snapshot;
        let mut bfd = Self::new(interfaces);
        bfd.counters = counters;
        bfd.lateness = lateness;
        for (interface, open) in bfd.interfaces.iter_mut().zip(opened) {
            if let Some(OpenSnapshot { socket, address }) = open {
                interface.open = Some(Open {
                    socket: Socket::from(incoming.take(socket)?),
                    address,
                });
            }
        }
        for peer in peers {
            let PeerSnapshot {
                interface,
                address,
                socket,
                session,
            } = peer;
            bfd.peers.push(Peer {
                interface,
                address,
                socket: Socket::from(incoming.take(socket)?),
                session: Session::restore(session, taken)?,
            });
        }
        Ok(bfd)
    }
}
