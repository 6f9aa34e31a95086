//! The text of a configuration file: deserializes it and finds the line of a key. Knows no
//! specific keys.

use std::path::Path;

use serde::de::DeserializeOwned;
use sidewire_protocol::suggest;
use toml::de::DeTable;

use super::error::{ConfigError, ConfigProblem, ConfigProblems};

/// A configuration text, with the path of its file if it has one.
pub(super) struct ConfigText<'a> {
    text: &'a str,
    file: Option<&'a Path>,
}

impl<'a> ConfigText<'a> {
    pub(super) fn new(text: &'a str, file: Option<&'a Path>) -> Self {
        Self { text, file }
    }

    /// Deserializes the text. Stops at the first error.
    pub(super) fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let deserializer = toml::Deserializer::parse(self.text)
            .map_err(|fault| self.refusal_error(vec![self.describe_fault("", &fault)]))?;
        serde_path_to_error::deserialize(deserializer).map_err(|fault| {
            let key = fault.path().to_string();
            self.refusal_error(vec![self.describe_fault(&key, fault.inner())])
        })
    }

    /// Returns the problems as an error, with the lines of their keys and sorted by line.
    pub(super) fn locate_problems(&self, problems: ConfigProblems) -> ConfigError {
        let mut problems = problems.into_vec();
        for problem in &mut problems {
            problem.line = self.find_key(&problem.key).map(|at| self.line_number(at));
        }
        problems.sort_by_key(|problem| problem.line);
        self.refusal_error(problems)
    }

    fn refusal_error(&self, problems: Vec<ConfigProblem>) -> ConfigError {
        ConfigError::Refused {
            file: self.file.map(Path::to_owned),
            problems,
        }
    }

    /// Returns the line, from 1, of the byte at `index`.
    fn line_number(&self, index: usize) -> usize {
        let before = self.text.bytes().take(index);
        1 + before.filter(|byte| *byte == b'\n').count()
    }

    fn describe_fault(&self, key: &str, fault: &toml::de::Error) -> ConfigProblem {
        let (message, hint) = reword_message(key, fault.message());
        // If a table in an array is at fault, the span is that of the whole array; the key
        // leads to the table.
        let at = fault.span().map(|span| span.start).max(self.find_key(key));
        ConfigProblem {
            key: key.to_owned(),
            line: at.map(|at| self.line_number(at)),
            message,
            hint,
        }
    }

    /// Returns the byte index of the key, or of the innermost of its sections that exists.
    fn find_key(&self, key: &str) -> Option<usize> {
        let root = DeTable::parse(self.text).ok()?;
        let mut table = Some(root.get_ref());
        let mut found = None;
        for segment in key.split('.') {
            let (name, index) = split_index(segment);
            let Some((name, value)) = table.and_then(|table| table.get_key_value(name)) else {
                break;
            };
            let element = index.and_then(|index| value.get_ref().get(index));
            found = Some(element.map_or(name.span(), |element| element.span()).start);
            table = element.unwrap_or(value).get_ref().as_table();
        }
        found
    }
}

/// Splits `keys[2]` into `keys` and 2.
fn split_index(segment: &str) -> (&str, Option<usize>) {
    segment
        .strip_suffix(']')
        .and_then(|rest| rest.split_once('['))
        .map_or((segment, None), |(name, index)| (name, index.parse().ok()))
}

/// Rewords serde's message in the terms of a configuration file, and adds a hint. serde
/// quotes the name at fault first and then the known names.
fn reword_message(key: &str, message: &str) -> (String, Option<String>) {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let name = quoted.next().unwrap_or_default();
    let known: Vec<_> = quoted.collect();
    let hint = Some(format!("expected one of {}", known.join(", ")));
    let suggestion = did_you_mean(name, &known);
    if message.starts_with("unknown field") {
        let place = section_of(key);
        (format!("unknown key `{name}` {place}{suggestion}"), hint)
    } else if message.starts_with("unknown variant") {
        (format!("{key}: unknown value `{name}`{suggestion}"), hint)
    } else if message.starts_with("missing field") {
        (format!("{key}: the key `{name}` is missing"), None)
    } else if key.is_empty() {
        (message.replace('\n', " "), None)
    } else {
        (format!("{key}: {message}"), None)
    }
}

/// Returns the section that holds the key, as written in the file.
fn section_of(key: &str) -> String {
    let Some((section, _)) = key.rsplit_once('.') else {
        return "at the top level".to_owned();
    };
    match section.split_once('[') {
        Some((name, _)) => format!("in [[{name}]]"),
        None => format!("in [{section}]"),
    }
}

/// Returns a "did you mean" question with the known name most similar to the unknown one, or
/// an empty string if none is close.
pub(super) fn did_you_mean(unknown: &str, known: &[&str]) -> String {
    suggest::nearest_name(unknown, known.iter().copied())
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}
