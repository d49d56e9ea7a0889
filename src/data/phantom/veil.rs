//! What lies between the lens and the scene: smoke, and light scattered around bright spots.
//!
//! Both are soft, so they live on a coarse grid and are interpolated for each pixel.

use super::noise::fractal;
use super::render::Canvas;
use super::vector::Vec3;
use crate::geometry::Size;
use rayon::prelude::*;

/// Pixels between grid points.
const CELL_PX: usize = 16;

/// Smoke of one instant.
#[derive(Debug, Clone, Copy)]
pub struct Smoke {
    /// Seed of its shape.
    pub seed: u32,
    /// How thick it is, 0 to 1.
    pub density: f32,
    /// Where its source is, in picture widths from the middle.
    pub source: (f32, f32),
    /// How far it has drifted, in picture widths.
    pub drift: f32,
    /// Its colour, linear RGB.
    pub color: Vec3,
}

/// Smoke and scattered light on the grid.
#[derive(Debug)]
pub struct Veil {
    columns: usize,
    /// `[row, plane, column]`: haze, red, green, blue.
    values: Vec<f32>,
    /// Colour of full haze.
    pub color: Vec3,
}

/// Numbers at a grid point: share of smoke, scattered red, green and blue.
pub const PLANES: usize = 4;

impl Veil {
    /// The veil over `canvas`, which scatters the share `scatter` of light above `bright`.
    pub fn new(canvas: &Canvas, smoke: Smoke, bright: f32, scatter: f32, size: Size) -> Self {
        let (width, height) = (size.width_px as usize, size.height_px as usize);
        let (columns, rows) = (width / CELL_PX + 2, height / CELL_PX + 2);
        let mut glow: Vec<[f32; 3]> = vec![[0.0; 3]; columns * rows];
        glow.par_chunks_mut(columns).enumerate().for_each(|(row, line)| {
            // Grid points sit at the corners of cells; each gathers the cell around itself.
            let y0 = (row * CELL_PX).saturating_sub(CELL_PX / 2);
            let y1 = (row * CELL_PX + CELL_PX / 2).min(height);
            for (channel, plane) in canvas.rgb.iter().enumerate() {
                for y in (y0..y1).step_by(2) {
                    let pixels = &plane[y * width..][..width];
                    for (column, point) in line.iter_mut().enumerate() {
                        let x0 = (column * CELL_PX).saturating_sub(CELL_PX / 2).min(width);
                        let x1 = (column * CELL_PX + CELL_PX / 2).min(width);
                        let sum: f32 = pixels[x0..x1]
                            .iter()
                            .step_by(2)
                            .map(|v| (v - bright).clamp(0.0, 4.0))
                            .sum();
                        point[channel] += sum * (4.0 / (CELL_PX * CELL_PX) as f32);
                    }
                }
            }
        });
        for _ in 0..3 {
            glow = spread(&glow, columns, rows);
        }
        let mut values = vec![0.0f32; columns * rows * PLANES];
        values
            .par_chunks_mut(columns * PLANES)
            .enumerate()
            .for_each(|(row, line)| {
                let scale = CELL_PX as f32 / width as f32;
                let y = row as f32 * scale - 0.5 * height as f32 / width as f32;
                for column in 0..columns {
                    let x = column as f32 * scale - 0.5;
                    line[column] = smoke.at(x, y);
                    for channel in 0..3 {
                        line[(channel + 1) * columns + column] =
                            glow[row * columns + column][channel] * scatter;
                    }
                }
            });
        Self {
            columns,
            values,
            color: smoke.color,
        }
    }

    /// Length of a buffer for [`Veil::row`] of a picture `width` wide.
    pub fn row_length(&self, width: usize) -> usize {
        width.div_ceil(CELL_PX) * CELL_PX * PLANES
    }

    /// The numbers for each pixel of row `y`: `[plane, x]`.
    pub fn row(&self, y: usize, out: &mut [f32]) {
        let line_length = self.columns * PLANES;
        let part = (y % CELL_PX) as f32 / CELL_PX as f32;
        let above = &self.values[y / CELL_PX * line_length..][..line_length];
        let below = &self.values[(y / CELL_PX + 1) * line_length..][..line_length];
        let stride = out.len() / PLANES;
        for (plane, out) in out.chunks_exact_mut(stride).enumerate() {
            let (a, b) = (&above[plane * self.columns..], &below[plane * self.columns..]);
            for (column, cell) in out.chunks_exact_mut(CELL_PX).enumerate() {
                let at = |c: usize| a[c] + (b[c] - a[c]) * part;
                let (left, right) = (at(column), at(column + 1));
                for (i, value) in cell.iter_mut().enumerate() {
                    *value = left + (right - left) * (i as f32 / CELL_PX as f32);
                }
            }
        }
    }
}

impl Smoke {
    /// Share of smoke at a point of the picture, in picture widths from the middle.
    fn at(&self, x: f32, y: f32) -> f32 {
        if self.density <= 0.0 {
            return 0.0;
        }
        let (dx, dy) = (x - self.source.0, y - self.source.1);
        // Thick near the source and above it, thin everywhere else.
        let plume = 1.0 / (1.0 + 9.0 * dx * dx + 5.0 * (dy + 0.15) * (dy + 0.15));
        let (sideways, up) = (0.4 * self.drift, self.drift * 1.7);
        let curl = fractal::<3>(self.seed, x * 2.6 + sideways, y * 2.6 + up);
        let (sideways, up) = (self.drift * 0.8, self.drift * 3.1);
        let churn = fractal::<2>(self.seed ^ 9, x * 5.0 - sideways, y * 5.0 + up);
        let thick = 0.55 + 0.8 * curl + 0.35 * churn;
        (self.density * (0.25 + plume) * thick.max(0.05)).clamp(0.0, 0.85)
    }
}

/// Each point becomes the mean of its neighbourhood, weights 1 2 1 each way.
fn spread(values: &[[f32; 3]], columns: usize, rows: usize) -> Vec<[f32; 3]> {
    let mut out = vec![[0.0; 3]; values.len()];
    for row in 0..rows {
        for column in 0..columns {
            let mut sum = [0.0f32; 3];
            for (dy, wy) in [(-1isize, 0.25f32), (0, 0.5), (1, 0.25)] {
                for (dx, wx) in [(-1isize, 0.25f32), (0, 0.5), (1, 0.25)] {
                    let y = row.saturating_add_signed(dy).min(rows - 1);
                    let x = column.saturating_add_signed(dx).min(columns - 1);
                    for (s, v) in sum.iter_mut().zip(values[y * columns + x]) {
                        *s += v * wx * wy;
                    }
                }
            }
            out[row * columns + column] = sum;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::phantom::vector::vec3;

    #[test]
    fn bright_spots_glow_and_smoke_is_bounded() {
        let size = Size {
            width_px: 100,
            height_px: 70,
        };
        let mut canvas = Canvas::new(size);
        let smoke = Smoke {
            seed: 3,
            density: 0.0,
            source: (0.0, 0.0),
            drift: 1.0,
            color: vec3(0.5, 0.5, 0.5),
        };
        canvas.rgb[1][36 * 100 + 50] = 5.0;
        let row = |veil: &Veil, y: usize| {
            let mut out = vec![0.0; veil.row_length(100)];
            veil.row(y, &mut out);
            out
        };
        let veil = Veil::new(&canvas, smoke, 1.0, 0.1, size);
        let (near, far) = (row(&veil, 36), row(&veil, 0));
        let stride = near.len() / PLANES;
        assert!(near[2 * stride + 50] > 0.0 && near[2 * stride + 50] > far[2 * stride + 99]);
        assert!(near[..stride].iter().all(|&haze| haze == 0.0) && near[stride + 50] == 0.0);
        let veil = Veil::new(
            &canvas,
            Smoke {
                density: 1.0,
                ..smoke
            },
            1.0,
            0.1,
            size,
        );
        let haze = &row(&veil, 30)[..stride];
        assert!(haze.iter().all(|h| (0.0..=0.85).contains(h)) && haze.iter().any(|&h| h > 0.2));
    }
}
