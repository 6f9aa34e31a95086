//! Reads and parses .proto files and everything that they import. Reports everything that
//! is missing or malformed in any of them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Component, Path, PathBuf},
};

use prost_reflect::prost_types::FileDescriptorProto;
use protox::file::File;

use super::{
    built_in,
    diagnostic::{Diagnostic, Diagnostics},
    link::{SourceContent, SourceFile, SourceFiles, import_line},
    parse_errors::explain_errors,
    read::{ReadError, SchemaReadBudget},
};

/// The text of a .proto file, and the path of the file as shown in messages.
pub(super) struct ProtoText {
    pub(super) shown: String,
    pub(super) text: String,
}

/// A source of imported files.
pub(super) trait ImportLibrary {
    /// Returns the file with this name; `None` if there is none.
    fn find(&mut self, name: &str) -> Result<Option<ProtoText>, Diagnostic>;
}

/// Files in memory, by name.
impl ImportLibrary for BTreeMap<String, String> {
    fn find(&mut self, name: &str) -> Result<Option<ProtoText>, Diagnostic> {
        Ok(self.get(name).map(|text| ProtoText {
            shown: name.to_owned(),
            text: text.clone(),
        }))
    }
}

/// Files on disk: those of the schema, and the directories that contain their imports.
pub(super) struct DiskFiles {
    /// The schema's own files, by the names under which they can be imported.
    files: BTreeMap<String, PathBuf>,
    include: Vec<PathBuf>,
    budget: SchemaReadBudget,
}

impl DiskFiles {
    /// Assigns to each file the name under which it can be imported: its path relative to
    /// the first include directory that contains it. If `include` is empty, the directories
    /// of the files are used.
    pub(super) fn new(files: &[PathBuf], include: &[PathBuf], found: &mut Diagnostics) -> Self {
        let include: Vec<_> = if include.is_empty() {
            files
                .iter()
                .filter_map(|file| file.parent())
                // The parent of a bare file name is empty.
                .map(|directory| match directory.as_os_str().is_empty() {
                    true => PathBuf::from("."),
                    false => directory.to_owned(),
                })
                .collect()
        } else {
            include.to_vec()
        };
        for directory in include.iter().filter(|directory| !directory.is_dir()) {
            found.push(
                Diagnostic::error("the include directory does not exist, or is not a directory")
                    .in_file(directory.display().to_string(), None)
                    .with_hint("correct the path in `include`"),
            );
        }
        let mut disk = Self {
            files: BTreeMap::new(),
            include,
            budget: SchemaReadBudget::default(),
        };
        for file in files {
            match disk.import_name(file) {
                Some(name) => disk.add_file(name, file, found),
                // Reading the file gives the reason.
                None if !file.is_file() => {
                    let error = disk.budget.read_file(file).err();
                    found.extend(error.map(|it| it.into_diagnostic(file.display().to_string())));
                }
                None => found.push(
                    Diagnostic::error("the file is not in any include directory")
                        .in_file(file.display().to_string(), None)
                        .with_hint(
                            "add the directory from which it is imported, or leave `include` out",
                        ),
                ),
            }
        }
        disk
    }

    /// Returns the names of the schema's own files.
    pub(super) fn own_names(&self) -> Vec<String> {
        self.files.keys().cloned().collect()
    }

    fn import_name(&self, file: &Path) -> Option<String> {
        let file = normalized_path(file)?;
        let relative = self.include.iter().find_map(|directory| {
            let relative = file.strip_prefix(normalized_path(directory)?).ok()?;
            Some(relative.to_owned())
        })?;
        let parts: Option<Vec<_>> = relative.iter().map(|part| part.to_str()).collect();
        Some(parts?.join("/")).filter(|name| !name.is_empty())
    }

    fn add_file(&mut self, name: String, file: &Path, found: &mut Diagnostics) {
        let earlier = self.files.insert(name.clone(), file.to_owned());
        if let Some(earlier) = earlier
            && normalized_path(&earlier) != normalized_path(file)
        {
            let message = format!("{} is imported by the same name, {name}", earlier.display());
            found.push(
                Diagnostic::error(message)
                    .in_file(file.display().to_string(), None)
                    .with_hint(
                        "set `include` to a directory above both, and import them from there",
                    ),
            );
        }
    }

    fn read_text(&mut self, path: &Path) -> Result<String, ReadError> {
        let bytes = self.budget.read_file(path)?;
        let text = String::from_utf8(bytes).map_err(|_| ReadError::NotText)?;
        // Editors on Windows write a byte order mark, which protoc skips as well.
        Ok(text
            .strip_prefix('\u{feff}')
            .map(str::to_owned)
            .unwrap_or(text))
    }
}

impl ImportLibrary for DiskFiles {
    fn find(&mut self, name: &str) -> Result<Option<ProtoText>, Diagnostic> {
        let is_plain = |part| matches!(part, Component::Normal(_));
        if name.is_empty() || !Path::new(name).components().all(is_plain) {
            return Ok(None);
        }
        let own = self.files.get(name).cloned();
        let is_own = own.is_some();
        let included = self.include.iter().map(|directory| directory.join(name));
        for path in own.into_iter().chain(included.collect::<Vec<_>>()) {
            let shown = path.display().to_string();
            match self.read_text(&path) {
                Ok(text) => return Ok(Some(ProtoText { shown, text })),
                Err(error) if error.is_not_found() && !is_own => {}
                Err(error) => return Err(error.into_diagnostic(shown)),
            }
        }
        Ok(None)
    }
}

/// Returns the absolute path without `.` and `..`. Symbolic links are not resolved, because
/// the name of a file depends on the path by which it is given.
fn normalized_path(path: &Path) -> Option<PathBuf> {
    let mut normalized = PathBuf::new();
    for component in std::path::absolute(path).ok()?.components() {
        match component {
            Component::ParentDir => {
                normalized.pop();
            }
            Component::CurDir => {}
            component => normalized.push(component),
        }
    }
    Some(normalized)
}

/// Reads and parses the files with these names and everything that they import.
pub(super) fn parse_files(
    names: impl IntoIterator<Item = String>,
    library: &mut impl ImportLibrary,
    found: &mut Diagnostics,
) -> SourceFiles {
    let mut files = SourceFiles::default();
    let (mut seen, mut absent) = (BTreeSet::new(), BTreeSet::new());
    let mut wanted: VecDeque<_> = names.into_iter().map(|name| (name, None)).collect();
    while let Some((name, import)) = wanted.pop_front() {
        if seen.insert(name.clone()) {
            match read_file(&name, library) {
                Ok(Some(file)) => {
                    wanted.extend(imports_of(&name, &file, found));
                    files.insert(name, file);
                    continue;
                }
                Ok(None) => drop(absent.insert(name.clone())),
                Err(diagnostics) => found.extend(diagnostics),
            }
        }
        if absent.contains(&name) {
            found.push(not_found(&files, &name, import));
        }
    }
    files
}

/// An importing file and the index of the import.
type ImportSite = (String, usize);

/// Returns the imports of the file. Reports duplicates.
fn imports_of(
    name: &str,
    file: &SourceFile,
    found: &mut Diagnostics,
) -> Vec<(String, Option<ImportSite>)> {
    let mut imports = BTreeSet::new();
    let mut wanted = Vec::new();
    for (index, import) in file.descriptor.dependency.iter().enumerate() {
        if imports.insert(import) {
            wanted.push((import.clone(), Some((name.to_owned(), index))));
        } else {
            found.push(
                Diagnostic::error(format!("{import} is imported twice"))
                    .in_file(&file.shown, import_line(&file.descriptor, index))
                    .with_hint("remove one of the two lines"),
            );
        }
    }
    wanted
}

fn not_found(files: &SourceFiles, name: &str, import: Option<ImportSite>) -> Diagnostic {
    let importer = import.and_then(|(importer, index)| Some((files.get(&importer)?, index)));
    let error = Diagnostic::error(format!("there is no file {name} to import"));
    match importer {
        Some((file, index)) => error
            .in_file(&file.shown, import_line(&file.descriptor, index))
            .with_hint("imports are looked for in the directories of `include`, or, without it, in those of `files`"),
        None => error,
    }
}

/// Reads and parses one file; `None` if there is none.
fn read_file(
    name: &str,
    library: &mut impl ImportLibrary,
) -> Result<Option<SourceFile>, Vec<Diagnostic>> {
    let copy = library.find(name);
    if let Some(descriptor) = built_in::find_file(name) {
        // A copy that cannot be read is harmless, since it is not used.
        if let Ok(Some(copy)) = copy
            && let Some(diagnostic) = check_copy(name, &copy)
        {
            return Err(vec![diagnostic]);
        }
        return Ok(Some(SourceFile {
            shown: name.to_owned(),
            descriptor,
            content: SourceContent::BuiltIn,
        }));
    }
    let Some(ProtoText { shown, text }) = copy.map_err(|error| vec![error])? else {
        return Ok(None);
    };
    match File::from_source(name, &text) {
        Ok(file) => Ok(Some(SourceFile {
            shown,
            descriptor: file.into(),
            content: SourceContent::Text(text),
        })),
        Err(error) => Err(explain_errors(&error, &shown, &text)),
    }
}

fn check_copy(name: &str, copy: &ProtoText) -> Option<Diagnostic> {
    let descriptor: FileDescriptorProto = File::from_source(name, &copy.text).ok()?.into();
    built_in::check_copy(name, &copy.shown, &descriptor)
}
