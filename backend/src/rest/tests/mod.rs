//! The API over HTTP, on a database of its own with the real migrations.

mod agents;
mod auth;
mod declare;
mod drain;
mod http;
mod monitoring;
mod restart;
