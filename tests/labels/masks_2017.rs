//! EndoVis 2017's masks of one instrument each, stored in other ways than they were released.

use crate::support::*;
use image::{DynamicImage, GrayImage, ImageBuffer, Luma, Rgb, RgbImage};
use masam::data::{Dataset, DatasetConfig, Task2017};
use std::fs;
use std::path::Path;

/// A sequence of one frame with one mask of the values 10, 20 and 30; gives the mask's place.
fn sequence(root: &Path) -> (std::path::PathBuf, GrayImage) {
    let folder = root.join("instrument_dataset_1");
    let masks = folder.join("ground_truth/Left_Prograsp_Forceps_labels");
    fs::create_dir_all(folder.join("left_frames")).unwrap();
    fs::create_dir_all(&masks).unwrap();
    RgbImage::from_fn(64, 48, |x, y| Rgb([x as u8, y as u8, 9]))
        .save(folder.join("left_frames/frame000.png"))
        .unwrap();
    let mask = GrayImage::from_fn(64, 48, |x, _| Luma([(x / 16) as u8 * 10]));
    (masks.join("frame000.png"), mask)
}

fn wide(mask: &GrayImage, factor: u16) -> DynamicImage {
    let values = mask.as_raw().iter().map(|v| u16::from(*v) * factor).collect();
    ImageBuffer::<Luma<u16>, Vec<u16>>::from_raw(64, 48, values)
        .unwrap()
        .into()
}

#[test]
fn masks_are_read_however_they_are_stored() {
    let root = tempfile::tempdir().unwrap();
    let (path, mask) = sequence(root.path());
    let rgb = DynamicImage::from(mask.clone()).into_rgb8();
    let stored: [(&str, DynamicImage); 6] = [
        ("gray8", mask.clone().into()),
        ("gray16", wide(&mask, 1)),
        ("stretched to 16 bits", wide(&mask, 257)),
        ("RGB", rgb.clone().into()),
        ("RGBA", DynamicImage::from(rgb).into_rgba8().into()),
        (
            "gray and alpha",
            DynamicImage::from(mask.clone()).into_luma_alpha8().into(),
        ),
    ];
    for (name, picture) in stored {
        picture.save(&path).unwrap();
        for (task, classes) in [
            (Task2017::Parts, [0, 1, 2, 3]),
            (Task2017::Binary, [0, 1, 1, 1]),
            (Task2017::Type, [0, 2, 2, 2]),
        ] {
            let config = DatasetConfig {
                task_2017: task,
                ..DatasetConfig::default()
            };
            let data = Dataset::open_with(root.path(), config).unwrap();
            let labels = data.sequences[0].labels(0).unwrap().unwrap();
            let row: Vec<u8> = (0..4).map(|at| labels.get_pixel(at * 16 + 3, 20)[0]).collect();
            assert_eq!(row, classes, "{name}, {task:?}");
        }
        assert_eq!(check(root.path(), &[]).0, 0, "{name}");
    }
}

#[test]
fn masks_that_mean_something_else_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let (path, mask) = sequence(root.path());
    let other =
        |value: fn(u8) -> u8| GrayImage::from_fn(64, 48, |x, y| Luma([value(mask.get_pixel(x, y)[0])]));
    let red = RgbImage::from_fn(64, 48, |x, y| Rgb([mask.get_pixel(x, y)[0], 0, 0]));
    let refused: [(&str, DynamicImage, &str); 4] = [
        (
            "0 and 255",
            other(|v| u8::from(v > 0) * 255).into(),
            "0 and 255 alone",
        ),
        ("other values", other(|v| v + v / 2).into(), "values"),
        ("colors", red.into(), "unknown colors or values"),
        (
            "smoothed",
            GrayImage::from_fn(64, 48, |x, _| Luma([(x * 4) as u8])).into(),
            "values",
        ),
    ];
    for (name, picture, why) in refused {
        picture.save(&path).unwrap();
        let (code, report, err) = check(root.path(), &["--task", "parts"]);
        let errors = report.map_or(err, |report| report["errors"].to_string());
        assert_eq!(code, 1, "{name}: {errors}");
        assert!(errors.contains(why), "{name}: {errors}");
    }
}
