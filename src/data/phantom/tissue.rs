//! Shades rows of tissue: colour and fine relief from the sheet, light from the net, gloss on top.
//!
//! With the normal `n` and the half vector `h` between lamp and camera, `c = (n.h)^2 / (n.n h.h)` is the squared
//! cosine of their angle. Diffuse light grows with `c`; the wet film adds `w / (c (w - 1) + 1)^2` for a narrow and
//! a wide `w` (the GGX lobe, Walter and others 2007, without its constants).

use super::lanes::dispatch;
use super::net::{ATTRIBUTES, CELL_PX, DEPTH, Net, REFERENCE_MM};
use super::scene::{Instant, Scene};
use super::sheet::{SLOPE_SCALE, Sheet};
use super::vector::{Vec3, vec3};
use pulp::{Simd, WithSimd};

/// Buffers for one row of pixels.
#[derive(Debug)]
pub struct TissueRow {
    nodes: Vec<f32>,
    /// The nodes' numbers for each pixel.
    planes: Vec<f32>,
    /// Sheet coordinates of each pixel in 256ths, then the texel there.
    places: [Vec<u32>; 2],
    texels: Vec<u64>,
    stride: usize,
}

/// What shading needs to know about an instant.
#[derive(Debug, Clone, Copy)]
pub struct Wetness {
    /// Points whose blood number lies below this are under blood.
    pub blood_level: f32,
    /// Factor on all gloss.
    pub gloss: f32,
}

impl TissueRow {
    /// Buffers for pictures of `width` pixels and nets such as `net`.
    pub fn new(net: &Net, width: usize) -> Self {
        let stride = width.div_ceil(CELL_PX) * CELL_PX;
        let planes = vec![0.0; stride * ATTRIBUTES];
        Self {
            nodes: vec![0.0; net.row_length()],
            planes,
            places: [vec![0; width], vec![0; width]],
            texels: vec![0; width],
            stride,
        }
    }

    /// Depth of each pixel of the row shaded last, mm.
    pub fn depths(&mut self) -> &mut [f32] {
        &mut self.planes[DEPTH * self.stride..][..self.stride]
    }

    /// Shades row `y` into `rgb` (linear, one slice per channel) and `labels`.
    pub fn shade(
        &mut self,
        scene: &Scene,
        instant: &Instant,
        net: &Net,
        y: usize,
        rgb: [&mut [f32]; 3],
        labels: &mut [u8],
    ) {
        let view = &instant.view;
        net.row(y, &mut self.nodes);
        let stride = self.stride;
        dispatch(Spread {
            nodes: self.nodes.chunks_exact(net.columns),
            planes: &mut self.planes,
            stride,
            sheet: &scene.sheet,
            places: &mut self.places,
            texels: &mut self.texels,
            labels,
        });
        let (along, across) = scene.sheet.axes();
        let ray = view.ray(0.5, y as f32 + 0.5);
        dispatch(Shading {
            planes: &self.planes,
            texels: &self.texels,
            stride,
            rgb,
            wetness: instant.wetness,
            tangents: (
                view.turn(along) * (1.0 / SLOPE_SCALE),
                view.turn(across) * (1.0 / SLOPE_SCALE),
            ),
            // Half vectors lean by half of the lamp's angle.
            half: vec3(
                0.5 * scene.lamp.x / REFERENCE_MM - ray.x,
                0.5 * scene.lamp.y / REFERENCE_MM - ray.y,
                -1.0,
            ),
            half_step: -1.0 / view.focal_px,
            blood: scene.palette.blood,
        });
    }
}

/// Interpolates the nodes' numbers for each pixel and looks up the sheet.
struct Spread<'a> {
    nodes: std::slice::ChunksExact<'a, f32>,
    planes: &'a mut [f32],
    stride: usize,
    sheet: &'a Sheet,
    places: &'a mut [Vec<u32>; 2],
    texels: &'a mut [u64],
    labels: &'a mut [u8],
}

impl WithSimd for Spread<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (plane, nodes) in self.planes.chunks_exact_mut(self.stride).zip(self.nodes) {
            for (cell, pair) in plane.chunks_exact_mut(CELL_PX).zip(nodes.windows(2)) {
                for (i, value) in cell.iter_mut().enumerate() {
                    *value = pair[0] + (pair[1] - pair[0]) * (i as f32 / CELL_PX as f32);
                }
            }
        }
        for (places, plane) in self.places.iter_mut().zip(self.planes.chunks_exact(self.stride)) {
            for (place, &at) in places.iter_mut().zip(plane) {
                *place = self.sheet.fixed(at);
            }
        }
        let [us, vs] = self.places;
        self.sheet.sample(us, vs, self.texels, self.labels);
    }
}

struct Shading<'a> {
    planes: &'a [f32],
    texels: &'a [u64],
    stride: usize,
    rgb: [&'a mut [f32]; 3],
    wetness: Wetness,
    tangents: (Vec3, Vec3),
    half: Vec3,
    half_step: f32,
    blood: Vec3,
}

impl WithSimd for Shading<'_> {
    type Output = ();

    /// Only lane by lane operations that IEEE 754 rounds exactly: every instruction set gives the same bits.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Shading {
            planes,
            texels,
            stride,
            rgb: [red, green, blue],
            wetness,
            tangents,
            half,
            half_step,
            blood,
        } = self;
        let width = red.len().min(green.len()).min(blue.len()).min(stride);
        let plane = |i: usize| &planes[i * stride..][..width];
        let (light, nx, ny, nz) = (plane(3), plane(4), plane(5), plane(6));
        let texels = &texels[..width];
        let (red, green, blue) = (&mut red[..width], &mut green[..width], &mut blue[..width]);
        let (tx, ty) = tangents;
        for x in 0..width {
            let byte = |i: u32| ((texels[x] >> (8 * i)) as u32 & 255) as i32 as f32;
            let (px, py) = (byte(4) - 128.0, byte(5) - 128.0);
            let n_x = nx[x] - tx.x * px - ty.x * py;
            let n_y = ny[x] - tx.y * px - ty.y * py;
            let n_z = nz[x] - tx.z * px - ty.z * py;
            let h_x = half.x + half_step * x as f32;
            let nh = (n_x * h_x + n_y * half.y + n_z * half.z).max(0.0);
            let nn = n_x * n_x + n_y * n_y + n_z * n_z;
            let hh = h_x * h_x + half.y * half.y + half.z * half.z;
            let c = (nh * nh / (nn * hh)).min(1.0);
            // A thin film at the edge of a pool, thick blood in the middle.
            let deep = (wetness.blood_level - byte(6) * (1.0 / 255.0)) * 16.0;
            let pool = (deep * 0.35 + 0.35).min(0.93) * (deep * 2.0).clamp(0.0, 1.0);
            let gloss = (byte(3) * (1.0 / 255.0) + 0.3 * pool) * wetness.gloss;
            let wide = c * (0.05 - 1.0) + 1.0;
            let narrow = c * (0.0028 - 1.0) + 1.0;
            let wet = gloss * light[x] * ((0.0028 * 0.012) / (narrow * narrow)).min(3.0)
                + gloss * light[x] * (0.05 * 0.014) / (wide * wide);
            // Light wanders under the surface, red farthest: shaded sides stay red.
            let lit_red = light[x] * (0.30 + 0.70 * c);
            let lit = light[x] * (0.17 + 0.83 * c);
            let square = |v: f32| v * v * (1.0 / 65025.0);
            let mix = |a: f32, b: f32| a + (b - a) * pool;
            let (r, g, b) = (
                mix(square(byte(0)), blood.x),
                mix(square(byte(1)), blood.y),
                mix(square(byte(2)), blood.z),
            );
            // The cavity sends light back in its own colour, which deepens colours.
            red[x] = r * lit_red * (0.9 + 0.35 * r) + wet;
            green[x] = g * lit * (0.9 + 0.35 * g) + wet;
            blue[x] = b * lit * (0.9 + 0.35 * b) + wet;
        }
    }
}
