//! MA-SAM as plain operations on Candle tensors: the reference for every faster path, and what is trained.
//!
//! One file per part of the paper's figure, in the order data flows:
//! ```text
//! clip -> image_encoder (attention, fact, temporal_adapter) -> features
//! prompts -> prompt_encoder -> tokens        features + tokens -> mask_decoder (transformer) -> logits
//! ```

pub mod attention;
#[cfg(test)]
mod card_ways;
pub mod causal;
pub mod config;
pub mod fact;
pub mod image_encoder;
pub mod layers;
pub mod masam;
pub mod mask_decoder;
mod memory;
pub mod operations;
pub mod prompt_encoder;
pub mod resize;
pub mod temporal_adapter;
pub mod transformer;
pub mod weights;

pub use causal::CausalState;
pub use config::{Adapters, Decoder, ModelConfig};
pub use masam::{FactMode, MaSam, Observer, Output};
pub use operations::Operations;
pub use prompt_encoder::Prompts;
pub use weights::{FormulaWeights, Part, WeightSpec};
