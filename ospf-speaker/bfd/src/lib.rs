//! Bidirectional Forwarding Detection, without I/O.
//!
//! RFC 5880's asynchronous mode for a single hop (RFC 5881), as a routing daemon on a host
//! needs it: no demand mode of our own (a peer's is honoured), no echo, no authentication.
//!
//! [`ControlPacket`] is the wire format, [`transition`] the session state machine, and
//! [`Session`] the two put together with their timers. A session is driven from outside:
//! `handle_*` takes what happened and the time, `poll_*` gives what is to be done. After each
//! `handle_*` or command the caller drains [`Session::poll_transmit`] and
//! [`Session::poll_event`] and then waits until [`Session::poll_timeout`].
//!
//! [`Session::snapshot`] and [`Session::restore`] carry a session from one process to another.
//!
//! What stays with the caller, because it needs sockets: UDP port 3784, a fixed source port of
//! 49152 to 65535 per session, TTL 255 out and exactly 255 in (RFC 5881 §5), and finding the
//! session of a packet: by [`ControlPacket::your_discriminator`] where it is not zero, else by
//! interface and source address (RFC 5880 §6.3).

mod moment;
mod packet;
mod random;
mod session;
mod state;

pub use packet::{ControlPacket, DropReason, PACKET_LEN};
pub use session::{Config, Event, Intervals, OutOfRange, Session, SessionSnapshot};
pub use state::{Diagnostic, Input, State, Transition, transition};
