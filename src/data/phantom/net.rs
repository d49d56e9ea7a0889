//! The net of rays that find the tissue.
//!
//! The tissue is smooth, so it is met exactly only at the nodes of a net [`CELL_PX`] wide. Between them everything
//! about the surface is interpolated: where it lies on the sheet, its depth, its normal and the light on it.

use super::camera::View;
use super::scene::{Instant, Scene};
use super::solid::{Solid, segment_distance};
use super::vector::{Vec3, smoothstep};
use crate::geometry::Size;
use rayon::prelude::*;

/// Pixels between the nodes of the net.
pub const CELL_PX: usize = 4;

/// Numbers at a node: sheet `u`, sheet `v`, depth (mm), light, normal `x`, `y`, `z` (camera space).
pub const ATTRIBUTES: usize = 7;

/// Position of the depth among a node's numbers.
pub const DEPTH: usize = 2;

const LIGHT: usize = 3;

/// Depth at which the lamp's light counts as 1, mm.
pub const REFERENCE_MM: f32 = 78.0;

/// The nodes of one picture.
#[derive(Debug)]
pub struct Net {
    /// Nodes in a row.
    pub columns: usize,
    /// `[row, attribute, column]`.
    values: Vec<f32>,
}

/// Light from the lamp on a camera-space point: inverse square, weaker off the axis.
#[inline(always)]
pub fn lamp_light(p: Vec3, lamp: Vec3) -> f32 {
    let to = p - lamp;
    let squared = to.dot(to).max(400.0);
    let off = 1.0 - 0.55 * (to.x * to.x + to.y * to.y) / squared;
    REFERENCE_MM * REFERENCE_MM / squared * off * off
}

/// Something that stands in the lamp's light.
struct Shade<'a> {
    solid: &'a Solid,
    /// Nodes that its shadow may reach: first and last column, first and last row.
    columns: (usize, usize),
    rows: (usize, usize),
    /// Beyond this distance from the axis its shadow cannot reach, squared.
    reach_squared: f32,
}

impl Net {
    /// Casts the rays of `instant` for a picture of `size`.
    pub fn cast(scene: &Scene, instant: &Instant, size: Size) -> Self {
        let (width, height) = (size.width_px as usize, size.height_px as usize);
        // One node beyond the picture on the right and below, and an odd number each way for the coarse pass.
        let columns = (width / CELL_PX + 2) | 1;
        let rows = (height / CELL_PX + 2) | 1;
        let depths = depths(instant, columns, rows);
        let farthest_mm = depths.iter().fold(0.0f32, |far, &z| far.max(z));
        let shades: Vec<Shade> = instant
            .solids
            .iter()
            .map(|prepared| &prepared.solid)
            .filter(|solid| solid.radius_a.max(solid.radius_b) > 0.9)
            .map(|solid| Shade::new(solid, &instant.view, scene.lamp, farthest_mm))
            .collect();
        let mut values = vec![0.0f32; columns * rows * ATTRIBUTES];
        let view = &instant.view;
        values
            .par_chunks_mut(columns * ATTRIBUTES)
            .enumerate()
            .for_each(|(row, line)| {
                for column in 0..columns {
                    let z = depths[row * columns + column];
                    let ray = node_ray(view, column, row);
                    let p = view.origin + view.turn_back(ray) * z;
                    let [_, shift_x, shift_y, hollow] = instant.surface.sample(p.x, p.y);
                    let (u, v) = scene.sheet.locate(p.x + shift_x, p.y + shift_y);
                    let normal = view.turn(instant.surface.normal(p.x, p.y, 0.8).normalized());
                    let seen = ray * z;
                    // Shadows are soft, so every second node casts a ray to the lamp and the others take the mean.
                    let lit = if row % 2 == 0 && column % 2 == 0 {
                        shadow(&shades, scene.lamp, seen, column, row)
                    } else {
                        1.0
                    };
                    let light = lamp_light(seen, scene.lamp) * (1.0 - hollow);
                    let node = [u, v, z, light * lit];
                    for (attribute, value) in
                        node.into_iter().chain([normal.x, normal.y, normal.z]).enumerate()
                    {
                        line[attribute * columns + column] = value;
                    }
                }
                if row % 2 == 0 {
                    // Odd columns hold the light without shadow.
                    let light = &mut line[LIGHT * columns..][..columns];
                    for column in (1..columns - 1).step_by(2) {
                        light[column] = 0.5 * (light[column - 1] + light[column + 1]);
                    }
                }
            });
        for row in (1..rows - 1).step_by(2) {
            for column in 0..columns {
                let at = |row: usize| (row * ATTRIBUTES + LIGHT) * columns + column;
                values[at(row)] = 0.5 * (values[at(row - 1)] + values[at(row + 1)]);
            }
        }
        Self { columns, values }
    }

    /// The nodes' numbers on pixel row `y`, interpolated from the rows above and below: `[attribute, column]`.
    pub fn row(&self, y: usize, out: &mut [f32]) {
        let stride = self.columns * ATTRIBUTES;
        let part = (y % CELL_PX) as f32 / CELL_PX as f32;
        let above = &self.values[y / CELL_PX * stride..][..stride];
        let below = &self.values[(y / CELL_PX + 1) * stride..][..stride];
        for ((out, a), b) in out.iter_mut().zip(above).zip(below) {
            *out = a + (b - a) * part;
        }
    }

    /// Length of a buffer for [`Net::row`].
    pub fn row_length(&self) -> usize {
        self.columns * ATTRIBUTES
    }
}

impl<'a> Shade<'a> {
    /// `farthest_mm` is the depth of the farthest tissue in the picture.
    fn new(solid: &'a Solid, view: &View, lamp: Vec3, farthest_mm: f32) -> Self {
        let reach = solid.radius_a.max(solid.radius_b) + 6.0;
        // The shadow of a point lies on its ray from the lamp, between the point itself and the farthest tissue.
        let (mut low, mut high) = ((f32::MAX, f32::MAX), (f32::MIN, f32::MIN));
        for end in [solid.a, solid.b] {
            let far = lamp + (end - lamp) * (farthest_mm / end.z.max(1.0));
            for (point, around) in [(end, reach), (far, reach * farthest_mm / end.z.max(1.0))] {
                let (x, y) = view.project(point);
                let margin = view.focal_px * around / point.z;
                low = (low.0.min(x - margin), low.1.min(y - margin));
                high = (high.0.max(x + margin), high.1.max(y + margin));
            }
        }
        let node = |px: f32| (px.max(0.0) as usize) / CELL_PX;
        Self {
            solid,
            columns: (node(low.0), node(high.0) + 1),
            rows: (node(low.1), node(high.1) + 1),
            reach_squared: reach * reach,
        }
    }

    fn reaches(&self, column: usize, row: usize) -> bool {
        (self.columns.0..=self.columns.1).contains(&column) && (self.rows.0..=self.rows.1).contains(&row)
    }
}

/// The ray through the middle of the pixel on which a node lies.
fn node_ray(view: &View, column: usize, row: usize) -> Vec3 {
    view.ray((column * CELL_PX) as f32 + 0.5, (row * CELL_PX) as f32 + 0.5)
}

/// Depth of the tissue at each node: from far off at every fourth node, the others from just before their neighbours.
fn depths(instant: &Instant, columns: usize, rows: usize) -> Vec<f32> {
    /// How much nearer than both neighbours a node is looked for, mm.
    const MARGIN_MM: f32 = 3.0;
    let view = &instant.view;
    let meet = |column: usize, row: usize, from: f32| {
        let d = view.turn_back(node_ray(view, column, row));
        instant.surface.meet(view.origin, d, from)
    };
    let mut depths = vec![0.0f32; columns * rows];
    depths
        .par_chunks_mut(2 * columns)
        .enumerate()
        .for_each(|(pair, lines)| {
            let line = &mut lines[..columns];
            for column in (0..columns).step_by(2) {
                line[column] = meet(column, pair * 2, 0.0);
            }
            for column in (1..columns - 1).step_by(2) {
                line[column] = meet(
                    column,
                    pair * 2,
                    line[column - 1].min(line[column + 1]) - MARGIN_MM,
                );
            }
        });
    let odd: Vec<Vec<f32>> = (0..rows / 2)
        .into_par_iter()
        .map(|pair| {
            let above = &depths[pair * 2 * columns..][..columns];
            let below = &depths[(pair * 2 + 2) * columns..][..columns];
            let from = |c: usize| above[c].min(below[c]) - MARGIN_MM;
            (0..columns)
                .map(|column| meet(column, pair * 2 + 1, from(column)))
                .collect()
        })
        .collect();
    for (pair, line) in odd.iter().enumerate() {
        depths[(pair * 2 + 1) * columns..][..columns].copy_from_slice(line);
    }
    depths
}

/// The share of the lamp's light that reaches the camera-space point `p` of the tissue.
fn shadow(shades: &[Shade], lamp: Vec3, p: Vec3, column: usize, row: usize) -> f32 {
    let mut light = 1.0f32;
    for shade in shades.iter().filter(|shade| shade.reaches(column, row)) {
        let solid = shade.solid;
        let (squared, t) = segment_distance(lamp, p, solid.a, solid.b);
        if squared > shade.reach_squared {
            continue;
        }
        let radius = solid.radius_a + (solid.radius_b - solid.radius_a) * t;
        let gap = (p - solid.a.lerp(solid.b, t)).length();
        // The lamp is a few mm wide, so the penumbra grows with the distance from the solid to the tissue.
        let soft = (0.7 + gap * 0.09).min(5.5);
        light = light.min(smoothstep(radius - soft, radius + soft, squared.sqrt()));
    }
    0.22 + 0.78 * light
}
