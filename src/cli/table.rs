//! Tables for people: columns in line, no frames, nothing that a terminal must know how to draw.

use comfy_table::{CellAlignment, Table, presets};

/// A table with these columns at the right edge of theirs.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>, right: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    table.add_rows(rows);
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.trim_fmt();
    // Each cell has a space before it, the first one too.
    lines.lines().fold(String::new(), |text, line| text + line.strip_prefix(' ').unwrap_or(line) + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_in_line_and_lines_end_where_their_text_does() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "1,000".to_owned()]];
        assert_eq!(table(&["name", "count"], rows, &[1]), "name  count\na         1\nlong  1,000\n");
    }
}
