//! The executor behind a [`Segmenter`](crate::segmenter::Segmenter).

use super::clip::values;
use super::executor::{Executor, Job, Masks, Picture, State};
use super::prompt::prompts;
use super::segmenter::Forward;
use crate::error::Result;
use crate::kernels::packed::Number;
use crate::segmenter::{
    Normalisation, Plane, Prompt, Reply, Request, SegmentError, Step, StreamId, Want, panic_message,
};
use candle_core::{DType, Device};
use std::collections::BTreeMap;

/// A model ready to run on the CPU.
pub(super) struct Executed<N> {
    executor: Executor<N>,
    normalisation: Normalisation,
    /// What the executor has been told.
    prompt: Prompt,
    states: BTreeMap<StreamId, State<N>>,
    /// The value of each byte, for each clip.
    values: Vec<[f32; 256]>,
}

impl<N: Number> Executed<N> {
    pub(super) fn new(executor: Executor<N>, normalisation: Normalisation) -> Self {
        Self {
            executor,
            normalisation,
            prompt: Prompt::default(),
            states: BTreeMap::new(),
            values: Vec::new(),
        }
    }

    fn tell(&mut self, prompt: &Prompt) -> Result<()> {
        if self.prompt != *prompt {
            self.executor
                .prompt(&prompts(prompt, &Device::Cpu, DType::F32)?)?;
            self.prompt = prompt.clone();
        }
        Ok(())
    }

    /// An output to be written to.
    fn plane(&self, want: Want) -> Plane {
        let config = self.executor.config();
        let pixels = config.image_side_px * config.image_side_px;
        match want {
            Want::Labels => Plane::Labels(vec![0; pixels]),
            Want::Probabilities => Plane::Probabilities(vec![0.0; config.classes * pixels]),
        }
    }

    /// Steps with one prompt, in the order of `planes`. Whatever happens, states that do not go on stay as they were; one
    /// that leads to no numbers is forgotten, or it would lead to none for ever.
    fn steps_alike(&mut self, steps: &[&Step], planes: &mut [Plane]) -> Result<Vec<usize>> {
        self.tell(&steps[0].prompt)?;
        self.values.clear();
        let first = std::slice::from_ref(&steps[0].frame);
        self.values.push(values(first, self.normalisation));
        for step in steps {
            if !self.states.contains_key(&step.stream) {
                self.states
                    .insert(step.stream, State::new(self.executor.config()));
            }
        }
        let mut found: Vec<Option<&mut State<N>>> = steps.iter().map(|_| None).collect();
        for (stream, state) in &mut self.states {
            if let Some(at) = steps.iter().position(|step| step.stream == *stream) {
                found[at] = Some(state);
            }
        }
        let mut passing: Vec<&mut State<N>> = found.into_iter().flatten().collect();
        let mut masks: Vec<Masks<'_>> = planes.iter_mut().map(mask).collect();
        let table = &self.values[0];
        let picture = |stream: usize| Picture::Bytes {
            rgb: &steps[stream].frame.rgb,
            values: table,
        };
        let counts = self.executor.step(&mut passing, &picture, &mut masks)?.to_vec();
        for (step, count) in steps.iter().zip(&counts) {
            if *count > 0 {
                self.states.remove(&step.stream);
            }
        }
        Ok(counts)
    }
}

fn mask(plane: &mut Plane) -> Masks<'_> {
    match plane {
        Plane::Labels(ids) => Masks::Labels(ids),
        Plane::Probabilities(values) => Masks::Probabilities(values),
    }
}

fn checked<T>(value: T, not_finite: usize) -> Result<T, SegmentError> {
    match not_finite {
        0 => Ok(value),
        count => Err(SegmentError::NotFinite { count }),
    }
}

impl<N: Number> Forward for Executed<N> {
    fn clips(&mut self, rows: &[&Request]) -> Result<Vec<Result<Reply, SegmentError>>> {
        let frames = rows[0].frames.len();
        let outputs: Vec<usize> = (rows.iter().enumerate())
            .flat_map(|(row, request)| request.outputs.iter().map(move |&i| row * frames + i))
            .collect();
        if outputs.is_empty() {
            return Ok(rows.iter().map(|_| Ok(Reply { planes: Vec::new() })).collect());
        }
        self.tell(&rows[0].prompt)?;
        self.values.clear();
        self.values
            .extend(rows.iter().map(|row| values(&row.frames, self.normalisation)));
        let mut planes: Vec<Plane> = (rows.iter())
            .flat_map(|row| row.outputs.iter().map(|_| self.plane(row.want)))
            .collect();
        let mut masks: Vec<Masks<'_>> = planes.iter_mut().map(mask).collect();
        let tables = &self.values;
        let picture = |image: usize| Picture::Bytes {
            rgb: &rows[image / frames].frames[image % frames].rgb,
            values: &tables[image / frames],
        };
        let job = Job {
            clips: rows.len(),
            frames,
            outputs: &outputs,
            picture: &picture,
        };
        let counts = self.executor.clip(&job, &mut masks)?;
        let mut found = planes.into_iter().zip(counts);
        let replies = rows.iter().map(|row| {
            let (planes, counts): (Vec<Plane>, Vec<&usize>) = found.by_ref().take(row.outputs.len()).unzip();
            checked(Reply { planes }, counts.into_iter().sum())
        });
        Ok(replies.collect())
    }

    fn steps(&mut self, steps: &[&Step]) -> Result<Vec<Result<Plane, SegmentError>>> {
        let mut results = Vec::with_capacity(steps.len());
        // Frames with one prompt go together.
        for alike in steps.chunk_by(|a, b| a.prompt == b.prompt) {
            let mut planes: Vec<Plane> = alike.iter().map(|step| self.plane(step.want)).collect();
            // Those before have gone on: what goes wrong here is these rows' alone, or all would be run again.
            let run = std::panic::AssertUnwindSafe(|| self.steps_alike(alike, &mut planes));
            let error = match std::panic::catch_unwind(run) {
                Ok(Ok(counts)) => {
                    let found = planes.into_iter().zip(counts);
                    results.extend(found.map(|(plane, count)| checked(plane, count)));
                    continue;
                }
                Ok(Err(error)) => SegmentError::Forward(error.to_string()),
                Err(payload) => SegmentError::Panicked(panic_message(payload.as_ref())),
            };
            results.extend(alike.iter().map(|_| Err(error.clone())));
        }
        Ok(results)
    }

    fn reset(&mut self, stream: StreamId) {
        self.states.retain(|phase, _| phase.whole() != stream.whole());
    }

    fn snapshot(&self, stream: StreamId) -> Option<Vec<u8>> {
        Some(self.states.get(&stream)?.to_bytes())
    }

    fn restore(&mut self, stream: StreamId, bytes: &[u8]) -> Result<()> {
        let state = State::from_bytes(bytes, self.executor.config())?;
        self.states.insert(stream, state);
        Ok(())
    }
}
