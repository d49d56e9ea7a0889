//! The net of rays that find the tissue.
//!
//! The tissue is smooth, so it is met exactly only at the nodes of a net [`CELL_PX`] wide. Between them everything
//! about the surface is interpolated: where it lies on the sheet, its depth, its normal and the light on it.

use super::camera::View;
use super::lanes::{LANES, dispatch};
use super::scene::{Instant, Scene};
use super::solid::{Solid, segment_distance};
use super::vector::{Vec3, smoothstep, vec3};
use crate::geometry::Size;
use pulp::{Simd, WithSimd};
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
                let depths = &depths[row * columns..][..columns];
                dispatch(NodeRow {
                    scene,
                    instant,
                    row,
                    depths,
                    line,
                });
                // Shadows are soft, so every second node casts a ray to the lamp and the others take the mean.
                if row % 2 == 0 {
                    let light = &mut line[LIGHT * columns..][..columns];
                    for column in (0..columns).step_by(2) {
                        let seen = node_ray(view, column, row) * depths[column];
                        light[column] *= shadow(&shades, scene.lamp, seen, column, row);
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
#[inline(always)]
fn node_ray(view: &View, column: usize, row: usize) -> Vec3 {
    view.ray((column * CELL_PX) as f32 + 0.5, (row * CELL_PX) as f32 + 0.5)
}

/// Depth of the tissue at each node: from far off at every fourth node, the others from just before their neighbours.
fn depths(instant: &Instant, columns: usize, rows: usize) -> Vec<f32> {
    /// How much nearer than both neighbours a node is looked for, mm.
    const MARGIN_MM: f32 = 3.0;
    let meet = |row: usize, nodes: Nodes, from: &[f32], found: &mut [f32]| {
        dispatch(Search {
            instant,
            row,
            nodes,
            from,
            found,
        });
    };
    let mut depths = vec![0.0f32; columns * rows];
    depths
        .par_chunks_mut(2 * columns)
        .enumerate()
        .for_each(|(pair, lines)| {
            let line = &mut lines[..columns];
            let mut even = vec![0.0f32; columns / 2 + 1];
            meet(pair * 2, Nodes::Even, &vec![0.0; even.len()], &mut even);
            let from: Vec<f32> = even.windows(2).map(|z| z[0].min(z[1]) - MARGIN_MM).collect();
            let mut odd = vec![0.0f32; columns / 2];
            meet(pair * 2, Nodes::Odd, &from, &mut odd);
            for (pair, (&even, &odd)) in line.chunks_exact_mut(2).zip(even.iter().zip(&odd)) {
                pair.copy_from_slice(&[even, odd]);
            }
            line[columns - 1] = even[columns / 2];
        });
    let odd: Vec<Vec<f32>> = (0..rows / 2)
        .into_par_iter()
        .map(|pair| {
            let above = &depths[pair * 2 * columns..][..columns];
            let below = &depths[(pair * 2 + 2) * columns..][..columns];
            let nearer = above.iter().zip(below).map(|(above, below)| above.min(*below));
            let from: Vec<f32> = nearer.map(|z| z - MARGIN_MM).collect();
            let mut found = vec![0.0; columns];
            meet(pair * 2 + 1, Nodes::All, &from, &mut found);
            found
        })
        .collect();
    for (pair, line) in odd.iter().enumerate() {
        depths[(pair * 2 + 1) * columns..][..columns].copy_from_slice(line);
    }
    depths
}

/// Which nodes of a row are searched.
#[derive(Debug, Clone, Copy)]
enum Nodes {
    All,
    Even,
    Odd,
}

/// Finds the depth of the tissue at nodes of a row.
struct Search<'a> {
    instant: &'a Instant,
    row: usize,
    nodes: Nodes,
    /// Where to begin, mm.
    from: &'a [f32],
    found: &'a mut [f32],
}

impl WithSimd for Search<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let view = &self.instant.view;
        let (first, step) = match self.nodes {
            Nodes::All => (0, 1),
            Nodes::Even => (0, 2),
            Nodes::Odd => (1, 2),
        };
        let blocks = self.found.chunks_mut(LANES).zip(self.from.chunks(LANES));
        for (block, (found, start)) in blocks.enumerate() {
            let (mut dx, mut dy, mut dz) = ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
            for i in 0..LANES {
                // Lanes beyond the row do as the last node, so that no search lasts longer for them.
                let node = block * LANES + i.min(found.len() - 1);
                let ray = view.turn_back(node_ray(view, first + step * node, self.row));
                (dx[i], dy[i], dz[i]) = (ray.x, ray.y, ray.z);
            }
            let mut from = [start[start.len() - 1]; LANES];
            from[..start.len()].copy_from_slice(start);
            let met = self.instant.surface.meet(view.origin, &[dx, dy, dz], &from);
            found.copy_from_slice(&met[..found.len()]);
        }
    }
}

/// Fills a row of nodes, without shadows.
struct NodeRow<'a> {
    scene: &'a Scene,
    instant: &'a Instant,
    row: usize,
    depths: &'a [f32],
    line: &'a mut [f32],
}

impl WithSimd for NodeRow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Instant { view, surface, .. } = self.instant;
        let (sheet, lamp) = (&self.scene.sheet, self.scene.lamp);
        let columns = self.depths.len();
        for (block, depths) in self.depths.chunks(LANES).enumerate() {
            let mut z = [1.0f32; LANES];
            z[..depths.len()].copy_from_slice(depths);
            let (mut x, mut y) = ([0.0f32; LANES], [0.0f32; LANES]);
            for i in 0..LANES {
                let ray = node_ray(view, block * LANES + i, self.row);
                let p = view.origin + view.turn_back(ray) * z[i];
                (x[i], y[i]) = (p.x, p.y);
            }
            let [shift_x, shift_y, hollow] = surface.shifts(&x, &y);
            let normals = surface.normals(&x, &y, 0.8);
            let mut nodes = [[0.0f32; LANES]; ATTRIBUTES];
            for i in 0..LANES {
                let seen = node_ray(view, block * LANES + i, self.row) * z[i];
                let normal = vec3(normals[0][i], normals[1][i], normals[2][i]);
                let normal = view.turn(normal.normalized());
                (nodes[0][i], nodes[1][i]) = sheet.locate(x[i] + shift_x[i], y[i] + shift_y[i]);
                nodes[DEPTH][i] = z[i];
                nodes[LIGHT][i] = lamp_light(seen, lamp) * (1.0 - hollow[i]);
                (nodes[4][i], nodes[5][i], nodes[6][i]) = (normal.x, normal.y, normal.z);
            }
            for (line, node) in self.line.chunks_exact_mut(columns).zip(&nodes) {
                line[block * LANES..][..depths.len()].copy_from_slice(&node[..depths.len()]);
            }
        }
    }
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
