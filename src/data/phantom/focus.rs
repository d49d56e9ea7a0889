//! Defocus: what lies off the plane in focus is blurred.
//!
//! One blurred picture is made at half the size; each pixel mixes it in with the share that gives the variance its
//! depth asks for: `share = (slope (z - z0) / z)^2 + all^2) / blur^2`, at most 1.

use super::lanes::dispatch;
use super::render::Canvas;
use crate::geometry::Size;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Where the lens is focused and how strongly it blurs elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Focus {
    /// Depth in focus, mm.
    pub depth_mm: f32,
    /// Standard deviation of the blur, px, far away from that depth.
    pub slope_px: f32,
    /// Blur of everything, px: the lens is still hunting, or wet.
    pub all_px: f32,
}

/// Standard deviation of the blurred picture's blur, px: a box of 2, then 1 4 6 4 1 on every second pixel.
const BLUR_PX: f32 = 2.1;

/// Samples that each row of the small picture is extended by on either side.
const MARGIN: usize = 2;

/// Blurs what is out of focus.
pub fn defocus(canvas: &mut Canvas, focus: Focus, size: Size) {
    let (width, height) = (size.width_px as usize, size.height_px as usize);
    let small_height = height.div_ceil(2);
    let blurred = canvas
        .rgb
        .each_ref()
        .map(|plane| blur_small(plane, width, height));
    let small_width = width.div_ceil(2);
    let [red, green, blue] = &mut canvas.rgb;
    (
        red.par_chunks_mut(width),
        green.par_chunks_mut(width),
        blue.par_chunks_mut(width),
    )
        .into_par_iter()
        .zip(canvas.depth.par_chunks(width))
        .enumerate()
        .for_each_init(
            || {
                (
                    vec![0.0f32; width],
                    vec![0.0f32; small_width + 2],
                    vec![0.0f32; 2 * small_width],
                )
            },
            |(share, column, soft), (y, ((red, green, blue), depth))| {
                dispatch(Share {
                    focus,
                    depth,
                    out: share,
                });
                // Pixel y lies a quarter of a small pixel from the middle of the small row y / 2.
                let near = y / 2;
                let far = if y % 2 == 0 {
                    near.saturating_sub(1)
                } else {
                    (near + 1).min(small_height - 1)
                };
                for (line, small) in [red, green, blue].into_iter().zip(&blurred) {
                    let row = |y: usize| &small[y * small_width..][..small_width];
                    dispatch(Mix {
                        near: row(near),
                        far: row(far),
                        share,
                        column,
                        soft,
                        line,
                    });
                }
            },
        );
}

/// `plane` at half the size, blurred.
fn blur_small(plane: &[f32], width: usize, height: usize) -> Vec<f32> {
    let (small_width, small_height) = (width.div_ceil(2), height.div_ceil(2));
    let mut across = vec![0.0f32; small_width * small_height];
    across.par_chunks_mut(small_width).enumerate().for_each_init(
        || vec![0.0f32; small_width + 2 * MARGIN],
        |line, (y, out)| {
            let row = |y: usize| &plane[y.min(height - 1) * width..][..width];
            dispatch(Halve {
                above: row(2 * y),
                below: row(2 * y + 1),
                out: &mut line[MARGIN..],
            });
            let last = MARGIN + small_width - 1;
            for i in 0..MARGIN {
                line[i] = line[MARGIN];
                line[last + 1 + i] = line[last];
            }
            let taps = std::array::from_fn(|i| &line[i..][..small_width]);
            dispatch(Blur { taps, out });
        },
    );
    let mut blurred = vec![0.0f32; small_width * small_height];
    blurred
        .par_chunks_mut(small_width)
        .enumerate()
        .for_each(|(y, out)| {
            let taps = std::array::from_fn(|i| {
                let y = (y + i).saturating_sub(MARGIN).min(small_height - 1);
                &across[y * small_width..][..small_width]
            });
            dispatch(Blur { taps, out });
        });
    blurred
}

/// Means of two by two pixels.
struct Halve<'a> {
    above: &'a [f32],
    below: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Halve<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let pairs = self.above.chunks_exact(2).zip(self.below.chunks_exact(2));
        for (out, (a, b)) in self.out.iter_mut().zip(pairs) {
            *out = 0.25 * (a[0] + a[1] + b[0] + b[1]);
        }
        // An odd last column stands twice.
        if let ([a], [b]) = (
            self.above.chunks_exact(2).remainder(),
            self.below.chunks_exact(2).remainder(),
        ) {
            self.out[self.above.len() / 2] = 0.5 * (a + b);
        }
    }
}

/// The weighted mean, 1 4 6 4 1, of five rows.
struct Blur<'a> {
    taps: [&'a [f32]; 5],
    out: &'a mut [f32],
}

impl WithSimd for Blur<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let [a, b, c, d, e] = self.taps.map(|tap| &tap[..self.out.len()]);
        for (x, out) in self.out.iter_mut().enumerate() {
            *out = 0.375 * c[x] + 0.25 * (b[x] + d[x]) + 0.0625 * (a[x] + e[x]);
        }
    }
}

/// Share of the blurred picture for each depth.
struct Share<'a> {
    focus: Focus,
    depth: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Share<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Focus {
            depth_mm,
            slope_px,
            all_px,
        } = self.focus;
        for (out, &z) in self.out.iter_mut().zip(self.depth) {
            let off = slope_px * (z - depth_mm) / z.max(1.0);
            *out = ((off * off + all_px * all_px) * (1.0 / (BLUR_PX * BLUR_PX))).min(1.0);
        }
    }
}

/// Mixes two rows of the small picture, enlarged, into a row of the picture.
struct Mix<'a> {
    near: &'a [f32],
    far: &'a [f32],
    share: &'a [f32],
    column: &'a mut [f32],
    soft: &'a mut [f32],
    line: &'a mut [f32],
}

impl WithSimd for Mix<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let count = self.near.len();
        let column = &mut self.column[..count + 2];
        for ((out, near), far) in column[1..].iter_mut().zip(self.near).zip(self.far) {
            *out = 0.75 * near + 0.25 * far;
        }
        column[0] = column[1];
        column[count + 1] = column[count];
        for (pair, three) in self.soft.chunks_exact_mut(2).zip(column.windows(3)) {
            pair[0] = 0.75 * three[1] + 0.25 * three[0];
            pair[1] = 0.75 * three[1] + 0.25 * three[2];
        }
        for ((value, soft), share) in self.line.iter_mut().zip(self.soft.iter()).zip(self.share) {
            *value += (soft - *value) * share;
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
    fn focus_keeps_what_is_sharp_and_the_sum_of_light() {
        let size = Size {
            width_px: 40,
            height_px: 30,
        };
        let mut picture = canvas(40, 30);
        picture.rgb[1][15 * 40 + 20] = 9.0;
        let sharp = picture.rgb[1].clone();
        defocus(
            &mut picture,
            Focus {
                depth_mm: 80.0,
                slope_px: 5.0,
                all_px: 0.0,
            },
            size,
        );
        assert_eq!(picture.rgb[1], sharp);
        let sum: f32 = sharp.iter().sum();
        defocus(
            &mut picture,
            Focus {
                depth_mm: 80.0,
                slope_px: 0.0,
                all_px: 3.0,
            },
            size,
        );
        let blurred: f32 = picture.rgb[1].iter().sum();
        assert!((sum - blurred).abs() < 0.01 * sum, "{sum} {blurred}");
        assert!(picture.rgb[1][15 * 40 + 20] < 1.5);
    }
}
