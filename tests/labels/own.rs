//! Data sets of one's own: images, masks and a class table, in the layouts of docs/datasets.md.

use crate::support::*;
use image::{GrayImage, Luma, Rgb, RgbImage};
use masam::data::{Dataset, Kind, Role};
use std::fs;
use std::path::Path;

const COLORS: [[u8; 3]; 3] = [[0, 0, 0], [200, 30, 30], [30, 200, 30]];

fn image(seed: u32) -> RgbImage {
    RgbImage::from_fn(48, 32, |x, y| {
        Rgb([(x * 5 + seed) as u8, (y * 7) as u8, seed as u8])
    })
}

fn ids(seed: u32) -> GrayImage {
    GrayImage::from_fn(48, 32, |x, _| Luma([((x / 16 + seed) % 3) as u8]))
}

fn colored(seed: u32) -> RgbImage {
    RgbImage::from_fn(48, 32, |x, y| {
        Rgb(COLORS[usize::from(ids(seed).get_pixel(x, y)[0])])
    })
}

/// Writes `count` frames with masks of ids, or of colors.
fn write(images: &Path, masks: &Path, count: u32, in_colors: bool) {
    fs::create_dir_all(images).unwrap();
    fs::create_dir_all(masks).unwrap();
    for index in 0..count {
        let name = format!("f{index}.png");
        image(index).save(images.join(&name)).unwrap();
        match in_colors {
            true => colored(index).save(masks.join(&name)).unwrap(),
            false => ids(index).save(masks.join(&name)).unwrap(),
        }
    }
}

fn table(root: &Path, name: &str, text: &str) {
    fs::write(root.join(name), text).unwrap();
}

const JSON: &str = r##"[{"id": 0, "name": "background"}, {"id": 1, "name": "liver", "color": "#c81e1e"},
    {"id": 2, "name": "vessel", "color": [30, 200, 30]}]"##;

fn names(data: &Dataset) -> Vec<(&str, Role)> {
    data.sequences.iter().map(|s| (s.name.as_str(), s.role)).collect()
}

/// Folders that hold images and masks, or `images:masks`; their names; the sequences that come of them.
type Layout<'a> = (&'a [&'a str], &'a str, &'a str, &'a [(&'a str, Role)]);

#[test]
fn every_layout_is_a_data_set() {
    let layouts: [Layout<'_>; 5] = [
        (&[""], "images", "masks", &[("data", Role::Train)]),
        (
            &["images/a:masks/a", "images/b:masks/b"],
            "",
            "",
            &[("a", Role::Train), ("b", Role::Train)],
        ),
        (
            &["train", "val"],
            "images",
            "labels",
            &[("train", Role::Train), ("val", Role::Validation)],
        ),
        (
            &["train/a", "val/b", "test/c"],
            "imgs",
            "gt",
            &[
                ("train/a", Role::Train),
                ("val/b", Role::Validation),
                ("test/c", Role::Test),
            ],
        ),
        (
            &["x/Images/train/a:x/Masks/train/a", "x/Images/val/b:x/Masks/val/b"],
            "",
            "",
            &[("x/train/a", Role::Train), ("x/val/b", Role::Validation)],
        ),
    ];
    for (folders, images, masks, expected) in layouts {
        for in_colors in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("data");
            for folder in folders {
                let (own_images, own_masks) = match folder.split_once(':') {
                    Some((images, masks)) => (root.join(images), root.join(masks)),
                    None => (root.join(folder).join(images), root.join(folder).join(masks)),
                };
                write(&own_images, &own_masks, 3, in_colors);
            }
            let in_color = JSON.replace("\"background\"", "\"background\", \"color\": \"#000000\"");
            table(&root, "classes.json", if in_colors { &in_color } else { JSON });
            let data = Dataset::open(&root).unwrap();
            assert_eq!(
                (data.kind, names(&data)),
                (Kind::Folders, expected.to_vec()),
                "{folders:?}"
            );
            assert!(data.notes.is_empty(), "{:?}", data.notes);
            for sequence in &data.sequences {
                for index in 0..3 {
                    assert_eq!(sequence.image(index).unwrap(), image(index as u32));
                    assert_eq!(sequence.labels(index).unwrap().unwrap(), ids(index as u32));
                }
            }
            assert_eq!(check(&root, &[]).0, 0);
            if expected.iter().any(|(_, role)| *role == Role::Validation) {
                let split = |text: &str| data.split(&text.parse().unwrap()).unwrap().len();
                assert_eq!(
                    (split("train"), split("val"), split("all")),
                    (1, 1, expected.len())
                );
            }
        }
    }
}

#[test]
fn lists_part_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(&root.join("JPEGImages"), &root.join("SegmentationClass"), 6, true);
    fs::create_dir_all(root.join("SegmentationObject")).unwrap();
    fs::create_dir_all(root.join("ImageSets/Segmentation")).unwrap();
    table(
        root,
        "labelmap.txt",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nliver:200,30,30::\nvessel:30,200,30::\n",
    );
    table(root, "train.txt", "f0.png\nf1\nf2\n");
    table(root, "val.txt", "JPEGImages/f4.png SegmentationClass/f4.png\n");
    let data = Dataset::open(root).unwrap();
    assert_eq!(names(&data), [("train", Role::Train), ("val", Role::Validation)]);
    assert_eq!(
        (
            data.sequences[0].frames.len(),
            data.sequences[1].frames[0].name.as_str()
        ),
        (3, "f4")
    );
    assert_eq!(data.sequences[1].labels(0).unwrap().unwrap(), ids(4));
    assert!(
        data.notes
            .iter()
            .any(|note| note.to_string().contains("2 frames in no list")),
        "{:?}",
        data.notes
    );
    table(root, "test.txt", "f0\n");
    assert!(Dataset::open(root).unwrap_err().to_string().contains("f0"));
}

#[test]
fn every_class_table_means_the_same() {
    let in_ids: [(&str, &str); 7] = [
        ("classes.json", r#"["background", "liver", "vessel"]"#),
        ("classes.json", r#"{"liver": 1, "vessel": 2}"#),
        (
            "labels.json",
            r#"{"0": "background", "1": "liver", "2": "vessel"}"#,
        ),
        (
            "labels.json",
            r#"{"classes": [{"name": "liver", "id": "1"}, {"name": "vessel", "id": "2"}]}"#,
        ),
        ("classes.csv", "id,name\n0,background\n1,liver\n2,vessel\n"),
        ("classes.csv", "name;id\nliver;1\nvessel;2\n"),
        (
            "labels.csv",
            "id,name,color\n0,background,#000000\n1,liver,#c81e1e\n2,vessel,#1ec81e\n",
        ),
    ];
    let in_colors: [(&str, &str); 4] = [
        (
            "classes.json",
            r#"{"liver": [200, 30, 30], "vessel": [30, 200, 30]}"#,
        ),
        (
            "classes.json",
            r#"{"background": [0.0, 0.0, 0.0], "liver": [0.7843137, 0.1176470, 0.117647], "vessel": [0.117647, 0.7843137, 0.117647]}"#,
        ),
        (
            "class_dict.csv",
            "name,r,g,b\nbackground,0,0,0\nliver,200,30,30\nvessel,30,200,30\n",
        ),
        (
            "labelmap.txt",
            "background:0,0,0::\nliver:200,30,30::\nvessel:30,200,30::\n",
        ),
    ];
    let cases = in_ids
        .iter()
        .map(|c| (c, false))
        .chain(in_colors.iter().map(|c| (c, true)));
    for (&(name, text), colors) in cases {
        let folder = tempfile::tempdir().unwrap();
        write(
            &folder.path().join("images"),
            &folder.path().join("masks"),
            3,
            colors,
        );
        table(folder.path(), name, text);
        let data = Dataset::open(folder.path()).unwrap_or_else(|e| panic!("{text}: {e}"));
        let classes: Vec<&str> = data.classes.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(classes, ["background", "liver", "vessel"], "{text}");
        assert_eq!(data.sequences[0].labels(2).unwrap().unwrap(), ids(2), "{text}");
        assert_eq!(check(folder.path(), &[]).0, 0, "{text}");
    }
}

#[test]
fn what_is_not_certain_is_refused() {
    let refused: [(&str, bool, &str, &str); 4] = [
        (
            "a list that begins with an object, and ids",
            false,
            r#"["liver", "vessel", "bone"]"#,
            "states no ids",
        ),
        (
            "a color twice",
            true,
            r##"[{"name": "a", "id": 0, "color": "#000000"}, {"name": "b", "id": 1, "color": "#000000"}]"##,
            "same color",
        ),
        (
            "some ids",
            false,
            r#"[{"name": "a", "id": 0}, {"name": "b"}, {"name": "c"}]"#,
            "expected all or none",
        ),
        (
            "a color that is an id of another class",
            false,
            r##"[{"id": 0, "name": "bg", "color": "#000000"}, {"id": 1, "name": "a", "color": "#020202"},
            {"id": 2, "name": "b", "color": "#010101"}]"##,
            "as a color and another one as an id",
        ),
    ];
    for (what, colors, text, why) in refused {
        let folder = tempfile::tempdir().unwrap();
        write(
            &folder.path().join("images"),
            &folder.path().join("masks"),
            3,
            colors,
        );
        table(folder.path(), "classes.json", text);
        let (code, report, err) = check(folder.path(), &[]);
        let said = report.map_or(err, |report| report["errors"].to_string());
        assert_eq!(code, 1, "{what}: {said}");
        assert!(said.contains(why), "{what}: {said}");
    }
}

#[test]
fn two_classes_may_be_0_and_255() {
    for largest in [1_u8, 255] {
        let folder = tempfile::tempdir().unwrap();
        write(
            &folder.path().join("images"),
            &folder.path().join("masks"),
            3,
            false,
        );
        for index in 0..3 {
            let mask = ids(index);
            let two = GrayImage::from_fn(48, 32, |x, y| {
                Luma([u8::from(mask.get_pixel(x, y)[0] > 0) * largest])
            });
            let path = folder.path().join(format!("masks/f{index}.png"));
            match largest {
                255 => two.save(path).unwrap(),
                _ => save_png(&path, &two, 1, None),
            }
        }
        table(folder.path(), "classes.json", r#"["background", "liver"]"#);
        let (code, report, err) = check(folder.path(), &[]);
        assert_eq!(code, 0, "{err}");
        let read_as = report.unwrap()["labels"]["read_as"][0].to_string();
        assert!(read_as.contains(&format!("{largest} is liver")), "{read_as}");
        let data = Dataset::open(folder.path()).unwrap();
        let labels = data.sequences[0].labels(0).unwrap().unwrap();
        assert_eq!([0, 20, 40].map(|x| labels.get_pixel(x, 9)[0]), [0, 1, 1]);
    }
}
