//! Resolves the paths in a configuration file. Opens none of them.

use std::{
    ffi::OsString,
    path::{Component, Path, PathBuf},
};

use super::error::ConfigProblems;

/// The prefix of a path to one of the credentials that systemd passes to a service
/// (`LoadCredential=`, systemd.exec(5)).
const CREDENTIALS: &str = "$CREDENTIALS_DIRECTORY";

/// The directories that paths are resolved against.
pub(super) struct PathResolver {
    base_dir: PathBuf,
    credentials_dir: Option<PathBuf>,
}

impl PathResolver {
    /// Creates a resolver. Relative paths are resolved against `base_dir`, which must be
    /// absolute, and paths with the prefix `$CREDENTIALS_DIRECTORY` against
    /// `credentials_dir`, the value of that variable.
    pub(super) fn new(base_dir: PathBuf, credentials_dir: Option<OsString>) -> Self {
        Self {
            base_dir,
            credentials_dir: credentials_dir.map(PathBuf::from),
        }
    }

    /// Makes the path absolute; reports problems under `key`.
    pub(super) fn resolve(&self, key: String, path: &mut PathBuf, problems: &mut ConfigProblems) {
        if path.as_os_str().is_empty() {
            problems.add_problem(key, "is empty", "give the path of a file");
            return;
        }
        let Ok(name) = path.strip_prefix(CREDENTIALS) else {
            match unknown_variable(path) {
                Some(variable) => problems.add_problem(
                    key,
                    format!("begins with the variable {variable}"),
                    format!("the only variable that is expanded is {CREDENTIALS}"),
                ),
                None => *path = self.base_dir.join(&*path),
            }
            return;
        };
        match &self.credentials_dir {
            Some(directory) => *path = self.base_dir.join(directory).join(name),
            None => problems.add_problem(
                key,
                format!("begins with {CREDENTIALS}, but that variable is not set"),
                "systemd sets it for a service that has LoadCredential= or ImportCredential=",
            ),
        }
    }
}

fn unknown_variable(path: &Path) -> Option<String> {
    match path.components().next()? {
        Component::Normal(first) => first.to_str().filter(|first| first.starts_with('$')),
        _ => None,
    }
    .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str, credentials_dir: Option<&str>) -> Result<PathBuf, String> {
        let paths = PathResolver::new("/etc/sidewire".into(), credentials_dir.map(OsString::from));
        let mut problems = ConfigProblems::default();
        let mut path = PathBuf::from(text);
        paths.resolve(
            "ingest.keys[0].key_file".to_owned(),
            &mut path,
            &mut problems,
        );
        if problems.is_empty() {
            Ok(path)
        } else {
            Err(problems.into_error().to_string())
        }
    }

    #[test]
    fn a_relative_path_is_relative_to_the_directory_of_the_file() {
        assert_eq!(resolve("a.key", None), Ok("/etc/sidewire/a.key".into()));
        assert_eq!(
            resolve("../a.key", None),
            Ok("/etc/sidewire/../a.key".into())
        );
        assert_eq!(resolve("/run/a.key", None), Ok("/run/a.key".into()));
    }

    #[test]
    fn a_credential_is_found_in_the_directory_given_by_systemd() {
        assert_eq!(
            resolve("$CREDENTIALS_DIRECTORY/a.key", Some("/run/credentials/s")),
            Ok("/run/credentials/s/a.key".into())
        );
    }

    #[test]
    fn a_credential_outside_of_systemd_is_refused() {
        let refusal = resolve("$CREDENTIALS_DIRECTORY/a.key", None).unwrap_err();
        assert!(
            refusal.starts_with("ingest.keys[0].key_file: "),
            "{refusal}"
        );
        assert!(refusal.contains("that variable is not set"), "{refusal}");
    }

    #[test]
    fn an_empty_path_and_other_variables_are_refused() {
        for (text, reason) in [
            ("", "is empty"),
            ("$HOME/a.key", "$HOME"),
            ("$CREDENTIALS_DIRECTORY.d/a.key", "$CREDENTIALS_DIRECTORY.d"),
        ] {
            let refusal = resolve(text, Some("/run/credentials/s")).unwrap_err();
            assert!(refusal.contains(reason), "{text}: {refusal}");
        }
    }
}
