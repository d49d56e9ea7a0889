//! Where frames and labels come from.

pub mod phantom;
