//! `masam doctor` on what GStreamer finds of the plugin.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder of plugins that holds all of this system's but ours.
fn system(folder: &Path) -> PathBuf {
    let plugins = Command::new("pkg-config")
        .args(["--variable=pluginsdir", "gstreamer-1.0"])
        .output()
        .unwrap();
    let plugins = String::from_utf8(plugins.stdout).unwrap();
    let own = folder.join("system");
    std::fs::create_dir(&own).unwrap();
    for entry in std::fs::read_dir(plugins.trim()).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().contains("masam") {
            std::os::unix::fs::symlink(entry.path(), own.join(entry.file_name())).unwrap();
        }
    }
    own
}

fn doctor(folder: &Path, system: &Path, path: &[&Path]) -> (Output, String) {
    let path = std::env::join_paths(path).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_masam"))
        .arg("doctor")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("GST_REGISTRY", folder.join("registry.bin"))
        .env("GST_PLUGIN_SYSTEM_PATH_1_0", system)
        .env_remove("GST_PLUGIN_PATH_1_0")
        .env("GST_PLUGIN_PATH", path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, said)
}

#[test]
fn the_plugin_is_what_gst_launch_finds_not_what_the_program_holds() {
    let folder = tempfile::tempdir().unwrap();
    let system = system(folder.path());
    let built = Path::new(env!("CARGO_BIN_EXE_masam")).parent().unwrap();

    let (absent, said) = doctor(folder.path(), &system, &[]);
    assert!(
        absent.status.success() && said.contains("absent  masaminfer: gst-launch-1.0 does not find it"),
        "{said}"
    );
    assert!(
        said.contains("weights/demo.safetensors: demo, 12 classes"),
        "{said}"
    );

    let broken = folder.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    std::fs::write(broken.join("libmasam.so"), "no library").unwrap();
    let (output, said) = doctor(folder.path(), &system, &[&broken]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let line = said
        .lines()
        .find(|line| line.contains("BROKEN"))
        .unwrap_or_else(|| panic!("{said}"));
    assert!(
        line.contains("is blacklisted") && line.contains("broken/libmasam.so"),
        "{line}"
    );
    // The loader's own words.
    assert!(
        line.contains("invalid ELF header") || line.contains("file too short"),
        "{line}"
    );

    if !built.join("libmasam.so").exists() {
        panic!("build the plugin first: make plugin");
    }
    let only = folder.path().join("only");
    std::fs::create_dir(&only).unwrap();
    std::fs::copy(built.join("libmasam.so"), only.join("libmasam.so")).unwrap();
    let (found, said) = doctor(folder.path(), &system, &[&only]);
    let line = said
        .lines()
        .find(|line| line.contains("masaminfer: "))
        .unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("only/libmasam.so"), "{line}");
    // Of the same sources, or built before the program was changed: then that is said.
    let same = line.contains("as this program");
    assert_eq!(found.status.success(), same, "{said}");
    assert!(same || line.contains("of another build"), "{line}");

    let twice = folder.path().join("twice");
    std::fs::create_dir(&twice).unwrap();
    std::fs::copy(built.join("libmasam.so"), twice.join("libmasam.so")).unwrap();
    let (_, said) = doctor(folder.path(), &system, &[&only, &twice]);
    let line = said.lines().find(|line| line.contains("twice/libmasam.so"));
    assert!(
        line.is_some_and(|line| line.contains("GStreamer passes over it")),
        "{said}"
    );
}

#[test]
fn a_plugin_of_another_build_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let system = system(folder.path());
    let built = Path::new(env!("CARGO_BIN_EXE_masam")).parent().unwrap();
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let mut bytes = std::fs::read(built.join("libmasam.so")).expect("build the plugin first: make plugin");
    let mark = b"masam build ";
    let at = bytes
        .windows(mark.len())
        .position(|window| window == mark)
        .unwrap();
    bytes[at + mark.len()..at + mark.len() + 16].copy_from_slice(b"0123456789abcdef");
    std::fs::write(other.join("libmasam.so"), bytes).unwrap();
    let (output, said) = doctor(folder.path(), &system, &[&other]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("is of another build than this program") && said.contains("0123456789abcdef"),
        "{said}"
    );
}
