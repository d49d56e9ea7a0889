//! The configuration of a training run, as TOML; every field has the paper's value as its default.
//!
//! ```
//! let config = masam::train::TrainConfig::parse(r#"
//!     name = "scenes"
//!     trained = "full"
//!     [model]
//!     preset = "demo"
//!     [data.phantom]
//!     sequences = 16
//! "#)?;
//! assert_eq!(config.clips.frames, 5);
//! # Ok::<(), masam::Error>(())
//! ```

mod data;
mod model_choice;
mod parse;

pub use data::{Data, Scenes};
pub use model_choice::ModelChoice;

use super::augment::AugmentConfig;
use super::gradients::Kept;
use super::loss::LossConfig;
use super::optimizer::AdamWConfig;
use super::parameters::Trained;
use super::schedule::Schedule;
use crate::data::Split;
use crate::error::{Error, Result, all_of};
use crate::runtime::PrecisionChoice;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainConfig {
    /// Name of the run and of the model it makes.
    pub name: String,
    /// Everything random follows from it.
    pub seed: u64,
    /// What is trained; the rest is frozen.
    pub trained: Trained,
    /// The model, from a preset.
    pub model: ModelChoice,
    /// How frames are prepared; goes into the model file.
    pub preprocessing: Prepared,
    /// Where the weights begin.
    pub start: Start,
    /// What is learnt from, and what is validated on.
    pub data: Data,
    /// Clips and batches.
    pub clips: Clips,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// Type of the numbers in the model's passes; weights and moments are always f32. `auto` is f32 on the CPU and
    /// bf16 on CUDA; the authors used f16.
    pub precision: PrecisionChoice,
    /// The optimiser's constants.
    pub optimizer: AdamWConfig,
    /// The loss.
    pub loss: LossConfig,
    /// Random changes of the clips.
    pub augment: AugmentConfig,
    /// Guards against steps that would do harm.
    pub guard: Guard,
    /// What is written, and when.
    pub save: Save,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            name: "masam".into(),
            seed: 1,
            trained: Trained::default(),
            model: ModelChoice::default(),
            preprocessing: Prepared::default(),
            start: Start::default(),
            data: Data::default(),
            clips: Clips::default(),
            schedule: Schedule::default(),
            precision: PrecisionChoice::default(),
            optimizer: AdamWConfig::default(),
            loss: LossConfig::default(),
            augment: AugmentConfig::default(),
            guard: Guard::default(),
            save: Save::default(),
        }
    }
}

/// How frames are prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prepared {
    /// As the authors did: cubic spline, turned, stretched over each clip's own range.
    #[default]
    Reference,
    /// As live video wants it: area filter, upright, bytes over 255.
    Live,
}

/// Where the weights begin: a model file, SAM's release, or nothing but the seed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Start {
    /// A model file. What does not fit (another number of classes, another decoder) is drawn anew.
    pub model: Option<PathBuf>,
    /// SAM's release, .pth or .safetensors; FacT, adapters and classes are drawn from the seed.
    pub sam: Option<PathBuf>,
}

/// Clips and batches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Clips {
    /// Frames in a clip.
    pub frames: usize,
    /// Smallest and largest number of frames from one frame of a clip to the next; each clip draws its own.
    pub stride: [usize; 2],
    /// Clips that go through the model at once.
    pub batch: usize,
    /// Batches whose gradients make one step.
    pub accumulate: usize,
    /// Of those batches, how many are worked on side by side on the CPU, each on its share of the threads: faster, and
    /// as many times the memory. The result is the same.
    pub at_once: usize,
    /// What is kept of a batch until its gradients are known: `everything`, or `block-inputs` where memory is short.
    pub kept: Kept,
    /// Share of clips, 0 to 1, that are drawn by class: first a class, each as often as any other, then a frame that
    /// shows it. The others are drawn evenly from all frames.
    pub by_class: f32,
}

impl Default for Clips {
    fn default() -> Self {
        Self {
            frames: 5,
            stride: [1, 1],
            batch: 3,
            accumulate: 1,
            at_once: 1,
            kept: Kept::default(),
            by_class: 0.0,
        }
    }
}

/// Guards against steps that would do harm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guard {
    /// Longest gradient, all parameters taken as one vector; a longer one is shortened to it. 0 leaves all as they are.
    pub gradient_norm: f64,
    /// Steps with a loss or a gradient that is no number, in a row, after which the run ends.
    pub bad_steps: usize,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            gradient_norm: 1.0,
            bad_steps: 10,
        }
    }
}

/// What is written, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Save {
    /// Folder of the run; `runs/NAME` by default.
    pub folder: Option<PathBuf>,
    /// Steps from one state on disk to the next.
    pub every: u64,
    /// Steps from one validation to the next.
    pub validate_every: u64,
}

impl Default for Save {
    fn default() -> Self {
        Self {
            folder: None,
            every: 200,
            validate_every: 200,
        }
    }
}

impl TrainConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`Error::Configuration`] with everything that is wrong at once: text that is no TOML, fields that do not exist, values
    /// of the wrong type, and values out of bounds.
    pub fn parse(text: &str) -> Result<Self> {
        parse::parse(text)
    }

    /// Reads a configuration file; relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// As [`TrainConfig::parse`], naming the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
        let mut config = Self::parse(&text).map_err(|error| match error {
            Error::Configuration { faults, .. } => Error::Configuration {
                path: Some(path.to_owned()),
                faults,
            },
            error => Error::file(path, error),
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let paths = [
            &mut config.start.model,
            &mut config.start.sam,
            &mut config.data.folder,
        ];
        for own in paths.into_iter().flatten() {
            *own = folder.join(&*own);
        }
        Ok(config)
    }

    /// The folder of the run.
    pub fn folder(&self) -> PathBuf {
        self.save
            .folder
            .clone()
            .unwrap_or_else(|| Path::new("runs").join(&self.name))
    }

    /// Checks every field.
    ///
    /// # Errors
    /// Each field out of bounds.
    pub fn validate(&self) -> Result<()> {
        let mut errors = Vec::new();
        let mut check = |holds: bool, field: &str, value: &dyn std::fmt::Debug, bound: &str| {
            if !holds {
                errors.push(Error::config(field, format!("{value:?}"), bound));
            }
        };
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        let named = !self.name.is_empty() && self.name.chars().all(plain) && !self.name.starts_with('.');
        check(
            named,
            "name",
            &self.name,
            "it has to be letters, digits, -, _ and .",
        );
        let Clips {
            frames,
            stride,
            batch,
            accumulate,
            at_once,
            by_class,
            kept: _,
        } = self.clips;
        check(
            (1..=64).contains(&frames),
            "clips.frames",
            &frames,
            "it has to be 1 to 64",
        );
        let ordered = stride[0] >= 1 && stride[0] <= stride[1] && stride[1] <= 1000;
        check(
            ordered,
            "clips.stride",
            &stride,
            "it has to be two ascending numbers, 1 to 1000",
        );
        check(
            (1..=1024).contains(&batch),
            "clips.batch",
            &batch,
            "it has to be 1 to 1024",
        );
        check(
            (1..=1024).contains(&accumulate),
            "clips.accumulate",
            &accumulate,
            "it has to be 1 to 1024",
        );
        check(
            (1..=accumulate.max(1)).contains(&at_once),
            "clips.at_once",
            &at_once,
            "it has to be 1 to clips.accumulate",
        );
        check(
            (0.0..=1.0).contains(&by_class),
            "clips.by_class",
            &by_class,
            "it has to be 0 to 1",
        );
        let AdamWConfig {
            beta_1,
            beta_2,
            eps,
            decay,
            matrices: _,
        } = self.optimizer;
        for (field, beta) in [("optimizer.beta_1", beta_1), ("optimizer.beta_2", beta_2)] {
            check(
                (0.0..1.0).contains(&beta),
                field,
                &beta,
                "it has to be 0 or more, and below 1",
            );
        }
        check(
            (1e-30..=1.0).contains(&eps),
            "optimizer.eps",
            &eps,
            "it has to be above 0, at most 1",
        );
        check(
            (0.0..=10.0).contains(&decay),
            "optimizer.decay",
            &decay,
            "it has to be 0 to 10",
        );
        let Guard {
            gradient_norm,
            bad_steps,
        } = self.guard;
        let bound = "it has to be a number, 0 or more";
        check(gradient_norm >= 0.0, "guard.gradient_norm", &gradient_norm, bound);
        check(
            bad_steps >= 1,
            "guard.bad_steps",
            &bad_steps,
            "it has to be 1 or more",
        );
        check(
            self.save.every >= 1,
            "save.every",
            &self.save.every,
            "it has to be 1 or more",
        );
        let every = self.save.validate_every;
        check(
            every >= 1,
            "save.validate_every",
            &every,
            "it has to be 1 or more",
        );
        let share = self.loss.cross_entropy_share;
        check(
            (0.0..=1.0).contains(&share),
            "loss.cross_entropy_share",
            &share,
            "it has to be 0 to 1",
        );
        if let (Some(weights), Ok(model)) = (&self.loss.class_weights, self.model.config()) {
            let fit = weights.len() == model.classes && weights.iter().all(|w| w.is_finite() && *w >= 0.0);
            let bound = format!("it has to be {} numbers, none negative, not all 0", model.classes);
            let some = weights.iter().any(|w| *w > 0.0);
            check(fit && some, "loss.class_weights", weights, &bound);
        }
        let sources = usize::from(self.data.folder.is_some()) + usize::from(self.data.phantom.is_some());
        let given = if sources == 0 {
            "no source"
        } else {
            "folder and phantom"
        };
        check(
            sources == 1,
            "data",
            &format_args!("{given}"),
            "it has to be one folder or one kind of phantom",
        );
        let memory_gib = self.data.memory_gib();
        check(
            memory_gib > 0.0,
            "data.memory_gib",
            &memory_gib,
            "it has to be a number above 0",
        );
        let started = self.start.model.is_some() && self.start.sam.is_some();
        let bound = "it has to be one of them";
        check(!started, "start", &format_args!("model and sam"), bound);
        let mut further = Vec::new();
        for (field, split) in [
            ("data.split", &self.data.split),
            ("data.validation_split", &self.data.validation_split),
        ] {
            let split = split.as_deref().map_or(Ok(Split::All), str::parse);
            further.extend(renamed(split.map(drop), |_| field.into()));
        }
        let task = self.data.task().map(drop);
        further.extend(renamed(task, |_| "data.task_2017".into()));
        for (field, scenes) in [
            ("data.phantom", self.data.phantom),
            ("data.validation_phantom", self.data.validation_phantom),
        ] {
            if let Some(scenes) = scenes {
                let (sequences, bound) = (scenes.sequences, "it has to be 1 or more");
                check(sequences >= 1, &format!("{field}.sequences"), &sequences, bound);
                let within = |inner: &str| match inner {
                    "frame_rate" => format!("{field}.fps"),
                    inner if inner.starts_with("size.") || inner == "supersample" => format!("{field}.size"),
                    inner => format!("{field}.{inner}"),
                };
                further.extend(renamed(scenes.config().validate(), within));
            }
        }
        errors.extend(further);
        for result in [
            self.schedule.validate(),
            self.augment.validate(),
            self.model.config().map(drop),
        ] {
            errors.extend(renamed(result, str::to_owned));
        }
        all_of(errors)
    }
}

/// The errors in a result, with other names for their fields.
fn renamed(result: Result<()>, name: impl Fn(&str) -> String) -> Vec<Error> {
    let errors = match result {
        Ok(()) => Vec::new(),
        Err(Error::Several(errors)) => errors,
        Err(error) => vec![error],
    };
    let rename = |error| match error {
        Error::Config { field, value, bound } => Error::config(name(&field), value, bound),
        other => other,
    };
    errors.into_iter().map(rename).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_field_is_named() {
        let error = TrainConfig::parse(
            "name = 'a/b'\nseed = 3\n[clips]\nframes = 0\nstride = [3, 1]\n[model]\npreset = 'vit_x'\n[schedule]\nsteps = 0\n[optimizer]\nbeta_2 = 1.0",
        )
        .unwrap_err()
        .to_string();
        for field in [
            "name",
            "clips.frames",
            "clips.stride",
            "data",
            "vit_x",
            "schedule.steps",
        ] {
            assert!(error.contains(field), "{field}: {error}");
        }
        let error = "lerning_rate = 1.0\n[clips]\nbatches = 3\nframes = 0\n[data.phantom]\nseeds = 3";
        let error = TrainConfig::parse(error).unwrap_err().to_string();
        for field in [
            "lerning_rate",
            "clips.batches",
            "clips.frames",
            "data.phantom.seeds",
        ] {
            assert!(error.contains(field), "{field}: {error}");
        }
        let error = TrainConfig::parse("seed = 3\ntrained = 'fakt'")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("line 2: ") && error.contains("fakt") && !error.contains("\\n"),
            "{error}"
        );
    }

    #[test]
    fn defaults_are_the_papers() {
        let config = TrainConfig::parse("[data]\nfolder = 'endovis'").unwrap();
        assert_eq!(config.trained, Trained::FactAndAdapters);
        assert_eq!((config.clips.frames, config.clips.batch), (5, 3));
        assert_eq!(
            (
                config.schedule.rate,
                config.schedule.warm_up,
                config.schedule.power
            ),
            (8e-4, 250, 7.0)
        );
        assert_eq!((config.optimizer.beta_2, config.optimizer.decay), (0.999, 0.1));
        assert_eq!(config.loss.cross_entropy_share, 0.2);
        let text = toml::to_string(&config).unwrap();
        assert_eq!(TrainConfig::parse(&text).unwrap(), config);
    }
}
