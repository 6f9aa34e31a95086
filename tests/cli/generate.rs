//! `sidewire generate`: what packages install beside the program.

use std::fs;

use sidewire_testing::process::{Process, sidewire};

/// The commands that `sidewire --help` lists.
const COMMANDS: [&str; 12] = [
    "serve", "check", "keys", "dev", "token", "publish", "tail", "route", "schema", "ctl", "top",
    "bench",
];

/// Returns the text of each file that the command writes, by its name.
fn generated(kind: &str) -> Vec<(String, String)> {
    let directory = tempfile::tempdir().unwrap();
    // The command creates the directory.
    let target = directory.path().join("a/b");
    let ended = Process::run(sidewire(&["generate", kind, target.to_str().unwrap()]));
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.stdout, "");
    let files = fs::read_dir(target).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read_to_string(entry.path()).unwrap())
    });
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

#[test]
fn every_command_has_a_manual_page_with_its_example() {
    let pages = generated("man");
    let page = |name: &str| {
        let found = pages.iter().find(|(file, _)| file == name);
        let (_, page) = found.unwrap_or_else(|| panic!("there is no {name}"));
        page
    };
    assert!(page("sidewire.1").contains("\n  sidewire dev "));
    for command in COMMANDS {
        let page = page(&format!("sidewire-{command}.1"));
        let example = format!("\n  sidewire {command} ");
        // `sidewire dev` needs no flags.
        let alone = format!("\n  sidewire {command}\n");
        assert!(page.contains(&example) || page.contains(&alone), "{page}");
    }
    let hidden = |file: &str| file.contains("generate") || file.contains("help");
    assert!(!pages.iter().any(|(file, _)| hidden(file)), "{pages:?}");
}

#[test]
fn every_shell_completes_every_command() {
    let scripts = generated("completions");
    let names: Vec<_> = scripts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["_sidewire", "sidewire.bash", "sidewire.fish"]);
    for (name, script) in scripts {
        for command in COMMANDS {
            assert!(script.contains(command), "{name} lacks {command}");
        }
    }
}

#[test]
fn the_help_does_not_list_the_command_and_a_file_in_the_way_is_reported() {
    let help = Process::run(sidewire(&["--help"]));
    assert!(!help.stdout.contains("generate"), "{help:?}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let ended = Process::run(sidewire(&["generate", "man", path]));
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains(&format!("cannot write to {path}: ")),
        "{ended:?}"
    );
}
