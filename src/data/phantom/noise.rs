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

/// Some layers of noise on top of each other.
struct Layers {
    sum: f32,
    total: f32,
    strength: f32,
    seed: u32,
    x: f32,
    y: f32,
}

impl Layers {
    #[inline(always)]
    fn add(&mut self) {
        let (x, y) = (self.x, self.y);
        self.sum += gradient(self.seed, x, y) * self.strength;
        self.total += self.strength;
        self.strength *= 0.5;
        self.seed = self.seed.wrapping_add(0x9E37_79B9);
        // Turning by about 37 degrees as well hides the lattice.
        (self.x, self.y) = (1.6 * x - 1.2 * y + 0.37, 1.2 * x + 1.6 * y + 0.71);
    }
}

/// `OCTAVES` layers of [`gradient`], two to four, each twice as fine and half as strong; about in `[-1, 1]`.
#[inline(always)]
pub fn fractal<const OCTAVES: usize>(seed: u32, x: f32, y: f32) -> f32 {
    const { assert!(2 <= OCTAVES && OCTAVES <= 4) };
    let mut layers = Layers {
        sum: 0.0,
        total: 0.0,
        strength: 1.0,
        seed,
        x,
        y,
    };
    // Written out: with a loop in here, loops over points would not vectorise.
    layers.add();
    layers.add();
    if OCTAVES > 2 {
        layers.add();
    }
    if OCTAVES > 3 {
        layers.add();
    }
    layers.sum / layers.total
}

/// Lines where [`gradient`] changes sign: 1 on the line, falling to 0; `x` and `y` in units of the line spacing.
#[inline(always)]
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
#[inline(always)]
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
            let nearer = distance < first;
            second = if nearer { first } else { distance.min(second) };
            first = distance.min(first);
            bits = if nearer { h } else { bits };
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
