//! From light to bytes: veil, lens softness, vignette, exposure, white balance, tone curve and noise.

use super::lanes::dispatch;
use super::random::lattice;
use super::render::Canvas;
use super::vector::Vec3;
use super::veil::{PLANES, Veil};
use crate::geometry::Size;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Settings of the sensor at one frame.
#[derive(Debug, Clone, Copy)]
pub struct Sensor {
    /// Factor on each channel: exposure times white balance.
    pub gain: Vec3,
    /// Standard deviation of noise, in steps of 8 bits.
    pub noise: f32,
    /// Seed of this frame's noise.
    pub seed: u32,
    /// Darkening of the corners, 0 to 1.
    pub vignette: f32,
    /// Weight of each neighbour in the lens's softness, 0 to 0.25; the pixel itself keeps the rest.
    pub softness: f32,
}

/// Linear light to display value in `[0, 1]`: a shoulder, a square root, and a little contrast.
#[inline(always)]
fn tone(linear: f32) -> f32 {
    let v = linear.max(0.0);
    let v = v * (1.0 + 0.18 * v) / (1.0 + v * 0.62);
    let s = v.sqrt().min(1.0);
    s * (1.0 + 0.30 * s * (1.0 - s)) - 0.02 * (1.0 - s) * s
}

/// The whole number nearest to `value`, which lies in `[0, 255]`: added to 2^23, it is what the last bits of the
/// sum hold, rounded as IEEE 754 asks for.
#[inline(always)]
fn nearest(value: f32) -> u8 {
    (value + 8_388_608.0).to_bits() as u8
}

impl Sensor {
    /// The picture as `[height, width, 3]` bytes.
    pub fn expose(&self, canvas: &Canvas, veil: &Veil, size: Size) -> Vec<u8> {
        let (width, height) = (size.width_px as usize, size.height_px as usize);
        let mut out = vec![0u8; width * height * 3];
        out.par_chunks_mut(width * 3).enumerate().for_each_init(
            || {
                (
                    vec![0.0f32; veil.row_length(width)],
                    vec![0.0f32; (width + 2) * 3],
                )
            },
            |(veils, soft), (y, row)| {
                veil.row(y, veils);
                let fy = (y as f32 + 0.5) / height as f32 - 0.5;
                let lines = |y: usize| canvas.rgb.each_ref().map(|plane| &plane[y * width..][..width]);
                dispatch(Exposure {
                    sensor: self,
                    lines: [
                        lines(y.saturating_sub(1)),
                        lines(y),
                        lines((y + 1).min(height - 1)),
                    ],
                    veils,
                    smoke: veil.color,
                    soft,
                    row,
                    y: y as i32,
                    fy2: fy * fy,
                });
            },
        );
        out
    }
}

struct Exposure<'a> {
    sensor: &'a Sensor,
    /// Linear light of the rows above, here and below, per channel.
    lines: [[&'a [f32]; 3]; 3],
    veils: &'a [f32],
    smoke: Vec3,
    soft: &'a mut [f32],
    row: &'a mut [u8],
    y: i32,
    fy2: f32,
}

impl WithSimd for Exposure<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Exposure {
            sensor,
            lines,
            veils,
            smoke,
            soft,
            row,
            y,
            fy2,
        } = self;
        let width = row.len() / 3;
        let side = sensor.softness;
        let middle = 1.0 - 2.0 * side;
        let padded = width + 2;
        for channel in 0..3 {
            let [above, here, below] = lines.map(|line| &line[channel][..width]);
            let line = &mut soft[channel * padded..][..padded];
            for (x, out) in line[1..=width].iter_mut().enumerate() {
                *out = side * (above[x] + below[x]) + middle * here[x];
            }
            line[0] = line[1];
            line[width + 1] = line[width];
        }
        let stride = veils.len() / PLANES;
        let haze = &veils[..width];
        let gain = [sensor.gain.x, sensor.gain.y, sensor.gain.z];
        let smoke = [smoke.x, smoke.y, smoke.z];
        let scale = 1.0 / width as f32;
        const BLOCK: usize = 64;
        for start in (0..width).step_by(BLOCK) {
            let count = BLOCK.min(width - start);
            let (mut shade, mut grain, mut tint) = ([0.0f32; BLOCK], [0.0f32; BLOCK], [0.0f32; BLOCK]);
            for i in 0..BLOCK {
                let x = (start + i) as i32;
                let fx = (x as f32 + 0.5) * scale - 0.5;
                let off = (fx * fx + fy2) * 2.0;
                shade[i] = 1.0 - sensor.vignette * off * (0.6 + 0.4 * off);
                let bits = lattice(sensor.seed, x, y);
                // The sum of four bytes is nearly normal, with variance 4 * 5461.25.
                let sum = (bits & 255) + ((bits >> 8) & 255) + ((bits >> 16) & 255) + (bits >> 24);
                grain[i] = (sum as i32 as f32 - 510.0) * (1.0 / 147.8);
                tint[i] = ((bits.wrapping_mul(0x9E37_79B1) >> 24) as i32 as f32 - 127.5) * (1.0 / 120.0);
            }
            let mut bytes = [[0u8; BLOCK]; 3];
            for channel in 0..3 {
                let line = &soft[channel * padded + start..][..count + 2];
                let glow = &veils[(channel + 1) * stride + start..][..count];
                let haze = &haze[start..][..count];
                let lean = [0.8f32, 0.0, -0.8][channel];
                let out = &mut bytes[channel][..count];
                for i in 0..count {
                    let light = side * (line[i] + line[i + 2]) + middle * line[i + 1] + glow[i];
                    let light = light + (smoke[channel] - light) * haze[i];
                    let value = tone(light * gain[channel] * shade[i]) * 255.0
                        + (grain[i] + tint[i] * lean) * sensor.noise;
                    out[i] = nearest(value.clamp(0.0, 255.0));
                }
            }
            for (i, pixel) in row[start * 3..][..count * 3].chunks_exact_mut(3).enumerate() {
                pixel[0] = bytes[0][i];
                pixel[1] = bytes[1][i];
                pixel[2] = bytes[2][i];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tone_curve_rises_from_black_to_white() {
        let mut last = tone(0.0);
        assert!(last.abs() < 1e-6);
        for i in 1..400 {
            let value = tone(i as f32 * 0.01);
            assert!(value >= last && value <= 1.0, "{i}");
            last = value;
        }
        assert!(last > 0.97);
    }

    #[test]
    fn rounding_is_to_the_nearest() {
        for i in 0..=2550 {
            let value = i as f32 * 0.1;
            assert!((f32::from(nearest(value)) - value).abs() < 0.5001, "{value}");
        }
    }
}
