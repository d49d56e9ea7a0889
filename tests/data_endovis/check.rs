//! `masam data check`: everything odd about a folder is counted, and the exit code says whether it can be used.

use crate::support::*;
use image::{DynamicImage, Rgb};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Exit code, standard output and standard error of `masam data check`.
fn run(folder: &Path, further: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_masam"));
    let output = command
        .args(["data", "check"])
        .arg(folder)
        .args(further)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn report(folder: &Path) -> (Option<i32>, Value) {
    let (code, out, err) = run(folder, &["--json"]);
    (
        code,
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}")),
    )
}

#[test]
fn a_sound_data_set_is_usable() {
    let root = releases();
    let (code, report) = report(root.path());
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(
        (&report["usable"], &report["kind"]),
        (&json!(true), &json!("endovis-2018"))
    );
    assert_eq!((&report["frames"], &report["labelled"]), (&json!(45), &json!(45)));
    assert_eq!(report["sequences"].as_array().unwrap().len(), 15);
    assert_eq!(
        report["sequences"][1]["sizes"],
        json!([{"width_px": WIDTH, "height_px": HEIGHT}])
    );
    // Each of the 15 sequences has the labels ids(0..3).
    for id in 0..12_u8 {
        let planes = [0, 1, 2].map(|seed| ids(seed, 12));
        let pixels: usize = planes
            .iter()
            .map(|p| p.iter().filter(|v| **v == id).count())
            .sum();
        let frames = planes.iter().filter(|p| p.contains(&id)).count();
        let class = &report["classes"][usize::from(id)];
        assert_eq!(
            (&class["pixels"], &class["frames"]),
            (&json!(15 * pixels), &json!(15 * frames))
        );
    }
    for list in [
        "errors",
        "notes",
        "duplicates",
        "suspicious",
        "odd_colors",
        "repairs",
    ] {
        assert_eq!(report[list], json!([]), "{list}");
    }
    let (code, text, _) = run(root.path(), &[]);
    assert_eq!(code, Some(0));
    assert!(
        text.contains("15 sequences, 45 frames") && text.trim_end().ends_with("usable"),
        "{text}"
    );
}

#[test]
fn everything_odd_is_counted() {
    let (root, folder) = one_sequence(9);
    let label = |index: usize| folder.join(format!("labels/frame{index:03}.png"));
    let frame = |index: usize| folder.join(format!("left_frames/frame{index:03}.png"));
    let mut odd = colored(&ids(0, 12));
    odd.put_pixel(0, 0, Rgb([187, 155, 28]));
    odd.put_pixel(1, 0, Rgb([90, 90, 90]));
    save(label(0), &odd.into());
    save(label(1), &flat([255, 55, 0]));
    save(frame(2), &DynamicImage::new_rgb8(WIDTH, HEIGHT));
    std::fs::copy(frame(3), frame(4)).unwrap();
    std::fs::remove_file(label(5)).unwrap();
    std::fs::remove_file(frame(6)).unwrap();
    let repair = save(
        root.path().join("repairs/seq_1_frame007.png"),
        &colored(&ids(70, 12)).into(),
    );
    write(root.path().join("__MACOSX/seq_1/left_frames/._frame000.png"), [0]);
    write(folder.join("left_frames/._frame000.png"), [0]);
    let (width, height) = (WIDTH + 2, HEIGHT);
    save(
        frame(8),
        &DynamicImage::from(image::RgbImage::from_pixel(width, height, Rgb([9, 80, 7]))),
    );
    save(
        label(8),
        &DynamicImage::from(image::RgbImage::from_pixel(width, height, Rgb([90; 3]))),
    );
    // More than a tenth of the pixels have an unknown color: not usable unless that is accepted.
    assert_eq!(report(root.path()).0, Some(1));
    let (code, out, _) = run(root.path(), &["--json", "--accept-unknown-labels"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!((&report["frames"], &report["labelled"]), (&json!(8), &json!(7)));
    let counts = [
        "missing_labels",
        "missing_frames",
        "macosx_trees",
        "sidecar_files",
    ];
    assert_eq!(
        counts.map(|c| report[c].clone()),
        [json!(1), json!(1), json!(1), json!(1)]
    );
    assert_eq!(report["ignored_pixels"], json!(1 + width * height));
    assert_eq!(
        report["duplicates"],
        json!([["seq_1/frame003", "seq_1/frame004"]])
    );
    assert_eq!(
        report["repairs"],
        json!([{"sequence": "seq_1", "frame": "frame007", "path": repair}])
    );
    let unknown = json!({"color": [90, 90, 90], "pixels": 1 + width * height, "frames": 2, "nearest": "covered-kidney",
        "distance": 66, "repaired": false});
    let near = json!({"color": [187, 155, 28], "pixels": 1, "frames": 1, "nearest": "thread", "distance": 3,
        "repaired": true});
    assert_eq!(report["odd_colors"], json!([unknown, near]));
    let suspicious: Vec<(&str, &str)> = report["suspicious"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["frame"].as_str().unwrap(), s["what"].as_str().unwrap()))
        .collect();
    assert_eq!(
        suspicious,
        [
            ("frame001", "one-class"),
            ("frame002", "black"),
            ("frame008", "size"),
            ("frame008", "all-ignored")
        ]
    );
    let (_, text, _) = run(root.path(), &["--accept-unknown-labels"]);
    for part in [
        "(accepted, ignored)",
        "#5a5a5a",
        "taken for thread (3 away)",
        "corrected labels applied: 1",
        "1 __MACOSX trees",
        "seq_1/frame003, seq_1/frame004",
        "the picture is black",
        "the whole label is kidney-parenchyma",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let (root, folder) = one_sequence(4);
    write(folder.join("left_frames/frame001.png"), b"broken");
    save(folder.join("labels/frame002.png"), &DynamicImage::new_rgb8(3, 3));
    std::fs::create_dir_all(folder.with_file_name("seq_2").join("left_frames")).unwrap();
    let (code, report) = report(root.path());
    assert_eq!((code, &report["usable"]), (Some(1), &json!(false)));
    let errors: Vec<&str> = report["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e.as_str().unwrap())
        .collect();
    let about = |word: &str| errors.iter().filter(|e| e.contains(word)).count();
    // The label of a picture that cannot be read cannot be compared with it.
    assert_eq!(
        (about("seq_2"), about("frame001.png"), about("3x3")),
        (1, 2, 1),
        "{errors:#?}"
    );
    assert_eq!(errors.len(), 4, "{errors:#?}");
    let (code, text, _) = run(root.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("NOT usable"), "{text}");
    let (code, out, err) = run(&root.path().join("absent"), &[]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("absent"), "{err}");
}

#[test]
fn the_task_of_2017_can_be_chosen() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("instrument_dataset_1");
    frames(&folder, 1);
    let mask = DynamicImage::from(image::GrayImage::from_pixel(WIDTH, HEIGHT, image::Luma([20])));
    save(
        folder.join("ground_truth/Vessel_Sealer_labels/frame000.png"),
        &mask,
    );
    let classes = |task: &str| {
        let (code, out, err) = run(root.path(), &["--json", "--task", task]);
        assert_eq!(code, Some(0), "{err}");
        let report: Value = serde_json::from_str(&out).unwrap();
        let found = report["classes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["pixels"] != json!(0))
            .cloned();
        found.unwrap()["name"].as_str().unwrap().to_owned()
    };
    assert_eq!(classes("binary"), "instrument");
    assert_eq!(classes("parts"), "instrument-wrist");
    assert_eq!(classes("type"), "vessel-sealer");
    assert_eq!(run(root.path(), &["--task", "colour"]).0, Some(2));
}
