//! Text from outside must not drive the terminal: control characters and those that reorder text are shown as `\u{..}`.

/// `text` on one line, safe to show.
pub(crate) fn escape(text: &str) -> String {
    escape_but(text, |_| false)
}

/// `text` on as many lines as it has, safe to show.
pub(crate) fn escape_lines(text: &str) -> String {
    escape_but(text, |c| c == '\n')
}

fn escape_but(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if keep(c) => safe.push(c),
            '\n' | '\r' | '\t' => safe.extend(c.escape_default()),
            c if c.is_control() || is_invisible(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    safe
}

/// Characters that break or reorder lines, or cannot be seen at all (Unicode Technical Report 36).
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_drives_a_terminal_is_changed() {
        for (text, safe) in [
            ("digits-vit", "digits-vit"),
            ("ε ≤ 0.1, naïve", "ε ≤ 0.1, naïve"),
            ("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("abc\u{202e}txt.exe", "abc\\u{202e}txt.exe"),
        ] {
            assert_eq!(escape(text), safe);
        }
        assert_eq!(escape_lines("a\n\u{1b}b"), "a\n\\u{1b}b");
    }
}
