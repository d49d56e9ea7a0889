//! Where the organs of one sequence lie: outlines and heights over the plane `z = 0`, in millimetres.
//!
//! Everything is a height above that plane, so that each point of it belongs to exactly one class.

use super::lanes::{LANES, Lanes};
use super::noise::{fractal, gradient};
use super::random::Random;
use super::vector::{lerp, smoothstep};

/// Id of each class, as in [`crate::labels::ClassSet::endovis_2018`].
pub mod class {
    #![allow(missing_docs)] // The names are EndoVis 2018's own.
    pub const BACKGROUND: u8 = 0;
    pub const SHAFT: u8 = 1;
    pub const CLASPER: u8 = 2;
    pub const WRIST: u8 = 3;
    pub const KIDNEY: u8 = 4;
    pub const COVERED_KIDNEY: u8 = 5;
    pub const THREAD: u8 = 6;
    pub const CLAMPS: u8 = 7;
    pub const NEEDLE: u8 = 8;
    pub const SUCTION: u8 = 9;
    pub const INTESTINE: u8 = 10;
    pub const PROBE: u8 = 11;
}

/// How much of the kidney its fat still covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// Dissected all over.
    None,
    /// Half dissected.
    Part,
    /// Not dissected.
    All,
}

/// A kidney: a bent ellipse, domed, perhaps under fat.
#[derive(Debug, Clone)]
pub struct Kidney {
    seed: u32,
    centre: (f32, f32),
    axis: (f32, f32),
    half_mm: (f32, f32),
    bend: f32,
    height_mm: f32,
    cover: Cover,
    cover_axis: (f32, f32),
    cover_offset_mm: f32,
}

impl Kidney {
    /// Draws a kidney near `centre`.
    pub fn new(random: &mut Random, centre: (f32, f32), cover: Cover) -> Self {
        let (sin, cos) = libm::sincosf(random.range(0.0, std::f32::consts::TAU));
        let (cover_sin, cover_cos) = libm::sincosf(random.range(0.0, std::f32::consts::TAU));
        let offset = random.range(-6.0, 6.0);
        Self {
            seed: random.bits() as u32,
            centre,
            axis: (cos, sin),
            half_mm: (random.range(36.0, 46.0), random.range(25.0, 31.0)),
            bend: random.range(0.003, 0.008) * random.sign(),
            height_mm: random.range(11.0, 15.0),
            cover,
            cover_axis: (cover_cos, cover_sin),
            cover_offset_mm: offset,
        }
    }

    /// `1 - r^2` in the kidney's own ellipse: 1 in the middle, 0 on the outline, negative outside.
    #[inline(always)]
    fn reach(&self, x: f32, y: f32) -> f32 {
        let (dx, dy) = (x - self.centre.0, y - self.centre.1);
        let along = dx * self.axis.0 + dy * self.axis.1;
        let across = dy * self.axis.0 - dx * self.axis.1 - self.bend * along * along + self.bend * 500.0;
        let (u, v) = (along / self.half_mm.0, across / self.half_mm.1);
        let wobble = 0.10 * gradient(self.seed, x * 0.05, y * 0.05);
        1.0 - u * u - v * v + wobble
    }

    /// How far inside the fat cover points are, in mm; negative where the kidney is bare.
    #[inline(always)]
    fn cover_depths_mm(&self, x: &Lanes, y: &Lanes) -> Lanes {
        let mut depths = match self.cover {
            Cover::None => return [-100.0; LANES],
            Cover::All => return [100.0; LANES],
            Cover::Part => [0.0; LANES],
        };
        for (i, depth) in depths.iter_mut().enumerate() {
            let (dx, dy) = (x[i] - self.centre.0, y[i] - self.centre.1);
            let side = dx * self.cover_axis.0 + dy * self.cover_axis.1;
            *depth =
                side - self.cover_offset_mm + 7.0 * fractal::<3>(self.seed ^ 0xC0, x[i] * 0.06, y[i] * 0.06);
        }
        depths
    }

    /// Puts the kidney and its fat on the ground that `sites` hold.
    #[inline(always)]
    fn raise(&self, places: &Places, sites: &mut Sites) {
        let (x, y) = (&places.x, &places.y);
        for (i, reach) in sites.reach.iter_mut().enumerate() {
            *reach = self.reach(x[i], y[i]);
        }
        if sites.reach.iter().all(|&reach| reach <= -0.1) {
            return;
        }
        let depths = self.cover_depths_mm(x, y);
        for i in 0..LANES {
            let (reach, depth) = (sites.reach[i], depths[i]);
            let ground = sites.height_mm[i];
            let fat = smoothstep(-0.3, 2.5, depth) * smoothstep(0.0, 0.12, reach);
            let lobes = 1.4 * fractal::<2>(self.seed ^ 0xFA, x[i] * 0.11, y[i] * 0.11);
            let dome = self.height_mm * reach.max(0.0) + fat * (3.0 + lobes);
            let inside = smoothstep(-0.05, 0.2, reach);
            let height = lerp(ground, 0.35 * ground + dome, inside);
            sites.fat[i] = if reach > -0.1 { fat } else { 0.0 };
            sites.height_mm[i] = if reach > -0.1 { height } else { ground };
        }
        for ((to, reach), depth) in sites.class.iter_mut().zip(sites.reach).zip(depths) {
            let class = if depth > 0.0 {
                class::COVERED_KIDNEY
            } else {
                class::KIDNEY
            };
            *to = if reach > 0.0 { class } else { class::BACKGROUND };
        }
    }
}

/// Loops of small intestine: a tube around a winding centre line.
#[derive(Debug, Clone)]
pub struct Bowel {
    /// Points of the centre line, about 2 mm apart, in mm.
    line: Vec<(f32, f32)>,
    /// Radius of the tube, mm.
    pub radius_mm: f32,
}

/// Where a point lies relative to the tube.
#[derive(Debug, Clone, Copy)]
pub struct TubePoint {
    /// Distance to the centre line, mm, positive on its left.
    pub offset_mm: f32,
    /// Length of the centre line up to the nearest point, mm.
    pub along_mm: f32,
}

impl TubePoint {
    /// Far from any tube.
    pub const FAR: Self = Self {
        offset_mm: 1e3,
        along_mm: 0.0,
    };
}

impl Bowel {
    /// Draws loops that begin `near` and go on in the direction of the unit vector `toward`.
    pub fn new(random: &mut Random, near: (f32, f32), toward: (f32, f32)) -> Self {
        let radius_mm = random.range(9.5, 12.5);
        let across = (-toward.1, toward.0);
        let seed = random.bits() as u32;
        let rows = 4;
        let half_mm = random.range(34.0, 60.0);
        let spacing_mm = radius_mm * 2.0 + random.range(0.4, 3.5);
        let mut line = Vec::new();
        let steps = libm::ceilf(half_mm).max(8.0) as i32;
        for row in 0..rows {
            for step in 0..steps {
                let t = (step as f32 + 0.5) / steps as f32;
                let turn = libm::sinf((t - 0.5) * std::f32::consts::PI);
                // Rows alternate in direction; the ends lean to the next row, which rounds the bends.
                let side = if row % 2 == 0 { turn } else { -turn };
                let lean = smoothstep(0.55, 1.0, t) * 0.5 - (1.0 - smoothstep(0.0, 0.45, t)) * 0.5;
                let (a, b) = ((row as f32 + 0.5 + lean) * spacing_mm, side * half_mm);
                let wobble = |s: u32| 5.0 * gradient(seed ^ s, a * 0.03, b * 0.03);
                line.push((
                    near.0 + toward.0 * a + across.0 * b + wobble(1),
                    near.1 + toward.1 * a + across.1 * b + wobble(2),
                ));
            }
        }
        Self { line, radius_mm }
    }

    /// The points of the centre line nearest to [`LANES`] points: distances as in [`TubePoint`], then lengths.
    #[inline(always)]
    pub fn locate(&self, x: &Lanes, y: &Lanes) -> [Lanes; 2] {
        let mut best = [f32::MAX; LANES];
        let (mut left, mut along) = ([1.0f32; LANES], [0.0f32; LANES]);
        let mut before_mm = 0.0;
        for pair in self.line.windows(2) {
            let [(ax, ay), (bx, by)] = [pair[0], pair[1]];
            let (ex, ey) = (bx - ax, by - ay);
            let squared = ex * ex + ey * ey;
            let length = squared.sqrt();
            for i in 0..LANES {
                let (px, py) = (x[i] - ax, y[i] - ay);
                let t = ((px * ex + py * ey) / squared.max(1e-9)).clamp(0.0, 1.0);
                let (qx, qy) = (px - ex * t, py - ey * t);
                let distance = qx * qx + qy * qy;
                let side = if ex * py - ey * px < 0.0 { -1.0 } else { 1.0 };
                let nearer = distance < best[i];
                best[i] = if nearer { distance } else { best[i] };
                left[i] = if nearer { side } else { left[i] };
                along[i] = if nearer { before_mm + length * t } else { along[i] };
            }
            before_mm += length;
        }
        for (left, best) in left.iter_mut().zip(best) {
            *left *= best.sqrt();
        }
        [left, along]
    }

    /// Lays the tube, and the seat that it lies in, on what `sites` hold.
    #[inline(always)]
    fn lay(&self, places: &Places, sites: &mut Sites) {
        let r = self.radius_mm;
        for i in 0..LANES {
            let ratio = (places.offset_mm[i] / r).abs();
            let tube = 1.0 - ratio * ratio;
            let (height, class) = (sites.height_mm[i], sites.class[i]);
            let crest = 0.2 * height + SEAT_MM + 0.85 * r * tube;
            // The tissue sinks towards the loops, so that they lie in it and not on it.
            let sink = 1.0 - smoothstep(1.0, 1.5, ratio);
            let seat = lerp(height, 0.2 * height + SEAT_MM, sink);
            let beside = if ratio < 1.05 { class::BACKGROUND } else { class };
            let inside = ratio < 1.0;
            sites.tube[i] = if inside { tube } else { 0.0 };
            sites.height_mm[i] = if inside { crest } else { seat };
            sites.class[i] = if inside { class::INTESTINE } else { beside };
        }
    }

    /// A box `(x0, y0, x1, y1)` that holds the whole tube.
    pub fn bounds(&self) -> (f32, f32, f32, f32) {
        let start = (f32::MAX, f32::MAX, f32::MIN, f32::MIN);
        let (x0, y0, x1, y1) = self.line.iter().fold(start, |(x0, y0, x1, y1), &(x, y)| {
            (x0.min(x), y0.min(y), x1.max(x), y1.max(y))
        });
        // The tissue sinks towards the tube from one and a half radii on.
        let r = self.radius_mm * 1.5 + 1.0;
        (x0 - r, y0 - r, x1 + r, y1 + r)
    }
}

/// Height of the tissue where a loop of intestine rises from it, mm.
const SEAT_MM: f32 = 1.6;

/// All organs of a sequence.
#[derive(Debug, Clone)]
pub struct Anatomy {
    seed: u32,
    /// The kidney, where there is one.
    pub kidney: Option<Kidney>,
    /// The small intestine, where there is one.
    pub bowel: Option<Bowel>,
    fold_mm: f32,
    fold_scale: f32,
}

/// Points of the plane.
#[derive(Debug, Clone)]
pub struct Places {
    /// First coordinates, mm.
    pub x: Lanes,
    /// Second coordinates, mm.
    pub y: Lanes,
    /// See [`TubePoint::offset_mm`].
    pub offset_mm: Lanes,
    /// See [`TubePoint::along_mm`].
    pub along_mm: Lanes,
}

/// What lies at each of them.
#[derive(Debug, Clone)]
pub struct Sites {
    /// Class ids of the surface.
    pub class: [u8; LANES],
    /// Heights of the surface at rest, mm.
    pub height_mm: Lanes,
    /// Kidney: `1 - r^2` in its own ellipse; -1 without kidney.
    pub reach: Lanes,
    /// Thickness of the fat, 0 to 1.
    pub fat: Lanes,
    /// Intestine: 1 on the crest, 0 at its border and outside.
    pub tube: Lanes,
}

impl Places {
    /// The points that `place` gives, far from any tube.
    #[inline(always)]
    pub fn new(place: impl Fn(usize) -> (f32, f32)) -> Self {
        let mut places = Self {
            x: [0.0; LANES],
            y: [0.0; LANES],
            offset_mm: [TubePoint::FAR.offset_mm; LANES],
            along_mm: [TubePoint::FAR.along_mm; LANES],
        };
        for i in 0..LANES {
            (places.x[i], places.y[i]) = place(i);
        }
        places
    }

    /// Says that point `i` lies at `point` of the tube.
    #[inline(always)]
    pub fn put(&mut self, i: usize, point: TubePoint) {
        self.offset_mm[i] = point.offset_mm;
        self.along_mm[i] = point.along_mm;
    }
}

impl Anatomy {
    /// Draws the organs asked for.
    pub fn new(seed: u64, kidney: Option<Cover>, bowel: bool) -> Self {
        let mut random = Random::stream(seed, "anatomy");
        let (sin, cos) = libm::sincosf(random.range(0.0, std::f32::consts::TAU));
        let away = random.range(4.0, 20.0);
        let centre = if bowel {
            (cos * away * 1.3, sin * away * 1.3)
        } else {
            (cos * away, sin * away)
        };
        let kidney = kidney.map(|cover| Kidney::new(&mut random, centre, cover));
        let bowel = bowel.then(|| {
            // Beside the kidney when there is one, across the middle when there is none.
            let start = if kidney.is_some() {
                random.range(-4.0, 8.0)
            } else {
                random.range(-38.0, -18.0)
            };
            Bowel::new(&mut random, (-cos * start, -sin * start), (-cos, -sin))
        });
        Self {
            seed: random.bits() as u32,
            kidney,
            bowel,
            fold_mm: random.range(5.0, 9.0),
            fold_scale: random.range(0.018, 0.030),
        }
    }

    /// Height of the connective tissue under and between the organs, mm.
    #[inline(always)]
    fn ground_mm(&self, x: f32, y: f32) -> f32 {
        let s = self.fold_scale;
        let (wx, wy) = (
            x + 9.0 * gradient(self.seed ^ 1, x * 0.03, y * 0.03),
            y + 9.0 * gradient(self.seed ^ 2, x * 0.03, y * 0.03),
        );
        // Domes that meet in creases: the square root of noise squared plus a little, so creases stay rounded.
        let crease = |seed: u32, scale: f32| {
            let n = gradient(self.seed ^ seed, wx * scale, wy * scale);
            (n * n + 0.004).sqrt()
        };
        self.fold_mm * (crease(3, s) * 1.3 + 0.45 * crease(4, s * 2.3))
            + 1.2 * gradient(self.seed ^ 5, x * 0.11, y * 0.11)
    }

    /// What lies at `places`. Only operations that IEEE 754 rounds exactly, point by point: every instruction set
    /// gives the same bits.
    #[inline(always)]
    pub fn sites(&self, places: &Places) -> Sites {
        let mut sites = Sites {
            class: [class::BACKGROUND; LANES],
            height_mm: [0.0; LANES],
            reach: [-1.0; LANES],
            fat: [0.0; LANES],
            tube: [0.0; LANES],
        };
        for (i, height) in sites.height_mm.iter_mut().enumerate() {
            *height = self.ground_mm(places.x[i], places.y[i]);
        }
        if let Some(kidney) = &self.kidney {
            kidney.raise(places, &mut sites);
        }
        if let Some(bowel) = &self.bowel {
            bowel.lay(places, &mut sites);
        }
        sites
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(kidney: Option<Cover>, bowel: bool, seed: u64) -> [usize; 12] {
        let anatomy = Anatomy::new(seed, kidney, bowel);
        let mut counts = [0; 12];
        for y in -20..20 {
            let mut places = Places::new(|i| (i as f32 * 2.5 - 40.0, y as f32 * 2.0));
            if let Some(bowel) = &anatomy.bowel {
                [places.offset_mm, places.along_mm] = bowel.locate(&places.x, &places.y);
            }
            for class in anatomy.sites(&places).class {
                counts[usize::from(class)] += 1;
            }
        }
        counts
    }

    #[test]
    fn organs_asked_for_are_in_view() {
        for seed in 0..12 {
            let all = count(Some(Cover::Part), true, seed);
            for class in [
                class::BACKGROUND,
                class::KIDNEY,
                class::COVERED_KIDNEY,
                class::INTESTINE,
            ] {
                assert!(all[usize::from(class)] > 12, "seed {seed}: {all:?}");
            }
            let bare = count(Some(Cover::None), false, seed);
            assert!(bare[usize::from(class::COVERED_KIDNEY)] == 0 && bare[usize::from(class::KIDNEY)] > 200);
            let none = count(None, false, seed);
            assert_eq!(none[0], 40 * LANES, "seed {seed}");
        }
    }

    #[test]
    fn the_tube_is_located_exactly() {
        let bowel = Bowel {
            line: vec![(0.0, 0.0), (10.0, 0.0), (10.0, 10.0)],
            radius_mm: 3.0,
        };
        let (mut x, mut y) = ([4.0; LANES], [2.0; LANES]);
        (x[1], y[1]) = (12.0, 6.0);
        let [offset, along] = bowel.locate(&x, &y);
        assert!((offset[0] - 2.0).abs() < 1e-6 && (along[0] - 4.0).abs() < 1e-6);
        assert!((offset[1] + 2.0).abs() < 1e-6 && (along[1] - 16.0).abs() < 1e-6);
    }
}
