//! The materials of the tissue: what each class of it looks like at a point.

use super::anatomy::{Places, Sites, class};
use super::lanes::{LANES, Lanes};
use super::noise::{cell, fractal, gradient, ridge};
use super::random::{Random, unit_of};
use super::scenario::Palette;
use super::vector::{Vec3, lerp, smoothstep};

/// Parameters of the materials of one sequence.
#[derive(Debug)]
pub struct Materials<'a> {
    seed: u32,
    flow: (f32, f32),
    grain: f32,
    vessels: f32,
    lobe_mm: f32,
    band_mm: f32,
    wet: f32,
    palette: &'a Palette,
}

/// What one point is made of.
struct Paint {
    color: Vec3,
    gloss: f32,
    grain_mm: f32,
}

/// What [`LANES`] points are made of.
#[derive(Debug, Clone)]
pub struct Paints {
    /// Reflectance, linear red, green and blue.
    pub color: [Lanes; 3],
    /// Gloss, 0 to 1.
    pub gloss: Lanes,
    /// Heights of the fine relief, mm.
    pub grain_mm: Lanes,
    /// Blood lies where its level is above this, 0 to 1.
    pub blood: Lanes,
}

impl Paints {
    /// Sets point `i`, if it is `there`.
    #[inline(always)]
    fn put(&mut self, i: usize, there: bool, paint: Paint) {
        let put = |to: &mut f32, value: f32| *to = if there { value } else { *to };
        put(&mut self.color[0][i], paint.color.x);
        put(&mut self.color[1][i], paint.color.y);
        put(&mut self.color[2][i], paint.color.z);
        put(&mut self.gloss[i], paint.gloss);
        put(&mut self.grain_mm[i], paint.grain_mm);
    }

    /// As texels ([`super::sheet`]) without slopes.
    #[inline(always)]
    pub fn packed(&self) -> [u64; LANES] {
        let mut texels = [0; LANES];
        let byte = |v: f32| (v.clamp(0.0, 1.0) * 255.0 + 0.5) as i32 as u64;
        let [red, green, blue] = &self.color;
        for (i, texel) in texels.iter_mut().enumerate() {
            *texel = byte(red[i].max(0.0).sqrt())
                | byte(green[i].max(0.0).sqrt()) << 8
                | byte(blue[i].max(0.0).sqrt()) << 16
                | byte(self.gloss[i]) << 24
                | byte(self.blood[i]) << 48;
        }
        texels
    }
}

impl<'a> Materials<'a> {
    /// Draws the materials of one sequence.
    pub fn new(seed: u64, palette: &'a Palette) -> Self {
        let mut random = Random::stream(seed, "sheet");
        let (sin, cos) = libm::sincosf(random.range(0.0, std::f32::consts::TAU));
        Self {
            seed: random.bits() as u32,
            flow: (cos, sin),
            grain: random.range(0.7, 1.2),
            vessels: random.range(0.5, 1.0),
            lobe_mm: random.range(5.0, 7.5),
            band_mm: random.range(3.4, 4.6),
            wet: random.range(0.75, 1.15),
            palette,
        }
    }

    /// What `places` are made of. Only operations that IEEE 754 rounds exactly, point by point: every instruction
    /// set gives the same bits. A material found anywhere is worked out everywhere, so that loops vectorise.
    #[inline(always)]
    pub fn paint(&self, places: &Places, sites: &Sites) -> Paints {
        let mut paints = Paints {
            color: [[0.0; LANES]; 3],
            gloss: [0.0; LANES],
            grain_mm: [0.0; LANES],
            blood: [0.0; LANES],
        };
        let (x, y, classes) = (&places.x, &places.y, &sites.class);
        if classes.contains(&class::BACKGROUND) {
            for i in 0..LANES {
                let paint = self.ground(x[i], y[i]);
                paints.put(i, classes[i] == class::BACKGROUND, paint);
            }
        }
        if classes.contains(&class::KIDNEY) {
            for i in 0..LANES {
                let paint = self.kidney(x[i], y[i], sites.reach[i]);
                paints.put(i, classes[i] == class::KIDNEY, paint);
            }
        }
        if classes.contains(&class::COVERED_KIDNEY) {
            for i in 0..LANES {
                let paint = self.fat(x[i], y[i], sites.fat[i]);
                paints.put(i, classes[i] == class::COVERED_KIDNEY, paint);
            }
        }
        if classes.contains(&class::INTESTINE) {
            let (along, off) = (&places.along_mm, &places.offset_mm);
            let mut bands = [0.0f32; LANES];
            for (i, band) in bands.iter_mut().enumerate() {
                *band = self.band_angle(along[i], off[i]);
            }
            for (band, &class) in bands.iter_mut().zip(classes) {
                if class == class::INTESTINE {
                    *band = libm::sinf(*band);
                }
            }
            for i in 0..LANES {
                let paint = self.bowel((x[i], y[i]), (along[i], off[i]), bands[i], sites.tube[i]);
                paints.put(i, classes[i] == class::INTESTINE, paint);
            }
        }
        for i in 0..LANES {
            paints.blood[i] = 0.5 + 0.5 * fractal::<4>(self.seed ^ 0xB1, x[i] * 0.045, y[i] * 0.045);
            paints.gloss[i] *=
                self.wet * (0.75 + 0.35 * gradient(self.seed ^ 0x61, x[i] * 0.14, y[i] * 0.14));
        }
        paints
    }

    /// Connective tissue: tones in large patches, strands along one direction, a net of vessels.
    #[inline(always)]
    fn ground(&self, x: f32, y: f32) -> Paint {
        let (s, palette) = (self.seed, self.palette);
        let warp_x = x + 4.0 * gradient(s ^ 1, x * 0.06, y * 0.06);
        let warp_y = y + 4.0 * gradient(s ^ 2, x * 0.06, y * 0.06);
        let patch = fractal::<4>(s ^ 3, warp_x * 0.035, warp_y * 0.035);
        let patch2 = fractal::<3>(s ^ 4, warp_x * 0.028, warp_y * 0.028);
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
        let grain = fractal::<2>(s ^ 7, x * 0.7, y * 0.7);
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
        }
    }

    /// Branching vessels of two widths, 0 to 1.
    #[inline(always)]
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
    #[inline(always)]
    fn kidney(&self, x: f32, y: f32, reach: f32) -> Paint {
        let (s, palette) = (self.seed ^ 0x4B1D, self.palette);
        let tone = fractal::<3>(s, x * 0.05, y * 0.05);
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
        let edge = smoothstep(0.0, 0.10, reach);
        color = color * (0.62 + 0.38 * edge);
        let grain_mm = -0.03 * pore + 0.03 * fine + 0.25 * gradient(s ^ 3, x * 0.12, y * 0.12);
        Paint {
            color,
            gloss: 0.95,
            grain_mm,
        }
    }

    /// Fat over the kidney: lobules with dark septa, thin vessels between them.
    #[inline(always)]
    fn fat(&self, x: f32, y: f32, thickness: f32) -> Paint {
        let (s, palette) = (self.seed ^ 0xFA7, self.palette);
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
            * thickness.max(0.4);
        color = color * (0.7 + 0.3 * thickness);
        Paint {
            color,
            gloss: 0.6,
            grain_mm,
        }
    }

    /// Intestine: the angle whose sine raises and lowers the folds across the tube.
    #[inline(always)]
    fn band_angle(&self, along: f32, off: f32) -> f32 {
        let bend = 1.3 * gradient(self.seed ^ 0xB0E1 ^ 1, along * 0.12, off * 0.15);
        (along + bend) * (std::f32::consts::TAU / self.band_mm)
    }

    /// Intestine: folds across the tube, vessels that run up its sides and branch.
    #[inline(always)]
    fn bowel(&self, (x, y): (f32, f32), (along, off): (f32, f32), band: f32, tube: f32) -> Paint {
        let (s, palette) = (self.seed ^ 0xB0E1, self.palette);
        let tone = fractal::<3>(s, x * 0.05, y * 0.05);
        let mut color = palette.bowel[0].lerp(palette.bowel[1], smoothstep(-0.3, 0.4, tone));
        let strong = 0.65 + 0.35 * gradient(s ^ 2, along * 0.09, off * 0.1);
        color = color * (1.0 + 0.16 * band * strong);
        // Straight vessels: noise stretched across the tube, thinner towards the crest.
        let lean = along + 1.4 * gradient(s ^ 3, along * 0.2, off * 0.25);
        let line = ridge(s ^ 4, lean * 0.16, off * 0.03 + 40.0);
        let vessel = smoothstep(0.90, 0.97, line) * (1.0 - 0.75 * tube);
        color = color.lerp(palette.vessel, vessel * 0.8);
        color = color * (1.0 + 0.05 * gradient(s ^ 5, x * 0.8, y * 0.8));
        color = color * (0.72 + 0.28 * smoothstep(0.0, 0.22, tube));
        let grain_mm = 0.30 * band * strong * lerp(0.5, 1.0, tube)
            + 0.12 * vessel
            + 0.06 * gradient(s ^ 6, x * 0.7, y * 0.7);
        Paint {
            color,
            gloss: 0.8,
            grain_mm,
        }
    }
}
