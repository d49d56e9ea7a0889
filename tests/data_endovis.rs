//! EndoVis 2018 and 2017 as released, one trap at a time, on small folders made here.

use image::{GrayImage, Luma, Rgb, RgbImage};
use masam::data::phantom::random::Random;
use masam::data::{Dataset, Kind, Role};
use masam::labels::ClassSet;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const WIDTH: u32 = 20;
const HEIGHT: u32 = 16;

/// Writes a picture, with its folders.
fn save(path: PathBuf, picture: &image::DynamicImage) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    picture.save(&path).unwrap();
    path
}

/// A picture that differs from every other one.
fn scene(seed: u64) -> image::DynamicImage {
    let mut random = Random::new(seed);
    RgbImage::from_fn(WIDTH, HEIGHT, |_, _| {
        let [r, g, b, ..] = random.bits().to_le_bytes();
        Rgb([r, g, b])
    })
    .into()
}

/// Class ids in areas of three columns, all below `classes`.
fn ids(seed: u64, classes: usize) -> GrayImage {
    let mut random = Random::new(seed);
    let areas: Vec<u8> = (0..WIDTH).map(|_| random.below(classes) as u8).collect();
    GrayImage::from_fn(WIDTH, HEIGHT, |x, y| {
        Luma([areas[((x + y) / 3 % WIDTH) as usize]])
    })
}

/// A label picture of `ids` in the colours of EndoVis 2018.
fn colored(ids: &GrayImage) -> RgbImage {
    let set = ClassSet::endovis_2018();
    RgbImage::from_fn(ids.width(), ids.height(), |x, y| {
        Rgb(set.get(ids.get_pixel(x, y)[0]).unwrap().color)
    })
}

/// A sequence of 2018 with `frames` labelled frames; frame `i` shows `ids(i)` of two areas.
fn sequence_18(folder: &Path, frames: usize) {
    let seed = folder.to_string_lossy().bytes().map(u64::from).sum::<u64>() * 1000;
    for index in 0..frames {
        let name = format!("frame{index:03}.png");
        save(
            folder.join("left_frames").join(&name),
            &scene(seed + index as u64),
        );
        save(
            folder.join("labels").join(&name),
            &colored(&ids(index as u64, 12)).into(),
        );
    }
}

/// The training releases as they lie on disk, three frames each.
fn releases() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let numbers = [
        ("miccai_challenge_2018_release_1", vec![1, 2, 3, 4]),
        ("miccai_challenge_release_2", vec![5, 6, 7]),
        ("miccai_challenge_release_3", vec![9, 10, 11, 12]),
        ("miccai_challenge_release_4", vec![13, 14, 15, 16]),
    ];
    for (release, numbers) in numbers {
        for number in numbers {
            sequence_18(&root.path().join(release).join(format!("seq_{number}")), 3);
        }
    }
    root
}

fn names(data: &Dataset) -> Vec<&str> {
    data.sequences.iter().map(|s| s.name.as_str()).collect()
}

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
    assert_eq!(
        (sequence.number, sequence.role, sequence.frames.len()),
        (Some(10), Role::Train, 3)
    );
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
    let error = Dataset::open(&release.join("seq_6/labels"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("left_frames"), "{error}");
    let absent = root.path().join("absent");
    assert!(Dataset::open(&absent).unwrap_err().to_string().contains("absent"));
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
