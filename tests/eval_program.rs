//! `masam eval` from outside: its numbers follow from the masks it writes, its masks are the element's, and bad input is
//! a message.

use masam::labels::ClassSet;
use masam::metrics::Convention;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest a command may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the program to its end, or to a failure of the test when it does not come to one.
fn masam(arguments: &[&str]) -> Output {
    let child = Command::new(env!("CARGO_BIN_EXE_masam"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id();
    let (ended, end) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let output = child.wait_with_output();
        // Nobody listens any more once the patience is over.
        let _ = ended.send(());
        output
    });
    if end.recv_timeout(PATIENCE).is_err() {
        // The child is ours, and has had its time.
        let _ = Command::new("kill").args(["-KILL", &id.to_string()]).status();
        panic!("{arguments:?} did not end in {PATIENCE:?}");
    }
    waiting.join().unwrap().unwrap()
}

/// Runs and expects success; gives what was said on standard output.
fn good(arguments: &[&str]) -> String {
    let output = masam(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs and expects a message and no panic.
fn bad(arguments: &[&str]) -> String {
    let output = masam(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // 1 where the program refuses, 2 where the command line already does.
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{arguments:?}: {said}"
    );
    assert!(!said.contains("panicked") && !said.is_empty(), "{said}");
    said
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A placeholder of the demo model, made once for all tests.
fn model() -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("placeholder.safetensors");
        good(&["convert", "--untrained", "demo", "-o", text(&path)]);
        folder
    });
    folder.path().join("placeholder.safetensors")
}

const FRAMES: usize = 5;

/// Two small generated sequences, made once for all tests.
fn phantom() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (out, frames) = (folder.path().join("data"), FRAMES.to_string());
        let what = [
            "phantom",
            "--out",
            text(&out),
            "--sequences",
            "2",
            "--frames",
            &frames,
        ];
        good(&[&what[..], &["--size", "160x128", "--seed", "3"]].concat());
        folder
    });
    static DATA: OnceLock<PathBuf> = OnceLock::new();
    DATA.get_or_init(|| folder.path().join("data"))
}

/// A picture of class colours as ids.
fn ids(path: &Path) -> Vec<u8> {
    let classes = ClassSet::endovis_2018();
    let picture = image::open(path).unwrap().to_rgb8();
    let id_of = |pixel: &image::Rgb<u8>| classes.iter().position(|c| c.color == pixel.0).unwrap() as u8;
    picture.pixels().map(id_of).collect()
}

/// Truth and prediction of each frame of each sequence, from the files.
fn from_files(data: &Path, submission: &Path) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    let release = data.join("miccai_challenge_2018_release_1");
    let frame = |s: usize, f: usize| {
        let (sequence, name) = (format!("seq_{s}"), format!("frame{f:03}.png"));
        let truth = release.join(&sequence).join("labels").join(&name);
        (ids(&truth), ids(&submission.join(sequence).join(name)))
    };
    (1..=2)
        .map(|s| (0..FRAMES).map(|f| frame(s, f)).collect())
        .collect()
}

fn iou(truth: &BTreeSet<usize>, predicted: &BTreeSet<usize>) -> Option<f64> {
    let union = truth.union(predicted).count();
    (union > 0).then(|| truth.intersection(predicted).count() as f64 / union as f64)
}

fn places(ids: impl Iterator<Item = u8>, class: u8) -> BTreeSet<usize> {
    ids.enumerate()
        .filter(|&(_, id)| id == class)
        .map(|(at, _)| at)
        .collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[track_caller]
fn close(json: &serde_json::Value, wanted: Option<f64>) {
    match wanted {
        None => assert!(json.is_null(), "{json} should be null"),
        Some(wanted) => {
            let found = json.as_f64().unwrap();
            assert!((found - wanted).abs() < 1e-9, "{found}, from the masks {wanted}");
        }
    }
}

#[test]
fn the_numbers_follow_from_the_masks_that_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (json, masks, html) = (at("scores.json"), at("masks"), at("report.html"));
    let (errors, sheet) = (at("errors"), at("sheet.png"));
    let what = ["eval", "--model", text(&model()), "--data", text(phantom())].map(str::to_owned);
    let outputs = [
        "--json",
        text(&json),
        "--submission",
        text(&masks),
        "--html",
        text(&html),
    ];
    let more = ["--error-maps", text(&errors), "--contact-sheet", text(&sheet)];
    let what: Vec<&str> = what.iter().map(String::as_str).collect();
    let said = good(&[&what[..], &outputs, &more].concat());
    for word in [
        "placeholders",
        "challenge-2018",
        "dataset-wide",
        "flicker",
        "thread",
        "10 frames",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!said.contains("published"), "{said}");

    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let files = from_files(phantom(), &masks);
    let classes = ClassSet::endovis_2018();
    let mut present = Vec::new();
    for (class, name) in (0..12).zip(classes.iter().map(|c| &c.name)) {
        let truth = places(files.iter().flatten().flat_map(|(t, _)| t.iter().copied()), class);
        let predicted = places(files.iter().flatten().flat_map(|(_, p)| p.iter().copied()), class);
        let wanted = iou(&truth, &predicted);
        close(&json["dataset"]["iou"][name], wanted);
        present.extend(wanted);
    }
    close(&json["dataset"]["miou"], Some(mean(&present)));
    let mut challenge = Vec::new();
    let (mut steady, mut changed) = (0, 0);
    for (s, frames) in files.iter().enumerate() {
        let mut scores = Vec::new();
        for (truth, predicted) in frames {
            let of = |ids: &Vec<u8>, class| places(ids.iter().copied(), class);
            let there = (0..12).filter(|&class| !of(truth, class).is_empty());
            let ious: Vec<f64> = there
                .filter_map(|c| iou(&of(truth, c), &of(predicted, c)))
                .collect();
            scores.push(mean(&ious));
        }
        for (before, now) in frames.iter().zip(&frames[1..]) {
            let still: Vec<usize> = (0..now.0.len()).filter(|&at| now.0[at] == before.0[at]).collect();
            steady += still.len();
            changed += still.iter().filter(|&&at| now.1[at] != before.1[at]).count();
        }
        let sequence = format!("seq_{}", s + 1);
        close(
            &json["conventions"]["challenge-2018"]["sequences"][&sequence]["miou"],
            Some(mean(&scores)),
        );
        close(
            &json["sequences"][s]["challenge-2018_by_frame"][2]["iou"],
            Some(scores[2]),
        );
        challenge.extend(scores);
    }
    close(
        &json["conventions"]["challenge-2018"]["miou"],
        Some(mean(&challenge)),
    );
    close(&json["dataset"]["flicker"], Some(changed as f64 / steady as f64));
    for convention in Convention::ALL {
        let object = &json["conventions"][convention.name()];
        for sequence in ["seq_1", "seq_2"] {
            assert!(
                object["sequences"][sequence]["miou"].is_f64(),
                "{convention} {sequence}"
            );
        }
        let side = object["scored_at"].as_str().unwrap().contains("256x256");
        assert_eq!(side, convention == Convention::MaSam, "{convention}");
    }

    let page = std::fs::read_to_string(html).unwrap();
    assert!(!page.contains("http") && !page.contains("<script"));
    assert_eq!(page.matches("<svg").count(), 2);
    assert_eq!(
        page.matches("<img").count(),
        page.matches("src=\"data:image/jpeg;base64,").count()
    );
    // Of ten frames three of each kind.
    assert_eq!(page.matches("<figure>").count(), 9);
    let sheet = image::open(sheet).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (3 * 484, 9 * (384 + 4)));
    for s in 1..=2 {
        let map = errors.join(format!("seq_{s}/frame004.png"));
        assert_eq!(image::image_dimensions(map).unwrap(), (160, 128));
    }
}

#[test]
fn masks_are_those_of_the_element() {
    let folder = tempfile::tempdir().unwrap();
    let frames = phantom().join("miccai_challenge_2018_release_1/seq_2/left_frames");
    for emit in ["newest", "ensemble"] {
        let (scored, run) = (
            folder.path().join(emit),
            folder.path().join(format!("run-{emit}")),
        );
        let model = model();
        let common = ["--model", text(&model), "--emit", emit, "--frame-stride", "2"];
        good(
            &[
                &["eval", "--data", text(phantom()), "--submission", text(&scored)][..],
                &common,
            ]
            .concat(),
        );
        good(&[&["run", text(&frames), "-o", text(&run)][..], &common].concat());
        for frame in 0..FRAMES {
            let name = format!("frame{frame:03}.png");
            let by_element = image::open(run.join(&name)).unwrap().to_luma8().into_raw();
            assert!(
                ids(&scored.join("seq_2").join(&name)) == by_element,
                "{emit} {name}"
            );
        }
    }
}

/// Copies the picture and label folders of the first generated sequence; `times` over, under new names.
fn copy_sequence(to: &Path, times: usize) {
    let from = phantom().join("miccai_challenge_2018_release_1/seq_1");
    for part in ["left_frames", "labels"] {
        std::fs::create_dir_all(to.join(part)).unwrap();
        for index in 0..times * FRAMES {
            let source = from.join(part).join(format!("frame{:03}.png", index % FRAMES));
            std::fs::copy(source, to.join(part).join(format!("frame{index:03}.png"))).unwrap();
        }
    }
}

/// The demo model on scenes that it was not trained on: far fewer and smaller than those its scores stand for, so the
/// bounds are lower, but no model that has forgotten what it learnt meets them.
#[test]
fn the_demo_model_finds_what_it_was_trained_for() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let scenes = [
        "phantom",
        "--out",
        text(&data),
        "--sequences",
        "8",
        "--frames",
        "5",
    ];
    good(
        &[
            &scenes[..],
            &["--fps", "10", "--size", "480x384", "--seed", "27182818"],
        ]
        .concat(),
    );
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors");
    let said = good(&["eval", "--model", model, "--data", text(&data), "--json", "-"]);
    let scores: serde_json::Value = serde_json::from_str(&said).unwrap();
    let iou = |name: &str| scores["dataset"]["iou"][name].as_f64().unwrap();
    let mean = |names: &[&str]| names.iter().map(|name| iou(name)).sum::<f64>() / names.len() as f64;
    let parts = mean(&["instrument-shaft", "instrument-clasper", "instrument-wrist"]);
    let large = mean(&[
        "background-tissue",
        "instrument-shaft",
        "instrument-clasper",
        "instrument-wrist",
        "kidney-parenchyma",
        "covered-kidney",
        "suction-instrument",
        "small-intestine",
        "ultrasound-probe",
    ]);
    let all = scores["dataset"]["miou"].as_f64().unwrap();
    println!("mean IoU over all {all:.3}, over nine {large:.3}, over parts of instruments {parts:.3}");
    assert!(all >= 0.60 && large >= 0.72 && parts >= 0.65, "{said}");
}

#[test]
fn published_rows_stand_beside_the_whole_test_set_only() {
    let folder = tempfile::tempdir().unwrap();
    copy_sequence(&folder.path().join("test_data/seq_1"), 1);
    let model = model();
    let what = [
        "eval",
        "--model",
        text(&model),
        "--data",
        text(folder.path()),
        "--split",
        "test",
    ];
    let whole = good(&what);
    assert!(
        whole.contains("published") && whole.contains("MA-SAM") && whole.contains("69.2"),
        "{whole}"
    );
    let part = good(&[&what[..], &["--limit", "2"]].concat());
    assert!(
        !part.contains("published on") && part.contains("only the first 2 frames"),
        "{part}"
    );
    assert!(part.contains(" 2 frames, 2 of them"), "{part}");
}

#[test]
fn bad_input_is_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (model, data) = (model(), phantom());
    let eval = |data: &Path, more: &[&str]| {
        bad(&[&["eval", "--model", text(&model), "--data", text(data)][..], more].concat())
    };
    let full = at("full");
    std::fs::create_dir_all(&full).unwrap();
    std::fs::write(full.join("mine.txt"), "mine").unwrap();
    let bare = at("bare");
    copy_sequence(&bare.join("seq_1"), 1);
    std::fs::remove_dir_all(bare.join("seq_1/labels")).unwrap();
    let broken = at("broken");
    copy_sequence(&broken.join("seq_1"), 1);
    let label = broken.join("seq_1/labels/frame001.png");
    let bytes = std::fs::read(&label).unwrap();
    std::fs::write(&label, &bytes[..bytes.len() / 2]).unwrap();
    let (nothing, nowhere) = (at("nothing"), at("no/where.json"));
    let cases: [(&Path, &[&str], &str); 11] = [
        (&nothing, &[], "nothing"),
        (data, &["--split", "test"], "split is test"),
        (data, &["--split", "half"], "split is half"),
        (data, &["--split", "fold2017:1"], "EndoVis 2017"),
        (data, &["--emit", "last"], "newest, center, ensemble or step"),
        (data, &["--frame-stride", "0"], "frame-stride is 0"),
        (data, &["--limit", "0"], "--limit"),
        (data, &["--submission", text(&full)], "not empty"),
        (data, &["--json", text(&nowhere)], "no file can be written there"),
        (&bare, &[], "labels"),
        (&broken, &[], "frame001.png"),
    ];
    for (data, more, says) in cases {
        let said = eval(data, more);
        assert!(said.contains(says), "{more:?}: {said}");
    }
    let no_model = bad(&[
        "eval",
        "--model",
        text(&at("no.safetensors")),
        "--data",
        text(data),
    ]);
    assert!(no_model.contains("no.safetensors"), "{no_model}");
    assert!(full.join("mine.txt").exists());
}

#[test]
fn control_c_stops_without_a_trace_of_scores() {
    let folder = tempfile::tempdir().unwrap();
    // Far more than the model can do before the signal comes.
    let release = folder.path().join("miccai_challenge_2018_release_1");
    copy_sequence(&release.join("seq_1"), 150);
    let (json, masks) = (folder.path().join("scores.json"), folder.path().join("masks"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_masam"))
        .args(["eval", "--model", text(&model()), "--data", text(folder.path())])
        .args(["--json", text(&json), "--submission", text(&masks)])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !masks.join("seq_1/frame000.png").exists() {
        assert!(
            Instant::now() < deadline && child.try_wait().unwrap().is_none(),
            "nothing was written"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let signal = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(signal.unwrap().success());
    let status = child.wait().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("stopped after") && !json.exists(), "{said}");
}
