//! Reference tensors: files that carry a configuration and the outputs an independent statement of the model gave
//! for it, and the check of this implementation against them.
//!
//! A file needs no weights and no input beside it: both are rebuilt by formula from its metadata
//! ([`FormulaWeights`](crate::model::FormulaWeights), [`uniform`](crate::model::weights::uniform)). Three kinds are
//! known by what they hold: `logits` (a forward pass), `grad.*` (a training step) and `frames` with `clip`
//! (preparation of frames).

mod check;
mod file;
mod fixtures;
mod forward;
mod gradients;
mod kernels;
mod preprocess;

pub use check::{Check, Measure, Tolerance};
pub use file::{GoldenFile, Kind};
pub use fixtures::{FIXTURES, Fixture};
pub use kernels::kernels;

use crate::error::Result;
use candle_core::{DType, Device};
use std::path::Path;

/// What to run the checks with.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Where the model runs.
    pub device: Device,
    /// Type of weights and activations.
    pub precision: DType,
    /// What runs a forward pass.
    pub engine: Engine,
}

impl Setting {
    /// Type of the tensors that a model is built from: the executor rounds by itself.
    fn weights(&self) -> DType {
        match self.engine {
            Engine::Plain => self.precision,
            Engine::Executor => DType::F32,
        }
    }
}

/// Which of the two forward passes is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// The plain one, on Candle tensors.
    #[default]
    Plain,
    /// The executor, on the CPU.
    Executor,
}

/// Runs whatever `file` asks for; `None` for kinds that this build cannot check yet.
///
/// # Errors
/// Metadata that is missing or out of bounds, or a failure of the run itself. A wrong result is no error: it is
/// in the check.
pub fn run(file: &GoldenFile, setting: &Setting) -> Result<Option<Check>> {
    match file.kind() {
        Kind::Forward => forward::run(file, setting).map(Some),
        Kind::Preprocess => preprocess::run(file).map(Some),
        // Training keeps weights and gradients in float32; so do the references of a step.
        Kind::Gradients if setting.precision != DType::F32 => Ok(None),
        Kind::Gradients => gradients::run(file, setting).map(Some),
    }
}

/// Runs the forward pass of `file` with weights read from the original software's two checkpoints.
///
/// # Errors
/// As [`run`], and checkpoints that cannot be read or do not fit.
pub fn run_pair(file: &GoldenFile, sam: &Path, masam: &Path, setting: &Setting) -> Result<Check> {
    forward::run_pair(file, sam, masam, setting)
}
