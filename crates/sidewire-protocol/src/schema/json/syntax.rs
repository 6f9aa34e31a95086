//! Describes errors in a JSON text to its author.

use serde_json::error::Category;

/// Describes the error. If the text is not JSON, the description includes the line and
/// column; other errors are shown with the path of a field.
pub(super) fn describe_error(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let place = format!(" at line {line} column {column}");
    let reason = text.strip_suffix(place.as_str()).unwrap_or(&text);
    match error.classify() {
        Category::Data | Category::Io => reason.to_owned(),
        Category::Syntax | Category::Eof => format!(
            "the text is not JSON: {} at line {line}, column {column}",
            in_json_words(reason)
        ),
    }
}

fn in_json_words(reason: &str) -> String {
    if let Some(what) = reason.strip_prefix("EOF while parsing ") {
        return format!("it ends inside {what}");
    }
    let words = match reason {
        "expected ident" => "expected `true`, `false` or `null`",
        "expected value" => "expected a value",
        "trailing characters" => "something follows the JSON",
        "recursion limit exceeded" => "it is nested more than 127 levels deep",
        "key must be a string" => "expected a name in double quotes",
        _ => reason,
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_syntax_error_gives_its_location_in_plain_words() {
        let deep = "[".repeat(200);
        for (json, said) in [
            (
                "nonsense",
                "expected `true`, `false` or `null` at line 1, column 2",
            ),
            ("{\n\"a\": }", "expected a value at line 2, column 6"),
            (r#"{"a": 1"#, "it ends inside an object at line 1, column 7"),
            (
                "{a: 1}",
                "expected a name in double quotes at line 1, column 2",
            ),
            ("{} {}", "something follows the JSON at line 1, column 4"),
            (
                &deep,
                "it is nested more than 127 levels deep at line 1, column 128",
            ),
        ] {
            let error = serde_json::from_str::<Value>(json).unwrap_err();
            assert_eq!(
                describe_error(&error),
                format!("the text is not JSON: {said}"),
                "{json}"
            );
        }
    }
}
