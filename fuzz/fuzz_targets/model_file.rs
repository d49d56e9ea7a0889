//! Model files.

#![no_main]

#[path = "../../tests/hostile/mod.rs"]
mod hostile;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let name = format!("masam-fuzz-model_file-{}", std::process::id());
    hostile::model_file(bytes, &std::env::temp_dir().join(name));
});
