//! What the tissue is made of: colour, gloss, fine relief and class at each point, painted once per sequence.
//!
//! The sheet covers the square of [`super::relief`]. A texel is one 64-bit word of eight bytes:
//! red, green, blue (square roots of reflectance), gloss, slope in x, slope in y, blood threshold, spare, from the
//! lowest byte up.

use super::anatomy::{Anatomy, Site, class};
use super::noise::{cell, fractal, gradient, ridge};
use super::random::{Random, unit_of};
use super::relief::{EXTENT_MM, Relief};
use super::scenario::Palette;
use super::vector::{Vec3, lerp, smoothstep, vec3};
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

/// What one point is made of, before packing.
struct Paint {
    color: Vec3,
    gloss: f32,
    /// Height of the fine relief, mm.
    grain_mm: f32,
    blood: f32,
    class: u8,
}

/// Parameters of the materials of one sequence.
struct Materials {
    seed: u32,
    flow: (f32, f32),
    grain: f32,
    vessels: f32,
    lobe_mm: f32,
    band_mm: f32,
    wet: f32,
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
        let mut random = Random::stream(seed, "sheet");
        let (sin, cos) = libm::sincosf(random.range(0.0, std::f32::consts::TAU));
        let materials = Materials {
            seed: random.bits() as u32,
            flow: (cos, sin),
            grain: random.range(0.7, 1.2),
            vessels: random.range(0.5, 1.0),
            lobe_mm: random.range(5.0, 7.5),
            band_mm: random.range(3.4, 4.6),
            wet: random.range(0.75, 1.15),
        };
        let step = EXTENT_MM / (side - 1) as f32;
        let place = |i: usize| i as f32 * step - EXTENT_MM * 0.5;
        let mut paints: Vec<(Vec3, f32, f32, f32)> = Vec::new();
        let mut classes = vec![0u8; side * side];
        (0..side * side)
            .into_par_iter()
            .map(|i| {
                let (a, b) = (place(i % side), place(i / side));
                let (x, y) = (a * axis.0 - b * axis.1, a * axis.1 + b * axis.0);
                let site = anatomy.site(x, y, relief.tube_point(x, y));
                let paint = materials.paint(x, y, &site, palette);
                (
                    (paint.color, paint.gloss, paint.grain_mm, paint.blood),
                    paint.class,
                )
            })
            .unzip_into_vecs(&mut paints, &mut classes);
        let texels = (0..side * side)
            .into_par_iter()
            .map(|i| {
                let (x, y) = (i % side, i / side);
                // Where two materials meet there is no slope between them: their grains do not continue each other.
                let height = |x: usize, y: usize| {
                    let j = y.min(side - 1) * side + x.min(side - 1);
                    if classes[j] == classes[i] {
                        paints[j].2
                    } else {
                        paints[i].2
                    }
                };
                let slope_x = (height(x + 1, y) - height(x.saturating_sub(1), y)) / (2.0 * step);
                let slope_y = (height(x, y + 1) - height(x, y.saturating_sub(1))) / (2.0 * step);
                let (color, gloss, _, blood) = paints[i];
                let byte = |v: f32| (v.clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
                // No grain is this steep: two loops of intestine meet here.
                let seam = slope_x.abs().max(slope_y.abs()) > 2.0;
                let slope = |v: f32| {
                    if seam {
                        128
                    } else {
                        (v * SLOPE_SCALE + 128.0).clamp(1.0, 255.0) as u8
                    }
                };
                u64::from_le_bytes([
                    byte(color.x.max(0.0).sqrt()),
                    byte(color.y.max(0.0).sqrt()),
                    byte(color.z.max(0.0).sqrt()),
                    byte(gloss),
                    slope(slope_x),
                    slope(slope_y),
                    byte(blood),
                    0,
                ])
            })
            .collect();
        Self {
            side,
            axis,
            texels,
            classes,
        }
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

    /// The texel at sheet coordinates `(fu, fv)` ([`Sheet::fixed`]), interpolated, and the class of the nearest one.
    #[inline(always)]
    pub fn sample(&self, fu: u32, fv: u32) -> (u64, u8) {
        // Eight bits of fraction: weights of 0 to 255 of 256.
        let (wx, wy) = (u64::from(fu & 255), u64::from(fv & 255));
        let base = (fv >> 8) as usize * self.side + (fu >> 8) as usize;
        let near = base + usize::from(wx > 127) + if wy > 127 { self.side } else { 0 };
        let texels = &self.texels[base..base + self.side + 2];
        let (a, b, c, d) = (texels[0], texels[1], texels[self.side], texels[self.side + 1]);
        const EVEN: u64 = 0x00FF_00FF_00FF_00FF;
        // Four bytes at a time, each in a lane of 16 bits. The weighted sum of two lanes never leaves its lane, so
        // the whole words can be added and multiplied, wrapping in between.
        let mix =
            |a: u64, b: u64, w: u64| ((a << 8).wrapping_add(b.wrapping_sub(a).wrapping_mul(w)) >> 8) & EVEN;
        let even = mix(mix(a & EVEN, b & EVEN, wx), mix(c & EVEN, d & EVEN, wx), wy);
        let odd = |t: u64| (t >> 8) & EVEN;
        let odd = mix(mix(odd(a), odd(b), wx), mix(odd(c), odd(d), wx), wy);
        (even | (odd << 8), self.classes[near])
    }
}

impl Materials {
    fn paint(&self, x: f32, y: f32, site: &Site, palette: &Palette) -> Paint {
        let mut paint = match site.class {
            class::KIDNEY => self.kidney(x, y, site, palette),
            class::COVERED_KIDNEY => self.fat(x, y, site, palette),
            class::INTESTINE => self.bowel(x, y, site, palette),
            _ => self.ground(x, y, palette),
        };
        paint.class = site.class;
        paint.blood = 0.5 + 0.5 * fractal(self.seed ^ 0xB1, x * 0.045, y * 0.045, 4);
        paint.gloss *= self.wet * (0.75 + 0.35 * gradient(self.seed ^ 0x61, x * 0.14, y * 0.14));
        paint
    }

    /// Connective tissue: tones in large patches, strands along one direction, a net of vessels.
    fn ground(&self, x: f32, y: f32, palette: &Palette) -> Paint {
        let s = self.seed;
        let warp_x = x + 4.0 * gradient(s ^ 1, x * 0.06, y * 0.06);
        let warp_y = y + 4.0 * gradient(s ^ 2, x * 0.06, y * 0.06);
        let patch = fractal(s ^ 3, warp_x * 0.035, warp_y * 0.035, 4);
        let patch2 = fractal(s ^ 4, warp_x * 0.028, warp_y * 0.028, 3);
        let mut color = palette.ground[0].lerp(palette.ground[1], smoothstep(-0.15, 0.3, patch));
        color = color.lerp(palette.ground[2], smoothstep(0.05, 0.45, patch2));
        let along = warp_x * self.flow.0 + warp_y * self.flow.1;
        let across = warp_y * self.flow.0 - warp_x * self.flow.1;
        let fibre = ridge(s ^ 5, along * 0.035, across * 0.28);
        let fine = gradient(s ^ 6, along * 0.10, across * 1.1);
        let strand = smoothstep(0.70, 0.98, fibre) * smoothstep(-0.3, 0.4, patch2);
        color = color.lerp(palette.strand, 0.55 * strand + 0.10 * fine.max(0.0));
        color = color * (1.0 + 0.10 * fine);
        let vessel = self.vessels(warp_x, warp_y);
        color = color.lerp(palette.vessel, vessel * 0.75);
        let grain = fractal(s ^ 7, x * 0.7, y * 0.7, 2);
        color = color * (1.0 + 0.07 * grain * self.grain);
        let grain_mm = 0.16 * strand
            + 0.10 * fine
            + 0.10 * grain * self.grain
            + 0.14 * vessel
            + 0.5 * gradient(s ^ 8, x * 0.22, y * 0.22);
        Paint {
            color,
            gloss: 0.62,
            grain_mm,
            blood: 0.0,
            class: 0,
        }
    }

    /// Branching vessels of two widths, 0 to 1.
    fn vessels(&self, x: f32, y: f32) -> f32 {
        let s = self.seed;
        let wx = x + 2.2 * gradient(s ^ 11, x * 0.16, y * 0.16);
        let wy = y + 2.2 * gradient(s ^ 12, x * 0.16, y * 0.16);
        let wide = smoothstep(0.935, 0.975, ridge(s ^ 13, wx * 0.036, wy * 0.036));
        let thin = smoothstep(0.93, 0.98, ridge(s ^ 14, wx * 0.10, wy * 0.10));
        let keep = smoothstep(-0.25, 0.2, gradient(s ^ 15, x * 0.05, y * 0.05));
        (wide * 0.8).max(thin * 0.6 * keep) * self.vessels
    }

    /// Kidney: smooth and glossy, with a fine regular mottle.
    fn kidney(&self, x: f32, y: f32, site: &Site, palette: &Palette) -> Paint {
        let s = self.seed ^ 0x4B1D;
        let tone = fractal(s, x * 0.05, y * 0.05, 3);
        let mut color = palette.kidney[0].lerp(palette.kidney[1], smoothstep(-0.35, 0.45, tone));
        // Small veins in stars and polygons under the capsule, and pores in their meshes.
        let wx = x + 1.1 * gradient(s ^ 4, x * 0.35, y * 0.35);
        let wy = y + 1.1 * gradient(s ^ 5, x * 0.35, y * 0.35);
        let mesh = cell(s ^ 1, wx * 0.42, wy * 0.42);
        let faint = 0.5 + 0.5 * gradient(s ^ 6, x * 0.09, y * 0.09);
        let vein = (1.0 - smoothstep(0.03, 0.16, mesh.wall)) * faint;
        let pore = (1.0 - smoothstep(0.10, 0.34, mesh.nearest)) * (0.2 + 0.8 * unit_of(mesh.bits));
        color = color.lerp(palette.vessel, 0.34 * vein);
        color = color * (1.0 - 0.30 * pore);
        let fine = gradient(s ^ 2, x * 1.5, y * 1.5);
        color = color * (1.0 + 0.09 * fine);
        let edge = smoothstep(0.0, 0.10, site.reach);
        color = color * (0.62 + 0.38 * edge);
        let grain_mm = -0.03 * pore + 0.03 * fine + 0.25 * gradient(s ^ 3, x * 0.12, y * 0.12);
        Paint {
            color,
            gloss: 0.95,
            grain_mm,
            blood: 0.0,
            class: 0,
        }
    }

    /// Fat over the kidney: lobules with dark septa, thin vessels between them.
    fn fat(&self, x: f32, y: f32, site: &Site, palette: &Palette) -> Paint {
        let s = self.seed ^ 0xFA7;
        let wx = x + 1.6 * gradient(s ^ 1, x * 0.2, y * 0.2);
        let wy = y + 1.6 * gradient(s ^ 2, x * 0.2, y * 0.2);
        let scale = 1.0 / self.lobe_mm;
        let lobe = cell(s ^ 3, wx * scale, wy * scale);
        let small = cell(s ^ 4, wx * scale * 2.6, wy * scale * 2.6);
        let tone = 0.5 * unit_of(lobe.bits) + 0.35 + 0.5 * gradient(s ^ 6, x * 0.05, y * 0.05);
        let mut color = palette.fat[0].lerp(palette.fat[1], tone.clamp(0.0, 1.0));
        let septum = 1.0 - smoothstep(0.0, 0.16, lobe.wall);
        let crease = 1.0 - smoothstep(0.0, 0.20, small.wall);
        color = color.lerp(palette.vessel.lerp(color, 0.45), septum * 0.7);
        color = color * (1.0 - 0.13 * crease);
        color = color * (1.0 + 0.06 * gradient(s ^ 5, x * 0.9, y * 0.9));
        // A thin vessel here and there between the lobules.
        let vessel = smoothstep(0.93, 0.985, ridge(s ^ 7, wx * 0.07, wy * 0.07));
        color = color.lerp(palette.vessel, 0.6 * vessel);
        let dome = |n: f32| 1.0 - 1.25 * (n * n).min(0.8);
        let grain_mm = (1.35 * dome(lobe.nearest) * smoothstep(0.0, 0.3, lobe.wall)
            + 0.42 * dome(small.nearest))
            * site.fat.max(0.4);
        color = color * (0.7 + 0.3 * site.fat);
        Paint {
            color,
            gloss: 0.6,
            grain_mm,
            blood: 0.0,
            class: 0,
        }
    }

    /// Intestine: folds across the tube, vessels that run up its sides and branch.
    fn bowel(&self, x: f32, y: f32, site: &Site, palette: &Palette) -> Paint {
        let s = self.seed ^ 0xB0E1;
        let (along, off) = (site.tube_point.along_mm, site.tube_point.offset_mm);
        let tone = fractal(s, x * 0.05, y * 0.05, 3);
        let mut color = palette.bowel[0].lerp(palette.bowel[1], smoothstep(-0.3, 0.4, tone));
        let bend = 1.3 * gradient(s ^ 1, along * 0.12, off * 0.15);
        let band = libm::sinf((along + bend) * (std::f32::consts::TAU / self.band_mm));
        let strong = 0.65 + 0.35 * gradient(s ^ 2, along * 0.09, off * 0.1);
        color = color * (1.0 + 0.16 * band * strong);
        // Straight vessels: noise stretched across the tube, thinner towards the crest.
        let lean = along + 1.4 * gradient(s ^ 3, along * 0.2, off * 0.25);
        let line = ridge(s ^ 4, lean * 0.16, off * 0.03 + 40.0);
        let vessel = smoothstep(0.90, 0.97, line) * (1.0 - 0.75 * site.tube);
        color = color.lerp(palette.vessel, vessel * 0.8);
        color = color * (1.0 + 0.05 * gradient(s ^ 5, x * 0.8, y * 0.8));
        color = color * (0.72 + 0.28 * smoothstep(0.0, 0.22, site.tube));
        let grain_mm = 0.30 * band * strong * lerp(0.5, 1.0, site.tube)
            + 0.12 * vessel
            + 0.06 * gradient(s ^ 6, x * 0.7, y * 0.7);
        Paint {
            color,
            gloss: 0.8,
            grain_mm,
            blood: 0.0,
            class: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let (got, class) = sheet.sample(sheet.fixed(u), sheet.fixed(v));
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
