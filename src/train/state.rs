//! The state of a run on disk: weights, moments, progress, in one safetensors file written beside its destination and
//! renamed, so that the last good one outlives a full disk or a power cut.

use super::config::TrainConfig;
use super::optimizer::Moments;
use super::trainer::{Progress, Trainer};
use crate::checkpoint::source::SafetensorsFile;
use crate::checkpoint::{Weights, model_file};
use crate::error::{Error, Result};
use crate::runtime::Place;
use candle_core::DType;
use std::collections::BTreeMap;
use std::path::Path;

const PROGRESS: &str = "masam_progress";
const CONFIG: &str = "masam_config";

impl Trainer {
    /// Writes everything that is needed to go on.
    ///
    /// # Errors
    /// A file that cannot be written; the one that was there is left as it was.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors = Weights::default();
        for (name, tensor) in self.parameters.weights()?.iter() {
            tensors.insert(format!("weight.{name}"), tensor.clone());
        }
        for (name, moments) in &self.optimizer.moments {
            tensors.insert(format!("first.{name}"), moments.first.clone());
            tensors.insert(format!("second.{name}"), moments.second.clone());
        }
        let text = |e: serde_json::Error| Error::file(path, e);
        let metadata = [
            (
                PROGRESS.to_owned(),
                serde_json::to_string(&self.progress).map_err(text)?,
            ),
            (
                CONFIG.to_owned(),
                serde_json::to_string(&self.config).map_err(text)?,
            ),
            (
                "masam_optimizer_steps".to_owned(),
                self.optimizer.steps.to_string(),
            ),
        ];
        model_file::write_tensors(path, &tensors, metadata.into_iter().collect())
    }

    /// Goes on from a state that [`Trainer::save`] wrote. The configuration may ask for more steps, other saves and
    /// other data; what decides the weights has to be the same.
    ///
    /// # Errors
    /// A file that cannot be read, is not whole, or belongs to another configuration.
    pub fn resume(config: &TrainConfig, path: &Path, place: &Place) -> Result<Self> {
        let mut file = SafetensorsFile::open(path)?;
        let text = |key: &str| {
            let missing = || Error::file(path, format!("no metadata `{key}`: this is no training state"));
            file.text(key).map(str::to_owned).ok_or_else(missing)
        };
        let parse = |e: serde_json::Error| Error::file(path, e);
        let progress: Progress = serde_json::from_str(&text(PROGRESS)?).map_err(parse)?;
        let before: TrainConfig = serde_json::from_str(&text(CONFIG)?).map_err(parse)?;
        let steps = text("masam_optimizer_steps")?;
        let steps = steps.parse().map_err(|e| Error::file(path, e))?;
        let same = before.model == config.model
            && before.trained == config.trained
            && before.data.groups == config.data.groups
            && before.optimizer == config.optimizer;
        if !same {
            return Err(Error::file(
                path,
                "it was saved with another model, choice of weights, groups of classes or optimiser",
            ));
        }
        // The start is only needed for what it says of its sources.
        let mut trainer = Trainer::new(config, place)?;
        trainer.taken_over = None;
        let mut weights = Weights::default();
        let (mut first, mut second) = (BTreeMap::new(), BTreeMap::new());
        for name in file.names() {
            let tensor = file.read(&name)?.to_dtype(DType::F32)?;
            match name.split_once('.') {
                Some(("weight", own)) => weights.insert(own, tensor),
                Some(("first", own)) => drop(first.insert(own.to_owned(), tensor)),
                Some(("second", own)) => drop(second.insert(own.to_owned(), tensor)),
                _ => {
                    return Err(Error::file(
                        path,
                        format!("tensor {name} does not belong to a training state"),
                    ));
                }
            }
        }
        weights
            .check_fit(&trainer.card.model)
            .map_err(|e| Error::file(path, e))?;
        trainer.parameters = super::Parameters::new(&weights, config.trained, &place.device)?;
        for (name, first) in first {
            let second = second.remove(&name);
            let second =
                second.ok_or_else(|| Error::file(path, format!("second moment of {name} is missing")))?;
            trainer.optimizer.moments.insert(name, Moments { first, second });
        }
        trainer.optimizer.steps = steps;
        trainer.progress = progress;
        Ok(trainer)
    }
}
