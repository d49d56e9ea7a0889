//! A small picture with coverage, for panels with text on them.
//!
//! Shapes are laid over what is there, with smooth edges. [`Canvas::to_layer`] turns it into a layer over the frame.
//!
//! A pixel is the number of its *tone*, a colour with coverage. A panel with text has few tones: its own, and one for
//! each coverage of a paint over another tone. All are mixed once and kept, so that the next text is set by looking up
//! numbers.

use super::blend_color::ColorSpace;
use super::blend_layer::{Edge, Ink, Layer};
use super::text::Font;
use crate::geometry::Size;
use crate::labels::Rgb;
use std::collections::HashMap;
use std::ops::Range;

/// Number of a tone.
type Tone = u16;

/// Tones that are kept for the next drawing; where there are more, all are mixed anew.
const KEPT_TONES: usize = 4096;

/// Inks a layer can have.
const MAX_INKS: usize = 1 << u8::BITS;

/// A tone that is no ink.
const NOT_PLAIN: u16 = u16::MAX;

/// Pixels that are compared at once.
const ALIKE: usize = 16;

/// The picture.
#[derive(Debug, Clone, Default)]
pub struct Canvas {
    width_px: usize,
    height_px: usize,
    pixels: Vec<Tone>,
    tones: Tones,
    /// Tones of the insides of this drawing's panels.
    plain: Vec<Tone>,
    /// For each tone the place in `plain`, or [`NOT_PLAIN`]: scratch of [`Canvas::to_layer`].
    inks: Vec<u16>,
}

/// A rectangle between pixels, in pixels from the canvas's corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Panel {
    /// Left edge.
    pub x_px: f32,
    /// Top edge.
    pub y_px: f32,
    /// Width.
    pub width_px: f32,
    /// Height.
    pub height_px: f32,
    /// Radius of its corners.
    pub radius_px: f32,
}

/// What a shape is laid with: a colour, and the bits of its coverage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Paint(Rgb, u32);

impl Paint {
    fn alpha(self) -> f32 {
        f32::from_bits(self.1)
    }
}

/// A paint in use, with the tone that it was laid over last and where what that gives is kept: most of a shape lies
/// over one tone.
#[derive(Debug)]
struct Brush {
    paint: Paint,
    known: Option<(Tone, usize)>,
}

/// All tones there have been.
#[derive(Debug, Clone)]
struct Tones {
    /// `[red, green, blue, coverage]`, colours times coverage; the first is nothing.
    colors: Vec<[f32; 4]>,
    /// Their numbers, by their bits.
    known: HashMap<[u32; 4], Tone>,
    /// As pixels of a layer in `space`.
    edges: Vec<Edge>,
    space: Option<ColorSpace>,
    /// Where in `mixed` a paint over a tone is.
    places: HashMap<(Paint, Tone), usize>,
    /// A paint over a tone, for each coverage in 255ths; 0, which no coverage but none gives, where not mixed yet.
    mixed: Vec<[Tone; 256]>,
}

impl Brush {
    fn new(color: Rgb, alpha: f32) -> Self {
        Self {
            paint: Paint(color, alpha.to_bits()),
            known: None,
        }
    }
}

impl Default for Tones {
    fn default() -> Self {
        Self {
            colors: vec![[0.0; 4]],
            known: HashMap::from([([0; 4], 0)]),
            edges: Vec::new(),
            space: None,
            places: HashMap::new(),
            mixed: Vec::new(),
        }
    }
}

impl Tones {
    /// What `brush` with `coverage` 255ths over `below` gives.
    #[inline(always)]
    fn mix(&mut self, brush: &mut Brush, below: Tone, coverage: u8) -> Tone {
        let place = match brush.known {
            Some((tone, place)) if tone == below => place,
            _ => self.place(brush, below),
        };
        match self.mixed[place][usize::from(coverage)] {
            0 => self.mix_anew(place, brush.paint, below, coverage),
            known => known,
        }
    }

    /// Place of `brush` over `below`.
    fn place(&mut self, brush: &mut Brush, below: Tone) -> usize {
        let mixed = &mut self.mixed;
        let place = *self.places.entry((brush.paint, below)).or_insert_with(|| {
            mixed.push([0; 256]);
            mixed.len() - 1
        });
        brush.known = Some((below, place));
        place
    }

    #[cold]
    fn mix_anew(&mut self, place: usize, paint: Paint, below: Tone, coverage: u8) -> Tone {
        let alpha = paint.alpha() * (f32::from(coverage) / 255.0);
        let [red, green, blue] = paint.0.map(|c| f32::from(c) * alpha);
        let mut color = self.colors[usize::from(below)];
        for (below, above) in color.iter_mut().zip([red, green, blue, alpha]) {
            *below = *below * (1.0 - alpha) + above;
        }
        let (next, colors) = (Tone::try_from(self.colors.len()), &mut self.colors);
        let tone = match (self.known.get(&color.map(f32::to_bits)), next) {
            (Some(&known), _) => known,
            (None, Ok(new)) => {
                colors.push(color);
                self.known.insert(color.map(f32::to_bits), new);
                new
            }
            // More tones than numbers: not in one drawing; it would go without.
            (None, Err(_)) => below,
        };
        self.mixed[place][usize::from(coverage)] = tone;
        tone
    }

    /// All tones as pixels in `space`.
    fn edges(&mut self, space: &ColorSpace) -> &[Edge] {
        if self.space.as_ref() != Some(space) {
            self.space = Some(*space);
            self.edges.clear();
        }
        let new = &self.colors[self.edges.len()..];
        self.edges.extend(new.iter().map(|&[red, green, blue, alpha]| {
            Edge::new(alpha, space.premultiplied(alpha, [red, green, blue]))
        }));
        &self.edges
    }
}

/// How many of the first pixels have the first one's tone.
#[inline(always)]
fn alike(row: &[Tone]) -> usize {
    let Some(&tone) = row.first() else { return 0 };
    let blocks = row.chunks_exact(ALIKE);
    let whole = blocks.take_while(|block| block.iter().all(|&other| other == tone));
    let start = whole.count() * ALIKE;
    let rest = row[start..].iter().position(|&other| other != tone);
    rest.map_or(row.len(), |rest| start + rest)
}

/// Of `range`, what lies in `0..length`.
fn within(range: Range<i64>, length: usize) -> Range<usize> {
    let cut = |at: i64| usize::try_from(at).unwrap_or(0).min(length);
    cut(range.start)..cut(range.end).max(cut(range.start))
}

impl Canvas {
    /// Empties it and gives it a size, in the memory it has.
    pub fn start(&mut self, width_px: usize, height_px: usize) {
        self.width_px = width_px;
        self.height_px = height_px;
        self.pixels.clear();
        self.pixels.resize(width_px * height_px, 0);
        self.plain.clear();
        if self.tones.colors.len() > KEPT_TONES {
            self.tones = Tones::default();
        }
    }

    /// Pixels in a row.
    pub fn width_px(&self) -> usize {
        self.width_px
    }

    /// Rows.
    pub fn height_px(&self) -> usize {
        self.height_px
    }

    /// Lays `brush` with `coverage` 255ths over some pixels of a row, which all get the same.
    fn lay(&mut self, y: usize, columns: Range<usize>, brush: &mut Brush, coverage: u8) {
        if coverage == 0 {
            return;
        }
        let mut row = &mut self.pixels[y * self.width_px..][columns];
        while let Some(&below) = row.first() {
            let (same, rest) = row.split_at_mut(alike(row));
            let tone = self.tones.mix(brush, below, coverage);
            same.fill(tone);
            if coverage == u8::MAX && self.plain.len() < MAX_INKS && !self.plain.contains(&tone) {
                self.plain.push(tone);
            }
            row = rest;
        }
    }

    /// Lays a rectangle with round corners, whose inside it covers with `alpha`.
    pub fn panel(&mut self, panel: Panel, color: Rgb, alpha: f32) {
        let mut brush = Brush::new(color, alpha);
        let (half_x, half_y) = (panel.width_px / 2.0, panel.height_px / 2.0);
        let radius = panel.radius_px.min(half_x).min(half_y);
        let (x_px, y_px) = (panel.x_px + half_x, panel.y_px + half_y);
        let around = |start: f32, length: f32, of: usize| {
            within(
                (start - 1.0).floor() as i64..(start + length + 1.0).ceil() as i64,
                of,
            )
        };
        let columns = around(panel.x_px, panel.width_px, self.width_px);
        // From a pixel's centre to the rectangle of the corners' centres, along one axis.
        let beyond =
            |pixel: usize, middle: f32, half: f32| (pixel as f32 + 0.5 - middle).abs() - half + radius;
        let coverage = |dx: f32, dy: f32| {
            let distance = dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0) - radius;
            ((0.5 - distance).clamp(0.0, 1.0) * 255.0).round() as u8
        };
        // Columns a pixel and more inside that rectangle are all alike.
        let is_deep = |x: usize| beyond(x, x_px, half_x) <= -1.0;
        let left = columns.clone().find(|&x| is_deep(x)).unwrap_or(columns.end);
        let right = (left..columns.end).find(|&x| !is_deep(x)).unwrap_or(columns.end);
        for y in around(panel.y_px, panel.height_px, self.height_px) {
            let dy = beyond(y, y_px, half_y);
            for x in (columns.start..left).chain(right..columns.end) {
                self.lay(y, x..x + 1, &mut brush, coverage(beyond(x, x_px, half_x), dy));
            }
            self.lay(y, left..right, &mut brush, coverage(-1.0, dy.max(-1.0)));
        }
    }

    /// Lays a line of text with the pen at `x_px` on the base line `y_px`.
    pub fn text(&mut self, font: &mut Font, x_px: f32, y_px: i32, text: &str, color: Rgb) {
        let mut brush = Brush::new(color, 1.0);
        let mut pen_px = x_px;
        for character in text.chars() {
            let advance_px = font.advance_px(character);
            let (x, glyph) = font.glyph(character, pen_px);
            pen_px += advance_px;
            if glyph.width_px == 0 {
                continue;
            }
            let left = i64::from(x) + i64::from(glyph.left_px);
            let columns = within(left..left + glyph.width_px as i64, self.width_px);
            let cut = (columns.start as i64 - left) as usize;
            let top = i64::from(y_px) + i64::from(glyph.top_px);
            for (row, coverage) in (top..).zip(glyph.coverage.chunks_exact(glyph.width_px)) {
                let Some(row) = usize::try_from(row).ok().filter(|&row| row < self.height_px) else {
                    continue;
                };
                let pixels = &mut self.pixels[row * self.width_px..][columns.clone()];
                let coverage = coverage.get(cut..).unwrap_or_default();
                for (pixel, &coverage) in pixels
                    .iter_mut()
                    .zip(coverage)
                    .filter(|(_, coverage)| **coverage > 0)
                {
                    *pixel = self.tones.mix(&mut brush, *pixel, coverage);
                }
            }
        }
    }

    /// Draws it into `layer` with its corner at `(x_px, y_px)` of a frame of `size`; what does not fit is cut.
    pub fn to_layer(&mut self, x_px: u32, y_px: u32, size: Size, space: &ColorSpace, layer: &mut Layer) {
        let colors = &self.tones.colors;
        let inks = self.plain.iter().map(|&tone| {
            let [red, green, blue, alpha] = colors[usize::from(tone)];
            let color = space.premultiplied(alpha, [red, green, blue]);
            Ink {
                alpha,
                color: color.map(|c| if alpha > 0.0 { c / alpha } else { 0.0 }),
            }
        });
        layer.start(size.width_px, inks);
        let edges = self.tones.edges(space);
        self.inks.clear();
        self.inks.resize(edges.len(), NOT_PLAIN);
        for (ink, &tone) in (0..).zip(&self.plain) {
            self.inks[usize::from(tone)] = ink;
        }
        let ink_of = |tone: Tone| self.inks[usize::from(tone)];
        let width = self.width_px.min(size.width_px.saturating_sub(x_px) as usize);
        let mut rows = self.pixels.chunks_exact(self.width_px.max(1));
        for y in 0..size.height_px {
            let mut row = match y >= y_px {
                true => rows.next().and_then(|row| row.get(..width)).unwrap_or_default(),
                false => &[],
            };
            let mut x = x_px;
            while let Some(&tone) = row.first() {
                let ink = ink_of(tone);
                let is_edge = |tone: Tone| tone != 0 && ink_of(tone) == NOT_PLAIN;
                let count = match is_edge(tone) {
                    true => row.iter().position(|&tone| !is_edge(tone)).unwrap_or(row.len()),
                    false => alike(row),
                };
                let (these, rest) = row.split_at(count);
                if is_edge(tone) {
                    layer.edges(x, these.iter().map(|&tone| edges[usize::from(tone)]));
                } else if tone != 0 {
                    layer.solid(x, x + count as u32, ink as u8);
                }
                x += count as u32;
                row = rest;
            }
            layer.end_row();
        }
    }

    /// `[red, green, blue, coverage]` of a pixel, colours times coverage.
    #[cfg(test)]
    fn color(&self, x: usize, y: usize) -> [f32; 4] {
        self.tones.colors[usize::from(self.pixels[y * self.width_px + x])]
    }
}

#[cfg(test)]
mod tests {
    use super::super::blend_color::Range;
    use super::*;

    #[test]
    fn shapes_cover_what_they_should_and_are_cut_at_the_frame() {
        let mut canvas = Canvas::default();
        canvas.start(20, 10);
        let panel = Panel {
            x_px: 0.0,
            y_px: 0.0,
            width_px: 20.0,
            height_px: 10.0,
            radius_px: 3.0,
        };
        canvas.panel(panel, [100, 50, 0], 0.5);
        let middle = canvas.color(10, 5);
        assert_eq!(middle, [50.0, 25.0, 0.0, 0.5]);
        // The corner is round.
        assert!(canvas.color(0, 0)[3] < 0.1 && canvas.color(10, 0)[3] == 0.5);
        let size = Size {
            width_px: 12,
            height_px: 8,
        };
        let mut layer = Layer::default();
        canvas.to_layer(4, 2, size, &ColorSpace::rgb(Range::Full), &mut layer);
        assert_eq!((layer.rows(), layer.width_px()), (8, 12));
        assert!(layer.row(0).is_empty() && layer.row(1).is_empty());
        assert!(
            layer
                .row(6)
                .iter()
                .all(|run| run.start_px >= 4 && run.end_px <= 12)
        );
        assert_eq!(layer.row(6).len(), 1);
        let ink = layer.inks()[0];
        assert!((ink.alpha - 0.5).abs() < 1e-6 && (ink.color[0] - 100.0).abs() < 1e-3);
    }

    #[test]
    fn text_beyond_the_canvas_is_cut() {
        let mut canvas = Canvas::default();
        canvas.start(9, 9);
        let mut font = Font::new(8.0);
        for (x_px, y_px) in [(-40.0, 5), (5.0, -40), (5.0, 400), (400.0, 5), (0.0, 8)] {
            canvas.text(&mut font, x_px, y_px, "AWg@", [255; 3]);
        }
        assert!((0..9).any(|x| (0..9).any(|y| canvas.color(x, y)[3] > 0.5)));
        canvas.start(0, 0);
        canvas.text(&mut font, 0.0, 0, "A", [255; 3]);
    }
}
