//! Tests of whole routers on a virtual clock.

mod auth;
mod bench;
mod exchange;
mod externals;
mod flooding;
mod graceful;
mod handover;
mod hello;
mod hostile;
mod interface;
mod net;
mod origination;
mod random;
mod stop;
