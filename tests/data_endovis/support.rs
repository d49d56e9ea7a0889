//! Small data sets on disk.

use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage};
use masam::data::Dataset;
use masam::data::phantom::random::Random;
use masam::labels::ClassSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

pub const WIDTH: u32 = 20;
pub const HEIGHT: u32 = 16;

/// Writes a file, with its folders.
pub fn write(path: PathBuf, bytes: impl AsRef<[u8]>) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

/// Writes a picture, with its folders.
pub fn save(path: PathBuf, picture: &DynamicImage) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    picture.save(&path).unwrap();
    path
}

/// A picture that differs from every other one of this process.
pub fn scene() -> DynamicImage {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut random = Random::new(NEXT.fetch_add(1, Ordering::Relaxed));
    RgbImage::from_fn(WIDTH, HEIGHT, |_, _| {
        let [r, g, b, ..] = random.bits().to_le_bytes();
        Rgb([r, g, b])
    })
    .into()
}

/// Class ids below `classes` in slanted stripes.
pub fn ids(seed: u64, classes: usize) -> GrayImage {
    let mut random = Random::new(seed);
    let stripes: Vec<u8> = (0..WIDTH).map(|_| random.below(classes) as u8).collect();
    GrayImage::from_fn(WIDTH, HEIGHT, |x, y| {
        Luma([stripes[((x + y) / 3 % WIDTH) as usize]])
    })
}

/// A label picture of `ids` in the colours of EndoVis 2018.
pub fn colored(ids: &GrayImage) -> RgbImage {
    let set = ClassSet::endovis_2018();
    RgbImage::from_fn(ids.width(), ids.height(), |x, y| {
        Rgb(set.get(ids.get_pixel(x, y)[0]).unwrap().color)
    })
}

/// A label picture of one colour.
pub fn flat(color: [u8; 3]) -> DynamicImage {
    RgbImage::from_pixel(WIDTH, HEIGHT, Rgb(color)).into()
}

/// Writes `frames` frames to a sequence, without labels.
pub fn frames(folder: &Path, frames: usize) {
    for index in 0..frames {
        save(folder.join(format!("left_frames/frame{index:03}.png")), &scene());
    }
}

/// Writes a sequence of EndoVis 2018 whose frame `i` has the labels `ids(i, 12)`.
pub fn sequence_18(folder: &Path, count: usize) {
    frames(folder, count);
    for index in 0..count {
        let path = folder.join(format!("labels/frame{index:03}.png"));
        save(path, &colored(&ids(index as u64, 12)).into());
    }
}

/// The training releases as they lie on disk, three frames each.
pub fn releases() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let numbers = [
        ("miccai_challenge_2018_release_1", 1..=4),
        ("miccai_challenge_release_2", 5..=7),
        ("miccai_challenge_release_3", 9..=12),
        ("miccai_challenge_release_4", 13..=16),
    ];
    for (release, numbers) in numbers {
        for number in numbers {
            sequence_18(&root.path().join(release).join(format!("seq_{number}")), 3);
        }
    }
    root
}

/// One training sequence, `seq_1` of the first release, and its folder.
pub fn one_sequence(count: usize) -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("miccai_challenge_2018_release_1/seq_1");
    sequence_18(&folder, count);
    (root, folder)
}

pub fn names(data: &Dataset) -> Vec<&str> {
    data.sequences.iter().map(|s| s.name.as_str()).collect()
}

/// The message of opening `root`, which has to fail.
pub fn refusal(root: &Path) -> String {
    Dataset::open(root).unwrap_err().to_string()
}

/// A PNG file from its header's fields and further chunks.
pub fn png(width: u32, height: u32, color_type: u8, chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, color_type, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let all =
        std::iter::once((b"IHDR", header.as_slice())).chain(chunks.iter().map(|(k, d)| (*k, d.as_slice())));
    for (kind, data) in all.chain([(b"IEND", [].as_slice())]) {
        file.extend((data.len() as u32).to_be_bytes());
        let body: Vec<u8> = kind.iter().chain(data).copied().collect();
        file.extend(&body);
        file.extend(crc32(&body).to_be_bytes());
    }
    file
}

/// Bytes as a zlib stream that stores them.
pub fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01, 0x01];
    stream.extend((bytes.len() as u16).to_le_bytes());
    stream.extend((!(bytes.len() as u16)).to_le_bytes());
    stream.extend(bytes);
    let (mut a, mut b) = (1_u32, 0_u32);
    for &byte in bytes {
        a = (a + u32::from(byte)) % 65521;
        b = (b + a) % 65521;
    }
    stream.extend((b << 16 | a).to_be_bytes());
    stream
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 }
        })
    })
}
