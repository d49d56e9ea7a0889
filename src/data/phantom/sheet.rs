//! What the tissue is made of: colour, gloss, fine relief and class at each point, painted once per sequence.
//!
//! The sheet covers the square of [`super::relief`]. A texel is one 64-bit word of eight bytes:
//! red, green, blue (square roots of reflectance), gloss, slope in x, slope in y, blood threshold, spare, from the
//! lowest byte up.

use super::anatomy::{Anatomy, Places};
use super::lanes::{LANES, dispatch};
use super::materials::Materials;
use super::relief::{EXTENT_MM, Relief};
use super::scenario::Palette;
use super::vector::{Vec3, vec3};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Slopes of the fine relief are stored in units of `1 / SLOPE_SCALE`, offset by 128.
pub const SLOPE_SCALE: f32 = 110.0;

/// The painted square.
#[derive(Debug)]
pub struct Sheet {
    side: usize,
    axis: (f32, f32),
    texels: Vec<u64>,
    classes: Vec<u8>,
}

impl Sheet {
    /// Paints `anatomy` with `side` texels along each side, lines of them in the direction of the unit vector `axis`
    /// of the plane: the camera's right, so that a row of pixels reads along a line.
    pub fn new(
        seed: u64,
        side: usize,
        axis: (f32, f32),
        anatomy: &Anatomy,
        relief: &Relief,
        palette: &Palette,
    ) -> Self {
        let materials = Materials::new(seed, palette);
        let step_mm = EXTENT_MM / (side - 1) as f32;
        let mut sheet = Self {
            side,
            axis,
            texels: vec![0; side * side],
            classes: vec![0; side * side],
        };
        let mut grains_mm = vec![0.0f32; side * side];
        sheet
            .texels
            .par_chunks_mut(side)
            .zip(sheet.classes.par_chunks_mut(side))
            .zip(grains_mm.par_chunks_mut(side))
            .enumerate()
            .for_each(|(row, ((texels, classes), grains_mm))| {
                dispatch(PaintRow {
                    anatomy,
                    relief,
                    materials: &materials,
                    axis,
                    step_mm,
                    row,
                    texels,
                    classes,
                    grains_mm,
                });
            });
        sheet
            .texels
            .par_chunks_mut(side)
            .enumerate()
            .for_each(|(y, texels)| {
                let rows = [y.saturating_sub(1), y, (y + 1).min(side - 1)].map(|y| y * side..(y + 1) * side);
                dispatch(SlopeRow {
                    grains_mm: rows.clone().map(|row| &grains_mm[row]),
                    classes: rows.map(|row| &sheet.classes[row]),
                    step_mm,
                    texels,
                });
            });
        sheet
    }

    /// Sheet coordinates of the point `(x, y)` of the plane, mm.
    #[inline(always)]
    pub fn locate(&self, x: f32, y: f32) -> (f32, f32) {
        let per_mm = (self.side - 1) as f32 / EXTENT_MM;
        let origin = (self.side - 1) as f32 * 0.5;
        let (ax, ay) = self.axis;
        (
            (x * ax + y * ay) * per_mm + origin,
            (y * ax - x * ay) * per_mm + origin,
        )
    }

    /// World directions in which the two sheet coordinates grow.
    pub fn axes(&self) -> (Vec3, Vec3) {
        let (ax, ay) = self.axis;
        (vec3(ax, ay, 0.0), vec3(-ay, ax, 0.0))
    }

    /// Sheet coordinates, held on the sheet, in whole numbers of 256ths.
    #[inline(always)]
    pub fn fixed(&self, u: f32) -> u32 {
        // One texel less than the side less two 256ths, so that rounding cannot leave the sheet. Added to 2^23, a
        // whole number is what the last 23 bits of the sum hold: exact, and cheaper in vectors than a conversion.
        let last = (self.side - 1) as f32 * 256.0 - 2.0;
        ((u * 256.0).clamp(0.0, last) + 8_388_608.0).to_bits() & 0x7F_FFFF
    }

    /// The texels at sheet coordinates `us` and `vs` ([`Sheet::fixed`]), interpolated, and the classes of the nearest
    /// ones; all four slices are of one length.
    #[inline(always)]
    pub fn sample(&self, us: &[u32], vs: &[u32], texels: &mut [u64], classes: &mut [u8]) {
        let places = us.chunks(LANES).zip(vs.chunks(LANES));
        let blocks = texels.chunks_mut(LANES).zip(classes.chunks_mut(LANES));
        for ((texels, classes), (us, vs)) in blocks.zip(places) {
            let (mut u, mut v) = ([0; LANES], [0; LANES]);
            u[..us.len()].copy_from_slice(us);
            v[..vs.len()].copy_from_slice(vs);
            let mut corners = [[0; LANES]; 4];
            let side = self.side;
            for (i, class) in classes.iter_mut().enumerate() {
                let base = (v[i] >> 8) as usize * side + (u[i] >> 8) as usize;
                let part = &self.texels[base..][..side + 2];
                corners[0][i] = part[0];
                corners[1][i] = part[1];
                corners[2][i] = part[side];
                corners[3][i] = part[side + 1];
                let near = base + usize::from(u[i] & 128 > 0) + if v[i] & 128 > 0 { side } else { 0 };
                *class = self.classes[near];
            }
            let mut mixed = [0; LANES];
            for (i, mixed) in mixed.iter_mut().enumerate() {
                *mixed = mix_texels(corners.each_ref().map(|corner| corner[i]), u[i], v[i]);
            }
            texels.copy_from_slice(&mixed[..texels.len()]);
        }
    }
}

/// The texel between four, at the fractions (256ths) in the low bytes of `u` and `v`.
#[inline(always)]
fn mix_texels([a, b, c, d]: [u64; 4], u: u32, v: u32) -> u64 {
    const EVEN: u64 = 0x00FF_00FF_00FF_00FF;
    let (wx, wy) = (u64::from(u & 255), u64::from(v & 255));
    // Four bytes at a time, each in a lane of 16 bits. The weighted sum of two lanes never leaves its lane, so
    // the whole words can be added and multiplied, wrapping in between.
    let mix = |a: u64, b: u64, w: u64| ((a << 8).wrapping_add(b.wrapping_sub(a).wrapping_mul(w)) >> 8) & EVEN;
    let even = mix(mix(a & EVEN, b & EVEN, wx), mix(c & EVEN, d & EVEN, wx), wy);
    let odd = |t: u64| (t >> 8) & EVEN;
    let odd = mix(mix(odd(a), odd(b), wx), mix(odd(c), odd(d), wx), wy);
    even | (odd << 8)
}

/// Paints a row of the sheet, all but the slopes.
struct PaintRow<'a> {
    anatomy: &'a Anatomy,
    relief: &'a Relief,
    materials: &'a Materials<'a>,
    axis: (f32, f32),
    step_mm: f32,
    row: usize,
    texels: &'a mut [u64],
    classes: &'a mut [u8],
    /// Heights of the fine relief, mm.
    grains_mm: &'a mut [f32],
}

impl WithSimd for PaintRow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let place = |i: usize| i as f32 * self.step_mm - EXTENT_MM * 0.5;
        let blocks = self
            .texels
            .chunks_mut(LANES)
            .zip(self.classes.chunks_mut(LANES))
            .zip(self.grains_mm.chunks_mut(LANES));
        for (block, ((texels, classes), grains_mm)) in blocks.enumerate() {
            let (b, (ax, ay)) = (place(self.row), self.axis);
            let mut places = Places::new(|i| {
                let a = place(block * LANES + i);
                (a * ax - b * ay, a * ay + b * ax)
            });
            if self.anatomy.bowel.is_some() {
                for i in 0..LANES {
                    if let Some(point) = self.relief.tube_point(places.x[i], places.y[i]) {
                        places.put(i, point);
                    }
                }
            }
            let sites = self.anatomy.sites(&places);
            let paints = self.materials.paint(&places, &sites);
            classes.copy_from_slice(&sites.class[..classes.len()]);
            grains_mm.copy_from_slice(&paints.grain_mm[..grains_mm.len()]);
            texels.copy_from_slice(&paints.packed()[..texels.len()]);
        }
    }
}

/// Adds the slopes of the fine relief to a row of texels.
struct SlopeRow<'a> {
    /// Heights in the rows above, here and below, mm; at the border the row itself.
    grains_mm: [&'a [f32]; 3],
    classes: [&'a [u8]; 3],
    step_mm: f32,
    texels: &'a mut [u64],
}

impl SlopeRow<'_> {
    /// Texel `x`, of which `left` and `right` are the neighbours.
    #[inline(always)]
    fn add(&mut self, left: usize, x: usize, right: usize) {
        let [above, here, below] = self.grains_mm;
        let [class_above, class_here, class_below] = self.classes;
        let (own, class) = (here[x], class_here[x]);
        // Where two materials meet there is no slope between them: their grains do not continue each other.
        let height = |other: u8, height: f32| if other == class { height } else { own };
        let (west, east) = (
            height(class_here[left], here[left]),
            height(class_here[right], here[right]),
        );
        let (north, south) = (height(class_above[x], above[x]), height(class_below[x], below[x]));
        let slope_x = (east - west) / (2.0 * self.step_mm);
        let slope_y = (south - north) / (2.0 * self.step_mm);
        // No grain is this steep: two loops of intestine meet here.
        let seam = slope_x.abs().max(slope_y.abs()) > 2.0;
        let byte = |v: f32| {
            let slope = (v * SLOPE_SCALE + 128.0).clamp(1.0, 255.0) as i32 as u64;
            if seam { 128 } else { slope }
        };
        self.texels[x] |= byte(slope_x) << 32 | byte(slope_y) << 40;
    }
}

impl WithSimd for SlopeRow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        let last = self.texels.len() - 1;
        self.grains_mm = self.grains_mm.map(|row| &row[..=last]);
        self.classes = self.classes.map(|row| &row[..=last]);
        self.add(0, 0, 1);
        for x in 1..last {
            self.add(x - 1, x, x + 1);
        }
        self.add(last - 1, last, last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::phantom::random::Random;

    #[test]
    fn packed_interpolation_is_interpolation() {
        let side = 16;
        let mut random = Random::new(4);
        let texels: Vec<u64> = (0..side * side).map(|_| random.bits()).collect();
        let classes: Vec<u8> = (0..side * side).map(|i| i as u8).collect();
        let sheet = Sheet {
            side,
            axis: (1.0, 0.0),
            texels,
            classes,
        };
        for case in 0..500 {
            let (u, v) = (random.range(-2.0, 17.0), random.range(-2.0, 17.0));
            let (mut got, mut class) = ([0], [0]);
            sheet.sample(&[sheet.fixed(u)], &[sheet.fixed(v)], &mut got, &mut class);
            let ([got], [class]) = (got, class);
            let got = got.to_le_bytes();
            let (u, v) = (u.clamp(0.0, 14.99), v.clamp(0.0, 14.99));
            let (x, y) = (u as usize, v as usize);
            let (fx, fy) = (u - x as f32, v - y as f32);
            for (channel, got) in got.into_iter().enumerate() {
                let at = |x: usize, y: usize| f32::from(sheet.texels[y * side + x].to_le_bytes()[channel]);
                let top = at(x, y) * (1.0 - fx) + at(x + 1, y) * fx;
                let bottom = at(x, y + 1) * (1.0 - fx) + at(x + 1, y + 1) * fx;
                let exact = top * (1.0 - fy) + bottom * fy;
                assert!(
                    (f32::from(got) - exact).abs() < 4.0,
                    "case {case}: {got} and {exact}"
                );
            }
            let (nx, ny) = ((u + 0.5) as usize, (v + 0.5) as usize);
            let near = ((u + 0.5).fract() - 0.5).abs() < 0.49 && ((v + 0.5).fract() - 0.5).abs() < 0.49;
            assert!(!near || usize::from(class) == ny * side + nx, "case {case}");
        }
    }

    #[test]
    fn places_are_found_where_they_were_painted() {
        let (ax, ay) = (0.6f32, 0.8f32);
        let sheet = Sheet {
            side: 101,
            axis: (ax, ay),
            texels: Vec::new(),
            classes: Vec::new(),
        };
        let step = EXTENT_MM / 100.0;
        for (column, row) in [(0.0, 0.0), (50.0, 50.0), (73.0, 20.0)] {
            let (a, b) = (column * step - EXTENT_MM * 0.5, row * step - EXTENT_MM * 0.5);
            let (u, v) = sheet.locate(a * ax - b * ay, a * ay + b * ax);
            assert!((u - column).abs() < 1e-3 && (v - row).abs() < 1e-3, "{u} {v}");
        }
        let (along, across) = sheet.axes();
        let (u, v) = sheet.locate(along.x + 2.0 * across.x, along.y + 2.0 * across.y);
        assert!((u - 50.0 - 1.0 / step).abs() < 1e-3 && (v - 50.0 - 2.0 / step).abs() < 1e-3);
    }
}
