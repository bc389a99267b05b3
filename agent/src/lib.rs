//! The director's agent.
//!
//! It programs the director's data plane, checks the real servers, decides for each VIP
//! whether this director announces it, and tells the speaker. One control loop owns what the
//! director wants and sees ([`control`]); every other part is a task that it exchanges
//! messages with:
//!
//! - [`health`]: the checks; [`weights`]: what their results make of a real server's weight;
//! - [`decide`]: whether a VIP is announced, and why: pure;
//! - [`dataplane`] and [`kernel`]: what the kernel has, and the task that owns it;
//! - [`readiness`]: what speaks against announcing a VIP for the first time;
//! - [`speaker_link`]: the connection to the speaker, and the speaker that the agent starts;
//! - [`controller_link`]: the stream of the [`desired`] state, and reports;
//! - [`enroll`] and [`identity`]: who this agent is to the controller;
//! - [`socket`] and [`metrics`]: what operators and Prometheus ask;
//! - [`preview`]: what would be done, without doing it;
//! - [`overrides`] and [`store`]: what outlives the process;
//! - [`run`]: all of it put together.
//!
//! On a real server none of these runs; [`real_server`] sets one up and ends.

pub mod control;
pub mod controller_link;
pub mod dataplane;
pub mod decide;
pub mod desired;
pub mod enroll;
pub mod health;
pub mod identity;
pub mod kernel;
pub mod memory;
pub mod metrics;
pub mod overrides;
pub mod preview;
pub mod readiness;
pub mod real_server;
pub mod run;
pub mod socket;
pub mod speaker_link;
pub mod store;
mod tls;
pub mod weights;

/// An error and its causes in one line, for the log and the status.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
