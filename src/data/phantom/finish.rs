//! What instruments are made of: how a hit on a solid answers the light.

use super::lanes::{LANES, Lanes};
use super::net::lamp_light;
use super::noise::{floor, gradient};
use super::random::Random;
use super::solid::{Hit, Prepared, Solid};
use super::vector::{Vec3, vec3};

/// Relief and holes on a surface.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pattern {
    /// None.
    Plain,
    /// Fine scratches along the axis.
    Brushed,
    /// Grooves across the axis, as inside jaws.
    Teeth {
        /// How many.
        count: f32,
    },
    /// A slot through the middle of a flattened jaw between two fractions of its length.
    Slot {
        /// Where it begins.
        from: f32,
        /// Where it ends.
        to: f32,
    },
    /// Dark rings around it.
    Rings {
        /// How many.
        count: f32,
    },
    /// Small round holes near the end, as on a suction tip.
    Holes,
    /// The head of a pin: domed, with a dark socket.
    Hub,
}

/// A material.
#[derive(Debug, Clone, Copy)]
pub struct Finish {
    /// Reflectance, linear RGB.
    pub color: Vec3,
    /// Share of diffuse light.
    pub diffuse: f32,
    /// Share of mirrored surroundings.
    pub mirror: f32,
    /// Width of the highlight: 0.05 polished, 0.5 matt.
    pub roughness: f32,
    /// Relief.
    pub pattern: Pattern,
    /// Seed of its scratches and stains.
    pub seed: u32,
}

/// The light around a solid.
#[derive(Debug, Clone, Copy)]
pub struct Lighting {
    /// Where the lamp is, camera space, mm.
    pub lamp: Vec3,
    /// Colour that the surroundings send back under light of 1.
    pub ambient: Vec3,
}

/// Neighbouring pixels of a row that show one solid.
#[derive(Debug)]
pub struct Run<'a> {
    /// Ray of the first pixel.
    pub ray: Vec3,
    /// From one ray to the next.
    pub step: f32,
    /// Depth, mm.
    pub depth: &'a [f32],
    /// Outward unit normals, camera space.
    pub normal: [&'a [f32]; 3],
    /// Fractions along the axis.
    pub along: &'a [f32],
    /// Where the light goes.
    pub rgb: [&'a mut [f32]; 3],
}

/// Relief of a block of pixels.
struct Relief {
    normal: [Lanes; 3],
    /// Factor on the reflectance.
    dim: Lanes,
}

impl Finish {
    /// Bare metal of some tint.
    pub fn metal(random: &mut Random, tint: Vec3, pattern: Pattern) -> Self {
        let bright = random.range(0.35, 0.75);
        Self {
            color: tint * bright,
            diffuse: random.range(0.25, 0.5),
            mirror: random.range(0.5, 0.9),
            roughness: random.range(0.14, 0.32),
            pattern,
            seed: random.bits() as u32,
        }
    }

    /// Coated or plastic.
    pub fn coat(random: &mut Random, color: Vec3) -> Self {
        Self {
            color,
            diffuse: random.range(0.7, 0.95),
            mirror: random.range(0.06, 0.16),
            roughness: random.range(0.2, 0.45),
            pattern: Pattern::Plain,
            seed: random.bits() as u32,
        }
    }

    /// Whether the surface has a hole where the ray `d` met it.
    #[inline]
    pub fn open(&self, solid: &Solid, hit: &Hit, d: Vec3) -> bool {
        match self.pattern {
            Pattern::Slot { from, to } if hit.along > from && hit.along < to => {
                let wide = solid.mark.dot(d * hit.z - solid.a.lerp(solid.b, hit.along));
                let radius = solid.radius_a + (solid.radius_b - solid.radius_a) * hit.along;
                wide.abs() < radius * 0.36
            }
            _ => false,
        }
    }

    /// Lights `run`. Only operations that IEEE 754 rounds exactly, pixel by pixel: every instruction set gives the
    /// same bits.
    #[inline(always)]
    pub fn light(&self, prepared: &Prepared, lighting: &Lighting, run: Run) {
        let Run {
            ray,
            step,
            depth,
            normal,
            along,
            rgb,
        } = run;
        let [red, green, blue] = rgb;
        for start in (0..depth.len()).step_by(LANES) {
            let count = LANES.min(depth.len() - start);
            let mut relief = Relief {
                normal: [[0.0; LANES]; 3],
                dim: [1.0; LANES],
            };
            let (mut z, mut y) = ([1.0f32; LANES], [0.0f32; LANES]);
            z[..count].copy_from_slice(&depth[start..start + count]);
            y[..count].copy_from_slice(&along[start..start + count]);
            for (to, from) in relief.normal.iter_mut().zip(normal) {
                to[..count].copy_from_slice(&from[start..start + count]);
            }
            let ray = vec3(ray.x + step * start as f32, ray.y, ray.z);
            self.add_relief(prepared, ray, step, &z, &y, &mut relief);
            let light = self.reflect(lighting, ray, step, &z, &relief);
            red[start..start + count].copy_from_slice(&light[0][..count]);
            green[start..start + count].copy_from_slice(&light[1][..count]);
            blue[start..start + count].copy_from_slice(&light[2][..count]);
        }
    }

    /// Adds the pattern, scratches and stains of a block.
    #[inline(always)]
    fn add_relief(
        &self,
        prepared: &Prepared,
        ray: Vec3,
        step: f32,
        z: &Lanes,
        along: &Lanes,
        relief: &mut Relief,
    ) {
        let solid = &prepared.solid;
        let (mark, side, length) = (solid.mark, prepared.side(), prepared.length());
        let axis = solid.b - solid.a;
        let (mut cx, mut cy) = ([0.0f32; LANES], [0.0f32; LANES]);
        for i in 0..LANES {
            let (nx, ny, nz) = (relief.normal[0][i], relief.normal[1][i], relief.normal[2][i]);
            cx[i] = nx * mark.x + ny * mark.y + nz * mark.z;
            cy[i] = nx * side.x + ny * side.y + nz * side.z;
        }
        match self.pattern {
            Pattern::Plain | Pattern::Slot { .. } => {}
            Pattern::Brushed => {
                for (i, dim) in relief.dim.iter_mut().enumerate() {
                    *dim += 0.14 * gradient(self.seed, cx[i] * 14.0, cy[i] * 14.0 + along[i] * 0.7);
                }
            }
            Pattern::Teeth { count } => {
                // Jaws are toothed inside only: where the flattening axis, which points out, looks away.
                let outward = solid.flat.map_or(vec3(0.0, 0.0, 0.0), |(outward, _)| outward);
                let tip = 0.9 / length;
                for (i, along) in along.iter().enumerate() {
                    let (nx, ny, nz) = (relief.normal[0][i], relief.normal[1][i], relief.normal[2][i]);
                    let inside = if nx * outward.x + ny * outward.y + nz * outward.z > 0.12 {
                        0.0
                    } else {
                        1.0
                    };
                    let turns = along * count;
                    let t = turns - floor(turns) as f32;
                    relief.dim[i] *= 1.0 - inside * (0.65 - 3.0 * t * (1.0 - t));
                    let tilt = inside * (t - 0.5) * tip;
                    relief.normal[0][i] = nx + axis.x * tilt;
                    relief.normal[1][i] = ny + axis.y * tilt;
                    relief.normal[2][i] = nz + axis.z * tilt;
                }
            }
            Pattern::Rings { count } => {
                for (dim, along) in relief.dim.iter_mut().zip(along) {
                    let turns = along * count;
                    *dim *= if turns - (floor(turns) as f32) < 0.22 {
                        0.35
                    } else {
                        1.0
                    };
                }
            }
            Pattern::Holes => {
                for i in 0..LANES {
                    let across = cx[i].abs().min(cy[i].abs()) * solid.radius_b;
                    let (near, far) = ((along[i] - 0.62) * length, (along[i] - 0.84) * length);
                    let squared = (near * near).min(far * far) + across * across;
                    relief.dim[i] *= if squared < 0.55 { 0.03 } else { 1.0 };
                }
            }
            Pattern::Hub => {
                for i in 0..LANES {
                    let p = vec3(ray.x + step * i as f32, ray.y, ray.z) * z[i];
                    let out = p - solid.a.lerp(solid.b, along[i]);
                    let radial = out - axis * (out.dot(axis) / (length * length));
                    let share = radial.length() / solid.radius_b;
                    relief.normal[0][i] += radial.x * (0.55 / solid.radius_b);
                    relief.normal[1][i] += radial.y * (0.55 / solid.radius_b);
                    relief.normal[2][i] += radial.z * (0.55 / solid.radius_b);
                    relief.dim[i] *= if share < 0.42 { 0.12 } else { 0.8 };
                }
            }
        }
        for i in 0..LANES {
            let stain = gradient(
                self.seed ^ 7,
                along[i] * length * 0.25 + cx[i],
                cy[i] * 1.5 + cx[i],
            );
            relief.dim[i] *= 1.0 + 0.14 * stain;
        }
    }

    /// Light sent to the camera by a block: diffuse, mirrored surroundings, highlight of the lamp.
    #[inline(always)]
    fn reflect(&self, lighting: &Lighting, ray: Vec3, step: f32, z: &Lanes, relief: &Relief) -> [Lanes; 3] {
        let a2 = self.roughness * self.roughness * 0.25;
        let ambient = lighting.ambient;
        let mut out = [[0.0f32; LANES]; 3];
        for i in 0..LANES {
            let d = vec3(ray.x + step * i as f32, ray.y, ray.z);
            let n = vec3(relief.normal[0][i], relief.normal[1][i], relief.normal[2][i]);
            let n = n * (1.0 / n.dot(n).max(1e-12).sqrt());
            let p = d * z[i];
            let light = lamp_light(p, lighting.lamp);
            let view = d * (1.0 / d.dot(d).sqrt());
            let to = lighting.lamp - p;
            let to = to * (1.0 / to.dot(to).max(1e-6).sqrt());
            let facing = n.dot(to).max(0.0);
            let mirrored = view - n * (2.0 * view.dot(n));
            // Surroundings: tissue ahead, darkness behind the camera, broken by soft bands.
            let ahead = ((mirrored.z + 0.45) * (1.0 / 1.1)).clamp(0.0, 1.0);
            let ahead = ahead * ahead * (3.0 - 2.0 * ahead);
            let bands = 0.75 + 0.45 * gradient(self.seed ^ 3, mirrored.x * 2.3 + 5.0, mirrored.y * 2.3);
            let around = (0.10 + 0.65 * ahead) * bands * light.min(1.5);
            let half = to - view;
            let cos = n.dot(half).max(0.0) / half.dot(half).max(1e-6).sqrt();
            let q = cos * cos * (a2 - 1.0) + 1.0;
            let lobe = (a2 / (q * q)).min(60.0) * 0.055;
            let rim = (1.0 + n.dot(view)).clamp(0.0, 1.0);
            let fresnel = self.mirror + (1.0 - self.mirror) * rim * rim * rim * 0.6;
            let diffuse = self.diffuse * light * (0.12 + 0.88 * facing);
            let glint = light * lobe * (0.25 + self.mirror);
            // Metal colours what it mirrors, coats do not.
            let channel = |color: f32, ambient: f32| {
                let color = color * relief.dim[i];
                let tint = 1.0 + (color * 1.6 - 1.0) * self.mirror;
                color * diffuse + tint * (ambient * around * fresnel + glint)
            };
            out[0][i] = channel(self.color.x, ambient.x);
            out[1][i] = channel(self.color.y, ambient.y);
            out[2][i] = channel(self.color.z, ambient.z);
        }
        out
    }
}
