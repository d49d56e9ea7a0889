//! The evaluation itself: sequences through the engine, each mask scored against its labels.
//!
//! ```text
//! picture --square--> engine (exact) --labels at the model's side--> nearest, to the frame's size --> native counts
//! ground truth, untouched ------------------------------------------------------------------------^
//! ground truth --nearest, to the model's side--> counts at the model's side (for MA-SAM's convention)
//! ```
//! Frames without labels are shown to the model like all others, and not scored.

use super::ahead::ahead;
use crate::data::Sequence;
use crate::geometry::Size;
use crate::kernels::picture::blend::key::Enlarger;
use crate::kernels::picture::contour::MaskPlane;
use crate::kernels::picture::resize_reference::zoom_labels;
use crate::labels::NO_MASK;
use crate::metrics::{Convention, Flicker, FlickerCounts, FrameCounts};
use crate::predictor::AsRgbFrame;
use crate::segmenter::{ModelFrame, Resize};
use crate::stream::{Next, Offline, Squarer};
use anyhow::{Context, Result, anyhow, bail};
use image::{GrayImage, RgbImage};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// How long a wait for the model may keep a wish to stop waiting.
const POLL: Duration = Duration::from_millis(100);

/// Clips that are cut before they are needed, so that the model never waits.
const CLIPS_AHEAD: u64 = 2;

/// What is evaluated.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// One after the other; their labels mean the model's classes.
    pub sequences: Vec<&'a Sequence>,
    /// Frames of each sequence, from its start; all without it.
    pub limit: Option<usize>,
    /// Whether [`Seen::image`] is wanted: the pictures are decoded a second time for it.
    pub with_images: bool,
}

impl Plan<'_> {
    /// Frames of `sequence` that are evaluated.
    pub fn frames(&self, sequence: &Sequence) -> usize {
        let all = sequence.frames.len();
        self.limit.map_or(all, |limit| limit.min(all))
    }

    /// Frames of all sequences that are evaluated.
    pub fn total(&self) -> usize {
        self.sequences.iter().map(|sequence| self.frames(sequence)).sum()
    }
}

/// One frame after it was segmented.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Its sequence, and that one's place in the plan.
    pub sequence: &'a Sequence,
    /// Place of the sequence in the plan.
    pub place: usize,
    /// Its index in the sequence.
    pub index: usize,
    /// Its size.
    pub size: Size,
    /// The picture, where [`Plan::with_images`] asks for it.
    pub image: Option<&'a RgbImage>,
    /// Its labels, where it has any.
    pub truth: Option<&'a GrayImage>,
    /// `[height, width]` predicted ids, enlarged by nearest.
    pub predicted: &'a [u8],
    /// `[side, side]` predicted ids, upright.
    pub plane: &'a [u8],
    /// Its score at its own size, where it has labels.
    pub counts: Option<&'a FrameCounts>,
}

/// One sequence's counts.
#[derive(Debug, Clone, Default)]
pub struct SequenceScores {
    /// As in the data set.
    pub name: String,
    /// Frames shown to the model.
    pub frames: usize,
    /// Indices of those with labels.
    pub scored: Vec<usize>,
    /// Of the scored frames, at their own size.
    pub native: Vec<FrameCounts>,
    /// The same at the model's side.
    pub side: Vec<FrameCounts>,
    /// At the frames' own size.
    pub flicker: FlickerCounts,
}

impl SequenceScores {
    /// The counts that `convention` is computed from: MA-SAM's at the model's side, the others at the frames' own size.
    pub fn counts(&self, convention: Convention) -> &[FrameCounts] {
        match convention {
            Convention::MaSam => &self.side,
            _ => &self.native,
        }
    }
}

/// A frame's ground truth, and its picture where it is wanted.
struct Truth {
    size: Size,
    labels: Option<GrayImage>,
    image: Option<RgbImage>,
}

/// Segments and scores every frame of the plan; `see` is shown each one in order. `None` where `stop` was set before
/// the end.
///
/// # Errors
/// A file that cannot be read, a frame that the model gave no mask for, labels with an id that the model does not have,
/// or what `see` gives; with the name of the frame.
pub fn evaluate(
    offline: &mut Offline,
    plan: &Plan<'_>,
    stop: &AtomicBool,
    see: &mut dyn FnMut(&Seen<'_>) -> Result<()>,
) -> Result<Option<Vec<SequenceScores>>> {
    let mut all = Vec::with_capacity(plan.sequences.len());
    for (place, &sequence) in plan.sequences.iter().enumerate() {
        let count = plan.frames(sequence);
        let mut squarer = Squarer::of(offline.spec());
        let scores = std::thread::scope(|scope| {
            let squares = ahead(scope, count, move |index| {
                Ok(square(&mut squarer, &sequence.image(index)?)?)
            });
            let truths = ahead(scope, count, |index| {
                let image = plan.with_images.then(|| sequence.image(index)).transpose()?;
                let (size, labels) = (sequence.size(index)?, sequence.labels(index)?);
                Ok(Truth { size, labels, image })
            });
            let source = Source {
                sequence,
                place,
                count,
                squares,
                truths,
            };
            run(offline, source, stop, see)
        })?;
        match scores {
            Some(scores) => all.push(scores),
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}

/// The whole picture as the model's square.
fn square(squarer: &mut Squarer, image: &RgbImage) -> crate::Result<ModelFrame> {
    let picture = image.as_rgb_frame().picture()?;
    squarer.square(&picture, picture.size().rect())
}

/// One sequence's frames and labels, decoded ahead.
struct Source<'a> {
    sequence: &'a Sequence,
    place: usize,
    count: usize,
    squares: Receiver<Result<ModelFrame>>,
    truths: Receiver<Result<Truth>>,
}

fn run(
    offline: &mut Offline,
    source: Source<'_>,
    stop: &AtomicBool,
    see: &mut dyn FnMut(&Seen<'_>) -> Result<()>,
) -> Result<Option<SequenceScores>> {
    let Source {
        sequence,
        place,
        count,
        ..
    } = source;
    let named = |index: usize| {
        let frame = sequence.frames.get(index).map_or("", |frame| &frame.name);
        format!("{} {frame}", sequence.name)
    };
    let most_waiting = offline.window().look_ahead_frames() as u64 + CLIPS_AHEAD;
    let mut scorer = Scorer::new(offline, sequence);
    let (mut pushed, mut done) = (0, 0);
    offline.begin();
    while done < count {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        while pushed < count && offline.waiting() <= most_waiting {
            let frame = source.squares.recv().context("the decoder ended early")?;
            offline.push(frame.with_context(|| named(pushed))?);
            pushed += 1;
            if pushed == count {
                offline.finish();
            }
        }
        let mask = match offline.next(POLL) {
            Next::Mask(mask) => mask,
            Next::TimedOut => continue,
            Next::Failed { error, .. } => return Err(anyhow!(error).context(named(done))),
            Next::NeedsFrames => bail!("{}: the engine waits for frames that it has", named(done)),
        };
        let truth = source.truths.recv().context("the decoder ended early")?;
        let truth = truth.with_context(|| named(done))?;
        let counts = scorer
            .add(done, &mask.labels, &truth)
            .with_context(|| named(done))?;
        let seen = Seen {
            sequence,
            place,
            index: done,
            size: truth.size,
            image: truth.image.as_ref(),
            truth: truth.labels.as_ref(),
            predicted: &scorer.predicted,
            plane: &mask.labels,
            counts: counts.as_ref(),
        };
        see(&seen).with_context(|| named(done))?;
        done += 1;
    }
    Ok(Some(scorer.finish(count)))
}

/// Scores one sequence's masks.
struct Scorer {
    scores: SequenceScores,
    flicker: Flicker,
    classes: usize,
    side_px: u32,
    resize: Resize,
    enlarger: Enlarger,
    /// The last mask at its frame's size.
    predicted: Vec<u8>,
}

impl Scorer {
    fn new(offline: &Offline, sequence: &Sequence) -> Self {
        let spec = offline.spec();
        let classes = spec.classes.len();
        Self {
            scores: SequenceScores {
                name: sequence.name.clone(),
                ..SequenceScores::default()
            },
            flicker: Flicker::new(classes),
            classes,
            side_px: spec.side_px,
            resize: spec.resize,
            enlarger: Enlarger::default(),
            predicted: Vec::new(),
        }
    }

    /// Scores the mask of frame `index`; gives its counts at its own size where it has labels.
    fn add(&mut self, index: usize, plane: &[u8], truth: &Truth) -> Result<Option<FrameCounts>> {
        let square = Size::square(self.side_px);
        self.predicted.resize(truth.size.area(), NO_MASK);
        nearest(&mut self.enlarger, plane, square, truth.size, &mut self.predicted);
        let Some(labels) = &truth.labels else {
            self.flicker.break_off();
            return Ok(None);
        };
        let native = FrameCounts::of(labels.as_raw(), &self.predicted, self.classes)?;
        let small = match self.resize {
            Resize::Reference => zoom_labels(labels.as_raw(), truth.size, self.side_px),
            Resize::Area => {
                let mut small = vec![NO_MASK; square.area()];
                nearest(
                    &mut self.enlarger,
                    labels.as_raw(),
                    truth.size,
                    square,
                    &mut small,
                );
                small
            }
        };
        self.scores
            .side
            .push(FrameCounts::of(&small, plane, self.classes)?);
        self.scores.native.push(native.clone());
        self.scores.scored.push(index);
        self.flicker.add(labels.as_raw(), &self.predicted)?;
        Ok(Some(native))
    }

    fn finish(self, frames: usize) -> SequenceScores {
        SequenceScores {
            frames,
            flicker: self.flicker.counts().clone(),
            ..self.scores
        }
    }
}

/// Brings ids from one size to another: each pixel takes the one that its centre lies in, as `masammask` does.
fn nearest(enlarger: &mut Enlarger, ids: &[u8], from: Size, to: Size, target: &mut [u8]) {
    let plane = MaskPlane {
        ids,
        mask: from,
        region: to.rect(),
        frame: to,
    };
    enlarger.write_ids(target, &plane);
}
