//! One training run: steps, their guards, validation, and everything that has to be kept to go on.

use super::batches::Batch;
use super::config::TrainConfig;
use super::footage::Footage;
use super::initial;
use super::loss::{IGNORED, losses_with};
use super::optimizer::AdamW;
use super::parameters::Parameters;
use crate::checkpoint::{ModelCard, ModelFile, Preprocessing, Source, Weights, adopt, source};
use crate::error::{Error, Result};
use crate::kernels::argmax::argmax;
use crate::labels::ClassSet;
use crate::metrics::Confusion;
use crate::model::{FactMode, MaSam, ModelConfig, Prompts};
use crate::runtime::tensor_of;
use crate::segmenter::ModelFrame;
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};

/// A training run between two steps.
#[derive(Debug)]
pub struct Trainer {
    pub(super) config: TrainConfig,
    pub(super) card: ModelCard,
    pub(super) parameters: Parameters,
    pub(super) optimizer: AdamW,
    pub(super) progress: Progress,
    device: Device,
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
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            step: 0,
            skipped: 0,
            bad_in_a_row: 0,
            rate_factor: 1.0,
            best: None,
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

impl Trainer {
    /// Begins a run.
    ///
    /// # Errors
    /// A configuration out of bounds, or weights that cannot be read.
    pub fn new(config: &TrainConfig, device: &Device) -> Result<Self> {
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
        if let Some(path) = &config.start.model {
            let file = ModelFile::read(path)?;
            card.provenance.sources = file.card.provenance.sources.clone();
            card.provenance.sources.push(Source::of(path)?);
            take_over(&mut weights, &file.weights);
        }
        if let Some(path) = &config.start.sam {
            let sam = source::read(path)?;
            card.provenance.sources.push(Source::of(path)?);
            weights = adopt::on_top(&card.model, &sam, weights)?;
        }
        Ok(Self {
            parameters: Parameters::new(&weights, config.trained, device)?,
            optimizer: AdamW::new(config.optimizer),
            progress: Progress::default(),
            device: device.clone(),
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

    /// The model as it is, with FacT apart: weights change under it with every step.
    ///
    /// # Errors
    /// Candle's own.
    pub fn model(&self) -> Result<MaSam> {
        MaSam::new(
            &self.card.model,
            FactMode::Apart,
            self.parameters.builder(&self.device),
        )
    }

    /// One step over `batches`, whose gradients are averaged.
    ///
    /// # Errors
    /// Too many bad steps in a row, labels that mean nothing, or Candle's own.
    pub fn step(&mut self, batches: &[Batch]) -> Result<Step> {
        let model = self.model()?;
        let mut sums = [0f64; 3];
        let mut gradients: Option<GradStore> = None;
        for batch in batches {
            let logits = model
                .forward(&batch.clips.to_device(&self.device)?, &Prompts::default())?
                .logits;
            let found = losses_with(&logits, &batch.labels, &self.config.loss)?;
            for (sum, part) in sums
                .iter_mut()
                .zip([&found.total, &found.cross_entropy, &found.dice])
            {
                *sum += f64::from(part.to_scalar::<f32>()?) / batches.len() as f64;
            }
            if !sums[0].is_finite() {
                break; // Its gradients would be no better.
            }
            let own = found.total.backward()?;
            gradients = Some(match gradients {
                None => own,
                Some(before) => self.added(before, &own)?,
            });
        }
        let [loss, cross_entropy, dice] = sums;
        let share = 1.0 / batches.len().max(1) as f64;
        let gradient_norm = match &gradients {
            Some(gradients) if loss.is_finite() => self.norm(gradients)? * share,
            _ => f64::NAN,
        };
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
            let gradients = self.scaled(gradients, factor * share)?;
            self.optimizer.step(&self.parameters, &gradients, rate)?;
            self.progress.bad_in_a_row = 0;
            self.progress.rate_factor = (self.progress.rate_factor * RECOVERY).min(1.0);
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

    fn norm(&self, gradients: &GradStore) -> Result<f64> {
        let mut sum = 0f64;
        for (_, var) in self.parameters.trained() {
            if let Some(gradient) = gradients.get(var.as_tensor()) {
                sum += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
            }
        }
        Ok(sum.sqrt())
    }

    fn added(&self, mut before: GradStore, own: &GradStore) -> Result<GradStore> {
        for (_, var) in self.parameters.trained() {
            if let Some(gradient) = own.get(var.as_tensor()) {
                let sum = match before.get(var.as_tensor()) {
                    Some(earlier) => (earlier + gradient)?,
                    None => gradient.clone(),
                };
                before.insert(var.as_tensor(), sum);
            }
        }
        Ok(before)
    }

    fn scaled(&self, mut gradients: GradStore, factor: f64) -> Result<GradStore> {
        if factor == 1.0 {
            return Ok(gradients);
        }
        for (_, var) in self.parameters.trained() {
            if let Some(gradient) = gradients.get(var.as_tensor()) {
                let scaled = (gradient * factor)?;
                gradients.insert(var.as_tensor(), scaled);
            }
        }
        Ok(gradients)
    }

    /// The newest output of a clip around every `every`-th frame, against its labels, at the model's side.
    ///
    /// # Errors
    /// Candle's own.
    pub fn validate(&self, footage: &Footage, every: usize) -> Result<Confusion> {
        let weights = self.parameters.weights()?;
        let builder = weights.builder(candle_core::DType::F32, &self.device);
        let model = MaSam::new(&self.card.model, FactMode::Folded, builder)?;
        let mut confusion = Confusion::new(self.card.classes.len(), IGNORED);
        let (frames, side) = (self.config.clips.frames, footage.side());
        let stride = self.config.clips.stride[0];
        for sequence in footage.sequences() {
            for newest in (0..sequence.len()).step_by(every.max(1)) {
                let clip: Vec<ModelFrame> = (0..frames)
                    .rev()
                    .map(|back| sequence[newest.saturating_sub(back * stride)].frame.clone())
                    .collect();
                let input = tensor_of(&[&clip], side, self.card.preprocessing.normalisation)?;
                let features = model.encode(&input.to_device(&self.device)?, &mut |_, _| {})?;
                let shown = Tensor::new(&[frames as u32 - 1], &self.device)?;
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

    /// Notes a validation score and tells whether it is the best so far.
    pub fn is_best(&mut self, score: f64) -> bool {
        let best = self.progress.best.is_none_or(|best| score > best);
        if best {
            self.progress.best = Some(score);
        }
        best
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

/// Takes over every weight that fits.
fn take_over(weights: &mut Weights, from: &Weights) {
    let fitting: Vec<(String, Tensor)> = weights
        .iter()
        .filter_map(|(name, own)| {
            let found = from.get(name).filter(|found| found.dims() == own.dims())?;
            Some((name.clone(), found.clone()))
        })
        .collect();
    for (name, tensor) in fitting {
        weights.insert(name, tensor);
    }
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
