//! What an open shutter does to a picture in linear light: motion blur.

use super::lanes::dispatch;
use super::render::Canvas;
use crate::geometry::Size;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Side of the squares in which motion is looked at, px.
const TILE_PX: usize = 16;

/// Longest trail drawn, px.
const LONGEST_PX: f32 = 28.0;

/// How far each solid's two ends travel while the shutter is open, px, with where they are.
#[derive(Debug, Clone, Copy)]
pub struct Trail {
    /// Screen positions of the ends.
    pub ends: [(f32, f32); 2],
    /// Their travel.
    pub travel: [(f32, f32); 2],
}

impl Trail {
    /// Travel of the part of the solid nearest to `(x, y)`.
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        let [(ax, ay), (bx, by)] = self.ends;
        let (ex, ey) = (bx - ax, by - ay);
        let t = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey).max(1e-3)).clamp(0.0, 1.0);
        let [(ux, uy), (vx, vy)] = self.travel;
        (ux + (vx - ux) * t, uy + (vy - uy) * t)
    }
}

/// Blurs the picture along the motion of the solids: pixels in and beside a moving solid take the mean over its
/// trail. `trails` are in the order of the solids. Labels stay those of the middle of the exposure.
pub fn blur_motion(canvas: &mut Canvas, trails: &[Trail], size: Size) {
    let (width, height) = (size.width_px as usize, size.height_px as usize);
    let (columns, rows) = (width.div_ceil(TILE_PX), height.div_ceil(TILE_PX));
    if !trails
        .iter()
        .any(|t| t.travel.iter().any(|&(x, y)| x * x + y * y > 1.0))
    {
        return;
    }
    let owner = &canvas.owner;
    let fastest: Vec<(f32, f32)> = (0..columns * rows)
        .into_par_iter()
        .map(|tile| {
            let (x0, y0) = (tile % columns * TILE_PX, tile / columns * TILE_PX);
            let (x1, y1) = ((x0 + TILE_PX).min(width), (y0 + TILE_PX).min(height));
            let mut best = (0.0f32, 0.0f32);
            let mut last = 0;
            for y in y0..y1 {
                for x in x0..x1 {
                    let id = owner[y * width + x];
                    if id == 0 || id == last {
                        continue;
                    }
                    last = id;
                    let Some(trail) = trails.get(usize::from(id) - 1) else {
                        continue;
                    };
                    let v = trail.at(x as f32, y as f32);
                    if v.0 * v.0 + v.1 * v.1 > best.0 * best.0 + best.1 * best.1 {
                        best = v;
                    }
                }
            }
            best
        })
        .collect();
    let rgb = canvas.rgb.each_ref().map(Vec::as_slice);
    let blurred: Vec<(usize, Smear)> = (0..columns * rows)
        .into_par_iter()
        .filter_map(|tile| {
            let (cx, cy) = (tile % columns, tile / columns);
            let mut v = (0.0f32, 0.0f32);
            for ny in cy.saturating_sub(1)..(cy + 2).min(rows) {
                for nx in cx.saturating_sub(1)..(cx + 2).min(columns) {
                    let n = fastest[ny * columns + nx];
                    if n.0 * n.0 + n.1 * n.1 > v.0 * v.0 + v.1 * v.1 {
                        v = n;
                    }
                }
            }
            let length = (v.0 * v.0 + v.1 * v.1).sqrt();
            if length < 1.0 {
                return None;
            }
            let cut = (LONGEST_PX / length).min(1.0);
            let taps = ((length * cut * 0.7) as i32).clamp(2, 14) + 1;
            let step = (v.0 * cut / taps as f32, v.1 * cut / taps as f32);
            // Each tap's offset from the pixel, rounded once for the whole tile.
            let offsets: Vec<(isize, isize)> = (0..taps)
                .map(|i| {
                    let t = i as f32 - (taps - 1) as f32 * 0.5;
                    let round = |o: f32| super::noise::floor(o + 0.5) as isize;
                    (round(step.0 * t), round(step.1 * t))
                })
                .collect();
            let mut smear = vec![[[0.0; TILE_PX]; 3]; TILE_PX.min(height - cy * TILE_PX)];
            dispatch(Blur {
                rgb,
                size: (width, height),
                corner: (cx * TILE_PX, cy * TILE_PX),
                offsets: &offsets,
                smear: &mut smear,
            });
            Some((tile, smear))
        })
        .collect();
    for (tile, smear) in blurred {
        let (x0, y0) = (tile % columns * TILE_PX, tile / columns * TILE_PX);
        let across = TILE_PX.min(width - x0);
        for (i, line) in smear.iter().enumerate() {
            for (plane, values) in canvas.rgb.iter_mut().zip(line) {
                plane[(y0 + i) * width + x0..][..across].copy_from_slice(&values[..across]);
            }
        }
    }
}

/// A blurred tile, `[row, channel, column]`.
type Smear = Vec<[[f32; TILE_PX]; 3]>;

/// Means over the trails of a tile's pixels.
struct Blur<'a> {
    rgb: [&'a [f32]; 3],
    /// Width and height of the picture.
    size: (usize, usize),
    /// First column and row of the tile.
    corner: (usize, usize),
    offsets: &'a [(isize, isize)],
    smear: &'a mut Smear,
}

impl WithSimd for Blur<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let ((width, height), (x0, y0)) = (self.size, self.corner);
        let share = 1.0 / self.offsets.len() as f32;
        for (i, line) in self.smear.iter_mut().enumerate() {
            for &(dx, dy) in self.offsets {
                let row = (y0 + i).saturating_add_signed(dy).min(height - 1) * width;
                for (sums, plane) in line.iter_mut().zip(self.rgb) {
                    let pixels = &plane[row..][..width];
                    let whole = x0.checked_add_signed(dx).and_then(|x| pixels.get(x..x + TILE_PX));
                    if let Some(pixels) = whole {
                        for (sum, value) in sums.iter_mut().zip(pixels) {
                            *sum += value;
                        }
                    } else {
                        for (x, sum) in sums.iter_mut().enumerate() {
                            *sum += pixels[(x0 + x).saturating_add_signed(dx).min(width - 1)];
                        }
                    }
                }
            }
            line.iter_mut().flatten().for_each(|sum| *sum *= share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canvas(width: usize, height: usize) -> Canvas {
        let area = width * height;
        Canvas {
            rgb: [vec![0.2; area], vec![0.2; area], vec![0.2; area]],
            labels: vec![0; area],
            owner: vec![0; area],
            depth: vec![80.0; area],
        }
    }

    #[test]
    fn a_moving_dot_leaves_a_trail_of_its_length() {
        let size = Size {
            width_px: 65,
            height_px: 33,
        };
        let mut canvas = canvas(65, 33);
        canvas.rgb[0][16 * 65 + 32] = 10.0;
        canvas.owner[16 * 65 + 32] = 1;
        let still = Trail {
            ends: [(32.0, 16.0); 2],
            travel: [(0.2, 0.0); 2],
        };
        let before = canvas.rgb[0].clone();
        blur_motion(&mut canvas, &[still], size);
        assert_eq!(canvas.rgb[0], before);
        blur_motion(
            &mut canvas,
            &[Trail {
                travel: [(10.0, 0.0); 2],
                ..still
            }],
            size,
        );
        let lit: Vec<usize> = (0..65).filter(|&x| canvas.rgb[0][16 * 65 + x] > 0.3).collect();
        let (first, last) = (lit[0], lit[lit.len() - 1]);
        assert!(
            (7..=10).contains(&(last - first)) && first < 30 && last > 34,
            "{lit:?}"
        );
        assert!((0..65).all(|x| canvas.rgb[0][12 * 65 + x] < 0.21));
    }
}
