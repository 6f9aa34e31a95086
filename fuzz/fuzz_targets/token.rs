//! See `sidewire_fuzz::token`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidewire_fuzz::{cost::measured, seeds, token};

fuzz_target!(
    init: seeds::tend(token::seeds),
    |input: &[u8]| measured(input, token::run)
);
