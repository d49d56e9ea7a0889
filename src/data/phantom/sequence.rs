//! A sequence and its frames.

use super::PhantomConfig;
use super::camera::Eye;
use super::focus::defocus;
use super::random::{Random, mix};
use super::render::Canvas;
use super::scenario::cast_of;
use super::scene::Scene;
use super::sensor::Sensor;
use super::shutter::blur_motion;
use super::veil::Veil;
use crate::error::Result;
use crate::geometry::Size;
use std::sync::{Mutex, PoisonError};

/// One picture and its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Width and height.
    pub size: Size,
    /// `[height, width, 3]`, sRGB bytes.
    pub rgb: Vec<u8>,
    /// `[height, width]`, ids of [`crate::labels::ClassSet::endovis_2018`].
    pub labels: Vec<u8>,
}

impl Frame {
    /// The frame made `factor` times smaller each way: colours are means, a label is that of the pixel just right
    /// of and below the middle.
    fn shrunk(self, factor: usize) -> Self {
        if factor == 1 {
            return self;
        }
        let width = self.size.width_px as usize;
        let size = Size {
            width_px: self.size.width_px / factor as u32,
            height_px: self.size.height_px / factor as u32,
        };
        let columns = size.width_px as usize;
        let mut rgb = Vec::with_capacity(size.area() * 3);
        let mut labels = Vec::with_capacity(size.area());
        let share = (factor * factor) as u32;
        for row in 0..size.height_px as usize {
            for column in 0..columns {
                let mut sums = [0u32; 3];
                for y in row * factor..(row + 1) * factor {
                    for pixel in self.rgb[(y * width + column * factor) * 3..][..factor * 3].chunks_exact(3) {
                        for (sum, &value) in sums.iter_mut().zip(pixel) {
                            *sum += u32::from(value);
                        }
                    }
                }
                rgb.extend(sums.map(|sum| ((sum + share / 2) / share) as u8));
                labels.push(self.labels[(row * factor + factor / 2) * width + column * factor + factor / 2]);
            }
        }
        Self { size, rgb, labels }
    }
}

/// One sequence: a scene and its frame times.
#[derive(Debug)]
pub struct Sequence {
    config: PhantomConfig,
    seed: u64,
    scene: Scene,
    /// Canvases to draw the next frames on: fresh memory costs more than some of the drawing.
    canvases: Mutex<Vec<Canvas>>,
}

impl Sequence {
    /// Draws sequence `index` of `config`.
    ///
    /// # Errors
    /// As [`PhantomConfig::validate`].
    pub fn new(config: &PhantomConfig, index: u64) -> Result<Self> {
        config.validate()?;
        let seed = mix(config.seed ^ mix(index.wrapping_add(0x51ED)));
        let cast = cast_of(config.seed, index);
        let scene = Scene::new(seed, cast, config.inner_size());
        Ok(Self {
            config: *config,
            seed,
            scene,
            canvases: Mutex::new(Vec::new()),
        })
    }

    /// Number of frames asked for; later ones can be rendered as well.
    pub fn frames(&self) -> usize {
        self.config.frames
    }

    /// Time of frame `frame`, seconds.
    pub fn seconds(&self, frame: usize) -> f64 {
        let (numerator, denominator) = self.config.frame_rate;
        frame as f64 * f64::from(denominator) / f64::from(numerator)
    }

    /// What it was drawn from.
    pub fn config(&self) -> &PhantomConfig {
        &self.config
    }

    /// Focal length of the camera, px.
    pub fn focal_px(&self) -> f32 {
        self.scene.focal_px() / self.config.supersample as f32
    }

    /// Draws frame `frame` as the left eye sees it.
    pub fn render(&self, frame: usize) -> Frame {
        self.render_eye(frame, Eye::Left)
    }

    /// Draws frame `frame` as `eye` sees it.
    pub fn render_eye(&self, frame: usize, eye: Eye) -> Frame {
        let size = self.config.inner_size();
        let instant = self.scene.at(self.seconds(frame), eye);
        let spare = self.canvases.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut canvas = spare.unwrap_or_else(|| Canvas::new(size));
        self.scene.draw(&instant, &mut canvas, size);
        blur_motion(&mut canvas, &instant.trails, size);
        defocus(&mut canvas, instant.focus, size);
        let veil = Veil::new(&canvas, instant.smoke, 1.1, 0.035, size);
        let mut random = Random::new(self.seed ^ mix(frame as u64 * 2 + u64::from(eye == Eye::Right)));
        let sensor = Sensor {
            gain: instant.gain * 1.4,
            noise: 1.8,
            seed: random.bits() as u32,
            vignette: 0.5,
            softness: 0.2,
        };
        let rgb = sensor.expose(&canvas, &veil, size);
        let labels = canvas.labels.clone();
        self.canvases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(canvas);
        Frame { size, rgb, labels }.shrunk(self.config.supersample as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shrinking_takes_means_and_middle_labels() {
        let size = Size {
            width_px: 4,
            height_px: 2,
        };
        let rgb = (0..8u8).flat_map(|i| [i * 10, 100, 255]).collect();
        let labels = (0..8).collect();
        let small = Frame { size, rgb, labels }.shrunk(2);
        assert_eq!(
            small.size,
            Size {
                width_px: 2,
                height_px: 1
            }
        );
        assert_eq!(small.rgb, [25, 100, 255, 45, 100, 255]);
        assert_eq!(small.labels, [5, 7]);
    }

    #[test]
    fn eyes_see_the_same_scene_from_two_places() {
        let size = Size {
            width_px: 96,
            height_px: 64,
        };
        let config = PhantomConfig {
            size,
            supersample: 2,
            ..PhantomConfig::default()
        };
        let sequence = Sequence::new(&config, 1).unwrap();
        let (left, right) = (sequence.render(3), sequence.render_eye(3, Eye::Right));
        assert_eq!((left.size, right.size), (size, size));
        let differ = left
            .labels
            .iter()
            .zip(&right.labels)
            .filter(|(l, r)| l != r)
            .count();
        assert!(differ > 30 && differ < left.labels.len() / 2, "{differ}");
    }
}
