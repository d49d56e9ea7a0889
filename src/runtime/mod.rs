//! Models that run: a [`Segmenter`] over Candle on CPU or CUDA.
//!
//! ```no_run
//! use masam::runtime::{self, OpenOptions};
//! let segmenter = runtime::open("model.safetensors".as_ref(), &OpenOptions::default())?;
//! println!("{} on {}", segmenter.spec().model_id, segmenter.spec().device);
//! # Ok::<(), masam::Error>(())
//! ```

mod card;
mod clip;
mod device;
mod executed;
pub mod executor;
mod on_card;
mod plain;
mod prompt;
mod recording;
mod segmenter;
mod staging;
pub(crate) mod thread_pool;

pub use clip::tensor_of;
pub use device::{DeviceChoice, Place, PrecisionChoice};
pub use recording::Recording;
pub use segmenter::{CLIP_FRAMES, ModelSegmenter};

use crate::checkpoint::ModelFile;
use crate::error::Result;
use crate::segmenter::Segmenter;
use std::path::Path;

/// How a model is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// Where.
    pub device: DeviceChoice,
    /// In which type.
    pub precision: PrecisionChoice,
    /// CPU threads of the model's own pool; `None` for one per core.
    pub threads: Option<usize>,
}

/// Reads a model file and makes it ready to run.
///
/// # Errors
/// A file that [`ModelFile::read`] refuses, or a device or precision that this machine or build lacks.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Box<dyn Segmenter>> {
    let place = Place::choose(&options.device, options.precision)?;
    Ok(Box::new(ModelSegmenter::new(
        ModelFile::read(path)?,
        place,
        options.threads,
    )?))
}
