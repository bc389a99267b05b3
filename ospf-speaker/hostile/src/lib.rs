//! What bytes from anybody must never do to the speaker.
//!
//! Each function takes bytes and panics where something that must hold does not. The fuzz
//! targets (`ospf-speaker/fuzz`, a workspace of its own) call them with what a fuzzer thinks up;
//! `tests/corpus.rs` calls them with every file of the corpus, as an ordinary test.

mod bfd;
mod lsa;
mod ops;
mod packet;

use std::time::{Duration, Instant};

pub use bfd::bfd_packet;
pub use lsa::ospf_lsa;
pub use ops::ospf_ops;
pub use packet::{handover, ospf_packet};

/// A target: what a file of its corpus is given to.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: [(&str, Target); 5] = [
    ("ospf_packet", ospf_packet),
    ("ospf_lsa", ospf_lsa),
    ("ospf_ops", ospf_ops),
    ("bfd_packet", bfd_packet),
    ("handover", handover),
];

/// Some start for the virtual clock, from which an LSA's whole life can be looked back.
fn epoch() -> Instant {
    Instant::now() + Duration::from_secs(7200)
}
