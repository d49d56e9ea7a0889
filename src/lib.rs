#![doc = include_str!("../README.md")]

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
