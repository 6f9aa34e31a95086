//! See `sidewire_fuzz::ingest`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidewire_fuzz::{cost::measured, ingest, seeds};

fuzz_target!(
    init: seeds::tend(ingest::seeds),
    |input: &[u8]| measured(input, ingest::run)
);
