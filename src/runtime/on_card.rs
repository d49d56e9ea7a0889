//! The plain forward on a card, with the passes that come again and again recorded once and played.
//!
//! ```text
//! clips, steps --> recorded, for a shape that is familiar: bytes -> [planes, encoder, decoder, class ids] -> bytes
//!              '-> plain, for anything else: probabilities, a shape that is new, a driver that records nothing
//! ```
//! A recorded step reads a causal state at fixed addresses and leaves beside it what becomes of it, which is made the state
//! once the step has come to its end. While the same streams come in the same order, their states stay there; only when
//! others come are they brought home, to where the plain forward has them.

use super::clip::bytes_at;
use super::device::Place;
use super::plain::{Plain, label_planes, wanted_images};
use super::prompt::{PromptShape, prompts};
use super::recording::Recording;
use super::segmenter::Forward;
use crate::error::Result;
use crate::kernels::prepare;
use crate::model::CausalState;
use crate::segmenter::{ModelFrame, Plane, Prompt, Reply, Request, SegmentError, Step, StreamId, Want};
use candle_core::{DType, Tensor};
use std::mem;

/// Which time a shape has to come to be recorded: a recording costs three passes.
const FAMILIAR: u32 = 3;
/// Shapes that are known at once.
const MOST_SHAPES: usize = 8;

/// What has been seen how often, most recently seen last, and what was made of it.
struct Familiar<K, V> {
    known: Vec<(K, Acquaintance<V>)>,
}

enum Acquaintance<V> {
    Seen(u32),
    Made(V),
    /// It cannot be made, and is not tried again.
    Refused,
}

impl<K: PartialEq, V> Familiar<K, V> {
    fn new() -> Self {
        Self { known: Vec::new() }
    }

    /// What has been made for `key`; `Err` where it has never been seen.
    fn find(&self, key: &K) -> Result<Option<&V>, Stranger> {
        let known = self.known.iter().find(|(known, _)| known == key);
        match known {
            Some((_, Acquaintance::Made(made))) => Ok(Some(made)),
            Some(_) => Ok(None),
            None => Err(Stranger),
        }
    }

    /// What there is for `key`, made where it comes often enough.
    fn get(&mut self, key: K, make: impl FnOnce() -> Result<V>) -> Option<&mut V> {
        let (key, mut known) = match self.known.iter().position(|(known, _)| *known == key) {
            Some(at) => self.known.remove(at),
            None => (key, Acquaintance::Seen(0)),
        };
        if let Acquaintance::Seen(times) = &mut known {
            *times += 1;
            if *times >= FAMILIAR {
                known = make().map_or_else(
                    |error| {
                        tracing::warn!("a pass is not recorded and stays slower for that: {error}");
                        Acquaintance::Refused
                    },
                    Acquaintance::Made,
                );
            }
        }
        if self.known.len() >= MOST_SHAPES {
            self.known.remove(0);
        }
        self.known.push((key, known));
        match self.known.last_mut() {
            Some((_, Acquaintance::Made(made))) => Some(made),
            _ => None,
        }
    }

    fn made(&self) -> impl Iterator<Item = &V> {
        self.known.iter().filter_map(|(_, known)| match known {
            Acquaintance::Made(made) => Some(made),
            _ => None,
        })
    }

    fn made_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.known.iter_mut().filter_map(|(_, known)| match known {
            Acquaintance::Made(made) => Some(made),
            _ => None,
        })
    }
}

/// Nothing is known of a shape.
struct Stranger;

/// What makes two batches of clips the same pass.
#[derive(Clone, PartialEq)]
struct ClipShape {
    clips: usize,
    frames: usize,
    /// Images in order that an output is wanted for.
    wanted: Vec<u32>,
    prompt: PromptShape,
}

/// What makes two steps the same pass.
#[derive(Clone, Copy, PartialEq)]
struct StepShape {
    streams: usize,
    prompt: PromptShape,
}

/// A recorded pass and the prompt that lies at its inputs.
struct Prompted {
    recording: Recording,
    prompt: Prompt,
}

/// A recorded step.
struct Steps {
    pass: Prompted,
    /// At the recording's addresses, and what a run makes of it.
    state: CausalState,
    after: CausalState,
    /// Whose state that is, in order; empty for nobody's.
    streams: Vec<StreamId>,
}

/// A model on a card.
pub(super) struct OnCard {
    // Before what their addresses belong to.
    clips: Familiar<ClipShape, Prompted>,
    steps: Familiar<StepShape, Steps>,
    plain: Plain,
}

impl OnCard {
    pub(super) fn new(plain: Plain) -> Self {
        Self {
            clips: Familiar::new(),
            steps: Familiar::new(),
            plain,
        }
    }

    /// Brings the states of the streams that `is_meant` home, with all that lie beside them.
    fn bring_home(&mut self, is_meant: impl Fn(&StreamId) -> bool) -> Result<()> {
        for steps in self.steps.made_mut() {
            if steps.streams.iter().any(&is_meant) {
                home(steps, &mut self.plain)?;
            }
        }
        Ok(())
    }

    /// Steps with one prompt and nothing but labels wanted, played; `None` where the shape is not familiar.
    fn played(&mut self, rows: &[&Step]) -> Result<Option<Vec<Result<Plane, SegmentError>>>> {
        let streams: Vec<StreamId> = rows.iter().map(|step| step.stream).collect();
        let shape = StepShape {
            streams: rows.len(),
            prompt: PromptShape::of(&rows[0].prompt),
        };
        let is_there = |steps: &Steps| steps.streams == streams;
        match self.steps.find(&shape) {
            Ok(Some(steps)) if is_there(steps) => {}
            Ok(_) => self.bring_home(|stream| streams.contains(stream))?,
            // For this one another shape may be forgotten.
            Err(Stranger) => self.bring_home(|_| true)?,
        }
        let plain = &self.plain;
        let Some(steps) = self
            .steps
            .get(shape, || record_steps(plain, shape, &rows[0].prompt))
        else {
            return Ok(None);
        };
        if !is_there(steps) {
            home(steps, &mut self.plain)?;
            settle(steps, &mut self.plain, streams)?;
        }
        let frames: Vec<&[ModelFrame]> = rows
            .iter()
            .map(|step| std::slice::from_ref(&step.frame))
            .collect();
        let rows = steps.pass.play(&mut self.plain, &frames, &rows[0].prompt)?;
        // Nothing can go wrong any more.
        steps.state.overwrite(&steps.after)?;
        let mut results = Vec::with_capacity(rows.len());
        let mut broken = Vec::new();
        for (stream, (plane, not_finite)) in steps.streams.iter().zip(label_planes(rows)) {
            results.push(match not_finite {
                0 => Ok(plane),
                count => {
                    broken.push(*stream);
                    Err(SegmentError::NotFinite { count })
                }
            });
        }
        if !broken.is_empty() {
            // A state that leads to no numbers would lead to none for ever.
            home(steps, &mut self.plain)?;
            self.plain.states.retain(|stream, _| !broken.contains(stream));
        }
        Ok(Some(results))
    }
}

/// Brings the states of a recorded step home, or leaves all where they are.
fn home(steps: &mut Steps, plain: &mut Plain) -> Result<()> {
    let states = (0..steps.streams.len())
        .map(|index| steps.state.stream(index))
        .collect::<candle_core::Result<Vec<_>>>()?;
    let streams = mem::take(&mut steps.streams);
    plain.states.extend(streams.into_iter().zip(states));
    Ok(())
}

/// Takes the states of `streams` from home, those of new ones being empty, to where the recorded step works on them.
fn settle(steps: &mut Steps, plain: &mut Plain, streams: Vec<StreamId>) -> Result<()> {
    let states = plain.states_of(&streams)?;
    let all: Vec<&CausalState> = states.iter().collect();
    steps.state.overwrite(&CausalState::join(&all)?)?;
    plain.states.retain(|stream, _| !streams.contains(stream));
    steps.streams = streams;
    Ok(())
}

impl Prompted {
    /// Records `pass` over inputs for so many frames, with nothing in them, and for the prompt.
    fn record(
        plain: &Plain,
        [clips, frames]: [usize; 2],
        prompt: &Prompt,
        pass: impl Fn(&[Tensor]) -> Result<Tensor> + Send + 'static,
    ) -> Result<Self> {
        let Place { device, dtype, .. } = &plain.place;
        let side = plain.model.config().image_side_px;
        let mut inputs = vec![
            Tensor::zeros((clips * frames, side, side, 3), DType::U8, device)?,
            Tensor::zeros((clips, 256), DType::F32, device)?,
        ];
        inputs.extend(PromptShape::flat(prompts(prompt, device, *dtype)?));
        Ok(Self {
            recording: Recording::new(inputs, pass)?,
            prompt: prompt.clone(),
        })
    }

    /// What the recording makes of frames and a prompt of its shape: bytes `[images, pixels + 1]` as rows. A prompt that
    /// stays is not brought there again.
    fn play(&mut self, plain: &mut Plain, clips: &[&[ModelFrame]], prompt: &Prompt) -> Result<Vec<Vec<u8>>> {
        let side = plain.model.config().image_side_px;
        let Place { device, dtype, .. } = &plain.place;
        let frames = bytes_at(device, &mut plain.staging, clips, side, plain.normalisation)?;
        let (of_frames, of_prompt) = self.recording.inputs().split_at(FRAMES);
        for (input, value) in of_frames.iter().zip(&frames) {
            input.slice_set(value, 0, 0)?;
        }
        if self.prompt != *prompt {
            for (input, value) in of_prompt
                .iter()
                .zip(PromptShape::flat(prompts(prompt, device, *dtype)?))
            {
                input.slice_set(&value, 0, 0)?;
            }
            self.prompt = prompt.clone();
        }
        plain.staging.download(self.recording.play()?)
    }
}

/// How many of a recording's inputs are frames: bytes and tables. Behind them is the prompt.
const FRAMES: usize = 2;

fn record_clips(plain: &Plain, shape: &ClipShape, prompt: &Prompt) -> Result<Prompted> {
    let (clips, frames, told) = (shape.clips, shape.frames, shape.prompt);
    let (device, dtype) = (&plain.place.device, plain.place.dtype);
    let (model, side) = (plain.model.clone(), plain.model.config().image_side_px);
    let wanted = Tensor::new(shape.wanted.as_slice(), device)?;
    Prompted::record(plain, [clips, frames], prompt, move |inputs| {
        let planes = prepare::planes(&inputs[0], &inputs[1], dtype)?;
        let clip = planes.reshape((clips, frames, 3, side, side))?;
        let features = model.encode_wanted(&clip, &wanted)?;
        model.labels(&features, &told.prompts(&inputs[FRAMES..]))
    })
}

fn record_steps(plain: &Plain, shape: StepShape, prompt: &Prompt) -> Result<Steps> {
    let (device, dtype) = (&plain.place.device, plain.place.dtype);
    let empty = || CausalState::new(plain.model.config(), shape.streams, dtype, device);
    let (model, state, after) = (plain.model.clone(), empty()?, empty()?);
    let (before, made) = (state.clone(), after.clone());
    let pass = Prompted::record(plain, [shape.streams, 1], prompt, move |inputs| {
        let planes = prepare::planes(&inputs[0], &inputs[1], dtype)?;
        let (features, after) = model.step(&planes, &before)?;
        made.overwrite(&after)?;
        model.labels(&features, &shape.prompt.prompts(&inputs[FRAMES..]))
    })?;
    Ok(Steps {
        pass,
        state,
        after,
        streams: Vec::new(),
    })
}

impl Forward for OnCard {
    fn clips(&mut self, rows: &[&Request]) -> Result<Vec<Result<Reply, SegmentError>>> {
        let frames = rows[0].frames.len();
        let wanted = wanted_images(rows);
        if wanted.is_empty() || rows.iter().any(|row| row.want != Want::Labels) {
            return self.plain.clips(rows);
        }
        let prompt = &rows[0].prompt;
        let shape = ClipShape {
            clips: rows.len(),
            frames,
            wanted,
            prompt: PromptShape::of(prompt),
        };
        let plain = &self.plain;
        let make = || record_clips(plain, &shape, prompt);
        let Some(pass) = self.clips.get(shape.clone(), make) else {
            return self.plain.clips(rows);
        };
        let clips: Vec<&[ModelFrame]> = rows.iter().map(|row| row.frames.as_slice()).collect();
        let found = pass.play(&mut self.plain, &clips, prompt)?;
        Ok(Plain::replies(rows, label_planes(found)))
    }

    fn steps(&mut self, steps: &[&Step]) -> Result<Vec<Result<Plane, SegmentError>>> {
        let alike = |step: &&Step| step.want == Want::Labels && step.prompt == steps[0].prompt;
        if steps.iter().all(alike)
            && let Some(results) = self.played(steps)?
        {
            return Ok(results);
        }
        self.bring_home(|_| true)?;
        self.plain.steps(steps)
    }

    fn reset(&mut self, stream: StreamId) {
        let is_meant = |other: &StreamId| other.whole() == stream.whole();
        if let Err(error) = self.bring_home(is_meant) {
            tracing::warn!("the states of the streams beside one that is reset are lost: {error}");
            let beside = |steps: &&mut Steps| steps.streams.iter().any(is_meant);
            self.steps
                .made_mut()
                .filter(beside)
                .for_each(|steps| steps.streams.clear());
        }
        self.plain.reset(stream);
    }

    fn snapshot(&self, stream: StreamId) -> Option<Vec<u8>> {
        for steps in self.steps.made() {
            if let Some(index) = steps.streams.iter().position(|&other| other == stream) {
                return steps.state.stream(index).ok()?.to_bytes().ok();
            }
        }
        self.plain.snapshot(stream)
    }

    fn restore(&mut self, stream: StreamId, bytes: &[u8]) -> Result<()> {
        self.bring_home(|&other| other == stream)?;
        self.plain.restore(stream, bytes)
    }
}

#[cfg(test)]
#[path = "on_card/tests.rs"]
mod tests;
