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
    /// Squares given out: those that nobody holds any more are written anew instead of taking memory for each frame.
    given: Vec<Arc<[u8]>>,
}

/// Most squares remembered: more than a live clip and those under way hold.
const MOST_GIVEN: usize = 128;

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
            given: Vec::new(),
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
        let mut rgb = self.blank();
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
        if self.given.len() < MOST_GIVEN {
            self.given.push(Arc::clone(&rgb));
        }
        Ok(ModelFrame { rgb })
    }

    /// A square that nobody else holds, with anything in it.
    fn blank(&mut self) -> Arc<[u8]> {
        match self
            .given
            .iter_mut()
            .position(|square| Arc::get_mut(square).is_some())
        {
            Some(free) => self.given.swap_remove(free),
            None => {
                let bytes = Size::square(self.side_px).area() * 3;
                std::iter::repeat_n(0, bytes).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::picture::convert::{ColorSpace, PixelFormat, PlaneRef};

    #[test]
    fn a_square_is_used_again_when_nobody_holds_it() {
        let mut squarer = Squarer::new(2, Resize::Area, Orientation::Upright);
        let mut of = |byte: u8| {
            let data = [byte; 12];
            let plane = PlaneRef {
                data: &data,
                stride_bytes: 6,
            };
            let size = Size::square(2);
            let picture = Picture::new(PixelFormat::Rgb, size, &[plane], ColorSpace::RGB).unwrap();
            squarer.square(&picture, size.rect()).unwrap()
        };
        let (first, second) = (of(1), of(2));
        let address = first.rgb.as_ptr();
        assert_ne!(address, second.rgb.as_ptr());
        assert_eq!((&*first.rgb, &*second.rgb), (&[1; 12][..], &[2; 12][..]));
        drop(first);
        let third = of(3);
        assert_eq!((third.rgb.as_ptr(), &*third.rgb), (address, &[3; 12][..]));
        assert_eq!(*second.rgb, [2; 12], "what is held stays");
    }
}
