//! PyTorch's checkpoints.

#![no_main]

#[path = "../../tests/hostile/mod.rs"]
mod hostile;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let name = format!("masam-fuzz-pth-{}", std::process::id());
    hostile::pth(bytes, &std::env::temp_dir().join(name));
});
