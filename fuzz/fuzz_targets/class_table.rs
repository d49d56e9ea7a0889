//! `labels.json`.

#![no_main]

#[path = "../../tests/hostile/mod.rs"]
mod hostile;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let name = format!("masam-fuzz-class_table-{}", std::process::id());
    hostile::class_table(bytes, &std::env::temp_dir().join(name));
});
