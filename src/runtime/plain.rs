//! The plain forward behind the [`Segmenter`] trait: the reference for every faster implementation.

use super::clip::input_at;
use super::device::Place;
use super::staging::Staging;
use crate::checkpoint::ModelFile;
use crate::error::{Error, Result};
use crate::kernels::{argmax::argmax, softmax::softmax};
use crate::model::image_encoder::Features;
use crate::model::{CausalState, FactMode, MaSam, Prompts};
use crate::segmenter::{
    ModelFrame, Normalisation, Plane, Prompt, Reply, Request, SegmentError, Segmenter, SegmenterSpec,
    StateSnapshot, Step, StreamId, Temporal, Want,
};
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Frames of a clip, as published.
pub const CLIP_FRAMES: usize = 5;

/// Most frames of one request: bounds the memory that a request can ask for.
const MAX_CLIP_FRAMES: usize = 64;

/// A model with its own thread pool.
pub struct PlainSegmenter {
    model: MaSam,
    normalisation: Normalisation,
    spec: SegmenterSpec,
    place: Place,
    pool: Arc<rayon::ThreadPool>,
    staging: Mutex<Staging>,
    states: BTreeMap<StreamId, CausalState>,
}

impl PlainSegmenter {
    /// Builds the model of `file` at `place`, FacT folded in, with `threads` CPU threads or one per core.
    ///
    /// # Errors
    /// Weights that do not fit, no threads, or Candle's own.
    pub fn new(file: ModelFile, place: Place, threads: Option<usize>) -> Result<Self> {
        if threads == Some(0) {
            return Err(Error::config("threads", 0, "it has to be at least 1"));
        }
        let ModelFile { card, weights } = file;
        let model = MaSam::new(
            &card.model,
            FactMode::Folded,
            weights.builder(place.dtype, &place.device),
        )?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.unwrap_or(0))
            .thread_name(|i| format!("masam-model-{i}"))
            .build()
            .map_err(|e| Error::Unavailable {
                what: "the model's thread pool".into(),
                why: e.to_string(),
            })?;
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
            device: place.description.clone(),
        };
        Ok(Self {
            model,
            normalisation: card.preprocessing.normalisation,
            spec,
            place,
            pool: Arc::new(pool),
            staging: Mutex::default(),
            states: BTreeMap::new(),
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

    /// Clips of equal length and prompt as one batch.
    fn run(&self, rows: &[&Request]) -> Result<Vec<Result<Reply, SegmentError>>> {
        let frames = rows[0].frames.len();
        let clips: Vec<&[ModelFrame]> = rows.iter().map(|r| r.frames.as_slice()).collect();
        let clip = self.input(&clips)?;
        let prompts = self.prompts(&rows[0].prompt)?;
        // Only the frames that somebody wants go through the decoder.
        let wanted: Vec<u32> = (rows.iter().enumerate())
            .flat_map(|(row, r)| r.outputs.iter().map(move |&i| (row * frames + i) as u32))
            .collect();
        if wanted.is_empty() {
            return Ok(rows.iter().map(|_| Ok(Reply { planes: Vec::new() })).collect());
        }
        let wanted = Tensor::new(wanted.as_slice(), &self.place.device)?;
        let features = self.model.encode_wanted(&clip, &wanted)?;
        let wants: Vec<Want> = rows
            .iter()
            .flat_map(|row| row.outputs.iter().map(|_| row.want))
            .collect();
        let mut all = self.planes(&features, &prompts, &wants)?.into_iter();
        let mut replies = Vec::with_capacity(rows.len());
        for row in rows {
            let mut planes = Vec::with_capacity(row.outputs.len());
            let mut not_finite = 0;
            for (plane, count) in all.by_ref().take(row.outputs.len()) {
                not_finite += count;
                planes.push(plane);
            }
            replies.push(match not_finite {
                0 => Ok(Reply { planes }),
                count => Err(SegmentError::NotFinite { count }),
            });
        }
        Ok(replies)
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

    /// One new frame of each stream as one batch. States change at the end, once nothing can go wrong any more.
    fn run_step(&mut self, steps: &[&Step]) -> Result<Vec<Result<Plane, SegmentError>>> {
        let Place { device, dtype, .. } = &self.place;
        let clips: Vec<&[ModelFrame]> = steps
            .iter()
            .map(|step| std::slice::from_ref(&step.frame))
            .collect();
        let input = self.input(&clips)?.squeeze(1)?;
        // Zeros as large as a state: only where a stream begins.
        let begins = steps.iter().any(|step| !self.states.contains_key(&step.stream));
        let empty = match begins {
            true => Some(CausalState::new(self.model.config(), *dtype, device)?),
            false => None,
        };
        let before: Vec<&CausalState> = steps
            .iter()
            .filter_map(|step| self.states.get(&step.stream).or(empty.as_ref()))
            .collect();
        let (features, after) = self.model.step(&input, &before)?;
        let mut planes = Vec::with_capacity(steps.len());
        // Frames with one prompt go through the decoder together.
        for alike in steps.chunk_by(|a, b| a.prompt == b.prompt) {
            let first = planes.len() as u32;
            let rows: Vec<u32> = (first..first + alike.len() as u32).collect();
            let features = features.select(&Tensor::new(rows.as_slice(), device)?)?;
            let prompts = self.prompts(&alike[0].prompt)?;
            let wants: Vec<Want> = alike.iter().map(|step| step.want).collect();
            planes.extend(self.planes(&features, &prompts, &wants)?);
        }
        let mut results = Vec::with_capacity(steps.len());
        for ((step, after), (plane, not_finite)) in steps.iter().zip(after).zip(planes) {
            results.push(match not_finite {
                0 => {
                    self.states.insert(step.stream, after);
                    Ok(plane)
                }
                // A state that leads to no numbers would lead to none for ever.
                count => {
                    self.states.remove(&step.stream);
                    Err(SegmentError::NotFinite { count })
                }
            });
        }
        Ok(results)
    }

    /// The output of every image and how many of its logits are not finite. From a card only class ids cross, where
    /// nobody wants more, and all that is known of the rest is whether there was one.
    fn planes(&self, features: &Features, prompts: &Prompts, wants: &[Want]) -> Result<Vec<(Plane, usize)>> {
        if self.place.device.is_cuda() && wants.iter().all(|want| *want == Want::Labels) {
            let rows = self.model.labels(features, prompts)?.to_vec2::<u8>()?;
            let plane = |mut row: Vec<u8>| {
                let flag = row.pop().unwrap_or(1);
                (Plane::Labels(row), usize::from(flag))
            };
            return Ok(rows.into_iter().map(plane).collect());
        }
        let logits = self.model.decode(features, prompts)?.logits;
        let logits = logits.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let mut planes = Vec::with_capacity(wants.len());
        for (image, want) in wants.iter().enumerate() {
            planes.push(plane(&logits.get(image)?, *want)?);
        }
        Ok(planes)
    }

    fn input(&self, clips: &[&[ModelFrame]]) -> Result<Tensor> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let side = self.spec.side_px as usize;
        input_at(&self.place, &mut staging, clips, side, self.normalisation)
    }

    fn prompts(&self, prompt: &Prompt) -> Result<Prompts> {
        let place = |values: Vec<f32>, shape: &[usize]| -> Result<Tensor> {
            Ok(Tensor::from_vec(values, shape, &self.place.device)?.to_dtype(self.place.dtype)?)
        };
        let mut prompts = Prompts::default();
        if let Some(corners) = prompt.box_px {
            prompts.boxes = Some(place(corners.to_vec(), &[1, 4])?);
        }
        let points = &prompt.points_px;
        if !points.is_empty() {
            let xy = points.iter().flat_map(|(xy, _)| *xy).collect();
            prompts.points = Some(place(xy, &[1, points.len(), 2])?);
            let inside = points
                .iter()
                .map(|&(_, inside)| f32::from(u8::from(inside)))
                .collect();
            prompts.point_labels = Some(place(inside, &[1, points.len()])?);
        }
        Ok(prompts)
    }
}

/// The output of one frame and how many of its logits are not finite; `logits` is `[classes, side, side]`.
fn plane(logits: &Tensor, want: Want) -> Result<(Plane, usize)> {
    let classes = logits.dim(0)?;
    match want {
        Want::Labels => {
            let labels = argmax(&logits.flatten_all()?.to_vec1::<f32>()?, classes);
            Ok((Plane::Labels(labels.ids), labels.not_finite))
        }
        Want::Probabilities => {
            let (_, height, width) = logits.dims3()?;
            let pixels = logits.reshape((classes, height * width))?.t()?.contiguous()?; // [pixels, classes]
            let values = softmax(&pixels)?
                .t()?
                .contiguous()?
                .flatten_all()?
                .to_vec1::<f32>()?;
            let not_finite = values.iter().filter(|v| !v.is_finite()).count();
            Ok((Plane::Probabilities(values), not_finite))
        }
    }
}

impl Segmenter for PlainSegmenter {
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
            match self.pool.install(|| self.run(&rows)) {
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
        let pool = self.pool.clone();
        let answers = pool.install(|| self.run_step(&run)).unwrap_or_else(|error| {
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
        self.states.retain(|phase, _| phase.whole() != stream.whole());
    }

    fn snapshot(&self, stream: StreamId) -> Option<StateSnapshot> {
        let bytes = self.states.get(&stream)?.to_bytes().ok()?;
        Some(StateSnapshot { bytes: bytes.into() })
    }

    fn restore(&mut self, stream: StreamId, snapshot: &StateSnapshot) -> Result<(), SegmentError> {
        if let Some(why) = self.no_step() {
            return Err(SegmentError::Unsupported(why.into()));
        }
        let Place { device, dtype, .. } = &self.place;
        let state = CausalState::from_bytes(&snapshot.bytes, self.model.config(), *dtype, device)
            .map_err(|e| SegmentError::Request(e.to_string()))?;
        self.states.insert(stream, state);
        Ok(())
    }
}
