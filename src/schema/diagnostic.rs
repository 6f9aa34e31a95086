//! What is wrong with a schema, or worth knowing about it, in words that its author can
//! act on: a file, a line, and what to do. Does not know the rules.

use std::fmt;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The relay cannot use the schema.
    Error,
    /// The relay can use the schema, but part of it probably does not do what its
    /// author wanted.
    Warning,
    /// The relay can use the schema; this is good to know.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// One finding about a schema. It prints as `file:line: severity: message`, with the
/// hint on a second line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// The file, as messages show it; `None` where the finding is about no file.
    pub file: Option<String>,
    /// The line in the file, from 1; `None` where it is not known, as in a descriptor
    /// set without source information.
    pub line: Option<usize>,
    /// What is wrong; names the field or message.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error about no file in particular.
    pub(super) fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: None,
            line: None,
            message: message.into(),
            hint: None,
        }
    }

    /// The same, about a file.
    pub(super) fn in_file(mut self, file: impl Into<String>, line: Option<usize>) -> Self {
        self.file = Some(file.into());
        self.line = line;
        self
    }

    /// The same, with advice.
    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{file}:{line}: ")?,
            (Some(file), None) => write!(f, "{file}: ")?,
            (None, _) => {}
        }
        write!(f, "{}: {}", self.severity, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Why there is no schema: everything that was found, at least one error among it. It
/// prints as one finding after the other, each on lines of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaError(Vec<Diagnostic>);

impl SchemaError {
    /// Everything that was found, by file and line.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.0
    }

    /// How many errors there are among the findings.
    #[must_use]
    pub fn error_count(&self) -> usize {
        let is_error = |it: &&Diagnostic| it.severity == Severity::Error;
        self.0.iter().filter(is_error).count()
    }
}

impl From<Diagnostic> for SchemaError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl std::error::Error for SchemaError {}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{diagnostic}")?;
        }
        Ok(())
    }
}

/// Gathers what the checks find.
#[derive(Debug, Default)]
pub(super) struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    pub(super) fn extend(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        self.0.extend(diagnostics);
    }

    pub(super) fn has_errors(&self) -> bool {
        self.0.iter().any(|it| it.severity == Severity::Error)
    }

    /// What was found, by file and line: an error if there is one among it.
    pub(super) fn finish(self) -> Result<Vec<Diagnostic>, SchemaError> {
        if self.has_errors() {
            Err(self.into_error())
        } else {
            Ok(self.sorted())
        }
    }

    /// Everything that was found, at least one error among it, by file and line.
    pub(super) fn into_error(self) -> SchemaError {
        SchemaError(self.sorted())
    }

    fn sorted(mut self) -> Vec<Diagnostic> {
        self.0
            .sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
        self.0
    }
}
