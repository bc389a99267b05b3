//! IPVS, the kernel's layer 4 load balancer, over generic netlink.
//!
//! [`Ipvs`] is the connection: it reads and changes virtual services and their destinations
//! (LVS calls them real servers). [`ServiceSpec`] and [`DestinationSpec`] are what can be
//! asked for; [`Service`] and [`Destination`] add what the kernel counts. The messages are
//! those of `linux/ip_vs.h`, as `net/netfilter/ipvs/ip_vs_ctl.c` reads and writes them.
//!
//! A connection belongs to the network namespace of the thread that opened it.

mod attribute;
mod change;
mod client;
mod destination;
mod error;
mod flags;
mod message;
mod scheduler;
mod service;
mod socket;
mod stats;

pub use attribute::UnknownAttribute;
pub use change::Change;
pub use client::Ipvs;
pub use destination::{
    Destination, DestinationSpec, Forwarding, Tunnel, TunnelChecksum, TunnelKind,
};
pub use error::{Cause, Error, Operation};
pub use flags::ServiceFlags;
pub use message::{Info, Timeouts};
pub use scheduler::Scheduler;
pub use service::{Family, Netmask, Persistence, Protocol, Service, ServiceKey, ServiceSpec};
pub use stats::Stats;
