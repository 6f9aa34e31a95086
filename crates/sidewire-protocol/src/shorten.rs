//! Bounds the length of texts that quote a peer's input.

/// Maximum bytes of an error sentence or field path in a response to a client or a backend.
pub const ANSWER_BYTES_MAX: usize = 1000;

/// Cuts the text to at most `bytes_max` bytes; a cut text ends with `…`.
pub fn truncate_text(text: impl Into<String>, bytes_max: usize) -> String {
    const MARK: char = '…';
    let mut text = text.into();
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max.saturating_sub(MARK.len_utf8())));
        text.push(MARK);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_never_longer_than_its_bound() {
        assert_eq!(truncate_text("abcdef", 6), "abcdef");
        assert_eq!(truncate_text("abcdefg", 6), "abc…");
        // The second `é` would end at byte 4.
        assert_eq!(truncate_text("éééé", 6), "é…");
    }
}
