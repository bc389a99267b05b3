//! The contract between Isopath's parts.
//!
//! Everything that crosses a process boundary is defined here once: identifiers and units
//! ([`ids`]), what an operator declares ([`declare`]), the files a director reads
//! ([`config`], [`auth`]), what a director is asked to do ([`desired`]) and says it sees
//! ([`observed`]), why anything is or is not announced ([`reason`]), the two Unix socket
//! protocols ([`speaker`] with [`paths`], [`agent`]), and what the controller answers ([`view`],
//! [`ecmp`], [`problem`]). The crate does no I/O and reads no clock.

pub mod access;
pub mod agent;
pub mod auth;
pub mod compare;
pub mod config;
pub mod declare;
pub mod desired;
pub mod digest;
pub mod duration;
pub mod ecmp;
pub mod fault;
pub mod fleet;
pub mod ids;
pub mod interface;
pub mod observed;
pub mod operation;
pub mod paths;
mod plain;
pub mod problem;
pub mod real_server;
pub mod reason;
pub mod revision;
pub mod samples;
#[cfg(feature = "openapi")]
mod schema;
pub mod sections;
pub mod speaker;
pub mod view;
