//! The seam between video and model: batched clips in, one result per clip out.
//!
//! [`Segmenter`] is what the stream engine drives and what the runtime implements; neither knows the other. All
//! buffers are owned, so an implementation in another process or on another machine fits the same trait.
//!
//! ```text
//! stream engine --Request{stream, frames, wanted}--> Segmenter --Reply{outputs}--> stream engine
//! ```
//!
//! A batch that fails is run again row by row by [`segment_isolated`], so one stream's poison stays its own.

use crate::geometry::{Alignment, Orientation};
use crate::labels::ClassSet;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

/// Names one stream of frames: outputs and causal state of different streams never mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// Bits of a [`StreamId`] that name the stream; those above name its phase.
const STREAM_BITS: u32 = 48;

impl StreamId {
    /// A stream of every so-many-th frame of this one: its causal state is one of its own. Streams have numbers below
    /// 2^48; phase 0 is the stream itself.
    pub fn phase(self, phase: u16) -> Self {
        Self(self.0 | u64::from(phase) << STREAM_BITS)
    }

    /// The stream that this is a phase of.
    pub fn whole(self) -> Self {
        Self(self.0 & ((1 << STREAM_BITS) - 1))
    }
}

/// How a region of the frame becomes the model's square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// Cubic spline with corners aligned, as the authors prepared EndoVis: for exact reproduction.
    Reference,
    /// Area average when shrinking, bilinear when enlarging: what live video uses.
    #[default]
    Area,
}

impl Resize {
    /// Where it puts the pixels of the region.
    pub fn alignment(self) -> Alignment {
        match self {
            Resize::Reference => Alignment::Corners,
            Resize::Area => Alignment::Edges,
        }
    }
}

/// How bytes become the model's numbers in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Normalisation {
    /// `(x - min) / (max - min + 1e-8)` over all frames and channels of the clip: the reference.
    #[default]
    ClipMinMax,
    /// `x * scale + offset` with x in 0..=255; needed by causal streaming, where no clip exists.
    Fixed {
        /// Factor, 1/255 for plain bytes.
        scale: f32,
        /// Added afterwards.
        offset: f32,
    },
}

/// Where the taps of the temporal convolutions lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Temporal {
    /// t-1, t, t+1: as published.
    #[default]
    Centered,
    /// t-2, t-1, t: an output never depends on a later frame.
    Causal,
}

/// What a stream has to know of the model behind a [`Segmenter`].
#[derive(Debug, Clone, PartialEq)]
pub struct SegmenterSpec {
    /// Short name of the model, for metadata and logs.
    pub model_id: String,
    /// Frames in a clip (5 as published).
    pub clip_frames: usize,
    /// Side of the square input and of every output plane, in pixels.
    pub side_px: u32,
    /// Class ids, names and colours.
    pub classes: ClassSet,
    /// How the square is made.
    pub resize: Resize,
    /// How the square is turned.
    pub orientation: Orientation,
    /// Time between two frames of a clip in the training data, in nanoseconds; `None` where it is unknown.
    pub frame_interval_nanos: Option<u64>,
    /// Centered or causal taps.
    pub temporal: Temporal,
    /// The weights are not trained: whatever is drawn has to say so.
    pub untrained: bool,
    /// What the computation runs on, for example `cpu f32 avx512`.
    pub device: String,
}

/// One frame at the model's side: RGB bytes, `[side, side, 3]`, turned as the model wants it.
///
/// Shared rather than copied: a frame is part of five clips.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFrame {
    /// `side * side * 3` bytes, row by row, red first.
    pub rgb: Arc<[u8]>,
}

/// What to give back for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// The class with the highest logit, a byte per pixel.
    Labels,
    /// The softmax over classes, as floats: what `emit=ensemble` averages.
    Probabilities,
}

/// Spatial prompts in pixels of the model's square, for models trained with prompts. The same prompt serves every
/// frame of a clip, as in the paper's 3D box.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prompt {
    /// `[x0, y0, x1, y1]`.
    pub box_px: Option<[f32; 4]>,
    /// `([x, y], inside)`.
    pub points_px: Vec<([f32; 2], bool)>,
}

impl Prompt {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.box_px.is_none() && self.points_px.is_empty()
    }
}

/// One clip of one stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Whose clip it is.
    pub stream: StreamId,
    /// Oldest first, [`SegmenterSpec::clip_frames`] of them.
    pub frames: Vec<ModelFrame>,
    /// Indices into `frames` for which an output is wanted, ascending.
    pub outputs: Vec<usize>,
    /// Labels or probabilities.
    pub want: Want,
    /// Spatial prompts, empty for automatic segmentation.
    pub prompt: Prompt,
    /// Instead of a clip, the one new frame of a phase of the stream ([`StreamId::phase`]), for
    /// [`Segmenter::step`].
    pub step: Option<u16>,
}

/// One new frame of one stream of a causal model.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Whose causal state goes on.
    pub stream: StreamId,
    /// The frame.
    pub frame: ModelFrame,
    /// Labels or probabilities.
    pub want: Want,
    /// Spatial prompts, empty for automatic segmentation.
    pub prompt: Prompt,
}

/// The output for one frame, in the orientation of the model's input.
#[derive(Debug, Clone, PartialEq)]
pub enum Plane {
    /// `[side, side]` class ids.
    Labels(Vec<u8>),
    /// `[classes, side, side]`, each pixel's values adding up to 1.
    Probabilities(Vec<f32>),
}

/// The outputs for one [`Request`], in the order of its `outputs`.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// One plane per wanted output.
    pub planes: Vec<Plane>,
}

/// Why a clip has no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The request itself cannot be served.
    #[error("the request does not fit the model: {0}")]
    Request(String),
    /// The forward pass failed.
    #[error("the forward pass failed: {0}")]
    Forward(String),
    /// The output holds NaN or infinity.
    #[error("the forward pass gave {count} values that are not finite")]
    NotFinite {
        /// How many.
        count: usize,
    },
    /// The forward pass panicked; its message.
    #[error("the forward pass panicked: {0}")]
    Panicked(String),
    /// The deadline had passed before the work was begun.
    #[error("the deadline passed before the clip was begun")]
    Late,
    /// This implementation or model cannot do that.
    #[error("{0}")]
    Unsupported(String),
}

/// Opaque causal state of one stream, as taken by [`Segmenter::snapshot`].
#[derive(Debug, Clone, PartialEq)]
pub struct StateSnapshot {
    /// Implementation's own bytes.
    pub bytes: Arc<[u8]>,
}

/// Runs clips through a model. One call at a time; it may take as long as it takes.
pub trait Segmenter: Send {
    /// What the model wants and gives.
    fn spec(&self) -> &SegmenterSpec;

    /// Runs `requests` as one batch: one result per request, in order. With a `deadline`, rows that cannot be begun
    /// before it give [`SegmentError::Late`]. A row that is begun is finished.
    fn segment(
        &mut self,
        requests: &[Request],
        deadline: Option<Instant>,
    ) -> Vec<Result<Reply, SegmentError>>;

    /// Feeds one new frame of each stream to a causal model; the output is that frame's.
    ///
    /// # Errors
    /// [`SegmentError::Unsupported`] unless the implementation streams.
    fn step(&mut self, steps: &[Step], deadline: Option<Instant>) -> Vec<Result<Plane, SegmentError>> {
        let _ = deadline;
        let why = "this model or build does not run one frame at a time";
        steps
            .iter()
            .map(|_| Err(SegmentError::Unsupported(why.into())))
            .collect()
    }

    /// Forgets the state of `stream` in all its phases: its next frame is its first. Called when an epoch ends.
    fn reset(&mut self, stream: StreamId) {
        let _ = stream;
    }

    /// The state of `stream`, `None` where there is none.
    fn snapshot(&self, stream: StreamId) -> Option<StateSnapshot> {
        let _ = stream;
        None
    }

    /// Puts a snapshot of the same model back.
    ///
    /// # Errors
    /// A snapshot of another model or implementation.
    fn restore(&mut self, stream: StreamId, snapshot: &StateSnapshot) -> Result<(), SegmentError> {
        let _ = (stream, snapshot);
        Err(SegmentError::Unsupported(
            "this model or build keeps no state".into(),
        ))
    }
}

/// [`Segmenter::segment`] with panics contained and failed batches run again row by row: what a worker calls.
pub fn segment_isolated(
    segmenter: &mut dyn Segmenter,
    requests: &[Request],
    deadline: Option<Instant>,
) -> Vec<Result<Reply, SegmentError>> {
    let mut results = contained(segmenter, requests, deadline);
    if requests.len() > 1 {
        for (result, request) in results.iter_mut().zip(requests) {
            let again = matches!(
                result,
                Err(SegmentError::Forward(_) | SegmentError::Panicked(_) | SegmentError::NotFinite { .. })
            );
            if again && let Some(row) = contained(segmenter, std::slice::from_ref(request), deadline).pop() {
                *result = row;
            }
        }
    }
    results
}

fn contained(
    segmenter: &mut dyn Segmenter,
    requests: &[Request],
    deadline: Option<Instant>,
) -> Vec<Result<Reply, SegmentError>> {
    let run = std::panic::AssertUnwindSafe(|| dispatched(segmenter, requests, deadline));
    let all = |error: SegmentError| requests.iter().map(|_| Err(error.clone())).collect();
    match std::panic::catch_unwind(run) {
        Ok(results) if results.len() == requests.len() => results,
        Ok(results) => all(SegmentError::Forward(format!(
            "{} results for {} requests",
            results.len(),
            requests.len()
        ))),
        Err(payload) => all(SegmentError::Panicked(panic_message(payload.as_ref()))),
    }
}

/// Clips to [`Segmenter::segment`], single new frames to [`Segmenter::step`]; the answers in the order of the requests.
fn dispatched(
    segmenter: &mut dyn Segmenter,
    requests: &[Request],
    deadline: Option<Instant>,
) -> Vec<Result<Reply, SegmentError>> {
    if requests.iter().all(|request| request.step.is_none()) {
        return segmenter.segment(requests, deadline);
    }
    let mut clips = Vec::new();
    let mut steps = Vec::new();
    for request in requests {
        match (request.step, request.frames.as_slice()) {
            (Some(phase), [frame]) => steps.push(Step {
                stream: request.stream.phase(phase),
                frame: frame.clone(),
                want: request.want,
                prompt: request.prompt.clone(),
            }),
            _ => clips.push(request.clone()),
        }
    }
    let mut stepped = segmenter.step(&steps, deadline).into_iter();
    let mut segmented = match clips.is_empty() {
        true => Vec::new(),
        false => segmenter.segment(&clips, deadline),
    }
    .into_iter();
    let missing = || SegmentError::Forward("an answer is missing".into());
    requests
        .iter()
        .map(|request| match (request.step, request.frames.len()) {
            (Some(_), 1) => {
                let plane = stepped.next().unwrap_or_else(|| Err(missing()));
                plane.map(|plane| Reply { planes: vec![plane] })
            }
            _ => segmented.next().unwrap_or_else(|| Err(missing())),
        })
        .collect()
}

/// The message of a panic payload.
pub fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails a batch when any row's first byte is 13; panics at 14; gives the first byte as the label.
    struct Fussy(SegmenterSpec);

    impl Segmenter for Fussy {
        fn spec(&self) -> &SegmenterSpec {
            &self.0
        }

        fn segment(&mut self, requests: &[Request], _: Option<Instant>) -> Vec<Result<Reply, SegmentError>> {
            let first = |r: &Request| r.frames[0].rgb[0];
            assert!(!requests.iter().any(|r| first(r) == 14), "fourteen");
            if requests.iter().any(|r| first(r) == 13) {
                return requests
                    .iter()
                    .map(|_| Err(SegmentError::Forward("thirteen".into())))
                    .collect();
            }
            requests
                .iter()
                .map(|r| {
                    Ok(Reply {
                        planes: vec![Plane::Labels(vec![first(r)])],
                    })
                })
                .collect()
        }
    }

    fn request(byte: u8) -> Request {
        let frames = vec![ModelFrame {
            rgb: Arc::from([byte; 3]),
        }];
        let stream = StreamId(u64::from(byte));
        Request {
            stream,
            frames,
            outputs: vec![0],
            want: Want::Labels,
            prompt: Prompt::default(),
            step: None,
        }
    }

    #[test]
    fn one_bad_row_fails_alone() {
        let spec = SegmenterSpec {
            model_id: "fussy".into(),
            clip_frames: 1,
            side_px: 1,
            classes: ClassSet::endovis_2018(),
            resize: Resize::Area,
            orientation: Orientation::Upright,
            frame_interval_nanos: None,
            temporal: Temporal::Centered,
            untrained: true,
            device: "none".into(),
        };
        let mut fussy = Fussy(spec);
        for (bad, error) in [(13, "thirteen"), (14, "fourteen")] {
            let results = segment_isolated(&mut fussy, &[request(1), request(bad), request(2)], None);
            assert_eq!(results[0].as_ref().unwrap().planes, [Plane::Labels(vec![1])]);
            assert!(results[1].as_ref().unwrap_err().to_string().contains(error));
            assert_eq!(results[2].as_ref().unwrap().planes, [Plane::Labels(vec![2])]);
        }
        let alone = segment_isolated(&mut fussy, &[request(14)], None);
        assert!(matches!(&alone[0], Err(SegmentError::Panicked(m)) if m.contains("fourteen")));
    }
}
