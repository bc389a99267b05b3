//! Interfaces that come, change and go.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::time::Instant;

use isopath_api::ids::Vip;
use isopath_ospf::{InterfaceId, LinkState, NetworkType, State};
use mio::unix::SourceFd;
use tracing::{debug, info, warn};

use super::{RETRY, RunError, Source, Speaker, watch};
use crate::ospf_socket::OspfSocket;

impl Speaker {
    /// Asks the kernel for every interface and follows what changed.
    pub(super) fn refresh_links(&mut self, now: Instant) -> Result<(), RunError> {
        for place in 0..self.interfaces.len() {
            let is_announced = |address| self.verdicts.contains_key(&Vip(address));
            match self.links.query(place, is_announced) {
                Ok(link) => self.set_link(now, InterfaceId(place), link)?,
                Err(error) => {
                    warn!(%error, "cannot ask for the state of an interface");
                    self.retry_at = Some(now + RETRY);
                }
            }
        }
        Ok(())
    }

    fn set_link(
        &mut self,
        now: Instant,
        id: InterfaceId,
        link: Option<LinkState>,
    ) -> Result<(), RunError> {
        let Some(interface) = self.interfaces.get_mut(id.0) else {
            return Ok(());
        };
        if interface.link == link {
            return Ok(());
        }
        let same_sockets = match (interface.link, link) {
            (Some(old), Some(new)) => old.index == new.index && old.address == new.address,
            (None, _) | (_, None) => false,
        };
        self.touched = true;
        if !same_sockets {
            if interface.link.is_some() {
                info!(interface = interface.name, "interface is down");
            }
            self.close_sockets(id);
            self.router.handle_interface(now, id, None);
            self.drain_router(None);
        }
        let Some(link) = link else {
            return Ok(());
        };
        if !same_sockets && !self.open_sockets(now, id, link)? {
            return Ok(());
        }
        let Some(interface) = self.interfaces.get_mut(id.0) else {
            return Ok(());
        };
        interface.link = Some(link);
        let LinkState {
            address,
            prefix_len,
            mtu,
            ..
        } = link;
        info!(interface = interface.name, %address, prefix_len, mtu, "interface is up");
        self.router.handle_interface(now, id, Some(link));
        self.drain_router(None);
        Ok(())
    }

    /// Opens both sockets; false, and later again, where the system refuses for now.
    fn open_sockets(
        &mut self,
        now: Instant,
        id: InterfaceId,
        link: LinkState,
    ) -> Result<bool, RunError> {
        let Some(interface) = self.interfaces.get_mut(id.0) else {
            return Ok(false);
        };
        let name = interface.name.clone();
        let opened = OspfSocket::open(&name, link).and_then(|socket| {
            watch(&self.poll, socket.descriptor(), Source::Ospf(id))?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => interface.socket = Some(socket),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(RunError::NoRawSockets(error));
            }
            Err(error) => {
                warn!(interface = name, %error, "cannot open the OSPF socket, trying again");
                self.retry_at = Some(now + RETRY);
                return Ok(false);
            }
        }
        let opened = self.bfd.open(id, link).and_then(|descriptor| {
            descriptor.map_or(Ok(()), |descriptor| {
                watch(&self.poll, descriptor, Source::Bfd(id))
            })
        });
        if let Err(error) = opened {
            // OSPF works without it, only slower to notice.
            warn!(interface = name, %error, "no BFD on this interface");
        }
        self.backlog.extend([Source::Ospf(id), Source::Bfd(id)]);
        Ok(true)
    }

    fn close_sockets(&mut self, id: InterfaceId) {
        let Some(interface) = self.interfaces.get_mut(id.0) else {
            return;
        };
        interface.link = None;
        let ospf = interface.socket.take();
        let bfd = self.bfd.close(id);
        let descriptors = ospf.as_ref().map(OspfSocket::descriptor);
        for descriptor in descriptors.into_iter().chain(bfd) {
            let result: io::Result<()> =
                self.poll.registry().deregister(&mut SourceFd(&descriptor));
            if let Err(error) = result {
                debug!(%error, "socket was not watched");
            }
        }
        self.bfd.closed(id);
    }

    /// Keeps a BFD session with each neighbour whose loss matters: on a point-to-point link the
    /// one there is, on a broadcast segment the DR, the BDR and any other that is adjacent.
    pub(super) fn follow_neighbors(&mut self, now: Instant) {
        let wanted: Vec<(InterfaceId, Ipv4Addr)> = self
            .router
            .neighbors()
            .filter(|neighbor| self.bfd.is_on(neighbor.interface))
            .filter(|neighbor| {
                let network = self.config.interfaces.get(neighbor.interface.0);
                let network = network.map(|interface| interface.network);
                match network {
                    Some(NetworkType::PointToPoint) => neighbor.state >= State::TwoWay,
                    Some(NetworkType::Broadcast) => {
                        let designated = neighbor.is_dr || neighbor.is_bdr;
                        neighbor.state >= State::ExStart
                            || (neighbor.state == State::TwoWay && designated)
                    }
                    None => false,
                }
            })
            .map(|neighbor| (neighbor.interface, neighbor.address))
            .collect();
        self.bfd.follow(now, &wanted, &mut self.kept);
    }
}
