//! See `sidewire_fuzz::conversation`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidewire_fuzz::{conversation, cost::measured, seeds};

fuzz_target!(
    init: seeds::tend(conversation::seeds),
    |input: &[u8]| measured(input, conversation::run)
);
