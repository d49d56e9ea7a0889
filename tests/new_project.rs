//! What the README says about the library, as pasted: its dependency line and its example make a program in a new project
//! that depends on this folder by path, without default features, and the program writes its masks.

use masam::image::{Rgb, RgbImage};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The only fenced block of `language` under the README's heading.
fn block(readme: &str, heading: &str, language: &str) -> String {
    let section = readme.split("\n## ").find(|section| section.starts_with(heading));
    let mut blocks = section.unwrap().split("```").skip(1).step_by(2);
    let mut block = blocks
        .by_ref()
        .filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    let found = block
        .next()
        .unwrap_or_else(|| panic!("{heading}: no block of {language}"));
    assert!(block.next().is_none(), "{heading}: two blocks of {language}");
    found.to_owned()
}

#[test]
fn the_readmes_example_builds_and_runs_as_pasted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let dependencies = block(&readme, "As a library", "toml");
    let program = block(&readme, "As a library", "rust");

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("src")).unwrap();
    std::fs::write(at("src/main.rs"), program).unwrap();
    assert!(dependencies.contains("\"../masam\""), "{dependencies}");
    let dependencies = dependencies.replace("../masam", root.to_str().unwrap());
    let package = "[package]\nname = \"pasted\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
    std::fs::write(at("Cargo.toml"), format!("{package}\n{dependencies}")).unwrap();
    // The crates that are there already, whatever the registry has meanwhile.
    std::fs::copy(root.join("Cargo.lock"), at("Cargo.lock")).unwrap();
    // What its user has: pictures and the model.
    std::os::unix::fs::symlink(root.join("weights"), at("weights")).unwrap();
    for number in 1..=5 {
        let frame = RgbImage::from_fn(97, 61, |x, y| {
            Rgb([(x * 2 + number * 9) as u8, (y * 4) as u8, 90])
        });
        frame.save(at(&format!("frame{number}.png"))).unwrap();
    }

    let output = Command::new(env!("CARGO"))
        .args(["run", "--offline"])
        .current_dir(folder.path())
        // A folder that stays, so that only the first run builds all crates.
        .env("CARGO_TARGET_DIR", PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("new-project"))
        // Seconds to build instead of minutes; the example runs five frames.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for number in 1..=5 {
        let mask = masam::image::open(at(&format!("mask{number}.png"))).unwrap();
        assert_eq!((mask.width(), mask.height()), (97, 61));
    }
    let frames = std::fs::read_dir(folder.path()).unwrap();
    let masks = frames.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("mask")
    });
    assert_eq!(masks.count(), 5);
    // GStreamer and the program's crates have to stay out of it.
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges", "normal", "--prefix", "none"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&tree.stdout);
    assert!(tree.contains("candle-core"), "{tree}");
    for program_only in ["gstreamer", "clap", "tokio v"] {
        assert!(!tree.contains(program_only), "{program_only}: {tree}");
    }
}
