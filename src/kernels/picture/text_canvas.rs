//! A small picture with coverage, for panels with text on them.
//!
//! Pixels are `[red, green, blue, coverage]`, colours times coverage; every shape is laid over what is there, with
//! smooth edges. [`Canvas::to_layer`] turns it into a layer over the frame.

use super::blend_color::ColorSpace;
use super::blend_layer::{Edge, Ink, Layer};
use super::text::Font;
use crate::geometry::Size;
use crate::labels::Rgb;

/// The picture.
#[derive(Debug, Clone, Default)]
pub struct Canvas {
    width_px: usize,
    height_px: usize,
    pixels: Vec<[f32; 4]>,
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

impl Canvas {
    /// Empties it and gives it a size, in the memory it has.
    pub fn start(&mut self, width_px: usize, height_px: usize) {
        self.width_px = width_px;
        self.height_px = height_px;
        self.pixels.clear();
        self.pixels.resize(width_px * height_px, [0.0; 4]);
    }

    /// Pixels in a row.
    pub fn width_px(&self) -> usize {
        self.width_px
    }

    /// Rows.
    pub fn height_px(&self) -> usize {
        self.height_px
    }

    fn lay(&mut self, x: i32, y: i32, color: Rgb, alpha: f32) {
        let Some((x, y)) = usize::try_from(x).ok().zip(usize::try_from(y).ok()) else {
            return;
        };
        if x >= self.width_px || alpha <= 0.0 {
            return;
        }
        if let Some(pixel) = self.pixels.get_mut(y * self.width_px + x) {
            let above = [
                f32::from(color[0]) * alpha,
                f32::from(color[1]) * alpha,
                f32::from(color[2]) * alpha,
                alpha,
            ];
            for (below, above) in pixel.iter_mut().zip(above) {
                *below = *below * (1.0 - alpha) + above;
            }
        }
    }

    /// Lays a rectangle with round corners.
    pub fn panel(&mut self, panel: Panel, color: Rgb, alpha: f32) {
        let (half_x, half_y) = (panel.width_px / 2.0, panel.height_px / 2.0);
        let radius = panel.radius_px.min(half_x).min(half_y);
        let (x_px, y_px) = (panel.x_px + half_x, panel.y_px + half_y);
        for y in (panel.y_px - 1.0).floor() as i32..(panel.y_px + panel.height_px + 1.0).ceil() as i32 {
            for x in (panel.x_px - 1.0).floor() as i32..(panel.x_px + panel.width_px + 1.0).ceil() as i32 {
                // Distance to the rectangle of the corners' centres, less the radius.
                let dx = (x as f32 + 0.5 - x_px).abs() - half_x + radius;
                let dy = (y as f32 + 0.5 - y_px).abs() - half_y + radius;
                let distance = dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0) - radius;
                self.lay(x, y, color, alpha * (0.5 - distance).clamp(0.0, 1.0));
            }
        }
    }

    /// Lays a line of text with the pen at `x_px` on the base line `y_px`.
    pub fn text(&mut self, font: &mut Font, x_px: f32, y_px: i32, text: &str, color: Rgb) {
        let mut pen_px = x_px;
        for character in text.chars() {
            let advance_px = font.advance_px(character);
            let (x, glyph) = font.glyph(character, pen_px);
            pen_px += advance_px;
            for (index, &coverage) in glyph.coverage.iter().enumerate() {
                let (column, row) = (index % glyph.width_px, index / glyph.width_px);
                let alpha = f32::from(coverage) / 255.0;
                self.lay(
                    x + glyph.left_px + column as i32,
                    y_px + glyph.top_px + row as i32,
                    color,
                    alpha,
                );
            }
        }
    }

    /// Draws it into `layer` with its corner at `(x_px, y_px)` of a frame of `size`; what does not fit is cut.
    pub fn to_layer(&self, x_px: u32, y_px: u32, size: Size, space: &ColorSpace, layer: &mut Layer) {
        // The most frequent pixel of a panel is its own colour: that of its first column's middle, next to the edge.
        let middle = self
            .pixels
            .get(self.height_px / 2 * self.width_px + self.width_px.min(2))
            .copied();
        let plain = middle.unwrap_or_default();
        let color = |pixel: [f32; 4]| space.premultiplied(pixel[3], [pixel[0], pixel[1], pixel[2]]);
        let ink = Ink {
            alpha: plain[3],
            color: color(plain).map(|c| if plain[3] > 0.0 { c / plain[3] } else { 0.0 }),
        };
        layer.start(size.width_px, [ink]);
        for y in 0..size.height_px {
            let row = (y.checked_sub(y_px)).and_then(|y| {
                let start = (y as usize).checked_mul(self.width_px)?;
                self.pixels.get(start..start + self.width_px)
            });
            for (x, &pixel) in (x_px..size.width_px).zip(row.unwrap_or_default()) {
                if pixel == plain && plain[3] > 0.0 {
                    layer.solid(x, x + 1, 0);
                } else {
                    layer.edge(x, Edge::new(pixel[3], color(pixel)));
                }
            }
            layer.end_row();
        }
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
        let middle = canvas.pixels[5 * 20 + 10];
        assert_eq!(middle, [50.0, 25.0, 0.0, 0.5]);
        // The corner is round.
        assert!(canvas.pixels[0][3] < 0.1 && canvas.pixels[10][3] == 0.5);
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
        assert!(canvas.pixels.iter().any(|pixel| pixel[3] > 0.5));
        canvas.start(0, 0);
        canvas.text(&mut font, 0.0, 0, "A", [255; 3]);
    }
}
