//! The text of a configuration file: deserializes it and finds the line of a key. Knows no
//! specific keys.

use std::{ops::Range, path::Path};

use serde::de::DeserializeOwned;
use sidewire_protocol::suggest;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::error::{ConfigError, ConfigProblem, ConfigProblems};

/// Maximum number of problems that are reported at once. Each of them takes another attempt.
const PROBLEMS_MAX: usize = 10;

/// What the parser reports for a key or section that occurs again.
const DUPLICATE: &str = "duplicate key";

/// A configuration text, with the path of its file if it has one.
pub(super) struct ConfigText<'a> {
    text: &'a str,
    file: Option<&'a Path>,
}

impl<'a> ConfigText<'a> {
    pub(super) fn new(text: &'a str, file: Option<&'a Path>) -> Self {
        Self { text, file }
    }

    /// Deserializes the text. Each key that is at fault is left out for a further attempt, so that
    /// the error has all problems. (Of the tables in one array it has the first.)
    pub(super) fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let (mut root, faults) = DeTable::parse_recoverable(self.text);
        let faults = faults.iter().take(PROBLEMS_MAX);
        let faults = faults.map(|fault| self.describe_fault("", fault));
        let mut problems: Vec<_> = faults.collect();
        let is_readable = problems.iter().all(|it| it.is_duplicate);
        while is_readable && problems.len() < PROBLEMS_MAX {
            let deserializer = toml::Deserializer::from(root.clone());
            let fault = match serde_path_to_error::deserialize(deserializer) {
                Ok(value) if problems.is_empty() => return Ok(value),
                Ok(_) => break,
                Err(fault) => fault,
            };
            let key = fault.path().to_string();
            problems.push(self.describe_fault(&key, fault.inner()));
            if !remove_key(root.get_mut(), &key) {
                break;
            }
        }
        problems.sort_by_key(|problem| problem.line);
        Err(self.refusal_error(problems))
    }

    /// Returns the problems as an error, with the lines of their keys and sorted by line.
    pub(super) fn locate_problems(&self, problems: ConfigProblems) -> ConfigError {
        let mut problems = problems.into_vec();
        for problem in &mut problems {
            problem.span = self.find_key(&problem.key);
            problem.line = self.line_of_key(&problem.key);
        }
        problems.sort_by_key(|problem| problem.line);
        self.refusal_error(problems)
    }

    fn refusal_error(&self, problems: Vec<ConfigProblem>) -> ConfigError {
        ConfigError::Refused {
            file: self.file.map(Path::to_owned),
            text: Some(self.text.into()),
            problems,
        }
    }

    /// Returns the line, from 1, of the key, or of the innermost of its sections that exists.
    pub(super) fn line_of_key(&self, key: &str) -> Option<usize> {
        self.find_key(key).map(|at| self.line_number(at.start))
    }

    /// Returns the line, from 1, of the byte at `index`.
    fn line_number(&self, index: usize) -> usize {
        let before = self.text.bytes().take(index);
        1 + before.filter(|byte| *byte == b'\n').count()
    }

    fn describe_fault(&self, key: &str, fault: &toml::de::Error) -> ConfigProblem {
        // If a table in an array is at fault, the span is that of the whole array; the key
        // leads to the table.
        let spans = [fault.span(), self.find_key(key)].into_iter().flatten();
        let span = spans.max_by_key(|span| span.start);
        let is_duplicate = fault.message().starts_with(DUPLICATE);
        let (message, hint) = match &span {
            Some(span) if is_duplicate => self.describe_duplicate(span),
            _ => reword_message(key, fault.message()),
        };
        ConfigProblem {
            key: key.to_owned(),
            line: span.as_ref().map(|span| self.line_number(span.start)),
            span,
            is_duplicate,
            message,
            hint,
        }
    }

    /// Returns a message and a hint about the key or section that occurs here once more.
    fn describe_duplicate(&self, span: &Range<usize>) -> (String, Option<String>) {
        let name = self.text.get(span.clone()).unwrap_or_default();
        let before = self.text.get(..span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let is_section = before
            .get(line_start..)
            .is_some_and(|line| line.trim_start().starts_with('['));
        let first = if is_section {
            // The parser keeps only the last one.
            before.find(&format!("[{name}]"))
        } else {
            // The same section has it before, and no other section lies between.
            let (root, _) = DeTable::parse_recoverable(self.text);
            last_key_before(root.get_ref(), name, span.start)
        };
        let first = first.map_or_else(String::new, |at| {
            format!(", first in line {}", self.line_number(at))
        });
        let message = match is_section {
            true => format!("the section [{name}] is there twice{first}"),
            false => format!("the key `{name}` is set twice{first}"),
        };
        let hint = match is_section {
            true => "put all its keys under the first one",
            false => "remove one of the two",
        };
        (message, Some(hint.to_owned()))
    }

    /// Returns where the key is, or the innermost of its sections that exists.
    fn find_key(&self, key: &str) -> Option<Range<usize>> {
        if key.is_empty() {
            return None;
        }
        let (root, _) = DeTable::parse_recoverable(self.text);
        let mut table = Some(root.get_ref());
        let mut found = None;
        for segment in key.split('.') {
            let (name, index) = split_index(segment);
            let Some((name, value)) = table.and_then(|table| table.get_key_value(name)) else {
                break;
            };
            let element = index.and_then(|index| value.get_ref().get(index));
            found = Some(element.map_or(name.span(), |element| element.span()));
            table = element.unwrap_or(value).get_ref().as_table();
        }
        found
    }
}

/// Returns the start of the last key of this name before `end`, in this table or one within it.
fn last_key_before(table: &DeTable<'_>, name: &str, end: usize) -> Option<usize> {
    let found = table.iter().filter_map(|(key, value)| {
        let start = key.span().start;
        let own = (key.get_ref() == name && start < end).then_some(start);
        own.max(last_key_within(value, name, end))
    });
    found.max()
}

fn last_key_within(value: &Spanned<DeValue<'_>>, name: &str, end: usize) -> Option<usize> {
    match value.get_ref() {
        DeValue::Table(table) => last_key_before(table, name, end),
        DeValue::Array(array) => {
            let found = array.iter().filter_map(|it| last_key_within(it, name, end));
            found.max()
        }
        _ => None,
    }
}

/// Removes the key, or the whole array that it leads through. Returns false if there is none.
fn remove_key(root: &mut DeTable<'_>, key: &str) -> bool {
    let mut table = root;
    let mut segments = key.split('.').map(split_index).peekable();
    while let Some((name, index)) = segments.next() {
        if index.is_some() || segments.peek().is_none() {
            return table.remove(name).is_some();
        }
        match table.get_mut(name).map(Spanned::get_mut) {
            Some(DeValue::Table(inner)) => table = inner,
            _ => return false,
        }
    }
    false
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
        let message = message.replace("expected a sequence", "expected a list, as in [\"x\"]");
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
