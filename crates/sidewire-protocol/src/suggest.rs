//! Finds the known name that a user probably meant by an unknown one.

/// Minimum similarity at which a name is taken for a misspelling of another: from 0 to 1,
/// the normalized Damerau–Levenshtein similarity.
const LIKENESS_MIN: f64 = 0.5;

/// Maximum length in bytes of a name that is compared. Comparing takes time proportional to
/// the product of both lengths, and the unknown name may come from a client.
const COMPARED_BYTES_MAX: usize = 64;

/// Returns the known name most similar to the unknown one, or `None` if none is close.
pub fn nearest_name<'a>(
    unknown: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    nearest_entry(unknown, known.into_iter().map(|name| (name, name)))
}

/// Returns the value paired with the known name most similar to the unknown one, or `None`
/// if none is close. Ignores case.
pub fn nearest_entry<'a, T>(
    unknown: &str,
    known: impl IntoIterator<Item = (&'a str, T)>,
) -> Option<T> {
    if unknown.len() > COMPARED_BYTES_MAX {
        return None;
    }
    let unknown = unknown.to_lowercase();
    known
        .into_iter()
        .filter(|(name, _)| name.len() <= COMPARED_BYTES_MAX)
        .map(|(name, value)| {
            let name = name.to_lowercase();
            let likeness = strsim::normalized_damerau_levenshtein(&unknown, &name);
            (likeness, value)
        })
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_name_is_suggested_in_either_case() {
        let known = ["roomCreated", "roomClosed", "said"];
        assert_eq!(nearest_name("roomCreate", known), Some("roomCreated"));
        assert_eq!(nearest_name("ROOMCLOSED", known), Some("roomClosed"));
        assert_eq!(nearest_name("presence", known), None);
    }

    #[test]
    fn names_that_take_long_to_compare_are_not_compared() {
        let longest = "x".repeat(COMPARED_BYTES_MAX);
        let too_long = "x".repeat(COMPARED_BYTES_MAX + 1);
        assert_eq!(nearest_name(&longest, [longest.as_str()]), Some(&*longest));
        assert_eq!(nearest_name(&too_long, [too_long.as_str()]), None);
        assert_eq!(nearest_name(&longest, [too_long.as_str()]), None);
    }
}
