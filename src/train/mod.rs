//! What training is made of: losses, trainable parameters, and an optimiser whose state is open.
//!
//! Gradients go through the plain forward of [`model`](crate::model) with FacT's factors apart where the projections are frozen. Candle's own
//! generator cannot be seeded on the CPU and its AdamW hides its moments, so neither is used.

pub mod augment;
pub mod batches;
pub mod config;
pub mod curves;
pub mod events;
pub mod folder;
pub mod footage;
pub mod gradients;
pub mod groups;
pub mod initial;
pub mod log;
pub mod loss;
mod loss_kernel;
pub mod muon;
pub mod optimizer;
pub mod parameters;
pub mod schedule;
mod state;
pub mod trainer;

pub use config::TrainConfig;
pub use footage::Footage;
pub use loss::{LossConfig, Losses, losses, losses_with};
pub use optimizer::{AdamW, AdamWConfig, Rule};
pub use parameters::{Parameters, Trained};
pub use trainer::{Step, TakenOver, Trainer};
