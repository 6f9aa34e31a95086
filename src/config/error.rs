//! Configuration errors, worded so that an operator can act on them. Does not decide which
//! values are wrong.

use std::{
    fmt, io,
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytesize::ByteSize;

use super::{FILE_BYTES_MAX, document::ConfigText, source_lines::source_lines};
use crate::bounded_file;

/// Maximum duration of any key: 30 days.
const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// An error in loading a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file does not exist, may not be read, is not UTF-8, is not a regular file or is too
    /// large.
    #[error(
        "{}: cannot read the configuration: {reason}\n  hint: config.example.toml shows every key with its default",
        path.display()
    )]
    Unreadable {
        /// The path as given.
        path: PathBuf,
        /// The system's error.
        reason: io::Error,
    },
    /// The content is invalid.
    #[error("{}", ProblemReport(file.as_ref(), problems))]
    Refused {
        /// The path as given; `None` if there is no file.
        file: Option<PathBuf>,
        /// The content, if the problems have their places in it.
        text: Option<Arc<str>>,
        /// All problems found, in the order of the file; never empty.
        problems: Vec<ConfigProblem>,
    },
}

/// A warning about a file that a usable configuration names. Displays as
/// `file:line: warning: message`, with the hint on a second line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigWarning {
    file: PathBuf,
    problem: ConfigProblem,
}

impl ConfigWarning {
    /// Creates a warning about the value of `key`. Reads the configuration file only to find
    /// the line of the key.
    pub(crate) fn at_key(path: &Path, key: &str, message: impl fmt::Display, hint: &str) -> Self {
        let text = bounded_file::read_text(path, FILE_BYTES_MAX).unwrap_or_default();
        Self {
            file: path.to_owned(),
            problem: ConfigProblem {
                key: key.to_owned(),
                line: ConfigText::new(&text, Some(path)).line_of_key(key),
                span: None,
                is_duplicate: false,
                message: format!("warning: {key}: {message}"),
                hint: Some(hint.to_owned()),
            },
        }
    }

    /// Returns the key that the warning is about, such as `auth.keys[0].secret_file`.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.problem.key
    }
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ProblemReport(Some(&self.file), std::slice::from_ref(&self.problem)).fmt(f)
    }
}

/// A problem in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The key at fault, such as `ingest.keys[0].name`; empty if the text is not TOML.
    pub key: String,
    /// The line in the file, from 1; `None` if the file has neither the key nor its section.
    pub line: Option<usize>,
    /// Where in the text it is, as byte indexes.
    pub(super) span: Option<Range<usize>>,
    /// True if a key or section occurs again.
    pub(super) is_duplicate: bool,
    /// The error message, which names the key.
    pub message: String,
    /// Advice on how to fix it.
    pub hint: Option<String>,
}

impl ConfigError {
    /// Creates the error that the file or value named by `key` cannot be used. Reads the
    /// configuration file only to find the line of the key.
    pub(crate) fn refused_at(
        path: &Path,
        key: &str,
        message: impl fmt::Display,
        hint: Option<&str>,
    ) -> Self {
        let text = bounded_file::read_text(path, FILE_BYTES_MAX).unwrap_or_default();
        ConfigText::new(&text, Some(path)).locate_problems(ConfigProblems(vec![ConfigProblem {
            key: key.to_owned(),
            line: None,
            span: None,
            is_duplicate: false,
            message: format!("{key}: {message}"),
            hint: hint.map(str::to_owned),
        }]))
    }
}

impl ConfigError {
    /// Rewords the error for a reload: the checked configuration combines the file at `path`
    /// with running values that cannot change without a restart.
    pub(crate) fn in_merged_config(self, path: &Path) -> Self {
        let Self::Refused { mut problems, .. } = self else {
            return self;
        };
        for problem in &mut problems {
            problem
                .message
                .push_str(" (in combination with running values whose change needs a restart)");
        }
        Self::Refused {
            file: Some(path.to_owned()),
            text: None,
            problems,
        }
    }

    /// Returns the error for people at a terminal: each problem with its line of the file, and a
    /// mark below what is wrong.
    #[must_use]
    pub fn with_source_lines(&self, is_colored: bool) -> String {
        match self {
            Self::Refused {
                file,
                text: Some(text),
                problems,
            } => source_lines(file.as_deref(), text, problems, is_colored),
            Self::Unreadable { .. } | Self::Refused { .. } => self.to_string(),
        }
    }
}

struct ProblemReport<'a>(Option<&'a PathBuf>, &'a [ConfigProblem]);

impl fmt::Display for ProblemReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.1.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match (self.0, problem.line) {
                (Some(file), Some(line)) => write!(f, "{}:{line}: ", file.display())?,
                (Some(file), None) => write!(f, "{}: ", file.display())?,
                (None, Some(line)) => write!(f, "line {line}: ")?,
                (None, None) => {}
            }
            f.write_str(&problem.message)?;
            if let Some(hint) = &problem.hint {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        Ok(())
    }
}

/// Collects the problems found by the checks.
#[derive(Debug, Default)]
pub(super) struct ConfigProblems(Vec<ConfigProblem>);

impl ConfigProblems {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the problems as an error of a configuration without a file.
    pub(super) fn into_error(self) -> ConfigError {
        ConfigError::Refused {
            file: None,
            text: None,
            problems: self.0,
        }
    }

    pub(super) fn into_vec(self) -> Vec<ConfigProblem> {
        self.0
    }

    pub(super) fn add_problem(
        &mut self,
        key: impl Into<String>,
        message: impl fmt::Display,
        hint: impl Into<String>,
    ) {
        let key = key.into();
        self.0.push(ConfigProblem {
            message: format!("{key}: {message}"),
            key,
            line: None,
            span: None,
            is_duplicate: false,
            hint: Some(hint.into()),
        });
    }

    /// Checks that a count is 1 or more.
    pub(super) fn check_count(&mut self, key: &str, count: usize) {
        if count == 0 {
            self.add_problem(key, "is 0 and must be at least 1", UNLIMITED);
        }
    }

    /// Checks that a size in bytes is within bounds.
    pub(super) fn check_size(&mut self, key: &str, size: usize, bounds: RangeInclusive<usize>) {
        if size == 0 {
            self.add_problem(key, "is 0 and must be greater than 0", UNLIMITED);
        } else if !bounds.contains(&size) {
            let (least, most) = (format_size(*bounds.start()), format_size(*bounds.end()));
            self.add_problem(
                key,
                format!("is {}", format_size(size)),
                format!("the minimum is {least}, the maximum is {most}"),
            );
        }
    }

    /// Checks that a duration is more than 0 and at most 30 days.
    pub(super) fn check_duration(&mut self, key: &str, duration: Duration) {
        if duration.is_zero() {
            self.add_problem(key, "is 0 and must be greater than 0", UNLIMITED);
        } else {
            self.check_duration_or_zero(key, duration);
        }
    }

    /// Checks that a duration is at most 30 days.
    pub(super) fn check_duration_or_zero(&mut self, key: &str, duration: Duration) {
        if duration > DURATION_MAX {
            self.add_problem(
                key,
                format!("is {}", humantime::format_duration(duration)),
                format!(
                    "the maximum is {}",
                    humantime::format_duration(DURATION_MAX)
                ),
            );
        }
    }
}

const UNLIMITED: &str = "0 does not mean unlimited; set a large value instead";

fn format_size(size: usize) -> String {
    ByteSize::b(u64::try_from(size).unwrap_or(u64::MAX)).to_string()
}
