//! Who asks, and what they may do.

mod session;

pub use session::Session;
