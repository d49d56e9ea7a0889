//! A region of a picture, stretched to the model's square: area average when shrinking, bilinear when enlarging.
//!
//! Both are separable (axis.rs), and so are the colours: without its clamp the matrix of
//! [`super::convert`] adds what luma gives to what chroma gives, and a sum of pixels can be taken of each by itself:
//! ```text
//! red = clamp(128 + sum of weight(pixel) luma part(pixel) + sum of weight'(chroma sample) red part(chroma sample))
//! ```
//! and so on, where `weight'` is the sum of the weights of the pixels that share the sample. Shared samples are thus
//! read once, no pixel of the frame is ever made, and only the square's own pixels are clamped. Where a pixel of the
//! frame would have been clamped, the square can differ from the average of converted pixels; everywhere else, and
//! for RGB and luma alone everywhere, it is the same.
//!
//! Rows are summed down the columns first, 16 rows of the square at once, and these sums across (planes.rs).

use super::axis::Axis;
use super::convert::{Picture, PixelFormat};
use super::planes::{Across, Down, ROWS, Sums};
use super::samples::{Gray, Luma, PairedChroma, Pixels, PlanarChroma};
use crate::error::{Error, Result};
use crate::geometry::{MAX_FRAME_SIDE_PX, Orientation, Rect, Size};
use crate::kernels::simd::dispatch;

/// Shrinks or enlarges regions of one size to one square; keeps its tables and buffers between frames.
#[derive(Debug, Clone)]
pub struct AreaResizer {
    region: Size,
    side_px: u32,
    columns: SharedAxis,
    rows: SharedAxis,
    sums: Sums,
}

/// An axis, and the same for samples that two pixels share.
#[derive(Debug, Clone)]
struct SharedAxis {
    pixels: Axis,
    /// For regions that begin with the first or the second pixel of a pair.
    pairs: [Axis; 2],
}

impl SharedAxis {
    fn new(length_px: u32, side_px: u32) -> Self {
        let pixels = Axis::new(length_px, side_px);
        let pairs = [0, 1].map(|start| pixels.of_pairs(start));
        Self { pixels, pairs }
    }

    fn pairs_from(&self, start_px: u32) -> &Axis {
        let [even, odd] = &self.pairs;
        if start_px.is_multiple_of(2) { even } else { odd }
    }
}

impl AreaResizer {
    /// For regions of `region` and squares of `side_px`.
    ///
    /// # Errors
    /// A side that is 0 or above [`MAX_FRAME_SIDE_PX`].
    pub fn new(region: Size, side_px: u32) -> Result<Self> {
        let region = Size::checked(region.width_px, region.height_px)?;
        if side_px == 0 || side_px > MAX_FRAME_SIDE_PX {
            return Err(Error::config(
                "side_px",
                side_px,
                format!("it has to be 1 to {MAX_FRAME_SIDE_PX}"),
            ));
        }
        Ok(Self {
            region,
            side_px,
            columns: SharedAxis::new(region.width_px, side_px),
            rows: SharedAxis::new(region.height_px, side_px),
            sums: Sums::default(),
        })
    }

    /// Size of the regions it takes.
    pub fn region(&self) -> Size {
        self.region
    }

    /// Side of the squares it gives.
    pub fn side_px(&self) -> u32 {
        self.side_px
    }

    /// Writes `region` of `picture` to `square`, `[side, side, 3]` RGB, turned as `orientation` says.
    ///
    /// # Errors
    /// A region of another size or outside the picture, or a square of another size.
    pub fn resize(
        &mut self,
        picture: &Picture<'_>,
        region: Rect,
        orientation: Orientation,
        square: &mut [u8],
    ) -> Result<()> {
        if region.size() != self.region || !region.fits(picture.size()) {
            let (want, frame) = (self.region, picture.size());
            let bound = format!(
                "it has to be {}x{} and lie inside the picture of {}x{}",
                want.width_px, want.height_px, frame.width_px, frame.height_px
            );
            return Err(Error::config("region", format!("{region:?}"), bound));
        }
        let side = self.side_px as usize;
        if square.len() != side * side * 3 {
            let bound = format!("a square of side {side} takes {} bytes", side * side * 3);
            return Err(Error::config("square", square.len(), bound));
        }
        let width = region.width_px as usize;
        let pairs = (region.right_px().div_ceil(2) - region.x_px / 2) as usize;
        let (luma, colors) = match picture.format() {
            PixelFormat::Gray8 => (width, 0),
            format if format.shares_chroma() => (width, pairs),
            _ => (0, width),
        };
        self.sums.fit(luma, colors, side);
        for first in (0..side).step_by(ROWS) {
            let count = ROWS.min(side - first);
            self.sum_down(picture, region, first, count);
            let columns = &self.columns.pixels;
            let (colors, base) = if picture.format().shares_chroma() {
                (self.columns.pairs_from(region.x_px), 128.0)
            } else {
                (columns, 0.0)
            };
            dispatch(Across {
                luma: columns,
                colors,
                base,
                sums: &mut self.sums,
                first,
                count,
                orientation,
                square: &mut *square,
            });
        }
        Ok(())
    }

    /// Sums the source rows of `count` rows of the square, from `first` on, down the columns.
    fn sum_down(&mut self, picture: &Picture<'_>, region: Rect, first: usize, count: usize) {
        let (x, y) = (region.x_px as usize, region.y_px as usize);
        let [plane, second, third] = picture.planes();
        let factors = picture.factors();
        let last_row = match picture.format() {
            PixelFormat::Nv12 | PixelFormat::I420 => picture.last_chroma_row(),
            _ => usize::MAX,
        };
        let rows = &self.rows.pixels;
        let row_pairs = self.rows.pairs_from(region.y_px);
        let luma = [&mut self.sums.luma];
        let colors = self.sums.colors.each_mut();
        let down = Down { first, count };
        match picture.format() {
            PixelFormat::Nv12 => {
                down.sum(rows, y, Luma::<1, 0> { plane, x, factors }, luma);
                let (plane, x) = (second, x / 2);
                down.sum(
                    row_pairs,
                    y / 2,
                    PairedChroma::<2, 0, 1> {
                        plane,
                        last_row,
                        x,
                        factors,
                    },
                    colors,
                );
            }
            PixelFormat::I420 => {
                down.sum(rows, y, Luma::<1, 0> { plane, x, factors }, luma);
                let (planes, x) = ([second, third], x / 2);
                down.sum(
                    row_pairs,
                    y / 2,
                    PlanarChroma {
                        planes,
                        last_row,
                        x,
                        factors,
                    },
                    colors,
                );
            }
            PixelFormat::Yuy2 => {
                down.sum(rows, y, Luma::<2, 0> { plane, x, factors }, luma);
                let x = x / 2;
                down.sum(
                    rows,
                    y,
                    PairedChroma::<4, 1, 3> {
                        plane,
                        last_row,
                        x,
                        factors,
                    },
                    colors,
                );
            }
            PixelFormat::Uyvy => {
                down.sum(rows, y, Luma::<2, 1> { plane, x, factors }, luma);
                let x = x / 2;
                down.sum(
                    rows,
                    y,
                    PairedChroma::<4, 0, 2> {
                        plane,
                        last_row,
                        x,
                        factors,
                    },
                    colors,
                );
            }
            PixelFormat::Gray8 => down.sum(rows, y, Gray(Luma { plane, x, factors }), luma),
            PixelFormat::Rgb => down.sum(rows, y, Pixels::<3, 0, 2> { plane, x }, colors),
            PixelFormat::Bgr => down.sum(rows, y, Pixels::<3, 2, 0> { plane, x }, colors),
            PixelFormat::Rgba | PixelFormat::Rgbx => {
                down.sum(rows, y, Pixels::<4, 0, 2> { plane, x }, colors)
            }
            PixelFormat::Bgra | PixelFormat::Bgrx => {
                down.sum(rows, y, Pixels::<4, 2, 0> { plane, x }, colors)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::convert::{ColorSpace, PixelFormat, PlaneRef};
    use super::super::resize_tests::Noise;
    use super::*;

    /// Straight from the definition, in f64, one output at a time.
    fn naive(rgb: &[u8], size: Size, region: Rect, side: u32, x: u32, y: u32, channel: usize) -> f64 {
        let pixel = |px: u32, py: u32| {
            let at = (py * size.width_px + px) as usize * 3 + channel;
            f64::from(rgb[at])
        };
        let taps = |j: u32, length: u32| -> Vec<(u32, f64)> {
            let step = f64::from(length) / f64::from(side);
            if length >= side {
                let (low, high) = (f64::from(j) * step, f64::from(j + 1) * step);
                let overlap = |i: u32| (high.min(f64::from(i) + 1.0) - low.max(f64::from(i))).max(0.0);
                (0..length).map(|i| (i, overlap(i) / step)).collect()
            } else {
                let at = (f64::from(j) + 0.5) * step - 0.5;
                let weight = |i: i64| (1.0 - (at - i as f64).abs()).max(0.0);
                let last = i64::from(length) - 1;
                (-1..=last + 1)
                    .map(|i| (i.clamp(0, last) as u32, weight(i)))
                    .collect()
            }
        };
        let mut sum = 0.0;
        for (j, wy) in taps(y, region.height_px) {
            for &(i, wx) in &taps(x, region.width_px) {
                sum += wx * wy * pixel(region.x_px + i, region.y_px + j);
            }
        }
        sum
    }

    #[test]
    fn it_equals_the_definition() {
        let seed = 20_240_917;
        println!("seed {seed}");
        let mut noise = Noise(seed);
        for case in 0..60 {
            let size = Size {
                width_px: 1 + noise.next(40),
                height_px: 1 + noise.next(40),
            };
            let x_px = noise.next(size.width_px);
            let y_px = noise.next(size.height_px);
            let region = Rect {
                x_px,
                y_px,
                width_px: 1 + noise.next(size.width_px - x_px),
                height_px: 1 + noise.next(size.height_px - y_px),
            };
            let side = 1 + noise.next(24);
            let rgb: Vec<u8> = (0..size.area() * 3).map(|_| noise.next(256) as u8).collect();
            let plane = PlaneRef {
                data: &rgb,
                stride_bytes: size.width_px as usize * 3,
            };
            let picture = Picture::new(PixelFormat::Rgb, size, &[plane], ColorSpace::RGB).unwrap();
            let mut resizer = AreaResizer::new(region.size(), side).unwrap();
            let mut square = vec![0; (side * side * 3) as usize];
            resizer
                .resize(&picture, region, Orientation::Upright, &mut square)
                .unwrap();
            let mut turned = square.clone();
            resizer
                .resize(&picture, region, Orientation::Transposed, &mut turned)
                .unwrap();
            for y in 0..side {
                for x in 0..side {
                    for channel in 0..3 {
                        let want = naive(&rgb, size, region, side, x, y, channel);
                        let got = square[((y * side + x) * 3) as usize + channel];
                        assert!((f64::from(got) - want).abs() < 0.51, "case {case}: {got} {want}");
                        let there = (side - 1 - x) * side + side - 1 - y;
                        assert_eq!(got, turned[(there * 3) as usize + channel]);
                    }
                }
            }
        }
    }

    #[test]
    fn the_same_size_is_a_copy() {
        let rgb: Vec<u8> = (0..48).collect();
        let plane = PlaneRef {
            data: &rgb,
            stride_bytes: 12,
        };
        let picture = Picture::new(PixelFormat::Rgb, Size::square(4), &[plane], ColorSpace::RGB).unwrap();
        let mut square = vec![0; 48];
        let mut resizer = AreaResizer::new(Size::square(4), 4).unwrap();
        resizer
            .resize(
                &picture,
                Size::square(4).rect(),
                Orientation::Upright,
                &mut square,
            )
            .unwrap();
        assert_eq!(square, rgb);
    }

    #[test]
    fn wrong_sizes_are_refused() {
        assert!(
            AreaResizer::new(
                Size {
                    width_px: 0,
                    height_px: 1
                },
                8
            )
            .is_err()
        );
        assert!(AreaResizer::new(Size::square(1), 0).is_err());
        let plane = PlaneRef {
            data: &[0; 48],
            stride_bytes: 12,
        };
        let picture = Picture::new(PixelFormat::Rgb, Size::square(4), &[plane], ColorSpace::RGB).unwrap();
        let mut resizer = AreaResizer::new(Size::square(3), 2).unwrap();
        let outside = Rect {
            x_px: 2,
            y_px: 0,
            width_px: 3,
            height_px: 3,
        };
        assert!(
            resizer
                .resize(&picture, outside, Orientation::Upright, &mut [0; 12])
                .is_err()
        );
        assert!(
            resizer
                .resize(
                    &picture,
                    Size::square(4).rect(),
                    Orientation::Upright,
                    &mut [0; 12]
                )
                .is_err()
        );
        let inside = Size::square(3).rect();
        assert!(
            resizer
                .resize(&picture, inside, Orientation::Upright, &mut [0; 11])
                .is_err()
        );
        assert!(
            resizer
                .resize(&picture, inside, Orientation::Upright, &mut [0; 12])
                .is_ok()
        );
    }
}
