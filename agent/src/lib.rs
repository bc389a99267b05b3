//! The director's agent.

pub mod dataplane;
pub mod decide;
pub mod desired;
pub mod health;
pub mod overrides;
pub mod speaker_link;
pub mod store;
pub mod weights;
