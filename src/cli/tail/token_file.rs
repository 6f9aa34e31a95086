//! The file with the token of a client of `sidewire tail`, which is read again for a newer token.

use std::{
    future::ready,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use sidewire_client::{Credential, FetchingToken, NoNewerToken, TokenSource};

use crate::cli::{TOKEN_VARIABLE, credential_of};

/// A file that holds a token, and a newer one some time later.
pub(super) struct TokenFile {
    path: PathBuf,
    /// The token that was last read.
    last: Mutex<Credential>,
}

impl TokenFile {
    /// Creates a source for the file from which the token was read; `None` if the path is not that
    /// of a regular file, such as a pipe, which cannot be read again.
    pub(super) fn open(path: &Path, token: &Credential) -> Option<Self> {
        path.is_file().then(|| Self {
            path: path.to_owned(),
            last: Mutex::new(token.clone()),
        })
    }
}

impl TokenSource for TokenFile {
    fn fetch_token(&self) -> FetchingToken {
        let read = credential_of(Some(&self.path), TOKEN_VARIABLE);
        let fetched = match read {
            Ok(Some(token)) => {
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                if *last == token {
                    Err(NoNewerToken.into())
                } else {
                    last.clone_from(&token);
                    Ok(token)
                }
            }
            Ok(None) => Err(NoNewerToken.into()),
            Err(failure) => Err(failure.to_string().into()),
        };
        Box::pin(ready(fetched))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_token_is_returned_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "old").unwrap();
        let file = TokenFile::open(&path, &Credential::new("old")).unwrap();
        let unchanged = file.fetch_token().await.unwrap_err();
        assert!(unchanged.is::<NoNewerToken>(), "{unchanged}");
        fs::write(&path, "new\n").unwrap();
        assert_eq!(file.fetch_token().await.unwrap(), Credential::new("new"));
        assert!(file.fetch_token().await.unwrap_err().is::<NoNewerToken>());
    }

    #[tokio::test]
    async fn a_missing_or_empty_file_is_a_failure_that_may_pass() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "old").unwrap();
        let file = TokenFile::open(&path, &Credential::new("old")).unwrap();
        fs::write(&path, "").unwrap();
        let error = file.fetch_token().await.unwrap_err();
        assert!(error.to_string().ends_with("is empty"), "{error}");
        fs::remove_file(&path).unwrap();
        let error = file.fetch_token().await.unwrap_err();
        assert!(error.to_string().starts_with("cannot read"), "{error}");
    }

    #[test]
    fn what_is_no_regular_file_is_not_read_again() {
        assert!(TokenFile::open(Path::new("/dev/null"), &Credential::new("old")).is_none());
    }
}
