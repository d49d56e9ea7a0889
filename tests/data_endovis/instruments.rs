//! EndoVis 2017: masks of instruments to class ids.

use crate::support::*;
use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage};
use masam::data::{Dataset, DatasetConfig, Kind, Note, Role, Task2017};
use masam::labels::NO_MASK;
use std::path::{Path, PathBuf};

/// A mask of one value in a few columns, 0 elsewhere.
fn mask(columns: std::ops::Range<u32>, value: u8) -> DynamicImage {
    GrayImage::from_fn(WIDTH, HEIGHT, |x, _| {
        Luma([if columns.contains(&x) { value } else { 0 }])
    })
    .into()
}

/// A training sequence of one frame with these masks.
fn sequence(folder: &Path, masks: &[(&str, DynamicImage)]) {
    frames(folder, 1);
    for (name, mask) in masks {
        save(folder.join("ground_truth").join(name).join("frame000.png"), mask);
    }
}

/// The first row of class ids of the first frame of the first sequence.
fn row(root: &Path, task_2017: Task2017) -> Vec<u8> {
    let data = Dataset::open_with(
        root,
        DatasetConfig {
            task_2017,
            ..DatasetConfig::default()
        },
    )
    .unwrap();
    let labels = data.sequences[0].labels(0).unwrap().unwrap();
    labels.into_raw()[..WIDTH as usize].to_vec()
}

/// `(columns, id)` pairs as a row.
fn runs(runs: &[(usize, u8)]) -> Vec<u8> {
    runs.iter().flat_map(|&(columns, id)| vec![id; columns]).collect()
}

#[test]
fn masks_are_combined_by_the_larger_class() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("instrument_1_4_training/instrument_dataset_1");
    let mut forceps = mask(0..6, 10).into_luma8();
    (6..10).for_each(|x| (0..HEIGHT).for_each(|y| forceps.put_pixel(x, y, Luma([20]))));
    sequence(
        &folder,
        &[
            ("Left_Prograsp_Forceps_labels", forceps.into()),
            ("Maryland_Bipolar_Forceps_labels", mask(4..8, 30)),
            ("Other_labels", mask(9..15, 40)),
        ],
    );
    let data = Dataset::open(root.path()).unwrap();
    assert_eq!(
        (data.kind, names(&data)),
        (Kind::EndoVis2017, vec!["instrument_dataset_1"])
    );
    let classes: Vec<&str> = data.classes.iter().map(|c| c.name.as_str()).collect();
    // 2018 has the last two the other way round.
    assert_eq!(
        classes,
        [
            "background",
            "instrument-shaft",
            "instrument-wrist",
            "instrument-clasper"
        ]
    );
    assert!(data.notes.is_empty(), "{:?}", data.notes);
    assert_eq!(
        row(root.path(), Task2017::Parts),
        runs(&[(4, 1), (4, 3), (2, 2), (10, 0)])
    );
    assert_eq!(row(root.path(), Task2017::Binary), runs(&[(10, 1), (10, 0)]));
    assert_eq!(row(root.path(), Task2017::Type), runs(&[(9, 2), (6, 7), (5, 0)]));
}

#[test]
fn a_mask_in_three_channels_is_the_same() {
    let root = tempfile::tempdir().unwrap();
    let rgb = DynamicImage::from(mask(2..5, 20).into_rgb8());
    sequence(
        &root.path().join("instrument_dataset_3"),
        &[("Left_Large_Needle_Driver_labels", rgb)],
    );
    assert_eq!(
        row(root.path(), Task2017::Parts),
        runs(&[(2, 0), (3, 2), (15, 0)])
    );
}

#[test]
fn the_border_is_cut_off_pictures_and_masks() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("instrument_dataset_1");
    // The corners of the scene in the stored picture, and a pixel just outside each.
    let inside = [(320, 28), (1599, 28), (320, 1051), (1599, 1051)];
    let outside = [(319, 28), (1600, 28), (320, 27), (1599, 1052)];
    let mut picture = RgbImage::new(1920, 1080);
    let mut parts = GrayImage::new(1920, 1080);
    for (x, y) in inside {
        picture.put_pixel(x, y, Rgb([200, 100, 50]));
        parts.put_pixel(x, y, Luma([30]));
    }
    for (x, y) in outside {
        picture.put_pixel(x, y, Rgb([255; 3]));
        parts.put_pixel(x, y, Luma([10]));
    }
    save(folder.join("left_frames/frame000.png"), &picture.into());
    let mask = folder.join("ground_truth/Prograsp_Forceps_labels/frame000.png");
    save(mask.clone(), &parts.clone().into());
    let data = Dataset::open(root.path()).unwrap();
    let sequence = &data.sequences[0];
    let size = sequence.size(0).unwrap();
    assert_eq!((size.width_px, size.height_px), (1280, 1024));
    let (image, labels) = (sequence.image(0).unwrap(), sequence.labels(0).unwrap().unwrap());
    assert_eq!(
        (image.dimensions(), labels.dimensions()),
        ((1280, 1024), (1280, 1024))
    );
    for (x, y) in [(0, 0), (1279, 0), (0, 1023), (1279, 1023)] {
        assert_eq!(
            (image.get_pixel(x, y).0, labels.get_pixel(x, y)[0]),
            ([200, 100, 50], 3)
        );
    }
    assert_eq!(labels.iter().filter(|id| **id > 0).count(), 4);
    assert!(image.pixels().all(|p| p.0 != [255; 3]));
    // Masks that someone has cut already fit as well; others do not.
    save(mask.clone(), &labels.into());
    assert_eq!(sequence.labels(0).unwrap().unwrap().dimensions(), (1280, 1024));
    save(mask, &DynamicImage::new_luma8(1280, 1000));
    let message = sequence.labels(0).unwrap_err().to_string();
    assert!(
        message.contains("1280x1000") && message.contains("1920x1080"),
        "{message}"
    );
}

#[test]
fn values_without_a_meaning_are_ignored_and_counted() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("instrument_dataset_2");
    sequence(
        &folder,
        &[
            ("Prograsp_Forceps_labels", mask(0..3, 17)),
            ("Vessel_Sealer_labels", mask(1..6, 30)),
        ],
    );
    let data = Dataset::open(root.path()).unwrap();
    let labels = data.sequences[0].read_labels(0).unwrap().unwrap();
    assert_eq!(
        labels.classes.as_raw()[..7],
        [NO_MASK, NO_MASK, NO_MASK, 3, 3, 3, 0]
    );
    assert_eq!(labels.tally.unknown_pixels(), u64::from(3 * HEIGHT));
    assert!(labels.tally.colors.contains_key(&[17; 3]));
    // A folder whose instrument is not known is still a part and an instrument, but of no type.
    save(
        folder.join("ground_truth/Stapler/frame000.png"),
        &mask(10..12, 10),
    );
    let data = Dataset::open(root.path()).unwrap();
    assert!(matches!(&data.notes[..], [Note::ClassTable { path, .. }] if path.ends_with("Stapler")));
    assert_eq!(row(root.path(), Task2017::Parts)[10..12], [1, 1]);
    assert_eq!(row(root.path(), Task2017::Type)[10..12], [NO_MASK, NO_MASK]);
}

#[test]
fn a_frame_without_one_of_its_masks_has_no_labels() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("instrument_dataset_1");
    sequence(&folder, &[("Prograsp_Forceps_labels", mask(0..3, 10))]);
    frames(&folder, 2);
    let extra = save(
        folder.join("ground_truth/Prograsp_Forceps_labels/frame007.png"),
        &mask(0..3, 10),
    );
    let data = Dataset::open(root.path()).unwrap();
    let sequence = &data.sequences[0];
    assert!(sequence.labels(0).unwrap().is_some() && sequence.labels(1).unwrap().is_none());
    assert_eq!(data.notes.len(), 2, "{:?}", data.notes);
    assert!(matches!(&data.notes[0], Note::MissingLabel { frame, .. } if frame == "frame001"));
    assert!(matches!(&data.notes[1], Note::MissingFrame { path, .. } if *path == extra));
}

/// A test sequence whose labels are a download of their own, one frame with the values of the test labels.
fn test_set(root: &Path) -> PathBuf {
    let frame = "instrument_1_4_testing/instrument_dataset_1/left_frames/frame225.png";
    save(root.join(frame), &scene());
    let truth = root.join("instrument_2017_test/instrument_2017_test/instrument_dataset_1");
    let values = [0, 30, 100, 255, 200];
    let parts = GrayImage::from_fn(WIDTH, HEIGHT, |x, _| Luma([values[(x / 4) as usize]]));
    let types = GrayImage::from_fn(WIDTH, HEIGHT, |x, _| Luma([(x / 2) as u8]));
    let binary = GrayImage::from_fn(WIDTH, HEIGHT, |x, _| Luma([if x < 5 { 0 } else { 255 }]));
    for (name, mask) in [
        ("PartsSegmentation", parts),
        ("TypeSegmentation", types),
        ("BinarySegmentation", binary),
    ] {
        save(truth.join(name).join("frame225.png"), &mask.into());
    }
    truth
}

#[test]
fn labels_of_the_test_set_find_their_sequence() {
    let root = tempfile::tempdir().unwrap();
    let truth = test_set(root.path());
    let data = Dataset::open(root.path()).unwrap();
    assert_eq!(names(&data), ["test/instrument_dataset_1"]);
    assert!(data.notes.is_empty(), "{:?}", data.notes);
    assert_eq!(data.sequences[0].role, Role::Test);
    // 30 is a shaft here and a clasper in training masks; the probe is no robotic instrument.
    let parts = runs(&[(4, 0), (4, 1), (4, 2), (4, 3), (4, 0)]);
    assert_eq!(row(root.path(), Task2017::Parts), parts);
    assert_eq!(row(root.path(), Task2017::Binary), runs(&[(5, 0), (15, 1)]));
    let types: Vec<u8> = (0..20).map(|x| if x / 2 > 7 { NO_MASK } else { x / 2 }).collect();
    assert_eq!(row(root.path(), Task2017::Type), types);
    // Labels nobody wants are told.
    let lost = truth.with_file_name("instrument_dataset_9");
    save(lost.join("PartsSegmentation/frame000.png"), &mask(0..3, 30));
    let data = Dataset::open(root.path()).unwrap();
    assert_eq!(data.notes, [Note::UnusedLabels { path: lost }]);
}

#[test]
fn mappings_are_followed_where_they_say_something_new() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("instrument_dataset_1");
    sequence(&folder, &[("Prograsp_Forceps_labels", mask(0..3, 30))]);
    let mapping = |text: &str| write(root.path().join("parts_mapping.json"), text);
    let parts = || row(root.path(), Task2017::Parts)[..4].to_vec();
    for (text, expected) in [
        (r#"{"Shaft": 10, "Wrist": 20, "Claspers": 30}"#, [3, 3, 3, 0]),
        // The values of the test labels; followed, claspers would become shafts.
        (
            r#"{"Shaft": 30, "Wrist": 100, "Claspers": 255, "Probe": 200}"#,
            [3, 3, 3, 0],
        ),
        (r#"{"Claspers": 3, "Shaft": 1, "Wrist": 30}"#, [2, 2, 2, 0]),
        (r#"{"1": "Shaft", "30": "Wrist", "3": "Claspers"}"#, [2, 2, 2, 0]),
        (
            r#"{"Shaft": 1, "Wrist": 2, "Claspers": 3, "Probe": 30}"#,
            [0, 0, 0, 0],
        ),
        (
            r#"{"Shaft": 1, "Wrist": 2, "Claspers": 3}"#,
            [NO_MASK, NO_MASK, NO_MASK, 0],
        ),
    ] {
        mapping(text);
        assert_eq!(parts(), expected, "{text}");
    }
    for (text, cause) in [
        ("[]", "object"),
        (r#"{"Shaft": 1}"#, "wrist"),
        (r#"{"Shaft": 256, "Wrist": 2, "Claspers": 3}"#, "256"),
        (r#"{"Shaft": -1, "Wrist": 2, "Claspers": 3}"#, "-1"),
        (r#"{"Shaft": "a", "Wrist": 2, "Claspers": 3}"#, "Shaft"),
        ("{", "parts_mapping.json"),
    ] {
        mapping(text);
        let message = refusal(root.path());
        assert!(
            message.contains("parts_mapping.json") && message.contains(cause),
            "{text}: {message}"
        );
    }
}

#[test]
fn a_mapping_of_types_renames_the_values_of_the_test_set() {
    let root = tempfile::tempdir().unwrap();
    test_set(root.path());
    write(
        root.path().join("type_mapping.json"),
        r#"{"Background": 0, "Vessel Sealer": 1, "Bipolar Forceps": 2}"#,
    );
    assert_eq!(row(root.path(), Task2017::Type)[..7], [0, 0, 4, 4, 1, 1, NO_MASK]);
    write(root.path().join("type_mapping.json"), r#"{"Spoon": 1}"#);
    let config = DatasetConfig {
        task_2017: Task2017::Type,
        ..DatasetConfig::default()
    };
    let message = Dataset::open_with(root.path(), config).unwrap_err().to_string();
    assert!(message.contains("spoon"), "{message}");
}

#[test]
fn the_folds_hold_out_two_sequences_each() {
    let root = tempfile::tempdir().unwrap();
    for number in 1..=8 {
        let half = if number < 5 { "1_4" } else { "5_8" };
        let folder = format!("instrument_{half}_training/instrument_dataset_{number}");
        sequence(&root.path().join(folder), &[("Other_labels", mask(0..1, 1))]);
    }
    save(
        root.path()
            .join("instrument_9_10_testing/instrument_dataset_10/left_frames/frame000.png"),
        &scene(),
    );
    let data = Dataset::open(root.path()).unwrap();
    assert_eq!(names(&data).last(), Some(&"test/instrument_dataset_10"));
    let numbers = |text: &str| -> Vec<u32> {
        let sequences = data.split(&text.parse().unwrap()).unwrap();
        sequences.iter().map(|s| s.number.unwrap()).collect()
    };
    assert_eq!(numbers("fold2017:1"), [1, 3]);
    assert_eq!(numbers("fold2017:2"), [2, 5]);
    assert_eq!(numbers("fold2017:3"), [4, 8]);
    assert_eq!(numbers("fold2017:4"), [6, 7]);
    assert_eq!(numbers("fold2017:1:train"), [2, 4, 5, 6, 7, 8]);
    assert_eq!(numbers("test"), [10]);
    let refused = data.split(&"val".parse().unwrap()).unwrap_err().to_string();
    assert!(refused.contains("EndoVis 2018"), "{refused}");
}
