//! Frames and labels at the model's side, kept in memory: decoded and resized once, drawn from at random.

use super::config::{Clips, Scenes};
use crate::checkpoint::Preprocessing;
use crate::data::phantom::random::Random;
use crate::data::phantom::{self};
use crate::error::{Error, Result};
use crate::geometry::Size;
use crate::kernels::picture::convert::{ColorSpace, Picture, PixelFormat, PlaneRef};
use crate::kernels::picture::resize::AreaResizer;
use crate::kernels::picture::resize_reference::{resize_reference, zoom_labels};
use crate::segmenter::{ModelFrame, Resize};
use rayon::prelude::*;
use std::sync::Arc;

/// One frame: picture and classes.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// `[side, side, 3]`, RGB bytes.
    pub frame: ModelFrame,
    /// `[side, side]`, class ids or [`IGNORED`](super::loss::IGNORED).
    pub labels: Arc<[u8]>,
}

/// Sequences of frames of one side.
#[derive(Clone, Default)]
pub struct Footage {
    side: usize,
    sequences: Vec<Vec<Labelled>>,
    /// Frames that show a class: sequence and frame.
    showing: Vec<Vec<(u32, u32)>>,
    /// Frames with a label that counts.
    labelled: Vec<(u32, u32)>,
}

/// Pixels of a class below which a frame does not count as showing it: what a clip drawn for it can learn from.
const SHOWN_PIXELS: usize = 12;

impl std::fmt::Debug for Footage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} sequences, {} frames of {} pixels",
            self.sequences.len(),
            self.frames(),
            self.side
        )
    }
}

impl Footage {
    /// Takes frames of `side`.
    ///
    /// # Errors
    /// No frame at all, a frame of another size, or a label that is neither a class nor ignored.
    pub fn new(side: usize, classes: usize, sequences: Vec<Vec<Labelled>>) -> Result<Self> {
        let mut showing = vec![Vec::new(); classes];
        let mut labelled = Vec::new();
        for (s, sequence) in sequences.iter().enumerate() {
            for (f, frame) in sequence.iter().enumerate() {
                let what = || format!("frame {f} of sequence {s}");
                if frame.frame.rgb.len() != side * side * 3 || frame.labels.len() != side * side {
                    return Err(Error::tensor(
                        what(),
                        format!("it is not {side} pixels wide and high"),
                    ));
                }
                let mut counts = [0usize; 256];
                frame.labels.iter().for_each(|&id| counts[usize::from(id)] += 1);
                if let Some(id) = (classes..usize::from(super::loss::IGNORED)).find(|&id| counts[id] > 0) {
                    return Err(Error::tensor(
                        what(),
                        format!("label {id} is no class of {classes}"),
                    ));
                }
                if counts[usize::from(super::loss::IGNORED)] < side * side {
                    labelled.push((s as u32, f as u32));
                }
                for (class, frames) in showing.iter_mut().enumerate() {
                    if counts[class] >= SHOWN_PIXELS {
                        frames.push((s as u32, f as u32));
                    }
                }
            }
        }
        if labelled.is_empty() {
            return Err(Error::config(
                "frames with labels",
                0,
                "there has to be something to learn from",
            ));
        }
        Ok(Self {
            side,
            sequences,
            showing,
            labelled,
        })
    }

    /// Generates scenes; `progress` is called after each sequence.
    ///
    /// # Errors
    /// As [`PhantomConfig::validate`](phantom::PhantomConfig::validate).
    pub fn generate(
        scenes: &Scenes,
        side: usize,
        preprocessing: &Preprocessing,
        progress: &(dyn Fn() + Sync),
    ) -> Result<Self> {
        let config = scenes.config();
        config.validate()?;
        let sequences = (0..scenes.sequences)
            .into_par_iter()
            .map(|index| {
                let sequence = phantom::Sequence::new(&config, index as u64)?;
                let frames = (0..sequence.frames())
                    .map(|frame| {
                        let frame = sequence.render(frame);
                        Labelled::from_picture(&frame.rgb, &frame.labels, frame.size, side, preprocessing)
                    })
                    .collect::<Result<Vec<_>>>();
                progress();
                frames
            })
            .collect::<Result<Vec<_>>>()?;
        Self::new(side, crate::labels::ClassSet::endovis_2018().len(), sequences)
    }

    /// The sequences.
    pub fn sequences(&self) -> &[Vec<Labelled>] {
        &self.sequences
    }

    /// Side of the frames, pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Frames in all.
    pub fn frames(&self) -> usize {
        self.sequences.iter().map(Vec::len).sum()
    }

    /// Draws a clip: its frames, oldest first, one of which has labels. Where the sequence is too short the first
    /// frame stands for those before it.
    pub fn draw(&self, clips: &Clips, random: &mut Random) -> Vec<Labelled> {
        let (sequence, frame) = self.draw_frame(clips.by_class, random);
        let stride = clips.stride[0] + random.below(clips.stride[1] - clips.stride[0] + 1);
        // The frame drawn may stand anywhere in its clip that does not end after its sequence.
        let later = random
            .below(clips.frames)
            .min((sequence.len() - 1 - frame) / stride);
        let newest = frame + later * stride;
        (0..clips.frames)
            .rev()
            .map(|back| sequence[newest.saturating_sub(back * stride)].clone())
            .collect()
    }

    fn draw_frame(&self, by_class: f32, random: &mut Random) -> (&[Labelled], usize) {
        let shown: Vec<&Vec<(u32, u32)>> = self.showing.iter().filter(|frames| !frames.is_empty()).collect();
        let frames = match random.chance(by_class) && !shown.is_empty() {
            true => shown[random.below(shown.len())],
            false => &self.labelled,
        };
        let (sequence, frame) = frames[random.below(frames.len())];
        (&self.sequences[sequence as usize], frame as usize)
    }
}

impl Labelled {
    /// Brings a picture, `[height, width, 3]`, and its labels, `[height, width]`, to `side`; labels by nearest.
    ///
    /// # Errors
    /// Lengths that do not fit `size`.
    pub fn from_picture(
        rgb: &[u8],
        labels: &[u8],
        size: Size,
        side: usize,
        preprocessing: &Preprocessing,
    ) -> Result<Self> {
        if rgb.len() != size.area() * 3 || labels.len() != size.area() {
            let value = format!("{} bytes, {} labels", rgb.len(), labels.len());
            let bound = format!("{}x{} pixels", size.width_px, size.height_px);
            return Err(Error::config("picture", value, bound));
        }
        let (side_px, turn) = (side as u32, preprocessing.orientation);
        let plane = PlaneRef {
            data: rgb,
            stride_bytes: size.width_px as usize * 3,
        };
        let picture = Picture::new(PixelFormat::Rgb, size, &[plane], ColorSpace::RGB)?;
        let mut square = vec![0u8; side * side * 3];
        let upright = match preprocessing.resize {
            Resize::Area => {
                AreaResizer::new(size, side_px)?.resize(&picture, size.rect(), turn, &mut square)?;
                nearest_centre(labels, size, side)
            }
            Resize::Reference => {
                resize_reference(&picture, size.rect(), side_px, turn, &mut square)?;
                zoom_labels(labels, size, side_px)
            }
        };
        // The model's square from the upright one, as the picture was turned.
        let mut turned = vec![0u8; side * side];
        for y in 0..side {
            for x in 0..side {
                let (column, row) = turn.upright_from_model(x as u32, y as u32, side_px);
                turned[row as usize * side + column as usize] = upright[y * side + x];
            }
        }
        Ok(Self {
            frame: ModelFrame { rgb: square.into() },
            labels: turned.into(),
        })
    }
}

/// The label under the centre of each pixel of a square of `side`: fits the area filter.
fn nearest_centre(labels: &[u8], size: Size, side: usize) -> Vec<u8> {
    let (width, height) = (size.width_px as usize, size.height_px as usize);
    let at = |j: usize, length: usize| ((2 * j + 1) * length / (2 * side)).min(length - 1);
    (0..side)
        .flat_map(|y| (0..side).map(move |x| labels[at(y, height) * width + at(x, width)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(side: usize, class: u8) -> Labelled {
        Labelled {
            frame: ModelFrame {
                rgb: vec![class; side * side * 3].into(),
            },
            labels: vec![class; side * side].into(),
        }
    }

    #[test]
    fn pictures_and_labels_stay_together() {
        // A bright patch of class 1: wherever it lands, picture and labels have to agree.
        let size = Size {
            width_px: 90,
            height_px: 60,
        };
        let inside = |i: usize| (i % 90 > 50) && (i / 90 < 20);
        let labels: Vec<u8> = (0..size.area()).map(|i| u8::from(inside(i))).collect();
        let rgb: Vec<u8> = labels.iter().flat_map(|&id| [id * 200; 3]).collect();
        for preprocessing in [Preprocessing::live(), Preprocessing::reference()] {
            let found = Labelled::from_picture(&rgb, &labels, size, 32, &preprocessing).unwrap();
            let bright: Vec<u8> = found
                .frame
                .rgb
                .chunks_exact(3)
                .map(|p| u8::from(p[0] > 100))
                .collect();
            let differing = bright
                .iter()
                .zip(found.labels.iter())
                .filter(|(a, b)| a != b)
                .count();
            assert!(differing < 20, "{differing} pixels differ: {preprocessing:?}");
            assert!(found.labels.iter().filter(|&&id| id == 1).count() > 100);
        }
    }

    #[test]
    fn clips_are_drawn_by_class_and_stay_within_their_sequence() {
        let side = 8;
        let mut sequences = vec![(0..50).map(|_| frame(side, 0)).collect::<Vec<_>>(); 3];
        sequences[1][7] = frame(side, 2);
        let footage = Footage::new(side, 3, sequences).unwrap();
        let clips = Clips {
            frames: 5,
            stride: [1, 3],
            by_class: 1.0,
            ..Clips::default()
        };
        let mut random = Random::new(5);
        let drawn: Vec<_> = (0..300).map(|_| footage.draw(&clips, &mut random)).collect();
        let rare = drawn
            .iter()
            .filter(|clip| clip.iter().any(|f| f.labels[0] == 2))
            .count();
        assert!(
            (80..250).contains(&rare),
            "{rare} of 300 clips show a class of one frame in 150"
        );
        assert!(drawn.iter().all(|clip| clip.len() == 5));
    }

    #[test]
    fn labels_that_are_no_class_are_refused() {
        let error = Footage::new(8, 3, vec![vec![frame(8, 3)]])
            .unwrap_err()
            .to_string();
        assert!(error.contains("label 3 is no class of 3"), "{error}");
        assert!(Footage::new(8, 3, vec![vec![]]).is_err());
        assert!(Footage::new(9, 3, vec![vec![frame(8, 1)]]).is_err());
    }
}
