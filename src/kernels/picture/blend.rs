//! Laying a [`Layer`] over the bytes of a frame, in the frame's own format.
//!
//! A layer's pixel has a coverage `a` in 0..=1 and a colour; a component `v` of the frame, 0..=255, becomes
//! ```text
//! v' = v (1 - a) + a colour
//! ```
//! rounded to the nearest. In a solid run `a` has 8 fractional bits, so all fits 16-bit lanes; in an edge pixel 15.
//! Either way the result is within one grey level of exact arithmetic.
//!
//! Every format is a list of [`Pass`]es: bytes of one plane at one resolution and the component behind each of them.
//! Bytes that belong to another pass (the chroma between the luma of YUY2, an alpha channel) keep their values.
//!
//! ```
//! use masam::kernels::picture::blend::{Pass, Patterns, blend};
//! use masam::kernels::picture::blend_layer::{Ink, Layer};
//! let mut layer = Layer::default();
//! layer.start(4, vec![Ink { alpha: 0.5, color: [100.0, 0.0, 0.0] }]);
//! layer.solid(1, 3, 0);
//! layer.end_row();
//! let gray = Pass::GRAY[0];
//! let mut row = [0, 0, 200, 200];
//! blend(&mut row, 4, &layer, gray, &Patterns::new(&layer, gray));
//! assert_eq!(row, [0, 50, 150, 200]);
//! ```

pub mod key;
#[cfg(target_arch = "x86_64")]
mod wide;

use super::blend_layer::{Edge, Layer, Paint};
use crate::kernels::simd::{Body, dispatch};

/// Bytes in a pattern: a multiple of every step (1 to 4) and of the widest vectors.
const PATTERN_BYTES: usize = 192;

/// Full coverage of a solid run.
const SOLID_ONE: f32 = 256.0;

/// Bits of an edge pixel's coverage.
const EDGE_BITS: u32 = 15;

/// Full coverage of an edge pixel.
pub const EDGE_ONE: f32 = (1 << EDGE_BITS) as f32;

/// One component of one pixel: the byte of the pixel it is in, and which component (0 to 2) it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tap {
    /// Offset from the pixel's first byte.
    pub offset: usize,
    /// Red, green, blue or luma, U, V; gray is 0.
    pub component: usize,
}

/// Bytes of one plane that are blended with one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Plane of the frame.
    pub plane: usize,
    /// Bytes from one sample to the next in a row, at most 4.
    pub step_bytes: usize,
    /// Whether samples lie at chroma resolution.
    pub chroma: bool,
    /// The components in a sample.
    pub taps: &'static [Tap],
}

const fn tap(offset: usize, component: usize) -> Tap {
    Tap { offset, component }
}

const fn full(step_bytes: usize, taps: &'static [Tap]) -> Pass {
    Pass {
        plane: 0,
        step_bytes,
        chroma: false,
        taps,
    }
}

const fn chroma(plane: usize, step_bytes: usize, taps: &'static [Tap]) -> Pass {
    Pass {
        plane,
        step_bytes,
        chroma: true,
        taps,
    }
}

impl Pass {
    /// GRAY8.
    pub const GRAY: &'static [Pass] = &[full(1, &[tap(0, 0)])];
    /// RGB.
    pub const RGB: &'static [Pass] = &[full(3, &[tap(0, 0), tap(1, 1), tap(2, 2)])];
    /// BGR.
    pub const BGR: &'static [Pass] = &[full(3, &[tap(2, 0), tap(1, 1), tap(0, 2)])];
    /// RGBA, RGBx: the fourth byte stays.
    pub const RGBX: &'static [Pass] = &[full(4, &[tap(0, 0), tap(1, 1), tap(2, 2)])];
    /// BGRA, BGRx.
    pub const BGRX: &'static [Pass] = &[full(4, &[tap(2, 0), tap(1, 1), tap(0, 2)])];
    /// I420.
    pub const I420: &'static [Pass] = &[
        full(1, &[tap(0, 0)]),
        chroma(1, 1, &[tap(0, 1)]),
        chroma(2, 1, &[tap(0, 2)]),
    ];
    /// NV12.
    pub const NV12: &'static [Pass] = &[full(1, &[tap(0, 0)]), chroma(1, 2, &[tap(0, 1), tap(1, 2)])];
    /// YUY2.
    pub const YUY2: &'static [Pass] = &[full(2, &[tap(0, 0)]), chroma(0, 4, &[tap(1, 1), tap(3, 2)])];
    /// UYVY.
    pub const UYVY: &'static [Pass] = &[full(2, &[tap(1, 0)]), chroma(0, 4, &[tap(0, 1), tap(2, 2)])];
}

/// What a solid run of one ink does to a run of bytes: `byte' = (byte * keep + add) >> 8`.
#[derive(Debug, Clone)]
struct Pattern {
    keep: [u16; PATTERN_BYTES],
    add: [u16; PATTERN_BYTES],
}

/// What solid runs of each ink of a layer do to bytes, for one pass.
#[derive(Debug, Clone, Default)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// For the inks of `layer`.
    pub fn new(layer: &Layer, pass: Pass) -> Self {
        let mut patterns = Self::default();
        patterns.set(layer, pass);
        patterns
    }

    /// As [`Patterns::new`], in the memory of these.
    pub fn set(&mut self, layer: &Layer, pass: Pass) {
        self.0.clear();
        self.0.extend(layer.inks().iter().map(|ink| {
            // Bytes of no tap: times one.
            let mut pattern = Pattern {
                keep: [SOLID_ONE as u16; PATTERN_BYTES],
                add: [0; PATTERN_BYTES],
            };
            let alpha = (ink.alpha.clamp(0.0, 1.0) * SOLID_ONE).round();
            for tap in pass.taps {
                let color = ink.color[tap.component].clamp(0.0, 255.0);
                for at in (tap.offset..PATTERN_BYTES).step_by(pass.step_bytes) {
                    pattern.keep[at] = (SOLID_ONE - alpha) as u16;
                    // Half a level rounds to the nearest; 255 * 256 + 128 still fits.
                    pattern.add[at] = (alpha * color).round() as u16 + 128;
                }
            }
            pattern
        }));
    }
}

/// Blends `layer` into the bytes of one plane, `[rows, stride_bytes]`. Runs that reach beyond `bytes` are cut there,
/// and bytes under no run are not written.
///
/// `patterns` are those of this layer and pass.
pub fn blend(bytes: &mut [u8], stride_bytes: usize, layer: &Layer, pass: Pass, patterns: &Patterns) {
    let blend = Blend {
        bytes,
        stride_bytes,
        layer,
        pass,
        patterns,
    };
    #[cfg(target_arch = "x86_64")]
    if wide::is_here() {
        // SAFETY: the machine has what it takes.
        return unsafe { wide::blend(blend) };
    }
    dispatch(blend);
}

/// The arguments of [`blend`].
struct Blend<'a> {
    bytes: &'a mut [u8],
    stride_bytes: usize,
    layer: &'a Layer,
    pass: Pass,
    patterns: &'a Patterns,
}

impl Body for Blend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let lines = self.bytes.chunks_mut(self.stride_bytes.max(1));
        for (row, line) in lines.take(self.layer.rows()).enumerate() {
            for run in self.layer.row(row) {
                let start = run.start_px as usize * self.pass.step_bytes;
                let end = (run.end_px as usize * self.pass.step_bytes).min(line.len());
                let Some(target) = line.get_mut(start..end) else {
                    break;
                };
                match run.paint {
                    Paint::Solid(ink) => {
                        if let Some(pattern) = self.patterns.0.get(usize::from(ink)) {
                            blend_solid(target, pattern);
                        }
                    }
                    Paint::Edges(first) => {
                        blend_edges(target, self.layer.edges_from(first), self.pass);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn blend_solid(target: &mut [u8], pattern: &Pattern) {
    let mix =
        |byte: u8, keep: u16, add: u16| (u16::from(byte).wrapping_mul(keep).wrapping_add(add) >> 8) as u8;
    let mut chunks = target.chunks_exact_mut(PATTERN_BYTES);
    for chunk in &mut chunks {
        for ((byte, &keep), &add) in chunk.iter_mut().zip(&pattern.keep).zip(&pattern.add) {
            *byte = mix(*byte, keep, add);
        }
    }
    for ((byte, &keep), &add) in chunks
        .into_remainder()
        .iter_mut()
        .zip(&pattern.keep)
        .zip(&pattern.add)
    {
        *byte = mix(*byte, keep, add);
    }
}

#[inline(always)]
fn blend_edges(target: &mut [u8], edges: &[Edge], pass: Pass) {
    // Most runs are of a few pixels: with the length of a pixel known there is no division to cut them.
    match (pass.step_bytes, pass.taps) {
        (1, &[a]) => blend_pixels::<1, 1>(target, edges, [a]),
        (2, &[a]) => blend_pixels::<2, 1>(target, edges, [a]),
        (2, &[a, b]) => blend_pixels::<2, 2>(target, edges, [a, b]),
        (4, &[a, b]) => blend_pixels::<4, 2>(target, edges, [a, b]),
        (3, &[a, b, c]) => blend_pixels::<3, 3>(target, edges, [a, b, c]),
        (4, &[a, b, c]) => blend_pixels::<4, 3>(target, edges, [a, b, c]),
        (step_bytes, taps) => {
            for (pixel, edge) in target.chunks_mut(step_bytes).zip(edges) {
                blend_pixel(pixel, *edge, taps);
            }
        }
    }
}

#[inline(always)]
fn blend_pixels<const STEP: usize, const TAPS: usize>(target: &mut [u8], edges: &[Edge], taps: [Tap; TAPS]) {
    let (pixels, rest) = target.as_chunks_mut::<STEP>();
    for (pixel, edge) in pixels.iter_mut().zip(edges) {
        blend_pixel(pixel, *edge, &taps);
    }
    // A row may end within a sample of chroma.
    if !rest.is_empty()
        && let Some(edge) = edges.get(pixels.len())
    {
        blend_pixel(rest, *edge, &taps);
    }
}

/// Components beyond the pixel's bytes are left out.
#[inline(always)]
fn blend_pixel(pixel: &mut [u8], edge: Edge, taps: &[Tap]) {
    for tap in taps {
        if let Some(byte) = pixel.get_mut(tap.offset) {
            *byte = edge.over(*byte, tap.component);
        }
    }
}

impl Edge {
    /// Component `component` of the frame with this pixel over it.
    #[inline(always)]
    fn over(self, byte: u8, component: usize) -> u8 {
        let keep = (1 << EDGE_BITS) - u32::from(self.alpha);
        // The colour has 8 fractional bits, the product 15.
        let sum = u32::from(byte) * keep
            + (u32::from(self.color[component]) << (EDGE_BITS - 8))
            + (1 << (EDGE_BITS - 1));
        (sum >> EDGE_BITS).min(255) as u8
    }
}
