//! From a frame to the model's square: the one preparation of frames that elements and programs share.

use crate::error::Result;
use crate::geometry::{ModelSquare, Orientation, Rect, Size};
use crate::kernels::picture::convert::Picture;
use crate::kernels::picture::resize::AreaResizer;
use crate::kernels::picture::resize_reference::resize_reference;
use crate::segmenter::{ModelFrame, Resize, SegmenterSpec};
use std::sync::Arc;

/// Stretches regions of frames to squares; keeps the tables of the resize between frames.
#[derive(Debug, Clone)]
pub struct Squarer {
    side_px: u32,
    resize: Resize,
    orientation: Orientation,
    resizer: Option<AreaResizer>,
}

impl Squarer {
    /// What `region` of a frame becomes: the way between the frame's pixels and the square's.
    pub fn model_square(&self, region: Rect) -> ModelSquare {
        ModelSquare {
            region,
            side_px: self.side_px,
            orientation: self.orientation,
            alignment: self.resize.alignment(),
        }
    }

    /// For squares of `side_px`, made and turned as said.
    pub fn new(side_px: u32, resize: Resize, orientation: Orientation) -> Self {
        Self {
            side_px,
            resize,
            orientation,
            resizer: None,
        }
    }

    /// As a model wants its frames.
    pub fn of(spec: &SegmenterSpec) -> Self {
        Self::new(spec.side_px, spec.resize, spec.orientation)
    }

    /// `region` of `picture` as the model's square.
    ///
    /// # Errors
    /// A region outside the picture, or a side out of bounds.
    pub fn square(&mut self, picture: &Picture<'_>, region: Rect) -> Result<ModelFrame> {
        let bytes = Size::square(self.side_px).area() * 3;
        let mut rgb: Arc<[u8]> = std::iter::repeat_n(0, bytes).collect();
        // Nobody else has it yet.
        if let Some(square) = Arc::get_mut(&mut rgb) {
            match self.resize {
                Resize::Reference => {
                    resize_reference(picture, region, self.side_px, self.orientation, square)?;
                }
                Resize::Area => {
                    let resizer = match &mut self.resizer {
                        Some(resizer) if resizer.region() == region.size() => resizer,
                        slot => slot.insert(AreaResizer::new(region.size(), self.side_px)?),
                    };
                    resizer.resize(picture, region, self.orientation, square)?;
                }
            }
        }
        Ok(ModelFrame { rgb })
    }
}
