//! The director's agent.

pub mod dataplane;
