//! The initial inputs of a target. They are stored in `fuzz/seeds`, and this module makes
//! them from the relay's own examples, so that they keep up with changes.

use std::{collections::BTreeMap, env, fs, path::Path, process};

/// Environment variable with the directory into which the seeds are written instead of fuzzing.
const DIRECTORY: &str = "SIDEWIRE_FUZZ_SEEDS";

/// Inputs by file name.
pub type Seeds = BTreeMap<String, Vec<u8>>;

/// Writes the seeds and exits, if the environment variable is set.
pub fn tend(seeds: impl FnOnce() -> Seeds) {
    let Some(dir) = env::var_os(DIRECTORY) else {
        return;
    };
    let dir = Path::new(&dir);
    if dir.exists() {
        fs::remove_dir_all(dir).expect("old seeds can be removed");
    }
    fs::create_dir_all(dir).expect("seeds have a directory");
    for (name, input) in seeds() {
        fs::write(dir.join(name), input).expect("a seed can be written");
    }
    process::exit(0);
}

/// Reads a file of the repository.
pub(crate) fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).expect("the file is there")
}

/// Returns the bundled schema's events as JSON, by name.
pub(crate) fn events() -> Vec<(String, String)> {
    read("benches/cases/events.txt")
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, json)| (name.to_owned(), json.to_owned()))
        .collect()
}

/// Returns pseudo-random bytes (xorshift64), which depend only on `number`.
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
