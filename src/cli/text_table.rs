//! A table of text with aligned columns.

/// Returns the rows as lines, with a header. Each column is as wide as its widest cell, and those
/// marked in `right` are aligned to the right. Cells must be as many as headings.
pub(super) fn text_table(headings: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let width_of = |text: &str| text.chars().count();
    let widths: Vec<usize> = headings
        .iter()
        .enumerate()
        .map(|(column, heading)| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| width_of(cell)).max().unwrap_or(0);
            widest.max(width_of(heading))
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (column, (cell, width)) in cells.zip(&widths).enumerate() {
            let padding = " ".repeat(width - width_of(cell));
            if column > 0 {
                line.push_str("  ");
            }
            if right.contains(&column) {
                line.push_str(&padding);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&padding);
            }
        }
        line.trim_end().to_owned()
    };
    let mut lines = vec![line(&mut headings.iter().copied())];
    let rows = rows.iter();
    lines.extend(rows.map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["ann", "7", "x"], ["Jürgen", "1234", ""]];
        let rows: Vec<_> = rows.map(|row| row.map(str::to_owned).to_vec()).into();
        assert_eq!(
            text_table(&["USER", "N", "LAST"], &[1], &rows),
            "USER       N  LAST\nann        7  x\nJürgen  1234"
        );
        assert_eq!(text_table(&["USER", "N"], &[], &[]), "USER  N");
    }
}
