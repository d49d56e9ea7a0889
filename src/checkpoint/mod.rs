//! Weights on disk: what people have (SAM's and MA-SAM's `.pth`, or either as safetensors), and our model file.
//!
//! ```text
//! sam.pth ----\                                         /--> model.safetensors (weights + model card)
//!              source (select, names, kind) -> adopt ----
//! epoch_N.pth-/                                         \--> original names again (names, pth)
//! ```
//! Nothing in a file is trusted: sizes are checked before memory is taken, no code from a pickle runs, and every
//! error names the file and the tensor, key or offset in it.

pub mod adopt;
pub mod card;
pub mod card_file;
pub(crate) mod format;
pub mod kind;
pub mod model_file;
pub mod names;
pub mod pickle;
pub mod pth;
pub(crate) mod regular_file;
pub mod select;
pub mod source;
pub mod weights;

pub use card::{ModelCard, Preprocessing, Provenance, Source};
pub use card_file::CardFile;
pub use kind::Kind;
pub use model_file::ModelFile;
pub use select::Selection;
pub use source::Checkpoint;
pub use weights::Weights;
