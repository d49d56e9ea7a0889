//! Pictures: reading video frames as RGB, bringing them to the model's square, and drawing on them.

mod axis;
pub mod blend;
pub mod blend_color;
pub mod blend_layer;
pub mod blend_sheet;
pub mod contour;
pub mod convert;
mod convert_rows;
mod planes;
pub mod region;
pub mod resize;
pub mod resize_reference;
#[cfg(test)]
mod resize_tests;
mod samples;
pub mod text;
pub mod text_canvas;
mod text_glyphs;
