//! The systemd units, and the config file that is packaged with them.

use std::{fs, path::Path};

use clap::Parser;
use sidewire::{
    cli::{Cli, CliCommand},
    config::{AuthKey, Config},
};
use sidewire_testing::process::{Process, is_on_path};

fn unit() -> String {
    unit_of("service")
}

fn unit_of(kind: &str) -> String {
    file(&format!("systemd/sidewire.{kind}"))
}

fn file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join(path)).unwrap()
}

/// Returns the config file of the package.
fn packaged() -> Config {
    let text = file("packaging/sidewire.toml");
    Config::parse(&text, Path::new("/etc/sidewire")).unwrap()
}

/// Returns the value of the only line that sets `name`.
fn setting<'a>(unit: &'a str, name: &str) -> &'a str {
    let mut values = unit
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| *key == name);
    let (_, value) = values.next().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(values.next(), None, "{name} is set twice");
    value
}

#[test]
fn the_unit_runs_a_valid_command_and_waits_for_its_notification() {
    let unit = unit();
    assert_eq!(setting(&unit, "Type"), "notify");
    let command = setting(&unit, "ExecStart");
    let cli = Cli::try_parse_from(command.split(' ')).unwrap();
    let CliCommand::Serve(args) = cli.command else {
        panic!("{command}");
    };
    assert_eq!(args.config, Path::new("/etc/sidewire/sidewire.toml"));
    assert!(command.starts_with("/usr/bin/sidewire "), "{command}");
}

#[test]
fn the_config_is_checked_before_the_relay_starts() {
    let unit = unit();
    let check = setting(&unit, "ExecStartPre");
    let serve = setting(&unit, "ExecStart");
    assert_eq!(check, serve.replace(" serve ", " check "));
    assert!(Cli::try_parse_from(check.split(' ')).is_ok(), "{check}");
}

#[test]
fn the_service_has_more_memory_than_the_relay_takes() {
    let max = setting(&unit(), "MemoryMax").replace('G', "GiB");
    let max: bytesize::ByteSize = max.parse().unwrap();
    let program = 128 << 20;
    let held = Config::default().limits.memory_max as u64;
    assert!(max.as_u64() > held + program, "{max}");
}

#[test]
fn the_service_has_the_user_that_the_package_makes() {
    let unit = unit();
    let user = setting(&unit, "User");
    assert_eq!(setting(&unit, "Group"), user);
    let made = unit_of("sysusers");
    assert!(made.contains(&format!("\nu {user} - ")), "{made}");
}

#[test]
fn the_packaged_config_names_its_secrets_and_differs_from_the_defaults_in_little_else() {
    let packaged = packaged();
    let [AuthKey::Secret { file, .. }] = packaged.auth.keys.as_slice() else {
        panic!("{packaged:?}");
    };
    assert_eq!(file, Path::new("/etc/sidewire/keys/jwt.secret"));
    let [key] = packaged.ingest.keys.as_slice() else {
        panic!("{packaged:?}");
    };
    assert_eq!(key.key_file, Path::new("/etc/sidewire/keys/ingest.key"));
    assert!(packaged.client.listen.ip().is_loopback());
    let default = Config::default();
    assert_eq!(packaged.client.listen.port(), default.client.listen.port());
    assert_eq!(packaged.ingest.listen, default.ingest.listen);
    assert_eq!(packaged.ops.listen, default.ops.listen);
}

#[test]
fn systemd_waits_longer_for_the_end_than_a_drain_takes() {
    let stop = humantime::parse_duration(setting(&unit(), "TimeoutStopSec")).unwrap();
    let drain = Config::default().client.drain_timeout;
    assert!(stop > drain, "{stop:?} for {drain:?}");
}

#[test]
fn a_crash_writes_no_keys_to_a_core_dump() {
    assert_eq!(setting(&unit(), "LimitCORE"), "0");
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    if !is_on_path("systemd-analyze") {
        return;
    }
    // systemd checks that the program exists.
    let unit = unit().replace("/usr/bin/sidewire", env!("CARGO_BIN_EXE_sidewire"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sidewire.service");
    fs::write(&path, unit).unwrap();
    let sockets = ["sidewire.socket", "sidewire-ingest.socket"].map(|name| {
        let path = directory.path().join(name);
        fs::write(&path, file(&format!("systemd/{name}"))).unwrap();
        path
    });
    let mut verify = std::process::Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(path).args(sockets);
    let verified = Process::run(verify);
    assert!(verified.status.success(), "{verified:?}");
    assert!(!verified.stderr.contains("sidewire"), "{verified:?}");
}

#[test]
fn the_socket_units_listen_where_the_packaged_config_does() {
    let packaged = packaged();
    for (path, listener, address) in [
        (
            "systemd/sidewire.socket",
            "client",
            packaged.client.listen.to_string(),
        ),
        (
            "systemd/sidewire-ingest.socket",
            "ingest",
            packaged.ingest.listen.to_string(),
        ),
    ] {
        let socket = file(path);
        assert_eq!(setting(&socket, "ListenStream"), address, "{path}");
        assert_eq!(setting(&socket, "FileDescriptorName"), listener, "{path}");
        assert_eq!(setting(&socket, "WantedBy"), "sockets.target", "{path}");
    }
    let ingest = file("systemd/sidewire-ingest.socket");
    assert_eq!(setting(&ingest, "Service"), "sidewire.service");
}

#[test]
fn a_reload_sends_the_signal_that_the_relay_handles() {
    assert_eq!(setting(&unit(), "ExecReload"), "/bin/kill -HUP $MAINPID");
}

#[test]
fn the_watchdog_timeout_is_longer_than_the_check_of_the_shards() {
    let watchdog = humantime::parse_duration(setting(&unit(), "WatchdogSec")).unwrap();
    assert!(
        watchdog / 6 > 2 * sidewire::hub::SHARD_TIMEOUT,
        "{watchdog:?}"
    );
}

#[test]
fn systemd_rates_the_unit_as_hardened_as_documented() {
    if !is_on_path("systemd-analyze") {
        return;
    }
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/sidewire.service");
    let mut security = std::process::Command::new("systemd-analyze");
    // In tenths: at most 1.1.
    security.args(["security", "--offline=true", "--no-pager", "--threshold=11"]);
    security.arg(unit);
    let judged = Process::run(security);
    assert!(judged.status.success(), "{judged:?}");
    assert!(
        judged.stdout.contains("Overall exposure level"),
        "{judged:?}"
    );
}
