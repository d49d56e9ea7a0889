//! A small generated data set, pictures in every way they are stored, and the program.

use image::{DynamicImage, GrayImage};
use masam::data::phantom::writer::{RELEASE, write_dataset};
use masam::data::phantom::{Eyes, PhantomConfig};
use masam::geometry::Size;
use masam::labels::ClassSet;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// Writes two sequences of three frames with labels in colors.
pub fn write_base(folder: &Path) {
    let config = PhantomConfig {
        seed: 5,
        size: Size {
            width_px: 160,
            height_px: 128,
        },
        frames: 3,
        frame_rate: (5, 1),
        supersample: 1,
        eyes: Eyes::Left,
    };
    write_dataset(folder, &config, 2, &|| {}).unwrap();
}

pub fn release(root: &Path) -> PathBuf {
    root.join(RELEASE)
}

/// The files of `labels` or `left_frames` of both sequences.
pub fn files(root: &Path, kind: &str) -> Vec<PathBuf> {
    let of = |sequence: &str| {
        let folder = release(root).join(sequence).join(kind);
        let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    };
    ["seq_1", "seq_2"].iter().flat_map(|s| of(s)).collect()
}

/// Class ids of a label picture in EndoVis' colors.
pub fn ids(path: &Path) -> GrayImage {
    let classes = ClassSet::endovis_2018();
    let picture = image::open(path).unwrap().into_rgb8();
    GrayImage::from_fn(picture.width(), picture.height(), |x, y| {
        let color = picture.get_pixel(x, y).0;
        image::Luma([classes.iter().position(|c| c.color == color).unwrap() as u8])
    })
}

/// Writes a PNG of samples of `bits` bits, with a palette where there is one.
pub fn save_png(path: &Path, ids: &GrayImage, bits: u8, palette: Option<Vec<u8>>) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), ids.width(), ids.height());
    encoder.set_depth(png::BitDepth::from_u8(bits).unwrap());
    encoder.set_color(png::ColorType::Grayscale);
    if let Some(palette) = palette {
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_palette(palette);
    }
    let pack = |row: &[u8]| -> Vec<u8> {
        let byte = |samples: &[u8]| {
            let shift = |at: usize| 8 - bits as usize * (at + 1);
            samples
                .iter()
                .enumerate()
                .fold(0, |byte, (at, v)| byte | v << shift(at))
        };
        row.chunks(8 / usize::from(bits)).map(byte).collect()
    };
    let data: Vec<u8> = ids.as_raw().chunks(ids.width() as usize).flat_map(pack).collect();
    encoder.write_header().unwrap().write_image_data(&data).unwrap();
}

/// The colormap of Pascal VOC.
pub fn voc() -> Vec<u8> {
    let bit = |index: usize, at: usize| (index >> at & 1) as u8;
    let channel = |index: usize, c: usize| (0..3).fold(0, |v, k| v | bit(index, 3 * k + c) << (7 - k));
    (0..256).flat_map(|i| [0, 1, 2].map(|c| channel(i, c))).collect()
}

/// Saves a picture under the same name with another suffix, and removes the old one.
pub fn replace(path: &Path, suffix: &str, picture: &DynamicImage) {
    fs::remove_file(path).unwrap();
    picture.save(path.with_extension(suffix)).unwrap();
}

/// Puts an EXIF orientation into a JPEG.
pub fn turn(path: &Path, orientation: u8) {
    let bytes = fs::read(path).unwrap();
    let tiff = [
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0",
        &[orientation, 0, 0, 0][..],
        &[0; 4],
    ]
    .concat();
    let body = [&b"Exif\0\0"[..], &tiff].concat();
    let length = (body.len() as u16 + 2).to_be_bytes();
    let turned = [&bytes[..2], &[0xff, 0xe1], &length, &body, &bytes[2..]].concat();
    fs::write(path, turned).unwrap();
}

/// Exit status, standard output and standard error of the program.
pub fn masam(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_masam"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The report of `masam data check`, and its exit status.
pub fn check(root: &Path, further: &[&str]) -> (i32, Option<Value>, String) {
    let (code, out, err) = masam(&[&["data", "check", text(root), "--json"], further].concat());
    (code, serde_json::from_str(&out).ok(), err)
}

/// A placeholder of the demo model, made once.
pub fn model() -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("placeholder.safetensors");
        let (code, _, err) = masam(&["convert", "--untrained", "demo", "-o", text(&path)]);
        assert_eq!(code, 0, "{err}");
        folder
    });
    folder.path().join("placeholder.safetensors")
}

/// The report of `masam eval`, its exit status, and what it said.
pub fn eval(root: &Path, further: &[&str]) -> (i32, Option<Value>, String) {
    let model = model();
    let fixed = [
        "eval",
        "-m",
        text(&model),
        "--data",
        text(root),
        "--json",
        "-",
        "--threads",
        "1",
    ];
    let (code, out, err) = masam(&[&fixed[..], further].concat());
    (code, serde_json::from_str(&out).ok(), err)
}
