//! The inputs with which a target begins. They stand in `fuzz/seeds`, made from the
//! relay's own examples: by this module, so that they stay what they are meant to be.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process,
};

/// What the environment has to say for the seeds to be written, or looked at, in
/// the place of fuzzing.
const ASKED: &str = "SIDEWIRE_FUZZ_SEEDS";

/// Inputs by the names of their files.
pub type Seeds = BTreeMap<String, Vec<u8>>;

/// Does what the environment asks for, if anything: writes the target's seeds, or
/// checks that they are as they would be written; and ends the process.
pub fn tend(target: &str, seeds: impl FnOnce() -> Seeds) {
    let Some(asked) = env::var_os(ASKED) else {
        return;
    };
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target);
    let seeds = seeds();
    match asked.to_str() {
        Some("write") => write(&dir, &seeds),
        Some("check") => check(&dir, &seeds),
        _ => panic!("{ASKED} is neither write nor check"),
    }
    process::exit(0);
}

fn write(dir: &Path, seeds: &Seeds) {
    if dir.exists() {
        fs::remove_dir_all(dir).expect("old seeds can be removed");
    }
    fs::create_dir_all(dir).expect("seeds have a directory");
    for (name, input) in seeds {
        fs::write(dir.join(name), input).expect("a seed can be written");
    }
}

fn check(dir: &Path, seeds: &Seeds) {
    assert!(!seeds.is_empty());
    let there = files(dir).into_iter().map(|path| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        (
            name.unwrap_or_default(),
            fs::read(&path).unwrap_or_default(),
        )
    });
    let there: Seeds = there.collect();
    assert!(
        there == *seeds,
        "{} is not as it would be written: scripts/fuzz --write-seeds",
        dir.display()
    );
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// The file of the repository.
pub(crate) fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).expect("the file is there")
}

/// The bundled schema's events as JSON, by name.
pub(crate) fn events() -> Vec<(String, String)> {
    read("benches/cases/events.txt")
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, json)| (name.to_owned(), json.to_owned()))
        .collect()
}

/// Pseudo-random bytes (xorshift64), always the same of one number.
pub(crate) fn noise(number: u64, len: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[7]
    };
    std::iter::repeat_with(next).take(len).collect()
}
