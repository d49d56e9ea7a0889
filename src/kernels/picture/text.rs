//! Text in the built-in font, at any size, as coverage.
//!
//! A glyph's strokes are lines; the coverage of a pixel is `clamp(w / 2 - d + 1/2, 0, 1)` with `d` the distance of
//! its centre to the nearest stroke and `w` the stroke's width, in pixels. Rendered glyphs are kept.
//!
//! ```
//! use masam::kernels::picture::text::Font;
//! let mut font = Font::new(16.0);
//! let (_, glyph) = font.glyph('A', 3.0);
//! assert!(glyph.coverage.iter().any(|&c| c == 255));
//! assert_eq!(font.width_px("AA"), 2.0 * font.width_px("A"));
//! ```

use super::text_glyphs::{GLYPHS, UNKNOWN};
use std::collections::HashMap;

/// Units of the glyphs' shapes in the height of a capital.
const CAPITAL_UNITS: f32 = 10.0;

/// Width of the strokes, in units.
const STROKE_UNITS: f32 = 1.3;

/// From the end of one glyph's strokes to the beginning of the next one's, in units.
const SPACING_UNITS: f32 = 2.7;

/// Places of the pen in a pixel.
const QUARTERS: f32 = 4.0;

/// Lines that stand for a full circle.
const CIRCLE_STEPS: f32 = 48.0;

/// A rendered character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glyph {
    /// Pixels in a row of `coverage`.
    pub width_px: usize,
    /// Rows of `coverage`.
    pub height_px: usize,
    /// First column of `coverage`, from the pen's pixel.
    pub left_px: i32,
    /// First row of `coverage` above the base line.
    pub top_px: i32,
    /// 0 to 255, row by row.
    pub coverage: Vec<u8>,
}

/// The font at one size.
#[derive(Debug, Clone)]
pub struct Font {
    unit_px: f32,
    /// By character and part of a pixel.
    glyphs: HashMap<(char, u8), Glyph>,
}

impl Font {
    /// Capitals are `capital_px` high, at least 4.
    pub fn new(capital_px: f32) -> Self {
        Self {
            unit_px: capital_px.max(4.0) / CAPITAL_UNITS,
            glyphs: HashMap::new(),
        }
    }

    /// Height of a capital.
    pub fn capital_px(&self) -> f32 {
        self.unit_px * CAPITAL_UNITS
    }

    /// From the pen at `character` to the pen at the next.
    pub fn advance_px(&self, character: char) -> f32 {
        (shape(character).0 + SPACING_UNITS) * self.unit_px
    }

    /// Width of `text`, the space after its last character included.
    pub fn width_px(&self, text: &str) -> f32 {
        text.chars().map(|character| self.advance_px(character)).sum()
    }

    /// The character with the pen at `pen_px`: the whole pixel to draw it from, and what to draw, rendered when it is
    /// asked for the first time. The pen stands at quarters of a pixel, so that small text is evenly spaced.
    pub fn glyph(&mut self, character: char, pen_px: f32) -> (i32, &Glyph) {
        let quarters = (pen_px * QUARTERS).round() as i32;
        let (whole, quarter) = (
            quarters.div_euclid(QUARTERS as i32),
            quarters.rem_euclid(QUARTERS as i32),
        );
        let unit_px = self.unit_px;
        // What has no shape of its own looks alike.
        let is_known = GLYPHS.iter().any(|(known, ..)| *known == character);
        let character = if is_known {
            character
        } else {
            char::REPLACEMENT_CHARACTER
        };
        let glyph = self.glyphs.entry((character, quarter as u8));
        (
            whole,
            glyph.or_insert_with(|| render(shape(character).1, unit_px, quarter as f32 / QUARTERS)),
        )
    }
}

fn shape(character: char) -> (f32, &'static str) {
    GLYPHS
        .iter()
        .find(|(known, ..)| *known == character)
        .map_or(UNKNOWN, |&(_, width, strokes)| (width, strokes))
}

/// Ends of a line, in units.
type Line = [[f32; 2]; 2];

fn lines_of(strokes: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut words = strokes.split_ascii_whitespace().peekable();
    while let Some(command) = words.next() {
        let mut numbers = Vec::new();
        while let Some(number) = words.peek().and_then(|word| word.parse::<f32>().ok()) {
            numbers.push(number);
            words.next();
        }
        let points: Vec<[f32; 2]> = match (command, numbers.as_slice()) {
            ("A", &[x, y, radius_x, radius_y, from, to]) => {
                let steps = ((to - from).abs() / 360.0 * CIRCLE_STEPS).ceil().max(1.0);
                (0..=steps as u32)
                    .map(|step| (from + (to - from) * step as f32 / steps).to_radians())
                    .map(|angle| [x + radius_x * angle.cos(), y + radius_y * angle.sin()])
                    .collect()
            }
            (_, numbers) => numbers
                .chunks_exact(2)
                .map(|point| [point[0], point[1]])
                .collect(),
        };
        lines.extend(points.windows(2).map(|ends| [ends[0], ends[1]]));
    }
    lines
}

/// Draws `strokes` with the pen at `pen_px`.
fn render(strokes: &str, unit_px: f32, pen_px: f32) -> Glyph {
    // Rows of pixels go down, from the pen.
    let lines: Vec<Line> = lines_of(strokes)
        .iter()
        .map(|line| line.map(|[x, y]| [x * unit_px + pen_px, -y * unit_px]))
        .collect();
    let points = || lines.iter().flatten();
    let half_px = (STROKE_UNITS * unit_px / 2.0).max(0.6);
    let margin_px = half_px + 0.5;
    let bound = |axis: usize| {
        let low = points().map(|p| p[axis]).fold(f32::INFINITY, f32::min) - margin_px;
        let high = points().map(|p| p[axis]).fold(f32::NEG_INFINITY, f32::max) + margin_px;
        if lines.is_empty() {
            (0, 0)
        } else {
            (low.floor() as i32, high.ceil() as i32)
        }
    };
    let ((left, right), (top, bottom)) = (bound(0), bound(1));
    let (width_px, height_px) = ((right - left) as usize, (bottom - top) as usize);
    let mut coverage = vec![0_u8; width_px * height_px];
    for &line in &lines {
        // No pixel that lies further away than the margin is covered.
        let reach = |axis: usize, first: i32, count: usize| {
            let [low, high] = [f32::min, f32::max].map(|pick| pick(line[0][axis], line[1][axis]));
            let start = (low - margin_px).floor() as i32 - first;
            let end = (high + margin_px).ceil() as i32 - first;
            start.max(0) as usize..(end.max(0) as usize).min(count)
        };
        let columns = reach(0, left, width_px);
        for y in reach(1, top, height_px) {
            let row = &mut coverage[y * width_px..][columns.clone()];
            for (x, coverage) in columns.clone().zip(row) {
                let at = [(x as i32 + left) as f32 + 0.5, (y as i32 + top) as f32 + 0.5];
                let covered = (half_px - distance(at, line) + 0.5).clamp(0.0, 1.0);
                *coverage = (*coverage).max((covered * 255.0).round() as u8);
            }
        }
    }
    Glyph {
        width_px,
        height_px,
        left_px: left,
        top_px: top,
        coverage,
    }
}

/// From a point to the nearest point of a line.
fn distance([x, y]: [f32; 2], [[ax, ay], [bx, by]]: Line) -> f32 {
    let (dx, dy) = (bx - ax, by - ay);
    let length = dx * dx + dy * dy;
    let along = if length > 0.0 {
        (((x - ax) * dx + (y - ay) * dy) / length).clamp(0.0, 1.0)
    } else {
        0.0
    };
    let (dx, dy) = (x - ax - along * dx, y - ay - along * dy);
    (dx * dx + dy * dy).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printable_character_has_a_shape_and_no_two_share_one() {
        for character in '!'..='~' {
            let found: Vec<_> = GLYPHS.iter().filter(|(known, ..)| *known == character).collect();
            assert_eq!(found.len(), 1, "{character}");
            assert!(!lines_of(found[0].2).is_empty(), "{character}");
            let same = GLYPHS
                .iter()
                .filter(|(_, _, strokes)| *strokes == found[0].2)
                .count();
            assert_eq!(same, 1, "{character} looks like another");
        }
    }

    #[test]
    fn strokes_stay_within_their_width_and_line() {
        for (character, width, strokes) in GLYPHS {
            for [x, y] in lines_of(strokes).into_iter().flatten() {
                assert!((-0.8..=width + 0.8).contains(&x), "{character}: {x} of {width}");
                assert!((-3.6..=11.2).contains(&y), "{character}: {y}");
            }
        }
    }

    #[test]
    fn capitals_are_as_high_as_asked_for() {
        for capital_px in [7.0, 16.0, 33.0] {
            let mut font = Font::new(capital_px);
            let (_, glyph) = font.glyph('H', 0.0);
            let dark = |row: &[u8]| row.iter().any(|&coverage| coverage > 127);
            let rows = glyph
                .coverage
                .chunks(glyph.width_px)
                .filter(|row| dark(row))
                .count() as f32;
            // The strokes' ends reach half a stroke beyond, and a stroke is never thinner than 1.2 pixels.
            let stroke_px = (capital_px * STROKE_UNITS / CAPITAL_UNITS).max(1.2);
            assert!(
                (rows - capital_px - stroke_px).abs() <= 1.0,
                "{rows} rows for {capital_px}"
            );
        }
    }

    #[test]
    fn quarters_of_a_pixel_move_a_glyph_by_as_much() {
        let mut font = Font::new(20.0);
        let mut centre = |pen_px: f32| {
            let (x, glyph) = font.glyph('I', pen_px);
            let sums =
                glyph
                    .coverage
                    .iter()
                    .enumerate()
                    .fold((0.0, 0.0), |(sum, weight), (at, &coverage)| {
                        let column = (at % glyph.width_px) as f32 + 0.5 + (x + glyph.left_px) as f32;
                        (sum + column * f32::from(coverage), weight + f32::from(coverage))
                    });
            sums.0 / sums.1
        };
        let from = centre(5.0);
        for quarter in 1..5 {
            let moved = centre(5.0 + quarter as f32 / 4.0) - from;
            assert!((moved - quarter as f32 / 4.0).abs() < 0.06, "{quarter}: {moved}");
        }
    }
}
