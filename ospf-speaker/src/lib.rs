//! The director's routing daemon: OSPF and BFD sockets around the two sans-I/O cores.
//!
//! One epoll loop ([`Speaker::run`]), and nothing in it that waits: no TLS, no scripts, no disk
//! that is synced. So its timers hold whatever the rest of the director does, and the agent can
//! be replaced under it without a route moving. What takes long and is for show only, the
//! calculation of the area's paths, has a thread of ordinary priority.
//!
//! - [`wanted`] decides which VIPs to announce, from the file, the agent and overrides;
//! - `hold_down` keeps VIPs that come and go withdrawn;
//! - [`kept`] is what outlives the process, [`restart`] what a graceful restart adds to it;
//! - [`keys`] are the secrets of packet authentication;
//! - `link` watches the kernel's interfaces, `ospf_socket` and `bfd` hold the sockets;
//! - `paths` has that calculation done, and says when;
//! - `upgrade` starts a successor and gives it all of this;
//! - [`control`] and [`mod@line`] are the Unix socket that `isopath_api::speaker` specifies.

mod bfd;
pub mod control;
mod counts;
mod hold_down;
pub mod kept;
pub mod keys;
mod late;
pub mod line;
mod link;
pub mod log;
mod notify;
mod ospf_socket;
mod paths;
mod priority;
pub mod restart;
mod speaker;
mod timer;
mod upgrade;
mod wall_clock;
pub mod wanted;

pub use speaker::{RunError, Speaker};
pub use upgrade::{Invocation, TakeOverError, refuse_take_over};
