//! Looks at every file of a data set and says what is odd: `masam data check`.
//!
//! Errors are what stops a frame from being read, and make the data set unusable as it is; everything else (missing
//! pairs, odd colours, duplicates, pictures that look wrong) is counted and named.

use super::dataset::{Dataset, Kind, Repair, Role, Sequence};
use super::label_report::LabelReport;
use super::note::Note;
use super::palette::{MAX_COLOR_DISTANCE, Tally};
use super::picture;
use crate::error::Result;
use crate::geometry::Size;
use crate::labels::{NO_MASK, Rgb};
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A picture with no channel above this is black; sensors and codecs leave a little noise.
const BLACK: u8 = 8;

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The folder.
    pub root: PathBuf,
    /// The layout that was recognised.
    pub kind: Kind,
    /// Whether every file could be read, and the labels were understood.
    pub usable: bool,
    /// What the labels were read as, and how much of them.
    pub labels: LabelReport,
    /// Its sequences.
    pub sequences: Vec<SequenceReport>,
    /// Frames in all.
    pub frames: usize,
    /// Frames with labels.
    pub labelled: usize,
    /// How often each class occurs.
    pub classes: Vec<ClassReport>,
    /// Pixels without a class: unknown colours.
    pub ignored_pixels: u64,
    /// Colours (EndoVis 2017: values, as greys) that are no class's, most frequent first.
    pub odd_colors: Vec<OddColorReport>,
    /// Pixels of further odd colours, where there are too many to list.
    pub further_odd_pixels: u64,
    /// The farthest that a colour may be from its class.
    pub color_distance: u8,
    /// Corrected labels that were applied.
    pub repairs: Vec<Repair>,
    /// Frames without a label in labelled sequences.
    pub missing_labels: usize,
    /// Labels without a frame.
    pub missing_frames: usize,
    /// `__MACOSX` trees that were skipped.
    pub macosx_trees: usize,
    /// `._*` files that were skipped.
    pub sidecar_files: usize,
    /// Groups of frames with identical pictures, as `sequence/frame`.
    pub duplicates: Vec<Vec<String>>,
    /// Frames that look wrong.
    pub suspicious: Vec<Suspicion>,
    /// Everything odd about the folder itself.
    pub notes: Vec<Note>,
    /// What could not be read, each naming its file and cause.
    pub errors: Vec<String>,
}

/// One sequence.
#[derive(Debug, Clone, Serialize)]
pub struct SequenceReport {
    /// Its name.
    pub name: String,
    /// Training or testing.
    pub role: Role,
    /// Its folder.
    pub folder: PathBuf,
    /// Frames.
    pub frames: usize,
    /// Frames with labels.
    pub labelled: usize,
    /// Sizes of its pictures, the commonest first.
    pub sizes: Vec<Size>,
}

/// How often a class occurs.
#[derive(Debug, Clone, Serialize)]
pub struct ClassReport {
    /// Its id.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Frames that contain it.
    pub frames: u64,
    /// Its pixels in all frames.
    pub pixels: u64,
}

/// A colour that is no class's.
#[derive(Debug, Clone, Serialize)]
pub struct OddColorReport {
    /// The colour.
    pub color: Rgb,
    /// Its pixels in all frames.
    pub pixels: u64,
    /// Frames that contain it.
    pub frames: u64,
    /// Name of the class with the nearest colour.
    pub nearest: String,
    /// Largest difference of any channel to it.
    pub distance: u8,
    /// Whether its pixels were given that class; otherwise they are ignored.
    pub repaired: bool,
}

/// A frame that looks wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suspicion {
    /// Name of the sequence.
    pub sequence: String,
    /// Name of the frame.
    pub frame: String,
    /// Why.
    #[serde(flatten)]
    pub what: Oddity,
}

/// Why a frame looks wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Oddity {
    /// The picture is all black.
    Black,
    /// The picture has not the size of most of its sequence.
    Size {
        /// Its size.
        size: Size,
    },
    /// The whole label is one class.
    OneClass {
        /// Name of the class.
        class: String,
    },
    /// No pixel of the label has a class.
    AllIgnored,
}

/// One frame, looked at.
#[derive(Default)]
struct Looked {
    size: Option<Size>,
    digest: Option<[u8; 32]>,
    black: bool,
    /// Pixels by class id; empty without labels.
    pixels: BTreeMap<u8, u64>,
    tally: Tally,
    errors: Vec<String>,
}

/// Reads every picture and label of `data` and calls `progress` after each frame.
pub fn check(data: &Dataset, progress: &(dyn Fn() + Sync)) -> Report {
    let frames = |s| (0..frames_of(data, s)).map(move |f| (s, f));
    let places: Vec<(usize, usize)> = (0..data.sequences.len()).flat_map(frames).collect();
    let looked: Vec<Looked> = places
        .par_iter()
        .map(|&(sequence, frame)| {
            let looked = data.sequences.get(sequence).map(|s| look(s, frame));
            progress();
            looked.unwrap_or_default()
        })
        .collect();
    let mut report = empty(data);
    let whole = data.sequences.iter().map(|s| (s, s.frames.len()));
    match LabelReport::of(data, whole) {
        Ok(labels) if report.labelled > 0 => {
            report.errors.extend(labels.refusals.iter().cloned());
            report.labels = labels;
        }
        Ok(_) => {}
        Err(error) => report.errors.push(error.to_string()),
    }
    let refused = report.labels.refusals.clone();
    let mut at = 0;
    let mut same: BTreeMap<[u8; 32], Vec<String>> = BTreeMap::new();
    let mut tally = Tally::default();
    let mut color_frames: BTreeMap<Rgb, u64> = BTreeMap::new();
    for sequence in &data.sequences {
        let own = looked.get(at..at + sequence.frames.len()).unwrap_or_default();
        at += sequence.frames.len();
        let sizes = by_frequency(own.iter().filter_map(|l| l.size));
        for (frame, looked) in sequence.frames.iter().zip(own) {
            let mut suspect = |what| {
                report.suspicious.push(Suspicion {
                    sequence: sequence.name.clone(),
                    frame: frame.name.clone(),
                    what,
                })
            };
            if looked.black {
                suspect(Oddity::Black);
            }
            if let Some(size) = looked.size.filter(|s| sizes.first() != Some(s)) {
                suspect(Oddity::Size { size });
            }
            let classes: Vec<u8> = looked
                .pixels
                .keys()
                .copied()
                .filter(|id| *id != NO_MASK)
                .collect();
            match classes[..] {
                [] if !looked.pixels.is_empty() => suspect(Oddity::AllIgnored),
                [id] => suspect(Oddity::OneClass {
                    class: class_name(data, id),
                }),
                _ => {}
            }
            for (&id, &pixels) in &looked.pixels {
                match report.classes.get_mut(usize::from(id)) {
                    Some(class) => {
                        class.frames += 1;
                        class.pixels += pixels;
                    }
                    None => report.ignored_pixels += pixels,
                }
            }
            for color in looked.tally.colors.keys() {
                *color_frames.entry(*color).or_default() += 1;
            }
            tally.add(&looked.tally);
            if let Some(digest) = looked.digest {
                let name = format!("{}/{}", sequence.name, frame.name);
                same.entry(digest).or_default().push(name);
            }
            // What is wrong with all labels is said once.
            let own = |error: &&String| !refused.iter().any(|cause| error.ends_with(cause.as_str()));
            report.errors.extend(looked.errors.iter().filter(own).cloned());
        }
        report.sequences.push(SequenceReport {
            name: sequence.name.clone(),
            role: sequence.role,
            folder: sequence.folder.clone(),
            frames: sequence.frames.len(),
            labelled: sequence.frames.iter().filter(|f| f.label.is_some()).count(),
            sizes,
        });
    }
    report.duplicates = same.into_values().filter(|names| names.len() > 1).collect();
    report.duplicates.sort();
    report.further_odd_pixels = tally.further_pixels;
    report.odd_colors = tally
        .colors
        .iter()
        .map(|(color, odd)| OddColorReport {
            color: *color,
            pixels: odd.pixels,
            frames: color_frames.get(color).copied().unwrap_or_default(),
            nearest: class_name(data, odd.nearest),
            distance: odd.distance,
            repaired: odd.repaired,
        })
        .collect();
    report.odd_colors.sort_by_key(|c| std::cmp::Reverse(c.pixels));
    report.usable = report.errors.is_empty();
    report
}

fn frames_of(data: &Dataset, sequence: usize) -> usize {
    data.sequences.get(sequence).map_or(0, |s| s.frames.len())
}

/// What opening the data set already told.
fn empty(data: &Dataset) -> Report {
    let frames = || data.sequences.iter().flat_map(|s| &s.frames);
    let count = |wanted: fn(&Note) -> usize| data.notes.iter().map(wanted).sum();
    let without_pictures = |note: &Note| matches!(note, Note::Empty { .. }).then(|| note.to_string());
    Report {
        root: data.root.clone(),
        kind: data.kind,
        usable: true,
        labels: LabelReport::default(),
        sequences: Vec::new(),
        frames: frames().count(),
        labelled: frames().filter(|f| f.label.is_some()).count(),
        classes: (0..=u8::MAX)
            .zip(data.classes.iter())
            .map(|(id, class)| ClassReport {
                id,
                name: class.name.clone(),
                frames: 0,
                pixels: 0,
            })
            .collect(),
        ignored_pixels: 0,
        odd_colors: Vec::new(),
        further_odd_pixels: 0,
        color_distance: MAX_COLOR_DISTANCE,
        repairs: data.repairs.clone(),
        missing_labels: count(|n| usize::from(matches!(n, Note::MissingLabel { .. }))),
        missing_frames: count(|n| usize::from(matches!(n, Note::MissingFrame { .. }))),
        macosx_trees: count(|n| usize::from(matches!(n, Note::Macosx { .. }))),
        sidecar_files: count(|n| {
            if let Note::Sidecars { files } = n {
                *files
            } else {
                0
            }
        }),
        duplicates: Vec::new(),
        suspicious: Vec::new(),
        notes: data.notes.clone(),
        errors: data.notes.iter().filter_map(without_pictures).collect(),
    }
}

/// Reads one frame; what fails becomes an error in the report.
fn look(sequence: &Sequence, frame: usize) -> Looked {
    let mut looked = Looked::default();
    let told = |looked: &mut Looked, result: Result<()>| {
        if let Err(error) = result {
            looked.errors.push(format!("{}: {error}", sequence.name));
        }
    };
    let image = sequence.image(frame).map(|image| {
        let size = picture::size_of(&image);
        looked.size = Some(size);
        looked.black = image.as_raw().iter().all(|v| *v <= BLACK);
        let mut digest = Sha256::new();
        digest.update(size.width_px.to_le_bytes());
        digest.update(image.as_raw());
        looked.digest = Some(digest.finalize().into());
    });
    told(&mut looked, image);
    let labels = sequence.read_labels(frame).map(|labels| {
        if let Some(labels) = labels {
            let mut counts = [0_u64; 256];
            for id in labels.classes.iter() {
                counts[usize::from(*id)] += 1;
            }
            let present = (0..=u8::MAX).zip(counts).filter(|(_, count)| *count > 0);
            looked.pixels = present.collect();
            looked.tally = labels.tally;
        }
    });
    told(&mut looked, labels);
    looked
}

/// Different sizes, the commonest first.
fn by_frequency(sizes: impl Iterator<Item = Size>) -> Vec<Size> {
    let mut counts: Vec<(Size, usize)> = Vec::new();
    for size in sizes {
        match counts.iter_mut().find(|(known, _)| *known == size) {
            Some((_, count)) => *count += 1,
            None => counts.push((size, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.into_iter().map(|(size, _)| size).collect()
}

fn class_name(data: &Dataset, id: u8) -> String {
    data.classes
        .get(id)
        .map_or_else(|| id.to_string(), |c| c.name.clone())
}
