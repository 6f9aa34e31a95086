//! See `sidewire_fuzz::descriptor_set`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidewire_fuzz::{cost::measured, descriptor_set, seeds};

fuzz_target!(
    init: seeds::tend(descriptor_set::seeds),
    |input: &[u8]| measured(input, descriptor_set::run)
);
