//! Writes sequences to disk as EndoVis 2018 was released.
//!
//! ```text
//! OUT/phantom.json                       what it was made from
//! OUT/miccai_challenge_2018_release_1/
//!     labels.json
//!     seq_1/left_frames/frame000.png …   colour
//!     seq_1/right_frames/frame000.png …  colour, when asked for
//!     seq_1/labels/frame000.png …        classes of the left frames in EndoVis' colours
//!     seq_1/camera_calibration.txt
//! ```

use super::camera::{BASELINE_MM, Eye};
use super::{Eyes, Frame, PhantomConfig, Sequence};
use crate::error::{Error, Result};
use crate::geometry::Size;
use crate::labels::ClassSet;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use rayon::prelude::*;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

/// Name of the one release directory.
pub const RELEASE: &str = "miccai_challenge_2018_release_1";

/// Writes `sequences` sequences below `out`, which has to be empty or absent, and calls `progress` after each frame.
///
/// # Errors
/// As [`PhantomConfig::validate`]; no sequences asked for; `out` not empty; a file that cannot be written.
pub fn write_dataset(
    out: &Path,
    config: &PhantomConfig,
    sequences: usize,
    progress: &(dyn Fn() + Sync),
) -> Result<()> {
    config.validate()?;
    if sequences == 0 {
        return Err(Error::config(
            "sequences",
            0,
            "a data set has at least one sequence",
        ));
    }
    let taken = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    if taken {
        return Err(Error::file(
            out,
            "the directory is not empty; phantoms are written to a new one only",
        ));
    }
    let release = out.join(RELEASE);
    make_directory(&release)?;
    write_text(&release.join("labels.json"), &labels_json())?;
    write_text(&out.join("phantom.json"), &provenance(config, sequences))?;
    for index in 0..sequences {
        let sequence = Sequence::new(config, index as u64)?;
        let directory = release.join(format!("seq_{}", index + 1));
        write_sequence(&directory, &sequence, progress)?;
    }
    Ok(())
}

/// Writes one sequence's pictures, labels and calibration into `directory`.
///
/// # Errors
/// A file that cannot be written.
pub fn write_sequence(directory: &Path, sequence: &Sequence, progress: &(dyn Fn() + Sync)) -> Result<()> {
    let (left, right) = (directory.join("left_frames"), directory.join("right_frames"));
    let labels = directory.join("labels");
    let both = sequence.config().eyes == Eyes::Both;
    for path in [&left, &labels].into_iter().chain(both.then_some(&right)) {
        make_directory(path)?;
    }
    write_text(&directory.join("camera_calibration.txt"), &calibration(sequence))?;
    let palette = ClassSet::endovis_2018();
    // Drawing one frame keeps every thread busy, encoding one picture only one: a few frames are drawn, then
    // encoded side by side, so that few are in memory.
    let indices: Vec<usize> = (0..sequence.frames()).collect();
    for indices in indices.chunks(rayon::current_num_threads().clamp(1, 16)) {
        let mut pictures = Vec::new();
        for &index in indices {
            let name = format!("frame{index:03}.png");
            let frame = sequence.render(index);
            pictures.push((labels.join(&name), frame.size, color_labels(&frame, &palette)));
            pictures.push((left.join(&name), frame.size, frame.rgb));
            if both {
                let frame = sequence.render_eye(index, Eye::Right);
                pictures.push((right.join(&name), frame.size, frame.rgb));
            }
        }
        pictures
            .par_iter()
            .try_for_each(|(path, size, rgb)| write_png(path, *size, rgb))?;
        indices.iter().for_each(|_| progress());
    }
    Ok(())
}

/// The labels of `frame` in the colours of `palette`, `[height, width, 3]`.
pub fn color_labels(frame: &Frame, palette: &ClassSet) -> Vec<u8> {
    let colors: Vec<[u8; 3]> = (0..=255)
        .map(|id| palette.get(id).map_or([0; 3], |class| class.color))
        .collect();
    let mut rgb = vec![0; frame.labels.len() * 3];
    for (pixel, &id) in rgb.as_chunks_mut().0.iter_mut().zip(&frame.labels) {
        *pixel = colors[usize::from(id)];
    }
    rgb
}

fn write_png(path: &Path, size: Size, rgb: &[u8]) -> Result<()> {
    let fail = |cause: &dyn std::fmt::Display| Error::file(path, cause);
    let file = File::create(path).map_err(|cause| fail(&cause))?;
    let mut writer = BufWriter::new(file);
    PngEncoder::new_with_quality(&mut writer, CompressionType::Fast, FilterType::Adaptive)
        .write_image(rgb, size.width_px, size.height_px, ExtendedColorType::Rgb8)
        .map_err(|cause| fail(&cause))?;
    // Dropping a BufWriter would swallow the error of a full disk.
    writer.flush().map_err(|cause| fail(&cause))
}

fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|cause| Error::file(path, cause))
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|cause| Error::file(path, cause))
}

/// The class list as a bare JSON list, the first of the two schemas that EndoVis 2018 uses.
fn labels_json() -> String {
    let entries: Vec<String> = ClassSet::endovis_2018()
        .iter()
        .enumerate()
        .map(|(id, class)| {
            let [r, g, b] = class.color;
            format!(
                "    {{\"name\": \"{}\", \"color\": [{r}, {g}, {b}], \"classid\": {id}}}",
                class.name
            )
        })
        .collect();
    format!("[\n{}\n]\n", entries.join(",\n"))
}

/// The cameras: focal lengths and centres in pixels, no distortion, the way from the left to the right one in mm.
fn calibration(sequence: &Sequence) -> String {
    let size = sequence.config().size;
    let focal = sequence.focal_px();
    let (cx, cy) = (size.width_px as f32 * 0.5, size.height_px as f32 * 0.5);
    let camera = |i: u32| {
        format!(
            "Camera-{i}-F: {focal:.3} {focal:.3}\nCamera-{i}-C: {cx:.3} {cy:.3}\nCamera-{i}-K: 0 0 0 0 0\n"
        )
    };
    format!(
        "Width: {}\nHeight: {}\n{}{}Extrinsic-Omega: 0 0 0\nExtrinsic-X: {:.3} 0 0\n",
        size.width_px,
        size.height_px,
        camera(0),
        camera(1),
        -BASELINE_MM
    )
}

/// What it takes to make the same data again.
fn provenance(config: &PhantomConfig, sequences: usize) -> String {
    let value = serde_json::json!({
        "generator": concat!("masam ", env!("CARGO_PKG_VERSION"), " phantom"),
        "seed": config.seed,
        "width": config.size.width_px,
        "height": config.size.height_px,
        "supersample": config.supersample,
        "sequences": sequences,
        "frames": config.frames,
        "frame_rate": [config.frame_rate.0, config.frame_rate.1],
    });
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn small() -> PhantomConfig {
        let size = Size {
            width_px: 64,
            height_px: 48,
        };
        PhantomConfig {
            size,
            frames: 3,
            eyes: Eyes::Both,
            ..PhantomConfig::default()
        }
    }

    #[test]
    fn the_layout_is_that_of_endovis() {
        let out = tempfile::tempdir().unwrap();
        let written = AtomicUsize::new(0);
        let count = || {
            written.fetch_add(1, Ordering::Relaxed);
        };
        write_dataset(out.path(), &small(), 2, &count).unwrap();
        assert_eq!(written.into_inner(), 6);
        let release = out.path().join(RELEASE);
        let list: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(release.join("labels.json")).unwrap()).unwrap();
        assert_eq!(list[8]["name"], "suturing-needle");
        assert_eq!(list[8]["color"], serde_json::json!([255, 255, 125]));
        for sequence in ["seq_1", "seq_2"] {
            let directory = release.join(sequence);
            assert!(
                fs::read_to_string(directory.join("camera_calibration.txt"))
                    .unwrap()
                    .contains("Camera-0-F")
            );
            for part in ["left_frames", "right_frames", "labels"] {
                let picture = image::open(directory.join(part).join("frame002.png"))
                    .unwrap()
                    .to_rgb8();
                assert_eq!(picture.dimensions(), (64, 48));
            }
        }
        let made: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(out.path().join("phantom.json")).unwrap()).unwrap();
        assert_eq!(made["frames"], 3);
        let frame = Sequence::new(&small(), 1).unwrap().render(2);
        let read = image::open(release.join("seq_2/labels/frame002.png"))
            .unwrap()
            .to_rgb8();
        assert_eq!(read.into_raw(), color_labels(&frame, &ClassSet::endovis_2018()));
    }

    #[test]
    fn a_directory_in_use_is_left_alone() {
        let out = tempfile::tempdir().unwrap();
        fs::write(out.path().join("mine.txt"), "mine").unwrap();
        let error = write_dataset(out.path(), &small(), 1, &|| ()).unwrap_err();
        assert!(error.to_string().contains("not empty"));
        assert!(write_dataset(&out.path().join("new"), &small(), 0, &|| ()).is_err());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = write_dataset(&file.path().join("below"), &small(), 1, &|| ()).unwrap_err();
        assert!(error.to_string().contains("below"), "{error}");
    }
}
