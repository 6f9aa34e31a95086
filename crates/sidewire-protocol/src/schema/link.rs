//! Links parsed files into one descriptor pool, each file after its imports. A file that is
//! broken or imports a broken file is left out; the rest is still checked.

use std::collections::{BTreeMap, BTreeSet};

use miette::Diagnostic as _;
use prost_reflect::{DescriptorError, DescriptorPool, prost_types::FileDescriptorProto};

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    parse_errors::explain_errors,
    positions::{FileNames, line_of},
};

/// Maximum number of errors in one file up to which their lines are determined.
const ERRORS_WITH_PLACES_MAX: usize = 1000;

/// A file that has been read.
pub(super) struct SourceFile {
    /// The path shown in messages.
    pub(super) shown: String,
    pub(super) descriptor: FileDescriptorProto,
    pub(super) content: SourceContent,
}

/// The source of a file.
pub(super) enum SourceContent {
    /// Its text.
    Text(String),
    /// Its encoded descriptor, with the options that `descriptor` lacks.
    Encoded(Vec<u8>),
    /// A built-in file.
    BuiltIn,
}

/// An import of a missing file.
pub(super) struct MissingImport {
    pub(super) name: String,
    pub(super) importer: String,
    /// The index among the importer's imports.
    pub(super) index: usize,
}

/// The files of a schema, by the names under which they are imported.
#[derive(Default)]
pub(super) struct SourceFiles {
    files: BTreeMap<String, SourceFile>,
    /// Names of existing files that have been reported as unusable.
    refused: BTreeSet<String>,
}

impl SourceFiles {
    pub(super) fn insert(&mut self, name: String, file: SourceFile) {
        self.files.insert(name, file);
    }

    /// Records a file that cannot be used, so that imports of it are not reported as
    /// missing.
    pub(super) fn mark_unusable(&mut self, name: String) {
        self.refused.insert(name);
    }

    pub(super) fn get(&self, name: &str) -> Option<&SourceFile> {
        self.files.get(name)
    }

    /// Returns the imports of files that are neither here nor [unusable](Self::mark_unusable).
    pub(super) fn missing_imports(&self) -> Vec<MissingImport> {
        let mut missing = Vec::new();
        for (importer, file) in &self.files {
            for (index, name) in file.descriptor.dependency.iter().enumerate() {
                if !self.files.contains_key(name) && !self.refused.contains(name) {
                    missing.push(MissingImport {
                        name: name.clone(),
                        importer: importer.clone(),
                        index,
                    });
                }
            }
        }
        missing
    }

    /// Returns the names of the files as shown in messages.
    pub(super) fn file_names(&self) -> FileNames {
        let shown = |(name, file): (&String, &SourceFile)| (name.clone(), file.shown.clone());
        FileNames::new(self.files.iter().map(shown).collect())
    }

    /// Returns the pool of all usable files.
    pub(super) fn link(&self, found: &mut Diagnostics) -> DescriptorPool {
        let mut pool = DescriptorPool::new();
        let mut linked = Vec::new();
        for name in self.in_import_order(found) {
            let Some(file) = self.files.get(name) else {
                continue;
            };
            let imports = &file.descriptor.dependency;
            // Missing and broken imports have already been reported.
            if imports.iter().any(|it| pool.get_file_by_name(it).is_none()) {
                continue;
            }
            match file.add_to(&mut pool) {
                Ok(()) => linked.push(file),
                Err(error) => {
                    found.extend(file.explain_error(error));
                    if file.declares_extensions() {
                        pool = relink(&linked);
                    }
                }
            }
        }
        pool
    }

    /// Returns the names of the files, each after those of its imports. Circular imports
    /// are reported; the file that closes the circle then comes before one of its imports.
    fn in_import_order(&self, found: &mut Diagnostics) -> Vec<&str> {
        let mut order = Vec::new();
        let mut visited = BTreeSet::new();
        for name in self.files.keys() {
            // The stack of files being visited, each imported by the one before it, with
            // the number of its imports that have been followed; `on_path` holds their
            // names.
            let mut path: Vec<(&str, usize)> = Vec::new();
            let mut on_path = BTreeSet::new();
            if visited.insert(name.as_str()) {
                path.push((name, 0));
                on_path.insert(name.as_str());
            }
            while let Some((name, followed)) = path.last_mut() {
                let file = self.files.get(*name);
                let imports = file.map_or(&[][..], |file| &file.descriptor.dependency);
                let Some(import) = imports.get(*followed) else {
                    order.push(*name);
                    on_path.remove(*name);
                    path.pop();
                    continue;
                };
                let (name, index) = (*name, *followed);
                *followed += 1;
                if on_path.contains(import.as_str()) {
                    found.extend(self.import_cycle(&path, name, index, import));
                } else if let Some((import, _)) = self.files.get_key_value(import)
                    && visited.insert(import)
                {
                    path.push((import, 0));
                    on_path.insert(import);
                }
            }
        }
        order
    }

    fn import_cycle(
        &self,
        path: &[(&str, usize)],
        name: &str,
        index: usize,
        import: &str,
    ) -> Option<Diagnostic> {
        let circle: Vec<_> = path
            .iter()
            .map(|(name, _)| *name)
            .skip_while(|name| *name != import)
            .chain([import])
            .collect();
        let message = format!("circular import: {}", circle.join(" → "));
        let file = self.files.get(name)?;
        Some(
            Diagnostic::error(message)
                .in_file(&file.shown, import_line(&file.descriptor, index))
                .with_hint("move the declarations that both files need to a third file"),
        )
    }
}

/// Links files into a new pool that were linked before. prost-reflect 0.16 does not remove
/// the extensions of a refused file from the messages that they extend, and panics on them.
fn relink(linked: &[&SourceFile]) -> DescriptorPool {
    let mut pool = DescriptorPool::new();
    for file in linked {
        // Linking the same files succeeded before.
        drop(file.add_to(&mut pool));
    }
    pool
}

impl SourceFile {
    /// Returns true if the file extends messages, at the top level or inside a message.
    fn declares_extensions(&self) -> bool {
        let mut messages: Vec<_> = self.descriptor.message_type.iter().collect();
        let mut extensions = !self.descriptor.extension.is_empty();
        while let Some(message) = messages.pop() {
            extensions |= !message.extension.is_empty();
            messages.extend(&message.nested_type);
        }
        extensions
    }

    fn add_to(&self, pool: &mut DescriptorPool) -> Result<(), DescriptorError> {
        match &self.content {
            SourceContent::Text(_) | SourceContent::BuiltIn => {
                pool.add_file_descriptor_proto(self.descriptor.clone())
            }
            SourceContent::Encoded(bytes) => pool.decode_file_descriptor_proto(bytes.as_slice()),
        }
    }

    /// Returns the errors that one of prost-reflect's errors contains.
    fn explain_error(&self, error: DescriptorError) -> Vec<Diagnostic> {
        let errors = error.related().into_iter().flatten().count();
        match &self.content {
            // Finding the lines takes time proportional to the number of errors and the
            // length of the text.
            SourceContent::Text(text) if errors <= ERRORS_WITH_PLACES_MAX => {
                explain_errors(&error.with_source_code(text), &self.shown, text)
            }
            // Without the text, only the first error has a line.
            _ => {
                let line = error.line().map(|line| line.saturating_add(1));
                let mut found = explain_errors(&error, &self.shown, "");
                if let Some(first) = found.first_mut() {
                    first.line = line;
                }
                found
            }
        }
    }
}

/// Returns the line of an import, starting at 1.
pub(super) fn import_line(file: &FileDescriptorProto, index: usize) -> Option<usize> {
    const DEPENDENCY: i32 = 3;
    line_of(file, &[DEPENDENCY, i32::try_from(index).ok()?])
}
