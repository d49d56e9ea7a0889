//! Names the build, and compiles the kernels of src/kernels/cuda in builds with CUDA: machine code for Ampere and Hopper,
//! and PTX that the driver makes into code for every other card since Ampere.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDER: &str = "src/kernels/cuda";
const HEADERS: [&str; 2] = ["device.cuh", "attention.cuh"];
/// One image each, which `kernels::cuda::card` includes by these names.
const SOURCES: [&str; 8] = [
    "attention",
    "attention_plain",
    "epilogue",
    "labels",
    "norm",
    "prepare",
    "temporal",
    "upscale",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=MASAM_BUILD={}", build_id()?);
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    println!("cargo:rerun-if-env-changed=NVCC");
    for header in HEADERS {
        println!("cargo:rerun-if-changed={FOLDER}/{header}");
    }
    let compiler = std::env::var("NVCC").unwrap_or_else(|_| "nvcc".into());
    let output = std::env::var("OUT_DIR")?;
    let jobs: usize = std::env::var("NUM_JOBS").map_or(1, |n| n.parse().unwrap_or(1));
    for some in SOURCES.chunks(jobs.max(1)) {
        let mut running = Vec::new();
        for source in some {
            let file = format!("{FOLDER}/{source}.cu");
            println!("cargo:rerun-if-changed={file}");
            let process = Command::new(&compiler)
                .args(["--fatbin", "-O3", "-std=c++17"])
                .arg("-gencode=arch=compute_80,code=[sm_80,compute_80]")
                .arg("-gencode=arch=compute_90a,code=sm_90a")
                .arg(&file)
                .arg("-o")
                .arg(Path::new(&output).join(format!("{source}.fatbin")))
                .spawn()
                .map_err(|e| format!("{compiler}: {e}; `make cuda` brings a compiler along"))?;
            running.push((file, process));
        }
        for (file, mut process) in running {
            let status = process.wait()?;
            if !status.success() {
                return Err(format!("{compiler} cannot compile {file}: {status}").into());
            }
        }
    }
    Ok(())
}

/// What program and plugin are compared by: 16 hexadecimal digits of a hash over sources, locked dependencies, profile and
/// device.
fn build_id() -> std::io::Result<String> {
    let mut files = Vec::new();
    for top in ["src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={top}");
        list(Path::new(top), &mut files)?;
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        std::fs::read(&file)?.hash(&mut hasher);
    }
    std::env::var("PROFILE").ok().hash(&mut hasher);
    std::env::var_os("CARGO_FEATURE_CUDA").is_some().hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// All files at and below `path`; one that is missing counts for nothing.
fn list(path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            list(&entry?.path(), files)?;
        }
    } else if path.is_file() {
        files.push(path.to_owned());
    }
    Ok(())
}
