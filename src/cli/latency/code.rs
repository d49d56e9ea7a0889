//! A clock code: 56 bits of nanoseconds and 8 of checksum, drawn as a strip of black and white into a frame.
//!
//! ```text
//! top right corner of the frame, eight bits a row, eight rows      a bit: two blocks side by side
//! a block: 1/128 of the frame wide, 1/72 high                      0 = black white, 1 = white black
//! ```
//! A bit is told by which of its blocks is lighter, so that a mask laid over both, another range of luma or a
//! recompression does not turn it. The strip is as many blocks wide in the model's square as in the frame.

use crate::geometry::{Orientation, Size};
use gst_video::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;
use std::ops::Range;

const BITS_PER_ROW: u32 = 8;
const ROWS: u32 = 8;
/// Frames are so many blocks wide and high.
const BLOCKS_ACROSS: u32 = 128;
const BLOCKS_DOWN: u32 = 72;
/// Blocks at least so different are told apart.
const LEAST_CONTRAST: u32 = 8;
/// Time that fits: two years.
const TIME_MASK: u64 = (1 << 56) - 1;

/// Smallest frame whose blocks are two pixels wide and high.
pub(super) const LEAST: Size = Size {
    width_px: 2 * BLOCKS_ACROSS,
    height_px: 2 * BLOCKS_DOWN,
};

/// Time and checksum.
pub(super) fn word(nanos: u64) -> u64 {
    let nanos = nanos & TIME_MASK;
    nanos << 8 | u64::from(checksum(nanos))
}

/// The time of a word whose checksum is right.
pub(super) fn time(word: u64) -> Option<u64> {
    let nanos = word >> 8;
    (checksum(nanos) == word as u8).then_some(nanos)
}

/// CRC-8 with the polynomial x^8 + x^2 + x + 1; not 0 for zeros, so that a black strip is no time.
fn checksum(nanos: u64) -> u8 {
    nanos.to_be_bytes().iter().fold(0xa5, |crc: u8, byte| {
        (0..8).fold(crc ^ byte, |crc, _| {
            if crc & 0x80 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x07
            }
        })
    })
}

/// The two blocks of bit `bit` in a frame of `frame`: columns of the first, columns of the second, rows.
fn blocks(bit: u32, frame: Size) -> [Range<u32>; 3] {
    // Whole pairs of pixels, so that halved chroma belongs to one block.
    let width = (frame.width_px / BLOCKS_ACROSS).max(1);
    let height = (frame.height_px / BLOCKS_DOWN).max(1);
    let left = (frame.width_px.saturating_sub(width * 2 * BITS_PER_ROW)) & !1;
    let (column, row) = (bit % BITS_PER_ROW, bit / BITS_PER_ROW);
    let first = left + column * 2 * width;
    [
        first..first + width,
        first + width..first + 2 * width,
        row * height..(row + 1) * height,
    ]
}

/// Draws `nanos` into the frame in `buffer`.
///
/// # Errors
/// A buffer that cannot be mapped.
pub(super) fn draw(
    buffer: &mut gst::BufferRef,
    info: &gst_video::VideoInfo,
    nanos: u64,
) -> Result<(), gst::glib::BoolError> {
    let word = word(nanos);
    let size = Size {
        width_px: info.width(),
        height_px: info.height(),
    };
    let has_chroma = info.is_yuv();
    let subsampled: Vec<(u32, u32)> = info
        .format_info()
        .w_sub()
        .iter()
        .copied()
        .zip(info.format_info().h_sub().iter().copied())
        .collect();
    let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, info)?;
    let colors = frame.n_components().min(3);
    for component in 0..colors {
        let (stride, step) = (
            frame.comp_stride(component) as usize,
            frame.comp_pstride(component) as usize,
        );
        let first = frame.comp_poffset(component) as usize;
        let plane = frame.comp_plane(component);
        let (across, down) = subsampled.get(component as usize).copied().unwrap_or_default();
        let bytes = frame.plane_data_mut(plane)?;
        for bit in 0..BITS_PER_ROW * ROWS {
            let [left, right, rows] = blocks(bit, size);
            let is_set = word >> (63 - bit) & 1 == 1;
            for (columns, white) in [(left, is_set), (right, !is_set)] {
                let level = match (has_chroma && component > 0, white) {
                    (true, _) => 128,
                    (false, true) => 235,
                    (false, false) => 16,
                };
                for y in rows.start >> down..rows.end.div_ceil(1 << down) {
                    for x in columns.start >> across..columns.end.div_ceil(1 << across) {
                        let at = y as usize * stride + first + x as usize * step;
                        if let Some(byte) = bytes.get_mut(at) {
                            *byte = level;
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// The time drawn into the frame in `buffer`.
pub(super) fn read(buffer: &gst::BufferRef, info: &gst_video::VideoInfo) -> Option<u64> {
    let size = Size {
        width_px: info.width(),
        height_px: info.height(),
    };
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info).ok()?;
    // Luma, or green.
    let component = if info.is_rgb() { 1 } else { 0 };
    let (stride, step) = (
        usize::try_from(frame.comp_stride(component)).ok()?,
        usize::try_from(frame.comp_pstride(component)).ok()?,
    );
    let first = frame.comp_poffset(component) as usize;
    let bytes = frame.plane_data(frame.comp_plane(component)).ok()?;
    let level = |x: u32, y: u32| {
        bytes
            .get(y as usize * stride + first + x as usize * step)
            .copied()
    };
    tell(size, size, level)
}

/// The time in the model's square, `[side, side, 3]` and turned, of a whole frame of `frame`.
pub(super) fn read_square(rgb: &[u8], side_px: u32, turned: Orientation, frame: Size) -> Option<u64> {
    let level = |x: u32, y: u32| {
        let (column, row) = turned.upright_from_model(x, y, side_px);
        rgb.get((row as usize * side_px as usize + column as usize) * 3 + 1)
            .copied()
    };
    tell(frame, Size::square(side_px), level)
}

/// Reads a frame of `frame` that was brought to the size `seen`.
fn tell(frame: Size, seen: Size, level: impl Fn(u32, u32) -> Option<u8>) -> Option<u64> {
    let mut word = 0;
    for bit in 0..BITS_PER_ROW * ROWS {
        let [left, right, rows] = blocks(bit, frame);
        let rows = inside(rows, frame.height_px, seen.height_px);
        let mean = |columns: Range<u32>| {
            let columns = inside(columns, frame.width_px, seen.width_px);
            let count = (columns.len() * rows.len()).max(1) as u32;
            let mut sum = 0;
            for y in rows.clone() {
                for x in columns.clone() {
                    sum += u32::from(level(x, y)?);
                }
            }
            Some(sum / count)
        };
        let (left, right) = (mean(left)?, mean(right)?);
        if left.abs_diff(right) < LEAST_CONTRAST {
            return None;
        }
        word = word << 1 | u64::from(left > right);
    }
    time(word)
}

/// The pixels of a line of `to` that lie within `range` of a line of `from`, or the one in its middle.
fn inside(range: Range<u32>, from: u32, to: u32) -> Range<u32> {
    let scale = f64::from(to) / f64::from(from.max(1));
    let (start, end) = (f64::from(range.start) * scale, f64::from(range.end) * scale);
    let (first, last) = (start.ceil() as u32, end.floor() as u32);
    if first < last {
        first..last
    } else {
        let middle = ((start + end) / 2.0) as u32;
        middle..middle + 1
    }
}

/// Writes `word` into the first pixels of a mask of the model, `[side, side]`, as ids 0 and 1, so that the mask says
/// itself which frame it was computed from. Masks that are too small stay as they are.
pub(super) fn mark(labels: &mut [u8], side_px: u32, turned: Orientation, word: u64) {
    if side_px < u64::BITS {
        return;
    }
    for bit in 0..u64::BITS {
        let (column, row) = turned.upright_from_model(bit, 0, side_px);
        if let Some(id) = labels.get_mut(row as usize * side_px as usize + column as usize) {
            *id = (word >> (63 - bit) & 1) as u8;
        }
    }
}

/// The time that [`mark`] wrote, of an upright mask.
pub(super) fn marked(plane: &[u8]) -> Option<u64> {
    let bits = plane.get(..u64::BITS as usize)?;
    if bits.iter().any(|&id| id > 1) {
        return None;
    }
    time(bits.iter().fold(0, |word, &id| word << 1 | u64::from(id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gst_video::{VideoFormat, VideoInfo};

    const NANOS: u64 = 1_234_567_890_123_456;

    #[test]
    fn a_checksum_tells_times_from_other_bits() {
        assert_eq!(time(word(NANOS)), Some(NANOS));
        assert_eq!(time(0), None, "black");
        assert_eq!(time(u64::MAX), None, "white");
        for bit in 0..64 {
            assert_eq!(time(word(NANOS) ^ 1 << bit), None, "bit {bit}");
        }
    }

    #[test]
    fn what_is_drawn_is_read_in_every_format_and_size() {
        gst::init().unwrap();
        let formats = [
            VideoFormat::Nv12,
            VideoFormat::I420,
            VideoFormat::Yuy2,
            VideoFormat::Uyvy,
            VideoFormat::Rgb,
            VideoFormat::Bgra,
            VideoFormat::Gray8,
        ];
        for format in formats {
            for (width, height) in [(1920, 1080), (1280, 720), (640, 480), (333, 251), (256, 144)] {
                let info = VideoInfo::builder(format, width, height).build().unwrap();
                let mut buffer = gst::Buffer::from_mut_slice(vec![77_u8; info.size()]);
                assert_eq!(read(&buffer, &info), None);
                draw(buffer.get_mut().unwrap(), &info, NANOS).unwrap();
                assert_eq!(read(&buffer, &info), Some(NANOS), "{format} {width}x{height}");
                // Half covered by something grey.
                let mut map = buffer.get_mut().unwrap().map_writable().unwrap();
                map.iter_mut().for_each(|byte| *byte = *byte / 2 + 80);
                drop(map);
                assert_eq!(
                    read(&buffer, &info),
                    Some(NANOS),
                    "{format} {width}x{height}, covered"
                );
            }
        }
    }

    #[test]
    fn the_model_sees_it_too() {
        use crate::geometry::Rect;
        use crate::kernels::picture::convert::{ColorSpace, Picture, PixelFormat, PlaneRef};
        use crate::segmenter::Resize;
        use crate::stream::Squarer;
        gst::init().unwrap();
        for (width, height) in [(1920, 1080), (1280, 1024), (640, 480), (720, 576)] {
            let info = VideoInfo::builder(VideoFormat::Rgb, width, height)
                .build()
                .unwrap();
            let mut buffer = gst::Buffer::from_mut_slice(vec![90_u8; info.size()]);
            draw(buffer.get_mut().unwrap(), &info, NANOS).unwrap();
            let map = buffer.map_readable().unwrap();
            let size = Size {
                width_px: width,
                height_px: height,
            };
            let plane = PlaneRef {
                data: &map,
                stride_bytes: info.stride()[0] as usize,
            };
            let picture = Picture::new(PixelFormat::Rgb, size, &[plane], ColorSpace::RGB).unwrap();
            let whole: Rect = size.rect();
            for side in [256, 512] {
                for turned in [Orientation::Upright, Orientation::Transposed] {
                    let mut squarer = Squarer::new(side, Resize::Area, turned);
                    let square = squarer.square(&picture, whole).unwrap();
                    let found = read_square(&square.rgb, side, turned, size);
                    assert_eq!(found, Some(NANOS), "{width}x{height} to {side} {turned:?}");
                }
            }
        }
    }

    #[test]
    fn a_mask_says_which_frame_it_is_of() {
        for turned in [Orientation::Upright, Orientation::Transposed] {
            let mut labels = vec![5; 80 * 80];
            mark(&mut labels, 80, turned, word(NANOS));
            let upright: Vec<u8> = (0..80 * 80_u32)
                .map(|at| {
                    let (x, y) = turned.upright_from_model(at % 80, at / 80, 80);
                    labels[(y * 80 + x) as usize]
                })
                .collect();
            assert_eq!(marked(&upright), Some(NANOS));
        }
        assert_eq!(marked(&[3; 100]), None);
        assert_eq!(marked(&[0; 100]), None);
    }
}
