//! The table in `docs/OSPF.md`, between two markers.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::{Cell, KINDS, Outcome, PEERS, Report, kind_name, matrix, samples};
use crate::switch::SwitchKind;

/// The line before the table.
pub const BEGIN: &str = "<!-- interop:begin -->";
/// The line after it.
pub const END: &str = "<!-- interop:end -->";

/// The text with the part between the markers replaced.
///
/// # Errors
/// A marker is missing.
pub fn replace(text: &str, table: &str) -> Result<String> {
    let (before, rest) = text
        .split_once(BEGIN)
        .with_context(|| format!("no line {BEGIN}"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("no line {END} after {BEGIN}"))?;
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

/// The table: a line for each peer, network and authentication, a column for each kind of LSA
/// without and with BFD. What was not tried has a `?`.
///
/// # Errors
/// A peer does not say its version.
pub fn markdown(reports: &[Report]) -> Result<String> {
    let versions: Vec<String> = PEERS
        .into_iter()
        .map(SwitchKind::version)
        .collect::<Result<_>>()?;
    let mut notes = Vec::new();
    let rows = rows(&mut |cell| entry(reports, cell, &mut notes));
    let mut text = format!("The peers were {}.\n\n{rows}", versions.join(" and "));
    for sample in samples() {
        let entry = entry(reports, &sample, &mut notes);
        write(&mut text, format_args!("\n- `{sample}`: {entry}"));
    }
    text.push('\n');
    for (index, note) in notes.iter().enumerate() {
        write(&mut text, format_args!("\n({}) {note}\n", index + 1));
    }
    Ok(text)
}

/// The lines of the table, with what `entry` says of each cell.
fn rows(entry: &mut dyn FnMut(&Cell) -> String) -> String {
    let mut text = String::from("| peer | network | authentication |");
    for kind in KINDS {
        let kind = kind_name(kind);
        write(&mut text, format_args!(" {kind} | {kind}, BFD |"));
    }
    write(
        &mut text,
        format_args!("\n|---|---|---|{}\n", "---|---|".repeat(KINDS.len())),
    );
    // The matrix is in the order of the lines: kind and BFD change first.
    for line in matrix().chunks(KINDS.len() * 2) {
        let Cell {
            peer,
            network,
            auth,
            ..
        } = line[0];
        write(&mut text, format_args!("| {peer} | {network} | {auth} |"));
        for cell in line {
            write(&mut text, format_args!(" {} |", entry(cell)));
        }
        text.push('\n');
    }
    text
}

/// What came of a cell; a refusal's words become a note.
fn entry(reports: &[Report], cell: &Cell, notes: &mut Vec<String>) -> String {
    let Some(report) = reports.iter().find(|report| report.cell == *cell) else {
        return "?".to_owned();
    };
    match &report.outcome {
        Outcome::Passed => "ok".to_owned(),
        Outcome::NotSupported(words) => {
            let note = format!("refused by {}: \u{201c}{words}\u{201d}", cell.peer);
            let known = notes.iter().position(|other| *other == note);
            let index = known.unwrap_or_else(|| {
                notes.push(note);
                notes.len() - 1
            });
            format!("({})", index + 1)
        }
        Outcome::Failed { step, .. } => match step {
            Some(step) => format!("**fails: {step}**"),
            None => "**fails**".to_owned(),
        },
    }
}

fn write(text: &mut String, piece: std::fmt::Arguments<'_>) {
    text.write_fmt(piece)
        .expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The labels of each line of a table, and how many entries it has.
    fn shape(text: &str) -> Vec<(Vec<String>, usize)> {
        let lines = text.lines().filter(|line| line.starts_with('|'));
        lines
            .map(|line| {
                let columns: Vec<&str> = line.trim_matches('|').split('|').collect();
                let labels = columns.iter().take(3).map(|label| label.trim().to_owned());
                (labels.collect(), columns.len())
            })
            .collect()
    }

    fn documentation() -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OSPF.md");
        std::fs::read_to_string(path).unwrap()
    }

    fn documented() -> String {
        let text = documentation();
        let (_, rest) = text.split_once(BEGIN).expect("no begin in docs/OSPF.md");
        let (table, _) = rest.split_once(END).expect("no end in docs/OSPF.md");
        table.to_owned()
    }

    #[test]
    fn the_documentation_has_an_entry_for_every_cell() {
        let table = documented();
        let expected = shape(&rows(&mut |_| "ok".to_owned()));
        assert_eq!(
            shape(&table),
            expected,
            "docs/OSPF.md is not of this matrix's shape: make interop"
        );
        for sample in samples() {
            let line = format!("- `{sample}`: ");
            assert!(table.contains(&line), "no line {line:?} in docs/OSPF.md");
        }
    }

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let wanted = format!("before\n{BEGIN}\nnew\n{END}\nafter\n");
        assert_eq!(replace(&text, "new\n").unwrap(), wanted);
        let error = replace("nothing", "new\n").unwrap_err().to_string();
        assert!(error.contains(BEGIN), "{error} does not name the marker");
    }

    #[test]
    fn a_refusal_is_a_note_and_a_failure_names_its_step() {
        let cell = samples()[0];
        let report = |outcome| {
            [Report {
                cell,
                outcome,
                steps: Vec::new(),
            }]
        };
        let mut notes = Vec::new();
        let refused = report(Outcome::NotSupported("no".to_owned()));
        assert_eq!(entry(&refused, &cell, &mut notes), "(1)");
        assert_eq!(entry(&refused, &cell, &mut notes), "(1)", "{notes:?}");
        assert_eq!(notes.len(), 1, "{notes:?}");
        let failed = report(Outcome::Failed {
            step: Some(super::super::Step::Crash),
            seen: String::new(),
        });
        assert_eq!(entry(&failed, &cell, &mut notes), "**fails: crash**");
        assert_eq!(entry(&[], &cell, &mut notes), "?");
    }
}
