//! Weighted sums of whole rows, down the columns and then across: the loops under [`super::resize`].
//!
//! ```text
//! down     sum[part][row][x] = sum over source rows of weight part(sample x)     parts as in samples.rs
//! turned   sum[part][x][row]
//! across   pixel[j][row] = base + sum over x of weight luma[x][row] + sum over x of weight color[x][row]
//! ```
//! Down the columns neighbours in a row are neighbours in a vector. Across they cannot be, since every output has its
//! own first sample: the sums of [`ROWS`] rows are therefore turned, so that a vector holds one column of them.

use super::axis::Axis;
use super::samples::Lines;
use crate::geometry::Orientation;
use crate::kernels::simd::{Body, dispatch};

/// Rows of the square that are made at once: the numbers of a vector of 512 bits.
pub(super) const ROWS: usize = 16;

/// Rows of a picture that are summed at once: as many as 1080 of them take for each of 256, in one go.
const MOST_TAPS: usize = 6;

/// Columns that are turned at once: they stay in the first cache.
const STRIP: usize = 128;

/// Sums of some rows of a picture.
#[derive(Debug, Clone, Default)]
pub(super) struct Plane {
    /// Samples of a row.
    width: usize,
    /// `[ROWS, width]`, summed down the columns.
    down: Vec<f32>,
    /// `[width, ROWS]`, the same turned.
    turned: Vec<[f32; ROWS]>,
    /// Whether that is there already.
    is_turned: bool,
}

/// Sums of what luma gives to all colours, and of what each colour gets besides; either may be empty.
#[derive(Debug, Clone, Default)]
pub(super) struct Sums {
    pub luma: Plane,
    /// Of red, green and blue.
    pub colors: [Plane; 3],
    /// `[side, ROWS]`, pixels of the square: red in the lowest byte, then green and blue.
    pixels: Vec<[u32; ROWS]>,
}

impl Plane {
    fn fit(&mut self, width: usize) {
        if self.width != width {
            self.width = width;
            self.down.resize(width * ROWS, 0.0);
            self.turned.resize(width, [0.0; ROWS]);
        }
    }

    /// [`Plane::turned`] from [`Plane::down`].
    #[inline(always)]
    fn turn(&mut self) {
        if self.is_turned {
            return;
        }
        let done = wide::turn(&self.down, &mut self.turned);
        turn(&self.down, &mut self.turned, done);
    }
}

/// `turned[x][row] = down[row][x]` from column `first` on.
#[inline(always)]
fn turn(down: &[f32], turned: &mut [[f32; ROWS]], first: usize) {
    let width = turned.len();
    let mut quads = [[[0.0; 4]; STRIP]; ROWS / 4];
    for (strip, turned) in turned[first..].chunks_mut(STRIP).enumerate() {
        // Four rows at a time are what the compiler makes shuffles of.
        for (four, quads) in quads.iter_mut().enumerate() {
            let row = |i: usize| &down[(4 * four + i) * width + first + strip * STRIP..][..turned.len()];
            let rows = row(0).iter().zip(row(1)).zip(row(2)).zip(row(3));
            for (quad, (((a, b), c), d)) in quads.iter_mut().zip(rows) {
                *quad = [*a, *b, *c, *d];
            }
        }
        for (x, turned) in turned.iter_mut().enumerate() {
            let (parts, _) = turned.as_chunks_mut::<4>();
            for (part, quads) in parts.iter_mut().zip(&quads) {
                *part = quads[x];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod wide;

#[cfg(not(target_arch = "x86_64"))]
mod wide {
    #[cfg(test)]
    pub fn is_here() -> bool {
        false
    }

    /// None here.
    pub fn turn(_: &[f32], _: &mut [[f32; super::ROWS]]) -> usize {
        0
    }

    /// None here.
    pub fn write_upright(_: &[[u32; super::ROWS]], _: &mut [[u8; 3]], _: usize, _: usize) -> usize {
        0
    }

    /// Not here.
    pub fn write_reversed(_: &[u32; super::ROWS], _: &mut [[u8; 3]], _: usize) -> bool {
        false
    }

    /// Not here.
    pub fn sum<const PARTS: usize>(
        _: &super::Down,
        _: &super::Axis,
        _: usize,
        _: crate::kernels::picture::samples::Bytes<'_>,
        _: &mut [&mut super::Plane; PARTS],
    ) -> bool {
        false
    }
}

impl Sums {
    /// Makes room for rows of so many samples, and for a square of `side`. Takes memory only when these change.
    pub fn fit(&mut self, luma: usize, colors: usize, side: usize) {
        self.luma.fit(luma);
        for plane in &mut self.colors {
            plane.fit(colors);
        }
        self.pixels.resize(side, [0; ROWS]);
    }
}

/// Some rows of the square.
#[derive(Debug, Clone, Copy)]
pub(super) struct Down {
    pub first: usize,
    /// At most [`ROWS`].
    pub count: usize,
}

impl Down {
    /// Sums `lines` down the columns, from row `start` of the plane on.
    pub fn sum<const PARTS: usize, L: Lines<PARTS>>(
        self,
        axis: &Axis,
        start: usize,
        lines: L,
        mut planes: [&mut Plane; PARTS],
    ) {
        if !wide::sum(&self, axis, start, lines.bytes(), &mut planes) {
            for plane in &mut planes {
                plane.is_turned = false;
            }
            self.sum_anywhere(axis, start, lines, planes);
        }
    }

    /// The same on any processor, for all kinds of lines.
    fn sum_anywhere<const PARTS: usize, L: Lines<PARTS>>(
        self,
        axis: &Axis,
        start: usize,
        lines: L,
        planes: [&mut Plane; PARTS],
    ) {
        struct Sum<'a, const PARTS: usize, L> {
            down: Down,
            axis: &'a Axis,
            start: usize,
            lines: L,
            planes: [&'a mut Plane; PARTS],
        }
        impl<const PARTS: usize, L: Lines<PARTS>> Body for Sum<'_, PARTS, L> {
            type Output = ();

            #[inline(always)]
            fn run<const FMA: bool>(mut self) {
                for row in 0..self.down.count {
                    let (first, weights) = self.axis.output(self.down.first + row);
                    for (group, weights) in weights.chunks(MOST_TAPS).enumerate() {
                        let sums = self.planes.each_mut().map(|plane| {
                            let width = plane.width;
                            &mut plane.down[row * width..(row + 1) * width]
                        });
                        let (lines, y, more) =
                            (self.lines, self.start + first + MOST_TAPS * group, group > 0);
                        match *weights {
                            [a] => add::<FMA, 1, PARTS, L>(lines, y, [a], more, sums),
                            [a, b] => add::<FMA, 2, PARTS, L>(lines, y, [a, b], more, sums),
                            [a, b, c] => add::<FMA, 3, PARTS, L>(lines, y, [a, b, c], more, sums),
                            [a, b, c, d] => add::<FMA, 4, PARTS, L>(lines, y, [a, b, c, d], more, sums),
                            [a, b, c, d, e] => add::<FMA, 5, PARTS, L>(lines, y, [a, b, c, d, e], more, sums),
                            [a, b, c, d, e, f] => {
                                add::<FMA, 6, PARTS, L>(lines, y, [a, b, c, d, e, f], more, sums)
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
        dispatch(Sum {
            down: self,
            axis,
            start,
            lines,
            planes,
        });
    }
}

/// Weighted rows from `y` on, as the sums or, if `more`, added to them.
#[inline(always)]
fn add<const FMA: bool, const TAPS: usize, const PARTS: usize, L: Lines<PARTS>>(
    lines: L,
    y: usize,
    weights: [f32; TAPS],
    more: bool,
    mut sums: [&mut [f32]; PARTS],
) {
    let count = sums[0].len();
    let rows: [L::Row; TAPS] = std::array::from_fn(|tap| lines.row(y + tap, count));
    // Written out for each number of parts: with loops over them the compiler makes no vectors along the row.
    match sums.as_mut_slice() {
        [sums] => add_one::<FMA, TAPS, PARTS, L>(lines, rows, weights, more, sums),
        [red, green, blue] => {
            add_three::<FMA, TAPS, PARTS, L>(lines, rows, weights, more, red, green, blue);
        }
        _ => {}
    }
}

#[inline(always)]
fn add_one<const FMA: bool, const TAPS: usize, const PARTS: usize, L: Lines<PARTS>>(
    lines: L,
    rows: [L::Row; TAPS],
    weights: [f32; TAPS],
    more: bool,
    sums: &mut [f32],
) {
    for (x, total) in sums.iter_mut().enumerate() {
        let mut sum = if more { *total } else { 0.0 };
        for (row, weight) in rows.iter().zip(weights) {
            sum = weighted::<FMA>(f32::from(lines.parts(*row, x)[0]), weight, sum);
        }
        *total = sum;
    }
}

#[inline(always)]
fn add_three<const FMA: bool, const TAPS: usize, const PARTS: usize, L: Lines<PARTS>>(
    lines: L,
    rows: [L::Row; TAPS],
    weights: [f32; TAPS],
    more: bool,
    red: &mut [f32],
    green: &mut [f32],
    blue: &mut [f32],
) {
    let totals = red.iter_mut().zip(green).zip(blue);
    for (x, ((red, green), blue)) in totals.enumerate() {
        let (mut r, mut g, mut b) = if more {
            (*red, *green, *blue)
        } else {
            (0.0, 0.0, 0.0)
        };
        for (row, weight) in rows.iter().zip(weights) {
            let parts = lines.parts(*row, x);
            r = weighted::<FMA>(f32::from(parts[0]), weight, r);
            g = weighted::<FMA>(f32::from(parts[1]), weight, g);
            b = weighted::<FMA>(f32::from(parts[2]), weight, b);
        }
        (*red, *green, *blue) = (r, g, b);
    }
}

#[inline(always)]
fn weighted<const FMA: bool>(sample: f32, weight: f32, sum: f32) -> f32 {
    if FMA {
        sample.mul_add(weight, sum)
    } else {
        sample * weight + sum
    }
}

/// Sums across, and writes pixels.
pub(super) struct Across<'a> {
    /// Where luma and colours are not empty.
    pub luma: &'a Axis,
    pub colors: &'a Axis,
    /// What is added to all sums.
    pub base: f32,
    pub sums: &'a mut Sums,
    /// Rows of the square.
    pub first: usize,
    pub count: usize,
    pub orientation: Orientation,
    pub square: &'a mut [u8],
}

impl Body for Across<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        self.sums.luma.turn();
        for plane in &mut self.sums.colors {
            plane.turn();
        }
        match (self.sums.luma.width, self.sums.colors[0].width) {
            (_, 0) => self.sum::<FMA, true, false>(),
            (0, _) => self.sum::<FMA, false, true>(),
            _ => self.sum::<FMA, true, true>(),
        }
        self.write();
    }
}

impl Across<'_> {
    #[inline(always)]
    fn sum<const FMA: bool, const LUMA: bool, const COLORS: bool>(&mut self) {
        let Sums { luma, colors, pixels } = &mut *self.sums;
        let [red, green, blue] = colors.each_ref().map(|plane| &plane.turned);
        for (j, pixels) in pixels.iter_mut().enumerate() {
            let mut sum = [0.0; ROWS];
            if LUMA {
                let (first, weights) = self.luma.output(j);
                for (column, &weight) in luma.turned[first..].iter().zip(weights) {
                    for row in 0..ROWS {
                        sum[row] = weighted::<FMA>(column[row], weight, sum[row]);
                    }
                }
            }
            let (mut r, mut g, mut b) = (sum, sum, sum);
            if COLORS {
                let (first, weights) = self.colors.output(j);
                let columns = red[first..].iter().zip(&green[first..]).zip(&blue[first..]);
                for (((red, green), blue), &weight) in columns.zip(weights) {
                    for row in 0..ROWS {
                        r[row] = weighted::<FMA>(red[row], weight, r[row]);
                        g[row] = weighted::<FMA>(green[row], weight, g[row]);
                        b[row] = weighted::<FMA>(blue[row], weight, b[row]);
                    }
                }
            }
            let base = self.base + 0.5;
            for row in 0..ROWS {
                pixels[row] = byte(r[row] + base) | byte(g[row] + base) << 8 | byte(b[row] + base) << 16;
            }
        }
    }

    /// The pixels to where `orientation` has them in the square.
    #[inline(always)]
    fn write(&mut self) {
        let pixels = &self.sums.pixels;
        let side = pixels.len();
        let (square, _) = self.square.as_chunks_mut::<3>();
        let bytes = |pixel: u32| {
            let [red, green, blue, _] = pixel.to_le_bytes();
            [red, green, blue]
        };
        match self.orientation {
            Orientation::Upright => {
                let lines = &mut square[self.first * side..];
                let done = wide::write_upright(pixels, lines, self.count, side);
                for (row, line) in lines.chunks_exact_mut(side).take(self.count).enumerate() {
                    for (pixel, column) in line.iter_mut().zip(pixels).skip(done) {
                        *pixel = bytes(column[row]);
                    }
                }
            }
            Orientation::Transposed => {
                // The last line has the first column, its end the first row.
                let lines = square.chunks_exact_mut(side).rev();
                for (line, column) in lines.zip(pixels) {
                    if self.count == ROWS && wide::write_reversed(column, line, self.first) {
                        continue;
                    }
                    let rows = line.iter_mut().rev().skip(self.first).take(self.count);
                    for (pixel, row) in rows.zip(column) {
                        *pixel = bytes(*row);
                    }
                }
            }
        }
    }
}

/// Rounded down and clamped.
#[inline(always)]
#[allow(clippy::manual_clamp)] // `clamp` would keep what is not a number
fn byte(value: f32) -> u32 {
    // Not `as`, whose check for what does not fit is made number by number.
    // SAFETY: `max` gives 0 for what is not a number, so that the value is 0 to 255.
    unsafe { value.max(0.0).min(255.0).to_int_unchecked::<i32>() as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_in_registers_and_in_memory_is_the_same() {
        for width in [0, 1, 15, 16, 17, 32, 128, 129, 145, 160, 333] {
            let down: Vec<f32> = (0..width * ROWS).map(|n| n as f32).collect();
            for registers in [false, true] {
                let mut turned = vec![[-1.0; ROWS]; width];
                let done = if registers {
                    wide::turn(&down, &mut turned)
                } else {
                    0
                };
                let wanted = if registers && wide::is_here() {
                    width / ROWS * ROWS
                } else {
                    0
                };
                assert_eq!(done, wanted);
                turn(&down, &mut turned, done);
                for (x, column) in turned.iter().enumerate() {
                    for (row, number) in column.iter().enumerate() {
                        assert_eq!(*number, down[row * width + x], "column {x} of {width}, row {row}");
                    }
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn too_few_numbers_are_not_turned_in_registers() {
        assert_eq!(wide::turn(&[0.0; 16 * 16 - 1], &mut [[0.0; ROWS]; 16]), 0);
    }
}
