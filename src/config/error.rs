//! What can be wrong with a configuration, in words that an operator can act
//! on. Does not know which words are wrong.

use std::{
    fmt, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;

use super::{FILE_BYTES_MAX, document::Document};
use crate::bounded_file;

/// The longest duration that makes sense for any key: 30 days.
const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file does not exist, may not be read, is not UTF-8, is no regular file or is
    /// too large.
    #[error(
        "{}: cannot read the configuration: {reason}\n  hint: config.example.toml shows every key with its default",
        path.display()
    )]
    Unreadable {
        /// The path as it was given.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// It says what it must not say.
    #[error("{}", Report(file.as_ref(), problems))]
    Refused {
        /// The path as it was given; `None` where there is no file.
        file: Option<PathBuf>,
        /// All that was found, in the file's order; never empty.
        problems: Vec<Problem>,
    },
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key at fault, such as `ingest.keys[0].name`; empty where the text is
    /// no TOML.
    pub key: String,
    /// The line in the file, from 1; `None` where the file does not have the
    /// key, nor its section.
    pub line: Option<usize>,
    /// What is wrong; names the key.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl ConfigError {
    /// That what the key in the file names cannot be used. Of the file only the
    /// line of the key is read.
    pub(crate) fn refused_at(
        path: &Path,
        key: &str,
        message: impl fmt::Display,
        hint: Option<&str>,
    ) -> Self {
        let text = bounded_file::read_text(path, FILE_BYTES_MAX).unwrap_or_default();
        Document::new(&text, Some(path)).locate(Problems(vec![Problem {
            key: key.to_owned(),
            line: None,
            message: format!("{key}: {message}"),
            hint: hint.map(str::to_owned),
        }]))
    }
}

impl ConfigError {
    /// The same of a configuration of which the file at `path` has only a part: the
    /// rest is what a relay runs with and cannot change.
    pub(crate) fn merged(self, path: &Path) -> Self {
        let Self::Refused { mut problems, .. } = self else {
            return self;
        };
        for problem in &mut problems {
            problem.message.push_str(
                ", together with what needs a restart and is still as it was at the start",
            );
        }
        Self::Refused {
            file: Some(path.to_owned()),
            problems,
        }
    }
}

struct Report<'a>(Option<&'a PathBuf>, &'a [Problem]);

impl fmt::Display for Report<'_> {
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

/// Gathers what the checks find.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The problems of a configuration that no file holds.
    pub(super) fn into_error(self) -> ConfigError {
        ConfigError::Refused {
            file: None,
            problems: self.0,
        }
    }

    pub(super) fn into_vec(self) -> Vec<Problem> {
        self.0
    }

    pub(super) fn refuse(
        &mut self,
        key: impl Into<String>,
        message: impl fmt::Display,
        hint: impl Into<String>,
    ) {
        let key = key.into();
        self.0.push(Problem {
            message: format!("{key}: {message}"),
            key,
            line: None,
            hint: Some(hint.into()),
        });
    }

    /// A number of things of which there must be one at least.
    pub(super) fn check_count(&mut self, key: &str, count: usize) {
        if count == 0 {
            self.refuse(key, "is 0 and must be 1 or more", UNLIMITED);
        }
    }

    /// A size in bytes between two bounds.
    pub(super) fn check_size(&mut self, key: &str, size: usize, bounds: RangeInclusive<usize>) {
        if size == 0 {
            self.refuse(key, "is 0 and must be more", UNLIMITED);
        } else if !bounds.contains(&size) {
            let (least, most) = (readable(*bounds.start()), readable(*bounds.end()));
            self.refuse(
                key,
                format!("is {}", readable(size)),
                format!("the least is {least}, the most {most}"),
            );
        }
    }

    /// A duration that lasts, and ends some day.
    pub(super) fn check_duration(&mut self, key: &str, duration: Duration) {
        if duration.is_zero() {
            self.refuse(key, "is 0 and must be more", UNLIMITED);
        } else {
            self.check_duration_or_zero(key, duration);
        }
    }

    /// A duration that ends some day.
    pub(super) fn check_duration_or_zero(&mut self, key: &str, duration: Duration) {
        if duration > DURATION_MAX {
            self.refuse(
                key,
                format!("is {}", humantime::format_duration(duration)),
                format!("the most is {}", humantime::format_duration(DURATION_MAX)),
            );
        }
    }
}

const UNLIMITED: &str = "0 does not mean unlimited: everything has a bound, which may be large";

fn readable(size: usize) -> String {
    ByteSize::b(u64::try_from(size).unwrap_or(u64::MAX)).to_string()
}
