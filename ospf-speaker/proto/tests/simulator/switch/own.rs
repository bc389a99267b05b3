//! What the switch originates (RFC 2328 §12.4).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use isopath_ospf::packet::{INITIAL_SEQUENCE, LsType, Lsa, LsaKey, NetworkLsa, Options, RouterLsa};
use isopath_ospf::{AreaType, LinkKind, NetworkType, RouterLink, State};

use super::{Own, Port, REFRESH, Switch};
use crate::network::Time;

/// The cost of the switch's links.
const COST: u16 = 10;
/// The E flag of a Router-LSA: an AS boundary router.
const BOUNDARY: u8 = 0x02;

impl Switch {
    pub(super) fn tick_own(&mut self, now: Time) {
        let due: Vec<LsaKey> = self
            .db
            .iter()
            .filter(|(_, stored)| !stored.expired && stored.expires() <= now)
            .map(|(&key, _)| key)
            .collect();
        for key in due {
            self.expire(now, key);
        }
        for own in self.own.values_mut() {
            if own.left + REFRESH <= now {
                own.body.clear();
                self.is_stale = true;
            }
        }
        if self.originate_at.is_some_and(|at| at <= now) {
            self.is_stale = true;
        }
    }

    /// Brings what is originated in line with what is wanted, as fast as MinLSInterval lets it.
    pub(super) fn originate(&mut self, now: Time) {
        self.originate_at = None;
        let wanted = self.wanted();
        let gone: Vec<LsaKey> = self
            .own
            .keys()
            .filter(|key| !wanted.contains_key(key))
            .copied()
            .collect();
        for key in gone {
            self.own.remove(&key);
            self.expire(now, key);
        }
        for (key, body) in wanted {
            let own = self.own.get(&key);
            if own.is_some_and(|own| own.body == body) {
                continue;
            }
            let earliest = own.map_or(now, |own| own.left + self.setup.personality.min_interval);
            if earliest > now {
                let next = self.originate_at.map_or(earliest, |at| at.min(earliest));
                self.originate_at = Some(next);
                continue;
            }
            self.originate_one(now, key, body);
        }
    }

    fn originate_one(&mut self, now: Time, key: LsaKey, body: Vec<u8>) {
        let before = self.sequences.get(&key);
        let sequence = before.map_or(INITIAL_SEQUENCE, |sequence| sequence + 1);
        let options = match key.ls_type {
            LsType::Nssa => Options::N,
            _ => self.area_options(),
        };
        let lsa = Lsa::originate(key, options, sequence, &body).expect("a switch's LSA is small");
        self.sequences.insert(key, sequence);
        self.own.insert(key, Own { body, left: now });
        self.install(now, lsa, false);
        self.flood(now, key, None);
    }

    fn wanted(&self) -> BTreeMap<LsaKey, Vec<u8>> {
        let mut wanted = BTreeMap::new();
        let key = |ls_type, link_state_id| LsaKey {
            ls_type,
            link_state_id,
            advertising_router: self.setup.id,
        };
        let mut links = Vec::new();
        for port in self.ports.iter().filter(|port| port.is_up) {
            self.describe(port, &mut links);
            if let Some(routers) = self.attached(port) {
                let network = NetworkLsa {
                    mask: port.setup.mask,
                    routers,
                };
                wanted.insert(key(LsType::Network, port.setup.address), network.encode());
            }
        }
        let flags = if self.setup.externals > 0 {
            BOUNDARY
        } else {
            0
        };
        let router_lsa = RouterLsa { flags, links };
        wanted.insert(key(LsType::Router, self.setup.id.0), router_lsa.encode());
        let ls_type = match self.setup.area_type {
            AreaType::Normal => LsType::AsExternal,
            AreaType::Nssa => LsType::Nssa,
            AreaType::Stub => return wanted,
        };
        for index in 0..self.setup.externals {
            let prefix = Ipv4Addr::from_bits(0xc612_0000 + index);
            // Mask, E-bit and metric, no forwarding address, no tag.
            let body = [255, 255, 255, 255, 0x80, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0];
            wanted.insert(key(ls_type, prefix), body.to_vec());
        }
        wanted
    }

    /// The routers of a segment, where we are its Designated Router and not alone (§12.4.2).
    fn attached(&self, port: &Port) -> Option<Vec<isopath_ospf::RouterId>> {
        let is_ours = port.setup.network == NetworkType::Broadcast && port.is_dr();
        let full = port.peers.values().filter(|peer| peer.state == State::Full);
        let mut routers: Vec<_> = full.map(|peer| peer.id).collect();
        if !is_ours || routers.is_empty() {
            return None;
        }
        routers.push(self.setup.id);
        Some(routers)
    }

    fn describe(&self, port: &Port, links: &mut Vec<RouterLink>) {
        let link = |kind, id, data| RouterLink {
            kind,
            id,
            data,
            metric: COST,
        };
        let address = port.setup.address;
        let full = |peer: &&super::Peer| peer.state == State::Full;
        if port.setup.network == NetworkType::PointToPoint {
            let full = port.peers.values().filter(full);
            links.extend(full.map(|peer| link(LinkKind::PointToPoint, peer.id.0, address)));
        } else {
            let dr = port.dr.filter(|dr| match *dr == address {
                true => self.attached(port).is_some(),
                false => port.peers.get(dr).as_ref().is_some_and(full),
            });
            if let Some(dr) = dr {
                links.push(link(LinkKind::Transit, dr, address));
                return;
            }
        }
        links.push(link(
            LinkKind::Stub,
            address & port.setup.mask,
            port.setup.mask,
        ));
    }
}
