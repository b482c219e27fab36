//! Decides how rows stand below each other: columns as wide as their widest cell, two blanks apart; and how a sentence
//! goes on in the next line.

use crate::drawing::wrapped;

/// A last column gets at least so many characters, however narrow the terminal.
const NARROWEST: usize = 24;

/// The rows as lines, without white space at their ends. Numbers are the caller's to align.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let cell_width = |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
    let widths: Vec<usize> =
        (0..columns).map(|column| rows.iter().map(|row| cell_width(row, column)).max().unwrap_or_default()).collect();
    rows.iter().map(|row| line(row, &widths)).collect()
}

/// The same in lines of at most `width` characters: the last column, which holds sentences, goes on below itself.
pub fn table_within(rows: &[Vec<String>], width: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let Some(last) = columns.checked_sub(1) else { return String::new() };
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let before: usize = (0..last).map(|column| widest(column) + 2).sum();
    let room = width.saturating_sub(before).max(NARROWEST);
    let spread = rows.iter().flat_map(|row| {
        let lines = wrapped(row.get(last).map_or("", String::as_str), " ", room);
        let begin = row.iter().take(last).cloned().collect::<Vec<_>>();
        lines.into_iter().enumerate().map(move |(index, text)| {
            let mut cells = if index == 0 { begin.clone() } else { vec![String::new(); last] };
            cells.resize(last, String::new());
            cells.push(text.trim_end().to_owned());
            cells
        })
    });
    table(&spread.collect::<Vec<_>>())
}

/// A text in lines of at most `width` characters, all but the first indented.
pub fn paragraph(text: &str, width: usize) -> String {
    wrapped(text, " ", width.saturating_sub(4))
        .iter()
        .enumerate()
        .map(|(index, line)| format!("{}{}\n", if index == 0 { "" } else { "    " }, line.trim_end()))
        .collect()
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    format!("{}\n", cells.join("  ").trim_end())
}

/// A row of borrowed cells.
pub fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_do_not_trail() {
        let rows = [row(["HOST", "CPUS", ""]), row(["host-7", "0-7", "x"]), row(["h", ""])];
        assert_eq!(table(&rows), "HOST    CPUS\nhost-7  0-7   x\nh\n");
    }

    #[test]
    fn sentences_in_the_last_column_go_on_below_themselves() {
        let rows = [row(["HOST", "WHY"]), row(["host-7", "a sentence of several words, longer than a line"])];
        assert_eq!(
            table_within(&rows, 34),
            "HOST    WHY\nhost-7  a sentence of several\n        words, longer than a line\n"
        );
        assert_eq!(table_within(&[], 34), "");
    }
}
