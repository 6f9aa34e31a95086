//! See `sidewire_fuzz::proto_file`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidewire_fuzz::{cost::measured, proto_file, seeds};

fuzz_target!(
    init: seeds::tend(proto_file::seeds),
    |input: &[u8]| measured(input, proto_file::run)
);
