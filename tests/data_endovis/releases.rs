//! EndoVis 2018: which sequences and files a folder holds, and the splits.

use crate::support::*;
use masam::data::{Dataset, Kind, Note, Role, Split};
use masam::labels::ClassSet;
use std::fs;

#[test]
fn the_releases_are_fifteen_sequences_in_order() {
    let root = releases();
    let data = Dataset::open(root.path()).unwrap();
    assert_eq!(data.kind, Kind::EndoVis2018);
    let expected: Vec<String> = (1..=16).filter(|n| *n != 8).map(|n| format!("seq_{n}")).collect();
    assert_eq!(names(&data), expected);
    assert_eq!(data.classes, ClassSet::endovis_2018());
    assert!(data.notes.is_empty() && data.repairs.is_empty());
    let sequence = data.sequence("seq_10").unwrap();
    assert_eq!((sequence.number, sequence.role), (Some(10), Role::Train));
    assert_eq!(sequence.frames.len(), 3);
    assert_eq!(sequence.frames[2].name, "frame002");
    assert_eq!(sequence.image(0).unwrap().dimensions(), (WIDTH, HEIGHT));
    assert_eq!(sequence.labels(1).unwrap().unwrap(), ids(1, 12));
    assert!(sequence.image(3).unwrap_err().to_string().contains("3 frames"));
}

#[test]
fn a_release_or_a_sequence_alone_is_a_data_set() {
    let root = releases();
    let release = root.path().join("miccai_challenge_release_2");
    assert_eq!(
        names(&Dataset::open(&release).unwrap()),
        ["seq_5", "seq_6", "seq_7"]
    );
    let one = Dataset::open(&release.join("seq_6")).unwrap();
    assert_eq!(names(&one), ["seq_6"]);
    assert!(one.sequences[0].labels(0).unwrap().is_some());
    assert!(refusal(&release.join("seq_6/labels")).contains("left_frames"));
    assert!(refusal(&root.path().join("absent")).contains("absent"));
}

#[test]
fn what_phantom_writes_is_read_back() {
    use masam::data::phantom::{PhantomConfig, Sequence, write_dataset};
    let out = tempfile::tempdir().unwrap();
    let size = masam::geometry::Size {
        width_px: 64,
        height_px: 48,
    };
    let config = PhantomConfig {
        size,
        frames: 2,
        ..PhantomConfig::default()
    };
    write_dataset(out.path(), &config, 2, &|| ()).unwrap();
    let data = Dataset::open(out.path()).unwrap();
    assert_eq!(names(&data), ["seq_1", "seq_2"]);
    assert!(data.notes.is_empty(), "{:?}", data.notes);
    let frame = Sequence::new(&config, 1).unwrap().render(1);
    let read = &data.sequences[1];
    assert_eq!(read.image(1).unwrap().into_raw(), frame.rgb);
    let labels = read.read_labels(1).unwrap().unwrap();
    assert_eq!(labels.classes.into_raw(), frame.labels);
    assert!(labels.tally.colors.is_empty());
}

#[test]
fn shadow_files_of_macos_are_no_sequences() {
    let (root, folder) = one_sequence(2);
    let shadow = root.path().join("__MACOSX/miccai_challenge_2018_release_1/seq_1");
    for part in ["left_frames", "right_frames", "labels"] {
        write(shadow.join(part).join("._frame000.png"), [0, 5, 22, 7]);
        write(folder.join(part).join("._frame000.png"), [0, 5, 22, 7]);
        write(folder.join(part).join(".DS_Store"), [0]);
    }
    write(root.path().join("._miccai_challenge_2018_release_1"), [0]);
    let data = Dataset::open(root.path()).unwrap();
    assert_eq!(names(&data), ["seq_1"]);
    assert_eq!(data.sequences[0].frames.len(), 2);
    let tree = root.path().join("__MACOSX");
    // The right camera's folder is not even listed.
    let expected = [Note::Sidecars { files: 3 }, Note::Macosx { path: tree }];
    assert!(
        expected.iter().all(|n| data.notes.contains(n)),
        "{:?}",
        data.notes
    );
    assert_eq!(data.notes.len(), 2, "{:?}", data.notes);
}

#[test]
fn the_right_camera_is_left_alone() {
    let (root, folder) = one_sequence(2);
    for index in 0..5 {
        write(
            folder.join(format!("right_frames/frame{index:03}.png")),
            b"not read",
        );
    }
    let data = Dataset::open(root.path()).unwrap();
    assert_eq!(data.sequences[0].frames.len(), 2);
    assert!(data.notes.is_empty());
    assert!(data.sequences[0].image(1).is_ok());
}

#[test]
fn corrected_labels_take_the_place_of_released_ones() {
    let root = releases();
    let test = root
        .path()
        .join("test_data/test_data/seq_1-20180914T080000Z-001/seq_1");
    sequence_18(&test, 3);
    let repairs = root.path().join("repairs/repairs");
    let kidney = flat([255, 55, 0]);
    let first = save(repairs.join("seq_1_frame001.png"), &kidney);
    let nested = save(repairs.join("seq_4/labels/frame002.png"), &kidney);
    let beyond = save(repairs.join("seq_1_frame042.png"), &kidney);
    let nameless = save(repairs.join("mask.png"), &kidney);
    write(repairs.join("._seq_1_frame000.png"), [0]);
    let data = Dataset::open(root.path()).unwrap();
    let applied: Vec<_> = data
        .repairs
        .iter()
        .map(|r| (r.sequence.as_str(), r.frame.as_str(), &r.path))
        .collect();
    assert_eq!(
        applied,
        [("seq_1", "frame001", &first), ("seq_4", "frame002", &nested)]
    );
    let labels = |name: &str, frame: usize| data.sequence(name).unwrap().labels(frame).unwrap().unwrap();
    assert!(labels("seq_1", 1).iter().all(|id| *id == 4));
    assert!(labels("seq_4", 2).iter().all(|id| *id == 4));
    assert_eq!(labels("seq_1", 0), ids(0, 12));
    assert_eq!(
        labels("test/seq_1", 1),
        ids(1, 12),
        "corrections are for the training set"
    );
    let repaired = data
        .sequences
        .iter()
        .flat_map(|s| &s.frames)
        .filter(|f| f.repaired);
    assert_eq!(repaired.count(), 2);
    for path in [beyond, nameless] {
        assert!(
            data.notes.contains(&Note::UnusedRepair { path }),
            "{:?}",
            data.notes
        );
    }
    // Nothing on disk has changed.
    let released = root
        .path()
        .join("miccai_challenge_2018_release_1/seq_1/labels/frame001.png");
    assert_eq!(image::open(released).unwrap().into_rgb8(), colored(&ids(1, 12)));
}

#[test]
fn test_sequences_are_told_from_training_ones_by_their_folders() {
    let root = releases();
    let test = root.path().join("Test_data_and_label_release/test_data");
    frames(&test.join("seq_1"), 2);
    sequence_18(&test.join("seq_2"), 2);
    let data = Dataset::open(root.path()).unwrap();
    let test_names: Vec<&str> = names(&data).split_off(15);
    assert_eq!(test_names, ["test/seq_1", "test/seq_2"]);
    let (one, two) = (
        data.sequence("test/seq_1").unwrap(),
        data.sequence("test/seq_2").unwrap(),
    );
    assert_eq!(
        (one.role, one.is_labelled(), two.is_labelled()),
        (Role::Test, false, true)
    );
    assert!(one.labels(0).unwrap().is_none());
    assert!(
        data.notes.is_empty(),
        "unlabelled is not missing: {:?}",
        data.notes
    );
    // Opened by itself, and when a user's own folder happens to be called test.
    assert_eq!(
        names(&Dataset::open(&test.join("seq_1")).unwrap()),
        ["test/seq_1"]
    );
    let own = tempfile::tempdir().unwrap();
    let release = own.path().join("test/miccai_challenge_2018_release_1/seq_1");
    sequence_18(&release, 1);
    assert_eq!(
        names(&Dataset::open(&own.path().join("test")).unwrap()),
        ["seq_1"]
    );
}

#[test]
fn test_sequences_without_such_folders_are_told_by_their_length() {
    let root = tempfile::tempdir().unwrap();
    let pixel = image::DynamicImage::new_rgb8(1, 1);
    for (sequence, count) in [("a/seq_1", 149), ("b/seq_1", 250), ("b/seq_9", 250)] {
        for index in 0..count {
            let name = format!("left_frames/frame{index:03}.png");
            save(root.path().join(sequence).join(name), &pixel);
        }
    }
    let data = Dataset::open(root.path()).unwrap();
    assert_eq!(names(&data), ["seq_1", "seq_9", "test/seq_1"]);
}

#[test]
fn a_sequence_that_is_there_twice_has_two_names() {
    let root = tempfile::tempdir().unwrap();
    for copy in [
        "miccai_challenge_2018_release_1",
        "miccai_challenge_2018_release_1 (1)",
    ] {
        sequence_18(&root.path().join(copy).join("seq_1"), 2);
        sequence_18(&root.path().join(copy).join("seq_2"), 1);
    }
    save(
        root.path().join("repairs/seq_1_frame001.png"),
        &flat([255, 55, 0]),
    );
    let data = Dataset::open(root.path()).unwrap();
    let expected: Vec<String> = ["seq_1", "seq_2"]
        .into_iter()
        .flat_map(|s| [" (1)", ""].map(|copy| format!("miccai_challenge_2018_release_1{copy}/{s}")))
        .collect();
    assert_eq!(names(&data), expected);
    assert_eq!(
        data.notes
            .iter()
            .filter(|n| matches!(n, Note::Twice { .. }))
            .count(),
        2
    );
    // Both copies are corrected.
    let repaired: Vec<&str> = data.repairs.iter().map(|r| r.sequence.as_str()).collect();
    assert_eq!(repaired, expected[..2]);
}

#[test]
fn missing_halves_of_pairs_are_named() {
    let (root, folder) = one_sequence(3);
    fs::remove_file(folder.join("labels/frame001.png")).unwrap();
    fs::remove_file(folder.join("left_frames/frame002.png")).unwrap();
    let data = Dataset::open(root.path()).unwrap();
    let sequence = &data.sequences[0];
    assert_eq!(sequence.frames.len(), 2);
    assert!(sequence.labels(1).unwrap().is_none());
    let missing_label = Note::MissingLabel {
        sequence: "seq_1".into(),
        frame: "frame001".into(),
        path: folder.join("labels/frame001.png"),
    };
    let missing_frame = Note::MissingFrame {
        sequence: "seq_1".into(),
        path: folder.join("labels/frame002.png"),
    };
    assert_eq!(data.notes, [missing_label, missing_frame]);
}

#[test]
fn an_empty_sequence_is_left_out() {
    let (root, folder) = one_sequence(1);
    let empty = folder.with_file_name("seq_2");
    fs::create_dir_all(empty.join("left_frames")).unwrap();
    let data = Dataset::open(root.path()).unwrap();
    assert_eq!(names(&data), ["seq_1"]);
    assert_eq!(data.notes, [Note::Empty { path: empty.clone() }]);
    assert!(refusal(&empty).contains("picture"));
}

#[test]
fn both_schemas_of_labels_json_are_read() {
    let (root, folder) = one_sequence(1);
    let release = folder.parent().unwrap();
    // Each release lists only some of the classes.
    write(
        release.join("labels.json"),
        r#"[{"name": "background-tissue", "color": [0, 0, 0], "classid": 0},
            {"name": "thread", "color": [187, 155, 25], "classid": 6}]"#,
    );
    write(
        root.path().join("test_data/labels.json"),
        r#"{"classes": [{"name": "background-tissue", "color": [0, 0, 0, 128], "classid": 0, "active": true},
            {"name": "clamps", "color": [0, 255, 125, 128], "classid": 7, "active": false}]}"#,
    );
    let data = Dataset::open(root.path()).unwrap();
    assert_eq!(data.classes, ClassSet::endovis_2018());
    assert!(data.notes.is_empty(), "{:?}", data.notes);
    // Its own ids do not move ours.
    write(
        release.join("labels.json"),
        r#"[{"name": "string", "color": [187, 155, 25], "classid": 1}]"#,
    );
    let data = Dataset::open(root.path()).unwrap();
    assert_eq!(data.classes, ClassSet::endovis_2018());
    assert!(matches!(&data.notes[..], [Note::ClassTable { text, .. }] if text.contains("thread")));
}

#[test]
fn tables_of_other_classes_make_their_own_set() {
    let (root, folder) = one_sequence(1);
    let release = folder.parent().unwrap();
    let table = |text: &str| write(release.join("labels.json"), text);
    table(
        r#"[{"name": "tissue", "color": [0, 0, 0], "classid": 0}, {"name": "stapler", "color": [9, 99, 200], "classid": 1}]"#,
    );
    let data = Dataset::open(root.path()).unwrap();
    let words: Vec<&str> = data.classes.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(words, ["tissue", "stapler"]);
    save(folder.join("labels/frame000.png"), &flat([9, 99, 200]));
    assert!(
        data.sequences[0]
            .labels(0)
            .unwrap()
            .unwrap()
            .iter()
            .all(|id| *id == 1)
    );
    for (text, cause) in [
        ("{", "labels.json"),
        ("7", "labels.json"),
        (r#"{"labels": []}"#, "classes"),
        (r#"[{"name": "a", "color": [1, 2], "classid": 0}]"#, "2 channels"),
        (r#"[{"name": "a", "color": [1, 2, 300], "classid": 0}]"#, "300"),
        (r#"[{"name": "a", "color": [1, 2, 3], "classid": 255}]"#, "255"),
        (r#"[{"name": "a", "color": [1, 2, 3], "classid": 1}]"#, "class 0"),
        (
            r#"[{"name": "a", "color": [1, 2, 3], "classid": 0}, {"name": "b", "color": [5, 2, 3], "classid": 0}]"#,
            "class 0",
        ),
    ] {
        table(text);
        let message = refusal(root.path());
        assert!(
            message.contains("labels.json") && message.contains(cause),
            "{text}: {message}"
        );
    }
    table(&format!("[{}]", " ".repeat(2 << 20)));
    assert!(refusal(root.path()).contains("but at most"));
}

#[test]
fn both_challenges_in_one_folder_are_refused() {
    let (root, _) = one_sequence(1);
    frames(&root.path().join("instrument_dataset_1"), 1);
    let message = refusal(root.path());
    assert!(message.contains("2017") && message.contains("2018"), "{message}");
}

#[cfg(unix)]
#[test]
fn links_in_circles_end() {
    let (root, folder) = one_sequence(1);
    std::os::unix::fs::symlink(root.path(), folder.parent().unwrap().join("again")).unwrap();
    assert_eq!(names(&Dataset::open(root.path()).unwrap()), ["seq_1"]);
}

#[test]
fn splits_are_made_of_whole_sequences() {
    let root = releases();
    sequence_18(&root.path().join("test_data/seq_1"), 1);
    let data = Dataset::open(root.path()).unwrap();
    let chosen = |text: &str| -> Vec<&str> {
        let split: Split = text.parse().unwrap();
        data.split(&split)
            .unwrap()
            .iter()
            .map(|s| s.name.as_str())
            .collect()
    };
    assert_eq!(chosen("all").len(), 16);
    assert_eq!(chosen("val"), ["seq_2", "seq_5", "seq_9", "seq_15"]);
    assert_eq!(chosen("train").len(), 11);
    assert!(
        chosen("train")
            .iter()
            .all(|n| !chosen("val").contains(n) && !n.starts_with("test"))
    );
    assert_eq!(chosen("test"), ["test/seq_1"]);
    assert_eq!(chosen("challenge-train").len(), 15);
    let mut dealt: Vec<&str> = Vec::new();
    for fold in 1..=4 {
        let held = chosen(&format!("fold:{fold}/4"));
        let rest = chosen(&format!("fold:{fold}/4:train"));
        assert_eq!(held.len() + rest.len(), 15);
        assert!(held.iter().all(|n| !rest.contains(n)));
        dealt.extend(held);
    }
    dealt.sort_unstable();
    dealt.dedup();
    assert_eq!(dealt.len(), 15);
    let refused = |text: &str| data.split(&text.parse().unwrap()).unwrap_err().to_string();
    assert!(refused("fold2017:1").contains("EndoVis 2017"));
    assert!(refused("fold:1/16").contains("15 training sequences"));
    let small = Dataset::open(&root.path().join("miccai_challenge_release_4/seq_13")).unwrap();
    let message = small.split(&"val".parse().unwrap()).unwrap_err().to_string();
    assert!(message.contains("seq_13"), "{message}");
}
