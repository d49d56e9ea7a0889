//! From a buffer to a [`Picture`]: planes, strides, crop and fields as GStreamer's metas and caps say.
//!
//! A buffer that is smaller than its caps or its meta claim is an error here, not a fault.

use crate::error::{Error, Result};
use crate::geometry::{Rect, Size};
use crate::gst::planes::{Layout, pixel_format};
use crate::kernels::picture::convert::{ColorSpace, Matrix, Picture, PixelFormat, PlaneRef, Range};
use gst_video::video_frame::VideoBufferExt;
use gstreamer as gst;
use gstreamer_video as gst_video;

/// What the caps say about pictures.
#[derive(Debug, Clone)]
pub(super) struct Format {
    pub info: gst_video::VideoInfo,
    pub pixels: PixelFormat,
    pub size: Size,
    pub colors: ColorSpace,
}

impl Format {
    /// Reads caps.
    ///
    /// # Errors
    /// Caps that are no raw video of ours, a frame that is too large, or fields that are not interleaved.
    pub fn from_caps(caps: &gst::CapsRef) -> Result<Self> {
        let wrong = |bound: &str| Error::config("caps", caps.to_string(), bound);
        let info = gst_video::VideoInfo::from_caps(caps).map_err(|_| wrong("they have to be raw video"))?;
        let pixels = pixel_format(info.format()).ok_or_else(|| wrong("this pixel format is not taken"))?;
        let size = Size::checked(info.width(), info.height())?;
        use gst_video::VideoInterlaceMode as Interlace;
        if !matches!(
            info.interlace_mode(),
            Interlace::Progressive | Interlace::Interleaved | Interlace::Mixed
        ) {
            return Err(Error::config(
                "interlace-mode",
                info.interlace_mode().to_str(),
                "it has to be progressive, interleaved or mixed; put a deinterlacer in front",
            ));
        }
        Ok(Self {
            colors: color_space(&info),
            info,
            pixels,
            size,
        })
    }

    /// Time between two frames; `None` where the caps name no rate.
    pub fn frame_nanos(&self) -> Option<u64> {
        let fps = self.info.fps();
        let (frames, seconds) = (u64::try_from(fps.numer()).ok()?, u64::try_from(fps.denom()).ok()?);
        (frames > 0 && seconds > 0).then(|| seconds.saturating_mul(1_000_000_000) / frames)
    }

    /// Which field of `buffer` came first, where it holds two.
    fn first_field(&self, buffer: &gst::BufferRef) -> Option<Field> {
        use gst_video::VideoInterlaceMode as Interlace;
        let flags = buffer.video_flags();
        let interlaced = match self.info.interlace_mode() {
            Interlace::Interleaved => true,
            Interlace::Mixed => flags.contains(gst_video::VideoBufferFlags::INTERLACED),
            _ => false,
        };
        let top_first = match self.info.field_order() {
            gst_video::VideoFieldOrder::TopFieldFirst => true,
            gst_video::VideoFieldOrder::BottomFieldFirst => false,
            _ => flags.contains(gst_video::VideoBufferFlags::TFF),
        };
        interlaced.then_some(if top_first { Field::Top } else { Field::Bottom })
    }

    /// Hands the picture in `buffer` and `region` of it, in the picture's own rows and columns, to `look`. Of an
    /// interlaced picture that is the field that came first: the other shows a later moment.
    ///
    /// # Errors
    /// A buffer that does not hold such a picture, or what `look` gives.
    pub fn with_picture<R>(
        &self,
        buffer: &gst::BufferRef,
        region: Rect,
        look: impl FnOnce(&Picture<'_>, Rect) -> Result<R>,
    ) -> Result<R> {
        self.with_frame(buffer, region, |picture, region| match self.first_field(buffer) {
            Some(field) if picture.size().height_px > 1 => {
                let picture = picture.field(field == Field::Bottom);
                look(&picture, field_region(region, picture.size()))
            }
            _ => look(picture, region),
        })
    }

    /// As [`Self::with_picture`], but all rows of it, whatever moments they show.
    ///
    /// # Errors
    /// The same.
    pub fn with_frame<R>(
        &self,
        buffer: &gst::BufferRef,
        region: Rect,
        look: impl FnOnce(&Picture<'_>, Rect) -> Result<R>,
    ) -> Result<R> {
        let layout = Layout::of(buffer, &self.info)?;
        let mapped = layout.map(buffer, self.pixels)?;
        let planes = [0, 1, 2].map(|plane| PlaneRef {
            data: mapped.plane(plane),
            stride_bytes: layout.strides_bytes[plane],
        });
        let planes = planes.get(..self.pixels.planes()).unwrap_or_default();
        let picture = Picture::new(self.pixels, layout.size, planes, self.colors)?;
        let region = Rect {
            x_px: region.x_px + layout.x_px,
            y_px: region.y_px + layout.y_px,
            ..region
        };
        look(&picture, region)
    }
}

/// A field of an interlaced picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Top,
    Bottom,
}

/// The rows of one field that `region` covers: at least one.
fn field_region(region: Rect, field: Size) -> Rect {
    let y_px = (region.y_px / 2).min(field.height_px - 1);
    let height_px = (region.height_px / 2).clamp(1, field.height_px - y_px);
    Rect {
        y_px,
        height_px,
        ..region
    }
}

/// GStreamer fills in a default by format and size where caps say nothing.
fn color_space(info: &gst_video::VideoInfo) -> ColorSpace {
    use gst_video::VideoColorMatrix as M;
    let matrix = match info.colorimetry().matrix() {
        M::Bt709 => Matrix::BT709,
        M::Bt2020 => Matrix::BT2020,
        M::Smpte240m => Matrix::SMPTE240M,
        M::Fcc => Matrix::FCC,
        _ => Matrix::BT601,
    };
    let range = match info.colorimetry().range() {
        gst_video::VideoColorRange::Range16_235 => Range::Limited,
        _ => Range::Full,
    };
    ColorSpace { matrix, range }
}
