//! Overlap of one class's true and predicted pixels, and the counts of a frame that all averages are made from.
//!
//! ```text
//! IoU = |T ∩ P| / |T ∪ P|        Dice = 2 |T ∩ P| / (|T| + |P|)
//! ```
//! Where neither holds a pixel both are 0/0: no value, and each [`Convention`](super::Convention) says what it does
//! about that.

use super::confusion::Confusion;
use crate::error::Result;

/// Sizes, in pixels, of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overlap {
    /// Predicted as this class, and truly of it.
    pub intersection: u64,
    /// Truly of it.
    pub truth: u64,
    /// Predicted as it.
    pub predicted: u64,
}

impl Overlap {
    /// True or predicted pixels.
    pub fn union(self) -> u64 {
        self.truth + self.predicted - self.intersection.min(self.predicted)
    }

    /// Intersection over union, 0 to 1; `None` for a class that is absent from both.
    pub fn iou(self) -> Option<f64> {
        ratio(self.intersection, self.union())
    }

    /// Dice coefficient, 0 to 1; `None` for a class that is absent from both.
    pub fn dice(self) -> Option<f64> {
        ratio(2 * self.intersection, self.truth + self.predicted)
    }
}

impl std::ops::Add for Overlap {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            intersection: self.intersection + other.intersection,
            truth: self.truth + other.truth,
            predicted: self.predicted + other.predicted,
        }
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// One frame's overlap of each class, in the order of ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FrameCounts {
    classes: Vec<Overlap>,
}

impl FrameCounts {
    /// Counts one picture; ids are classes or 255, see [`Confusion`].
    ///
    /// # Errors
    /// As [`Confusion::new`] and [`Confusion::add`].
    pub fn of(truth: &[u8], predicted: &[u8], classes: usize) -> Result<Self> {
        let mut confusion = Confusion::new(classes)?;
        confusion.add(truth, predicted)?;
        Ok(Self::from(&confusion))
    }

    /// Counts a picture for which there is no prediction.
    ///
    /// # Errors
    /// As [`FrameCounts::of`].
    pub fn missing(truth: &[u8], classes: usize) -> Result<Self> {
        let mut confusion = Confusion::new(classes)?;
        confusion.add_missing(truth)?;
        Ok(Self::from(&confusion))
    }

    /// The overlap of class `id`; nothing for an id that is no class.
    pub fn class(&self, id: usize) -> Overlap {
        self.classes.get(id).copied().unwrap_or_default()
    }

    /// Every class in the order of ids.
    pub fn classes(&self) -> &[Overlap] {
        &self.classes
    }

    /// The mean IoU over the classes in the frame's ground truth, background included; `None` where no pixel is
    /// scored. By this frames are ranked.
    pub fn mean_iou(&self) -> Option<f64> {
        mean(self.classes.iter().filter(|o| o.truth > 0).map(|o| o.iou()))
    }
}

impl From<&Confusion> for FrameCounts {
    fn from(confusion: &Confusion) -> Self {
        let overlap = |class| Overlap {
            intersection: confusion.count(class, class),
            truth: confusion.truth_size(class),
            predicted: confusion.predicted_size(class),
        };
        let classes = (0..confusion.classes()).map(overlap).collect();
        Self { classes }
    }
}

/// The mean of the values that there are; `None` where there are none.
pub(super) fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_u64);
    for value in values.flatten() {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_classes_have_no_value_and_missed_ones_zero() {
        let frame = FrameCounts::of(&[0, 0, 1, 255], &[0, 2, 0, 2], 4).unwrap();
        assert_eq!(frame.class(0).iou(), Some(1.0 / 3.0));
        assert_eq!(frame.class(0).dice(), Some(0.5));
        assert_eq!(frame.class(1).iou(), Some(0.0));
        // The ignored pixel does not count as predicted.
        assert_eq!(frame.class(2).predicted, 1);
        assert_eq!(frame.class(2).dice(), Some(0.0));
        assert_eq!((frame.class(3).iou(), frame.class(3).dice()), (None, None));
        assert_eq!(frame.class(99), Overlap::default());
        assert_eq!(frame.mean_iou(), Some(1.0 / 6.0));
    }
}
