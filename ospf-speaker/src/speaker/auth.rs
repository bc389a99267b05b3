//! Packet authentication: the keys as the wall clock has them, and sequence numbers that no
//! later run uses again.

use std::time::Instant;

use isopath_api::auth::Algorithm;
use isopath_api::interface::{self, Authentication, Refused};
use isopath_ospf::{AuthenticationError, AuthenticationView, InterfaceId, Standing};
use tracing::{debug, error, info};

use super::Speaker;
use super::views::millis;
use crate::keys::Clocks;

impl Speaker {
    /// Has the sequence numbers of every interface go on where earlier runs cannot have been. A
    /// clock that is set later does not change them.
    pub(super) fn begin_auth_sequences(&mut self) {
        let unix_seconds = Clocks::read().unix_seconds();
        for (place, interface) in self.interfaces.iter().enumerate() {
            let floor = self.kept.auth_floor(&interface.name, unix_seconds);
            self.router.raise_auth_sequence(InterfaceId(place), floor);
        }
    }

    /// Gives the core every interface's keys, with their lifetimes as the clock has them now.
    pub(super) fn set_keys(&mut self) -> Result<(), AuthenticationError> {
        let clocks = Clocks::read();
        for place in 0..self.interfaces.len() {
            let authentication = self.keys.authentication(place, clocks);
            let id = InterfaceId(place);
            self.router.set_authentication(id, authentication)?;
        }
        Ok(())
    }

    /// The wall clock was set, perhaps: the keys' lifetimes are elsewhere now.
    pub(super) fn follow_wall_clock(&mut self) {
        match self.wall_clock.was_set() {
            Ok(true) => {
                info!("the clock was set, the keys' lifetimes are worked out anew");
                if let Err(error) = self.set_keys() {
                    error!(%error, "the keys stay as they were");
                }
                self.touched = true;
            }
            Ok(false) => {}
            Err(error) => debug!(%error, "cannot ask whether the clock was set"),
        }
    }

    /// Reserves the sequence numbers up to the next one of an interface, whose present one is
    /// about to leave.
    pub(super) fn reserve_auth_sequence(&mut self, id: InterfaceId) {
        if let (Some(next), Some(interface)) = (
            self.router.next_auth_sequence(id),
            self.interfaces.get(id.0),
        ) {
            self.kept.reserve_auth(&interface.name, next);
        }
    }

    /// The interfaces, with their authentication.
    pub(super) fn interface_views(&self, now: Instant) -> Vec<interface::Interface> {
        let views = self
            .interfaces
            .iter()
            .enumerate()
            .map(|(place, interface)| {
                let id = InterfaceId(place);
                let link = interface.link;
                interface::Interface {
                    name: interface.name.clone(),
                    address: link.map(|link| link.address),
                    unnumbered: link.is_some_and(|link| link.is_unnumbered()),
                    auth: self
                        .router
                        .authentication(now, id)
                        .map_or(Authentication::None, shown),
                    refused: self.router.last_refused(id).map(|refused| Refused {
                        count: refused.count,
                        address: refused.source,
                        detail: refused.detail.clone(),
                        ago_ms: millis(now.saturating_duration_since(refused.at)),
                    }),
                }
            });
        views.collect()
    }
}

fn shown(view: AuthenticationView) -> Authentication {
    match view {
        AuthenticationView::Null => Authentication::None,
        AuthenticationView::Simple => Authentication::Simple,
        AuthenticationView::Cryptographic {
            key_id,
            algorithm,
            standing,
            accepted,
        } => Authentication::Cryptographic {
            key_id,
            algorithm: match algorithm {
                isopath_ospf::Algorithm::Md5 => Algorithm::Md5,
                isopath_ospf::Algorithm::HmacSha1 => Algorithm::HmacSha1,
                isopath_ospf::Algorithm::HmacSha256 => Algorithm::HmacSha256,
                isopath_ospf::Algorithm::HmacSha384 => Algorithm::HmacSha384,
                isopath_ospf::Algorithm::HmacSha512 => Algorithm::HmacSha512,
            },
            standing: match standing {
                Standing::Valid => interface::Standing::Valid,
                Standing::Expired => interface::Standing::Expired,
                Standing::Early => interface::Standing::Early,
            },
            accepted,
        },
    }
}
