//! MA-SAM for endoscope video: frames in, a mask of instruments and anatomy for each frame out.
//!
//! [`Predictor`] is the front door: it opens a model file, and does with frames what the file says.
//!
//! ```
//! use masam::{Predictor, RgbFrame};
//!
//! let mut predictor = Predictor::open("weights/demo.safetensors")?;
//! let bytes = vec![0_u8; 240 * 320 * 3]; // [height, width, 3], from a camera or a decoder
//! let frame = RgbFrame { bytes: &bytes, width_px: 320, height_px: 240 };
//! if let Some(mask) = predictor.push(frame)? {
//!     assert_eq!(mask.ids.dimensions(), (320, 240)); // [height, width] class ids
//! }
//! # Ok::<(), masam::Error>(())
//! ```
//!
//! Below it, each usable alone:
//!
//! | module | |
//! |---|---|
//! | [`model`] | the paper's figure, a file for each part, on Candle's tensors |
//! | [`runtime`] | models that run, on the CPU through an executor of their own, or on a CUDA device |
//! | [`stream`] | the sliding window: which frames make a clip, live or exact |
//! | [`segmenter`] | the trait between the two |
//! | [`checkpoint`] | model files, and SAM's and MA-SAM's checkpoints in and out |
//! | [`data`], [`metrics`], [`train`] | data sets, scores, training |
//! | [`kernels`], [`geometry`], [`labels`], [`prompt`] | pictures, products, regions, classes, prompts |
//! | `gst` (feature) | the GStreamer elements and the mask meta |
//! | `cli` (feature) | the program |
//!
//! Without default features the crate needs no system packages. The repository's README has the program, the elements and
//! the numbers.

pub mod checkpoint;
#[cfg(all(feature = "cli", feature = "gst"))]
pub mod cli;
pub mod data;
pub mod error;
#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod fences;
pub mod geometry;
pub mod golden;
#[cfg(feature = "gst")]
pub mod gst;
pub mod kernels;
pub mod labels;
pub mod metrics;
pub mod model;
mod predictor;
mod priority;
pub mod prompt;
pub mod pulse;
pub mod runtime;
pub mod segmenter;
pub mod stream;
pub mod train;

pub use error::{Error, Result};

/// Names this build: 16 hexadecimal digits, the same for a program and a plugin that were built from the same sources for
/// the same kind of device.
pub const BUILD: &str = env!("MASAM_BUILD");
/// The version of `image` whose pictures are taken and returned.
pub use image;
pub use predictor::{AsRgbFrame, FrameMask, Masks, Predictor, PredictorConfig, RgbFrame};
