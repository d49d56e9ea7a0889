//! A frame's mask at the frame's own size.

use crate::geometry::Rect;
use crate::labels::ClassSet;
use image::{GrayImage, Rgb, RgbImage};
use std::sync::Arc;

/// The class of each pixel of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameMask {
    /// Index of the frame in its sequence, from 0.
    pub frame: u64,
    /// Class ids, `[height, width]` bytes as large as the frame: each pixel has the class of the model's pixel that its
    /// center lies in. [`NO_MASK`](crate::labels::NO_MASK) (255) outside `region`.
    pub ids: GrayImage,
    /// The part of the frame that the model saw, in pixels.
    pub region: Rect,
    /// Names and colors of the classes, in the order of their ids.
    pub classes: Arc<ClassSet>,
}

impl FrameMask {
    /// Pixels of each class, in the order of the ids.
    pub fn areas_px(&self) -> Vec<usize> {
        let mut areas = vec![0; self.classes.len()];
        for &id in self.ids.as_raw() {
            if let Some(area) = areas.get_mut(usize::from(id)) {
                *area += 1;
            }
        }
        areas
    }

    /// The mask in the colors of its classes, as large as the frame; black where there is no mask.
    pub fn colors(&self) -> RgbImage {
        let color = |id: u8| self.classes.get(id).map_or([0; 3], |class| class.color);
        RgbImage::from_fn(self.ids.width(), self.ids.height(), |x, y| {
            Rgb(color(self.ids.get_pixel(x, y).0[0]))
        })
    }
}
