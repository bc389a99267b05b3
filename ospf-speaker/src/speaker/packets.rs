//! OSPF packets in and out, and what the core has to say.

use std::io::ErrorKind;
use std::time::Instant;

use isopath_ospf::packet::LsType;
use isopath_ospf::{Event, InterfaceId, Standing, State};
use tracing::{debug, error, info, warn};

use super::Speaker;

/// Packets taken from one socket before timers and others have their turn.
const PACKETS_PER_TURN: usize = 64;

/// The type of a Hello in the second byte of a packet (RFC 2328 §A.3.1).
const HELLO: u8 = 1;

impl Speaker {
    /// Reads the packets of an interface; whether there may be more.
    pub(super) fn receive_ospf(&mut self, now: Instant, id: InterfaceId) -> bool {
        for _ in 0..PACKETS_PER_TURN {
            let interface = self.interfaces.get(id.0);
            let Some(socket) = interface.and_then(|interface| interface.socket.as_ref()) else {
                return false;
            };
            match socket.receive(&mut self.buffer) {
                Ok(Some(datagram)) => {
                    self.router.handle_packet(
                        now,
                        id,
                        datagram.source,
                        datagram.destination,
                        datagram.payload,
                    );
                    self.touched = true;
                    self.drain_router(None);
                }
                Ok(None) => self.count("drop_ip_header"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // ENETDOWN and its like: netlink tells what becomes of the interface.
                    debug!(interface = id.0, %error, "cannot receive");
                    self.count("receive_errors");
                    return false;
                }
            }
        }
        true
    }

    /// Sends what the core wants sent and logs its events; `due` is when it should have been.
    pub(super) fn drain_router(&mut self, due: Option<Instant>) {
        while let Some(packet) = self.router.poll_transmit() {
            self.reserve_auth_sequence(packet.interface);
            let interface = self.interfaces.get(packet.interface.0);
            let Some(socket) = interface.and_then(|interface| interface.socket.as_ref()) else {
                self.count("send_no_socket");
                continue;
            };
            if let Err(error) = socket.send(packet.destination, &packet.payload) {
                // What was lost is sent again by OSPF's own rules.
                debug!(interface = packet.interface.0, %error, "cannot send");
                self.count("send_errors");
            } else if let Some(due) = due
                && packet.payload.get(1) == Some(&HELLO)
            {
                self.hello_lateness.record(Instant::now(), due);
            }
        }
        while let Some(event) = self.router.poll_event() {
            self.touched = true;
            if let Event::NeighborState { from, to, .. } = event
                && (from == State::Full || to == State::Full)
            {
                self.count("adjacency_changes");
            }
            match event {
                Event::RestartPrepared { expires } => self.restart_prepared(expires),
                Event::RestartRefused { refusal } => self.restart_refused(refusal),
                Event::RestartEnded { end } => self.restart_ended(end),
                event => self.log_event(event),
            }
        }
    }

    fn log_event(&self, event: Event) {
        let name = |id: InterfaceId| self.interfaces.get(id.0).map_or("", |at| at.name.as_str());
        match event {
            Event::NeighborState {
                interface,
                router_id,
                address,
                from,
                to,
            } => {
                let interface = name(interface);
                if from == State::Full || to == State::Full {
                    info!(interface, %router_id, %address, %from, %to, "neighbor");
                } else {
                    debug!(interface, %router_id, %address, %from, %to, "neighbor");
                }
            }
            Event::DesignatedRouter { interface, dr, bdr } => {
                info!(interface = name(interface), ?dr, ?bdr, "designated router");
            }
            Event::Originated { key, sequence } => {
                let sequence = format_args!("{sequence:#x}");
                // There may be thousands of the others.
                if key.ls_type == LsType::Router {
                    info!(sequence, "originated our Router-LSA");
                } else {
                    debug!(sequence, "originated {key}");
                }
            }
            Event::Flushed { key } => debug!("flushed {key}"),
            Event::SelfOriginatedReceived { ls_type, sequence } => {
                let sequence = format_args!("{sequence:#x}");
                info!(ls_type, sequence, "answered a newer copy of our own LSA");
            }
            Event::DuplicateRouterId { interface, address } => {
                let interface = name(interface);
                error!(interface, %address, "another router has our router id");
            }
            Event::PacketDropped {
                interface,
                source,
                reason,
                detail,
            } => {
                let interface = name(interface);
                warn!(interface, %source, %reason, "packet dropped: {detail}");
            }
            Event::LsaDropped {
                interface,
                from,
                reason,
            } => {
                let interface = name(interface);
                debug!(interface, %from, %reason, "LSA discarded");
            }
            Event::SendKey {
                interface,
                key_id,
                standing,
            } => {
                let interface = name(interface);
                match standing {
                    Standing::Valid => info!(interface, key_id, "sending with this key"),
                    Standing::Expired => {
                        error!(
                            interface,
                            key_id, "every key has expired, this one last: in use"
                        );
                    }
                    Standing::Early => {
                        error!(
                            interface,
                            key_id, "no key is valid yet, this one first: in use"
                        );
                    }
                }
            }
            Event::Stopped => info!("withdrawn and flushed"),
            // The core may learn to say more; whatever it is, it is worth a line.
            event => info!(?event),
        }
    }
}
