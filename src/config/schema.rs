//! `[schema]`: the source of the schema. Names its files but never reads one.

use std::path::PathBuf;

use sidewire_protocol::schema::{BundledSchema, SchemaSource};

use super::{
    document::did_you_mean,
    error::ConfigProblems,
    paths::PathResolver,
    reload::{live, restart},
    section::config_section,
};

config_section! {
    /// The `[schema]` section. If it is empty, the default bundled schema is used.
    pub struct SchemaSection("schema") {
        /// The name of a bundled schema; with `None`, the default, the first bundled schema, unless
        /// `files` or `descriptor_set` is set.
        restart_if_other bundled: Option<String> = None;
        /// The .proto files: the file with the envelope, and files with events that it does not
        /// import; none by default.
        live files: Vec<PathBuf> = Vec::new();
        /// The directories that are searched for imports of `files`; if empty, the default, the
        /// directories of the files.
        live include: Vec<PathBuf> = Vec::new();
        /// The file with a FileDescriptorSet, in place of `files`; `None` by default.
        live descriptor_set: Option<PathBuf> = None;
        /// The full name of the envelope message in `files` or `descriptor_set`; `None` by default.
        restart envelope: Option<String> = None;
    }
}

impl SchemaSection {
    /// Returns the source that the section names. Ignores a part of a contradictory section,
    /// which [`Config::check`](super::Config::check) refuses.
    #[must_use]
    pub fn source(&self) -> SchemaSource {
        let envelope = self.envelope.clone().unwrap_or_default();
        match &self.descriptor_set {
            Some(file) => SchemaSource::DescriptorSet {
                file: file.clone(),
                envelope,
            },
            None if self.files.is_empty() => SchemaSource::Bundled(self.bundled.clone()),
            None => SchemaSource::Files {
                files: self.files.clone(),
                include: self.include.clone(),
                envelope,
            },
        }
    }

    /// Returns the key to report when the schema cannot be used.
    pub(crate) fn blamed_key(&self) -> &'static str {
        match &self.descriptor_set {
            Some(_) => "schema.descriptor_set",
            None if self.files.is_empty() => "schema.bundled",
            None => "schema.files",
        }
    }

    pub(super) fn check(&self, problems: &mut ConfigProblems) {
        self.check_bounds(problems);
        self.check_bundled(problems);
        let has_files = !self.files.is_empty();
        if has_files && self.descriptor_set.is_some() {
            problems.add_problem(
                "schema.descriptor_set",
                "is set together with schema.files",
                "keep files to have the relay compile .proto files, or descriptor_set for the output of protoc or buf",
            );
        }
        let own = [
            ("schema.files", has_files),
            ("schema.descriptor_set", self.descriptor_set.is_some()),
        ];
        let own = own
            .into_iter()
            .find_map(|(key, is_set)| is_set.then_some(key));
        match (own, &self.envelope) {
            (Some(key), None) => problems.add_problem(
                key,
                "needs schema.envelope, the message that carries the events",
                "add its full name, package included, such as envelope = \"chat.v1.Envelope\"",
            ),
            (None, Some(_)) => problems.add_problem(
                "schema.envelope",
                "is set without schema.files and schema.descriptor_set, and a bundled schema has its own envelope",
                "remove it, or name the files that declare it",
            ),
            (Some(_), Some(name)) => check_name(name, problems),
            (None, None) => {}
        }
        if !self.include.is_empty() && !has_files {
            problems.add_problem(
                "schema.include",
                "is set without schema.files, for whose imports it is searched",
                "remove it, or name the files",
            );
        }
    }

    fn check_bundled(&self, problems: &mut ConfigProblems) {
        let Some(name) = &self.bundled else {
            return;
        };
        let known = BundledSchema::load_all().unwrap_or_default();
        let known: Vec<_> = known.iter().map(|schema| schema.name.as_str()).collect();
        if !known.contains(&name.as_str()) {
            problems.add_problem(
                "schema.bundled",
                format!(
                    "there is no bundled schema `{name}`{}",
                    did_you_mean(name, &known)
                ),
                format!("expected one of {}", known.join(", ")),
            );
        }
        let other = [
            ("schema.files", !self.files.is_empty()),
            ("schema.descriptor_set", self.descriptor_set.is_some()),
        ];
        if let Some((key, _)) = other.iter().find(|(_, is_set)| *is_set) {
            problems.add_problem(
                "schema.bundled",
                format!("is set together with {key}"),
                "remove bundled to use your own schema, or the other keys of the section to use the bundled one",
            );
        }
    }

    pub(super) fn resolve_paths(&mut self, paths: &PathResolver, problems: &mut ConfigProblems) {
        for (index, file) in self.files.iter_mut().enumerate() {
            paths.resolve(format!("schema.files[{index}]"), file, problems);
        }
        for (index, directory) in self.include.iter_mut().enumerate() {
            paths.resolve(format!("schema.include[{index}]"), directory, problems);
        }
        if let Some(file) = &mut self.descriptor_set {
            paths.resolve("schema.descriptor_set".to_owned(), file, problems);
        }
    }
}

/// Checks a full message name: words of letters, digits and `_`, separated by dots.
fn check_name(name: &str, problems: &mut ConfigProblems) {
    let is_word = |word: &str| {
        let starts_well =
            word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        starts_well
            && word
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'_')
    };
    if !name.split('.').all(is_word) {
        problems.add_problem(
            "schema.envelope",
            format!("{name:?} is not a valid full name of a message"),
            "separate package and message with a dot, such as \"chat.v1.Envelope\"",
        );
    }
}

/// The class of `bundled`: another bundled schema needs a restart. Naming the default does not.
fn restart_if_other(new: &mut Option<String>, running: &Option<String>) -> bool {
    let default = BundledSchema::load_default().unwrap_or_default().name;
    let differs = new.as_ref().unwrap_or(&default) != running.as_ref().unwrap_or(&default);
    if differs {
        new.clone_from(running);
    }
    differs
}
