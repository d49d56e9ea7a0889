//! The program from outside: what `masam convert`, `selftest` and `bench` do with options and files that cannot be
//! right.

use masam::checkpoint::ModelFile;
use masam::model::ModelConfig;
use masam::segmenter::{Resize, Temporal};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Far above what these commands take on a busy machine, and below no end at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `program` in `folder`; one that does not end is killed and fails the test.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    // What these commands say fits into a pipe.
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{arguments:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn masam(folder: &Path, arguments: &[&str]) -> Output {
    run(folder, env!("CARGO_BIN_EXE_masam"), arguments)
}

fn good(folder: &Path, arguments: &[&str]) {
    let output = masam(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
}

/// What was said on standard error by a command that ends with `code`: 1 for what fails, 2 for what cannot be asked.
fn bad(folder: &Path, code: i32, arguments: &[&str]) -> String {
    let output = masam(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

/// A folder with a small model.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = ["--set", "encoder_depth=1", "--set", "global_blocks=[]"];
    let what = ["convert", "--untrained", "demo", "--size", "32", "-o", "model.st"];
    good(folder.path(), &[&what[..], &model[..]].concat());
    folder
}

#[test]
fn a_placeholder_is_what_its_options_say() {
    let folder = folder();
    let folder = folder.path();
    let classes = r#"[{"name": "a", "color": [1, 2, 3]}, {"name": "b", "color": [4, 5, 6]}]"#;
    std::fs::write(folder.join("classes.json"), classes).unwrap();
    let base = ["convert", "--untrained", "demo", "-o", "own.st", "--size", "64"];
    let options = [
        "--set",
        "encoder_depth=1",
        "--set",
        "global_blocks=[0]",
        "--set",
        "classes=2",
        "--classes",
        "classes.json",
        "--frame-interval-ms",
        "40",
        "--resize",
        "reference",
    ];
    good(folder, &[&base[..], &options].concat());
    let card = ModelFile::read(&folder.join("own.st")).unwrap().card;
    assert_eq!(card.model.image_side_px, 64);
    assert_eq!((card.model.encoder_depth, card.model.classes), (1, 2));
    assert_eq!(card.classes.get(1).unwrap().name, "b");
    assert_eq!(card.preprocessing.frame_interval_nanos, Some(40_000_000));
    assert_eq!(card.preprocessing.resize, Resize::Reference);

    // What is not said stays the preset's.
    good(folder, &["convert", "--untrained", "demo", "-o", "plain.st"]);
    let card = ModelFile::read_card(&folder.join("plain.st")).unwrap();
    assert_eq!(card.model, ModelConfig::demo());
    assert_eq!(card.model.temporal, Temporal::Causal);
    assert_eq!(card.preprocessing.frame_interval_nanos, None);
    assert!(!card.provenance.trained);
}

#[test]
fn options_without_effect_are_refused() {
    let folder = folder();
    for option in [
        &["--size", "64"][..],
        &["--set", "decoder_heads=2"],
        &["--causal"],
        &["--classes", "classes.json"],
        &["--resize", "area"],
        &["--orientation", "upright"],
        &["--frame-interval-ms", "40"],
    ] {
        let base = ["convert", "--model", "model.st", "-o", "other.st"];
        let said = bad(folder.path(), 2, &[&base[..], option].concat());
        assert!(said.contains(option[0]) && said.contains("--model"), "{said}");
    }
    for interval in ["0", "3600001", "18446744073709551615"] {
        let base = ["convert", "--untrained", "demo", "-o", "other.st"];
        let said = bad(
            folder.path(),
            2,
            &[&base[..], &["--frame-interval-ms", interval]].concat(),
        );
        assert!(said.contains("expected 1 to 3600000, or every"), "{said}");
    }
    assert!(!folder.path().join("other.st").exists());
}

#[test]
fn no_output_takes_the_place_of_another_file_of_the_command() {
    let folder = folder();
    let folder = folder.path();
    let before = std::fs::read(folder.join("model.st")).unwrap();
    std::fs::hard_link(folder.join("model.st"), folder.join("hard.st")).unwrap();
    symlink("model.st", folder.join("soft.st")).unwrap();
    for arguments in [
        ["--to-sam", "x.pth", "--to-masam", "x.pth"],
        ["--to-sam", "x.pth", "--to-masam", "./x.pth"],
        ["--to-sam", "x.pth", "--output", "x.pth"],
        ["--to-sam", "model.st", "--output", "y.st"],
        ["--to-masam", "hard.st", "--output", "y.st"],
        ["--to-sam", "x.pth", "--output", "soft.st"],
    ] {
        let said = bad(
            folder,
            1,
            &[&["convert", "--model", "model.st"][..], &arguments].concat(),
        );
        assert!(said.contains("are the same file"), "{said}");
    }
    assert_eq!(std::fs::read(folder.join("model.st")).unwrap(), before);
    assert!(!folder.join("x.pth").exists() && !folder.join("y.st").exists());
    good(
        folder,
        &[
            "convert",
            "--model",
            "model.st",
            "--to-sam",
            "x.pth",
            "--to-masam",
            "y.pth",
        ],
    );
}

#[test]
fn only_regular_files_are_read() {
    let folder = folder();
    let folder = folder.path();
    assert!(run(folder, "mkfifo", &["pipe"]).status.success());
    for (path, kind) in [
        ("pipe", "a pipe"),
        (".", "a directory"),
        ("/dev/zero", "a device"),
    ] {
        for arguments in [
            &["inspect", path][..],
            &["convert", "--model", path, "-o", "x.st"],
            &["convert", "--sam", path, "--masam", path, "-o", "x.st"],
            &["convert", "--untrained", "demo", "--classes", path, "-o", "x.st"],
        ] {
            let said = bad(folder, 1, arguments);
            assert!(
                said.contains(&format!("not a regular file, but {kind}")),
                "{arguments:?}: {said}"
            );
        }
    }
    let long = std::fs::File::create(folder.join("long.json")).unwrap();
    long.set_len((1 << 20) + 1).unwrap();
    let said = bad(
        folder,
        1,
        &[
            "convert",
            "--untrained",
            "demo",
            "--classes",
            "long.json",
            "-o",
            "x.st",
        ],
    );
    assert!(
        said.contains("long.json") && said.contains("at most 1048576"),
        "{said}"
    );
}

#[test]
fn reference_files_are_measured_before_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert!(run(folder, "mkfifo", &["a_pipe.safetensors"]).status.success());
    symlink("/dev/zero", folder.join("b_zeros.safetensors")).unwrap();
    // Six gigabytes of nothing, and six gigabytes that the header really describes.
    let sparse = |name: &str, header: &str, length: u64| {
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        std::fs::write(folder.join(name), bytes).unwrap();
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(folder.join(name))
            .unwrap();
        file.set_len(8 + header.len() as u64 + length).unwrap();
    };
    const LENGTH: u64 = 6 << 30;
    sparse("c_empty.safetensors", "{}", LENGTH);
    let header = format!(r#"{{"logits":{{"dtype":"U8","shape":[{LENGTH}],"data_offsets":[0,{LENGTH}]}}}}"#);
    sparse("d_full.safetensors", &header, LENGTH);
    let output = masam(folder, &["selftest", "--goldens", "."]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for (line, part) in said.lines().zip([
        "but a pipe",
        "but a device",
        "truncated or padded",
        "at most 1073741824 are read",
    ]) {
        assert!(line.contains("FAIL") && line.contains(part), "{part}: {said}");
    }
    assert!(said.contains("0 passed, 4 failed"), "{said}");
}

#[test]
fn what_memory_cannot_hold_is_refused() {
    let folder = folder();
    // Thousands of gigabytes: the most that the options allow.
    let said = bad(
        folder.path(),
        1,
        &[
            "bench", "--config", "vit_h", "--size", "2048", "--frames", "64", "--batch", "16",
        ],
    );
    assert!(
        said.contains("vit_h at 2048 px over 1024 frames needs at least")
            && said.contains("GB are available"),
        "{said}"
    );
    let wide = [
        "encoder_width=8192",
        "encoder_depth=128",
        "mlp_ratio=16",
        "encoder_heads=64",
    ];
    let wide: Vec<&str> = wide.iter().flat_map(|field| ["--set", field]).collect();
    let base = ["convert", "--untrained", "demo", "-o", "wide.st"];
    let said = bad(folder.path(), 1, &[&base[..], &wide].concat());
    assert!(
        said.contains("needs at least") && said.contains("GB are available"),
        "{said}"
    );
}

#[test]
fn errors_of_a_conversion_name_its_files() {
    let folder = folder();
    let folder = folder.path();
    let split = [
        "convert",
        "--model",
        "model.st",
        "--to-sam",
        "sam.pth",
        "--to-masam",
        "own.pth",
    ];
    good(folder, &split);
    let base = ["convert", "--sam", "sam.pth", "--masam", "own.pth", "-o", "x.st"];
    for (option, part) in [
        (["--set", "encoder_depth=0"], "encoder_depth is 0"),
        (["--set", "classes=3"], "do not fit the model"),
        (["--size", "17"], "image_side_px is 17"),
    ] {
        let said = bad(folder, 1, &[&base[..], &option].concat());
        for part in ["sam.pth", "own.pth", part] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

/// A limit on the size of files stands for a full disk.
#[test]
fn a_full_disk_is_one_line_and_leaves_nothing() {
    let folder = folder();
    let folder = folder.path();
    let script = r#"trap '' XFSZ; ulimit -f 64; exec "$0" convert --model model.st --to-sam sam.pth"#;
    let output = run(folder, "sh", &["-c", script, env!("CARGO_BIN_EXE_masam")]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("masam: sam.pth: cannot be written"), "{said}");
    let names = std::fs::read_dir(folder).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["model.st"]);
}
