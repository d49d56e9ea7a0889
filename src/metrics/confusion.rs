//! The confusion matrix: how often each true class was called what.
//!
//! Pixels whose truth is [`IGNORED`] count nowhere. A prediction of 255, "no mask here", is no class: such pixels count
//! to the size of their true class and to nobody's prediction, so a missing prediction costs.

use super::overlap::FrameCounts;
use crate::error::{Error, Result};
use crate::labels::{MAX_CLASSES, NO_MASK};

/// The id of pixels in the ground truth that are not scored.
pub const IGNORED: u8 = 255;

/// Counts of pixels, `[true class, predicted class or none]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// `[classes, classes + 1]`; the last column is "no mask".
    counts: Vec<u64>,
}

impl Confusion {
    /// All zero.
    ///
    /// # Errors
    /// No classes, or more than [`MAX_CLASSES`].
    pub fn new(classes: usize) -> Result<Self> {
        if classes == 0 || classes > MAX_CLASSES {
            let bound = format!("it has to be 1 to {MAX_CLASSES}");
            return Err(Error::config("classes", classes, bound));
        }
        let counts = vec![0; classes * (classes + 1)];
        Ok(Self { classes, counts })
    }

    /// Intersection over union of a class; `None` where it is in neither truth nor prediction.
    pub fn iou(&self, class: usize) -> Option<f64> {
        FrameCounts::from(self).class(class).iou()
    }

    /// Mean of [`Confusion::iou`] over the classes that occur; `None` where nothing was counted.
    pub fn mean_iou(&self) -> Option<f64> {
        let own: Vec<f64> = (0..self.classes()).filter_map(|class| self.iou(class)).collect();
        (!own.is_empty()).then(|| own.iter().sum::<f64>() / own.len() as f64)
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Counts the pixels of one picture: a true and a predicted class id for each.
    ///
    /// # Errors
    /// Slices of different lengths, or an id that is neither a class nor 255. Nothing is counted then.
    pub fn add(&mut self, truth: &[u8], predicted: &[u8]) -> Result<()> {
        if truth.len() != predicted.len() {
            let bound = format!("the ground truth has {}", truth.len());
            return Err(Error::config("predicted pixels", predicted.len(), bound));
        }
        self.check("true class", truth)?;
        self.check("predicted class", predicted)?;
        // One table of all pairs of bytes: no branch per pixel.
        let mut pairs = vec![0_u32; 1 << 16];
        // A part of at most 2^31 pixels cannot overflow an entry.
        for (truth, predicted) in truth.chunks(1 << 31).zip(predicted.chunks(1 << 31)) {
            for (&t, &p) in truth.iter().zip(predicted) {
                if let Some(count) = pairs.get_mut(usize::from(t) << 8 | usize::from(p)) {
                    *count += 1;
                }
            }
            for (t, row) in self.counts.chunks_exact_mut(self.classes + 1).enumerate() {
                let of_truth = pairs.get_mut(t << 8..(t + 1) << 8).unwrap_or_default();
                let columns = (0..self.classes).chain([usize::from(NO_MASK)]);
                for (count, column) in row.iter_mut().zip(columns) {
                    if let Some(pair) = of_truth.get_mut(column) {
                        *count += u64::from(std::mem::take(pair));
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts a picture for which there is no prediction at all.
    ///
    /// # Errors
    /// As [`Confusion::add`].
    pub fn add_missing(&mut self, truth: &[u8]) -> Result<()> {
        self.check("true class", truth)?;
        for &t in truth {
            let at = usize::from(t) * (self.classes + 1) + self.classes;
            if t != IGNORED
                && let Some(count) = self.counts.get_mut(at)
            {
                *count += 1;
            }
        }
        Ok(())
    }

    /// Adds the counts of another matrix of as many classes.
    ///
    /// # Errors
    /// Another number of classes.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if other.classes != self.classes {
            let bound = format!("the other matrix has {}", other.classes);
            return Err(Error::config("classes", self.classes, bound));
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        Ok(())
    }

    /// Pixels of `truth` that were called `predicted`; 0 for ids that are no class.
    pub fn count(&self, truth: usize, predicted: usize) -> u64 {
        let known = truth < self.classes && predicted < self.classes;
        let at = truth * (self.classes + 1) + predicted;
        self.counts.get(at).copied().filter(|_| known).unwrap_or(0)
    }

    /// Pixels of `truth` without a prediction.
    pub fn unpredicted(&self, truth: usize) -> u64 {
        self.row(truth).last().copied().unwrap_or(0)
    }

    /// Pixels of `truth`.
    pub fn truth_size(&self, truth: usize) -> u64 {
        self.row(truth).iter().sum()
    }

    /// Pixels that were called `predicted`.
    pub fn predicted_size(&self, predicted: usize) -> u64 {
        (0..self.classes).map(|truth| self.count(truth, predicted)).sum()
    }

    fn row(&self, truth: usize) -> &[u64] {
        let width = self.classes + 1;
        self.counts
            .get(truth * width..(truth + 1) * width)
            .unwrap_or_default()
    }

    fn check(&self, what: &str, ids: &[u8]) -> Result<()> {
        let classes = self.classes;
        let strange = |&&id: &&u8| usize::from(id) >= classes && id != IGNORED;
        match ids.iter().find(strange) {
            None => Ok(()),
            Some(id) => {
                let bound = format!("it has to be below {classes}, or {IGNORED} for none");
                Err(Error::config(what, id, bound))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_pixels_count_nowhere_and_unmasked_ones_cost() {
        let mut matrix = Confusion::new(2).unwrap();
        matrix
            .add(&[0, 0, 1, 1, 255, 255], &[0, 1, 1, 255, 0, 255])
            .unwrap();
        assert_eq!((matrix.count(0, 0), matrix.count(0, 1)), (1, 1));
        assert_eq!((matrix.count(1, 1), matrix.unpredicted(1)), (1, 1));
        assert_eq!((matrix.truth_size(1), matrix.predicted_size(1)), (2, 2));
        assert_eq!(matrix.predicted_size(0), 1);
        let mut missing = Confusion::new(2).unwrap();
        missing.add_missing(&[0, 0, 1, 255]).unwrap();
        let mut same = Confusion::new(2).unwrap();
        same.add(&[0, 0, 1, 255], &[255; 4]).unwrap();
        assert_eq!(missing, same);
    }

    #[test]
    fn the_largest_model_has_room_for_no_mask() {
        let mut matrix = Confusion::new(MAX_CLASSES).unwrap();
        matrix.add(&[254, 254], &[254, 255]).unwrap();
        assert_eq!((matrix.count(254, 254), matrix.unpredicted(254)), (1, 1));
    }

    #[test]
    fn what_is_no_class_is_refused_by_value() {
        let mut matrix = Confusion::new(3).unwrap();
        for (truth, predicted, says) in [
            (vec![3], vec![0], "true class is 3, but it has to be below 3"),
            (vec![0], vec![254], "predicted class is 254"),
            (
                vec![0, 0],
                vec![0],
                "predicted pixels is 1, but the ground truth has 2",
            ),
        ] {
            let error = matrix.add(&truth, &predicted).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(matrix, Confusion::new(3).unwrap());
        assert!(Confusion::new(0).is_err() && Confusion::new(256).is_err());
        assert!(matrix.merge(&Confusion::new(2).unwrap()).is_err());
    }
}
