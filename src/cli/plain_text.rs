//! Text from elsewhere as a terminal may show it.

use std::borrow::Cow;

/// Characters that change how others are shown, or show nothing (general category Cf of Unicode).
const FORMATTING: [(char, char); 12] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    // Line and paragraph separators, and what sets directions.
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{e0000}', '\u{e007f}'),
];

/// Returns the text with control characters, line separators and invisible formatting escaped, so
/// that nothing in it can act on a terminal or on the text around it.
pub(super) fn plain_text(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unsafe(character) {
            plain.extend(character.escape_unicode());
        } else {
            plain.push(character);
        }
    }
    Cow::Owned(plain)
}

fn is_unsafe(character: char) -> bool {
    character.is_control()
        || FORMATTING
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_escaped_and_all_other_text_is_unchanged() {
        for (text, plain) in [
            ("ann ü 日本語 🙂", "ann ü 日本語 🙂"),
            ("\u{202e}evil\u{200f}", "\\u{202e}evil\\u{200f}"),
            ("a\u{2028}b\u{2066}c", "a\\u{2028}b\\u{2066}c"),
            ("\u{1b}[31m\u{7}\n", "\\u{1b}[31m\\u{7}\\u{a}"),
            ("\u{feff}x\u{e0041}", "\\u{feff}x\\u{e0041}"),
        ] {
            assert_eq!(plain_text(text), plain);
        }
    }
}
