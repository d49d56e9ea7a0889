//! Batches, drawn ahead on a thread of their own. A batch follows from the seed and its step alone, so that a run
//! that goes on draws what an unbroken one would have drawn.

use super::augment::AugmentConfig;
use super::config::{Clips, TrainConfig};
use super::footage::{Footage, Labelled};
use super::loss::IGNORED;
use crate::data::phantom::random::Random;
use crate::error::Result;
use crate::runtime::tensor_of;
use crate::segmenter::{ModelFrame, Normalisation};
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// Clips and their labels, as the model and the loss take them.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[clips, frames, 3, side, side]`, float32.
    pub clips: Tensor,
    /// `[clips * frames, side, side]`, bytes.
    pub labels: Tensor,
}

impl Batch {
    /// The same with its clips on `device` in `dtype`; labels stay where they are.
    ///
    /// # Errors
    /// Candle's own.
    pub fn brought_to(&self, device: &Device, dtype: DType) -> Result<Self> {
        Ok(Self {
            clips: self.clips.to_device(device)?.to_dtype(dtype)?,
            labels: self.labels.clone(),
        })
    }
}

/// What a batch is made with.
#[derive(Debug, Clone)]
pub struct Recipe {
    seed: u64,
    clips: Clips,
    augment: AugmentConfig,
    normalisation: Normalisation,
}

impl Recipe {
    /// As `config` says, for a model with that normalisation.
    pub fn new(config: &TrainConfig, normalisation: Normalisation) -> Self {
        Self {
            seed: config.seed,
            clips: config.clips,
            augment: config.augment,
            normalisation,
        }
    }

    /// Batch `part` of step `step`.
    ///
    /// # Errors
    /// Candle's own.
    pub fn batch(&self, footage: &Footage, step: u64, part: usize) -> Result<Batch> {
        let mut random = Random::stream(self.seed, &format!("batch {step} {part}"));
        let clips: Vec<Vec<Labelled>> = (0..self.clips.batch)
            .map(|_| {
                let clip = footage.draw(&self.clips, &mut random);
                // A change may move all that counts out of the picture.
                let changed = (0..DRAWS).find_map(|_| {
                    let changed = self.augment.draw(&mut random).apply(&clip, footage.side());
                    counts(&changed).then_some(changed)
                });
                changed.unwrap_or(clip)
            })
            .collect();
        batch_of(&clips, footage.side(), self.normalisation)
    }
}

/// Changes that are tried before a clip stays as it is.
const DRAWS: usize = 8;

/// Whether a clip has a pixel to learn from.
fn counts(clip: &[Labelled]) -> bool {
    clip.iter()
        .any(|frame| frame.labels.iter().any(|&id| id != IGNORED))
}

/// Clips of equal length as one batch.
///
/// # Errors
/// Candle's own.
pub fn batch_of(clips: &[Vec<Labelled>], side: usize, normalisation: Normalisation) -> Result<Batch> {
    let frames: Vec<Vec<ModelFrame>> = clips
        .iter()
        .map(|clip| clip.iter().map(|labelled| labelled.frame.clone()).collect())
        .collect();
    let rows: Vec<&[ModelFrame]> = frames.iter().map(Vec::as_slice).collect();
    let labels: Vec<u8> = clips
        .iter()
        .flatten()
        .flat_map(|f| f.labels.iter().copied())
        .collect();
    let count = labels.len() / (side * side).max(1);
    Ok(Batch {
        clips: tensor_of(&rows, side, normalisation)?,
        labels: Tensor::from_vec(labels, (count, side, side), &Device::Cpu)?,
    })
}

/// Draws batches ahead.
#[derive(Debug)]
pub struct Batches {
    ready: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
}

/// Batches that wait to be used.
const AHEAD: usize = 2;

impl Batches {
    /// From step `first` on; each step has `parts` batches.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn start(recipe: Recipe, footage: Arc<Footage>, first: u64, parts: usize) -> Result<Self> {
        let (sender, ready) = sync_channel(AHEAD);
        let thread = std::thread::Builder::new()
            .name("masam-batches".into())
            .spawn(move || {
                let steps = (first..).flat_map(|step| (0..parts).map(move |part| (step, part)));
                for (step, part) in steps {
                    // Nobody takes it: the run has ended.
                    if sender.send(recipe.batch(&footage, step, part)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            ready: Some(ready),
            thread: Some(thread),
        })
    }

    /// The next batch.
    ///
    /// # Errors
    /// As [`Recipe::batch`], or the thread that draws them has died.
    pub fn next(&self) -> Result<Batch> {
        let ended = || crate::error::Error::Unavailable {
            what: "the next batch".into(),
            why: "the thread that draws batches has ended".into(),
        };
        self.ready
            .as_ref()
            .and_then(|ready| ready.recv().ok())
            .ok_or_else(ended)?
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.ready = None;
        if let Some(thread) = self.thread.take() {
            // It ends at its next batch; if it panicked, `next` has said so.
            let _ = thread.join();
        }
    }
}
