//! Warns of Unix sockets that cannot be opened because their directory is missing. Only a warning:
//! systemd makes the directory when it starts the service.

use std::path::Path;

use crate::config::{Config, ConfigWarning, ListenAddress};

/// Returns the warnings about the Unix sockets of a configuration that was loaded from
/// `config_file`.
pub(crate) fn socket_directory_warnings(config: &Config, config_file: &Path) -> Vec<ConfigWarning> {
    let listeners = [
        ("ingest.listen", &config.ingest.listen),
        ("ops.listen", &config.ops.listen),
    ];
    let warnings = listeners.into_iter().filter_map(|(key, listen)| {
        let ListenAddress::Unix(path) = listen else {
            return None;
        };
        let directory = path.parent().filter(|directory| !directory.is_dir())?;
        let message = format!("there is no directory {}", directory.display());
        let hint = "make it before the relay starts; under systemd, `RuntimeDirectory=` does";
        Some(ConfigWarning::at_key(config_file, key, message, hint))
    });
    warnings.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_in_a_missing_directory_has_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let socket = |name: &str| ListenAddress::Unix(directory.path().join(name));
        let mut config = Config::default();
        config.ingest.listen = socket("absent/ingest.sock");
        config.ops.listen = socket("ops.sock");
        let warnings = socket_directory_warnings(&config, Path::new("sidewire.toml"));
        let keys: Vec<_> = warnings.iter().map(ConfigWarning::key).collect();
        assert_eq!(keys, ["ingest.listen"]);
    }
}
