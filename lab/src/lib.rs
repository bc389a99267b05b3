//! Whole clusters in network namespaces: a client, a switch that runs FRR or BIRD, directors
//! with their two daemons, real servers, and a controller.
//!
//! [`topology::Lab`] makes the namespaces and wires them; its parts ([`switch::Switch`],
//! [`director::Director`], [`real_server::RealServer`], [`controller::Controller`]) start and
//! kill the programs. Nothing in a lab touches the machine's own network, and everything a lab
//! made goes when it is dropped, on SIGINT and SIGTERM, or with `isopath-lab down` after a crash
//! ([`registry`]).

pub mod auth;
pub mod bench;
pub mod binaries;
pub mod capture;
pub mod classic;
pub mod cluster;
pub mod controller;
pub mod director;
pub mod fetch;
mod fib;
pub mod forward;
pub mod http;
pub mod interop;
pub mod measure;
pub mod netns;
pub mod plan;
pub mod process;
pub mod prometheus;
pub mod real_server;
pub mod registry;
pub mod report;
pub mod route_monitor;
pub mod switch;
pub mod topology;
pub mod up;
pub mod vm;
pub mod wait;
