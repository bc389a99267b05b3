//! IPVS, the kernel's layer 4 load balancer, over generic netlink.
//!
//! [`Ipvs`] is the connection: it reads and changes virtual services and their destinations
//! (LVS calls them real servers). [`ServiceSpec`] and [`DestinationSpec`] are what can be
//! asked for; [`Service`] and [`Destination`] add what the kernel counts. [`mh`] computes which
//! client the scheduler `mh` sends where.
//!
//! ```no_run
//! use isopath_ipvs::{DestinationSpec, Forwarding, Ipvs, Scheduler, ServiceKey, ServiceSpec};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ipvs = Ipvs::connect().await?;
//! let web = ServiceKey::tcp("10.99.0.1:80".parse()?);
//! ipvs.add_service(&ServiceSpec::new(web, Scheduler::Wlc)).await?;
//! let server = DestinationSpec::new("10.1.0.11:80".parse()?, Forwarding::DirectRoute, 1);
//! ipvs.add_destination(&web, &server).await?;
//! for (service, servers) in ipvs.tables().await? {
//!     println!("{} has {} real servers", service.spec.key, servers.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! There is more of that in `examples/`. The messages are those of `linux/ip_vs.h`, as
//! `net/netfilter/ipvs/ip_vs_ctl.c` reads and writes them.
//!
//! # Where it works
//! A connection belongs to the network namespace of the thread that opened it, whichever thread
//! uses it afterwards. Opening it makes the kernel load `ip_vs`, and naming a scheduler makes it
//! load the scheduler's module, where it can. All but [`Ipvs::connect`] needs `CAP_NET_ADMIN` in
//! that namespace. `tokio` is asked for nothing but a runtime to wait in.
//!
//! # How fast it is
//! [`Ipvs::apply`] sends many changes in one system call, and [`Ipvs::tables`] reads everything
//! with three a service, which is what netlink allows. Who reads again and again does best to read
//! [`Ipvs::services`], to ask [`Ipvs::entries`], the kernel's older interface, which of their
//! destinations are still what was read before, and to read the others: where nothing changed, that
//! takes a tenth of the time. For a service with `mh` the kernel builds the table anew with every destination that is added. To have it built once, add
//! the service with `Scheduler::from("none")`, which schedules nothing, add its destinations, and
//! set its scheduler last; clients are let in when all is there.
//!
//! # What a newer kernel knows
//! Attributes that this library does not know are kept in [`ServiceSpec::unknown`] and
//! [`DestinationSpec::unknown`] of what was read, and written after the known ones. The kernel
//! sets what a message has and resets what it lacks, so that who changes a service or destination
//! does best to change what was read. Attributes are only written back to where they came from:
//! the kernel passes over what it merely counts and what it does not know itself. What is unknown
//! in a counter's container is not kept: nobody can write it.
//!
//! # What it does not do
//! It does not synchronise connections between directors (`ipvsadm --start-daemon`).

mod attribute;
mod change;
mod client;
mod destination;
mod entries;
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
pub use entries::{DestinationEntry, Fingerprint, ServiceEntry};
pub use error::{Cause, Error, Operation};
pub use flags::ServiceFlags;
pub use isopath_mh::{self as mh, Family};
pub use message::{Info, Timeouts};
pub use scheduler::Scheduler;
pub use service::{Netmask, Persistence, Protocol, Service, ServiceKey, ServiceSpec};
pub use stats::Stats;
