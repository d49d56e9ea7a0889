//! Label pictures to class ids, and pictures that are not what they say.

use crate::support::*;
use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage};
use masam::data::palette::MAX_COLOR_DISTANCE;
use masam::data::phantom::random::Random;
use masam::data::{Dataset, Sequence};
use masam::labels::{ClassSet, NO_MASK};
use std::path::Path;

/// Opens the one sequence of `root`.
fn open(root: &Path) -> Sequence {
    Dataset::open(root).unwrap().sequences.remove(0)
}

#[test]
fn random_label_pictures_come_back() {
    let set = ClassSet::endovis_2018();
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let (width, height) = (1 + random.below(40) as u32, 1 + random.below(40) as u32);
        let ids = GrayImage::from_fn(width, height, |_, _| Luma([random.below(12) as u8]));
        let jitter = random.chance(0.5);
        let far = random.chance(0.3);
        let (mut moved, mut lost) = (0_u64, 0_u64);
        let mut expected = ids.clone();
        let picture = RgbImage::from_fn(width, height, |x, y| {
            let mut color = set.get(ids.get_pixel(x, y)[0]).unwrap().color;
            if far && random.chance(0.1) {
                // No class is near this grey.
                lost += 1;
                expected.put_pixel(x, y, Luma([NO_MASK]));
                return Rgb([90 + random.below(8) as u8; 3]);
            }
            if jitter && random.chance(0.2) {
                let channel = random.below(3);
                let step = 1 + random.below(usize::from(MAX_COLOR_DISTANCE)) as u8;
                let value = color[channel];
                color[channel] = if value > 127 { value - step } else { value + step };
                moved += 1;
            }
            Rgb(color)
        });
        save(
            folder.path().join("left_frames/frame000.png"),
            &DynamicImage::new_rgb8(width, height),
        );
        let label = if seed % 2 == 0 {
            DynamicImage::from(picture)
        } else {
            // The tool that made them wrote half transparent colours.
            let mut transparent = DynamicImage::from(picture).into_rgba8();
            transparent.pixels_mut().for_each(|p| p[3] = 128);
            transparent.into()
        };
        save(folder.path().join("labels/frame000.png"), &label);
        let labels = open(folder.path()).read_labels(0).unwrap().unwrap();
        assert_eq!(labels.classes, expected, "seed {seed}");
        assert_eq!(labels.tally.repaired_pixels(), moved, "seed {seed}");
        assert_eq!(labels.tally.unknown_pixels(), lost, "seed {seed}");
    }
}

#[test]
fn odd_colours_are_repaired_near_a_class_and_ignored_elsewhere() {
    let (root, folder) = one_sequence(1);
    let mut picture = colored(&GrayImage::new(WIDTH, HEIGHT));
    // Pictures of black alone, and of colors near it, are not understood.
    picture.put_pixel(19, 15, Rgb([0, 255, 0]));
    picture.put_pixel(0, 0, Rgb([24 + MAX_COLOR_DISTANCE, 55, 125 - MAX_COLOR_DISTANCE]));
    picture.put_pixel(1, 0, Rgb([24, 55, 125 - MAX_COLOR_DISTANCE - 1]));
    picture.put_pixel(2, 0, Rgb([24, 55, 125 - MAX_COLOR_DISTANCE - 1]));
    save(folder.join("labels/frame000.png"), &picture.into());
    let labels = open(root.path()).read_labels(0).unwrap().unwrap();
    assert_eq!(labels.classes.as_raw()[..4], [5, NO_MASK, NO_MASK, 0]);
    let found: Vec<_> = labels
        .tally
        .colors
        .values()
        .map(|c| (c.pixels, c.nearest, c.distance, c.repaired))
        .collect();
    assert_eq!(
        found,
        [
            (2, 5, MAX_COLOR_DISTANCE + 1, false),
            (1, 5, MAX_COLOR_DISTANCE, true)
        ]
    );
}

#[test]
fn a_picture_of_one_channel_holds_ids() {
    let (root, folder) = one_sequence(1);
    let mut grey = ids(3, 12);
    // Read as a colour, class 1 would be a black a little off.
    grey.put_pixel(0, 0, Luma([1]));
    grey.put_pixel(1, 0, Luma([12]));
    grey.put_pixel(2, 0, Luma([NO_MASK]));
    save(folder.join("labels/frame000.png"), &grey.clone().into());
    let labels = open(root.path()).read_labels(0).unwrap().unwrap();
    assert_eq!(labels.tally.unknown_pixels(), 1);
    grey.put_pixel(1, 0, Luma([NO_MASK]));
    assert_eq!(labels.classes, grey);
}

#[test]
fn a_picture_with_a_palette_holds_colours() {
    let (root, folder) = one_sequence(1);
    let colors: Vec<u8> = ClassSet::endovis_2018().iter().flat_map(|c| c.color).collect();
    let ids = ids(5, 12);
    // Each row starts with its filter, none.
    let rows: Vec<u8> = ids
        .rows()
        .flat_map(|row| std::iter::once(0).chain(row.map(|p| p[0])))
        .collect();
    let chunks = [(b"PLTE", colors), (b"IDAT", stored(&rows))];
    write(folder.join("labels/frame000.png"), png(WIDTH, HEIGHT, 3, &chunks));
    assert_eq!(open(root.path()).labels(0).unwrap().unwrap(), ids);
}

#[test]
fn a_label_of_another_size_is_refused_with_both_sizes() {
    let (root, folder) = one_sequence(1);
    let path = save(
        folder.join("labels/frame000.png"),
        &DynamicImage::new_rgb8(WIDTH, HEIGHT - 1),
    );
    let message = open(root.path()).labels(0).unwrap_err().to_string();
    for part in [path.to_str().unwrap(), "20x15", "20x16"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn broken_pictures_are_named() {
    let (root, folder) = one_sequence(1);
    let (image, label) = (
        folder.join("left_frames/frame000.png"),
        folder.join("labels/frame000.png"),
    );
    let (whole_image, whole_label) = (std::fs::read(&image).unwrap(), std::fs::read(&label).unwrap());
    let sequence = open(root.path());
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let broken = |whole: &[u8], random: &mut Random| match seed % 3 {
            0 => whole[..random.below(whole.len() - 12)].to_vec(),
            1 => (0..random.below(200)).map(|_| random.bits() as u8).collect(),
            _ => {
                let mut flipped = whole.to_vec();
                let at = random.below(whole.len() - 16);
                flipped[at] ^= 1 << random.below(8);
                flipped
            }
        };
        write(image.clone(), broken(&whole_image, &mut random));
        let message = sequence.image(0).unwrap_err().to_string();
        assert!(
            message.contains(image.to_str().unwrap()),
            "seed {seed}: {message}"
        );
        write(image.clone(), &whole_image);
        write(label.clone(), broken(&whole_label, &mut random));
        let message = sequence.labels(0).unwrap_err().to_string();
        assert!(
            message.contains(label.to_str().unwrap()),
            "seed {seed}: {message}"
        );
        write(label.clone(), &whole_label);
    }
    assert!(sequence.image(0).is_ok() && sequence.labels(0).is_ok());
    std::fs::remove_file(&image).unwrap();
    assert!(
        sequence
            .image(0)
            .unwrap_err()
            .to_string()
            .contains("frame000.png")
    );
}

/// Most address space this process has ever had, in bytes; none where the system does not say.
fn peak_address_space() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmPeak:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

#[test]
fn a_small_file_that_claims_a_huge_picture_takes_no_memory() {
    let (root, folder) = one_sequence(1);
    let before = peak_address_space();
    if before.is_none() {
        eprintln!("SKIP: no /proc/self/status, memory is not measured");
    }
    for (width, height, cause) in [
        (60_000, 60_000, "60000x60000"),
        (16_384, 16_384, "16384x16384"),
        (u32::MAX >> 1, u32::MAX >> 1, "frame000.png"),
        (0, 5, "frame000.png"),
        (8_000, 8_000, "frame000.png"),
    ] {
        let bomb = png(width, height, 2, &[(b"IDAT", stored(&[0; 64]))]);
        for part in ["left_frames", "labels"] {
            write(folder.join(part).join("frame000.png"), &bomb);
        }
        let sequence = open(root.path());
        let (image, labels) = (sequence.image(0).unwrap_err(), sequence.labels(0).unwrap_err());
        for message in [image.to_string(), labels.to_string()] {
            assert!(message.contains(cause), "{message}");
        }
    }
    // The other tests of this process take a few hundred MB of address space; the picture claims 10.8 GB.
    if let (Some(before), Some(after)) = (before, peak_address_space()) {
        assert!(after - before < 4 << 30, "{before} to {after}");
    }
}
