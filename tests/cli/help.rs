//! Help texts and the version.

use sidewire_testing::process::{Process, sidewire};

#[test]
fn the_help_of_every_command_has_its_usage_and_an_example() {
    let commands = [
        "serve", "check", "keys", "dev", "token", "publish", "tail", "route", "schema", "ctl",
        "top", "bench",
    ];
    let help = Process::run(sidewire(&["--help"]));
    assert!(help.status.success(), "{help:?}");
    for command in commands {
        assert!(help.stdout.contains(&format!("\n  {command} ")), "{help:?}");
    }
    for words in commands.map(|it| vec![it]).iter().chain([&Vec::new()]) {
        let help = Process::run(sidewire(&[words.as_slice(), &["--help"]].concat()));
        assert!(help.status.success(), "{help:?}");
        assert_eq!(help.stderr, "");
        let usage = ["Usage: sidewire"].iter().chain(words).copied();
        let usage: Vec<_> = usage.collect();
        assert!(help.stdout.contains(&usage.join(" ")), "{}", help.stdout);
        assert!(help.stdout.contains("\nExample"), "{}", help.stdout);
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    let version = Process::run(sidewire(&["--version"]));
    assert!(version.status.success());
    let expected = concat!("sidewire ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(version.stdout, expected);
}

#[test]
fn wrong_usage_has_its_own_exit_status_and_shows_the_correct_usage() {
    for (args, says) in [
        (&[][..], "Usage: sidewire"),
        (&["serv"], "serve"),
        (&["serve"], "--config <FILE>"),
        (&["dev", "--client-prot", "1"], "--client-port"),
        (&["tail", "no-topic"], "no-topic"),
    ] {
        let ended = Process::run(sidewire(args));
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(ended.stderr.contains(says), "{ended:?}");
        assert_eq!(ended.stdout, "");
    }
}
