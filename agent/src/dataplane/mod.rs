//! The data plane of a director: sysctls, VIPs on their interface, IPVS.

mod state;

pub use state::{KernelRealServer, KernelService, RealServerWanted, Report, ServiceWanted, Wanted};
