//! What our own LSAs should say (RFC 2328 §12.4.1, §12.4.4; RFC 3101 §2.4).

use std::net::Ipv4Addr;

use crate::config::{AreaType, External, LinkState, NetworkType};
use crate::interface::Interface;
use crate::lsdb::DbKey;
use crate::neighbor::State;
use crate::own::Content;
use crate::packet::{
    ExternalLsa, ExternalMetric, LinkKind, LsType, LsaKey, Options, RouterLink, RouterLsa,
};
use crate::router::Router;
use crate::sabotage::Sabotage;

/// MaxLinkMetric (RFC 6987): nobody goes through us while there is another way.
const MAX_LINK_METRIC: u16 = 0xffff;
/// Bit E of a Router-LSA: an AS boundary router.
const ASBR: u8 = 0x02;

impl Router {
    /// The place of our Router-LSA.
    pub(crate) fn router_lsa_key(&self) -> DbKey {
        self.own_key(LsType::Router, self.config.router_id.0)
    }

    /// The place of the LSA that announces an external route: of type 7 in an NSSA, else of
    /// type 5. Host routes differ in their address, so that it can be the Link State ID as it is
    /// (RFC 2328, appendix E).
    pub(crate) fn external_key(&self, prefix: Ipv4Addr) -> DbKey {
        let ls_type = match self.config.area_type {
            AreaType::Normal | AreaType::Stub => LsType::AsExternal,
            AreaType::Nssa => LsType::Nssa,
        };
        self.own_key(ls_type, prefix)
    }

    fn own_key(&self, ls_type: LsType, link_state_id: Ipv4Addr) -> DbKey {
        DbKey::of_area(LsaKey {
            ls_type,
            link_state_id,
            advertising_router: self.config.router_id,
        })
    }

    /// What an LSA of ours should say; nothing if there should be none.
    pub(crate) fn wanted(&self, key: &DbKey) -> Option<Content> {
        match key.lsa.ls_type {
            LsType::Router => self.is_wanted(key).then(|| self.router_lsa()),
            LsType::AsExternal | LsType::Nssa => {
                let external = self.wanted_external(key)?;
                self.external_lsa(key.lsa.ls_type, external)
            }
            LsType::OpaqueLink => self.wanted_grace_lsa(key),
            LsType::Network
            | LsType::SummaryNetwork
            | LsType::SummaryAsbr
            | LsType::OpaqueArea
            | LsType::OpaqueAs
            | LsType::Unknown(_) => None,
        }
    }

    /// Whether there should be such an LSA of ours.
    pub(crate) fn is_wanted(&self, key: &DbKey) -> bool {
        match key.lsa.ls_type {
            LsType::Router => *key == self.router_lsa_key(),
            LsType::AsExternal => self.wanted_external(key).is_some(),
            LsType::Nssa => {
                self.wanted_external(key).is_some() && self.own.forwarding_address.is_some()
            }
            LsType::OpaqueLink => self.wanted_grace_lsa(key).is_some(),
            LsType::Network
            | LsType::SummaryNetwork
            | LsType::SummaryAsbr
            | LsType::OpaqueArea
            | LsType::OpaqueAs
            | LsType::Unknown(_) => false,
        }
    }

    fn wanted_external(&self, key: &DbKey) -> Option<&External> {
        let external = self.externals.get(&key.lsa.link_state_id)?;
        (*key == self.external_key(external.prefix)).then_some(external)
    }

    /// §12.4.4, and RFC 3101 §2.4 for type 7, which is to be translated (the P-bit) and therefore
    /// has to name a forwarding address.
    fn external_lsa(&self, ls_type: LsType, external: &External) -> Option<Content> {
        let (options, forwarding_address) = if ls_type == LsType::Nssa {
            (Options::N, self.own.forwarding_address?)
        } else {
            (Options::E, Ipv4Addr::UNSPECIFIED)
        };
        let lsa = ExternalLsa {
            mask: Ipv4Addr::BROADCAST,
            kind: external.kind,
            metric: ExternalMetric::from(external.metric),
            forwarding_address,
            tag: 0,
        };
        Some(Content {
            options,
            body: lsa.encode(),
        })
    }

    /// An address of ours within the area that packets for external routes can be sent to: the
    /// one that is in use, for as long as its interface has a neighbour, else the first one that
    /// has, else any that is up (RFC 3101 §2.3).
    pub(crate) fn choose_forwarding_address(&self) -> Option<Ipv4Addr> {
        let described = || {
            self.interfaces
                .iter()
                .filter(|interface| interface.is_described())
                .filter_map(|interface| Some((interface, interface.link?.address)))
        };
        let in_use = |address: &Ipv4Addr| Some(*address) == self.own.forwarding_address;
        let joined = || {
            described()
                .filter(|(interface, _)| interface.any_full())
                .map(|(_, address)| address)
        };
        let any = || described().map(|(_, address)| address);
        joined()
            .find(in_use)
            .or_else(|| joined().next())
            .or_else(|| any().find(in_use))
            .or_else(|| any().next())
    }

    /// §12.4.1.
    fn router_lsa(&self) -> Content {
        let mut links = Vec::new();
        let described = self
            .interfaces
            .iter()
            .filter(|interface| interface.is_described());
        for interface in described {
            if let Some(link) = interface.link {
                match interface.settings.network {
                    NetworkType::PointToPoint => point_to_point_links(interface, link, &mut links),
                    NetworkType::Broadcast => links.push(broadcast_link(interface, link)),
                }
                links.extend(self.unnumbered_forwarding_address(link));
            }
        }
        if self.is_sabotaged(Sabotage::InviteTransit) {
            links.iter_mut().for_each(|link| link.metric = 10);
        }
        links.extend(self.stubs.iter().map(|stub| host(stub.prefix, stub.metric)));
        let flags = if self.own.is_asbr && self.config.area_type != AreaType::Stub {
            ASBR
        } else {
            0
        };
        Content {
            options: self.config.area_type.options(),
            body: RouterLsa { flags, links }.encode(),
        }
    }

    /// The address that type 7 LSAs forward to, where no subnet makes it reachable.
    fn unnumbered_forwarding_address(&self, link: LinkState) -> Option<RouterLink> {
        let forwards = !self.externals.is_empty()
            && self.config.area_type == AreaType::Nssa
            && self.own.forwarding_address == Some(link.address);
        (forwards && link.is_unnumbered()).then(|| host(link.address, 0))
    }
}

/// §12.4.1.1: a link to the neighbour when Full, and the subnet (option 2) for as long as the
/// interface is up. An unnumbered link is known by its ifIndex and has no subnet.
fn point_to_point_links(interface: &Interface, link: LinkState, links: &mut Vec<RouterLink>) {
    let data = if link.is_unnumbered() {
        Ipv4Addr::from_bits(link.index)
    } else {
        link.address
    };
    let full = interface
        .neighbors
        .values()
        .filter(|neighbor| neighbor.state == State::Full);
    links.extend(full.map(|neighbor| RouterLink {
        kind: LinkKind::PointToPoint,
        id: neighbor.router_id.0,
        data,
        metric: MAX_LINK_METRIC,
    }));
    if !link.is_unnumbered() {
        links.push(subnet(interface, link));
    }
}

/// §12.4.1.2: a transit link when fully adjacent to the Designated Router, else a stub network.
fn broadcast_link(interface: &Interface, link: LinkState) -> RouterLink {
    match interface.full_dr() {
        Some(dr) => RouterLink {
            kind: LinkKind::Transit,
            id: dr.address,
            data: link.address,
            metric: MAX_LINK_METRIC,
        },
        None => subnet(interface, link),
    }
}

fn subnet(interface: &Interface, link: LinkState) -> RouterLink {
    RouterLink {
        kind: LinkKind::Stub,
        id: link.subnet(),
        data: link.mask(),
        metric: interface.settings.cost,
    }
}

fn host(address: Ipv4Addr, metric: u16) -> RouterLink {
    RouterLink {
        kind: LinkKind::Stub,
        id: address,
        data: Ipv4Addr::BROADCAST,
        metric,
    }
}
