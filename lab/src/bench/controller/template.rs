//! A report whose text is made once: what changes from one report to the next is filled in, so
//! that a thousand agents cost less than the controller that reads them.

use std::io::Write as _;

use anyhow::{Context, Result, bail};
use isopath_api::observed::Observed;
use jiff::Timestamp;

/// Stands for the time of the report.
pub(super) const AT: &str = "2001-02-03T04:05:06Z";
/// Stands for its number.
pub(super) const SEQUENCE: u64 = MARK;
/// Stands for the generation in force.
pub(super) const GENERATION: u64 = MARK + 1;

/// The first of the numbers that stand for others; no real one comes near.
const MARK: u64 = 9_007_199_254_000_000;
const COUNTERS: u64 = MARK + 100_000;

/// Stands for a counter that rises by `step` with each report.
pub(super) const fn counter(step: u16) -> u64 {
    COUNTERS + step as u64
}

/// A report with gaps.
#[derive(Debug)]
pub(super) struct Template {
    pieces: Vec<(Box<[u8]>, Gap)>,
    end: Box<[u8]>,
}

/// What goes into a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    At,
    Sequence,
    Generation,
    Counter(u64),
}

impl Template {
    pub(super) fn new(observed: &Observed) -> Result<Self> {
        let text = serde_json::to_string(observed).context("writing a report")?;
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, gap, after)) = next_gap(rest) {
            pieces.push((before.as_bytes().into(), gap));
            rest = after;
        }
        for wanted in [Gap::At, Gap::Sequence, Gap::Generation] {
            if !pieces.iter().any(|(_, gap)| *gap == wanted) {
                bail!("the report has no {wanted:?}: {text}");
            }
        }
        Ok(Self {
            pieces,
            end: rest.as_bytes().into(),
        })
    }

    /// Adds the report with this number to `into`.
    pub(super) fn render(&self, sequence: u64, generation: u64, into: &mut Vec<u8>) {
        let at = Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
            .to_string();
        for (before, gap) in &self.pieces {
            into.extend_from_slice(before);
            let written = match gap {
                Gap::At => into.write_all(at.as_bytes()),
                Gap::Sequence => write!(into, "{sequence}"),
                Gap::Generation => write!(into, "{generation}"),
                Gap::Counter(step) => write!(into, "{}", 1_000_000 + step * sequence),
            };
            written.expect("writing to memory cannot fail");
        }
        into.extend_from_slice(&self.end);
    }
}

/// The text before the next gap, the gap, and the text after it.
fn next_gap(text: &str) -> Option<(&str, Gap, &str)> {
    let number = text.find("9007199254");
    let time = text.find(AT);
    if let Some(time) = time.filter(|time| number.is_none_or(|number| *time < number)) {
        return Some((&text[..time], Gap::At, &text[time + AT.len()..]));
    }
    let number = number?;
    let (before, rest) = text.split_at(number);
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, after) = rest.split_at(digits);
    let gap = match digits.parse().ok()? {
        SEQUENCE => Gap::Sequence,
        GENERATION => Gap::Generation,
        other => Gap::Counter(u64::checked_sub(other, COUNTERS)?),
    };
    Some((before, gap, after))
}

#[cfg(test)]
mod tests {
    use isopath_api::desired::{AdminState, Desired};

    use super::*;
    use crate::bench::controller::set::{self, Shape};

    #[test]
    fn a_filled_template_is_a_report() {
        let declaration = Shape::USUAL.declaration(3, 1).unwrap();
        let lvs = declaration.lvs();
        let desired = Desired {
            epoch: "e1".to_owned(),
            generation: 5,
            revision: 2,
            cluster: "c003".parse().unwrap(),
            director: "d2".parse().unwrap(),
            router_id: set::router_id(3, 2),
            admin_state: AdminState::Active,
            admin_reason: String::new(),
            lvs,
            digests: isopath_api::digest::expected(&declaration.service, &lvs),
            withdraw: Default::default(),
            vip: declaration.vip.clone(),
            service: declaration.service.clone(),
        };
        let template = Template::new(&set::observed(3, 2, &desired, 0xff).unwrap()).unwrap();
        let read = |sequence| -> Observed {
            let mut text = Vec::new();
            template.render(sequence, 5, &mut text);
            serde_json::from_slice(&text).unwrap()
        };
        let (first, second) = (read(1), read(2));
        assert_eq!((first.sequence, second.sequence), (1, 2));
        assert_eq!((first.generation, second.generation), (5, 5));
        let servers = |observed: &Observed| observed.services[1].real_servers.len();
        assert_eq!(servers(&first), 10);
        let stats = |of: &Observed| of.services[0].real_servers[0].stats.unwrap().connections;
        assert_eq!(stats(&second) - stats(&first), 50);
        let check = second.services[0].real_servers[9].last_check.clone();
        assert_eq!(check.unwrap().at, second.at);
        let age = Timestamp::now().duration_since(second.at);
        assert!(age.as_secs().abs() < 60, "the report is {age} old");
    }
}
