//! Which of the known names may have been meant by an unknown one.

/// How alike two names must be for one to be taken for the other misspelt, from 0 to 1
/// (Damerau–Levenshtein).
const LIKENESS_MIN: f64 = 0.5;

/// The name that is most like the unknown one, if one is at all.
pub(super) fn nearest<'a>(
    unknown: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let unknown = unknown.to_lowercase();
    known
        .into_iter()
        .map(|name| {
            let likeness = strsim::normalized_damerau_levenshtein(&unknown, &name.to_lowercase());
            (likeness, name)
        })
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}
