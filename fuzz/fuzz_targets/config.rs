//! See `sidewire_fuzz::config`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidewire_fuzz::{config, seeds};

fuzz_target!(
    init: seeds::tend(config::seeds),
    |input: &[u8]| config::run(input)
);
