//! One training run: steps, their guards, validation, and everything that has to be kept to go on.

use super::batches::Batch;
use super::config::TrainConfig;
use super::footage::Footage;
use super::gradients::{Found, Wanted, gradients as gradients_of};
use super::initial;
use super::loss::has_counting_pixel;
use super::optimizer::AdamW;
use super::parameters::{Parameters, Trained};
use crate::checkpoint::{ModelCard, ModelFile, Preprocessing, Source, Weights, adopt, source};
use crate::error::{Error, Result};
use crate::kernels::argmax::argmax;
use crate::labels::ClassSet;
use crate::metrics::Confusion;
use crate::model::{FactMode, MaSam, ModelConfig, Prompts};
use crate::runtime::{Place, tensor_of};
use crate::segmenter::{ModelFrame, panic_message};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::time::Instant;

/// A training run between two steps.
#[derive(Debug)]
pub struct Trainer {
    pub(super) config: TrainConfig,
    pub(super) card: ModelCard,
    pub(super) parameters: Parameters,
    pub(super) optimizer: AdamW,
    pub(super) progress: Progress,
    pub(super) taken_over: Option<TakenOver>,
    place: Place,
    /// One for each of the batches that are worked on at once; none where that is one.
    pools: Vec<ThreadPool>,
}

/// Shares of the CPU's threads for batches that are worked on at once.
fn pools(at_once: usize) -> Result<Vec<ThreadPool>> {
    if at_once < 2 {
        return Ok(Vec::new());
    }
    let threads = rayon::current_num_threads().div_ceil(at_once);
    let pool = |i| {
        ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(move |thread| format!("masam-batch-{i}-{thread}"))
            .build()
            .map_err(|e| Error::Unavailable {
                what: "a thread pool for training".into(),
                why: e.to_string(),
            })
    };
    (0..at_once).map(pool).collect()
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// Steps done, skipped ones included.
    pub step: u64,
    /// Steps skipped because a number was none.
    pub skipped: u64,
    /// Skipped steps since the last good one.
    pub bad_in_a_row: usize,
    /// Factor on the learning rate: halved by a bad step, and slowly back to 1.
    pub rate_factor: f64,
    /// Best mean IoU on the validation data.
    pub best: Option<f64>,
    /// Factor on the loss, so that its gradients are not lost in 16 bits: grows with good steps, halved by a bad one.
    /// 1 in other types.
    #[serde(default = "one")]
    pub loss_scale: f64,
    /// Good steps since the factor on the loss changed.
    #[serde(default)]
    pub steps_at_scale: u64,
}

fn one() -> f64 {
    1.0
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            step: 0,
            skipped: 0,
            bad_in_a_row: 0,
            rate_factor: 1.0,
            best: None,
            loss_scale: 1.0,
            steps_at_scale: 0,
        }
    }
}

/// What a step measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Its number, from 0.
    pub step: u64,
    /// Loss, NaN where it was none.
    pub loss: f64,
    /// Its first part.
    pub cross_entropy: f64,
    /// Its second part.
    pub dice: f64,
    /// Length of the gradient before it was shortened.
    pub gradient_norm: f64,
    /// Learning rate used.
    pub rate: f64,
    /// A number was none: the weights stay as they were.
    pub skipped: bool,
}

/// How much of what a bad step took from the learning rate each good step gives back.
const RECOVERY: f64 = 1.01;

/// Factor on the loss in f16: the first, the largest, and the good steps until it is doubled. As in the authors' framework.
const FIRST_SCALE: f64 = 65_536.0;
const LARGEST_SCALE: f64 = 16_777_216.0;
const STEPS_AT_SCALE: u64 = 2000;

impl Trainer {
    /// Begins a run.
    ///
    /// # Errors
    /// A configuration out of bounds, or weights that cannot be read.
    pub fn new(config: &TrainConfig, place: &Place) -> Result<Self> {
        config.validate()?;
        let model = ModelConfig {
            name: config.name.clone(),
            ..config.model.config()?
        };
        let mut preprocessing = config.preprocessing.preprocessing();
        if let Some(ms) = config.data.frame_interval_ms {
            preprocessing.frame_interval_nanos = Some(ms * 1_000_000);
        }
        let mut card = ModelCard::new(model, preprocessing)?;
        card.provenance.seed = Some(config.seed);
        let mut weights = initial::weights(&card.model, config.seed)?;
        let mut taken_over = None;
        if let Some(path) = &config.start.model {
            let file = ModelFile::read(path)?;
            card.provenance.sources = file.card.provenance.sources.clone();
            card.provenance.sources.push(Source::of(path)?);
            let found = take_over(&mut weights, &file.weights);
            if found.taken == 0 {
                return Err(Error::file(path, "none of its weights fits this model"));
            }
            taken_over = Some(found);
        }
        if let Some(path) = &config.start.sam {
            let sam = source::read(path)?;
            card.provenance.sources.push(Source::of(path)?);
            weights = adopt::on_top(&card.model, &sam, weights)?;
        }
        Ok(Self {
            parameters: Parameters::new(&weights, config.trained, &place.device)?,
            optimizer: AdamW::new(config.optimizer),
            progress: Progress {
                loss_scale: if place.dtype == DType::F16 {
                    FIRST_SCALE
                } else {
                    1.0
                },
                ..Progress::default()
            },
            pools: match place.device.is_cpu() {
                true => pools(config.clips.at_once)?,
                false => Vec::new(),
            },
            taken_over,
            place: place.clone(),
            config: config.clone(),
            card,
        })
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The card of the model it makes.
    pub fn card(&self) -> &ModelCard {
        &self.card
    }

    /// What the run took over from the model that its configuration starts with; none where there is no such model, and
    /// when a run goes on.
    pub fn taken_over(&self) -> Option<&TakenOver> {
        self.taken_over.as_ref()
    }

    /// Gives names and colours to the model's classes.
    ///
    /// # Errors
    /// Another number of classes than the model has.
    pub fn set_classes(&mut self, classes: &ClassSet) -> Result<()> {
        if classes.len() != self.card.model.classes {
            let bound = format!("the data have {}", classes.len());
            return Err(Error::config("model.classes", self.card.model.classes, bound));
        }
        self.card.classes = classes.clone();
        Ok(())
    }

    /// The weights as they are.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The model as it is, to be built again after each step: where the projections are trained themselves FacT is
    /// folded into them, which saves its products; where they are frozen it stays apart, which saves their gradients.
    ///
    /// # Errors
    /// Candle's own.
    pub fn model(&self) -> Result<MaSam> {
        let mode = match self.config.trained {
            Trained::Full => FactMode::Folded,
            _ => FactMode::Apart,
        };
        MaSam::new(
            &self.card.model,
            mode,
            self.parameters.builder_as(self.place.dtype, &self.place.device),
        )
    }

    /// One step over `batches`, whose gradients are averaged.
    ///
    /// # Errors
    /// Too many bad steps in a row, labels that mean nothing, or Candle's own.
    pub fn step(&mut self, batches: &[Batch]) -> Result<Step> {
        let began = Instant::now();
        let model = self.model()?;
        let wanted = Wanted {
            loss: &self.config.loss,
            kept: self.config.clips.kept,
            scale: self.progress.loss_scale,
        };
        let mut sums = [0f64; 3];
        let mut gradients: Option<GradStore> = None;
        for found in self.found(&model, batches, &wanted) {
            let Some(Found {
                losses,
                gradients: Some(own),
            }) = found?
            else {
                sums = [f64::NAN; 3];
                gradients = None;
                break;
            };
            for (sum, part) in sums
                .iter_mut()
                .zip([&losses.total, &losses.cross_entropy, &losses.dice])
            {
                *sum += f64::from(part.to_scalar::<f32>()?) / batches.len() as f64;
            }
            match &mut gradients {
                None => gradients = Some(own),
                Some(before) => self.parameters.add_gradients(before, &own)?,
            }
        }
        let [loss, cross_entropy, dice] = sums;
        let share = 1.0 / (batches.len().max(1) as f64 * self.progress.loss_scale);
        let gradient_norm = match &gradients {
            Some(gradients) => self.parameters.gradient_norm(gradients)? * share,
            None => f64::NAN,
        };
        let passed = began.elapsed();
        let rate = self.config.schedule.at(self.progress.step) * self.progress.rate_factor;
        let skipped = !gradient_norm.is_finite();
        let step = self.progress.step;
        self.progress.step += 1;
        if let (Some(gradients), false) = (gradients, skipped) {
            let limit = self.config.guard.gradient_norm;
            let factor = if limit > 0.0 && gradient_norm > limit {
                limit / gradient_norm
            } else {
                1.0
            };
            self.optimizer
                .step_scaled(&self.parameters, &gradients, rate, factor * share)?;
            let moved = began.elapsed() - passed;
            tracing::debug!(step, loss, gradients = ?passed, optimizer = ?moved, "step");
            self.progress.bad_in_a_row = 0;
            self.progress.rate_factor = (self.progress.rate_factor * RECOVERY).min(1.0);
            self.progress.steps_at_scale += 1;
            if self.place.dtype == DType::F16 && self.progress.steps_at_scale >= STEPS_AT_SCALE {
                self.progress.loss_scale = (self.progress.loss_scale * 2.0).min(LARGEST_SCALE);
                self.progress.steps_at_scale = 0;
            }
        } else if self.progress.loss_scale > 1.0 {
            // The scaled gradients may have left the range of the type: that is no fault of data or rate.
            self.progress.skipped += 1;
            self.progress.loss_scale = (self.progress.loss_scale / 2.0).max(1.0);
            self.progress.steps_at_scale = 0;
            tracing::info!(
                step,
                scale = self.progress.loss_scale,
                "a gradient is out of range: the loss is scaled less"
            );
        } else {
            self.progress.skipped += 1;
            self.progress.bad_in_a_row += 1;
            self.progress.rate_factor *= 0.5;
            tracing::warn!(
                step,
                loss,
                "the loss or its gradient is no number: the step is skipped, the rate halved"
            );
            if self.progress.bad_in_a_row >= self.config.guard.bad_steps {
                return Err(Error::config(
                    "loss",
                    format!(
                        "no number for {} steps in a row, up to step {step}",
                        self.progress.bad_in_a_row
                    ),
                    "lower schedule.rate, or look at the data",
                ));
            }
        }
        Ok(Step {
            step,
            loss,
            cross_entropy,
            dice,
            gradient_norm,
            rate,
            skipped,
        })
    }

    /// Losses and gradients of each batch, in order; `None` for one without a pixel to learn from. One after the other
    /// as they are asked for, or `at_once` of them side by side, each on its share of the threads.
    fn found<'a>(
        &'a self,
        model: &'a MaSam,
        batches: &'a [Batch],
        wanted: &'a Wanted<'a>,
    ) -> Box<dyn Iterator<Item = Result<Option<Found>>> + 'a> {
        let one = move |batch: &Batch| -> Result<Option<Found>> {
            if !has_counting_pixel(&batch.labels, wanted.loss)? {
                return Ok(None);
            }
            let batch = batch.brought_to(&self.place.device, self.place.dtype)?;
            gradients_of(model, &self.parameters, &batch, wanted).map(Some)
        };
        if self.pools.is_empty() {
            return Box::new(batches.iter().map(one));
        }
        let waves = batches.chunks(self.pools.len()).flat_map(move |wave| {
            std::thread::scope(|scope| {
                let running: Vec<_> = wave
                    .iter()
                    .zip(&self.pools)
                    .map(|(batch, pool)| scope.spawn(move || pool.install(|| one(batch))))
                    .collect();
                let panicked = |payload: Box<dyn std::any::Any + Send>| {
                    Err(Error::tensor("batch", panic_message(payload.as_ref())))
                };
                let ended = running
                    .into_iter()
                    .map(|task| task.join().unwrap_or_else(panicked));
                ended.collect::<Vec<_>>()
            })
        });
        Box::new(waves)
    }

    /// The newest output of a clip around every `every`-th frame, against its labels, at the model's side.
    ///
    /// # Errors
    /// Candle's own.
    pub fn validate(&self, footage: &Footage, every: usize) -> Result<Confusion> {
        let weights = self.parameters.weights()?;
        let builder = weights.builder(DType::F32, &self.place.device);
        let model = MaSam::new(&self.card.model, FactMode::Folded, builder)?;
        let mut confusion = Confusion::new(self.card.classes.len())?;
        let (frames, side) = (self.config.clips.frames, footage.side());
        let stride = self.config.clips.stride[0];
        for sequence in footage.sequences() {
            for newest in (0..sequence.len()).step_by(every.max(1)) {
                let clip: Vec<ModelFrame> = (0..frames)
                    .rev()
                    .map(|back| sequence[newest.saturating_sub(back * stride)].frame.clone())
                    .collect();
                let input = tensor_of(&[&clip], side, self.card.preprocessing.normalisation)?;
                let features = model.encode(&input.to_device(&self.place.device)?, &mut |_, _| {})?;
                let shown = Tensor::new(&[frames as u32 - 1], &self.place.device)?;
                let output = model.decode(&features.select(&shown)?, &Prompts::default())?;
                let logits = output.logits.flatten_all()?.to_vec1::<f32>()?;
                confusion.add(
                    &sequence[newest].labels,
                    &argmax(&logits, self.card.classes.len()).ids,
                )?;
            }
        }
        Ok(confusion)
    }

    /// Whether a validation score is the best so far.
    pub fn is_best(&self, score: f64) -> bool {
        self.progress.best.is_none_or(|best| score > best)
    }

    /// Notes the best validation score so far, once its model is kept.
    pub fn note_best(&mut self, score: f64) {
        self.progress.best = Some(score);
    }

    /// The model as it is, as a file with `data` and `date` in its provenance.
    ///
    /// # Errors
    /// Candle's own.
    pub fn model_file(&self, data: &str, date: &str) -> Result<ModelFile> {
        let mut card = self.card.clone();
        card.provenance.trained = self.progress.step > self.progress.skipped;
        card.provenance.data = Some(data.into());
        card.provenance.date = Some(date.into());
        Ok(ModelFile {
            card,
            weights: self.parameters.weights()?,
        })
    }
}

/// What a run took over from another model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenOver {
    /// Weights taken over.
    pub taken: usize,
    /// Names of the weights drawn anew, because the other model has none of that name and shape.
    pub drawn: Vec<String>,
}

/// Names that are listed.
const LISTED: usize = 4;

impl std::fmt::Display for TakenOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = self.taken + self.drawn.len();
        write!(f, "start.model: {} of {all} weights taken over", self.taken)?;
        if let Some(names) = self
            .drawn
            .get(..self.drawn.len().min(LISTED))
            .filter(|n| !n.is_empty())
        {
            write!(f, ", {} drawn anew: {}", self.drawn.len(), names.join(", "))?;
        }
        if self.drawn.len() > LISTED {
            write!(f, ", ...")?;
        }
        Ok(())
    }
}

/// Takes over every weight that fits.
fn take_over(weights: &mut Weights, from: &Weights) -> TakenOver {
    let fitting: Vec<(String, Tensor)> = weights
        .iter()
        .filter_map(|(name, own)| {
            let found = from.get(name).filter(|found| found.dims() == own.dims())?;
            Some((name.clone(), found.clone()))
        })
        .collect();
    let is_taken = |name: &String| fitting.iter().any(|(taken, _)| taken == name);
    let drawn = weights
        .iter()
        .map(|(name, _)| name.clone())
        .filter(|name| !is_taken(name));
    let found = TakenOver {
        taken: fitting.len(),
        drawn: drawn.collect(),
    };
    for (name, tensor) in fitting {
        weights.insert(name, tensor);
    }
    found
}

impl super::config::Prepared {
    /// How frames are prepared.
    pub fn preprocessing(self) -> Preprocessing {
        match self {
            Self::Live => Preprocessing::live(),
            Self::Reference => Preprocessing::reference(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn what_does_not_fit_is_drawn_and_said() {
        let weights = |sizes: &[(&str, usize)]| {
            let mut weights = Weights::default();
            for &(name, size) in sizes {
                let values = vec![size as f32; size];
                weights.insert(name, Tensor::from_vec(values, size, &Device::Cpu).unwrap());
            }
            weights
        };
        let mut own = weights(&[("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5), ("f", 6)]);
        let found = take_over(&mut own, &weights(&[("a", 1), ("b", 3), ("z", 1)]));
        let drawn = ["b", "c", "d", "e", "f"].map(str::to_owned);
        assert_eq!((found.taken, found.drawn.as_slice()), (1, &drawn[..]));
        assert_eq!(
            found.to_string(),
            "start.model: 1 of 6 weights taken over, 5 drawn anew: b, c, d, e, ..."
        );
        assert_eq!(own.get("b").unwrap().dims(), [2]);
        let all = take_over(&mut weights(&[("a", 1)]), &weights(&[("a", 1)]));
        assert_eq!(all.to_string(), "start.model: 1 of 1 weights taken over");
    }
}
