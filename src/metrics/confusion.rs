//! The confusion matrix of a data set: how often each class was taken for each other.
//!
//! ```text
//! IoU = n_ii / (row_i + column_i - n_ii)        Dice = 2 n_ii / (row_i + column_i)
//! ```

use crate::error::{Error, Result};

/// Counted pixels, `[truth, prediction]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    ignored: u8,
    counts: Vec<u64>,
}

impl Confusion {
    /// For that many classes; pixels whose truth is `ignored` count for nothing.
    pub fn new(classes: usize, ignored: u8) -> Self {
        Self {
            classes,
            ignored,
            counts: vec![0; classes * classes],
        }
    }

    /// Counts the pixels of a picture.
    ///
    /// # Errors
    /// Slices of different lengths, or an id that is no class.
    pub fn add(&mut self, truth: &[u8], prediction: &[u8]) -> Result<()> {
        if truth.len() != prediction.len() {
            let bound = format!("the truth has {}", truth.len());
            return Err(Error::config("pixels of the prediction", prediction.len(), bound));
        }
        for (&truth, &prediction) in truth.iter().zip(prediction) {
            if truth == self.ignored {
                continue;
            }
            let (row, column) = (usize::from(truth), usize::from(prediction));
            if row >= self.classes || column >= self.classes {
                let bound = format!("there are {} classes", self.classes);
                return Err(Error::config("class", row.max(column), bound));
            }
            self.counts[row * self.classes + column] += 1;
        }
        Ok(())
    }

    /// Pixels of class `truth` that were taken for `prediction`.
    pub fn count(&self, truth: usize, prediction: usize) -> u64 {
        self.counts
            .get(truth * self.classes + prediction)
            .copied()
            .unwrap_or(0)
    }

    /// Intersection over union of a class; `None` where it is in neither truth nor prediction.
    pub fn iou(&self, class: usize) -> Option<f64> {
        let own = self.count(class, class);
        let row: u64 = (0..self.classes).map(|other| self.count(class, other)).sum();
        let column: u64 = (0..self.classes).map(|other| self.count(other, class)).sum();
        let union = row + column - own;
        (union > 0).then(|| own as f64 / union as f64)
    }

    /// Mean of [`Confusion::iou`] over the classes that occur; `None` where nothing was counted.
    pub fn mean_iou(&self) -> Option<f64> {
        let own: Vec<f64> = (0..self.classes).filter_map(|class| self.iou(class)).collect();
        (!own.is_empty()).then(|| own.iter().sum::<f64>() / own.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worked_example_holds() {
        let mut confusion = Confusion::new(4, 255);
        confusion.add(&[0, 0, 1, 1, 2, 255], &[0, 1, 1, 1, 0, 3]).unwrap();
        assert_eq!(confusion.iou(0), Some(1.0 / 3.0));
        assert_eq!(confusion.iou(1), Some(2.0 / 3.0));
        assert_eq!(confusion.iou(2), Some(0.0));
        assert_eq!(confusion.iou(3), None);
        assert!((confusion.mean_iou().unwrap() - 1.0 / 3.0).abs() < 1e-12);
        assert!(confusion.add(&[4], &[0]).is_err());
        assert!(confusion.add(&[0, 0], &[0]).is_err());
        assert_eq!(Confusion::new(2, 255).mean_iou(), None);
    }
}
