//! See `sidewire_fuzz::wire`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidewire_fuzz::{cost::measured, seeds, wire};

fuzz_target!(
    init: seeds::tend(wire::seeds),
    |input: &[u8]| measured(input, wire::run)
);
