//! Records the findings of the rules, with the file and the line of each declaration.

use super::{
    diagnostic::{Diagnostic, Diagnostics, SchemaError, Severity},
    positions::{FileNames, SourceItem, line_of},
};

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct SchemaReport {
    names: FileNames,
    found: Diagnostics,
}

impl SchemaReport {
    /// Creates a report that starts with the findings from reading the files. `names` are
    /// the names of the files as shown in messages.
    pub(super) fn new(names: FileNames, found: Diagnostics) -> Self {
        Self { names, found }
    }

    /// Adds an error: the relay cannot use the schema because of this declaration.
    pub(super) fn error(
        &mut self,
        at: &impl SourceItem,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add_finding(Severity::Error, at, message.into(), hint.into());
    }

    /// Adds a warning: the declaration probably does not do what its author intended.
    pub(super) fn warning(
        &mut self,
        at: &impl SourceItem,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add_finding(Severity::Warning, at, message.into(), hint.into());
    }

    /// Adds a note about the declaration.
    pub(super) fn note(
        &mut self,
        at: &impl SourceItem,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add_finding(Severity::Note, at, message.into(), hint.into());
    }

    /// Adds an error that concerns no particular declaration.
    pub(super) fn error_of_schema(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.has_errors()
    }

    /// Returns the findings, sorted by file and line; as an error if at least one of them
    /// is an error.
    pub(super) fn finish(self) -> Result<Vec<Diagnostic>, SchemaError> {
        self.found.finish()
    }

    /// Returns all findings as an error, for a check that cannot continue.
    pub(super) fn into_error(self) -> SchemaError {
        self.found.into_error()
    }

    fn add_finding(
        &mut self,
        severity: Severity,
        at: &impl SourceItem,
        message: String,
        hint: String,
    ) {
        let (file, path) = at.source_location();
        self.found.push(Diagnostic {
            severity,
            file: Some(self.names.shown_name(file.name()).to_owned()),
            line: line_of(file.file_descriptor_proto(), path),
            message,
            hint: Some(hint),
        });
    }
}
