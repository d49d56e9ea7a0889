//! The shape of the tissue: a height over each point of a square of the plane, at rest and at an instant.
//!
//! The rest shape is sampled once per sequence. For each frame [`Relief::at`] moves it: breathing, pulse,
//! peristalsis and the pressure of instruments raise, lower and shift the surface.

use super::anatomy::{Anatomy, Places, TubePoint};
use super::lanes::{LANES, dispatch};
use super::motion::Beat;
use super::surface::{Surface, locate};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Side of the modelled square, mm; its centre is the origin.
pub const EXTENT_MM: f32 = 220.0;

/// Samples along one side.
pub const SIDE: usize = 448;

/// Distance between samples, mm.
pub const STEP_MM: f32 = EXTENT_MM / (SIDE - 1) as f32;

/// Heights at rest and what makes them move.
#[derive(Debug)]
pub struct Relief {
    rest_mm: Vec<f32>,
    /// Where on the tube, for points on or near it.
    tube: Vec<Option<TubePoint>>,
    /// How dark crevices are, 0 to 1.
    hollow: Vec<f32>,
    bowel_radius_mm: f32,
    breath: Beat,
    pulse: Beat,
    wave_mm_per_s: f32,
}

/// Something that presses the tissue or pulls it along.
#[derive(Debug, Clone, Copy)]
pub struct Contact {
    /// Where, in the plane.
    pub at: (f32, f32),
    /// How far the tissue is raised (pulled, positive) or pressed, mm.
    pub lift_mm: f32,
    /// How far the tissue is dragged in the plane, mm.
    pub drag_mm: (f32, f32),
    /// Distance over which it gives, mm.
    pub radius_mm: f32,
}

/// A row of samples at rest.
struct Rest<'a> {
    anatomy: &'a Anatomy,
    row: usize,
    rest_mm: &'a mut [f32],
    tube: &'a mut [Option<TubePoint>],
}

impl WithSimd for Rest<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let bowel = self.anatomy.bowel.as_ref().map(|bowel| (bowel, bowel.bounds()));
        let blocks = self.rest_mm.chunks_mut(LANES).zip(self.tube.chunks_mut(LANES));
        for (block, (rest_mm, tube)) in blocks.enumerate() {
            let mut places = Places::new(|i| place(block * LANES + i, self.row));
            if let Some((bowel, (x0, y0, x1, y1))) = bowel {
                let near = |x: f32, y: f32| x > x0 && x < x1 && y > y0 && y < y1;
                if (0..LANES).any(|i| near(places.x[i], places.y[i])) {
                    let [offset_mm, along_mm] = bowel.locate(&places.x, &places.y);
                    for (i, tube) in tube.iter_mut().enumerate() {
                        if near(places.x[i], places.y[i]) {
                            let point = TubePoint {
                                offset_mm: offset_mm[i],
                                along_mm: along_mm[i],
                            };
                            places.put(i, point);
                            *tube = Some(point);
                        }
                    }
                }
            }
            let sites = self.anatomy.sites(&places);
            rest_mm.copy_from_slice(&sites.height_mm[..rest_mm.len()]);
        }
    }
}

impl Relief {
    /// Samples the rest shape of `anatomy`.
    pub fn new(anatomy: &Anatomy, breath: Beat, pulse: Beat, wave_mm_per_s: f32) -> Self {
        let mut rest_mm = vec![0.0f32; SIDE * SIDE];
        let mut tube = vec![None; SIDE * SIDE];
        rest_mm
            .par_chunks_mut(SIDE)
            .zip(tube.par_chunks_mut(SIDE))
            .enumerate()
            .for_each(|(row, (rest_mm, tube))| {
                dispatch(Rest {
                    anatomy,
                    row,
                    rest_mm,
                    tube,
                });
            });
        let hollow = hollows(&rest_mm);
        let bowel_radius_mm = anatomy.bowel.as_ref().map_or(1.0, |b| b.radius_mm);
        Self {
            rest_mm,
            tube,
            hollow,
            bowel_radius_mm,
            breath,
            pulse,
            wave_mm_per_s,
        }
    }

    /// Where on the tube the sample nearest to `(x, y)` lies, interpolated where its neighbours agree.
    pub fn tube_point(&self, x: f32, y: f32) -> Option<TubePoint> {
        let (xi, yi, fx, fy) = locate(x, y);
        let (xi, yi) = (xi as usize, yi as usize);
        let at = |dx: usize, dy: usize| self.tube[(yi + dy) * SIDE + xi + dx];
        let (a, b, c, d) = (at(0, 0)?, at(1, 0)?, at(0, 1)?, at(1, 1)?);
        let near = |p: TubePoint| (p.along_mm - a.along_mm).abs() < 4.0;
        let nearest = if fy < 0.5 {
            if fx < 0.5 { a } else { b }
        } else if fx < 0.5 {
            c
        } else {
            d
        };
        let mix = |a: f32, b: f32, c: f32, d: f32| {
            let (top, bottom) = (a + (b - a) * fx, c + (d - c) * fx);
            top + (bottom - top) * fy
        };
        // The distance is continuous everywhere; its sign and the length along the line jump between two loops.
        let distance = mix(
            a.offset_mm.abs(),
            b.offset_mm.abs(),
            c.offset_mm.abs(),
            d.offset_mm.abs(),
        );
        let offset_mm = if nearest.offset_mm < 0.0 {
            -distance
        } else {
            distance
        };
        let along_mm = if near(b) && near(c) && near(d) {
            mix(a.along_mm, b.along_mm, c.along_mm, d.along_mm)
        } else {
            nearest.along_mm
        };
        Some(TubePoint { offset_mm, along_mm })
    }

    /// Rest height at `(x, y)`, mm.
    pub fn rest_mm(&self, x: f32, y: f32) -> f32 {
        let (xi, yi, fx, fy) = locate(x, y);
        let (xi, yi) = (xi as usize, yi as usize);
        let at = |dx: usize, dy: usize| self.rest_mm[(yi + dy) * SIDE + xi + dx];
        let top = at(0, 0) + (at(1, 0) - at(0, 0)) * fx;
        let bottom = at(0, 1) + (at(1, 1) - at(0, 1)) * fx;
        top + (bottom - top) * fy
    }

    /// Height at `(x, y)` as breath and pulse move it, mm: what things that rest on the tissue stand on.
    pub fn resting_mm(&self, x: f32, y: f32, seconds: f64) -> f32 {
        self.rest_mm(x, y) + lift_mm(y, self.breath.wave(seconds), self.pulse.wave(seconds))
    }

    /// The surface at `seconds`, touched by `contacts`.
    pub fn at(&self, seconds: f64, contacts: &[Contact]) -> Surface {
        let breath = self.breath.wave(seconds);
        let pulse = self.pulse.wave(seconds);
        let wave = Beat {
            period_s: 34.0 / f64::from(self.wave_mm_per_s),
            phase: 0.0,
        }
        .angle(seconds);
        let mut heights_mm = vec![0.0f32; SIDE * SIDE];
        let mut shifts = vec![[0.0f32; 3]; SIDE * SIDE];
        let rows = heights_mm.par_chunks_mut(SIDE).zip(shifts.par_chunks_mut(SIDE));
        rows.enumerate().for_each(|(row, (heights_mm, shifts))| {
            let y = place(0, row).1;
            for (column, (to_mm, to)) in heights_mm.iter_mut().zip(shifts).enumerate() {
                let index = row * SIDE + column;
                let x = place(column, 0).0;
                let mut height = self.rest_mm[index];
                // Breathing lifts the far side more and shifts everything a little; the pulse is a shiver.
                let mut shift = (0.5 * breath, 1.3 * breath);
                height += lift_mm(y, breath, pulse);
                if let Some(point) = self.tube[index] {
                    let ratio = (point.offset_mm / self.bowel_radius_mm).abs();
                    if ratio < 1.35 {
                        // Rings of contraction run along the tube: 34 mm apart, narrower and higher.
                        let angle = point.along_mm * (std::f32::consts::TAU / 34.0) - wave;
                        let ring = ripple(angle);
                        let fade = (1.35 - ratio).min(0.35) * (1.0 / 0.35);
                        height += fade * ring * 1.6 * (1.0 - ratio * ratio).max(0.0);
                        // A wider tube shows its own texture farther out.
                        let along_line = self.direction(column, row);
                        // Nothing at the border, where another loop may follow.
                        let widen = -0.3 * ring * point.offset_mm * (1.0 - ratio * ratio).max(0.0);
                        shift.0 += along_line.0 * widen;
                        shift.1 += along_line.1 * widen;
                    }
                }
                for contact in contacts {
                    let (dx, dy) = (x - contact.at.0, y - contact.at.1);
                    let near = 1.0 - (dx * dx + dy * dy) / (contact.radius_mm * contact.radius_mm);
                    if near > 0.0 {
                        let give = near * near;
                        height += contact.lift_mm * give;
                        shift.0 -= contact.drag_mm.0 * give;
                        shift.1 -= contact.drag_mm.1 * give;
                    }
                }
                *to_mm = height;
                *to = [shift.0, shift.1, self.hollow[index]];
            }
        });
        Surface::new(heights_mm, shifts)
    }

    /// Unit vector in which the signed distance to the tube's centre line grows.
    fn direction(&self, column: usize, row: usize) -> (f32, f32) {
        let value = |c: usize, r: usize| {
            let (c, r) = (c.min(SIDE - 1), r.min(SIDE - 1));
            self.tube[r * SIDE + c].map_or(0.0, |p| p.offset_mm)
        };
        let gx = value(column + 1, row) - value(column.saturating_sub(1), row);
        let gy = value(column, row + 1) - value(column, row.saturating_sub(1));
        let length = (gx * gx + gy * gy).sqrt();
        // Across the seam between two loops the sign jumps: no direction there.
        if length > 0.2 * STEP_MM && length < 4.0 * STEP_MM {
            (gx / length, gy / length)
        } else {
            (0.0, 0.0)
        }
    }
}

/// How far breath and pulse (each -1 to 1) lift the tissue, mm.
#[inline]
fn lift_mm(y: f32, breath: f32, pulse: f32) -> f32 {
    breath * (0.9 + 0.008 * y) + pulse * 0.12
}

/// A smooth periodic bump in `[-1, 1]` of the angle, from a polynomial: cheap enough for every sample of a frame.
#[inline]
fn ripple(angle: f32) -> f32 {
    let turns = angle * (1.0 / std::f32::consts::TAU);
    let t = turns - super::noise::floor(turns) as f32;
    // Parabola pieces of one sine period.
    let half = if t < 0.5 { t * 2.0 } else { t * 2.0 - 1.0 };
    let bump = 4.0 * half * (1.0 - half);
    if t < 0.5 { bump } else { -bump }
}

/// World coordinates of a sample.
#[inline]
fn place(column: usize, row: usize) -> (f32, f32) {
    (
        column as f32 * STEP_MM - EXTENT_MM * 0.5,
        row as f32 * STEP_MM - EXTENT_MM * 0.5,
    )
}

/// How far each sample lies below its surroundings (a box of about 12 mm), as darkness from 0 to 1.
fn hollows(heights: &[f32]) -> Vec<f32> {
    let radius = 12;
    let blurred = box_blur(&box_blur(heights, radius), radius / 2);
    heights
        .iter()
        .zip(&blurred)
        .map(|(h, mean)| ((mean - h) * 0.16).clamp(-0.25, 0.75))
        .collect()
}

/// Mean over a square of `2 radius + 1` samples, the border repeated.
fn box_blur(values: &[f32], radius: usize) -> Vec<f32> {
    let pass = |values: &[f32]| -> Vec<f32> {
        // One pass along rows that writes columns, so that two passes blur both ways and restore the order.
        let mut out = vec![0.0; SIDE * SIDE];
        for row in 0..SIDE {
            let line = &values[row * SIDE..][..SIDE];
            let at = |i: isize| line[i.clamp(0, SIDE as isize - 1) as usize];
            let r = radius as isize;
            let mut sum: f64 = (-r..=r).map(|i| f64::from(at(i))).sum();
            for column in 0..SIDE {
                out[column * SIDE + row] = (sum / (2 * r + 1) as f64) as f32;
                let c = column as isize;
                sum += f64::from(at(c + r + 1)) - f64::from(at(c - r));
            }
        }
        out
    };
    pass(&pass(values))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::phantom::anatomy::Cover;

    /// A scene with all organs.
    pub fn relief(seed: u64) -> Relief {
        let anatomy = Anatomy::new(seed, Some(Cover::Part), true);
        Relief::new(
            &anatomy,
            Beat {
                period_s: 4.0,
                phase: 0.0,
            },
            Beat {
                period_s: 1.0,
                phase: 0.0,
            },
            10.0,
        )
    }

    #[test]
    fn the_surface_moves_smoothly_and_bows_to_contacts() {
        let relief = relief(8);
        let (mut step, mut travel) = (0.0f32, 0.0f32);
        let first = relief.at(0.0, &[]);
        for frame in 1..60 {
            let (now, next) = (
                relief.at(f64::from(frame) / 30.0, &[]),
                relief.at(f64::from(frame + 1) / 30.0, &[]),
            );
            for i in 0..40 {
                let (x, y) = (i as f32 * 3.0 - 60.0, 20.0 - i as f32);
                step = step.max((next.height_mm(x, y) - now.height_mm(x, y)).abs());
                travel = travel.max((now.height_mm(x, y) - first.height_mm(x, y)).abs());
            }
        }
        assert!(step < 0.35 && travel > 1.0, "{step} {travel}");
        let pull = Contact {
            at: (5.0, 5.0),
            lift_mm: 4.0,
            drag_mm: (2.0, 0.0),
            radius_mm: 12.0,
        };
        let pulled = relief.at(0.0, &[pull]);
        assert!((pulled.height_mm(5.0, 5.0) - first.height_mm(5.0, 5.0) - 4.0).abs() < 0.1);
        let shift_x = |surface: &Surface| surface.shifts(&[5.0; LANES], &[5.0; LANES])[0][0];
        assert!((shift_x(&pulled) - shift_x(&first) + 2.0).abs() < 0.1);
        assert_eq!(pulled.height_mm(25.0, 5.0), first.height_mm(25.0, 5.0));
    }
}
