//! Findings about a schema that its author can act on: each has a file, a line and a hint.
//! Knows nothing about the rules.

use std::fmt;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The relay cannot use the schema.
    Error,
    /// The relay can use the schema, but part of it probably does not do what its author
    /// intended.
    Warning,
    /// The relay can use the schema; the finding is informational.
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

/// A finding about a schema. Displays as `file:line: severity: message`, with the hint on a
/// second line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The severity.
    pub severity: Severity,
    /// The file, as shown in messages; `None` if the finding concerns no file.
    pub file: Option<String>,
    /// The line in the file, starting at 1; `None` if it is unknown, as in a descriptor set
    /// without source information.
    pub line: Option<usize>,
    /// The finding itself; names the field or message.
    pub message: String,
    /// The suggested action.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// Creates an error that concerns no particular file.
    pub(super) fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: None,
            line: None,
            message: message.into(),
            hint: None,
        }
    }

    /// Sets the file and the line.
    pub(super) fn in_file(mut self, file: impl Into<String>, line: Option<usize>) -> Self {
        self.file = Some(file.into());
        self.line = line;
        self
    }

    /// Sets the hint.
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

/// The error of a failed compilation: all findings, at least one of them an error. Displays
/// each finding on its own lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaError(Vec<Diagnostic>);

impl SchemaError {
    /// Returns all findings, sorted by file and line.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.0
    }

    /// Returns the number of errors among the findings.
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

/// Collects the findings of the checks.
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

    /// Returns the findings, sorted by file and line; as an error if at least one of them
    /// is an error.
    pub(super) fn finish(self) -> Result<Vec<Diagnostic>, SchemaError> {
        if self.has_errors() {
            Err(self.into_error())
        } else {
            Ok(self.sorted())
        }
    }

    /// Returns all findings, sorted by file and line, as an error. At least one of them
    /// must be an error.
    pub(super) fn into_error(self) -> SchemaError {
        SchemaError(self.sorted())
    }

    fn sorted(mut self) -> Vec<Diagnostic> {
        self.0
            .sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
        self.0
    }
}
