//! Long lines on narrow terminals.

use terminal_size::{Width, terminal_size_of};

/// Columns of the terminal that data are shown on; `None` where it is a file, a pipe or too narrow to matter.
pub(crate) fn terminal_width() -> Option<usize> {
    let (Width(columns), _) = terminal_size_of(std::io::stdout())?;
    Some(usize::from(columns)).filter(|columns| *columns >= WIDTH_MIN)
}

/// Below this, wrapping makes things worse.
const WIDTH_MIN: usize = 30;

/// `text` in lines of at most `width` columns, if it is given, broken at spaces; all lines but the first begin with
/// `indent` spaces. `key = value` is never broken, nor is a word that is too long by itself.
pub(crate) fn wrap(text: &str, indent: usize, width: Option<usize>) -> String {
    let Some(width) = width.filter(|width| text.chars().count() > *width) else { return text.to_owned() };
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for piece in pieces(text) {
        let used = line.chars().count();
        if used > indent && !line.trim().is_empty() && used + piece.trim_end().chars().count() > width {
            lines.push(line.trim_end().to_owned());
            line = " ".repeat(indent);
        }
        line.push_str(&piece);
    }
    lines.push(line);
    lines.join("\n")
}

/// The words with the spaces that follow them; `key = value` is one.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for word in text.split_inclusive(' ') {
        match pieces.last_mut() {
            Some(last) if word == "= " || last.ends_with(" = ") => last.push_str(word),
            _ => pieces.push(word.to_owned()),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_never_within_a_value() {
        let text = "best:    trial 3, lr = 0.001, depth = 3";
        for (width, shown) in [
            (None, text),
            (Some(80), text),
            (Some(32), "best:    trial 3, lr = 0.001,\n         depth = 3"),
            (Some(24), "best:    trial 3,\n         lr = 0.001,\n         depth = 3"),
            (Some(1), "best:    trial\n         3,\n         lr = 0.001,\n         depth = 3"),
        ] {
            assert_eq!(wrap(text, 9, width), shown, "{width:?}");
        }
    }
}
