//! Frames as a program has them: RGB bytes.

use crate::error::{Error, Result};
use crate::geometry::Size;
use crate::kernels::picture::convert::{ColorSpace, Picture, PixelFormat, PlaneRef};
use image::RgbImage;

/// A borrowed frame: `[height, width, 3]` bytes, row by row without padding, red first, full range sRGB.
///
/// ```
/// use masam::RgbFrame;
/// let bytes = vec![0_u8; 480 * 640 * 3];
/// let frame = RgbFrame { bytes: &bytes, width_px: 640, height_px: 480 };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RgbFrame<'a> {
    /// `height_px * width_px * 3` bytes.
    pub bytes: &'a [u8],
    /// Pixels in a row, 1 to [`MAX_FRAME_SIDE_PX`](crate::geometry::MAX_FRAME_SIDE_PX).
    pub width_px: u32,
    /// Rows, in the same bounds.
    pub height_px: u32,
}

impl<'a> RgbFrame<'a> {
    /// The same as the kernels read it.
    ///
    /// # Errors
    /// A size outside its bounds, or bytes that are not as many as it has.
    pub(crate) fn picture(&self) -> Result<Picture<'a>> {
        let size = Size::checked(self.width_px, self.height_px)?;
        let needed = size.area() * 3;
        if self.bytes.len() != needed {
            let (width, height) = (size.width_px, size.height_px);
            let bound = format!("{width} x {height} pixels of RGB have to be {needed} bytes");
            return Err(Error::config(
                "frame",
                format!("{} bytes", self.bytes.len()),
                bound,
            ));
        }
        let plane = PlaneRef {
            data: self.bytes,
            stride_bytes: size.width_px as usize * 3,
        };
        Picture::new(PixelFormat::Rgb, size, &[plane], ColorSpace::RGB)
    }
}

/// Everything that can be shown to a [`Predictor`](crate::Predictor) as a frame.
pub trait AsRgbFrame {
    /// Its pixels.
    fn as_rgb_frame(&self) -> RgbFrame<'_>;
}

impl AsRgbFrame for RgbFrame<'_> {
    fn as_rgb_frame(&self) -> RgbFrame<'_> {
        *self
    }
}

impl AsRgbFrame for RgbImage {
    fn as_rgb_frame(&self) -> RgbFrame<'_> {
        RgbFrame {
            bytes: self.as_raw(),
            width_px: self.width(),
            height_px: self.height(),
        }
    }
}

impl<T: AsRgbFrame + ?Sized> AsRgbFrame for &T {
    fn as_rgb_frame(&self) -> RgbFrame<'_> {
        (**self).as_rgb_frame()
    }
}
