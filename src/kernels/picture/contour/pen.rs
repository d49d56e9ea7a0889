//! What a pixel becomes: of one class, between two, or on a contour.

use super::super::blend_layer::{Edge, Layer};
use super::field::edge_margin;
use super::pair::LANES;
use super::{ClassInk, Detail, Drawing, MAX_INKS};

/// Half the width, in frame pixels, over which an edge goes from nothing to full.
pub(super) const SMOOTH_PX: f32 = 0.5;

/// What a pixel becomes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pen<'a> {
    pub inks: &'a [ClassInk],
    detail: Detail,
    pub half_stroke_px: f32,
    /// Mask pixels per frame pixel, across and down.
    pub mask_per_frame: [f32; 2],
    /// From this margin on, a pixel is out of reach of the border and its contour.
    pub margin_inside: f32,
}

impl<'a> Pen<'a> {
    pub fn new(drawing: &Drawing<'a>, scale: [f32; 2], detail: Detail) -> Self {
        let inks = drawing
            .inks
            .get(..drawing.inks.len().min(MAX_INKS))
            .unwrap_or_default();
        // No direction has fewer frame pixels per mask pixel than the smaller scale.
        let mask_px = scale[0].min(scale[1]);
        let half_stroke_px = drawing
            .half_stroke_px
            .clamp(0.0, (mask_px - SMOOTH_PX).max(SMOOTH_PX));
        let margin_inside = edge_margin((half_stroke_px + SMOOTH_PX) / mask_px);
        let mask_per_frame = scale.map(f32::recip);
        Self {
            inks,
            detail,
            half_stroke_px,
            mask_per_frame,
            margin_inside,
        }
    }

    #[inline(always)]
    pub fn ink(&self, index: u8) -> Option<ClassInk> {
        self.inks.get(usize::from(index)).copied()
    }

    /// Coverage of solid runs.
    #[inline(always)]
    pub fn coverage(&self, ink: ClassInk) -> f32 {
        if self.detail == Detail::Outlines {
            ink.stroke
        } else {
            ink.fill
        }
    }

    #[inline(always)]
    pub fn solid(&self, start_px: u32, end_px: u32, index: u8, layer: &mut Layer) {
        if self.ink(index).is_some_and(|ink| self.coverage(ink) > 0.0) {
            layer.solid(start_px, end_px, index);
        }
    }

    /// Pixels, at most [`LANES`], where two classes meet, of these margins and distances: edges near their border, and
    /// one of them further off.
    #[inline(always)]
    pub fn pair_pixels(
        &self,
        pixels: std::ops::Range<u32>,
        classes: (u8, u8),
        (margins, distances, edges): (&[f32; LANES], &[f32; LANES], &[Edge; LANES]),
        layer: &mut Layer,
    ) {
        let reach_px = self.half_stroke_px + SMOOTH_PX;
        let mut kinds = [0_u8; LANES];
        for lane in 0..LANES {
            let is_near = (distances[lane].abs() < reach_px) & (margins[lane].abs() < self.margin_inside);
            kinds[lane] = 2 * u8::from(is_near) + u8::from(margins[lane] < 0.0);
        }
        let (mut lane, count) = (0, pixels.len().min(LANES));
        while lane < count {
            let is_near = kinds[lane] >= 2;
            let is_alike = |kind: u8| kind == kinds[lane] || (is_near && kind >= 2);
            let more = kinds[lane..count].iter().take_while(|&&kind| is_alike(kind));
            let end = lane + more.count();
            let at_px = |lane: usize| pixels.start + lane as u32;
            match kinds[lane] {
                0 => self.solid(at_px(lane), at_px(end), classes.0, layer),
                1 => self.solid(at_px(lane), at_px(end), classes.1, layer),
                _ => {
                    for (x_px, &edge) in (at_px(lane)..).zip(&edges[lane..end]) {
                        layer.edge(x_px, edge);
                    }
                }
            }
            lane = end;
        }
    }

    /// A pixel of class `winner`, at this distance from where `other` begins.
    #[inline(always)]
    pub fn border(&self, x_px: u32, winner: u8, other: u8, distance_px: f32, layer: &mut Layer) {
        let share = (distance_px + SMOOTH_PX).min(1.0);
        let stroke = if self.half_stroke_px > 0.0 {
            (self.half_stroke_px - distance_px + SMOOTH_PX).clamp(0.0, 1.0)
        } else {
            0.0
        };
        if share == 1.0 && stroke == 0.0 {
            return self.solid(x_px, x_px + 1, winner, layer);
        }
        let (winner, other) = (self.ink(winner), self.ink(other));
        let mut pixel = Premultiplied::default();
        pixel.add(winner, share, |ink| ink.fill);
        pixel.add(other, 1.0 - share, |ink| ink.fill);
        if stroke > 0.0 {
            let mut line = Premultiplied::default();
            // Next to what is not drawn, the contour lies on both sides.
            line.add(winner.or(other), share * stroke, |ink| ink.stroke);
            line.add(other.or(winner), (1.0 - share) * stroke, |ink| ink.stroke);
            pixel = line.over(pixel);
        }
        layer.edge(x_px, Edge::new(pixel.alpha, pixel.color));
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Premultiplied {
    alpha: f32,
    color: [f32; 3],
}

impl Premultiplied {
    #[inline(always)]
    fn add(&mut self, ink: Option<ClassInk>, share: f32, coverage: impl Fn(ClassInk) -> f32) {
        if let Some(ink) = ink {
            let alpha = coverage(ink) * share;
            self.alpha += alpha;
            for (sum, color) in self.color.iter_mut().zip(ink.color) {
                *sum += alpha * color;
            }
        }
    }

    #[inline(always)]
    fn over(mut self, below: Self) -> Self {
        let keep = 1.0 - self.alpha;
        self.alpha += keep * below.alpha;
        for (color, below) in self.color.iter_mut().zip(below.color) {
            *color += keep * below;
        }
        self
    }
}
