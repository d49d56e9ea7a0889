//! Property strings, buffers and metas as the elements meet them.

#![no_main]

#[path = "../../tests/hostile/elements.rs"]
mod elements;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| elements::elements(bytes));
