//! The packets and LSAs of OSPF version 2 (RFC 2328 §A).

mod router_lsa;

pub use router_lsa::{LinkKind, RouterLink};
