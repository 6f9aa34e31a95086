//! A configuration file.

use std::path::Path;

use sidewire::config::{Config, ConfigError};

use crate::seeds::{Seeds, read};

/// Parses one.
pub fn run(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    match Config::parse(text, Path::new("/etc/sidewire")) {
        Ok(config) => {
            config.check().expect("what is read has passed the check");
            assert!(!format!("{config:?}").is_empty());
        }
        Err(error) => check_error(&error, text),
    }
}

/// Checks that an error has a message, and a line that exists.
fn check_error(error: &ConfigError, text: &str) {
    let ConfigError::Refused { problems, .. } = error else {
        panic!("no file is read, and yet: {error}");
    };
    assert!(!problems.is_empty());
    let lines = 1 + text.bytes().filter(|byte| *byte == b'\n').count();
    for problem in problems {
        assert!(!problem.message.is_empty(), "{problem:?}");
        let has_line = problem.line.is_none_or(|line| (1..=lines).contains(&line));
        assert!(has_line, "{problem:?} of {lines} lines");
    }
    assert!(!error.to_string().is_empty());
}

/// Returns the example config, its sections one by one, and files with one fault each.
#[must_use]
pub fn seeds() -> Seeds {
    let example = read("config.example.toml");
    let mut seeds = Seeds::new();
    // In the example, keys follow a `#` and explanations follow `# `.
    let said: Vec<_> = example
        .lines()
        .filter(|line| !line.starts_with("# ") && !line.trim().is_empty())
        .map(|line| line.strip_prefix('#').unwrap_or(line))
        .collect();
    for section in said.join("\n").split("\n[") {
        let name: String = section
            .chars()
            .take_while(|it| it.is_alphanumeric())
            .collect();
        let number = seeds.len();
        let section = format!("[{}\n", section.trim_start_matches('['));
        seeds.insert(format!("section-{number:02}-{name}"), section.into_bytes());
    }
    for (name, text) in ODD {
        seeds.insert((*name).to_owned(), text.as_bytes().to_vec());
    }
    seeds.insert("example".to_owned(), example.into_bytes());
    seeds
}

const ODD: &[(&str, &str)] = &[
    ("empty", ""),
    (
        "whole",
        "[client]\nlisten = \"0.0.0.0:3000\"\norigins = [\"https://app.example\"]\n\
         [auth]\nissuer = \"i\"\naudience = \"a\"\nleeway = \"5s\"\n\
         [[auth.keys]]\nsecret_file = \"secret\"\nalgorithm = \"HS256\"\nkid = \"k\"\n\
         [[auth.keys]]\njwks_file = \"/keys.json\"\n\
         [[ingest.keys]]\nname = \"b\"\nkey_file = \"k\"\ntenants = [\"acme\"]\n\
         [limits]\noutbox_bytes = \"1 MiB\"\n[log]\nformat = \"json\"\n",
    ),
    (
        "desktop",
        "[auth]\nmode = \"none\"\n[client]\nlisten = \"127.0.0.1:0\"\n",
    ),
    (
        "open-door",
        "[auth]\nmode = \"none\"\n[client]\nlisten = \"0.0.0.0:3000\"\n",
    ),
    (
        "same-port",
        "[ops]\nlisten = \"[::]:3000\"\n[client]\nlisten = \"127.0.0.1:3000\"\n",
    ),
    ("misspelt", "[cleint]\nlisten = 3\n"),
    ("unknown-key", "[limits]\noutbox_frame = 7\n"),
    ("no-toml", "[client\nlisten = \"\n"),
    (
        "inline",
        "auth = { keys = [ { secret_file = 7 }, {} ], mode = \"jwt\" }\n",
    ),
    (
        "dotted",
        "client.listen = \"x\"\nauth.keys = []\n\"auth\".mode = 'none'\n",
    ),
    (
        "bounds",
        "[limits]\noutbox_frames = 0\noutbox_bytes = \"999999 TiB\"\nshards = -1\n",
    ),
    (
        "durations",
        "[client]\nwrite_timeout = \"1y 2days\"\ndrain_spread = \"0s\"\n",
    ),
    (
        "credentials",
        "[[ingest.keys]]\nname = \"\"\nkey_file = \"credential:k\"\n",
    ),
];
