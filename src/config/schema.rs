//! `[schema]`: where the schema comes from. Names its files and never reads one.

use std::path::PathBuf;

use serde::Deserialize;

use super::{document::did_you_mean, error::Problems, paths::Paths};
use crate::schema::{Bundled, SchemaSource};

/// The section. Without any of its keys the default bundled schema serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchemaSection {
    /// The name of a bundled schema; `None`, the default: the first of them, unless
    /// there are files.
    pub bundled: Option<String>,
    /// The .proto files with the envelope and with what it does not import; none by
    /// default.
    pub files: Vec<PathBuf>,
    /// The directories in which imports of `files` are looked for; those of the files
    /// where there is none, the default.
    pub include: Vec<PathBuf>,
    /// A FileDescriptorSet, in place of `files`; `None` by default.
    pub descriptor_set: Option<PathBuf>,
    /// The full name of the envelope in `files` or `descriptor_set`; `None` by default.
    pub envelope: Option<String>,
}

impl SchemaSection {
    /// The source that the section names. Of a section with a contradiction, which
    /// [`Config::check`](super::Config::check) refuses, a part is ignored.
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

    /// The key to blame when the schema cannot be used.
    pub(crate) fn key(&self) -> &'static str {
        match &self.descriptor_set {
            Some(_) => "schema.descriptor_set",
            None if self.files.is_empty() => "schema.bundled",
            None => "schema.files",
        }
    }

    pub(super) fn check(&self, problems: &mut Problems) {
        self.check_bundled(problems);
        let has_files = !self.files.is_empty();
        if has_files && self.descriptor_set.is_some() {
            problems.refuse(
                "schema.descriptor_set",
                "is set together with schema.files",
                "keep files to have the relay compile .proto files, descriptor_set for what protoc or buf has compiled",
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
            (Some(key), None) => problems.refuse(
                key,
                "needs schema.envelope, the message that carries the events",
                "add its full name, package included, such as envelope = \"chat.v1.Envelope\"",
            ),
            (None, Some(_)) => problems.refuse(
                "schema.envelope",
                "is set without schema.files and schema.descriptor_set, and a bundled schema has its own",
                "remove it, or name the files that declare it",
            ),
            (Some(_), Some(name)) => check_name(name, problems),
            (None, None) => {}
        }
        if !self.include.is_empty() && !has_files {
            problems.refuse(
                "schema.include",
                "is set without schema.files, whose imports are looked for there",
                "remove it, or name the files",
            );
        }
    }

    fn check_bundled(&self, problems: &mut Problems) {
        let Some(name) = &self.bundled else {
            return;
        };
        let known = Bundled::all().unwrap_or_default();
        let known: Vec<_> = known.iter().map(|schema| schema.name.as_str()).collect();
        if !known.contains(&name.as_str()) {
            problems.refuse(
                "schema.bundled",
                format!(
                    "there is no bundled schema `{name}`{}",
                    did_you_mean(name, &known)
                ),
                format!("known are {}", known.join(", ")),
            );
        }
        let other = [
            ("schema.files", !self.files.is_empty()),
            ("schema.descriptor_set", self.descriptor_set.is_some()),
        ];
        if let Some((key, _)) = other.iter().find(|(_, is_set)| *is_set) {
            problems.refuse(
                "schema.bundled",
                format!("is set together with {key}"),
                "remove bundled to use your own schema, or the other keys of the section to use the bundled one",
            );
        }
    }

    /// Whether both pick the same bundled schema.
    pub(super) fn has_same_bundled(&self, other: &Self) -> bool {
        let default = Bundled::load().unwrap_or_default().name;
        let name = |section: &Self| section.bundled.clone().unwrap_or_else(|| default.clone());
        name(self) == name(other)
    }

    pub(super) fn resolve(&mut self, paths: &Paths, problems: &mut Problems) {
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

/// The full name of a message: words of letters, digits and `_` with dots between them.
fn check_name(name: &str, problems: &mut Problems) {
    let is_word = |word: &str| {
        let starts_well =
            word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        starts_well
            && word
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'_')
    };
    if !name.split('.').all(is_word) {
        problems.refuse(
            "schema.envelope",
            format!("{name:?} cannot be the full name of a message"),
            "write package and message with a dot between them, such as \"chat.v1.Envelope\"",
        );
    }
}
