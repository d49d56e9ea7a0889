//! Scores on plain slices of class ids; no tensors.

pub mod confusion;

pub use confusion::Confusion;
