//! A region of a picture, stretched to the model's square: area average when shrinking, bilinear when enlarging.
//!
//! Both are separable: output `j` of an axis of `length` source samples and `side` outputs is a weighted sum.
//! ```text
//! shrinking   weight of sample i = overlap of [i, i+1) with [j length/side, (j+1) length/side), over length/side
//! enlarging   x = (j + 1/2) length/side - 1/2, between the samples around x, the outermost repeated
//! ```
//! Rows are converted to RGB once each, summed down the columns while they are warm, and only then across: the
//! second sum runs `side` times instead of once per source row.

use super::convert::{Picture, RgbRow};
use crate::error::{Error, Result};
use crate::geometry::{MAX_FRAME_SIDE_PX, Orientation, Rect, Size};
use crate::kernels::simd::{Body, dispatch};

/// Weights along one axis.
#[derive(Debug, Clone)]
struct Axis {
    /// First sample of each output.
    first: Vec<u32>,
    /// Where each output's weights begin; one more than outputs.
    begin: Vec<u32>,
    weights: Vec<f32>,
}

impl Axis {
    fn new(length: u32, side: u32) -> Self {
        let mut axis = Axis {
            first: Vec::new(),
            begin: vec![0],
            weights: Vec::new(),
        };
        for j in 0..side {
            if length >= side {
                axis.add_area(j, length, side)
            } else {
                axis.add_bilinear(j, length, side)
            }
            axis.begin.push(axis.weights.len() as u32);
        }
        axis
    }

    fn add_area(&mut self, j: u32, length: u32, side: u32) {
        // In units of 1/side of a sample everything is whole.
        let (length, side) = (u64::from(length), u64::from(side));
        let (low, high) = (u64::from(j) * length, u64::from(j + 1) * length);
        let first = low / side;
        self.first.push(first as u32);
        for i in first..=(high - 1) / side {
            let overlap = high.min((i + 1) * side) - low.max(i * side);
            self.weights.push(overlap as f32 / length as f32);
        }
    }

    fn add_bilinear(&mut self, j: u32, length: u32, side: u32) {
        let x = (f64::from(j) + 0.5) * f64::from(length) / f64::from(side) - 0.5;
        let x = x.clamp(0.0, f64::from(length - 1));
        let first = x.floor();
        let part = (x - first) as f32;
        self.first.push(first as u32);
        self.weights.push(1.0 - part);
        if part > 0.0 {
            self.weights.push(part);
        }
    }

    fn output(&self, j: usize) -> (usize, &[f32]) {
        (
            self.first[j] as usize,
            &self.weights[self.begin[j] as usize..self.begin[j + 1] as usize],
        )
    }
}

/// Shrinks or enlarges regions of one size to one square; keeps its tables and buffers between frames.
#[derive(Debug, Clone)]
pub struct AreaResizer {
    region: Size,
    side_px: u32,
    columns: Axis,
    rows: Axis,
    row: RgbRow,
    /// Source row that `row` holds.
    row_held: Option<u32>,
    sums: [Vec<f32>; 3],
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
            columns: Axis::new(region.width_px, side_px),
            rows: Axis::new(region.height_px, side_px),
            row: RgbRow::default(),
            row_held: None,
            sums: Default::default(),
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
        self.row_held = None;
        for y in 0..side {
            self.sum_rows(picture, region, y);
            for x in 0..side {
                let (first, weights) = self.columns.output(x);
                let (column, line) = orientation.upright_from_model(x as u32, y as u32, self.side_px);
                let at = (line as usize * side + column as usize) * 3;
                for (channel, sums) in self.sums.iter().enumerate() {
                    let sum: f32 = sums[first..].iter().zip(weights).map(|(s, w)| s * w).sum();
                    square[at + channel] = (sum + 0.5) as u8; // saturates
                }
            }
        }
        Ok(())
    }

    /// Sums the source rows of output row `y` down the columns.
    fn sum_rows(&mut self, picture: &Picture<'_>, region: Rect, y: usize) {
        let (first, weights) = self.rows.output(y);
        for (offset, &weight) in weights.iter().enumerate() {
            let source = region.y_px + (first + offset) as u32;
            if self.row_held != Some(source) {
                picture.read_row(source, region.x_px, region.width_px, &mut self.row);
                self.row_held = Some(source);
            }
            let channels = [&self.row.red, &self.row.green, &self.row.blue];
            for (sums, bytes) in self.sums.iter_mut().zip(channels) {
                if offset == 0 {
                    sums.clear();
                    sums.resize(bytes.len(), 0.0);
                }
                dispatch(AddRow { sums, bytes, weight });
            }
        }
    }
}

/// Adds a weighted row to the sums.
struct AddRow<'a> {
    sums: &'a mut [f32],
    bytes: &'a [u8],
    weight: f32,
}

impl Body for AddRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (sum, &byte) in self.sums.iter_mut().zip(self.bytes) {
            *sum += f32::from(byte) * self.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::convert::{ColorSpace, PixelFormat, PlaneRef};
    use super::*;

    /// A small generator so that a failing case can be run again.
    struct Noise(u64);

    impl Noise {
        fn next(&mut self, below: u32) -> u32 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((self.0 >> 33) % u64::from(below)) as u32
        }
    }

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
