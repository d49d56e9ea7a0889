//! From a coarse plane of class ids to a [`Layer`] over the frame, with smooth edges.
//!
//! A mask has a few hundred pixels a side, the frame a few thousand: enlarged as it is, every edge would be a stair.
//! So each class is taken as a field, 1 where the mask has it and 0 elsewhere, and smoothed by the quadratic
//! B-spline, whose support is 3 x 3 mask pixels. At a frame pixel with mask coordinates `(u, v)`
//! ```text
//! f_k(u, v) = sum over the 3 x 3 mask pixels (i, j) around it of  B(u - i) B(v - j) [mask(i, j) = k]
//! ```
//! the class with the largest field wins, and where it meets the runner-up `m = f_1 - f_2` is 0. At distance `t` from
//! a straight edge `m = t (2 - t)`, so `m` says how far the edge is ([`edge_distance`]); the field's gradient turns that
//! into frame pixels. With `d` the signed distance, the winner covers `clamp(d + 1/2, 0, 1)` of the pixel, and a
//! contour of half-width `h` covers `clamp(h - |d| + 1/2, 0, 1)`.
//!
//! A mask finer than its region is first thinned to the frame's pixels.
//!
//! Where the 3 x 3 mask pixels are equal, which is nearly everywhere, nothing of this is computed: such pixels are
//! solid runs. A mask that is noise would have no such place; beyond [`Limits`] it is enlarged without
//! smoothing, so that the time stays bounded.

mod field;
mod mask;
mod pair;
mod pen;

use super::blend_layer::{Ink, Layer};
use crate::geometry::{Rect, Size};
use crate::kernels::simd::{Body, dispatch};
use field::{Cell, Fields, Meeting, Subsets};
use mask::{Axis, Inked, MIXED};
use pair::{LANES, Pair, PairInks};
use pen::Pen;

pub use field::{edge_distance, edge_margin};

/// In a table of inks by class id: this class is not drawn.
pub const NOT_DRAWN: u8 = u8::MAX;

/// Most classes that can be drawn at once.
pub const MAX_INKS: usize = MIXED as usize;

/// A plane of class ids and where it lies in the frame.
#[derive(Debug, Clone, Copy)]
pub struct MaskPlane<'a> {
    /// `[mask.height_px, mask.width_px]`, tight.
    pub ids: &'a [u8],
    /// Size of the plane.
    pub mask: Size,
    /// What it covers.
    pub region: Rect,
    /// The frame.
    pub frame: Size,
}

/// How one class is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassInk {
    /// Components in the frame's own colour space, 0..=255.
    pub color: [f32; 3],
    /// Coverage of its area, 0..=1.
    pub fill: f32,
    /// Coverage of its contour, 0..=1.
    pub stroke: f32,
}

/// What to draw.
#[derive(Debug, Clone, Copy)]
pub struct Drawing<'a> {
    /// For each id of the mask the index of its ink, or [`NOT_DRAWN`].
    pub ink_of_id: &'a [u8; 256],
    /// The inks, at most [`MAX_INKS`]; classes with a higher index are not drawn.
    pub inks: &'a [ClassInk],
    /// Half the contour's width in frame pixels, cut where the contour would reach further than one mask pixel, which
    /// is as far as an edge is seen; 0 draws none.
    pub half_stroke_px: f32,
}

/// Bounds on the work: smoothing is given up where more of the frame than both of these lies between classes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Share of the region, 0..=1.
    pub smooth_share: f32,
    /// Frame pixels, so that small frames and coarse masks are always smooth.
    pub smooth_px: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // A quarter of a frame of 1920 x 1080.
        Self {
            smooth_share: 0.25,
            smooth_px: 520_000,
        }
    }
}

impl Limits {
    fn allow(self, mixed_share: f32, region: Rect) -> bool {
        mixed_share <= self.smooth_share || mixed_share * region.size().area() as f32 <= self.smooth_px as f32
    }
}

/// Makes layers out of masks; keeps its memory from one to the next.
#[derive(Debug, Default)]
pub struct Tracer {
    inked: Inked,
    columns: Axis,
    rows: Axis,
    spans: Vec<Span>,
    cells: Vec<Cell>,
}

/// [`Tracer::trace`], once mask and frame fit.
struct Trace<'a> {
    tracer: &'a mut Tracer,
    mask: &'a MaskPlane<'a>,
    drawing: &'a Drawing<'a>,
    limits: Limits,
    layer: &'a mut Layer,
}

impl Body for Trace<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Tracer {
            inked, columns, rows, ..
        } = &mut *self.tracer;
        let mixed_share = inked.set(self.mask, self.drawing.ink_of_id, columns, rows);
        let detail = if self.limits.allow(mixed_share, self.mask.region) {
            Detail::Smooth
        } else if self.drawing.inks.iter().any(|ink| ink.fill > 0.0) {
            Detail::Areas
        } else {
            Detail::Outlines
        };
        self.tracer.draw(self.mask, self.drawing, detail, self.layer);
    }
}

/// How a mask is enlarged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// With smooth edges and contours.
    Smooth,
    /// Each frame pixel takes its nearest mask pixel.
    Areas,
    /// As `Areas`, and only mask pixels with another class next to them: contours where no area is wanted.
    Outlines,
}

/// Mask pixels `start..end` of a row with the same code.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    code: u8,
}

impl Tracer {
    /// Draws `mask` into `layer`, which afterwards has a row for each row of the frame.
    ///
    /// A mask whose plane does not fit its size, or whose region does not lie in the frame, draws nothing.
    pub fn trace(&mut self, mask: &MaskPlane<'_>, drawing: &Drawing<'_>, limits: Limits, layer: &mut Layer) {
        layer.start(mask.frame.width_px, []);
        let region = mask.region;
        if mask.mask.area() == 0 || mask.ids.len() != mask.mask.area() || !region.fits(mask.frame) {
            return;
        }
        self.columns.set(region.x_px, region.width_px, mask.mask.width_px);
        self.rows.set(region.y_px, region.height_px, mask.mask.height_px);
        dispatch(Trace {
            tracer: self,
            mask,
            drawing,
            limits,
            layer,
        });
    }

    #[inline(always)]
    fn draw(&mut self, mask: &MaskPlane<'_>, drawing: &Drawing<'_>, detail: Detail, layer: &mut Layer) {
        let pen = Pen::new(drawing, [self.columns.scale, self.rows.scale], detail);
        layer.start(
            mask.frame.width_px,
            pen.inks.iter().map(|&ink| Ink {
                alpha: pen.coverage(ink),
                color: ink.color,
            }),
        );
        if detail == Detail::Outlines {
            self.inked.keep_outlines();
        }
        for _ in 0..mask.region.y_px {
            layer.end_row();
        }
        for row in 0..self.inked.height() {
            let pixels = self.rows.pixels(row);
            if pixels.is_empty() {
                continue;
            }
            self.divide(row, detail);
            let mixed = self.spans.iter().any(|span| span.code == MIXED);
            let first_px = pixels.start;
            for y_px in pixels {
                if y_px > first_px && !mixed {
                    layer.repeat_row();
                    continue;
                }
                self.draw_row(self.rows.place(y_px), &pen, layer);
                layer.end_row();
            }
        }
        for _ in mask.region.bottom_px()..mask.frame.height_px {
            layer.end_row();
        }
    }

    /// Sets `spans` to the mask's row in runs of one code, and `cells` to what is around each of its mixed pixels.
    fn divide(&mut self, row: usize, detail: Detail) {
        self.spans.clear();
        self.cells.clear();
        let codes = match detail {
            Detail::Smooth | Detail::Outlines => self.inked.codes(row),
            Detail::Areas => self.inked.inks(row),
        };
        let mut start = 0;
        while let Some(&code) = codes.get(start) {
            let end = start + same_from(codes.get(start..).unwrap_or_default(), code);
            if code == MIXED {
                self.cells
                    .extend((start..end).map(|column| self.inked.cell(column, row)));
            }
            if code != NOT_DRAWN {
                self.spans.push(Span { start, end, code });
            }
            start = end;
        }
    }

    /// Draws one row of the frame, at `place` (0..1) in the mask's row that was divided last.
    #[inline(always)]
    fn draw_row(&self, place: f32, pen: &Pen<'_>, layer: &mut Layer) {
        let subsets = Subsets::new(place);
        let mut cells = self.cells.iter();
        let mut known = None;
        for span in &self.spans {
            if span.code != MIXED {
                let (start, end) = (
                    self.columns.pixels(span.start).start,
                    self.columns.pixels(span.end - 1).end,
                );
                pen.solid(start, end, span.code, layer);
                continue;
            }
            for (column, cell) in (span.start..span.end).zip(&mut cells) {
                let pixels = self.columns.pixels(column);
                if pixels.is_empty() {
                    continue;
                }
                if let Some(pair) = Pair::new(cell, &subsets) {
                    let inks = match &known {
                        Some((classes, inks)) if *classes == pair.classes => inks,
                        _ => &known.insert((pair.classes, PairInks::new(pen, pair.classes))).1,
                    };
                    self.draw_pair(pixels, &pair, inks, pen, layer);
                    continue;
                }
                let fields = Fields::new(cell, &subsets);
                for x_px in pixels {
                    match fields.meeting(self.columns.place(x_px), pen.mask_per_frame, pen.margin_inside) {
                        Meeting::Inside(ink) => pen.solid(x_px, x_px + 1, ink, layer),
                        Meeting::Border {
                            winner,
                            other,
                            distance_px,
                        } => {
                            pen.border(x_px, winner, other, distance_px, layer);
                        }
                    }
                }
            }
        }
    }

    /// Draws the pixels of a row that lie in one mask pixel, in which two classes meet.
    #[inline(always)]
    fn draw_pair(
        &self,
        pixels: std::ops::Range<u32>,
        pair: &Pair<'_>,
        inks: &PairInks,
        pen: &Pen<'_>,
        layer: &mut Layer,
    ) {
        for start_px in pixels.clone().step_by(LANES) {
            let count = ((pixels.end - start_px) as usize).min(LANES);
            let places = self.columns.places(start_px);
            let margin = pair.margin_between([places[0], places[count - 1]], pen.margin_inside);
            if margin.abs() >= pen.margin_inside {
                let class = if margin > 0.0 {
                    pair.classes.0
                } else {
                    pair.classes.1
                };
                pen.solid(start_px, start_px + count as u32, class, layer);
                continue;
            }
            let margins = pair.margins(places);
            let distances = pair.distances(places, &margins, pen.mask_per_frame);
            let edges = inks.edges(&distances, pen.half_stroke_px);
            let lanes = (&margins, &distances, &edges);
            pen.pair_pixels(start_px..start_px + count as u32, pair.classes, lanes, layer);
        }
    }
}

/// How many elements from the first on equal `code`.
fn same_from(codes: &[u8], code: u8) -> usize {
    const WORD: usize = size_of::<u64>();
    let wanted = u64::from_ne_bytes([code; WORD]);
    let words = codes.chunks_exact(WORD);
    let is_wanted = |word: &[u8]| {
        word.try_into()
            .is_ok_and(|word| u64::from_ne_bytes(word) == wanted)
    };
    let skipped = words.take_while(|word| is_wanted(word)).count() * WORD;
    skipped
        + codes
            .iter()
            .skip(skipped)
            .take_while(|&&other| other == code)
            .count()
}

#[cfg(test)]
mod tests {
    use super::super::blend_layer::Paint;
    use super::*;

    const INKS: [ClassInk; 3] = [ClassInk {
        color: [90.0; 3],
        fill: 0.5,
        stroke: 1.0,
    }; 3];

    fn table() -> [u8; 256] {
        let mut table = [NOT_DRAWN; 256];
        table[1..4].copy_from_slice(&[0, 1, 2]);
        table
    }

    fn trace(mask: &MaskPlane<'_>, half_stroke_px: f32, limits: Limits) -> Layer {
        let table = table();
        let mut layer = Layer::default();
        let drawing = Drawing {
            ink_of_id: &table,
            inks: &INKS,
            half_stroke_px,
        };
        Tracer::default().trace(mask, &drawing, limits, &mut layer);
        layer
    }

    #[test]
    fn beyond_the_limits_every_pixel_is_its_nearest_mask_pixel() {
        let mut seed = 7_u32;
        let ids: Vec<u8> = (0..31 * 17)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 28) as u8 % 5
            })
            .collect();
        let frame = Size {
            width_px: 150,
            height_px: 90,
        };
        let region = Rect {
            x_px: 7,
            y_px: 3,
            width_px: 139,
            height_px: 80,
        };
        let mask = MaskPlane {
            ids: &ids,
            mask: Size {
                width_px: 31,
                height_px: 17,
            },
            region,
            frame,
        };
        let layer = trace(
            &mask,
            1.0,
            Limits {
                smooth_share: 0.25,
                smooth_px: 0,
            },
        );
        assert_eq!(layer.rows(), 90);
        for y in 0..90_u32 {
            let mut drawn = vec![NOT_DRAWN; 150];
            for run in layer.row(y as usize) {
                let Paint::Solid(ink) = run.paint else {
                    panic!("row {y} has edges")
                };
                drawn[run.start_px as usize..run.end_px as usize].fill(ink);
            }
            for (x, &drawn) in (0_u32..).zip(&drawn) {
                let inside =
                    region.x_px <= x && x < region.right_px() && region.y_px <= y && y < region.bottom_px();
                let wanted = if inside {
                    let column = (2 * (x - region.x_px) + 1) * 31 / (2 * region.width_px);
                    let row = (2 * (y - region.y_px) + 1) * 17 / (2 * region.height_px);
                    table()[usize::from(ids[(row * 31 + column) as usize])]
                } else {
                    NOT_DRAWN
                };
                assert_eq!(drawn, wanted, "{x},{y}");
            }
        }
    }

    #[test]
    fn beyond_the_limits_contours_are_the_mask_pixels_along_them() {
        let frame = Size {
            width_px: 12,
            height_px: 4,
        };
        let ids = [1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2];
        let mask = MaskPlane {
            ids: &ids,
            mask: Size {
                width_px: 6,
                height_px: 2,
            },
            region: frame.rect(),
            frame,
        };
        let inks = INKS.map(|ink| ClassInk { fill: 0.0, ..ink });
        let drawing = Drawing {
            ink_of_id: &table(),
            inks: &inks,
            half_stroke_px: 1.0,
        };
        let mut layer = Layer::default();
        Tracer::default().trace(
            &mask,
            &drawing,
            Limits {
                smooth_share: 0.1,
                smooth_px: 0,
            },
            &mut layer,
        );
        for row in 0..4 {
            let runs = layer
                .row(row)
                .iter()
                .map(|run| (run.start_px, run.end_px, run.paint));
            assert!(
                runs.eq([(4, 6, Paint::Solid(0)), (6, 8, Paint::Solid(1))]),
                "{:?}",
                layer.row(row)
            );
        }
        assert_eq!(layer.inks()[0].alpha, 1.0);
    }

    #[test]
    fn planes_that_do_not_fit_draw_nothing() {
        let frame = Size {
            width_px: 8,
            height_px: 8,
        };
        let good = MaskPlane {
            ids: &[1; 4],
            mask: Size::square(2),
            region: frame.rect(),
            frame,
        };
        assert!(!trace(&good, 0.0, Limits::default()).is_empty());
        for bad in [
            MaskPlane { ids: &[1; 5], ..good },
            MaskPlane {
                ids: &[],
                mask: Size::square(0),
                ..good
            },
            MaskPlane {
                region: Rect {
                    x_px: 1,
                    ..frame.rect()
                },
                ..good
            },
            MaskPlane {
                region: Rect {
                    width_px: 0,
                    ..frame.rect()
                },
                ..good
            },
        ] {
            assert!(trace(&bad, 0.0, Limits::default()).is_empty(), "{bad:?}");
        }
    }

    #[test]
    fn runs_of_equal_codes_are_measured_whole() {
        for length in 0..40 {
            for tail in 0..20 {
                let codes: Vec<u8> = [vec![3; length], vec![4; tail]].concat();
                assert_eq!(same_from(&codes, 3), length, "{length} and {tail}");
            }
        }
    }
}
