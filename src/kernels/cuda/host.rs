//! Launches on a card that a C++ compiler stands for: the kernels' own sources, compiled with `host.h`.

use super::{Launch, Source};
use libloading::{Library, Symbol};
use std::collections::HashMap;
use std::ffi::{CStr, c_char};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

/// A compiled source, or why there is none.
type Compiled = Result<Library, String>;

/// In which order the threads of a block are taken up: ascending, descending, and shuffled by this seed.
pub(super) const ORDERS: [u32; 3] = [0, 1, 0x5eed];

fn compiled(source: Source) -> &'static Compiled {
    static LIBRARIES: OnceLock<Mutex<HashMap<Source, &'static Compiled>>> = OnceLock::new();
    let mut libraries = LIBRARIES.get_or_init(Mutex::default).lock().unwrap();
    libraries
        .entry(source)
        .or_insert_with(|| Box::leak(Box::new(compile(source))))
}

fn compile(source: Source) -> Compiled {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let library = folder.path().join(format!("{}.so", source.stem()));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/kernels/cuda/{}.cu", source.stem()));
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".into());
    let output = Command::new(&compiler)
        .args([
            "-std=c++17",
            "-O2",
            "-fno-strict-aliasing",
            "-ffp-contract=off",
            "-fno-tree-vectorize", // of which GCC 12 for Arm dies
            "-U_FORTIFY_SOURCE",
        ])
        .args([
            "-fPIC",
            "-shared",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unknown-pragmas",
            "-x",
            "c++",
        ])
        .arg(&file)
        .arg("-o")
        .arg(&library)
        .output()
        .map_err(|e| format!("no C++ compiler ({compiler}: {e})"))?;
    assert!(
        output.status.success(),
        "{}: {}",
        file.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    // SAFETY: the library has just been made from our own source and initialises nothing but its own memory.
    unsafe { Library::new(&library) }.map_err(|e| e.to_string())
}

/// Whether this machine can run kernels this way; says so aloud where not.
pub(super) fn is_here() -> bool {
    match compiled(Source::Norm) {
        Ok(_) => true,
        Err(why) => {
            println!("SKIPPED: {why}");
            false
        }
    }
}

/// Runs all blocks, with the threads of each in this order.
pub(super) fn launch<A>(launch: &Launch<A>, order: u32) {
    type Kernel = unsafe extern "C" fn(*const u8, *const u32) -> *const c_char;
    let library = compiled(launch.source).as_ref().unwrap();
    let [x, y, z] = launch.grid;
    let shape = [x, y, z, launch.threads, launch.shared_bytes, order];
    let name = format!("{}_on_host", launch.kernel);
    // SAFETY: host.h declares each kernel's entry so; the arguments live until it returns, and what they point to has
    // margins that are looked at afterwards.
    let fault = unsafe {
        let kernel: Symbol<Kernel> = library.get(name.as_bytes()).unwrap();
        let fault = kernel((&raw const launch.arguments).cast(), shape.as_ptr());
        (!fault.is_null()).then(|| CStr::from_ptr(fault).to_string_lossy().into_owned())
    };
    assert_eq!(fault, None, "{} {shape:?}", launch.kernel);
}
