//! See `sidewire_fuzz::config`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidewire_fuzz::{config, cost::measured, seeds};

fuzz_target!(
    init: seeds::tend(config::seeds),
    |input: &[u8]| measured(input, config::run)
);
