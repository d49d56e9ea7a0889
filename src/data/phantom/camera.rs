//! The endoscope: a pinhole camera with the light at its tip.
//!
//! A pixel `(x, y)` looks along the ray `d = ((x - cx) / f, (y - cy) / f, 1)` of camera space, so that the point at
//! `d * z` has depth `z`.

use super::motion::{Stops, Wander};
use super::random::Random;
use super::vector::{Vec3, vec3};
use crate::geometry::Size;

/// The camera at one instant.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Centre of projection in world space, mm.
    pub origin: Vec3,
    /// World directions of camera space's axes.
    pub right: Vec3,
    /// See [`View::right`].
    pub down: Vec3,
    /// See [`View::right`].
    pub forward: Vec3,
    /// Focal length in pixels.
    pub focal_px: f32,
    /// Principal point, px.
    pub centre_px: (f32, f32),
}

impl View {
    /// Camera-space point of the world point `p`.
    pub fn camera_from_world(&self, p: Vec3) -> Vec3 {
        self.turn(p - self.origin)
    }

    /// Camera-space direction of the world direction `v`.
    #[inline(always)]
    pub fn turn(&self, v: Vec3) -> Vec3 {
        vec3(v.dot(self.right), v.dot(self.down), v.dot(self.forward))
    }

    /// World-space direction of the camera-space direction `v`.
    #[inline(always)]
    pub fn turn_back(&self, v: Vec3) -> Vec3 {
        self.right * v.x + self.down * v.y + self.forward * v.z
    }

    /// World-space point of the camera-space point `p`.
    pub fn world_from_camera(&self, p: Vec3) -> Vec3 {
        self.origin + self.turn_back(p)
    }

    /// The pixel position of a camera-space point in front of the camera.
    pub fn project(&self, p: Vec3) -> (f32, f32) {
        (
            self.centre_px.0 + self.focal_px * p.x / p.z,
            self.centre_px.1 + self.focal_px * p.y / p.z,
        )
    }

    /// The camera-space ray, with `z` 1, through a pixel position.
    #[inline(always)]
    pub fn ray(&self, x_px: f32, y_px: f32) -> Vec3 {
        vec3(
            (x_px - self.centre_px.0) / self.focal_px,
            (y_px - self.centre_px.1) / self.focal_px,
            1.0,
        )
    }
}

/// One of the two cameras of a stereo endoscope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eye {
    /// The one that labels belong to.
    Left,
    /// [`BASELINE_MM`] to its right.
    Right,
}

/// Distance between the two cameras, mm.
pub const BASELINE_MM: f32 = 4.3;

impl View {
    /// What `eye` sees of this view, which is the left one's.
    pub fn of(self, eye: Eye) -> Self {
        match eye {
            Eye::Left => self,
            Eye::Right => Self {
                origin: self.origin + self.right * BASELINE_MM,
                ..self
            },
        }
    }
}

/// How the camera of one sequence moves: it holds still, shifts its aim now and then, and trembles a little.
#[derive(Debug, Clone)]
pub struct CameraPath {
    tilt: f32,
    azimuth: f32,
    roll: f32,
    distance_mm: f32,
    aim: Stops,
    zoom: Wander,
    tremor: [Wander; 3],
    /// Focal length over picture width.
    focal: f32,
}

impl CameraPath {
    /// Draws a path.
    pub fn new(random: &mut Random) -> Self {
        let reach = 8.0;
        let tilt = random.range(0.12, 0.49);
        Self {
            tilt,
            azimuth: random.range(0.0, std::f32::consts::TAU),
            roll: random.range(-0.25, 0.25),
            // Nearer when it looks along the tissue, so that the far corners stay on the modelled square.
            distance_mm: random.range(66.0, 92.0) * (1.0 - 0.2 * tilt),
            aim: Stops::new(
                random,
                6.5,
                0.5,
                vec3(-reach, -reach, 0.0),
                vec3(reach, reach, 0.0),
            ),
            zoom: Wander::new(random, 6.0, 5.0),
            tremor: [
                Wander::new(random, 0.5, 0.12),
                Wander::new(random, 0.5, 0.12),
                Wander::new(random, 0.6, 0.12),
            ],
            focal: random.range(0.82, 0.95),
        }
    }

    /// Where the camera is at `seconds`, for pictures of `size`.
    pub fn at(&self, seconds: f64, size: Size) -> View {
        let (width, height) = (size.width_px as f32, size.height_px as f32);
        let tremble = |i: usize| self.tremor[i].at(seconds);
        let target = self.aim.at(seconds) + vec3(tremble(0), tremble(1), 4.0);
        let (sin_tilt, cos_tilt) = libm::sincosf(self.tilt);
        let (sin_azimuth, cos_azimuth) = libm::sincosf(self.azimuth);
        let distance = self.distance_mm + self.zoom.at(seconds) + tremble(2);
        let away = vec3(-sin_azimuth * sin_tilt, -cos_azimuth * sin_tilt, cos_tilt);
        let forward = -away;
        let ahead = vec3(sin_azimuth, cos_azimuth, 0.0);
        let right = ahead.cross(vec3(0.0, 0.0, 1.0));
        let right = right.rotated(forward, self.roll);
        View {
            origin: target + away * distance,
            right,
            down: forward.cross(right),
            forward,
            focal_px: self.focal * width,
            centre_px: (width * 0.5, height * 0.5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::phantom::relief::EXTENT_MM;

    #[test]
    fn views_are_right_handed_and_look_down() {
        for seed in 0..20 {
            let size = Size {
                width_px: 320,
                height_px: 256,
            };
            let view = CameraPath::new(&mut Random::new(seed)).at(f64::from(seed as u32) * 0.7, size);
            assert!(view.right.dot(view.forward).abs() < 1e-5 && view.right.dot(view.down).abs() < 1e-5);
            assert!(
                (view.right.cross(view.down) - view.forward).length() < 1e-5,
                "seed {seed}"
            );
            assert!(view.forward.z < -0.8 && view.origin.z > 40.0, "seed {seed}");
            assert!(view.down.z < 0.35, "seed {seed}: the far side is at the top");
            let p = vec3(3.0, -7.0, 2.0);
            let seen = view.camera_from_world(p);
            assert!((view.world_from_camera(seen) - p).length() < 1e-3);
            let (x, y) = view.project(seen);
            assert!((view.ray(x, y) * seen.z - seen).length() < 1e-3);
        }
    }

    #[test]
    fn the_picture_stays_on_the_modelled_square() {
        let mut farthest = 0.0f32;
        for seed in 0..400 {
            let size = Size {
                width_px: 320,
                height_px: 256,
            };
            let path = CameraPath::new(&mut Random::new(seed));
            for second in 0..8 {
                let view = path.at(f64::from(second) * 3.3, size);
                for (x, y) in [(0.0, 0.0), (320.0, 0.0), (0.0, 256.0), (320.0, 256.0)] {
                    let d = view.turn_back(view.ray(x, y));
                    let p = view.origin + d * (view.origin.z / -d.z);
                    farthest = farthest.max(p.x.abs()).max(p.y.abs());
                }
            }
        }
        assert!(
            farthest < EXTENT_MM * 0.5,
            "a corner sees a point {farthest} mm from the middle"
        );
    }
}
