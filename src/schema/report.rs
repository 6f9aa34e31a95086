//! Takes down what the rules find, with the file and the line of each declaration.

use super::{
    diagnostic::{Diagnostic, Diagnostics, SchemaError, Severity},
    positions::{FileNames, Placed, line_of},
};

/// What has been found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    names: FileNames,
    found: Diagnostics,
}

impl Report {
    /// What reading the files has found, to be added to. `names` are what messages call
    /// the files.
    pub(super) fn new(names: FileNames, found: Diagnostics) -> Self {
        Self { names, found }
    }

    /// The relay cannot use the schema because of this declaration.
    pub(super) fn error(
        &mut self,
        at: &impl Placed,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Error, at, message.into(), hint.into());
    }

    /// The declaration probably does not do what its author wanted.
    pub(super) fn warning(
        &mut self,
        at: &impl Placed,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Warning, at, message.into(), hint.into());
    }

    /// Something about the declaration is good to know.
    pub(super) fn note(
        &mut self,
        at: &impl Placed,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Note, at, message.into(), hint.into());
    }

    /// The relay cannot use the schema, and no declaration is to blame.
    pub(super) fn error_of_schema(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.has_errors()
    }

    /// What was found, by file and line: an error if there is one among it.
    pub(super) fn finish(self) -> Result<Vec<Diagnostic>, SchemaError> {
        self.found.finish()
    }

    /// Everything that was found, for a check that cannot go on after an error.
    pub(super) fn into_error(self) -> SchemaError {
        self.found.into_error()
    }

    fn add(&mut self, severity: Severity, at: &impl Placed, message: String, hint: String) {
        let (file, path) = at.place();
        self.found.push(Diagnostic {
            severity,
            file: Some(self.names.shown(file.name()).to_owned()),
            line: line_of(file.file_descriptor_proto(), path),
            message,
            hint: Some(hint),
        });
    }
}
