//! Temporal flicker: how often a prediction changes where nothing changed in truth.
//!
//! ```text
//! steady  = pixels with the same true class in frame t-1 and frame t, neither ignored
//! flicker = steady pixels whose prediction differs between t-1 and t / steady pixels
//! ```
//! Both are summed up over all pairs of consecutive labelled frames before they are divided, so the value is the share
//! of steady pixels, 0 to 1, that change their predicted class from one frame to the next, whether right or wrong
//! before. "No mask" is a prediction like any other: a mask that comes and goes flickers. Predictions that are
//! constant score 0 however bad they are, so flicker means something only beside an overlap.

use super::confusion::IGNORED;
use crate::error::{Error, Result};

/// Steady pixels and those of them that changed, by true class.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlickerCounts {
    /// `[classes]`: same true class in both frames of a pair.
    pub steady: Vec<u64>,
    /// `[classes]`: of these, predicted differently.
    pub changed: Vec<u64>,
}

impl FlickerCounts {
    /// All zero.
    pub fn new(classes: usize) -> Self {
        Self {
            steady: vec![0; classes],
            changed: vec![0; classes],
        }
    }

    /// Flicker over all classes; `None` without a steady pixel.
    pub fn rate(&self) -> Option<f64> {
        ratio(self.changed.iter().sum(), self.steady.iter().sum())
    }

    /// Flicker on the pixels of one true class.
    pub fn class_rate(&self, class: usize) -> Option<f64> {
        let of = |counts: &[u64]| counts.get(class).copied().unwrap_or(0);
        ratio(of(&self.changed), of(&self.steady))
    }

    /// Adds other counts.
    pub fn merge(&mut self, other: &Self) {
        let both = [
            (&mut self.steady, &other.steady),
            (&mut self.changed, &other.changed),
        ];
        for (mine, theirs) in both {
            mine.resize(mine.len().max(theirs.len()), 0);
            for (count, more) in mine.iter_mut().zip(theirs) {
                *count += more;
            }
        }
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Watches one sequence frame by frame; keeps one frame.
#[derive(Debug, Clone)]
pub struct Flicker {
    counts: FlickerCounts,
    /// Truth and prediction of the frame before.
    before: Option<(Vec<u8>, Vec<u8>)>,
}

impl Flicker {
    /// For so many classes.
    pub fn new(classes: usize) -> Self {
        Self {
            counts: FlickerCounts::new(classes),
            before: None,
        }
    }

    /// The next frame: a true and a predicted id for each pixel, 255 for ignored and for no mask. A frame of another
    /// size than the one before makes no pair with it.
    ///
    /// # Errors
    /// Slices of different lengths. Ids that are no class are not counted.
    pub fn add(&mut self, truth: &[u8], predicted: &[u8]) -> Result<()> {
        if truth.len() != predicted.len() {
            let bound = format!("the ground truth has {}", truth.len());
            return Err(Error::config("predicted pixels", predicted.len(), bound));
        }
        if let Some((truth_before, predicted_before)) = &self.before
            && truth_before.len() == truth.len()
        {
            let mut table = [[0_u64; 2]; 256];
            let pixels = truth.iter().zip(truth_before);
            for ((t, was), (p, was_predicted)) in pixels.zip(predicted.iter().zip(predicted_before)) {
                if t == was
                    && let Some([steady, changed]) = table.get_mut(usize::from(*t))
                {
                    *steady += 1;
                    *changed += u64::from(p != was_predicted);
                }
            }
            let classes = table.iter().take(usize::from(IGNORED));
            let counts = self.counts.steady.iter_mut().zip(&mut self.counts.changed);
            for ([more_steady, more_changed], (steady, changed)) in classes.zip(counts) {
                *steady += more_steady;
                *changed += more_changed;
            }
        }
        let (truth_kept, predicted_kept) = self.before.get_or_insert_default();
        truth_kept.clear();
        truth_kept.extend_from_slice(truth);
        predicted_kept.clear();
        predicted_kept.extend_from_slice(predicted);
        Ok(())
    }

    /// The next frame is no neighbour of the last one: one without ground truth lies between, or a new sequence begins.
    pub fn break_off(&mut self) {
        self.before = None;
    }

    /// What has been counted.
    pub fn counts(&self) -> &FlickerCounts {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pixels_with_steady_truth_can_flicker() {
        let mut flicker = Flicker::new(3);
        flicker.add(&[0, 0, 1, 1, 255, 2], &[0, 0, 0, 1, 0, 2]).unwrap();
        assert_eq!(flicker.counts().rate(), None);
        // Steady: 0, 1, 3 and 5; changed: 1 (right to wrong) and 5 (right to none).
        flicker.add(&[0, 0, 0, 1, 255, 2], &[0, 2, 1, 1, 1, 255]).unwrap();
        assert_eq!(flicker.counts().steady, [2, 1, 1]);
        assert_eq!(flicker.counts().changed, [1, 0, 1]);
        assert_eq!(flicker.counts().rate(), Some(0.5));
        assert_eq!(flicker.counts().class_rate(1), Some(0.0));
        flicker.break_off();
        flicker.add(&[0; 6], &[1; 6]).unwrap();
        assert_eq!(flicker.counts().rate(), Some(0.5));
        // Another size makes no pair.
        flicker.add(&[0; 4], &[2; 4]).unwrap();
        assert_eq!(flicker.counts().rate(), Some(0.5));
        assert!(flicker.add(&[0], &[]).is_err());
    }

    #[test]
    fn counts_of_sequences_add_up() {
        let mut all = FlickerCounts::new(2);
        let one = FlickerCounts {
            steady: vec![3, 1],
            changed: vec![1, 1],
        };
        all.merge(&one);
        all.merge(&one);
        assert_eq!((all.rate(), all.class_rate(0)), (Some(0.5), Some(1.0 / 3.0)));
        assert_eq!(all.class_rate(7), None);
    }
}
