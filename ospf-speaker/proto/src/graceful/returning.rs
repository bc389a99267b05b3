//! The way back: what tells that a graceful restart is over (RFC 3623 §2.2).

use std::net::Ipv4Addr;

use super::RestartEnd;
use crate::config::Stub;
use crate::ids::RouterId;
use crate::lsdb::DbKey;
use crate::neighbor::State;
use crate::packet::{LinkKind, LsType, LsaHeader, LsaKey, NetworkLsa, RouterLink, RouterLsa};
use crate::router::Router;
use crate::view::carried;

impl Router {
    /// Whether a received copy is one of our own LSAs that a restart takes for what it is.
    pub(crate) fn is_adopted(&self, header: &LsaHeader) -> bool {
        self.is_returning() && header.key.advertising_router == self.config.router_id
    }

    /// Whether, and how, the restart is over (§2.2, points 1 and 2, and the wanted set).
    pub(super) fn restart_end(&self) -> Option<RestartEnd> {
        if !self.is_wanted_still() {
            return Some(RestartEnd::WantedSet);
        }
        let Some(links) = self.links_before() else {
            // The neighbours have told all they know, and it was not about us.
            let nothing_of_us = self.anyone_full() && !self.anyone_synchronizing();
            return nothing_of_us.then_some(RestartEnd::Inconsistent);
        };
        if links.iter().any(|link| self.is_given_up(link)) {
            return Some(RestartEnd::Inconsistent);
        }
        links
            .iter()
            .all(|link| self.is_restored(link))
            .then_some(RestartEnd::Complete)
    }

    /// The links of the Router-LSA from before the restart, once a neighbour has sent it.
    fn links_before(&self) -> Option<Vec<RouterLink>> {
        self.links_of(self.config.router_id)
    }

    fn links_of(&self, router_id: RouterId) -> Option<Vec<RouterLink>> {
        let key = DbKey::of_area(LsaKey {
            ls_type: LsType::Router,
            link_state_id: router_id.0,
            advertising_router: router_id,
        });
        if self.lsdb.is_leaving(&key) {
            return None;
        }
        // A body that cannot be read says nothing.
        RouterLsa::decode(self.lsdb.entry(&key)?.body())
            .map(|lsa| lsa.links)
            .ok()
    }

    /// Whether the neighbour at the other end of a link of ours is Full again.
    fn is_restored(&self, link: &RouterLink) -> bool {
        let any_full = |is_it: &dyn Fn(RouterId, Ipv4Addr) -> bool| {
            self.all_neighbors().into_iter().any(|id| {
                self.neighbor(id).is_some_and(|neighbor| {
                    neighbor.state == State::Full && is_it(neighbor.router_id, neighbor.address)
                })
            })
        };
        match link.kind {
            LinkKind::PointToPoint => any_full(&|router_id, _| router_id.0 == link.id),
            LinkKind::Transit => any_full(&|_, address| address == link.id),
            LinkKind::Stub | LinkKind::Virtual | LinkKind::Unknown(_) => true,
        }
    }

    /// Whether the other end of a link of ours has an LSA that does not list us any more: it does
    /// not help (§2.2, point 2).
    fn is_given_up(&self, link: &RouterLink) -> bool {
        match link.kind {
            LinkKind::PointToPoint => {
                let theirs = self.links_of(RouterId(link.id));
                let lists_us = |theirs: &RouterLink| {
                    theirs.kind == LinkKind::PointToPoint && theirs.id == self.config.router_id.0
                };
                theirs.is_some_and(|links| !links.iter().any(lists_us))
            }
            LinkKind::Transit => self
                .attached_to(link.id)
                .is_some_and(|routers| !routers.contains(&self.config.router_id)),
            LinkKind::Stub | LinkKind::Virtual | LinkKind::Unknown(_) => false,
        }
    }

    /// The routers of the segment whose Designated Router has this address, by its Network-LSA.
    fn attached_to(&self, dr: Ipv4Addr) -> Option<Vec<RouterId>> {
        let neighbors = self.all_neighbors();
        let router_id = neighbors.into_iter().find_map(|id| {
            let neighbor = self.neighbor(id)?;
            (neighbor.address == dr).then_some(neighbor.router_id)
        })?;
        let key = DbKey::of_area(LsaKey {
            ls_type: LsType::Network,
            link_state_id: dr,
            advertising_router: router_id,
        });
        if self.lsdb.is_leaving(&key) {
            return None;
        }
        // A body that cannot be read says nothing.
        NetworkLsa::decode(self.lsdb.entry(&key)?.body())
            .map(|lsa| lsa.routers)
            .ok()
    }

    /// Whether all that the network holds of ours is wanted as it is. What is wanted beyond that
    /// can wait for the end of the restart.
    fn is_wanted_still(&self) -> bool {
        self.are_stubs_wanted_still() && self.own.keys().all(|key| self.is_external_wanted(key))
    }

    /// Whether an external route of ours, if it is one and is in the database, is wanted as it
    /// is there.
    fn is_external_wanted(&self, key: &DbKey) -> bool {
        let is_external = matches!(key.lsa.ls_type, LsType::AsExternal | LsType::Nssa);
        match self.lsdb.entry(key) {
            Some(entry) if is_external && !self.lsdb.is_leaving(key) => carried(entry)
                .is_none_or(|external| self.externals.get(&external.prefix) == Some(&external)),
            Some(_) | None => true,
        }
    }

    fn are_stubs_wanted_still(&self) -> bool {
        let is_host =
            |link: &&RouterLink| link.kind == LinkKind::Stub && link.data == Ipv4Addr::BROADCAST;
        let is_own_address = |address: Ipv4Addr| {
            let links = self
                .interfaces
                .iter()
                .filter_map(|interface| interface.link);
            links.into_iter().any(|link| link.address == address)
        };
        let links = self.links_before().unwrap_or_default();
        links.iter().filter(is_host).all(|link| {
            let wanted = |stub: &Stub| stub.prefix == link.id && stub.metric == link.metric;
            self.stubs.iter().any(wanted) || is_own_address(link.id)
        })
    }
}
