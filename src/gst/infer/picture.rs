//! From a buffer to a [`Picture`]: planes, strides, crop and fields as GStreamer's metas and caps say.
//!
//! Memory is mapped plane by plane, and every offset is checked against what was mapped: a buffer that is smaller
//! than its caps or its meta claim is an error here, not a fault.

use crate::error::{Error, Result};
use crate::geometry::{Rect, Size};
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
        let layout = Layout::of(buffer, self)?;
        let count = self.pixels.planes();
        let mut maps: [Option<(Mapped<'_>, usize)>; 3] = [None, None, None];
        for (plane, slot) in maps.iter_mut().enumerate().take(count) {
            *slot = Some(layout.map(buffer, self.pixels, plane)?);
        }
        let mut planes = [PlaneRef {
            data: &[],
            stride_bytes: 0,
        }; 3];
        for ((plane, stride_bytes), map) in planes.iter_mut().zip(layout.strides).zip(&maps) {
            let data = map.as_ref().and_then(|(map, skip)| map.as_slice().get(*skip..));
            *plane = PlaneRef {
                data: data.unwrap_or_default(),
                stride_bytes,
            };
        }
        let planes = planes.get(..count).unwrap_or_default();
        let picture = Picture::new(self.pixels, layout.size, planes, self.colors)?;
        let region = Rect {
            x_px: region.x_px + layout.x_px,
            y_px: region.y_px + layout.y_px,
            ..region
        };
        match self.first_field(buffer) {
            Some(field) if layout.size.height_px > 1 => {
                let picture = picture.field(field == Field::Bottom);
                look(&picture, field_region(region, picture.size()))
            }
            _ => look(&picture, region),
        }
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

/// Where the planes of a buffer lie.
struct Layout {
    /// Size of the picture in memory: larger than the frame where a crop meta says so.
    size: Size,
    /// Where the frame begins in it.
    x_px: u32,
    y_px: u32,
    offsets: [usize; 3],
    strides: [usize; 3],
}

impl Layout {
    fn of(buffer: &gst::BufferRef, format: &Format) -> Result<Self> {
        let mut layout = match buffer.meta::<gst_video::VideoMeta>() {
            Some(meta) => {
                if meta.format() != format.info.format() {
                    let bound = format!("the caps say {}", format.info.format());
                    return Err(Error::config("format of the video meta", meta.format(), bound));
                }
                let size = Size::checked(meta.width(), meta.height())?;
                Self::new(size, meta.offset(), meta.stride())?
            }
            None => Self::new(format.size, format.info.offset(), format.info.stride())?,
        };
        if let Some(crop) = buffer.meta::<gst_video::VideoCropMeta>() {
            (layout.x_px, layout.y_px, _, _) = crop.rect();
        }
        let frame = Rect {
            x_px: layout.x_px,
            y_px: layout.y_px,
            ..format.size.rect()
        };
        if !frame.fits(layout.size) {
            let bound = format!("the caps say {}x{}", format.size.width_px, format.size.height_px);
            let found = format!("{}x{}, {frame:?}", layout.size.width_px, layout.size.height_px);
            return Err(Error::config("picture of the video meta", found, bound));
        }
        Ok(layout)
    }

    fn new(size: Size, offsets: &[usize], strides: &[i32]) -> Result<Self> {
        let mut layout = Self {
            size,
            x_px: 0,
            y_px: 0,
            offsets: [0; 3],
            strides: [0; 3],
        };
        for (slot, &offset) in layout.offsets.iter_mut().zip(offsets) {
            *slot = offset;
        }
        for (slot, &stride) in layout.strides.iter_mut().zip(strides) {
            *slot = usize::try_from(stride)
                .map_err(|_| Error::config("stride", stride, "pictures stored bottom up are not taken"))?;
        }
        Ok(layout)
    }

    /// Maps the memory that holds a plane; the plane begins at the offset returned beside it.
    fn map<'b>(
        &self,
        buffer: &'b gst::BufferRef,
        pixels: PixelFormat,
        plane: usize,
    ) -> Result<(Mapped<'b>, usize)> {
        let offset = self.offsets[plane];
        if buffer.n_memory() > 1 {
            // Planes in memories of their own, as cameras and decoders give them: mapping the whole buffer would
            // merge them in a copy.
            let (row_bytes, rows) = pixels.plane_bytes(plane, self.size);
            let bytes = (rows - 1)
                .saturating_mul(self.strides[plane])
                .saturating_add(row_bytes);
            let range = offset..offset.saturating_add(bytes);
            if let Some((memories, skip)) = buffer.find_memory(range)
                && memories.len() == 1
            {
                let map = buffer.peek_memory(memories.start).map_readable();
                let map =
                    map.map_err(|_| Error::config("buffer", "not mappable", "it has to be readable"))?;
                return Ok((Mapped::Memory(map), skip));
            }
        }
        let map = buffer.map_readable();
        let map = map.map_err(|_| Error::config("buffer", "not mappable", "it has to be readable"))?;
        Ok((Mapped::Buffer(map), offset))
    }
}

/// A readable map of one memory or of a whole buffer.
enum Mapped<'b> {
    Memory(gst::MemoryMap<'b, gst::memory::Readable>),
    Buffer(gst::BufferMap<'b, gst::buffer::Readable>),
}

impl Mapped<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Mapped::Memory(map) => map.as_slice(),
            Mapped::Buffer(map) => map.as_slice(),
        }
    }
}

/// GStreamer's formats that we take.
pub(super) const FORMATS: [gst_video::VideoFormat; 11] = [
    gst_video::VideoFormat::Nv12,
    gst_video::VideoFormat::I420,
    gst_video::VideoFormat::Yuy2,
    gst_video::VideoFormat::Uyvy,
    gst_video::VideoFormat::Rgb,
    gst_video::VideoFormat::Bgr,
    gst_video::VideoFormat::Rgba,
    gst_video::VideoFormat::Bgra,
    gst_video::VideoFormat::Rgbx,
    gst_video::VideoFormat::Bgrx,
    gst_video::VideoFormat::Gray8,
];

fn pixel_format(format: gst_video::VideoFormat) -> Option<PixelFormat> {
    FORMATS
        .iter()
        .position(|&f| f == format)
        .and_then(|index| PixelFormat::ALL.get(index).copied())
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
