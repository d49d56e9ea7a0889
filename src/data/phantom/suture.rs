//! Needle and thread.

use super::anatomy::class;
use super::camera::View;
use super::finish::{Finish, Pattern};
use super::instrument::Pose;
use super::motion::Wander;
use super::random::Random;
use super::solid::{Solid, plain};
use super::vector::{Vec3, vec3};

/// A curved needle in the jaws of an instrument.
#[derive(Debug, Clone)]
pub struct Needle {
    arc_mm: f32,
    wire_mm: f32,
    lean: Wander,
    finish: u16,
}

/// Pieces the needle's arc is made of.
const NEEDLE_PIECES: usize = 14;

/// Angles of the two ends of the arc, counted from the jaws, radians: half a circle, held nearer to the blunt end.
const NEEDLE_ENDS: (f32, f32) = (-0.95, 2.2);

impl Needle {
    /// Draws a needle.
    pub fn new(random: &mut Random, finishes: &mut Vec<Finish>) -> Self {
        let metal = Finish::metal(random, vec3(1.15, 1.13, 1.1), Pattern::Plain);
        finishes.push(Finish {
            roughness: 0.16,
            ..metal
        });
        Self {
            arc_mm: random.range(6.5, 8.5),
            wire_mm: random.range(0.46, 0.6),
            lean: Wander::new(random, 1.9, 0.7),
            finish: (finishes.len() - 1) as u16,
        }
    }

    /// The point of the arc at `angle` from the jaws, world space.
    fn point(&self, pose: &Pose, seconds: f64, angle: f32) -> Vec3 {
        let forward = (pose.tip - pose.hinge2).normalized();
        let hinge = pose.axes.1;
        let grip = pose.hinge2 + (pose.tip - pose.hinge2) * 0.86;
        // The wire lies across the jaws; the arc's plane leans about it.
        let toward = hinge.cross(forward).rotated(hinge, self.lean.at(seconds));
        let (sin, cos) = libm::sincosf(angle);
        grip + toward * (self.arc_mm * (1.0 - cos)) + hinge * (self.arc_mm * sin)
    }

    /// The blunt end, where the thread begins.
    pub fn swage(&self, pose: &Pose, seconds: f64) -> Vec3 {
        self.point(pose, seconds, NEEDLE_ENDS.0)
    }

    /// Its solids, in camera space.
    pub fn solids(&self, pose: &Pose, seconds: f64, view: &View, out: &mut Vec<Solid>) {
        let (start, end) = NEEDLE_ENDS;
        let at = |i: usize| start + (end - start) * i as f32 / NEEDLE_PIECES as f32;
        // The last third tapers to the point.
        let wire = |i: usize| {
            let left = (NEEDLE_PIECES - i) as f32 / NEEDLE_PIECES as f32;
            self.wire_mm * (left * 3.0).clamp(0.25, 1.0)
        };
        for i in 0..NEEDLE_PIECES {
            let a = view.camera_from_world(self.point(pose, seconds, at(i)));
            let b = view.camera_from_world(self.point(pose, seconds, at(i + 1)));
            let piece = plain(a, b, wire(i), wire(i + 1));
            out.push(Solid {
                class: class::NEEDLE,
                finish: self.finish,
                ..piece
            });
        }
    }
}

/// A suture: its free run over the tissue and the stitches already made.
#[derive(Debug, Clone)]
pub struct Thread {
    wire_mm: f32,
    /// Points of the tissue that the thread runs over, then the one where it goes in.
    rests: Vec<(f32, f32)>,
    sway: Vec<(Wander, Wander)>,
    /// Ends of each stitch.
    stitches: Vec<[(f32, f32); 2]>,
    finish: u16,
}

/// Pieces between two of the points that the thread passes.
const PIECES_PER_SPAN: usize = 9;

impl Thread {
    /// Draws a suture about `centre`, a point of the tissue.
    pub fn new(random: &mut Random, centre: (f32, f32), finishes: &mut Vec<Finish>) -> Self {
        let colors = [
            vec3(0.16, 0.05, 0.30),
            vec3(0.04, 0.08, 0.38),
            vec3(0.03, 0.03, 0.035),
            vec3(0.03, 0.22, 0.16),
            vec3(0.75, 0.72, 0.66),
            vec3(0.20, 0.28, 0.62),
        ];
        let color = colors[random.below(colors.len())];
        finishes.push(Finish {
            mirror: 0.03,
            roughness: 0.5,
            ..Finish::coat(random, color)
        });
        let (sin, cos) = libm::sincosf(random.range(0.0, std::f32::consts::TAU));
        let count = 3 + random.below(3);
        let mut stitches = Vec::new();
        let spacing = random.range(6.0, 9.0);
        for i in 0..count {
            let along = (i as f32 - 0.5 * (count as f32 - 1.0)) * spacing;
            let half = random.range(3.0, 4.5);
            let slant = random.range(-1.5, 1.5);
            let place = |across: f32, shift: f32| {
                (
                    centre.0 + cos * (along + shift) - sin * across,
                    centre.1 + sin * (along + shift) + cos * across,
                )
            };
            stitches.push([place(-half, -slant), place(half, slant)]);
        }
        let last = stitches.last().map_or(centre, |s| s[1]);
        let mut rests = Vec::new();
        let mut sway = Vec::new();
        // Loose loops: points on a spiral about the middle.
        let (start, turn) = (
            random.range(0.0, std::f32::consts::TAU),
            random.range(0.9, 1.5) * random.sign(),
        );
        for i in 0..4 {
            let (sin, cos) = libm::sincosf(start + turn * i as f32);
            let far = random.range(9.0, 19.0);
            rests.push((centre.0 + far * cos, centre.1 + far * sin));
            sway.push((Wander::new(random, 1.6, 3.0), Wander::new(random, 1.6, 3.0)));
        }
        rests.push(last);
        Self {
            wire_mm: random.range(0.30, 0.42),
            rests,
            sway,
            stitches,
            finish: (finishes.len() - 1) as u16,
        }
    }

    /// Its solids, in camera space. `from` is where the instrument or needle holds it, `height_mm` the tissue.
    pub fn solids(
        &self,
        from: Vec3,
        seconds: f64,
        height_mm: impl Fn(f32, f32) -> f32,
        view: &View,
        out: &mut Vec<Solid>,
    ) {
        let on = |x: f32, y: f32, over: f32| vec3(x, y, height_mm(x, y) + over);
        let mut knots = vec![from];
        for (i, &(x, y)) in self.rests.iter().enumerate() {
            let (dx, dy) = self
                .sway
                .get(i)
                .map_or((0.0, 0.0), |(sx, sy)| (sx.at(seconds), sy.at(seconds)));
            // The last one goes into the tissue.
            let over = if i + 1 == self.rests.len() {
                -1.0
            } else {
                self.wire_mm + 0.3
            };
            knots.push(on(x + dx, y + dy, over));
        }
        let line = spline(&knots);
        let last = line.len().saturating_sub(1);
        let lifted: Vec<Vec3> = line
            .iter()
            .enumerate()
            .map(|(i, p)| {
                let floor = height_mm(p.x, p.y) + if i == last { -1.0 } else { self.wire_mm * 0.8 };
                vec3(p.x, p.y, p.z.max(floor))
            })
            .collect();
        self.chain(&lifted, view, out);
        for [a, b] in &self.stitches {
            let arc: Vec<Vec3> = (0..=6)
                .map(|i| {
                    let t = i as f32 / 6.0;
                    let rise = 4.0 * t * (1.0 - t) * 1.6 - 0.5;
                    on(a.0 + (b.0 - a.0) * t, a.1 + (b.1 - a.1) * t, rise)
                })
                .collect();
            self.chain(&arc, view, out);
        }
    }

    fn chain(&self, points: &[Vec3], view: &View, out: &mut Vec<Solid>) {
        for pair in points.windows(2) {
            let (a, b) = (view.camera_from_world(pair[0]), view.camera_from_world(pair[1]));
            let piece = plain(a, b, self.wire_mm, self.wire_mm);
            out.push(Solid {
                class: class::THREAD,
                finish: self.finish,
                ..piece
            });
        }
    }
}

/// Points on the curve through `knots` (Catmull and Rom 1974, uniform), ends included.
fn spline(knots: &[Vec3]) -> Vec<Vec3> {
    let mut points = Vec::new();
    let spans = knots.len().saturating_sub(1);
    for span in 0..spans {
        let at = |i: usize| knots[i.min(knots.len() - 1)];
        let (p0, p1, p2, p3) = (at(span.saturating_sub(1)), at(span), at(span + 1), at(span + 2));
        let pieces = PIECES_PER_SPAN + usize::from(span + 1 == spans);
        for i in 0..pieces {
            let t = i as f32 / PIECES_PER_SPAN as f32;
            let (t2, t3) = (t * t, t * t * t);
            let sum = p0 * (2.0 * t2 - t3 - t)
                + p1 * (2.0 - 5.0 * t2 + 3.0 * t3)
                + p2 * (t + 4.0 * t2 - 3.0 * t3)
                + p3 * (t3 - t2);
            points.push(sum * 0.5);
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_passes_its_knots() {
        let knots = [
            vec3(0.0, 0.0, 0.0),
            vec3(5.0, 1.0, 2.0),
            vec3(7.0, -3.0, 1.0),
            vec3(2.0, -4.0, 0.0),
        ];
        let points = spline(&knots);
        assert_eq!(points.len(), 3 * PIECES_PER_SPAN + 1);
        for (i, knot) in knots.iter().enumerate() {
            assert!((points[i * PIECES_PER_SPAN] - *knot).length() < 1e-4, "knot {i}");
        }
        assert!(points.windows(2).all(|p| (p[1] - p[0]).length() < 2.0));
    }
}
