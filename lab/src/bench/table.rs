//! The table, for a terminal and as Markdown.

use crate::report::say;
use crate::switch::SwitchKind;

use super::figures::{Column, Figure, Required, Series, Unit};
use super::speaker::SpeakerKind;

/// Prints a table for each switch.
pub(super) fn print(columns: &[Column], markdown: bool) {
    for switch in [SwitchKind::Frr, SwitchKind::Bird] {
        let columns: Vec<&Column> = columns
            .iter()
            .filter(|column| column.switch == switch)
            .collect();
        if columns.is_empty() {
            continue;
        }
        let rows = rows(switch, &columns);
        if markdown {
            print_markdown(&rows);
        } else {
            print_aligned(&rows);
        }
    }
}

fn rows(switch: SwitchKind, columns: &[&Column]) -> Vec<Vec<String>> {
    let name = match switch {
        SwitchKind::Frr => "FRR",
        SwitchKind::Bird => "BIRD",
    };
    let mut head = vec![format!("{name} as the switch")];
    let speakers = SpeakerKind::ALL
        .into_iter()
        .filter(|speaker| columns.iter().any(|column| column.speaker == *speaker));
    let speakers: Vec<SpeakerKind> = speakers.collect();
    head.extend(speakers.iter().map(|speaker| speaker.name().to_owned()));
    head.push("isopath must".to_owned());
    let mut rows = vec![head];
    for figure in Figure::ALL {
        let of = |speaker| {
            let column = columns.iter().find(|column| column.speaker == speaker)?;
            column.series(figure)
        };
        if speakers.iter().all(|speaker| of(*speaker).is_none()) {
            continue;
        }
        let mut row = vec![figure.title().to_owned()];
        let cells = speakers.iter().map(|speaker| of(*speaker));
        row.extend(cells.map(|series| series.map_or_else(|| "–".to_owned(), cell)));
        row.push(wanted(figure, switch));
        rows.push(row);
    }
    rows
}

/// One number in a figure's unit, without the unit.
pub(super) fn number(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Milliseconds if value < 0.1 => format!("{:.1}", value * 1e3),
        Unit::Milliseconds => format!("{:.0}", value * 1e3),
        Unit::Seconds if value < 0.1 => format!("{value:.3}"),
        Unit::Seconds => format!("{value:.2}"),
        Unit::Mebibytes => format!("{value:.1}"),
        Unit::Times | Unit::Count => format!("{value:.0}"),
    }
}

/// What stands after such a number.
pub(super) fn suffix(unit: Unit) -> &'static str {
    match unit {
        Unit::Milliseconds => " ms",
        Unit::Seconds => " s",
        Unit::Mebibytes => " MiB",
        Unit::Times | Unit::Count => "",
    }
}

fn cell(series: &Series) -> String {
    let unit = series.figure.unit();
    let mut text = match (unit, series.spread()) {
        (Unit::Times, _) => format!(
            "{} of {}",
            series.values.len(),
            series.values.len() + series.failures.len()
        ),
        (_, None) => "none".to_owned(),
        (_, Some(spread)) => format!(
            "{}/{}/{}{}",
            number(unit, spread.min),
            number(unit, spread.median),
            number(unit, spread.max),
            suffix(unit)
        ),
    };
    if !series.flaps.is_empty() {
        let flaps: u32 = series.flaps.iter().sum();
        text.push_str(&format!(", {flaps} flaps"));
    }
    if !series.failures.is_empty() && unit != Unit::Times {
        text.push_str(&format!(", {} FAILED", series.failures.len()));
    }
    text
}

fn wanted(figure: Figure, switch: SwitchKind) -> String {
    let Required { median, max, times } = figure.required(switch);
    let unit = figure.unit();
    let limit = |what: &str, value: Option<f64>| {
        value.map(|value| format!("{what} ≤ {}{}", number(unit, value), suffix(unit)))
    };
    let rivals = figure.rivals(switch);
    let names: Vec<&str> = rivals.iter().map(|rival| rival.name()).collect();
    let parts = [
        limit("median", median),
        limit("max", max),
        times.map(|times| format!("{times} of {times}")),
        figure.forbids_flaps().then(|| "0 flaps".to_owned()),
        (!names.is_empty()).then(|| format!("≤ {} within the noise", names.join(", "))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(", ")
}

/// Rows of cells, the first one the head.
pub(super) fn print_markdown(rows: &[Vec<String>]) {
    for (index, row) in rows.iter().enumerate() {
        say(format_args!("| {} |", row.join(" | ")));
        if index == 0 {
            say(format_args!("|{}", "---|".repeat(row.len())));
        }
    }
    say("");
}

/// The same for a terminal.
pub(super) fn print_aligned(rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let lengths = rows.iter().map(|row| row[column].chars().count());
            lengths.max().unwrap_or(0)
        })
        .collect();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        say(cells.join("  ").trim_end());
    }
    say("");
}
