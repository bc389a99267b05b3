//! What an acknowledged write outlasts: kills, disks that are full or read-only, and the database
//! being put back. Each test runs the built `isopathd` on a directory of its own.

#![expect(
    clippy::unwrap_used,
    reason = "a failure here fails the test, as it should"
)]

mod backup;
mod disk;
mod kill;
mod served;
