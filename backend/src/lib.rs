//! The controller: what is declared, what is wanted of each director, what the directors say,
//! and the API, the pages and the metrics over it.
//!
//! One task, [`control`], owns all of that; whatever changes goes through its bounded queue
//! and into SQLite ([`store`]) before it is believed. Readers see immutable snapshots, from
//! which [`view`] and [`guards`] compute, purely, what is shown and what is refused.

pub mod app;
pub mod asked;
mod audit;
pub mod auth;
pub mod clock;
pub mod commands;
mod connections;
pub mod control;
pub mod diff;
pub mod ecmp;
pub mod error;
pub mod files;
pub mod guards;
pub mod metrics;
mod pages;
mod preview;
pub mod rest;
pub mod retention;
pub mod samples;
pub mod settings;
mod shared;
pub mod store;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod view;

pub use rest::router;
