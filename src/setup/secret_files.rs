//! Warnings about the files of secrets that a configuration names: a secret with a newline at
//! its end, and files that every user of the machine may read. Decides nothing about the relay.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    auth::{VerificationKey, read_file},
    config::{AuthKey, Config, ConfigWarning},
};

/// Permission of users other than the owner and the group to read a file.
const OTHERS_READ: u32 = 0o004;
/// Permission of these users to use what is in a directory.
const OTHERS_SEARCH: u32 = 0o001;

/// Returns the warnings about the secrets of a configuration that was loaded from `config_file`,
/// in the order of its sections.
pub(crate) fn secret_file_warnings(config: &Config, config_file: &Path) -> Vec<ConfigWarning> {
    let warning = |key: &str, path: &Path, message, hint| {
        let message = format!("{} {message}", path.display());
        ConfigWarning::at_key(config_file, key, message, hint)
    };
    let mut warnings = Vec::new();
    for SecretFile { key, path, is_raw } in secret_files(config) {
        if is_raw && let Some(message) = newline_message(path) {
            warnings.push(warning(
                &key,
                path,
                message,
                "a program that signs with every byte of the file makes tokens that the relay refuses; write the file without the newline, as `printf %s` does, and sign with the same bytes",
            ));
        }
        if is_readable_by_others(path) {
            warnings.push(warning(
                &key,
                path,
                "can be read by every user of this machine",
                "`chmod o= FILE` leaves it to its owner and its group; only the relay needs to read it",
            ));
        }
    }
    warnings
}

/// A file with a secret, and the key that names it.
struct SecretFile<'a> {
    key: String,
    path: &'a PathBuf,
    /// Every byte counts, as in the secret of HS256.
    is_raw: bool,
}

fn secret_files(config: &Config) -> Vec<SecretFile<'_>> {
    let text_file = |key: String, path| SecretFile {
        key,
        path,
        is_raw: false,
    };
    let tls = config.client.tls.as_ref();
    let tls = tls.map(|tls| text_file("client.tls.key_file".to_owned(), &tls.key_file));
    let auth = config.auth.keys.iter().enumerate();
    let auth = auth.filter_map(|(index, key)| match key {
        AuthKey::Secret { file, .. } => Some(SecretFile {
            key: format!("auth.keys[{index}].secret_file"),
            path: file,
            is_raw: true,
        }),
        AuthKey::Jwks { file } if has_shared_secret(file) => {
            Some(text_file(format!("auth.keys[{index}].jwks_file"), file))
        }
        AuthKey::Jwks { .. } | AuthKey::PublicKey { .. } | AuthKey::JwksUrl { .. } => None,
    });
    let subscribe = config.auth.subscribe.key_file.iter();
    let subscribe = subscribe.map(|path| text_file("auth.subscribe.key_file".to_owned(), path));
    let ingest = config.ingest.keys.iter().enumerate();
    let ingest = ingest
        .map(|(index, key)| text_file(format!("ingest.keys[{index}].key_file"), &key.key_file));
    let inspector = config.ops.inspector_key_file.iter();
    let inspector = inspector.map(|path| text_file("ops.inspector_key_file".to_owned(), path));
    tls.into_iter()
        .chain(auth)
        .chain(subscribe)
        .chain(ingest)
        .chain(inspector)
        .collect()
}

/// Says that the file of a raw secret ends in a newline, which the relay removes.
fn newline_message(path: &Path) -> Option<&'static str> {
    let bytes = read_file(path).ok()?;
    match bytes.as_slice() {
        [.., b'\r', b'\n'] => {
            Some(r"ends in a newline (\r\n), and the secret is what comes before these two bytes")
        }
        [.., b'\n'] => Some(r"ends in a newline (\n), and the secret is what comes before it"),
        _ => None,
    }
}

/// Says whether a key set holds a key of the type `oct`.
fn has_shared_secret(file: &Path) -> bool {
    let keys = read_file(file)
        .ok()
        .and_then(|json| VerificationKey::from_jwks(&json).ok());
    keys.is_some_and(|keys| keys.iter().any(|key| key.algorithm().is_symmetric()))
}

/// Says whether users other than the owner and the group may read the file: its mode and those
/// of all directories above it let them.
fn is_readable_by_others(path: &Path) -> bool {
    let Ok(path) = fs::canonicalize(path) else {
        return false;
    };
    let allows = |path: &Path, bit| fs::metadata(path).is_ok_and(|found| found.mode() & bit != 0);
    allows(&path, OTHERS_READ)
        && path
            .ancestors()
            .skip(1)
            .all(|directory| allows(directory, OTHERS_SEARCH))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    /// A directory that every user may search.
    fn open_directory() -> TempDir {
        let directory = TempDir::new_in("/tmp").unwrap();
        set_mode(directory.path(), 0o755);
        directory
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn write(directory: &TempDir, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        set_mode(&path, mode);
        path
    }

    /// Returns a configuration that names one file of each kind.
    fn config(directory: &TempDir) -> Config {
        let text = "[client.tls]\ncert_file = \"tls.crt\"\nkey_file = \"tls.key\"\n\
             [[auth.keys]]\nsecret_file = \"jwt.secret\"\nalgorithm = \"HS256\"\n\
             [[auth.keys]]\npublic_key_file = \"jwt.pem\"\nalgorithm = \"ES256\"\n\
             [[auth.keys]]\njwks_file = \"jwks.json\"\n\
             [auth.subscribe]\nurl = \"http://127.0.0.1:1/\"\nkey_file = \"subscribe.key\"\n\
             [[ingest.keys]]\nname = \"app\"\nkey_file = \"ingest.key\"\n\
             [ops]\ninspector = true\ninspector_key_file = \"inspector.key\"\n";
        Config::load(&write(directory, "sidewire.toml", text, 0o644)).unwrap()
    }

    /// Returns the keys that have a warning.
    fn warned(config: &Config) -> Vec<String> {
        let warnings = secret_file_warnings(config, Path::new("sidewire.toml"));
        let keys = warnings.iter().map(|warning| warning.key().to_owned());
        keys.collect()
    }

    #[test]
    fn each_secret_that_others_may_read_has_a_warning_and_no_public_file_has() {
        let directory = open_directory();
        let config = config(&directory);
        let jwks = r#"{"keys":[{"kty":"oct","alg":"HS256","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}]}"#;
        let with_mode = |mode| {
            for name in [
                "tls.crt",
                "tls.key",
                "jwt.secret",
                "jwt.pem",
                "subscribe.key",
                "ingest.key",
                "inspector.key",
            ] {
                write(&directory, name, "0123456789abcdef", mode);
            }
            write(&directory, "jwks.json", jwks, mode);
            warned(&config)
        };
        let secrets = [
            "client.tls.key_file",
            "auth.keys[0].secret_file",
            "auth.keys[2].jwks_file",
            "auth.subscribe.key_file",
            "ingest.keys[0].key_file",
            "ops.inspector_key_file",
        ];
        assert_eq!(with_mode(0o644), secrets);
        assert_eq!(with_mode(0o604), secrets);
        assert_eq!(with_mode(0o640), [""; 0]);
        assert_eq!(with_mode(0o600), [""; 0]);
        // Others may only write or execute.
        assert_eq!(with_mode(0o603), [""; 0]);
        with_mode(0o644);
        write(&directory, "jwks.json", "{\"keys\":[]}", 0o644);
        assert_eq!(warned(&config).len(), 5);
    }

    #[test]
    fn a_file_in_a_directory_that_is_closed_to_others_has_no_warning() {
        let directory = open_directory();
        let path = write(&directory, "key", "key", 0o644);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(is_readable_by_others(&path));
        assert!(is_readable_by_others(&link));
        set_mode(directory.path(), 0o750);
        assert!(!is_readable_by_others(&path));
        assert!(!is_readable_by_others(&link));
        assert!(!is_readable_by_others(&directory.path().join("absent")));
    }

    #[test]
    fn a_secret_that_ends_in_a_newline_has_a_warning_that_names_what_is_removed() {
        let directory = open_directory();
        let config = config(&directory);
        for (content, says) in [
            (&b"secret"[..], None),
            (b"secret\r", None),
            (b"secret ", None),
            (b"", None),
            (b"secret\n", Some(r"jwt.secret ends in a newline (\n), ")),
            (b"secret\n\n", Some(r"jwt.secret ends in a newline (\n), ")),
            (
                b"secret\r\n",
                Some(r"jwt.secret ends in a newline (\r\n), "),
            ),
        ] {
            write(&directory, "jwt.secret", content, 0o600);
            let file = directory.path().join("sidewire.toml");
            let warnings = secret_file_warnings(&config, &file);
            let text = warnings.first().map(ToString::to_string);
            assert_eq!(text.is_some(), says.is_some(), "{content:?}");
            assert!(warnings.len() < 2, "{warnings:?}");
            if let (Some(text), Some(says)) = (text, says) {
                let begin = format!("{}:5: warning: auth.keys[0].secret_file: ", file.display());
                assert!(text.starts_with(&begin), "{text}");
                assert!(text.contains(says), "{text}");
            }
        }
    }

    #[test]
    fn a_newline_at_the_end_of_an_ingest_key_has_no_warning() {
        let directory = open_directory();
        let config = config(&directory);
        write(&directory, "ingest.key", "0123456789abcdef\n", 0o600);
        write(&directory, "tls.key", "PEM\n", 0o600);
        assert_eq!(warned(&config), [""; 0]);
    }
}
