//! OSPF version 2 (RFC 2328) for a host that announces addresses and forwards nothing.
//!
//! A [`Router`] does no I/O and reads no clock. The shell hands it packets, the state of its
//! links and the time through the `handle_*` methods, then drains [`Router::poll_transmit`] and
//! [`Router::poll_event`] and sleeps until [`Router::poll_timeout`]. The same inputs, times and
//! seed give the same outputs.
//!
//! It is never a Designated Router, computes no routes, and offers no transit: its links to
//! routers cost 0xffff (RFC 6987). docs/OSPF.md lists the RFC section by section.

mod ack;
mod adjacency;
mod aging;
mod auth;
mod config;
mod content;
mod counters;
mod dbdesc;
mod election;
mod explain;
mod flood;
mod graceful;
mod hello;
mod ids;
mod interface;
mod lsdb;
mod moment;
mod neighbor;
mod originate;
mod own;
pub mod packet;
mod request;
mod retransmit;
mod rng;
mod router;
mod sabotage;
mod send;
mod shutdown;
pub mod spf;
#[cfg(test)]
mod tests;
mod timer;
mod view;

pub use auth::{
    Authentication, AuthenticationError, AuthenticationView, Key, Lifetime, Received, Refused,
    Secret, Standing,
};
pub use config::{
    AnnounceError, AreaType, Config, ConfigError, External, InterfaceConfig, LinkState,
    MAX_EXTERNALS, MAX_INTERFACES, MAX_STUBS, NetworkType, Stub,
};
pub use counters::{Counters, LsaDrop, PacketDrop};
pub use graceful::{Grace, RestartEnd, RestartRefusal};
pub use ids::{AreaId, InterfaceId, RouterId};
pub use neighbor::State;
pub use packet::auth::{Algorithm, MAX_MD5_SECRET, MAX_PASSWORD};
pub use packet::{ExternalKind, ExternalLsa, ExternalMetric, LinkKind, LsaKey, RouterLink};
pub use router::{Identity, Router, Snapshot, SnapshotError};
#[cfg(feature = "sabotage")]
pub use sabotage::Sabotage;
pub use view::{Announced, AnnouncedExternal, Event, LsaView, NeighborView, Transmit};
