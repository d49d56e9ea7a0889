//! Label pictures as they are stored: samples and palettes, before anything says what they mean.
//!
//! PNG is decoded here to keep what other decoders convert away: samples of 1, 2 and 4 bits, which they stretch to
//! bytes, and the indices of a palette.

use super::picture;
use crate::error::{Error, Result};
use crate::geometry::Size;
use crate::labels::Rgb;
use image::{DynamicImage, ImageFormat};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// A value as it is stored: bits of a sample, and the sample.
pub(super) type Value = (u8, u16);

/// One pixel, in each way in which it may be meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pixel {
    /// Its color; a gray value as the gray that it looks like.
    pub color: Rgb,
    /// Whether the color is one: not fully transparent, and no gray of 16 bits that no byte stands for.
    pub is_color: bool,
    /// Its plain value, where it has one: gray, three equal channels, or an index of a palette that numbers its colors.
    pub value: Option<Value>,
}

#[derive(Debug)]
enum Samples {
    Gray(u8, Vec<u16>),
    Color(Vec<[u8; 4]>),
    Indexed(Vec<u8>, Vec<Pixel>),
}

/// A decoded label picture.
#[derive(Debug)]
pub(super) struct LabelPicture {
    pub size: Size,
    samples: Samples,
    /// How it is stored: `gray8`, `RGB`, `palette` and so on.
    pub storage: &'static str,
    /// Whether its format changes pixels when it is written.
    pub is_lossy: bool,
}

impl LabelPicture {
    /// Decodes a label picture.
    ///
    /// # Errors
    /// As [`picture::read`]; a picture that is marked as turned (EXIF); 16-bit colors that are no stretched bytes.
    pub fn read(path: &Path) -> Result<Self> {
        picture::size(path)?;
        let fail = |cause: &dyn std::fmt::Display| Error::file(path, cause);
        let file = File::open(path).map_err(|cause| fail(&cause))?;
        let mut start = Vec::new();
        file.take(64)
            .read_to_end(&mut start)
            .map_err(|cause| fail(&cause))?;
        let format = image::guess_format(&start).ok();
        picture::upright(path)?;
        if format == Some(ImageFormat::Png) {
            return png_picture(path);
        }
        let picture = picture::read(path)?;
        let size = Size {
            width_px: picture.width(),
            height_px: picture.height(),
        };
        let (samples, storage) = match picture {
            DynamicImage::ImageLuma8(p) => {
                let values = p.into_raw().into_iter().map(u16::from).collect();
                (Samples::Gray(8, values), "gray8")
            }
            DynamicImage::ImageLuma16(p) => (Samples::Gray(16, p.into_raw()), "gray16"),
            DynamicImage::ImageRgb16(_) | DynamicImage::ImageRgba16(_) | DynamicImage::ImageLumaA16(_) => {
                let wide = picture.into_rgba16();
                (wide_color(path, wide.as_raw())?, "16-bit RGB")
            }
            other => {
                let name = if other.color().has_alpha() { "RGBA" } else { "RGB" };
                let pixels = other.into_rgba8().into_raw();
                (Samples::Color(pixels.as_chunks().0.to_vec()), name)
            }
        };
        Ok(Self {
            size,
            samples,
            storage,
            is_lossy: matches!(format, Some(ImageFormat::Jpeg | ImageFormat::WebP)),
        })
    }

    /// Its pixels, row by row.
    pub fn pixels(&self) -> Box<dyn Iterator<Item = Pixel> + '_> {
        match &self.samples {
            Samples::Gray(bits, values) => Box::new(values.iter().map(|value| gray(*bits, *value))),
            Samples::Color(pixels) => Box::new(pixels.iter().map(|pixel| color(*pixel))),
            Samples::Indexed(indices, palette) => {
                let pixel = |index: &u8| palette.get(usize::from(*index)).copied();
                Box::new(
                    indices
                        .iter()
                        .map(move |index| pixel(index).unwrap_or(color([0; 4]))),
                )
            }
        }
    }
}

/// The gray of 8 bits that a sample looks like.
pub(super) fn as_byte((bits, sample): Value) -> u8 {
    let largest = (1_u32 << bits) - 1;
    ((u32::from(sample) * 255 + largest / 2) / largest) as u8
}

fn gray(bits: u8, sample: u16) -> Pixel {
    Pixel {
        color: [as_byte((bits, sample)); 3],
        is_color: bits < 16 || sample.is_multiple_of(257),
        value: Some((bits, sample)),
    }
}

fn color([r, g, b, alpha]: [u8; 4]) -> Pixel {
    let clear = alpha == 0 && [r, g, b] != [0; 3];
    Pixel {
        color: [r, g, b],
        is_color: !clear,
        value: (r == g && g == b && !clear).then_some((8, u16::from(r))),
    }
}

/// 16-bit colors, `[pixels, 4]`: bytes that were stretched, or equal channels.
fn wide_color(path: &Path, samples: &[u16]) -> Result<Samples> {
    let (pixels, _) = samples.as_chunks::<4>();
    if samples.iter().all(|sample| sample % 257 == 0) {
        let bytes = pixels.iter().map(|p| p.map(|sample| (sample / 257) as u8));
        return Ok(Samples::Color(bytes.collect()));
    }
    if pixels
        .iter()
        .all(|[r, g, b, alpha]| r == g && g == b && *alpha == u16::MAX)
    {
        return Ok(Samples::Gray(16, pixels.iter().map(|p| p[0]).collect()));
    }
    let cause =
        "invalid label picture: its 16-bit colors are no stretched bytes. Write class ids as 8-bit gray";
    Err(Error::file(path, cause))
}

fn png_picture(path: &Path) -> Result<LabelPicture> {
    let fail = |cause: png::DecodingError| Error::file(path, cause);
    let limits = png::Limits {
        bytes: usize::try_from(picture::MAX_DECODED_BYTES).unwrap_or(usize::MAX),
    };
    let file = File::open(path).map_err(|cause| Error::file(path, cause))?;
    let decoder = png::Decoder::new_with_limits(BufReader::new(file), limits);
    let mut reader = decoder.read_info().map_err(fail)?;
    let missing = || Error::file(path, "the picture is larger than memory");
    let mut bytes = vec![0; reader.output_buffer_size().ok_or_else(missing)?];
    let frame = reader.next_frame(&mut bytes).map_err(fail)?;
    bytes.truncate(frame.buffer_size());
    let size = Size {
        width_px: frame.width,
        height_px: frame.height,
    };
    let bits = frame.bit_depth as u8;
    let wide = || -> Vec<u16> {
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|pair| u16::from_be_bytes(*pair))
            .collect()
    };
    let narrow = || -> Vec<u8> {
        let row = |row: &[u8]| -> Vec<u8> {
            let sample = |at: usize| {
                let first = at * usize::from(bits);
                let byte = row.get(first / 8).copied().unwrap_or_default();
                (byte >> (8 - usize::from(bits) - first % 8)) & ((1_u16 << bits) - 1) as u8
            };
            (0..size.width_px as usize).map(sample).collect()
        };
        bytes.chunks(frame.line_size.max(1)).flat_map(row).collect()
    };
    use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
    let (samples, storage) = match (frame.color_type, bits) {
        (Grayscale, 16) => (Samples::Gray(16, wide()), "gray16"),
        (Grayscale, _) => {
            let name = ["gray1", "gray2", "gray4", "gray8"];
            let values = narrow().into_iter().map(u16::from).collect();
            (
                Samples::Gray(bits, values),
                name[bits.trailing_zeros().min(3) as usize],
            )
        }
        (Indexed, _) => {
            let info = reader.info();
            let (colors, alpha) = (info.palette.as_deref().unwrap_or_default(), info.trns.as_deref());
            let (indices, colors) = (narrow(), colors.as_chunks().0);
            let palette = palette_pixels(&indices, colors, alpha.unwrap_or_default());
            (Samples::Indexed(indices, palette), "palette")
        }
        (Rgb, 16) => {
            let rgba = wide()
                .as_chunks()
                .0
                .iter()
                .flat_map(|[r, g, b]| [*r, *g, *b, u16::MAX])
                .collect::<Vec<_>>();
            (wide_color(path, &rgba)?, "16-bit RGB")
        }
        (Rgba, 16) => (wide_color(path, &wide())?, "16-bit RGBA"),
        (GrayscaleAlpha, 16) => {
            let rgba = wide()
                .as_chunks()
                .0
                .iter()
                .flat_map(|[v, alpha]| [*v, *v, *v, *alpha])
                .collect::<Vec<_>>();
            (wide_color(path, &rgba)?, "gray16 with alpha")
        }
        (Rgb, _) => {
            let rgba = bytes.as_chunks().0.iter().map(|[r, g, b]| [*r, *g, *b, 255]);
            (Samples::Color(rgba.collect()), "RGB")
        }
        (Rgba, _) => (Samples::Color(bytes.as_chunks().0.to_vec()), "RGBA"),
        (GrayscaleAlpha, _) => {
            let rgba = bytes.as_chunks().0.iter().map(|[v, alpha]| [*v, *v, *v, *alpha]);
            (Samples::Color(rgba.collect()), "gray8 with alpha")
        }
    };
    Ok(LabelPicture {
        size,
        samples,
        storage,
        is_lossy: false,
    })
}

/// The pixels of a palette. Indices are plain values where the colors in use only number them: the gray of the index
/// itself, or the colormap of Pascal VOC, which annotation tools use for ids.
fn palette_pixels(indices: &[u8], colors: &[Rgb], alpha: &[u8]) -> Vec<Pixel> {
    let mut used = [false; 256];
    indices.iter().for_each(|index| used[usize::from(*index)] = true);
    let in_use = || {
        (0..=u8::MAX)
            .zip(colors)
            .filter(|(index, _)| used[usize::from(*index)])
    };
    let numbered =
        in_use().all(|(index, color)| *color == voc_color(index)) || in_use().all(|(i, c)| *c == [i; 3]);
    let pixel = |(index, [r, g, b]): (u8, &Rgb)| {
        let alpha = alpha.get(usize::from(index)).copied().unwrap_or(255);
        let mut pixel = color([*r, *g, *b, alpha]);
        if numbered {
            pixel.value = Some((8, u16::from(index)));
        }
        pixel
    };
    (0..=u8::MAX).zip(colors).map(pixel).collect()
}

/// Entry `index` of the colormap of Pascal VOC: bit `3 k + c` of the index is bit `7 - k` of channel `c`.
fn voc_color(index: u8) -> Rgb {
    let bits = |channel: u8| {
        (0..3).fold(0, |value, k| {
            let bit = index.checked_shr(u32::from(3 * k + channel)).unwrap_or(0) & 1;
            value | bit << (7 - k)
        })
    };
    [bits(0), bits(1), bits(2)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_colormap_is_pascal_voc_s() {
        // The first entries, and void, as the VOC development kit lists them.
        let known = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]];
        assert_eq!([0, 1, 2, 3, 4].map(voc_color), known);
        assert_eq!(
            (voc_color(15), voc_color(20), voc_color(255)),
            ([192, 128, 128], [0, 64, 128], [224, 224, 192])
        );
    }

    #[test]
    fn samples_of_few_bits_become_bytes_as_png_says() {
        assert_eq!(
            [(1, 1), (2, 1), (4, 3), (8, 7), (16, 257), (16, 65535)].map(as_byte),
            [255, 85, 51, 7, 1, 255]
        );
    }
}
