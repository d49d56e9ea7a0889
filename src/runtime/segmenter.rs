//! A model behind the [`Segmenter`] trait: what both ways of running it share.

use super::device::Place;
use super::executed::Executed;
use super::executor::Executor;
use super::on_card::OnCard;
use super::plain::Plain;
use crate::checkpoint::{ModelCard, ModelFile};
use crate::error::{Error, Result};
use crate::model::{FactMode, MaSam};
use crate::priority;
use crate::pulse;
use crate::runtime::thread_pool::ThreadPool;
use crate::segmenter::{
    Normalisation, Plane, Reply, Request, SegmentError, Segmenter, SegmenterSpec, StateSnapshot, Step,
    StreamId, Temporal,
};
use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// Frames of a clip, as published.
pub const CLIP_FRAMES: usize = 5;

/// What a model's threads are called.
const NAME: &str = "masam-model";

/// Most threads of a model's pool.
const MAX_THREADS: usize = 1024;

/// Most frames of one request: bounds the memory that a request can ask for.
const MAX_CLIP_FRAMES: usize = 64;

/// One way of running a model. Requests and steps have been checked.
pub(super) trait Forward: Send {
    /// Clips of equal length and prompt as one batch.
    fn clips(&mut self, rows: &[&Request]) -> Result<Vec<Result<Reply, SegmentError>>>;

    /// One new frame of each of several streams as one batch. States change where a step succeeds.
    fn steps(&mut self, steps: &[&Step]) -> Result<Vec<Result<Plane, SegmentError>>>;

    /// Forgets the states of a stream in all its phases.
    fn reset(&mut self, stream: StreamId);

    /// The state of a stream, as bytes.
    fn snapshot(&self, stream: StreamId) -> Option<Vec<u8>>;

    /// The way back.
    fn restore(&mut self, stream: StreamId, bytes: &[u8]) -> Result<()>;
}

/// A model with its own thread pool.
pub struct ModelSegmenter {
    forward: Box<dyn Forward>,
    normalisation: Normalisation,
    spec: SegmenterSpec,
    threads: Threads,
}

/// What passes run on.
#[derive(Clone)]
enum Threads {
    /// The executor's.
    Own(Arc<ThreadPool>),
    /// Candle's operations share their work out on these.
    Rayon(Arc<rayon::ThreadPool>),
}

impl Threads {
    /// Does `work` there, with the heartbeat of this thread.
    fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match self {
            Self::Own(pool) => pool.install(work),
            Self::Rayon(pool) => pulse::install(pool, work),
        }
    }
}

impl ModelSegmenter {
    /// The fastest way of running the model of `file` at `place`, with `threads` CPU threads or one per core: the
    /// executor on the CPU, the plain forward with recorded passes on a card.
    ///
    /// # Errors
    /// Weights that do not fit, no threads, or Candle's own.
    pub fn new(file: ModelFile, place: Place, threads: Option<usize>) -> Result<Self> {
        match (&place.device, place.dtype) {
            (Device::Cpu, DType::BF16) => Self::executed::<half::bf16>(file, place, threads),
            (Device::Cpu, _) => Self::executed::<f32>(file, place, threads),
            _ => Self::build(file, place, threads, rayon_threads, |card, weights, place| {
                Ok(Box::new(OnCard::new(plain(card, weights, place)?)))
            }),
        }
    }

    /// The plain forward: the reference for every faster one.
    ///
    /// # Errors
    /// As [`ModelSegmenter::new`].
    pub fn plain(file: ModelFile, place: Place, threads: Option<usize>) -> Result<Self> {
        Self::build(file, place, threads, rayon_threads, |card, weights, place| {
            Ok(Box::new(plain(card, weights, place)?))
        })
    }

    fn executed<N: crate::kernels::packed::Number>(
        file: ModelFile,
        place: Place,
        threads: Option<usize>,
    ) -> Result<Self> {
        let place = Place {
            dtype: DType::F32, // the executor rounds by itself
            ..place
        };
        let own = |threads| Ok(Threads::Own(Arc::new(ThreadPool::new(NAME, threads)?)));
        Self::build(file, place, threads, own, |card, weights, _| {
            let executor = Executor::<N>::load(&card.model, weights)?;
            Ok(Box::new(Executed::new(
                executor,
                card.preprocessing.normalisation,
            )))
        })
    }

    fn build(
        file: ModelFile,
        place: Place,
        threads: Option<usize>,
        start: impl FnOnce(Option<usize>) -> Result<Threads>,
        forward: impl FnOnce(&ModelCard, VarBuilder<'static>, Place) -> Result<Box<dyn Forward>>,
    ) -> Result<Self> {
        if let Some(threads) = threads.filter(|threads| !(1..=MAX_THREADS).contains(threads)) {
            let bounds = format!("it has to be 1 to {MAX_THREADS}");
            return Err(Error::config("threads", threads, bounds));
        }
        let ModelFile { card, weights } = file;
        let weights = weights.builder(place.dtype, &place.device);
        let forward = forward(&card, weights, place.clone())?;
        let threads = start(threads)?;
        let spec = SegmenterSpec {
            model_id: card.model.name.clone(),
            clip_frames: CLIP_FRAMES,
            side_px: card.model.image_side_px as u32,
            classes: card.classes,
            resize: card.preprocessing.resize,
            orientation: card.preprocessing.orientation,
            frame_interval_nanos: card.preprocessing.frame_interval_nanos,
            temporal: card.model.temporal,
            untrained: !card.provenance.trained,
            device: place.description,
        };
        let normalisation = card.preprocessing.normalisation;
        Ok(Self {
            forward,
            normalisation,
            spec,
            threads,
        })
    }

    fn check(&self, request: &Request) -> Result<(), SegmentError> {
        let frames = request.frames.len();
        let bytes = (self.spec.side_px as usize).pow(2) * 3;
        let wrong = |text: String| Err(SegmentError::Request(text));
        if frames == 0 || frames > MAX_CLIP_FRAMES {
            return wrong(format!("a clip has 1 to {MAX_CLIP_FRAMES} frames, not {frames}"));
        }
        if let Some(frame) = request.frames.iter().find(|f| f.rgb.len() != bytes) {
            return wrong(format!("a frame has {bytes} bytes, not {}", frame.rgb.len()));
        }
        if request.outputs.iter().any(|&i| i >= frames) || !request.outputs.is_sorted_by(|a, b| a < b) {
            return wrong(format!(
                "outputs {:?} of {frames} frames have to be ascending",
                request.outputs
            ));
        }
        Ok(())
    }

    /// Why the model cannot be run one frame at a time, if it cannot.
    fn no_step(&self) -> Option<&'static str> {
        match (self.spec.temporal, self.normalisation) {
            (Temporal::Centered, _) => {
                Some("the model's temporal taps are centered: it looks at later frames")
            }
            (_, Normalisation::ClipMinMax) => {
                Some("the model's frames are stretched over a clip's range: one frame alone has none")
            }
            (Temporal::Causal, Normalisation::Fixed { .. }) => None,
        }
    }
}

fn rayon_threads(threads: Option<usize>) -> Result<Threads> {
    Ok(Threads::Rayon(Arc::new(priority::pool(NAME, threads)?)))
}

fn plain(card: &ModelCard, weights: VarBuilder<'static>, place: Place) -> Result<Plain> {
    let model = MaSam::new(&card.model, FactMode::Folded, weights)?;
    Ok(Plain::new(model, card.preprocessing.normalisation, place))
}

impl Segmenter for ModelSegmenter {
    fn spec(&self) -> &SegmenterSpec {
        &self.spec
    }

    fn segment(
        &mut self,
        requests: &[Request],
        deadline: Option<Instant>,
    ) -> Vec<Result<Reply, SegmentError>> {
        let mut results: Vec<Result<Reply, SegmentError>> = requests
            .iter()
            .map(|r| self.check(r).map(|()| Reply { planes: Vec::new() }))
            .collect();
        let mut open: Vec<usize> = (0..requests.len()).filter(|&i| results[i].is_ok()).collect();
        while let Some(&first) = open.first() {
            let alike = |i: &usize| {
                let (a, b) = (&requests[*i], &requests[first]);
                a.frames.len() == b.frames.len() && a.prompt == b.prompt
            };
            let (batch, rest): (Vec<usize>, Vec<usize>) = open.iter().partition(|i| alike(i));
            open = rest;
            if deadline.is_some_and(|d| Instant::now() >= d) {
                batch.iter().for_each(|&i| results[i] = Err(SegmentError::Late));
                continue;
            }
            let rows: Vec<&Request> = batch.iter().map(|&i| &requests[i]).collect();
            let threads = self.threads.clone();
            match threads.install(|| self.forward.clips(&rows)) {
                Ok(replies) => batch
                    .iter()
                    .zip(replies)
                    .for_each(|(&i, reply)| results[i] = reply),
                Err(error) => {
                    let error = SegmentError::Forward(error.to_string());
                    batch.iter().for_each(|&i| results[i] = Err(error.clone()));
                }
            }
        }
        results
    }

    fn step(&mut self, steps: &[Step], deadline: Option<Instant>) -> Vec<Result<Plane, SegmentError>> {
        let all = |error: SegmentError| steps.iter().map(|_| Err(error.clone())).collect();
        if let Some(why) = self.no_step() {
            return all(SegmentError::Unsupported(why.into()));
        }
        let bytes = (self.spec.side_px as usize).pow(2) * 3;
        let mut streams = BTreeSet::new();
        let mut results: Vec<Result<Plane, SegmentError>> = Vec::with_capacity(steps.len());
        let mut sound: Vec<(usize, &Step)> = Vec::with_capacity(steps.len());
        for (row, step) in steps.iter().enumerate() {
            let length = step.frame.rgb.len();
            if length == bytes && streams.insert(step.stream) {
                sound.push((row, step));
                results.push(Err(SegmentError::Late)); // unless it is run below
            } else {
                let why = format!(
                    "a step takes one frame of {bytes} bytes of each stream; this is another, of {length}"
                );
                results.push(Err(SegmentError::Request(why)));
            }
        }
        if sound.is_empty() || deadline.is_some_and(|d| Instant::now() >= d) {
            return results;
        }
        let run: Vec<&Step> = sound.iter().map(|&(_, step)| step).collect();
        let threads = self.threads.clone();
        let answers = threads
            .install(|| self.forward.steps(&run))
            .unwrap_or_else(|error| {
                let error = SegmentError::Forward(error.to_string());
                run.iter().map(|_| Err(error.clone())).collect()
            });
        for ((row, _), answer) in sound.into_iter().zip(answers) {
            if let Some(result) = results.get_mut(row) {
                *result = answer;
            }
        }
        results
    }

    fn reset(&mut self, stream: StreamId) {
        self.forward.reset(stream);
    }

    fn snapshot(&self, stream: StreamId) -> Option<StateSnapshot> {
        let bytes = self.forward.snapshot(stream)?;
        Some(StateSnapshot { bytes: bytes.into() })
    }

    fn restore(&mut self, stream: StreamId, snapshot: &StateSnapshot) -> Result<(), SegmentError> {
        if let Some(why) = self.no_step() {
            return Err(SegmentError::Unsupported(why.into()));
        }
        let restored = self.forward.restore(stream, &snapshot.bytes);
        restored.map_err(|e| SegmentError::Request(e.to_string()))
    }
}
