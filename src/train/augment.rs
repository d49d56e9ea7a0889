//! Random changes of a clip, the same for all its frames, so that what moves still moves the same way (paper, 3.1).
//!
//! Each with a probability of its own: a turn by quarters with a flip; a small rotation; gamma; erasing; then some of
//! shear, scale, translation, posterising, contrast, brightness and sharpness. All movements of a clip are put
//! together into one map, so that a picture is sampled once, bilinearly; labels take the nearest pixel. What comes
//! from outside the picture is black and its label is ignored.

use super::footage::Labelled;
use super::loss::IGNORED;
use crate::data::phantom::random::Random;
use crate::error::{Error, Result, all_of};
use crate::segmenter::ModelFrame;
use serde::{Deserialize, Serialize};

/// How often and how much clips are changed; the default is the paper's. A range is turned off by a width of zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AugmentConfig {
    /// Probability of each of the first four changes, 0 to 1.
    pub probability: f32,
    /// Quarter turns and flips.
    pub quarter_turns: bool,
    /// Mirror images alone, where quarter turns make no sense.
    pub mirror: bool,
    /// Largest rotation either way, degrees.
    pub rotation_degrees: f32,
    /// Smallest and largest exponent of brightness.
    pub gamma: [f32; 2],
    /// Erase a rectangle of the picture; labels stay.
    pub erase: bool,
    /// How many of the changes below each clip gets.
    pub further: usize,
    /// Largest shear either way, pixels per pixel.
    pub shear: f32,
    /// Smallest and largest scale.
    pub scale: [f32; 2],
    /// Largest shift either way, as a share of the side.
    pub translation: f32,
    /// Fewest bits left of a colour.
    pub posterise_bits: u8,
    /// Smallest and largest factor of contrast.
    pub contrast: [f32; 2],
    /// Smallest and largest factor of brightness.
    pub brightness: [f32; 2],
    /// Smallest and largest sharpness; 1 leaves the picture, 0 blurs it.
    pub sharpness: [f32; 2],
    /// Largest factor either way by which one colour channel differs from another; not in the paper, 0 there.
    pub tint: f32,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self {
            probability: 0.5,
            quarter_turns: true,
            mirror: false,
            rotation_degrees: 15.0,
            gamma: [0.5, 3.5],
            erase: true,
            further: 2,
            shear: 0.3,
            scale: [0.8, 1.2],
            translation: 0.2,
            posterise_bits: 4,
            contrast: [0.7, 1.3],
            brightness: [0.7, 1.3],
            sharpness: [0.1, 1.9],
            tint: 0.0,
        }
    }
}

impl AugmentConfig {
    /// Leaves every clip as it is.
    pub fn none() -> Self {
        Self {
            probability: 0.0,
            quarter_turns: false,
            mirror: false,
            erase: false,
            further: 0,
            tint: 0.0,
            ..Self::default()
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// Each field out of bounds.
    pub fn validate(&self) -> Result<()> {
        let mut errors = Vec::new();
        let mut check = |holds: bool, field: &str, value: &dyn std::fmt::Debug, bound: &str| {
            if !holds {
                errors.push(Error::config(
                    format!("augment.{field}"),
                    format!("{value:?}"),
                    bound,
                ));
            }
        };
        for (field, value, most) in [
            ("probability", self.probability, 1.0),
            ("rotation_degrees", self.rotation_degrees, 180.0),
            ("shear", self.shear, 1.0),
            ("translation", self.translation, 1.0),
            ("tint", self.tint, 0.9),
        ] {
            let bound = format!("it has to be 0 to {most}");
            check((0.0..=most).contains(&value), field, &value, &bound);
        }
        for (field, range) in [
            ("gamma", self.gamma),
            ("scale", self.scale),
            ("contrast", self.contrast),
            ("brightness", self.brightness),
            ("sharpness", self.sharpness),
        ] {
            let ordered = range[0] > 0.0 && range[0] <= range[1] && range[1] <= 10.0;
            let bound = "it has to be two ascending numbers above 0, at most 10";
            check(ordered, field, &range, bound);
        }
        let (bits, further) = (self.posterise_bits, self.further);
        check(
            (1..=8).contains(&bits),
            "posterise_bits",
            &bits,
            "it has to be 1 to 8",
        );
        check(further <= 8, "further", &further, "it has to be 0 to 8");
        all_of(errors)
    }

    /// Draws the changes of one clip.
    pub fn draw(&self, random: &mut Random) -> Change {
        let mut change = Change::default();
        let range = |random: &mut Random, [low, high]: [f32; 2]| random.range(low, high);
        if self.quarter_turns && random.chance(self.probability) {
            for _ in 0..random.below(4) {
                change.map = change.map.then(Affine([0.0, -1.0, 0.0, 1.0, 0.0, 0.0]));
            }
            if random.chance(0.5) {
                change.map = change.map.then(Affine::MIRROR);
            }
        }
        if self.mirror && random.chance(self.probability) {
            change.map = change.map.then(Affine::MIRROR);
        }
        if random.chance(self.probability) {
            let angle = random
                .range(-self.rotation_degrees, self.rotation_degrees)
                .to_radians();
            let (sin, cos) = (libm::sinf(angle), libm::cosf(angle));
            change.map = change.map.then(Affine([cos, -sin, 0.0, sin, cos, 0.0]));
        }
        if random.chance(self.probability) {
            change.gamma = range(random, self.gamma);
        }
        if self.erase && random.chance(self.probability) {
            let (width, height) = (random.range(0.05, 0.4), random.range(0.05, 0.4));
            let (left, top) = (random.range(0.0, 1.0 - width), random.range(0.0, 1.0 - height));
            change.erased = Some(([left, top, width, height], (random.bits() >> 56) as u8));
        }
        if random.chance(self.probability) && self.tint > 0.0 {
            change.tint = std::array::from_fn(|_| 1.0 + random.range(-self.tint, self.tint));
        }
        let mut further: Vec<usize> = (0..8).collect();
        random.shuffle(&mut further);
        for kind in further.into_iter().take(self.further) {
            match kind {
                0 => change.shear(random.range(-self.shear, self.shear), 0.0),
                1 => change.shear(0.0, random.range(-self.shear, self.shear)),
                2 => {
                    let scale = range(random, self.scale);
                    change.map = change.map.then(Affine([scale, 0.0, 0.0, 0.0, scale, 0.0]));
                }
                3 => {
                    let mut shift = || 2.0 * random.range(-self.translation, self.translation);
                    change.map = change.map.then(Affine([1.0, 0.0, shift(), 0.0, 1.0, shift()]));
                }
                4 => {
                    let bits =
                        usize::from(self.posterise_bits) + random.below(9 - usize::from(self.posterise_bits));
                    change.bits = bits as u32;
                }
                5 => change.contrast = range(random, self.contrast),
                6 => change.brightness = range(random, self.brightness),
                _ => change.sharpness = range(random, self.sharpness),
            }
        }
        change
    }
}

/// Rows of `[a b c; d e f]`: `x' = a x + b y + c`, `y' = d x + e y + f`, both from -1 to 1 over the picture.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Affine([f32; 6]);

impl Affine {
    const SAME: Self = Self([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    const MIRROR: Self = Self([-1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);

    /// This one, then `next`.
    fn then(self, next: Self) -> Self {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (self.0, next.0);
        Self([
            g * a + h * d,
            g * b + h * e,
            g * c + h * f + i,
            j * a + k * d,
            j * b + k * e,
            j * c + k * f + l,
        ])
    }

    /// The way back; the map is never singular, shears of less than 1 and scales above 0 are not.
    fn inverse(self) -> Self {
        let [a, b, c, d, e, f] = self.0;
        let determinant = a * e - b * d;
        let [a, b, d, e] = [
            e / determinant,
            -b / determinant,
            -d / determinant,
            a / determinant,
        ];
        Self([a, b, -(a * c + b * f), d, e, -(d * c + e * f)])
    }
}

/// What happens to every frame of a clip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    map: Affine,
    gamma: f32,
    contrast: f32,
    brightness: f32,
    sharpness: f32,
    bits: u32,
    tint: [f32; 3],
    /// Left, top, width and height as shares of the side, and the grey that stands there.
    erased: Option<([f32; 4], u8)>,
}

impl Default for Change {
    fn default() -> Self {
        Self {
            map: Affine::SAME,
            gamma: 1.0,
            contrast: 1.0,
            brightness: 1.0,
            sharpness: 1.0,
            bits: 8,
            tint: [1.0; 3],
            erased: None,
        }
    }
}

impl Change {
    fn shear(&mut self, x: f32, y: f32) {
        self.map = self.map.then(Affine([1.0, x, 0.0, y, 1.0, 0.0]));
    }

    /// A changed copy of a clip of frames of `side`.
    pub fn apply(&self, clip: &[Labelled], side: usize) -> Vec<Labelled> {
        let tables = self.tables(clip);
        clip.iter()
            .map(|frame| {
                let (mut rgb, labels) = match self.map == Affine::SAME {
                    true => (frame.frame.rgb.to_vec(), frame.labels.clone()),
                    false => self.moved(frame, side),
                };
                if self.sharpness != 1.0 {
                    rgb = sharpened(&rgb, side, self.sharpness);
                }
                for pixel in rgb.as_chunks_mut::<3>().0 {
                    for (value, table) in pixel.iter_mut().zip(&tables) {
                        *value = table[usize::from(*value)];
                    }
                }
                if let Some(([left, top, width, height], grey)) = self.erased {
                    let pixels = |share: f32| ((share * side as f32) as usize).min(side);
                    for y in pixels(top)..pixels(top + height) {
                        rgb[(y * side + pixels(left)) * 3..(y * side + pixels(left + width)) * 3].fill(grey);
                    }
                }
                Labelled {
                    frame: ModelFrame { rgb: rgb.into() },
                    labels,
                }
            })
            .collect()
    }

    /// What becomes of each byte of each channel.
    fn tables(&self, clip: &[Labelled]) -> [[u8; 256]; 3] {
        // Contrast turns about the clip's mean, sampled: a frame's own would flicker.
        let (mut sum, mut count) = (0u64, 0u64);
        for byte in clip.iter().flat_map(|f| f.frame.rgb.iter().step_by(37)) {
            sum += u64::from(*byte);
            count += 1;
        }
        let mean = sum as f32 / count.max(1) as f32 / 255.0;
        let kept = !0u8 << (8 - self.bits.min(8));
        std::array::from_fn(|channel| {
            std::array::from_fn(|byte| {
                let value = libm::powf(byte as f32 / 255.0, self.gamma) * self.tint[channel];
                let value = (mean + (value - mean) * self.contrast) * self.brightness;
                ((value * 255.0 + 0.5) as u8) & kept // saturates
            })
        })
    }

    fn moved(&self, frame: &Labelled, side: usize) -> (Vec<u8>, std::sync::Arc<[u8]>) {
        let [a, b, c, d, e, f] = self.map.inverse().0;
        let (mut rgb, mut labels) = (vec![0u8; side * side * 3], vec![IGNORED; side * side]);
        let half = side as f32 / 2.0;
        let source = &frame.frame.rgb;
        for y in 0..side {
            let v = (y as f32 + 0.5) / half - 1.0;
            for x in 0..side {
                let u = (x as f32 + 0.5) / half - 1.0;
                // Pixel coordinates of the source, centres at whole numbers.
                let sx = (a * u + b * v + c + 1.0) * half - 0.5;
                let sy = (d * u + e * v + f + 1.0) * half - 0.5;
                let last = side as f32 - 1.0;
                if !(sx > -0.5 && sy > -0.5 && sx < last + 0.5 && sy < last + 0.5) {
                    continue;
                }
                let (sx, sy) = (sx.clamp(0.0, last), sy.clamp(0.0, last));
                let (x0, y0) = (sx as usize, sy as usize);
                let (x1, y1) = ((x0 + 1).min(side - 1), (y0 + 1).min(side - 1));
                let (fx, fy) = (sx - x0 as f32, sy - y0 as f32);
                let at = (y * side + x) * 3;
                for channel in 0..3 {
                    let value = |x: usize, y: usize| f32::from(source[(y * side + x) * 3 + channel]);
                    let upper = value(x0, y0) + (value(x1, y0) - value(x0, y0)) * fx;
                    let lower = value(x0, y1) + (value(x1, y1) - value(x0, y1)) * fx;
                    rgb[at + channel] = (upper + (lower - upper) * fy + 0.5) as u8;
                }
                let nearest = (sy + 0.5) as usize * side + (sx + 0.5) as usize;
                labels[y * side + x] = frame.labels[nearest];
            }
        }
        (rgb, labels.into())
    }
}

/// Away from (above 1) or towards (below 1) the mean of each pixel's neighbourhood; the edge stays.
fn sharpened(rgb: &[u8], side: usize, sharpness: f32) -> Vec<u8> {
    let mut result = rgb.to_vec();
    for y in 1..side.saturating_sub(1) {
        for i in (y * side + 1) * 3..(y * side + side - 1) * 3 {
            let row = |at: usize| u32::from(rgb[at - 3]) + u32::from(rgb[at]) + u32::from(rgb[at + 3]);
            // The centre counts five times, as in the usual smoothing filter.
            let sum = row(i - 3 * side) + row(i) + row(i + 3 * side) + 4 * u32::from(rgb[i]);
            let smooth = sum as f32 / 13.0;
            result[i] = (smooth + (f32::from(rgb[i]) - smooth) * sharpness + 0.5) as u8;
        }
    }
    result
}

#[cfg(test)]
mod tests;
