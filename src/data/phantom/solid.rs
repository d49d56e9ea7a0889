//! The solids that instruments are built from: cones between two points, round or flat at the ends, perhaps
//! flattened, met exactly by a ray.
//!
//! With `m = -a`, axis `e = b - a`, `y(t) = ((m + t d) . e) / |e|^2` and radius `r(y) = ra + (rb - ra) y`, the ray
//! `t d` from the camera meets the side where `|m + t d|^2 - |e|^2 y^2 = r(y)^2`, a quadratic in `t`. A flattened
//! solid is the same in a space stretched along the flattening axis.

use super::camera::View;
use super::outline::Outline;
use super::vector::{Vec3, vec3};

/// A cone frustum in camera space (mm) and what it is.
#[derive(Debug, Clone, Copy)]
pub struct Solid {
    /// One end of the axis.
    pub a: Vec3,
    /// The other end.
    pub b: Vec3,
    /// Radius at `a`, mm.
    pub radius_a: f32,
    /// Radius at `b`, mm.
    pub radius_b: f32,
    /// Half spheres at the ends, instead of flat caps.
    pub round: bool,
    /// Unit axis along which it is thinner, and the factor (at most 1).
    pub flat: Option<(Vec3, f32)>,
    /// Class id.
    pub class: u8,
    /// Index of its finish in the scene.
    pub finish: u16,
    /// A unit vector at right angles to the axis from which angles about it count.
    pub mark: Vec3,
}

/// Where a ray meets a solid.
#[derive(Debug, Clone, Copy)]
pub struct Hit {
    /// Depth along the optical axis, mm.
    pub z: f32,
    /// Outward unit normal, camera space.
    pub normal: Vec3,
    /// Fraction of the way from `a` to `b`.
    pub along: f32,
}

/// Rays that are met at once.
pub const BLOCK: usize = 32;

/// Where a block of rays meets an infinite cone.
#[derive(Debug, Clone, Copy)]
pub struct Sides {
    /// Depth, mm; 0 for a miss.
    pub depth: [f32; BLOCK],
    /// Fraction along the axis.
    pub along: [f32; BLOCK],
    /// Above 0 where the ray may meet an end.
    pub ends: [f32; BLOCK],
    /// Outward unit normals, camera space.
    pub normal: [[f32; BLOCK]; 3],
}

impl Default for Sides {
    fn default() -> Self {
        Self {
            depth: [0.0; BLOCK],
            along: [0.0; BLOCK],
            ends: [0.0; BLOCK],
            normal: [[0.0; BLOCK]; 3],
        }
    }
}

/// A solid with everything that does not depend on the ray worked out.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The solid itself.
    pub solid: Solid,
    stretch: Option<(Vec3, f32)>,
    a: Vec3,
    axis: Vec3,
    inverse_square: f32,
    square: f32,
    y0: f32,
    slope: f32,
    radius0: f32,
    constant: f32,
    outline: Outline,
    side: Vec3,
    length: f32,
}

/// Nothing nearer to the camera than this is drawn, mm.
pub const NEAR_MM: f32 = 9.0;

impl Prepared {
    /// Prepares `solid`, cut off in front of the camera; nothing if nothing remains.
    pub fn new(mut solid: Solid, view: &View) -> Option<Self> {
        let reach = solid.radius_a.max(solid.radius_b);
        let nearest = NEAR_MM + reach;
        if solid.a.z < nearest && solid.b.z < nearest {
            return None;
        }
        let cut =
            |from: Vec3, to: Vec3| from.lerp(to, ((nearest - from.z) / (to.z - from.z)).clamp(0.0, 1.0));
        if solid.a.z < nearest {
            solid.a = cut(solid.a, solid.b);
        } else if solid.b.z < nearest {
            solid.b = cut(solid.b, solid.a);
        }
        let stretch = solid
            .flat
            .map(|(axis, factor)| (axis, 1.0 / factor.max(0.05) - 1.0));
        let warped = |p: Vec3| stretch.map_or(p, |stretch| warp(p, stretch));
        let (a, b) = (warped(solid.a), warped(solid.b));
        let axis = b - a;
        let square = axis.dot(axis).max(1e-6);
        let y0 = -a.dot(axis) / square;
        let slope = solid.radius_b - solid.radius_a;
        let radius0 = solid.radius_a + slope * y0;
        let constant = a.dot(a) - square * y0 * y0 - radius0 * radius0;
        let length = (solid.b - solid.a).length();
        Some(Self {
            solid,
            stretch,
            a,
            axis,
            inverse_square: 1.0 / square,
            square,
            y0,
            slope,
            radius0,
            constant,
            outline: Outline::new(&solid, view),
            side: solid.mark.cross(solid.b - solid.a).normalized(),
            length,
        })
    }

    /// Its outline on the screen.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// Unit vector at right angles to the axis and to [`Solid::mark`].
    pub fn side(&self) -> Vec3 {
        self.side
    }

    /// Length of the axis, mm.
    pub fn length(&self) -> f32 {
        self.length
    }

    /// Where the ray `t d` (with `d.z` 1) first meets the solid.
    pub fn meet(&self, d: Vec3) -> Option<Hit> {
        let mut sides = Sides::default();
        self.meet_sides(d, 0.0, &mut sides);
        self.resolve(d, &sides, 0)
    }

    /// Where [`BLOCK`] rays, the first `d` and each `step` farther right, meet the infinite cone: depth (0 for a
    /// miss) and fraction along the axis. Every lane does the same exact operations on every instruction set.
    #[inline(always)]
    pub fn meet_sides(&self, d: Vec3, step: f32, out: &mut Sides) {
        let (base, across) = match self.stretch {
            Some((axis, extra)) => (
                d + axis * (axis.dot(d) * extra),
                vec3(step, 0.0, 0.0) + axis * (axis.x * step * extra),
            ),
            None => (d, vec3(step, 0.0, 0.0)),
        };
        let (yd0, yd1) = (
            base.dot(self.axis) * self.inverse_square,
            across.dot(self.axis) * self.inverse_square,
        );
        let (md0, md1) = (-self.a.dot(base), -self.a.dot(across));
        let end = self.a + self.axis;
        let sphere_a = self.a.dot(self.a) - self.solid.radius_a * self.solid.radius_a;
        let sphere_b = end.dot(end) - self.solid.radius_b * self.solid.radius_b;
        for i in 0..BLOCK {
            let x = i as f32;
            let (px, py, pz) = (
                base.x + across.x * x,
                base.y + across.y * x,
                base.z + across.z * x,
            );
            let yd = yd0 + yd1 * x;
            let md = md0 + md1 * x;
            let rd = self.slope * yd;
            let qa = px * px + py * py + pz * pz - self.square * yd * yd - rd * rd;
            let qb = md - self.square * self.y0 * yd - self.radius0 * rd;
            let disc = qb * qb - qa * self.constant;
            let t = (-qb - disc.max(0.0).sqrt()) / qa;
            out.depth[i] = if disc > 0.0 { t } else { 0.0 };
            out.along[i] = self.y0 + t * yd;
            let dd = px * px + py * py + pz * pz;
            let md_b = md - (self.axis.x * px + self.axis.y * py + self.axis.z * pz);
            let spheres = (md * md - dd * sphere_a).max(md_b * md_b - dd * sphere_b);
            // A ray that misses the infinite cone misses flat ends as well; spheres may bulge out of it.
            out.ends[i] = if self.solid.round { spheres } else { disc };
        }
        // Two loops: each vectorises.
        let ray = |i: usize| vec3(d.x + step * i as f32, d.y, d.z);
        if let Some(stretch) = self.stretch {
            for i in 0..BLOCK {
                let normal = self.side_normal(warp(ray(i), stretch), out.depth[i], out.along[i]);
                out.put_normal(i, unit(warp(normal, stretch)));
            }
        } else {
            for i in 0..BLOCK {
                let normal = self.side_normal(ray(i), out.depth[i], out.along[i]);
                out.put_normal(i, unit(normal));
            }
        }
    }

    /// The normal, not of unit length and in the stretched space, of the side where the stretched ray `d` meets it.
    #[inline(always)]
    fn side_normal(&self, d: Vec3, depth: f32, along: f32) -> Vec3 {
        let radius = self.radius0 + self.slope * (along - self.y0);
        let radial = d * depth - self.a - self.axis * along;
        radial - self.axis * (radius * self.slope * self.inverse_square)
    }

    /// The hit of ray `d`, which is ray `i` of `sides`.
    #[inline]
    pub fn resolve(&self, d: Vec3, sides: &Sides, i: usize) -> Option<Hit> {
        let (depth, along) = (sides.depth[i], sides.along[i]);
        if depth > 0.0 && (0.0..=1.0).contains(&along) {
            let [x, y, z] = sides.normal.each_ref().map(|normals| normals[i]);
            return Some(Hit {
                z: depth,
                normal: vec3(x, y, z),
                along,
            });
        }
        if sides.ends[i] > 0.0 {
            self.meet_ends(self.warped(d))
        } else {
            None
        }
    }

    fn warped(&self, v: Vec3) -> Vec3 {
        self.stretch.map_or(v, |stretch| warp(v, stretch))
    }

    fn meet_ends(&self, d: Vec3) -> Option<Hit> {
        let yd = d.dot(self.axis) * self.inverse_square;
        let dd = d.dot(d);
        let md = -self.a.dot(d);
        let Solid {
            radius_a,
            radius_b,
            round,
            ..
        } = self.solid;
        let mut best: Option<(f32, Vec3, f32)> = None;
        let mut take = |t: f32, normal: Vec3, y: f32| {
            if t > 0.0 && best.is_none_or(|(z, ..)| t < z) {
                best = Some((t, normal, y));
            }
        };
        if round {
            // Spheres around a (y = 0) and b (y = 1).
            for (centre, radius, md, y) in [
                (self.a, radius_a, md, 0.0),
                (self.a + self.axis, radius_b, md - self.axis.dot(d), 1.0),
            ] {
                let disc = md * md - dd * (centre.dot(centre) - radius * radius);
                if disc > 0.0 {
                    let t = (-md - disc.sqrt()) / dd;
                    take(t, d * t - centre, y);
                }
            }
        } else if yd.abs() > 1e-9 {
            for (end, radius, centre, out) in [
                (0.0, radius_a, self.a, -1.0f32),
                (1.0, radius_b, self.a + self.axis, 1.0),
            ] {
                let t = (end - self.y0) / yd;
                let offset = d * t - centre;
                if out * yd < 0.0 && offset.dot(offset) < radius * radius {
                    take(t, self.axis * out, end);
                }
            }
        }
        best.map(|(t, normal, y)| self.hit(t, normal, y))
    }

    #[inline]
    fn hit(&self, t: f32, normal: Vec3, along: f32) -> Hit {
        Hit {
            z: t,
            normal: unit(self.warped(normal)),
            along,
        }
    }
}

impl Sides {
    #[inline(always)]
    fn put_normal(&mut self, i: usize, normal: Vec3) {
        self.normal[0][i] = normal.x;
        self.normal[1][i] = normal.y;
        self.normal[2][i] = normal.z;
    }
}

/// `v` in the space stretched along an axis by a factor less one. Normals go back by the same symmetric matrix.
#[inline(always)]
fn warp(v: Vec3, (axis, extra): (Vec3, f32)) -> Vec3 {
    v + axis * (axis.dot(v) * extra)
}

#[inline(always)]
fn unit(v: Vec3) -> Vec3 {
    v * (1.0 / v.dot(v).max(1e-20).sqrt())
}

/// Squared distance between the segments `p0 p1` and `q0 q1`, and the fraction along the second where it is least.
pub fn segment_distance(p0: Vec3, p1: Vec3, q0: Vec3, q1: Vec3) -> (f32, f32) {
    let (u, v, w) = (p1 - p0, q1 - q0, p0 - q0);
    let (a, b, c) = (u.dot(u), u.dot(v), v.dot(v).max(1e-9));
    let (d, e) = (u.dot(w), v.dot(w));
    let det = a * c - b * b;
    let s = if det > 1e-6 {
        ((b * e - c * d) / det).clamp(0.0, 1.0)
    } else {
        0.0
    };
    let t = ((b * s + e) / c).clamp(0.0, 1.0);
    let s = if a > 1e-9 {
        ((b * t - d) / a).clamp(0.0, 1.0)
    } else {
        0.0
    };
    let gap = w + u * s - v * t;
    (gap.dot(gap), t)
}

/// A solid without class or place of its own, for tests and props.
pub fn plain(a: Vec3, b: Vec3, radius_a: f32, radius_b: f32) -> Solid {
    let axis = (b - a).normalized();
    Solid {
        a,
        b,
        radius_a,
        radius_b,
        round: true,
        flat: None,
        class: 0,
        finish: 0,
        mark: axis.any_perpendicular(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::phantom::random::Random;

    fn view() -> View {
        View {
            origin: vec3(0.0, 0.0, 0.0),
            right: vec3(1.0, 0.0, 0.0),
            down: vec3(0.0, 1.0, 0.0),
            forward: vec3(0.0, 0.0, 1.0),
            focal_px: 100.0,
            centre_px: (50.0, 50.0),
        }
    }

    /// Distance to the surface by definition, in the stretched space.
    fn inside(solid: &Solid, p: Vec3) -> bool {
        let warp = |p: Vec3| match solid.flat {
            Some((axis, factor)) => p + axis * (axis.dot(p) * (1.0 / factor - 1.0)),
            None => p,
        };
        let (p, a, b) = (warp(p), warp(solid.a), warp(solid.b));
        let e = b - a;
        let y = (p - a).dot(e) / e.dot(e);
        let radius = solid.radius_a + (solid.radius_b - solid.radius_a) * y;
        let side = (0.0..=1.0).contains(&y) && (p - a - e * y).length() <= radius;
        let ends = (p - a).length() <= solid.radius_a || (p - b).length() <= solid.radius_b;
        side || (solid.round && ends)
    }

    #[test]
    fn rays_meet_solids_where_marching_does() {
        let mut random = Random::new(77);
        let mut met = 0;
        for case in 0..400 {
            let mut point = |z: f32| vec3(random.range(-15.0, 15.0), random.range(-15.0, 15.0), z);
            let (a, b) = (point(50.0), point(70.0));
            let mut solid = plain(a, b, random.range(1.0, 5.0), random.range(1.0, 5.0));
            solid.round = case % 2 == 0;
            if case % 3 == 0 {
                solid.flat = Some((solid.mark, random.range(0.3, 0.9)));
            }
            let prepared = Prepared::new(solid, &view()).unwrap();
            // Aimed near the axis, so that most rays meet it and some pass.
            let aim = a.lerp(b, random.range(-0.1, 1.1));
            let (x, y) = view().project(aim);
            let (x, y) = (x + random.range(-6.0, 6.0), y + random.range(-6.0, 6.0));
            let (x, y) = (x.clamp(1.0, 98.0), y.clamp(1.0, 98.0));
            let d = view().ray(x, y);
            let marched = (0..8000)
                .map(|i| 30.0 + i as f32 * 0.01)
                .find(|&z| inside(&solid, d * z));
            match (prepared.meet(d), marched) {
                (Some(hit), Some(z)) => {
                    met += 1;
                    assert!((hit.z - z).abs() < 0.15, "case {case}: {} and {z}", hit.z);
                    assert!(hit.normal.dot(d) < 0.05, "case {case}");
                    let span = prepared.outline().span(y, 100);
                    assert!(span.contains(&(x as usize)), "case {case}: {x} not in {span:?}");
                }
                (None, None) => {}
                // Marching steps over a graze.
                (Some(hit), None) => assert!(hit.normal.dot(d.normalized()) > -0.25, "case {case}"),
                (None, Some(z)) => panic!("case {case}: not met at {z}"),
            }
        }
        assert!(met > 150 && met < 395, "{met}");
    }

    #[test]
    fn segment_distance_is_the_least() {
        let mut random = Random::new(5);
        for case in 0..200 {
            let mut p = || {
                vec3(
                    random.range(-1.0, 1.0),
                    random.range(-1.0, 1.0),
                    random.range(-1.0, 1.0),
                )
            };
            let (a, b, c, d) = (p(), p(), p(), p());
            let mut least = f32::MAX;
            for i in 0..=60 {
                for j in 0..=60 {
                    least = least.min((a.lerp(b, i as f32 / 60.0) - c.lerp(d, j as f32 / 60.0)).length());
                }
            }
            let found = segment_distance(a, b, c, d).0.sqrt();
            assert!(
                found <= least + 1e-5 && found > least - 0.06,
                "case {case}: {found} {least}"
            );
        }
    }
}
