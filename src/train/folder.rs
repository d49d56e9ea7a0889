//! Footage from a data set on disk: every frame decoded once, brought to the model's side and kept as bytes.

use super::footage::{Footage, Labelled};
use super::loss::IGNORED;
use crate::checkpoint::Preprocessing;
use crate::data::{Dataset, LabelReport, Sequence, Split};
use crate::error::{Error, Result, all_of};
use crate::geometry::Size;
use rayon::prelude::*;
use std::sync::Mutex;

/// Most broken files that an error names.
const ERRORS_SHOWN: usize = 12;

/// What is read, and how.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// Which sequences.
    pub split: &'a Split,
    /// Side of the model's square, pixels.
    pub side: usize,
    /// How frames become squares.
    pub preprocessing: &'a Preprocessing,
    /// Most memory for frames and labels, GiB.
    pub memory_gib: f64,
}

impl Footage {
    /// Reads the sequences of a split that have labels; frames without labels are seen but count for nothing.
    /// `progress` is told how many frames there are, and then called after each one with `None`.
    ///
    /// # Errors
    /// Labels that were not understood, no sequence with labels, more frames than fit the memory, or files that are broken or whose label has not the
    /// size of its picture: the first dozen of them at once.
    pub fn read(
        data: &Dataset,
        reading: &Reading<'_>,
        progress: &(dyn Fn(Option<usize>) + Sync),
    ) -> Result<Self> {
        let (labelled, rest): (Vec<_>, Vec<_>) = data
            .split(reading.split)?
            .into_iter()
            .partition(|s| s.is_labelled());
        for sequence in rest {
            tracing::warn!(sequence = sequence.name, "no frame has labels: it is left out");
        }
        let frames: usize = labelled.iter().map(|s| s.frames.len()).sum();
        // Three bytes of a picture, one of its labels.
        let needed_gib = (frames * reading.side * reading.side * 4) as f64 / f64::from(1 << 30);
        if needed_gib > reading.memory_gib {
            let bound = format!(
                "{frames} frames of {0}x{0} pixels take {needed_gib:.2} GiB",
                reading.side
            );
            return Err(Error::config("data.memory_gib", reading.memory_gib, bound));
        }
        LabelReport::of(data, labelled.iter().map(|s| (*s, s.frames.len())))?.require()?;
        progress(Some(frames));
        let errors = Mutex::new(Vec::new());
        let sequences: Vec<Vec<Labelled>> = labelled
            .iter()
            .map(|sequence| {
                (0..sequence.frames.len())
                    .into_par_iter()
                    .filter_map(|index| {
                        let read = frame(sequence, index, reading);
                        progress(None);
                        let note = |error| {
                            errors
                                .lock()
                                .unwrap_or_else(|e| e.into_inner())
                                .push((index, error))
                        };
                        read.map_err(note).ok()
                    })
                    .collect()
            })
            .collect();
        let mut errors = errors.into_inner().unwrap_or_else(|e| e.into_inner());
        if !errors.is_empty() {
            // Threads finish in any order; a message should not depend on it.
            errors.sort_by_key(|(index, error)| (*index, error.to_string()));
            let count = errors.len();
            let mut shown: Vec<Error> = errors
                .into_iter()
                .take(ERRORS_SHOWN)
                .map(|(_, error)| error)
                .collect();
            if count > ERRORS_SHOWN {
                let more = format!("{} more frames cannot be used", count - ERRORS_SHOWN);
                shown.push(Error::file(&data.root, more));
            }
            all_of(shown)?;
        }
        Self::new(reading.side, data.classes.len(), sequences)
    }
}

fn frame(sequence: &Sequence, index: usize, reading: &Reading<'_>) -> Result<Labelled> {
    let picture = sequence.image(index)?;
    let (width_px, height_px) = picture.dimensions();
    let size = Size { width_px, height_px };
    let labels = match sequence.labels(index)? {
        Some(labels) => labels.into_raw(),
        None => vec![IGNORED; size.area()],
    };
    let named = |e: Error| match sequence.frame(index) {
        Ok(frame) => Error::file(&frame.image, e),
        Err(_) => e,
    };
    Labelled::from_picture(
        picture.as_raw(),
        &labels,
        size,
        reading.side,
        reading.preprocessing,
    )
    .map_err(named)
}
