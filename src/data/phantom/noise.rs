//! Noise over the plane: gradient noise, its fractal sums, ridges and cells.
//!
//! All functions are pure in their seed and coordinates. Gradient noise interpolates, between the four corners of
//! a unit cell, the ramps that random directions at the corners give (Perlin 2002: quintic weights).

use super::random::{lattice, unit_of};

/// Largest whole number not above `x`; exact for `|x| < 2^31`.
#[inline(always)]
pub fn floor(x: f32) -> i32 {
    let i = x as i32;
    i - i32::from((i as f32) > x)
}

/// The ramp that lattice point `bits` gives at offset `(dx, dy)`. Its direction has two byte-sized parts: no table,
/// so that loops over noise vectorise.
#[inline(always)]
fn ramp(bits: u32, dx: f32, dy: f32) -> f32 {
    let part = |b: u32| (b & 255) as i32 as f32 - 127.5;
    (part(bits >> 24) * dx + part(bits >> 16) * dy) * (1.0 / 100.0)
}

/// Gradient noise with features of size 1, mostly in `[-1, 1]` (never beyond 1.9), mean 0.
#[inline(always)]
pub fn gradient(seed: u32, x: f32, y: f32) -> f32 {
    let (xi, yi) = (floor(x), floor(y));
    let (fx, fy) = (x - xi as f32, y - yi as f32);
    let weight = |t: f32| t * t * t * (t * (t * 6.0 - 15.0) + 10.0);
    let (wx, wy) = (weight(fx), weight(fy));
    let (xj, yj) = (xi.wrapping_add(1), yi.wrapping_add(1));
    let a = ramp(lattice(seed, xi, yi), fx, fy);
    let b = ramp(lattice(seed, xj, yi), fx - 1.0, fy);
    let c = ramp(lattice(seed, xi, yj), fx, fy - 1.0);
    let d = ramp(lattice(seed, xj, yj), fx - 1.0, fy - 1.0);
    let top = a + (b - a) * wx;
    let bottom = c + (d - c) * wx;
    (top + (bottom - top) * wy) * 1.5
}

/// `octaves` layers of [`gradient`], each twice as fine and half as strong; about in `[-1, 1]`.
pub fn fractal(seed: u32, x: f32, y: f32, octaves: u32) -> f32 {
    let (mut sum, mut strength, mut total) = (0.0, 1.0, 0.0);
    let (mut x, mut y) = (x, y);
    for octave in 0..octaves {
        sum += gradient(seed.wrapping_add(octave.wrapping_mul(0x9E37_79B9)), x, y) * strength;
        total += strength;
        strength *= 0.5;
        // Turning by about 37 degrees as well hides the lattice.
        (x, y) = (1.6 * x - 1.2 * y + 0.37, 1.2 * x + 1.6 * y + 0.71);
    }
    sum / total
}

/// Lines where [`gradient`] changes sign: 1 on the line, falling to 0; `x` and `y` in units of the line spacing.
#[inline]
pub fn ridge(seed: u32, x: f32, y: f32) -> f32 {
    1.0 - gradient(seed, x, y).abs().min(1.0)
}

/// Cells around one random point in each unit square.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// Distance to the nearest point.
    pub nearest: f32,
    /// How much farther the second nearest is: 0 on the wall between two cells.
    pub wall: f32,
    /// Random bits of the cell.
    pub bits: u32,
}

/// The cell that `(x, y)` lies in (Worley 1996).
pub fn cell(seed: u32, x: f32, y: f32) -> Cell {
    let (xi, yi) = (floor(x), floor(y));
    let (mut first, mut second, mut bits) = (9.0f32, 9.0f32, 0);
    for dy in -1..=1 {
        for dx in -1..=1 {
            let (cx, cy) = (xi.wrapping_add(dx), yi.wrapping_add(dy));
            let h = lattice(seed, cx, cy);
            let (px, py) = (
                cx as f32 + unit_of(h),
                cy as f32 + unit_of(h.wrapping_mul(0x9E37_79B1)),
            );
            let distance = (px - x) * (px - x) + (py - y) * (py - y);
            if distance < first {
                (second, first, bits) = (first, distance, h);
            } else if distance < second {
                second = distance;
            }
        }
    }
    let (first, second) = (first.sqrt(), second.sqrt());
    Cell {
        nearest: first,
        wall: second - first,
        bits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_is_floor() {
        for (x, expected) in [(0.0, 0), (0.9, 0), (-0.1, -1), (-1.0, -1), (5.5, 5), (-2.5, -3)] {
            assert_eq!(floor(x), expected, "{x}");
        }
    }

    #[test]
    fn gradient_noise_is_bounded_centred_and_smooth() {
        let (mut sum, mut peak, mut step) = (0.0f64, 0.0f32, 0.0f32);
        for i in 0..20_000 {
            let (x, y) = (i as f32 * 0.137, i as f32 * -0.071);
            let value = gradient(11, x, y);
            sum += f64::from(value);
            peak = peak.max(value.abs());
            step = step.max((gradient(11, x + 0.001, y) - value).abs());
        }
        assert!(
            (sum / 20_000.0).abs() < 0.02 && peak < 1.5 && peak > 0.7 && step < 0.01,
            "{sum} {peak} {step}"
        );
    }

    #[test]
    fn cell_walls_are_never_negative() {
        for i in 0..2000 {
            let c = cell(5, i as f32 * 0.31, i as f32 * 0.17);
            assert!(c.wall >= 0.0 && c.nearest < 1.5);
        }
    }
}
