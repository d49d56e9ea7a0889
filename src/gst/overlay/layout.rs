//! From GStreamer's description of a frame to ours.

use crate::geometry::{MAX_FRAME_SIDE_PX, Size};
use crate::kernels::picture::blend::Pass;
use crate::kernels::picture::blend_color::{ColorSpace, Range};
use crate::kernels::picture::blend_layer::ChromaRows;
use crate::kernels::picture::blend_sheet::FrameLayout;
use crate::{Error, Result};
use gst_video::{VideoColorMatrix, VideoColorRange, VideoFormat, VideoInfo, VideoInterlaceMode};
use gstreamer as gst;
use gstreamer_video as gst_video;

/// Frames of these formats, of any size that [`Size::checked`] allows.
pub(crate) fn video_caps(formats: impl IntoIterator<Item = VideoFormat>) -> gst::Caps {
    let side_px = 1..=MAX_FRAME_SIDE_PX as i32;
    let caps = gst_video::VideoCapsBuilder::new().format_list(formats);
    caps.width_range(side_px.clone()).height_range(side_px).build()
}

/// Frames this high and higher are BT.709 when their caps do not say.
const HD_HEIGHT_PX: u32 = 720;

/// The layout of frames described by `info`.
///
/// # Errors
/// A format that is not one of [`crate::gst::planes::FORMATS`], or a size beyond [`Size::checked`].
pub(crate) fn layout_of(info: &VideoInfo) -> Result<FrameLayout> {
    let size = Size::checked(info.width(), info.height())?;
    let passes = match info.format() {
        VideoFormat::Nv12 => Pass::NV12,
        VideoFormat::I420 => Pass::I420,
        VideoFormat::Yuy2 => Pass::YUY2,
        VideoFormat::Uyvy => Pass::UYVY,
        VideoFormat::Rgb => Pass::RGB,
        VideoFormat::Bgr => Pass::BGR,
        VideoFormat::Rgba | VideoFormat::Rgbx => Pass::RGBX,
        VideoFormat::Bgra | VideoFormat::Bgrx => Pass::BGRX,
        VideoFormat::Gray8 => Pass::GRAY,
        other => {
            return Err(Error::config(
                "format",
                other,
                "it has to be one of the element's formats",
            ));
        }
    };
    let interleaved = info.interlace_mode() != VideoInterlaceMode::Progressive;
    let chroma_rows = match info.format() {
        VideoFormat::Yuy2 | VideoFormat::Uyvy => ChromaRows::Each,
        _ if interleaved => ChromaRows::FieldPairs,
        _ => ChromaRows::Pairs,
    };
    let colorimetry = info.colorimetry();
    let is_rgb = info.is_rgb();
    let range = match colorimetry.range() {
        VideoColorRange::Range0_255 => Range::Full,
        VideoColorRange::Range16_235 => Range::Limited,
        _ if is_rgb => Range::Full,
        _ => Range::Limited,
    };
    let space = if is_rgb {
        ColorSpace::rgb(range)
    } else {
        let fallback = || {
            let hd = size.height_px >= HD_HEIGHT_PX;
            if hd {
                VideoColorMatrix::Bt709.kr_kb()
            } else {
                VideoColorMatrix::Bt601.kr_kb()
            }
        };
        let (kr, kb) = colorimetry
            .matrix()
            .kr_kb()
            .or_else(|_| fallback())
            .unwrap_or((0.299, 0.114));
        ColorSpace::yuv(kr as f32, kb as f32, range)
    };
    Ok(FrameLayout {
        size,
        passes,
        chroma_rows,
        space,
    })
}
