//! The ways in which people average overlaps over frames, classes and sequences. Each has its own name: the same masks
//! differ by tens of points between them.
//!
//! With `o(f, c)` the overlap of class `c` in frame `f`, and 0 the background:
//!
//! | name | first | then | classes | a class absent from truth and prediction |
//! |---|---|---|---|---|
//! | `challenge-2018` | per frame, over the classes in its truth | over frames | all | is not averaged over |
//! | `ch-iou` | the same | over frames | without 0 | is not averaged over |
//! | `iou` | per frame, over the classes in its truth or prediction | over frames | without 0 | is not averaged over |
//! | `mc-iou` | per class, over the frames with it in truth or prediction | over classes | without 0 | is not averaged over |
//! | `ma-sam` | per sequence and class, frames summed up | over sequences, then classes | without 0 | scores 1 |
//! | `dataset-wide` | per class, all frames summed up | over classes | all | is not averaged over |
//!
//! `challenge-2018` follows Allan et al. (arXiv 2001.11190), `ch-iou`, `iou` and `mc-iou` the family that ISINet
//! (González et al. 2020) began. `ma-sam` follows what MA-SAM's authors released, which computes Dice; their IoU is
//! not in it and is taken here by the same rule. In all of them a frame without a prediction scores 0 for the classes
//! in its truth (the challenge's penalty, twice the worst error of the other teams, cannot be known here); a frame that
//! gives no class to average over is not scored.

use super::overlap::{FrameCounts, Overlap, mean};
use serde::Serialize;
use std::fmt;

/// A way of averaging; see the table above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Convention {
    /// EndoVis 2018's own.
    #[serde(rename = "challenge-2018")]
    Challenge2018,
    /// "Challenge IoU" of the ISINet family.
    ChIou,
    /// "IoU" of the ISINet family.
    Iou,
    /// "Mean class IoU" of the ISINet family.
    McIou,
    /// As MA-SAM's authors score; the paper does so at the model's side.
    MaSam,
    /// One confusion matrix for everything.
    DatasetWide,
}

/// What a convention makes of some sequences; every value is 0 to 1, `None` where nothing can be averaged.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Scores {
    /// Mean IoU in the convention's order of averaging.
    pub mean_iou: Option<f64>,
    /// The same with Dice in the place of IoU.
    pub mean_dice: Option<f64>,
    /// IoU of each class: averaged over the frames that count it, or of summed-up frames, as the convention does. `None`
    /// for classes that it leaves out.
    pub class_iou: Vec<Option<f64>>,
    /// The same for Dice.
    pub class_dice: Vec<Option<f64>>,
}

impl Convention {
    /// All of them.
    pub const ALL: [Convention; 6] = [
        Convention::Challenge2018,
        Convention::ChIou,
        Convention::Iou,
        Convention::McIou,
        Convention::MaSam,
        Convention::DatasetWide,
    ];

    /// Its name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Convention::Challenge2018 => "challenge-2018",
            Convention::ChIou => "ch-iou",
            Convention::Iou => "iou",
            Convention::McIou => "mc-iou",
            Convention::MaSam => "ma-sam",
            Convention::DatasetWide => "dataset-wide",
        }
    }

    /// What it does, in a line.
    pub fn describe(self) -> &'static str {
        match self {
            Convention::Challenge2018 => {
                "per frame over the classes in its ground truth, background included; then over frames"
            }
            Convention::ChIou => {
                "per frame over the classes in its ground truth, without background; then over frames"
            }
            Convention::Iou => {
                "per frame over the classes in ground truth or prediction, without background; then over frames"
            }
            Convention::McIou => {
                "per class over the frames with it in ground truth or prediction; then over classes without background"
            }
            Convention::MaSam => {
                "per sequence and class over all its frames, absent from both scores 1; then over sequences and classes \
                 without background"
            }
            Convention::DatasetWide => {
                "per class over all frames at once; then over the classes in ground truth or prediction, background \
                 included"
            }
        }
    }

    /// Scores sequences of frames, `[sequence][frame]`, of a model with so many classes. One sequence alone gives that
    /// sequence's scores.
    pub fn score(self, sequences: &[&[FrameCounts]], classes: usize) -> Scores {
        let of = |measure: Measure| self.averages(sequences, classes, measure);
        let ((mean_iou, class_iou), (mean_dice, class_dice)) = (of(Overlap::iou), of(Overlap::dice));
        Scores {
            mean_iou,
            mean_dice,
            class_iou,
            class_dice,
        }
    }

    fn averages(
        self,
        sequences: &[&[FrameCounts]],
        classes: usize,
        measure: Measure,
    ) -> (Option<f64>, Vec<Option<f64>>) {
        let frames = || sequences.iter().flat_map(|sequence| sequence.iter());
        let value = |class: usize, overlap: Overlap| self.value(class, overlap, measure);
        let per_class: Vec<Option<f64>> = (0..classes)
            .map(|class| match self {
                Convention::DatasetWide => value(class, sum(frames(), class)),
                Convention::MaSam => mean(sequences.iter().map(|s| value(class, sum(s.iter(), class)))),
                _ => mean(frames().map(|frame| value(class, frame.class(class)))),
            })
            .collect();
        let mean = match self {
            Convention::Challenge2018 | Convention::ChIou | Convention::Iou => {
                mean(frames().map(|frame| mean((0..classes).map(|class| value(class, frame.class(class))))))
            }
            Convention::McIou | Convention::MaSam | Convention::DatasetWide => {
                mean(per_class.iter().copied())
            }
        };
        (mean, per_class)
    }

    /// The value of one overlap; `None` where the convention leaves it out of its averages.
    fn value(self, class: usize, overlap: Overlap, measure: Measure) -> Option<f64> {
        let counts = match self {
            Convention::Challenge2018 => overlap.truth > 0,
            Convention::ChIou => class > 0 && overlap.truth > 0,
            Convention::Iou | Convention::McIou => class > 0,
            Convention::MaSam => class > 0,
            Convention::DatasetWide => true,
        };
        let absent = (self == Convention::MaSam).then_some(1.0);
        counts.then(|| measure(overlap).or(absent)).flatten()
    }
}

type Measure = fn(Overlap) -> Option<f64>;

/// A class's overlap with frames summed up.
fn sum<'a>(frames: impl Iterator<Item = &'a FrameCounts>, class: usize) -> Overlap {
    frames.fold(Overlap::default(), |sum, frame| sum + frame.class(class))
}

impl fmt::Display for Convention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
