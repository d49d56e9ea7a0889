//! `masam data import`: exports of COCO and CVAT, and videos with mask videos.

use crate::support::*;
use image::{Rgb, RgbImage};
use masam::data::Dataset;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Command;

const WIDTH: u32 = 40;
const HEIGHT: u32 = 30;

fn picture(path: &Path, seed: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| Rgb([x as u8 * 5, y as u8 * 7, seed]))
        .save(path)
        .unwrap();
}

/// Imports, and gives the classes and the labels of each frame by its name.
fn imported(source: &Path, out: &Path) -> (Vec<String>, Vec<(String, image::GrayImage)>) {
    let (code, said, err) = masam(&["data", "import", text(source), text(out)]);
    assert_eq!(code, 0, "{err}");
    assert!(said.contains("frames"), "{said}");
    assert_eq!(check(out, &[]).0, 0);
    let data = Dataset::open(out).unwrap();
    let classes = data.classes.iter().map(|c| c.name.clone()).collect();
    let labels = data.sequences.iter().flat_map(|s| {
        (0..s.frames.len()).map(|index| {
            (
                format!("{}/{}", s.name, s.frames[index].name),
                s.labels(index).unwrap().unwrap(),
            )
        })
    });
    (classes, labels.collect())
}

/// The picture with rectangles of classes.
fn painted(rectangles: &[(u8, [u32; 4])]) -> image::GrayImage {
    let mut mask = image::GrayImage::new(WIDTH, HEIGHT);
    for (class, [left, top, right, bottom]) in rectangles {
        for (x, y) in (*left..*right).flat_map(|x| (*top..*bottom).map(move |y| (x, y))) {
            mask.put_pixel(x, y, image::Luma([*class]));
        }
    }
    mask
}

/// Run lengths of a rectangle down the columns.
fn runs([left, top, right, bottom]: [u32; 4]) -> Vec<u32> {
    let mask = painted(&[(1, [left, top, right, bottom])]);
    let (mut runs, mut now, mut count) = (Vec::new(), 0, 0);
    for (x, y) in (0..WIDTH).flat_map(|x| (0..HEIGHT).map(move |y| (x, y))) {
        if mask.get_pixel(x, y)[0] != now {
            runs.push(count);
            (now, count) = (1 - now, 0);
        }
        count += 1;
    }
    runs.push(count);
    runs
}

fn coco(root: &Path, name: &str, annotations: serde_json::Value) {
    let document = json!({
        "images": [{"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
                   {"id": 9, "file_name": "b.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 5, "name": "vessel"}, {"id": 2, "name": "liver"}],
        "annotations": annotations,
    });
    let path = root.join("annotations").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, document.to_string()).unwrap();
}

#[test]
fn coco_becomes_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let (root, out) = (folder.path().join("coco"), folder.path().join("out"));
    picture(&root.join("images/a.png"), 1);
    picture(&root.join("images/b.png"), 2);
    let inner = [10, 8, 20, 18];
    coco(
        &root,
        "instances_default.json",
        json!([
            {"id": 1, "image_id": 7, "category_id": 2, "segmentation": [[2, 2, 30, 2, 30, 25, 2, 25]], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 5, "segmentation": {"counts": runs(inner), "size": [HEIGHT, WIDTH]}, "iscrowd": 1},
        ]),
    );
    // Opened as it is, it says what to do.
    let (code, _, err) = check(&root, &[]);
    assert!(code == 1 && err.contains("masam data import"), "{err}");
    let (classes, labels) = imported(&root, &out);
    assert_eq!(classes, ["background", "liver", "vessel"]);
    let expected = painted(&[(1, [2, 2, 30, 25]), (2, inner)]);
    assert_eq!(
        labels,
        [("out/a".to_owned(), expected), ("out/b".to_owned(), painted(&[]))]
    );
    // A folder in use is left alone.
    assert_eq!(masam(&["data", "import", text(&root), text(&out)]).0, 1);
    // Parts of an export are sequences of their own.
    fs::rename(
        root.join("annotations/instances_default.json"),
        root.join("annotations/instances_train.json"),
    )
    .unwrap();
    for name in ["a.png", "b.png"] {
        fs::create_dir_all(root.join("images/train")).unwrap();
        fs::rename(
            root.join("images").join(name),
            root.join("images/train").join(name),
        )
        .unwrap();
        picture(&root.join("images/val").join(name), 3);
    }
    coco(&root, "instances_val.json", json!([]));
    let (_, labels) = imported(&root, &folder.path().join("parts"));
    let names: Vec<&str> = labels.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["train/a", "train/b", "val/a", "val/b"]);
}

#[test]
fn coco_that_cannot_be_painted_is_refused() {
    let wrong = [
        (
            json!([{"id": 3, "image_id": 7, "category_id": 2, "bbox": [1, 1, 5, 5]}]),
            "annotation 3",
        ),
        (
            json!([{"id": 3, "image_id": 7, "category_id": 8, "segmentation": [[1, 1, 5, 1, 5, 5]]}]),
            "category is not listed",
        ),
        (
            json!([{"id": 3, "image_id": 7, "category_id": 2, "segmentation": [[1, 1, 5, 1]]}]),
            "annotation 3",
        ),
        (
            json!([{"id": 3, "image_id": 7, "category_id": 2, "segmentation": {"counts": [3, 4], "size": [HEIGHT, WIDTH]}}]),
            "annotation 3",
        ),
        (
            json!([{"id": 3, "image_id": 1, "category_id": 2, "segmentation": [[1, 1, 5, 1, 5, 5]]}]),
            "not listed",
        ),
    ];
    for (annotations, why) in wrong {
        let folder = tempfile::tempdir().unwrap();
        picture(&folder.path().join("images/a.png"), 1);
        picture(&folder.path().join("images/b.png"), 1);
        coco(folder.path(), "instances.json", annotations);
        let (code, _, err) = masam(&[
            "data",
            "import",
            text(folder.path()),
            text(&folder.path().join("out")),
        ]);
        assert!(code == 1 && err.contains(why), "{err}");
    }
}

#[test]
fn cvat_becomes_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let (root, out) = (folder.path().join("cvat"), folder.path().join("out"));
    picture(&root.join("images/a.png"), 1);
    let xml = |shapes: &str| {
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<annotations><version>1.1</version><meta><task><labels>\
             <label><name>liver</name><color>#fa3253</color><attributes></attributes></label>\
             <label><name>vessel</name><color>#33ddff</color></label></labels></task></meta>\
             <image id=\"0\" name=\"a.png\" width=\"{WIDTH}\" height=\"{HEIGHT}\">{shapes}</image></annotations>"
        );
        fs::write(root.join("annotations.xml"), text).unwrap();
    };
    xml(
        "<box label=\"vessel\" xtl=\"10\" ytl=\"8\" xbr=\"20\" ybr=\"18\" z_order=\"2\"/>\
         <polygon label=\"liver\" points=\"2,2;30,2;30,25;2,25\" z_order=\"1\"/>\
         <mask label=\"vessel\" rle=\"1, 2, 3\" left=\"33\" top=\"27\" width=\"3\" height=\"2\" z_order=\"3\"/><tag label=\"liver\"/>",
    );
    let (classes, labels) = imported(&root, &out);
    assert_eq!(classes, ["background", "liver", "vessel"]);
    let expected = painted(&[(1, [2, 2, 30, 25]), (2, [10, 8, 20, 18]), (2, [34, 27, 36, 28])]);
    assert_eq!(labels, [("out/a".to_owned(), expected)]);
    assert_eq!(
        Dataset::open(&out).unwrap().classes.get(1).unwrap().color,
        [0xfa, 0x32, 0x53]
    );
    for (shapes, why) in [
        (
            "<polyline label=\"liver\" points=\"2,2;30,2\"/>",
            "polyline is no area",
        ),
        (
            "<box label=\"bone\" xtl=\"1\" ytl=\"1\" xbr=\"2\" ybr=\"2\"/>",
            "bone is not listed",
        ),
        ("<polygon label=\"liver\" points=\"2,2;30\"/>", "invalid points"),
    ] {
        xml(shapes);
        let (code, _, err) = masam(&["data", "import", text(&root), text(&folder.path().join("bad"))]);
        assert!(code == 1 && err.contains(why), "{err}");
    }
}

/// Encodes the pictures of a folder by a description.
fn encode(folder: &Path, caps: &str, tail: &str, out: &Path) -> bool {
    fs::create_dir_all(out.parent().unwrap()).unwrap();
    let location = format!("location={}/f%03d.png", text(folder));
    let out = format!("location={}", text(out));
    let mut command = Command::new("gst-launch-1.0");
    command.args([
        "-q",
        "multifilesrc",
        &location,
        "caps=image/png,framerate=5/1",
        "!",
        "pngdec",
        "!",
    ]);
    command
        .args(["videoconvert", "!", caps, "!"])
        .args(tail.split(' '))
        .args(["!", "filesink", &out]);
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn videos_with_mask_videos_become_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let (root, out) = (folder.path().join("videos"), folder.path().join("out"));
    let expected: Vec<image::GrayImage> = (0..4)
        .map(|at| painted(&[(1, [at * 3, 2, 20, 20]), (2, [25, 5, 35, 9 + at])]))
        .collect();
    let (frames, masks) = (folder.path().join("f"), folder.path().join("m"));
    fs::create_dir_all(&masks).unwrap();
    for (index, mask) in expected.iter().enumerate() {
        picture(&frames.join(format!("f{index:03}.png")), index as u8);
        mask.save(masks.join(format!("f{index:03}.png"))).unwrap();
    }
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("classes.json"), r#"["background", "liver", "vessel"]"#).unwrap();
    let gray = "video/x-raw,format=GRAY8";
    assert!(encode(
        &frames,
        "video/x-raw,format=I420",
        "vp8enc ! matroskamux",
        &root.join("images/one.mkv")
    ));
    if !encode(
        &masks,
        gray,
        "avenc_ffv1 ! matroskamux",
        &root.join("masks/one.mkv"),
    ) {
        eprintln!("SKIP: no FFV1 encoder in GStreamer (gstreamer1.0-libav): only PNG in QuickTime is tried");
        fs::remove_file(root.join("masks/one.mkv")).unwrap_or_default();
        assert!(encode(
            &masks,
            gray,
            "pngenc ! qtmux",
            &root.join("masks/one.mov")
        ));
    }
    let (classes, labels) = imported(&root, &out);
    assert_eq!(classes, ["background", "liver", "vessel"]);
    let found: Vec<&image::GrayImage> = labels.iter().map(|(_, labels)| labels).collect();
    assert_eq!(found, expected.iter().collect::<Vec<_>>());
    // PNG in QuickTime, and masks that a codec has changed.
    fs::remove_dir_all(root.join("masks")).unwrap();
    assert!(encode(
        &masks,
        gray,
        "pngenc ! qtmux",
        &root.join("masks/one_mask.mov")
    ));
    assert_eq!(
        imported(&root, &folder.path().join("png")).1,
        labels
            .iter()
            .map(|(name, l)| (name.clone(), l.clone()))
            .collect::<Vec<_>>()
    );
    fs::remove_dir_all(root.join("masks")).unwrap();
    assert!(encode(
        &masks,
        "video/x-raw,format=I420",
        "vp8enc ! matroskamux",
        &root.join("masks/one.mkv")
    ));
    let (code, _, err) = masam(&["data", "import", text(&root), text(&folder.path().join("lossy"))]);
    assert!(
        code == 1 && err.contains("video/x-vp8") && err.contains("FFV1"),
        "{err}"
    );
    fs::remove_dir_all(root.join("masks")).unwrap();
    fs::remove_file(masks.join("f003.png")).unwrap();
    assert!(encode(
        &masks,
        gray,
        "pngenc ! qtmux",
        &root.join("masks/one.mov")
    ));
    let (code, _, err) = masam(&["data", "import", text(&root), text(&folder.path().join("short"))]);
    assert!(code == 1 && err.contains("3 masks, but 4 frames"), "{err}");
}
