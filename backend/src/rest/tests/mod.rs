//! The API over HTTP, on a database of its own with the real migrations.

mod access;
mod agents;
mod audit;
mod auth;
mod conditional;
mod declare;
mod drain;
mod ecmp;
mod fleet;
mod http;
mod limits;
mod monitoring;
mod restart;
mod restart_in_steps;
mod revisions;
mod routes;
mod samples;
