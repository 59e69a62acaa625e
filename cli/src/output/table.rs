use super::wrap::wrap;

/// Columns under headings, aligned by spaces. The last column is not padded. Cells are shown as they are: escape first.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    table_within(&headings, rows, None)
}

/// A [`table`] whose last column is broken into lines that end before `width`, if it is given.
pub(crate) fn table_within<R: AsRef<[String]>>(headings: &[&str], rows: &[R], width: Option<usize>) -> String {
    let cell_width = |column: usize| {
        let cells = rows.iter().map(|row| row.as_ref()[column].chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(cell_width).collect();
    let headings: Vec<String> = headings.iter().map(|&heading| heading.to_owned()).collect();
    let mut lines = vec![line(&headings, &widths, width)];
    lines.extend(rows.iter().map(|row| line(row.as_ref(), &widths, width)));
    lines.join("\n")
}

/// Room that the last column needs beside the others; where there is less, it goes on below them.
const LAST_MIN: usize = 20;

/// How far it then stands in.
const INDENT: usize = 4;

fn line(cells: &[String], widths: &[usize], width: Option<usize>) -> String {
    let mut text = String::new();
    let Some((last, others)) = cells.split_last() else { return text };
    for (cell, width) in others.iter().zip(widths) {
        text.push_str(cell);
        text.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
    }
    let start = text.chars().count();
    text.push_str(last);
    let has_room = width.is_some_and(|width| width >= start + LAST_MIN);
    wrap(text.trim_end(), if has_room { start } else { INDENT }, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["a".to_owned(), "running".to_owned()], ["digits-vit".to_owned(), String::new()]];
        assert_eq!(table(["NAME", "STATE"], &rows), "NAME        STATE\na           running\ndigits-vit");
    }

    #[test]
    fn the_last_column_goes_on_below_itself_or_where_there_is_room() {
        let row = ["12".to_owned(), "completed".to_owned(), "depth = 3, width = 64".to_owned()];
        let table = |width| table_within(&["TRIAL", "STATE", "TRIED"], std::slice::from_ref(&row), width);
        assert_eq!(table(None), "TRIAL  STATE      TRIED\n12     completed  depth = 3, width = 64");
        let narrow = "TRIAL  STATE      TRIED\n12     completed  depth = 3,\n                  width = 64";
        assert_eq!(table(Some(38)), narrow);
        let narrower = "TRIAL  STATE      TRIED\n12     completed  depth = 3,\n    width = 64";
        assert_eq!(table(Some(30)), narrower);
    }
}
