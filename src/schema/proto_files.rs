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
    link::{Content, Files, SourceFile, import_line},
    parse_errors::explain,
    read::{Budget, ReadError},
};

/// The text of a .proto file, and the path of the file as shown in messages.
pub(super) struct Text {
    pub(super) shown: String,
    pub(super) text: String,
}

/// A source of imported files.
pub(super) trait Library {
    /// Returns the file with this name; `None` if there is none.
    fn find(&mut self, name: &str) -> Result<Option<Text>, Diagnostic>;
}

/// Files in memory, by name.
impl Library for BTreeMap<String, String> {
    fn find(&mut self, name: &str) -> Result<Option<Text>, Diagnostic> {
        Ok(self.get(name).map(|text| Text {
            shown: name.to_owned(),
            text: text.clone(),
        }))
    }
}

/// Files on disk: those of the schema, and the directories that contain their imports.
pub(super) struct Disk {
    /// The schema's own files, by the names under which they can be imported.
    files: BTreeMap<String, PathBuf>,
    include: Vec<PathBuf>,
    budget: Budget,
}

impl Disk {
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
            budget: Budget::default(),
        };
        for file in files {
            match disk.name(file) {
                Some(name) => disk.add(name, file, found),
                // Reading the file gives the reason.
                None if !file.is_file() => {
                    let error = disk.budget.read(file).err();
                    found.extend(error.map(|it| it.about(file.display().to_string())));
                }
                None => found.push(
                    Diagnostic::error("the file lies in none of the include directories")
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
    pub(super) fn names(&self) -> Vec<String> {
        self.files.keys().cloned().collect()
    }

    fn name(&self, file: &Path) -> Option<String> {
        let file = normalized(file)?;
        let relative = self.include.iter().find_map(|directory| {
            let relative = file.strip_prefix(normalized(directory)?).ok()?;
            Some(relative.to_owned())
        })?;
        let parts: Option<Vec<_>> = relative.iter().map(|part| part.to_str()).collect();
        Some(parts?.join("/")).filter(|name| !name.is_empty())
    }

    fn add(&mut self, name: String, file: &Path, found: &mut Diagnostics) {
        let earlier = self.files.insert(name.clone(), file.to_owned());
        if let Some(earlier) = earlier
            && normalized(&earlier) != normalized(file)
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

    fn read(&mut self, path: &Path) -> Result<String, ReadError> {
        let bytes = self.budget.read(path)?;
        let text = String::from_utf8(bytes).map_err(|_| ReadError::NotText)?;
        // Editors on Windows write a byte order mark, which protoc skips as well.
        Ok(text
            .strip_prefix('\u{feff}')
            .map(str::to_owned)
            .unwrap_or(text))
    }
}

impl Library for Disk {
    fn find(&mut self, name: &str) -> Result<Option<Text>, Diagnostic> {
        let is_plain = |part| matches!(part, Component::Normal(_));
        if name.is_empty() || !Path::new(name).components().all(is_plain) {
            return Ok(None);
        }
        let own = self.files.get(name).cloned();
        let is_own = own.is_some();
        let included = self.include.iter().map(|directory| directory.join(name));
        for path in own.into_iter().chain(included.collect::<Vec<_>>()) {
            let shown = path.display().to_string();
            match self.read(&path) {
                Ok(text) => return Ok(Some(Text { shown, text })),
                Err(error) if error.is_not_found() && !is_own => {}
                Err(error) => return Err(error.about(shown)),
            }
        }
        Ok(None)
    }
}

/// Returns the absolute path without `.` and `..`. Symbolic links are not resolved, because
/// the name of a file depends on the path by which it is given.
fn normalized(path: &Path) -> Option<PathBuf> {
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
pub(super) fn parse(
    names: impl IntoIterator<Item = String>,
    library: &mut impl Library,
    found: &mut Diagnostics,
) -> Files {
    let mut files = Files::default();
    let (mut seen, mut absent) = (BTreeSet::new(), BTreeSet::new());
    let mut wanted: VecDeque<_> = names.into_iter().map(|name| (name, None)).collect();
    while let Some((name, import)) = wanted.pop_front() {
        if seen.insert(name.clone()) {
            match read(&name, library) {
                Ok(Some(file)) => {
                    wanted.extend(imports(&name, &file, found));
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
type Import = (String, usize);

/// Returns the imports of the file. Reports duplicates.
fn imports(
    name: &str,
    file: &SourceFile,
    found: &mut Diagnostics,
) -> Vec<(String, Option<Import>)> {
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

fn not_found(files: &Files, name: &str, import: Option<Import>) -> Diagnostic {
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
fn read(name: &str, library: &mut impl Library) -> Result<Option<SourceFile>, Vec<Diagnostic>> {
    let copy = library.find(name);
    if let Some(descriptor) = built_in::find(name) {
        // A copy that cannot be read is harmless, since it is not used.
        if let Ok(Some(copy)) = copy
            && let Some(diagnostic) = check_copy(name, &copy)
        {
            return Err(vec![diagnostic]);
        }
        return Ok(Some(SourceFile {
            shown: name.to_owned(),
            descriptor,
            content: Content::BuiltIn,
        }));
    }
    let Some(Text { shown, text }) = copy.map_err(|error| vec![error])? else {
        return Ok(None);
    };
    match File::from_source(name, &text) {
        Ok(file) => Ok(Some(SourceFile {
            shown,
            descriptor: file.into(),
            content: Content::Text(text),
        })),
        Err(error) => Err(explain(&error, &shown, &text)),
    }
}

fn check_copy(name: &str, copy: &Text) -> Option<Diagnostic> {
    let descriptor: FileDescriptorProto = File::from_source(name, &copy.text).ok()?.into();
    built_in::check_copy(name, &copy.shown, &descriptor)
}
