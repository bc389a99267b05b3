//! Packet authentication: the keys as the wall clock has them, and sequence numbers that no
//! later run uses again.

use isopath_ospf::{AuthenticationError, InterfaceId};
use tracing::{debug, error, info};

use super::Speaker;
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
}
