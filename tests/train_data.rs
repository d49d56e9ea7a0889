//! Footage from folders: what is right is read, what is wrong is named.

use masam::checkpoint::Preprocessing;
use masam::data::phantom::writer::{RELEASE, write_dataset};
use masam::data::phantom::{Eyes, PhantomConfig, Sequence};
use masam::data::{Dataset, Split};
use masam::geometry::Size;
use masam::train::Footage;
use masam::train::folder::Reading;
use masam::train::footage::Labelled;
use std::path::{Path, PathBuf};

const SIDE: usize = 32;

fn config() -> PhantomConfig {
    PhantomConfig {
        seed: 9,
        size: Size {
            width_px: 96,
            height_px: 80,
        },
        frames: 3,
        frame_rate: (5, 1),
        supersample: 1,
        eyes: Eyes::Left,
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_dataset(folder.path(), &config(), 2, &|| {}).unwrap();
    folder
}

fn read(root: &Path, memory_gib: f64) -> Result<Footage, masam::Error> {
    let reading = Reading {
        split: &Split::All,
        side: SIDE,
        preprocessing: &Preprocessing::live(),
        memory_gib,
    };
    Footage::read(&Dataset::open(root)?, &reading, &|_| {})
}

fn picture(root: &Path, kind: &str, sequence: usize, frame: usize) -> PathBuf {
    root.join(RELEASE)
        .join(format!("seq_{sequence}"))
        .join(kind)
        .join(format!("frame{frame:03}.png"))
}

#[test]
fn a_folder_gives_what_the_scenes_give() {
    let folder = folder();
    let footage = read(folder.path(), 1.0).unwrap();
    assert_eq!((footage.sequences().len(), footage.frames()), (2, 6));
    for (index, sequence) in footage.sequences().iter().enumerate() {
        let scenes = Sequence::new(&config(), index as u64).unwrap();
        for (frame, found) in sequence.iter().enumerate() {
            let made = scenes.render(frame);
            let wanted =
                Labelled::from_picture(&made.rgb, &made.labels, made.size, SIDE, &Preprocessing::live())
                    .unwrap();
            assert_eq!(
                found.frame.rgb, wanted.frame.rgb,
                "frame {frame} of sequence {index}"
            );
            assert_eq!(found.labels, wanted.labels, "frame {frame} of sequence {index}");
        }
    }
}

#[test]
fn what_does_not_fit_the_memory_is_refused_before_it_is_read() {
    let folder = folder();
    let error = read(folder.path(), 1e-6).unwrap_err().to_string();
    assert!(
        error.contains("data.memory_gib") && error.contains("6 frames of 32x32"),
        "{error}"
    );
}

#[test]
fn every_broken_file_is_named() {
    let folder = folder();
    let cut = picture(folder.path(), "left_frames", 1, 1);
    let bytes = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let small = picture(folder.path(), "labels", 2, 2);
    image::RgbImage::new(95, 80).save(&small).unwrap();
    let text = picture(folder.path(), "labels", 1, 0);
    std::fs::write(&text, "no picture").unwrap();
    let error = read(folder.path(), 1.0).unwrap_err().to_string();
    for path in [&cut, &small, &text] {
        assert!(
            error.contains(&path.display().to_string()),
            "{}: {error}",
            path.display()
        );
    }
    assert!(error.contains("95x80"), "{error}");
}

#[test]
fn frames_without_labels_are_never_what_a_clip_is_drawn_for() {
    let folder = folder();
    // One frame with labels among six.
    for (sequence, frame) in [(1, 0), (1, 1), (1, 2), (2, 0), (2, 2)] {
        std::fs::remove_file(picture(folder.path(), "labels", sequence, frame)).unwrap();
    }
    let footage = read(folder.path(), 1.0).unwrap();
    assert_eq!(footage.sequences().len(), 1, "a sequence without any is left out");
    let clips = masam::train::config::Clips {
        frames: 2,
        ..Default::default()
    };
    let mut random = masam::data::phantom::random::Random::new(3);
    for _ in 0..50 {
        let clip = footage.draw(&clips, &mut random);
        assert!(clip.iter().any(|frame| frame.labels.iter().any(|&id| id != 255)));
    }
    // A label of nothing but colours that are no class's.
    let last = picture(folder.path(), "labels", 2, 1);
    image::RgbImage::from_pixel(96, 80, image::Rgb([255, 0, 255]))
        .save(&last)
        .unwrap();
    let error = read(folder.path(), 1.0).unwrap_err().to_string();
    assert!(error.contains("no pixel has a class"), "{error}");
}
