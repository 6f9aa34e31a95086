//! See `sidewire_fuzz::json_frame`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidewire_fuzz::{cost::measured, json_frame, seeds};

fuzz_target!(
    init: seeds::tend(json_frame::seeds),
    |input: &[u8]| measured(input, json_frame::run)
);
