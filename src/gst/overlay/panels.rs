//! The panels on the picture: the legend at the lower left and the status lines at the upper left.

use crate::kernels::picture::blend_sheet::{FrameLayout, Sheet};
use crate::kernels::picture::text::Font;
use crate::kernels::picture::text_canvas::{Canvas, Panel};
use crate::labels::{Class, Rgb};

/// Height of a capital, in heights of the frame.
const CAPITAL_OF_FRAME: f32 = 0.0150;
const CAPITAL_MIN_PX: f32 = 7.0;
const CAPITAL_MAX_PX: f32 = 64.0;

const PANEL_COLOR: Rgb = [12, 14, 18];
const PANEL_ALPHA: f32 = 0.62;
const TEXT_COLOR: Rgb = [240, 242, 245];
const QUIET_COLOR: Rgb = [168, 176, 186];
const WARNING_COLOR: Rgb = [255, 196, 61];
const ALARM_COLOR: Rgb = [255, 255, 255];
const ALARM_PANEL: Rgb = [176, 24, 24];

/// How a line is to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Of interest to who looks for it.
    Quiet,
    /// To be noticed.
    Warning,
    /// Not to be overlooked: on a panel of its own colour.
    Alarm,
}

/// Draws panels; keeps font and memory from one to the next.
#[derive(Debug)]
pub(crate) struct Panels {
    font: Font,
    canvas: Canvas,
    margin_px: f32,
}

impl Panels {
    pub fn new(layout: &FrameLayout) -> Self {
        let capital_px = layout.size.height_px as f32 * CAPITAL_OF_FRAME;
        let capital_px = capital_px.clamp(CAPITAL_MIN_PX, CAPITAL_MAX_PX).round();
        Self {
            font: Font::new(capital_px),
            canvas: Canvas::default(),
            margin_px: (capital_px * 1.2).round(),
        }
    }

    /// A swatch and a name for each class, at the lower left.
    pub fn legend<'a>(
        &mut self,
        classes: impl Iterator<Item = &'a Class> + Clone,
        layout: &FrameLayout,
        sheet: &mut Sheet,
    ) {
        let rows = classes.clone().count();
        if rows == 0 {
            return sheet.clear();
        }
        let capital = self.font.capital_px();
        let (pad, line, swatch) = (
            (capital * 0.9).round(),
            (capital * 2.0).round(),
            (capital * 1.15).round(),
        );
        let indent = pad + swatch + (capital * 0.75).round();
        let widest = classes
            .clone()
            .map(|class| self.font.width_px(&class.name))
            .fold(0.0, f32::max);
        let width = (indent + widest + pad).ceil();
        let height = (line * rows as f32 + pad * 2.0 - (line - swatch)).ceil();
        self.start(width, height, layout);
        self.panel(0.0, width, height, PANEL_COLOR);
        for (row, class) in classes.enumerate() {
            let y_px = pad + line * row as f32;
            let square = Panel {
                x_px: pad,
                y_px,
                width_px: swatch,
                height_px: swatch,
                radius_px: (swatch * 0.22).round(),
            };
            self.canvas.panel(square, class.color, 1.0);
            let base = (y_px + (swatch + capital) / 2.0).round() as i32;
            self.canvas
                .text(&mut self.font, indent, base, &class.name, TEXT_COLOR);
        }
        let y_px = layout
            .size
            .height_px
            .saturating_sub((height + self.margin_px) as u32);
        self.finish(y_px, layout, sheet);
    }

    /// Lines at the upper left.
    pub fn status(&mut self, lines: &[(Tone, &str)], layout: &FrameLayout, sheet: &mut Sheet) {
        let lines = || lines.iter().filter(|(_, text)| !text.is_empty());
        if lines().next().is_none() {
            return sheet.clear();
        }
        let capital = self.font.capital_px();
        let pad = (capital * 0.8).round();
        let line = capital + pad * 2.0;
        let gap = (capital * 0.35).round();
        let rows = lines().count() as f32;
        let width = |font: &Font, text: &str| (font.width_px(text) - capital * 0.25 + pad * 2.0).ceil();
        let widest = lines()
            .map(|(_, text)| width(&self.font, text))
            .fold(0.0, f32::max);
        self.start(widest, rows * line + (rows - 1.0) * gap, layout);
        for (row, (tone, text)) in lines().enumerate() {
            let y_px = row as f32 * (line + gap);
            let (panel, color) = match tone {
                Tone::Quiet => (PANEL_COLOR, QUIET_COLOR),
                Tone::Warning => (PANEL_COLOR, WARNING_COLOR),
                Tone::Alarm => (ALARM_PANEL, ALARM_COLOR),
            };
            self.panel(y_px, width(&self.font, text), line, panel);
            self.canvas.text(
                &mut self.font,
                pad,
                (y_px + pad + capital).round() as i32,
                text,
                color,
            );
        }
        self.finish(self.margin_px as u32, layout, sheet);
    }

    /// A canvas of that size, or as much of it as the frame has room for.
    fn start(&mut self, width_px: f32, height_px: f32, layout: &FrameLayout) {
        let size = layout.size;
        self.canvas.start(
            (width_px as usize).min(size.width_px as usize),
            (height_px as usize).min(size.height_px as usize),
        );
    }

    fn panel(&mut self, y_px: f32, width_px: f32, height_px: f32, color: Rgb) {
        let radius_px = (self.font.capital_px() * 0.35).round();
        let alpha = if color == ALARM_PANEL { 0.85 } else { PANEL_ALPHA };
        self.canvas.panel(
            Panel {
                x_px: 0.0,
                y_px,
                width_px,
                height_px,
                radius_px,
            },
            color,
            alpha,
        );
    }

    fn finish(&mut self, y_px: u32, layout: &FrameLayout, sheet: &mut Sheet) {
        self.canvas.to_layer(
            self.margin_px as u32,
            y_px,
            layout.size,
            &layout.space,
            &mut sheet.layer,
        );
        sheet.finish(layout);
    }
}
