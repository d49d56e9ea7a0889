//! Colours of a label picture to class ids.
//!
//! Some released labels hold colours a few values off a class's. With the largest difference of any channel as
//! distance, a colour within [`MAX_COLOR_DISTANCE`] of exactly one nearest class is taken for that class and counted;
//! any other becomes [`NO_MASK`] (ignored) and is counted as unknown. EndoVis 2018's closest pair, clamps and
//! ultrasound probe, is 16 apart, so no colour is ever near two of its classes.

use crate::labels::{ClassSet, NO_MASK, Rgb};
use image::{DynamicImage, GrayImage, RgbImage};
use std::collections::BTreeMap;

/// Farthest a colour may be from a class's colour to be taken for it, as the largest difference of any channel.
pub const MAX_COLOR_DISTANCE: u8 = 5;

/// Most different odd colours that a [`Tally`] keeps apart; pixels of further ones are only counted.
pub const MAX_ODD_COLORS: usize = 512;

/// A colour that is no class's, and what was made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct OddColor {
    /// Pixels of that colour.
    pub pixels: u64,
    /// The class with the nearest colour.
    pub nearest: u8,
    /// Largest difference of any channel to it.
    pub distance: u8,
    /// Whether the pixels were given that class; otherwise they are ignored.
    pub repaired: bool,
}

/// Odd colours of one or many label pictures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// The first [`MAX_ODD_COLORS`] of them.
    pub colors: BTreeMap<Rgb, OddColor>,
    /// Pixels of odd colours beyond those.
    pub further_pixels: u64,
}

impl Tally {
    pub(super) fn count(&mut self, color: Rgb, odd: OddColor) {
        let room = self.colors.len() < MAX_ODD_COLORS;
        match self.colors.get_mut(&color) {
            Some(known) => known.pixels += odd.pixels,
            None if room => {
                self.colors.insert(color, odd);
            }
            None => self.further_pixels += odd.pixels,
        }
    }

    /// Adds what `other` counted.
    pub fn add(&mut self, other: &Tally) {
        for (&color, &odd) in &other.colors {
            self.count(color, odd);
        }
        self.further_pixels += other.further_pixels;
    }

    /// Pixels that were given a near class.
    pub fn repaired_pixels(&self) -> u64 {
        self.colors
            .values()
            .filter(|c| c.repaired)
            .map(|c| c.pixels)
            .sum()
    }

    /// Pixels that are ignored because their colour is no class's; those beyond [`MAX_ODD_COLORS`] colours count
    /// here whatever they became.
    pub fn unknown_pixels(&self) -> u64 {
        let known: u64 = self
            .colors
            .values()
            .filter(|c| !c.repaired)
            .map(|c| c.pixels)
            .sum();
        known + self.further_pixels
    }
}

/// The colours of a class set, ready to be looked up.
#[derive(Debug, Clone)]
pub struct Palette {
    /// Colour and id of each class. A colour that two classes share means the first.
    colors: Vec<(Rgb, u8)>,
}

impl Palette {
    /// The colours of `classes`.
    pub fn new(classes: &ClassSet) -> Self {
        let colors = classes
            .iter()
            .zip(0..=u8::MAX)
            .map(|(class, id)| (class.color, id));
        Self {
            colors: colors.collect(),
        }
    }

    /// The class of `color`, and what was odd about it.
    fn look_up(&self, color: Rgb) -> (u8, Option<OddColor>) {
        let mut nearest = (NO_MASK, u8::MAX);
        let mut tied = false;
        for &(class_color, id) in &self.colors {
            let distance = (0..3)
                .map(|c| color[c].abs_diff(class_color[c]))
                .max()
                .unwrap_or(0);
            if distance == 0 {
                return (id, None);
            }
            if distance < nearest.1 || nearest.0 == NO_MASK {
                (nearest, tied) = ((id, distance), false);
            } else if distance == nearest.1 {
                tied = true;
            }
        }
        let (nearest, distance) = nearest;
        let repaired = distance <= MAX_COLOR_DISTANCE && !tied;
        let odd = OddColor {
            pixels: 1,
            nearest,
            distance,
            repaired,
        };
        (if repaired { nearest } else { NO_MASK }, Some(odd))
    }

    /// Class ids of a label picture in colours; odd colours are added to `tally`.
    pub fn classes_of(&self, picture: &RgbImage, tally: &mut Tally) -> GrayImage {
        let mut ids = GrayImage::new(picture.width(), picture.height());
        // Labels are made of areas: most pixels have the colour of the one before.
        let mut last: Option<(Rgb, u8, Option<OddColor>)> = None;
        let mut run = 0_u64;
        for (id, pixel) in ids.iter_mut().zip(picture.pixels()) {
            let color = pixel.0;
            match last {
                Some((known, class, _)) if known == color => *id = class,
                _ => {
                    settle(tally, last, run);
                    run = 0;
                    let (class, odd) = self.look_up(color);
                    last = Some((color, class, odd));
                    *id = class;
                }
            }
            run += 1;
        }
        settle(tally, last, run);
        ids
    }

    /// Class ids of a label picture as it was decoded. A picture of one channel holds ids, not colours: ids that are
    /// no class's become [`NO_MASK`], counted as the grey they look like.
    pub fn classes_of_any(&self, picture: DynamicImage, tally: &mut Tally) -> GrayImage {
        let gray = matches!(
            picture.color(),
            image::ColorType::L8 | image::ColorType::La8 | image::ColorType::L16 | image::ColorType::La16
        );
        if !gray {
            return self.classes_of(&picture.into_rgb8(), tally);
        }
        let mut ids = picture.into_luma8();
        let mut counts = [0_u64; 256];
        for id in ids.iter_mut() {
            counts[usize::from(*id)] += 1;
            if usize::from(*id) >= self.colors.len() {
                *id = NO_MASK;
            }
        }
        for value in (0..NO_MASK).skip(self.colors.len()) {
            let pixels = counts[usize::from(value)];
            if pixels > 0 {
                let nearest = self.colors.last().map_or(NO_MASK, |c| c.1);
                let distance = value.saturating_sub(nearest);
                let repaired = false;
                tally.count(
                    [value; 3],
                    OddColor {
                        pixels,
                        nearest,
                        distance,
                        repaired,
                    },
                );
            }
        }
        ids
    }
}

/// Counts a finished run of pixels of one colour.
fn settle(tally: &mut Tally, last: Option<(Rgb, u8, Option<OddColor>)>, run: u64) {
    if let Some((color, _, Some(odd))) = last {
        tally.count(color, OddColor { pixels: run, ..odd });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_classes_of_endovis_are_both_near() {
        let palette = Palette::new(&ClassSet::endovis_2018());
        for (i, (a, _)) in palette.colors.iter().enumerate() {
            for (b, _) in &palette.colors[..i] {
                let distance = (0..3).map(|c| a[c].abs_diff(b[c])).max().unwrap();
                assert!(distance > 2 * MAX_COLOR_DISTANCE, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn the_distance_is_a_bound() {
        let palette = Palette::new(&ClassSet::endovis_2018());
        let at = |d: u8| palette.look_up([187 - d, 155, 25 + d]);
        assert_eq!(at(0), (6, None));
        assert_eq!(at(MAX_COLOR_DISTANCE).0, 6);
        let (id, odd) = at(MAX_COLOR_DISTANCE + 1);
        assert_eq!(id, NO_MASK);
        assert_eq!(
            odd.map(|o| (o.nearest, o.distance, o.repaired)),
            Some((6, 6, false))
        );
    }

    #[test]
    fn a_tie_is_not_decided() {
        let mut set = ClassSet::numbered(2).unwrap();
        set = set.recolored("class-0=#000000,class-1=#040000").unwrap();
        let palette = Palette::new(&set);
        assert_eq!(palette.look_up([2, 0, 0]).0, NO_MASK);
        assert_eq!(palette.look_up([3, 0, 0]).0, 1);
    }

    #[test]
    fn a_picture_of_noise_takes_no_more_than_its_share() {
        let palette = Palette::new(&ClassSet::endovis_2018());
        let noise = RgbImage::from_fn(256, 256, |x, y| image::Rgb([x as u8, y as u8, 77]));
        let mut tally = Tally::default();
        palette.classes_of(&noise, &mut tally);
        assert_eq!(tally.colors.len(), MAX_ODD_COLORS);
        assert_eq!(tally.unknown_pixels() + tally.repaired_pixels(), 65536);
    }
}
