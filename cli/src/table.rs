//! Tables that line up: text to the left, numbers to the right.

/// A table with a header row.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

/// A column's title and side.
pub(crate) enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

impl Column {
    fn title(&self) -> &'static str {
        match self {
            Self::Left(title) | Self::Right(title) => title,
        }
    }
}

impl Table {
    /// An empty table.
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row, one cell for each column. A cell's control characters are not shown.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.columns.len(), "a cell for each column");
        self.rows
            .push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// The table as text, one line a row.
    pub(crate) fn render(&self) -> String {
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let cells = self.rows.iter().map(|row| row[index].chars().count());
                cells.max().unwrap_or(0).max(column.title().len())
            })
            .collect();
        let titles: Vec<String> = self
            .columns
            .iter()
            .map(|column| column.title().to_owned())
            .collect();
        let mut text = String::new();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, column), width) in row.iter().zip(&self.columns).zip(&widths) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                match column {
                    Column::Left(_) => line.push_str(&format!("{cell:<width$}")),
                    Column::Right(_) => line.push_str(&format!("{cell:>width$}")),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The text without control characters, which could drive the operator's terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// A count with its thousands apart: `12,408`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time span in two units: `4m12s`, `3h05m`, `12s`.
pub(crate) fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    if days > 0 {
        format!("{days}d{hours:02}h")
    } else if hours > 0 {
        format!("{hours}h{minutes:02}m")
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_on_their_side() {
        let mut table = Table::new(vec![Column::Left("NAME"), Column::Right("N")]);
        table.row(["d1".into(), "7".into()]);
        table.row(["long-name".into(), "12,408".into()]);
        assert_eq!(
            table.render(),
            "NAME            N\nd1              7\nlong-name  12,408\n"
        );
    }

    #[test]
    fn a_cell_cannot_drive_the_terminal() {
        let mut table = Table::new(vec![Column::Left("NAME")]);
        table.row(["\u{1b}[2Jx".into()]);
        assert!(!table.render().contains('\u{1b}'));
    }

    #[test]
    fn counts_and_spans_read_as_people_write_them() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(12_408), "12,408");
        assert_eq!(count(1_000_000), "1,000,000");
        assert_eq!(span(12), "12s");
        assert_eq!(span(252), "4m12s");
        assert_eq!(span(11_100), "3h05m");
        assert_eq!(span(90_000), "1d01h");
    }
}
