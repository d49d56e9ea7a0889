//! Phantom scenes: generated endoscopic video with exact labels.
//!
//! A [`Sequence`] is drawn from a seed; [`Sequence::render`] gives any of its frames, alone and in any order, with
//! the class of every pixel. The same seed gives the same bytes on every machine: only operations that IEEE 754
//! rounds exactly are used, everything else comes from `libm`, and no sum depends on the number of threads.
//!
//! ```
//! use masam::data::phantom::{PhantomConfig, Sequence};
//! use masam::geometry::Size;
//!
//! let config = PhantomConfig { size: Size { width_px: 64, height_px: 48 }, ..PhantomConfig::default() };
//! let frame = Sequence::new(&config, 0)?.render(0);
//! assert_eq!(frame.rgb.len(), 64 * 48 * 3);
//! assert_eq!(frame.labels.len(), 64 * 48);
//! # Ok::<(), masam::Error>(())
//! ```

pub mod accessory;
pub mod anatomy;
pub mod camera;
pub mod finish;
pub mod focus;
pub mod instrument;
pub mod lanes;
pub mod materials;
pub mod motion;
pub mod net;
pub mod noise;
pub mod outline;
pub mod random;
pub mod raster;
pub mod relief;
pub mod render;
pub mod scenario;
pub mod scene;
pub mod sensor;
pub mod sequence;
pub mod sheet;
pub mod shutter;
pub mod solid;
pub mod surface;
pub mod suture;
pub mod tissue;
pub mod vector;
pub mod veil;
pub mod writer;

use crate::error::{Error, Result, all_of};
use crate::geometry::Size;

pub use camera::Eye;
pub use sequence::{Frame, Sequence};
pub use writer::write_dataset;

/// What to generate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PhantomConfig {
    /// Everything follows from it.
    pub seed: u64,
    /// Size of the pictures.
    pub size: Size,
    /// Frames in a sequence.
    pub frames: usize,
    /// Frames per second as numerator and denominator.
    pub frame_rate: (u32, u32),
    /// Rays per pixel each way, 1 to 4: small pictures drawn with 2 or 4 look like large ones scaled down.
    pub supersample: u32,
    /// Which pictures of the stereo camera are written to disk.
    pub eyes: Eyes,
}

/// Which of the two pictures of a stereo camera are written; labels belong to the left one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eyes {
    /// The left one.
    Left,
    /// Both, as EndoVis 2018 was released.
    Both,
}

impl Default for PhantomConfig {
    /// EndoVis 2018's picture size at 30 frames per second.
    fn default() -> Self {
        Self {
            seed: 1,
            size: Size {
                width_px: 1280,
                height_px: 1024,
            },
            frames: 60,
            frame_rate: (30, 1),
            supersample: 1,
            eyes: Eyes::Left,
        }
    }
}

/// Smallest side of a phantom picture, px.
const LEAST_SIDE_PX: u32 = 32;

/// Largest side of a phantom picture, px.
const MOST_SIDE_PX: u32 = 4096;

impl PhantomConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// Each field out of bounds: sides of 32 to 4096 px, at least one frame, a rate of 0.01 to 1000 frames per second.
    pub fn validate(&self) -> Result<()> {
        let mut errors = Vec::new();
        for (field, side) in [
            ("size.width_px", self.size.width_px),
            ("size.height_px", self.size.height_px),
        ] {
            if !(LEAST_SIDE_PX..=MOST_SIDE_PX).contains(&side) {
                let bound = format!("it has to be {LEAST_SIDE_PX} to {MOST_SIDE_PX} pixels");
                errors.push(Error::config(field, side, bound));
            }
        }
        if self.frames == 0 {
            errors.push(Error::config("frames", 0, "a sequence has at least one frame"));
        }
        let (numerator, denominator) = self.frame_rate;
        let rate = f64::from(numerator) / f64::from(denominator);
        if !(0.01..=1000.0).contains(&rate) {
            let value = format!("{numerator}/{denominator}");
            errors.push(Error::config(
                "frame_rate",
                value,
                "it has to be 0.01 to 1000 frames per second",
            ));
        }
        if !(1..=4).contains(&self.supersample) {
            errors.push(Error::config(
                "supersample",
                self.supersample,
                "it has to be 1 to 4",
            ));
        } else if self.size.width_px.max(self.size.height_px) > MOST_SIDE_PX / self.supersample {
            let bound = format!("a side times supersample has to be at most {MOST_SIDE_PX} pixels");
            errors.push(Error::config("supersample", self.supersample, bound));
        }
        all_of(errors)
    }

    /// Size of the pictures before they are scaled down.
    fn inner_size(&self) -> Size {
        Size {
            width_px: self.size.width_px * self.supersample,
            height_px: self.size.height_px * self.supersample,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_bounded() {
        assert!(PhantomConfig::default().validate().is_ok());
        let wrong = PhantomConfig {
            size: Size {
                width_px: 8,
                height_px: 5000,
            },
            frames: 0,
            frame_rate: (1, 0),
            supersample: 9,
            ..PhantomConfig::default()
        };
        let message = wrong.validate().unwrap_err().to_string();
        for field in [
            "size.width_px is 8",
            "size.height_px is 5000",
            "frames is 0",
            "1/0",
            "supersample is 9",
        ] {
            assert!(message.contains(field), "{field} is not in: {message}");
        }
        assert!(Sequence::new(&wrong, 0).is_err());
        let large = PhantomConfig {
            supersample: 4,
            ..PhantomConfig::default()
        };
        assert!(large.validate().unwrap_err().to_string().contains("at most 4096"));
        let none = PhantomConfig {
            frame_rate: (0, 0),
            ..PhantomConfig::default()
        };
        assert!(none.validate().is_err());
    }
}
