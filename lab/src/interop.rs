//! The interop matrix: the speaker against every peer, in every form that both have.
//!
//! A [`Cell`] is one combination. It has a rig of its own: a switch and a director with two
//! uplinks to it, on which every [`Step`] is taken and waits for its condition. [`runner::run`]
//! takes many cells at the same time; [`table`] writes what came of them into `docs/OSPF.md`;
//! [`covering::pairs`] picks the few cells that `make test` takes.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fmt, fs};

use anyhow::{Context, Result, bail};
use isopath_api::declare::AnnounceAs;

use self::runner::Task;
use crate::auth::{self, Algorithm};
use crate::report;
use crate::switch::SwitchKind;

pub mod covering;
mod rig;
pub mod runner;
mod steps;
pub mod table;

/// How director and switch are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Point-to-point links with addresses of their own, a /24 and a /31.
    PointToPoint,
    /// Segments, of which the switch is the Designated Router.
    Broadcast,
    /// Point-to-point links without addresses of their own (RFC 2328 §12.4.1.1): one address at
    /// each side is that of both links.
    Unnumbered,
}

impl Network {
    /// Every network.
    pub const ALL: [Self; 3] = [Self::PointToPoint, Self::Broadcast, Self::Unnumbered];
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PointToPoint => "point-to-point",
            Self::Broadcast => "broadcast",
            Self::Unnumbered => "unnumbered",
        })
    }
}

/// How the packets are authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    None,
    /// Keyed MD5 (RFC 2328 §D.3).
    Md5,
    /// HMAC-SHA-256 (RFC 5709).
    HmacSha256,
    /// HMAC-SHA-1; sampled.
    HmacSha1,
    /// HMAC-SHA-384; sampled.
    HmacSha384,
    /// HMAC-SHA-512; sampled.
    HmacSha512,
}

impl Auth {
    /// Those of the whole matrix.
    pub const MATRIX: [Self; 3] = [Self::None, Self::Md5, Self::HmacSha256];

    /// Those that differ from one of the matrix in the digest only: one cell each.
    pub const SAMPLED: [Self; 3] = [Self::HmacSha1, Self::HmacSha384, Self::HmacSha512];

    /// The keys of both sides.
    fn keys(self) -> auth::Auth {
        let algorithm = match self {
            Self::None => return auth::Auth::None,
            Self::Md5 => Algorithm::Md5,
            Self::HmacSha1 => Algorithm::HmacSha1,
            Self::HmacSha256 => Algorithm::HmacSha256,
            Self::HmacSha384 => Algorithm::HmacSha384,
            Self::HmacSha512 => Algorithm::HmacSha512,
        };
        auth::Auth::with(algorithm)
    }

    /// Whether it is one of RFC 5709.
    fn is_hmac(self) -> bool {
        match self {
            Self::None | Self::Md5 => false,
            Self::HmacSha1 | Self::HmacSha256 | Self::HmacSha384 | Self::HmacSha512 => true,
        }
    }
}

impl fmt::Display for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.keys().name())
    }
}

/// The peers.
pub const PEERS: [SwitchKind; 2] = [SwitchKind::Frr, SwitchKind::Bird];

/// The kinds of LSA that carry a VIP.
pub const KINDS: [AnnounceAs; 4] = [
    AnnounceAs::Stub,
    AnnounceAs::External1,
    AnnounceAs::External2,
    AnnounceAs::Nssa,
];

/// The kind's name in the director's file.
fn kind_name(kind: AnnounceAs) -> &'static str {
    match kind {
        AnnounceAs::Stub => "stub",
        AnnounceAs::External1 => "external-1",
        AnnounceAs::External2 => "external-2",
        AnnounceAs::Nssa => "nssa",
    }
}

/// One combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// The suite on the switch.
    pub peer: SwitchKind,
    /// How both are joined.
    pub network: Network,
    /// How the packets are authenticated.
    pub auth: Auth,
    /// What carries the VIP.
    pub kind: AnnounceAs,
    /// Whether BFD runs.
    pub bfd: bool,
}

impl Cell {
    /// Whether the peer has to refuse its part of the configuration. That is tried in every such
    /// cell: a peer that takes it makes the cell fail, because this is then wrong.
    pub fn is_refused_by_peer(&self) -> bool {
        // FRR has HMACs from 9.1 on.
        self.peer == SwitchKind::Frr && self.auth.is_hmac()
    }

    /// How many of the two uplinks the switch uses at a time. A type 7 LSA names a forwarding
    /// address; a numbered uplink's is on that one uplink.
    pub fn width(&self) -> usize {
        match (self.kind, self.network) {
            (AnnounceAs::Nssa, Network::PointToPoint | Network::Broadcast) => 1,
            (AnnounceAs::Nssa, Network::Unnumbered)
            | (AnnounceAs::Stub | AnnounceAs::External1 | AnnounceAs::External2, _) => 2,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            peer,
            network,
            auth,
            kind,
            bfd,
        } = self;
        let (kind, bfd) = (kind_name(*kind), if *bfd { "bfd" } else { "no-bfd" });
        write!(f, "{peer}/{network}/{auth}/{kind}/{bfd}")
    }
}

/// The whole matrix.
pub fn matrix() -> Vec<Cell> {
    let mut cells = Vec::new();
    for peer in PEERS {
        for network in Network::ALL {
            for auth in Auth::MATRIX {
                for kind in KINDS {
                    for bfd in [false, true] {
                        cells.push(Cell {
                            peer,
                            network,
                            auth,
                            kind,
                            bfd,
                        });
                    }
                }
            }
        }
    }
    cells
}

/// A cell for each sampled authentication, with the peer that has them; the other dimensions
/// take turns.
pub fn samples() -> Vec<Cell> {
    Auth::SAMPLED
        .into_iter()
        .zip(Network::ALL)
        .zip(KINDS)
        .zip([true, false].into_iter().cycle())
        .map(|(((auth, network), kind), bfd)| Cell {
            peer: SwitchKind::Bird,
            network,
            auth,
            kind,
            bfd,
        })
        .collect()
}

/// What is done in a cell, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Both adjacencies are Full as either side sees it, and BFD is Up where it runs.
    Full,
    /// The VIP is in the switch's FIB, and connections to it succeed.
    Announce,
    /// An operator withdraws the VIP and the route leaves; it comes back when that is undone.
    Withdraw,
    /// The speaker is killed and the route leaves, by BFD or the dead interval; it comes back
    /// with the next one.
    Crash,
    /// The switch's suite is killed and started again: Full again, and the route is back.
    PeerRestart,
    /// The first uplink goes down at the director's end, the VIP stays reachable by the second,
    /// and the link comes back.
    CutAtDirector,
    /// The same with the second uplink, at the switch's end.
    CutAtSwitch,
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Self; 7] = [
        Self::Full,
        Self::Announce,
        Self::Withdraw,
        Self::Crash,
        Self::PeerRestart,
        Self::CutAtDirector,
        Self::CutAtSwitch,
    ];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Announce => "announce",
            Self::Withdraw => "withdraw",
            Self::Crash => "crash",
            Self::PeerRestart => "peer restart",
            Self::CutAtDirector => "cut at the director",
            Self::CutAtSwitch => "cut at the switch",
        })
    }
}

/// What came of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every step went as it should.
    Passed,
    /// The peer refused its part of the configuration, as expected; its words.
    NotSupported(String),
    /// Something did not go as it should.
    Failed {
        /// What was being done; nothing before the first step.
        step: Option<Step>,
        /// What was seen.
        seen: String,
    },
}

/// A cell that was tried.
#[derive(Debug, Clone)]
pub struct Report {
    /// The cell.
    pub cell: Cell,
    /// What came of it.
    pub outcome: Outcome,
    /// How long each step took that went as it should.
    pub steps: Vec<(Step, Duration)>,
}

impl Report {
    /// Whether it failed.
    pub fn is_failure(&self) -> bool {
        match self.outcome {
            Outcome::Passed | Outcome::NotSupported(_) => false,
            Outcome::Failed { .. } => true,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Passed => write!(f, "ok      {}", self.cell)?,
            Outcome::NotSupported(words) => {
                return write!(f, "refused {}: {words}", self.cell);
            }
            Outcome::Failed { step, seen } => {
                let step = step.map_or_else(|| "setting up".to_owned(), |step| step.to_string());
                write!(f, "FAILED  {} at {step}: {seen};", self.cell)?;
            }
        }
        for (step, took) in &self.steps {
            write!(f, "  {step} {:.1} s", took.as_secs_f64())?;
        }
        Ok(())
    }
}

/// Takes the cells whose name has the part `only`, or the whole matrix; prints each report as it
/// comes, and writes the table into the file `markdown`. It fails when a cell does.
///
/// # Errors
/// No cell has such a name, or the file cannot be written.
pub fn command(only: Option<&str>, jobs: usize, markdown: Option<&Path>) -> Result<ExitCode> {
    let mut cells = matrix();
    cells.extend(samples());
    cells.retain(|cell| only.is_none_or(|part| cell.to_string().contains(part)));
    if cells.is_empty() {
        bail!("no cell has {:?} in its name", only.unwrap_or_default());
    }
    let start = Instant::now();
    let tasks: Vec<Task> = cells.into_iter().map(Task::whole).collect();
    let reports = runner::run(&tasks, jobs, &|report| report::say(report));
    let failures = reports.iter().filter(|report| report.is_failure()).count();
    report::say(format_args!(
        "{} cells in {:.0} s, {failures} failed",
        reports.len(),
        start.elapsed().as_secs_f64()
    ));
    if let Some(file) = markdown {
        let text =
            fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let table = table::markdown(&reports)?;
        let text = table::replace(&text, &table).with_context(|| file.display().to_string())?;
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_matrix_has_each_combination_once() {
        let names: BTreeSet<String> = matrix().iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), 2 * 3 * 3 * 4 * 2);
        assert_eq!(matrix().len(), names.len());
    }

    #[test]
    fn every_authentication_is_tried_where_the_peer_has_it() {
        let tried: Vec<Auth> = matrix()
            .into_iter()
            .chain(samples())
            .filter(|cell| !cell.is_refused_by_peer())
            .map(|cell| cell.auth)
            .collect();
        for auth in Auth::MATRIX.into_iter().chain(Auth::SAMPLED) {
            assert!(tried.contains(&auth), "{auth} is never tried");
        }
    }
}
