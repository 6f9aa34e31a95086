//! `sidewire keys`: the secrets that a config file names.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

use rustix::process::{getegid, geteuid};
use sidewire_testing::{
    process::{Ended, Process, sidewire},
    relay::Files,
};

fn keys(files: &Files, more: &[&str]) -> Ended {
    let config = files.config();
    Process::run(sidewire(&[&["keys", "--config", &config], more].concat()))
}

/// Files of which the secrets are missing.
fn without_secrets() -> Files {
    let files = Files::new();
    for name in ["jwt.secret", "ingest.key"] {
        fs::remove_file(files.path(name)).unwrap();
    }
    files
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn missing_secrets_are_made_random_private_and_sufficient_to_start() {
    let files = without_secrets();
    let check = ["check", "--config", &files.config()];
    assert!(!Process::run(sidewire(&check)).status.success());

    let made = keys(&files, &[]);
    assert!(made.status.success(), "{made:?}");
    let mut secrets = Vec::new();
    for name in ["jwt.secret", "ingest.key"] {
        let path = files.path(name);
        assert!(
            made.stdout
                .contains(&format!("{}: created\n", path.display())),
            "{made:?}"
        );
        assert_eq!(mode(&path), 0o600);
        let secret = fs::read_to_string(&path).unwrap();
        assert_eq!(secret.len(), 64, "{secret:?}");
        assert!(secret.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(!made.stdout.contains(&secret) && !made.stderr.contains(&secret));
        secrets.push(secret);
    }
    assert_ne!(secrets[0], secrets[1]);

    let checked = Process::run(sidewire(&check));
    assert!(checked.status.success(), "{checked:?}");
    assert!(!checked.stdout.contains("warning"), "{checked:?}");
}

#[test]
fn a_secret_that_exists_is_not_changed() {
    let files = without_secrets();
    files.write("jwt.secret", "");
    let made = keys(&files, &[]);
    assert!(made.status.success(), "{made:?}");
    assert_eq!(fs::read(files.path("jwt.secret")).unwrap(), b"");
    assert!(
        made.stdout
            .contains("jwt.secret: exists and is unchanged\n"),
        "{made:?}"
    );
    let key = fs::read(files.path("ingest.key")).unwrap();
    assert_eq!(key.len(), 64);

    let again = keys(&files, &[]);
    assert!(again.status.success(), "{again:?}");
    assert!(!again.stdout.contains("created"), "{again:?}");
    assert_eq!(fs::read(files.path("ingest.key")).unwrap(), key);
}

#[test]
fn a_group_may_read_the_new_secrets() {
    let files = without_secrets();
    let group = getegid().as_raw();
    let made = keys(&files, &["--group", &group.to_string()]);
    assert!(made.status.success(), "{made:?}");
    for name in ["jwt.secret", "ingest.key"] {
        assert_eq!(mode(&files.path(name)), 0o640);
        assert_eq!(fs::metadata(files.path(name)).unwrap().gid(), group);
    }
}

#[test]
fn a_group_that_does_not_exist_or_cannot_be_given_leaves_no_file() {
    let files = without_secrets();
    let made = keys(&files, &["--group", "no such group"]);
    assert_eq!(made.status.code(), Some(1), "{made:?}");
    assert!(
        made.stderr
            .contains("--group: \"no such group\" is not a group of this system"),
        "{made:?}"
    );
    assert!(!files.path("jwt.secret").exists());
    if !geteuid().is_root() {
        let made = keys(&files, &["--group", "0"]);
        assert_eq!(made.status.code(), Some(1), "{made:?}");
        assert!(!files.path("jwt.secret").exists());
    }
}

#[test]
fn a_secret_that_cannot_be_written_is_a_failure_that_names_it() {
    let files = without_secrets();
    symlink("absent/target", files.path("jwt.secret")).unwrap();
    let made = keys(&files, &[]);
    assert_eq!(made.status.code(), Some(1), "{made:?}");
    assert!(made.stderr.contains("jwt.secret: No such file"), "{made:?}");
}

#[test]
fn a_config_file_with_an_error_makes_no_secrets() {
    let files = without_secrets();
    files.write(
        "sidewire.toml",
        "[[ingest.keys]]\nname = \"app\"\nkey_file = \"ingest.key\"\n[clint]\n",
    );
    let made = keys(&files, &[]);
    assert_eq!(made.status.code(), Some(1), "{made:?}");
    assert!(made.stderr.contains("did you mean `client`"), "{made:?}");
    assert!(!files.path("ingest.key").exists());
}
