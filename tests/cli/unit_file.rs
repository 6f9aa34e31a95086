//! The systemd unit.

use std::{fs, path::Path};

use clap::Parser;
use sidewire::{
    cli::{Cli, CliCommand},
    config::Config,
};
use sidewire_testing::process::{Process, is_on_path};

fn unit() -> String {
    unit_of("service")
}

fn unit_of(kind: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join("systemd/sidewire").with_extension(kind)).unwrap()
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
    let socket = directory.path().join("sidewire.socket");
    fs::write(&socket, unit_of("socket")).unwrap();
    let mut verify = std::process::Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).args([path, socket]);
    let verified = Process::run(verify);
    assert!(verified.status.success(), "{verified:?}");
    assert!(!verified.stderr.contains("sidewire"), "{verified:?}");
}

#[test]
fn the_socket_unit_is_for_clients_on_the_default_port() {
    let socket = unit_of("socket");
    let port = Config::default().client.listen.port().to_string();
    assert_eq!(setting(&socket, "ListenStream"), port);
    assert_eq!(setting(&socket, "FileDescriptorName"), "client");
    assert_eq!(setting(&socket, "WantedBy"), "sockets.target");
}

#[test]
fn a_reload_sends_the_signal_that_the_relay_handles() {
    assert_eq!(setting(&unit(), "ExecReload"), "/bin/kill -HUP $MAINPID");
}

#[test]
fn the_watchdog_timeout_is_longer_than_the_check_of_the_shards() {
    let watchdog = humantime::parse_duration(setting(&unit(), "WatchdogSec")).unwrap();
    assert!(
        watchdog / 6 > 2 * sidewire::ops::SHARD_TIMEOUT,
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
