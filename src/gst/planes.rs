//! Where the planes of a buffer lie, and their bytes: what `masaminfer` reads and `masamoverlay` writes.
//!
//! Caps and metas come from neighbours. Memory is mapped plane by plane, and every offset is held against what was
//! mapped: GStreamer's own frame map takes a meta's offsets and strides on trust.

use crate::error::{Error, Result};
use crate::geometry::{Rect, Size};
use crate::kernels::picture::convert::PixelFormat;
use gstreamer as gst;
use gstreamer_video as gst_video;
use std::ops::Range;

/// GStreamer's formats that we take.
pub(crate) const FORMATS: [gst_video::VideoFormat; 11] = [
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

/// The format in our words; `None` where it is not one of [`FORMATS`].
pub(crate) fn pixel_format(format: gst_video::VideoFormat) -> Option<PixelFormat> {
    FORMATS
        .iter()
        .position(|&f| f == format)
        .and_then(|index| PixelFormat::ALL.get(index).copied())
}

/// Where the planes of a buffer lie.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Size of the picture in memory: larger than the frame where a crop meta says so.
    pub size: Size,
    /// Where the frame begins in it.
    pub x_px: u32,
    /// As `x_px`, downwards.
    pub y_px: u32,
    /// From one row to the next.
    pub strides_bytes: [usize; 3],
    offsets: [usize; 3],
}

impl Layout {
    /// The layout of `buffer`, whose caps are `info`: from its metas, or else from the caps.
    ///
    /// # Errors
    /// A meta of another format, a picture that does not hold the frame, or rows stored bottom up.
    pub fn of(buffer: &gst::BufferRef, info: &gst_video::VideoInfo) -> Result<Self> {
        let size = Size::checked(info.width(), info.height())?;
        let mut layout = match buffer.meta::<gst_video::VideoMeta>() {
            Some(meta) => {
                if meta.format() != info.format() {
                    let bound = format!("the caps say {}", info.format());
                    return Err(Error::config("format of the video meta", meta.format(), bound));
                }
                let size = Size::checked(meta.width(), meta.height())?;
                Self::new(size, meta.offset(), meta.stride())?
            }
            None => Self::new(size, info.offset(), info.stride())?,
        };
        if let Some(crop) = buffer.meta::<gst_video::VideoCropMeta>() {
            (layout.x_px, layout.y_px, _, _) = crop.rect();
        }
        let frame = Rect {
            x_px: layout.x_px,
            y_px: layout.y_px,
            ..size.rect()
        };
        if !frame.fits(layout.size) {
            let bound = format!("the caps say {}x{}", size.width_px, size.height_px);
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
            strides_bytes: [0; 3],
        };
        for (slot, &offset) in layout.offsets.iter_mut().zip(offsets) {
            *slot = offset;
        }
        for (slot, &stride) in layout.strides_bytes.iter_mut().zip(strides) {
            *slot = usize::try_from(stride)
                .map_err(|_| Error::config("stride", stride, "pictures stored bottom up are not taken"))?;
        }
        Ok(layout)
    }

    /// The bytes of a plane within the buffer; saturating, and so outside of any buffer where there is no such plane.
    fn range(&self, pixels: PixelFormat, plane: usize) -> Range<usize> {
        let (row_bytes, rows) = pixels.plane_bytes(plane, self.size);
        let bytes = (rows - 1)
            .saturating_mul(self.strides_bytes[plane])
            .saturating_add(row_bytes);
        let offset = self.offsets[plane];
        offset..offset.saturating_add(bytes)
    }

    /// Maps the planes for reading.
    ///
    /// # Errors
    /// Memory that cannot be mapped.
    pub fn map<'b>(&self, buffer: &'b gst::BufferRef, pixels: PixelFormat) -> Result<Mapped<'b>> {
        let fail = |_| Error::config("buffer", "not mappable", "it has to be readable");
        let mut mapped = Mapped {
            whole: None,
            each: [None, None, None],
            starts: self.offsets,
        };
        // Planes in memories of their own, as cameras and decoders give them: mapping the whole buffer would merge
        // them in a copy. It is one or the other: merging frees memories, those that are mapped too.
        let mut found = [(0, 0); 3];
        let mut apart = buffer.n_memory() > 1;
        for (plane, slot) in found.iter_mut().enumerate().take(pixels.planes()) {
            match buffer.find_memory(self.range(pixels, plane)) {
                Some((memories, skip)) if memories.len() == 1 => *slot = (memories.start, skip),
                _ => apart = false,
            }
        }
        if !apart {
            mapped.whole = Some(buffer.map_readable().map_err(fail)?);
            return Ok(mapped);
        }
        for (plane, (memory, skip)) in found.into_iter().enumerate().take(pixels.planes()) {
            mapped.each[plane] = Some(buffer.peek_memory(memory).map_readable().map_err(fail)?);
            mapped.starts[plane] = skip;
        }
        Ok(mapped)
    }

    /// Whether `buffer` holds all planes.
    ///
    /// # Errors
    /// The first plane that it does not hold.
    pub fn check(&self, buffer: &gst::BufferRef, pixels: PixelFormat) -> Result<()> {
        let held = buffer.size();
        let mut ranges = (0..pixels.planes()).map(|plane| (plane, self.range(pixels, plane)));
        match ranges.find(|(_, range)| range.end > held) {
            Some((plane, range)) => Err(outside(plane, &range, held)),
            None => Ok(()),
        }
    }

    /// Hands the bytes of a plane, from its first to its last, to `write`.
    ///
    /// # Errors
    /// A buffer that does not hold the plane, or memory that cannot be mapped.
    pub fn write(
        &self,
        buffer: &mut gst::BufferRef,
        pixels: PixelFormat,
        plane: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<()> {
        let fail = |_| Error::config("buffer", "not mappable", "it has to be writable");
        let range = self.range(pixels, plane);
        let (mut map, start) = match buffer.find_memory(range.clone()) {
            Some((memories, skip)) if memories.len() == 1 => {
                (buffer.map_range_writable(memories).map_err(fail)?, skip)
            }
            _ => (buffer.map_writable().map_err(fail)?, range.start),
        };
        let held = map.len();
        let bytes = map.get_mut(start..start.saturating_add(range.len()));
        write(bytes.ok_or_else(|| outside(plane, &range, held))?);
        Ok(())
    }
}

fn outside(plane: usize, range: &Range<usize>, held_bytes: usize) -> Error {
    let bound = format!("there are {held_bytes}");
    Error::config("plane", format!("{plane}, bytes {range:?}"), bound)
}

/// The planes of a buffer, readable: all in one map, or each in its own.
pub(crate) struct Mapped<'b> {
    whole: Option<gst::BufferMap<'b, gst::buffer::Readable>>,
    each: [Option<gst::MemoryMap<'b, gst::memory::Readable>>; 3],
    starts: [usize; 3],
}

impl Mapped<'_> {
    /// The bytes from the first of a plane on; none where there is no such plane.
    pub fn plane(&self, plane: usize) -> &[u8] {
        let bytes = match (&self.whole, &self.each[plane]) {
            (Some(map), _) => map.as_slice(),
            (None, Some(map)) => map.as_slice(),
            (None, None) => &[],
        };
        bytes.get(self.starts[plane]..).unwrap_or_default()
    }
}
