//! The surface of the tissue at an instant: heights between the samples, and where rays meet it.

use super::lanes::{LANES, Lanes};
use super::relief::{EXTENT_MM, SIDE, STEP_MM};
use super::vector::Vec3;

/// Height and the shift of the material, per sample.
#[derive(Debug)]
pub struct Surface {
    heights_mm: Vec<f32>,
    /// Shift in x and y, mm, and hollow, 0 to 1.
    shifts: Vec<[f32; 3]>,
    /// No height lies above this, mm.
    top_mm: f32,
}

/// Column and row of the sample before `(x, y)` and the fractions of the way to the next; points outside the
/// square take the value at its border.
#[inline(always)]
pub fn locate(x: f32, y: f32) -> (u32, u32, f32, f32) {
    const LAST: f32 = (SIDE - 1) as f32 - 1e-3;
    let gx = ((x + EXTENT_MM * 0.5) * (1.0 / STEP_MM)).clamp(0.0, LAST);
    let gy = ((y + EXTENT_MM * 0.5) * (1.0 / STEP_MM)).clamp(0.0, LAST);
    let (xi, yi) = (gx as i32, gy as i32);
    (xi as u32, yi as u32, gx - xi as f32, gy - yi as f32)
}

/// What lies between two rows of two values.
#[inline(always)]
fn between([a, b]: [f32; 2], [c, d]: [f32; 2], fx: f32, fy: f32) -> f32 {
    let (top, bottom) = (a + (b - a) * fx, c + (d - c) * fx);
    top + (bottom - top) * fy
}

/// The samples around points: the first of each four and the fractions of the way to the others.
struct Corners {
    base: [u32; LANES],
    fx: Lanes,
    fy: Lanes,
}

impl Corners {
    #[inline(always)]
    fn new(x: &Lanes, y: &Lanes) -> Self {
        let mut corners = Self {
            base: [0; LANES],
            fx: [0.0; LANES],
            fy: [0.0; LANES],
        };
        for i in 0..LANES {
            let (xi, yi, fx, fy) = locate(x[i], y[i]);
            corners.base[i] = yi * SIDE as u32 + xi;
            (corners.fx[i], corners.fy[i]) = (fx, fy);
        }
        corners
    }

    /// What lies between the values at the four corners.
    #[inline(always)]
    fn between(&self, [a, b, c, d]: &[Lanes; 4]) -> Lanes {
        let mut out = [0.0; LANES];
        for (i, out) in out.iter_mut().enumerate() {
            *out = between([a[i], b[i]], [c[i], d[i]], self.fx[i], self.fy[i]);
        }
        out
    }
}

impl Surface {
    /// The surface of these samples, `[SIDE, SIDE]`: heights (mm), then shifts in x and y (mm) and hollow.
    pub fn new(heights_mm: Vec<f32>, shifts: Vec<[f32; 3]>) -> Self {
        let top_mm = heights_mm.iter().fold(f32::MIN, |top, &height| top.max(height));
        Self {
            heights_mm,
            shifts,
            top_mm,
        }
    }

    /// Shifts in x and y and hollows at points.
    #[inline(always)]
    pub fn shifts(&self, x: &Lanes, y: &Lanes) -> [Lanes; 3] {
        let corners = Corners::new(x, y);
        let mut values = [[[0.0f32; LANES]; 4]; 3];
        for (i, &base) in corners.base.iter().enumerate() {
            let part = &self.shifts[base as usize..][..SIDE + 2];
            for (values, k) in values.iter_mut().zip(0..3) {
                values[0][i] = part[0][k];
                values[1][i] = part[1][k];
                values[2][i] = part[SIDE][k];
                values[3][i] = part[SIDE + 1][k];
            }
        }
        let [shift_x, shift_y, hollow] = &values;
        [
            corners.between(shift_x),
            corners.between(shift_y),
            corners.between(hollow),
        ]
    }

    /// Height at `(x, y)`, mm.
    pub fn height_mm(&self, x: f32, y: f32) -> f32 {
        let (xi, yi, fx, fy) = locate(x, y);
        let part = &self.heights_mm[yi as usize * SIDE + xi as usize..][..SIDE + 2];
        between([part[0], part[1]], [part[SIDE], part[SIDE + 1]], fx, fy)
    }

    /// Heights at points, mm.
    #[inline(always)]
    pub fn heights_mm(&self, x: &Lanes, y: &Lanes) -> Lanes {
        let corners = Corners::new(x, y);
        let mut v = [[0.0f32; LANES]; 4];
        for (i, &base) in corners.base.iter().enumerate() {
            let part = &self.heights_mm[base as usize..][..SIDE + 2];
            v[0][i] = part[0];
            v[1][i] = part[1];
            v[2][i] = part[SIDE];
            v[3][i] = part[SIDE + 1];
        }
        corners.between(&v)
    }

    /// The upward normals at points, not of unit length, from differences over `reach_mm`.
    #[inline(always)]
    pub fn normals(&self, x: &Lanes, y: &Lanes, reach_mm: f32) -> [Lanes; 3] {
        let moved = |from: &Lanes, by: f32| {
            let mut to = *from;
            to.iter_mut().for_each(|to| *to += by);
            to
        };
        let east = self.heights_mm(&moved(x, reach_mm), y);
        let west = self.heights_mm(&moved(x, -reach_mm), y);
        let north = self.heights_mm(x, &moved(y, reach_mm));
        let south = self.heights_mm(x, &moved(y, -reach_mm));
        let mut normals = [[0.0; LANES], [0.0; LANES], [2.0 * reach_mm; LANES]];
        for i in 0..LANES {
            normals[0][i] = -(east[i] - west[i]);
            normals[1][i] = -(north[i] - south[i]);
        }
        normals
    }

    /// How far along the rays from `origin` in (downward) directions `d` the surface is first met at or after
    /// `from`, in lengths of `d`.
    #[inline(always)]
    pub fn meet(&self, origin: Vec3, d: &[Lanes; 3], from: &Lanes) -> Lanes {
        // Heights change by at most this much per mm, nearly everywhere; a steeper spot costs a texel's blur.
        const SLOPE: f32 = 0.9;
        /// A ray that falls less than this meets nothing.
        const LEAST_DROP: f32 = 1e-3;
        let (mut t, mut advance) = ([0.0f32; LANES], [0.0f32; LANES]);
        let (mut x, mut y) = ([0.0f32; LANES], [0.0f32; LANES]);
        for i in 0..LANES {
            let drop = (-d[2][i]).max(LEAST_DROP);
            let flat = (d[0][i] * d[0][i] + d[1][i] * d[1][i]).sqrt();
            t[i] = ((origin.z - self.top_mm) / drop).max(from[i]);
            advance[i] = 1.0 / (drop + SLOPE * flat);
        }
        for _ in 0..48 {
            for i in 0..LANES {
                x[i] = origin.x + d[0][i] * t[i];
                y[i] = origin.y + d[1][i] * t[i];
            }
            let heights = self.heights_mm(&x, &y);
            let mut far = 0u32;
            for i in 0..LANES {
                let gap = (origin.z + d[2][i] * t[i]) - heights[i];
                t[i] += gap * advance[i];
                // Where it is met, the ray stays.
                let met = gap < 0.03;
                advance[i] = if met { 0.0 } else { advance[i] };
                far |= u32::from(!met);
            }
            if far == 0 {
                break;
            }
        }
        for (t, z) in t.iter_mut().zip(&d[2]) {
            *t = if -z <= LEAST_DROP { 400.0 } else { t.min(400.0) };
        }
        t
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::phantom::random::Random;
    use crate::data::phantom::relief::tests::relief;
    use crate::data::phantom::vector::vec3;

    #[test]
    fn rays_meet_the_surface_where_small_steps_do() {
        let mut random = Random::new(12);
        let surface = relief(3).at(0.4, &[]);
        for case in 0..200 {
            let origin = vec3(random.range(-20.0, 20.0), random.range(-20.0, 20.0), 75.0);
            let d = vec3(random.range(-0.7, 0.7), random.range(-0.7, 0.7), -1.0);
            let rays = [[d.x; LANES], [d.y; LANES], [d.z; LANES]];
            let found = surface.meet(origin, &rays, &[0.0; LANES])[0];
            let above = |t: f32| {
                let p = origin + d * t;
                p.z > surface.height_mm(p.x, p.y)
            };
            let stepped = (0..20_000)
                .map(|i| i as f32 * 0.005)
                .find(|&t| !above(t))
                .unwrap();
            // A ray that grazes may stop where it is nearly there.
            let p = origin + d * found;
            let gap = p.z - surface.height_mm(p.x, p.y);
            let close = (found - stepped).abs() < 0.4;
            assert!(
                close || gap.abs() < 0.06,
                "case {case}: {found} and {stepped}, gap {gap}"
            );
        }
    }
}
