//! A sheet: one layer ready to be laid over frames of one format, with its chroma twin and patterns.

use super::blend::{Pass, Patterns, blend};
use super::blend_color::ColorSpace;
use super::blend_layer::{ChromaRows, Layer};
use crate::geometry::Size;

/// How frames of one format and size store their pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameLayout {
    /// Pixels.
    pub size: Size,
    /// Where the components are.
    pub passes: &'static [Pass],
    /// Rows under a chroma sample, for formats that have fewer of them than pixels.
    pub chroma_rows: ChromaRows,
    /// What the components mean.
    pub space: ColorSpace,
}

/// One layer over frames of one layout.
#[derive(Debug, Default)]
pub struct Sheet {
    /// At the frame's own resolution; draw into it, then call [`Sheet::finish`].
    pub layer: Layer,
    chroma: Layer,
    patterns: Vec<Patterns>,
}

impl Sheet {
    /// Makes everything that [`Sheet::draw`] needs out of `layer`.
    pub fn finish(&mut self, layout: &FrameLayout) {
        if layout.passes.iter().any(|pass| pass.chroma) {
            self.chroma.subsample(&self.layer, layout.chroma_rows);
        }
        self.patterns.resize_with(layout.passes.len(), Patterns::default);
        for (pass, patterns) in layout.passes.iter().zip(&mut self.patterns) {
            patterns.set(&self.layer, *pass);
        }
    }

    /// Forgets what was drawn.
    pub fn clear(&mut self) {
        self.layer.start(0, []);
        self.chroma.start(0, []);
    }

    /// Whether nothing is painted.
    pub fn is_empty(&self) -> bool {
        self.layer.is_empty()
    }

    /// Lays pass number `pass` of the layout over the bytes of its plane, `[rows, stride_bytes]`.
    pub fn draw(&self, layout: &FrameLayout, pass: usize, bytes: &mut [u8], stride_bytes: usize) {
        if let Some((&pass, patterns)) = layout.passes.get(pass).zip(self.patterns.get(pass)) {
            let layer = if pass.chroma { &self.chroma } else { &self.layer };
            blend(bytes, stride_bytes, layer, pass, patterns);
        }
    }
}
