//! Colors of label pictures to class ids.
//!
//! Some released labels hold colors a few values off a class's. With the largest difference of any channel as
//! distance, a color within [`MAX_COLOR_DISTANCE`] of exactly one nearest class is taken for that class and counted;
//! any other becomes [`NO_MASK`] (ignored) and is counted as unknown. EndoVis 2018's closest pair, clamps and
//! ultrasound probe, is 16 apart, so no color is ever near two of its classes.

use crate::labels::{NO_MASK, Rgb};
use std::collections::BTreeMap;

/// Farthest a color may be from a class's color to be taken for it, as the largest difference of any channel.
pub const MAX_COLOR_DISTANCE: u8 = 5;

/// Most different odd colors that a [`Tally`] keeps apart; pixels of further ones are only counted.
pub const MAX_ODD_COLORS: usize = 512;

/// A color that is no class's, and what was made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct OddColor {
    /// Pixels of that color.
    pub pixels: u64,
    /// The class with the nearest color.
    pub nearest: u8,
    /// Largest difference of any channel to it.
    pub distance: u8,
    /// Whether the pixels were given that class; otherwise they are ignored.
    pub repaired: bool,
}

/// Odd colors of one or many label pictures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// The first [`MAX_ODD_COLORS`] of them.
    pub colors: BTreeMap<Rgb, OddColor>,
    /// Pixels of odd colors beyond those.
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

    /// Pixels that are ignored because their color is no class's; those beyond [`MAX_ODD_COLORS`] colors count
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

/// The colors of a class table, ready to be looked up.
#[derive(Debug, Clone)]
pub(super) struct Palette {
    /// Each color and its class; [`NO_MASK`] for one that is ignored.
    colors: Vec<(Rgb, u8)>,
}

impl Palette {
    /// From colors and their classes.
    pub fn new(colors: Vec<(Rgb, u8)>) -> Self {
        Self { colors }
    }

    /// The class of exactly this color.
    pub fn exact(&self, color: Rgb) -> Option<u8> {
        let known = self.colors.iter().find(|(known, _)| *known == color);
        known.map(|(_, class)| *class)
    }

    /// The class of `color`, and what was odd about it. A gray that is no class's is never taken for one: it may be an
    /// id, and ids look like black.
    pub fn look_up(&self, color: Rgb) -> (u8, Option<OddColor>) {
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
        let is_gray = color[0] == color[1] && color[1] == color[2];
        let repaired = distance <= MAX_COLOR_DISTANCE && !tied && !is_gray;
        let odd = OddColor {
            pixels: 1,
            nearest,
            distance,
            repaired,
        };
        (if repaired { nearest } else { NO_MASK }, Some(odd))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::ClassSet;

    fn palette(classes: &ClassSet) -> Palette {
        Palette::new(classes.iter().map(|c| c.color).zip(0..=u8::MAX).collect())
    }

    #[test]
    fn no_two_classes_of_endovis_are_both_near() {
        let palette = palette(&ClassSet::endovis_2018());
        for (i, (a, _)) in palette.colors.iter().enumerate() {
            for (b, _) in &palette.colors[..i] {
                let distance = (0..3).map(|c| a[c].abs_diff(b[c])).max().unwrap();
                assert!(distance > 2 * MAX_COLOR_DISTANCE, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn the_distance_is_a_bound() {
        let palette = palette(&ClassSet::endovis_2018());
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
        let palette = palette(&set);
        assert_eq!(palette.look_up([2, 0, 0]).0, NO_MASK);
        assert_eq!(palette.look_up([3, 0, 0]).0, 1);
    }

    #[test]
    fn a_gray_near_black_is_not_black() {
        let palette = palette(&ClassSet::endovis_2018());
        for id in 1..=MAX_COLOR_DISTANCE {
            assert_eq!(palette.look_up([id; 3]).0, NO_MASK, "{id}");
        }
        assert_eq!(palette.look_up([1, 0, 2]).0, 0);
    }

    #[test]
    fn no_more_colors_are_kept_apart_than_there_is_room_for() {
        let palette = palette(&ClassSet::endovis_2018());
        let mut tally = Tally::default();
        for pixel in 0..65536_u32 {
            let color = [pixel as u8, (pixel >> 8) as u8, 77];
            let (_, odd) = palette.look_up(color);
            tally.count(color, odd.unwrap());
        }
        assert_eq!(tally.colors.len(), MAX_ODD_COLORS);
        assert_eq!(tally.unknown_pixels() + tally.repaired_pixels(), 65536);
    }
}
