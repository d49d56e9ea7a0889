//! Mask pixels at which two classes meet, which is nearly all that are not inside one: eight frame pixels at once.
//!
//! Over one mask pixel, in one row of the frame, the first class's field and its slope down are quadratic in the place
//! across, and the second class's are what they leave of 1 and of 0:
//! ```text
//! f(t) = c0 + c1 t + c2 t^2        margin m = 2 f - 1        slope across c1 + 2 c2 t        slope down: as f
//! ```
//! What a pixel becomes is then a mean of two colours by its signed distance from the border, and a contour over it.

use super::super::blend::EDGE_ONE;
use super::super::blend_layer::{EDGE_COLOR_ONE, Edge};
use super::field::{Cell, Direction, Subsets};
use super::pen::{Pen, SMOOTH_PX};

/// Frame pixels at once.
pub(super) const LANES: usize = 8;

/// Colour and coverage, colour times coverage: components first.
type Rgba = [f32; 4];

/// The two fields over one mask pixel, for one row of the frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    /// The class at the upper left, and the other.
    pub classes: (u8, u8),
    value: [f32; 3],
    /// Rows of each column that are of the first class.
    subset: [usize; 3],
    rows: &'a Subsets,
}

/// The coefficients of the sum of the three pieces of the B-spline, weighted so.
#[inline(always)]
fn quadratic([left, middle, right]: [f32; 3]) -> [f32; 3] {
    [
        0.5 * (left + middle),
        middle - left,
        0.5 * (left + right) - middle,
    ]
}

impl<'a> Pair<'a> {
    /// `None` where one class is alone or three meet.
    #[inline(always)]
    pub fn new(cell: &Cell, rows: &'a Subsets) -> Option<Self> {
        let (classes, places) = cell.two()?;
        let subset = [places & 7, places >> 3 & 7, places >> 6 & 7];
        let [left, middle, right] = subset;
        let value = quadratic([rows.value[left], rows.value[middle], rows.value[right]]);
        Some(Self {
            classes,
            value,
            subset,
            rows,
        })
    }

    /// The margin everywhere between two places where its size is `least` or more, or a smaller one.
    #[inline(always)]
    pub fn margin_between(&self, [start, end]: [f32; 2], least: f32) -> f32 {
        let [a, b, c] = self.value;
        let at = |t: f32| 2.0 * (a + t * (b + t * c)) - 1.0;
        let (first, last) = (at(start), at(end));
        let turns = (b + 2.0 * c * start) * (b + 2.0 * c * end) < 0.0;
        match turns || (first >= least) != (last >= least) || (first <= -least) != (last <= -least) {
            true => 0.0,
            false => first,
        }
    }

    /// How much the first class's field is above the second's at each place.
    #[inline(always)]
    pub fn margins(&self, places: &[f32; LANES]) -> [f32; LANES] {
        let [a, b, c] = self.value;
        let mut margins = [0.0; LANES];
        for lane in 0..LANES {
            let t = places[lane];
            margins[lane] = 2.0 * (a + t * (b + t * c)) - 1.0;
        }
        margins
    }

    /// Frame pixels from each place to the border: positive on the first class's side.
    #[inline(always)]
    pub fn distances(
        &self,
        places: &[f32; LANES],
        margins: &[f32; LANES],
        mask_per_frame: [f32; 2],
    ) -> [f32; LANES] {
        let [left, middle, right] = self.subset;
        let slope = &self.rows.slope;
        let ([_, b, c], [d, e, f]) = (self.value, quadratic([slope[left], slope[middle], slope[right]]));
        let direction = Direction::new(mask_per_frame);
        // One step after the other over all lanes: of a longer body the compiler makes no vectors, nor of calls.
        let (mut across, mut down) = ([0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            // Twice the first class's, as the second's is the opposite.
            across[lane] = 2.0 * (b + 2.0 * places[lane] * c);
            down[lane] = 2.0 * (d + places[lane] * (e + places[lane] * f));
        }
        let mut distances = [0.0; LANES];
        for lane in 0..LANES {
            let distance = direction.frame_px(margins[lane].abs(), across[lane], down[lane]);
            distances[lane] = distance.copysign(margins[lane]);
        }
        distances
    }
}

/// The colours of two classes that meet.
#[derive(Debug, Clone, Copy)]
pub(super) struct PairInks {
    /// Of the second class, and how much of the first there is besides.
    fill: [Rgba; 2],
    stroke: [Rgba; 2],
}

impl PairInks {
    #[inline(always)]
    pub fn new(pen: &Pen<'_>, (first, second): (u8, u8)) -> Self {
        let (first, second) = (pen.ink(first), pen.ink(second));
        let colored = |ink: Option<super::ClassInk>, coverage: fn(super::ClassInk) -> f32| {
            ink.map_or([0.0; 4], |ink| {
                let alpha = coverage(ink);
                let [x, y, z] = ink.color.map(|color| alpha * color);
                [x, y, z, alpha]
            })
        };
        let both = |first: Rgba, second: Rgba| [second, std::array::from_fn(|at| first[at] - second[at])];
        Self {
            fill: both(colored(first, |ink| ink.fill), colored(second, |ink| ink.fill)),
            // Next to what is not drawn, the contour lies on both sides.
            stroke: both(
                colored(first.or(second), |ink| ink.stroke),
                colored(second.or(first), |ink| ink.stroke),
            ),
        }
    }

    /// What pixels at these signed distances become.
    #[inline(always)]
    pub fn edges(&self, distances: &[f32; LANES], half_stroke_px: f32) -> [Edge; LANES] {
        let reach = if half_stroke_px > 0.0 {
            half_stroke_px + SMOOTH_PX
        } else {
            0.0
        };
        let (mut shares, mut strokes, mut kept) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            shares[lane] = (distances[lane] + SMOOTH_PX).clamp(0.0, 1.0);
        }
        for lane in 0..LANES {
            strokes[lane] = (reach - distances[lane].abs()).clamp(0.0, 1.0);
        }
        for lane in 0..LANES {
            kept[lane] = 1.0 - strokes[lane] * (self.stroke[0][3] + shares[lane] * self.stroke[1][3]);
        }
        let mut parts = [[0_u16; LANES]; 4];
        for (at, part) in parts.iter_mut().enumerate() {
            let (most, scale) = if at < 3 {
                (255.0, EDGE_COLOR_ONE)
            } else {
                (1.0, EDGE_ONE)
            };
            for lane in 0..LANES {
                let fill = self.fill[0][at] + shares[lane] * self.fill[1][at];
                let line = self.stroke[0][at] + shares[lane] * self.stroke[1][at];
                let over = strokes[lane] * line + kept[lane] * fill;
                part[lane] = rounded(over.max(0.0).min(most) * scale);
            }
        }
        let mut edges = [Edge::default(); LANES];
        for (lane, edge) in edges.iter_mut().enumerate() {
            *edge = Edge {
                alpha: parts[3][lane],
                color: [parts[0][lane], parts[1][lane], parts[2][lane]],
            };
        }
        edges
    }
}

/// To the nearest whole number; `value` is 0 to 65535 or not a number.
#[inline(always)]
#[allow(clippy::manual_clamp)] // `clamp` would keep what is not a number
fn rounded(value: f32) -> u16 {
    // Not `as`, whose check for what does not fit is made number by number.
    // SAFETY: `max` gives 0 for what is not a number, so that the value is 0 to 65535.5.
    unsafe { (value + 0.5).max(0.0).min(65535.0).to_int_unchecked::<i32>() as u16 }
}

#[cfg(test)]
mod tests {
    use super::super::super::blend_layer::{Layer, Paint};
    use super::super::field::{Fields, Meeting};
    use super::super::{ClassInk, Detail, Drawing, NOT_DRAWN};
    use super::*;

    /// Coverage and colours times coverage of pixel 0, as 0..=1 and 0..=255.
    fn pixel(layer: &Layer) -> [f32; 4] {
        let Some(run) = layer.row(0).first() else {
            return [0.0; 4];
        };
        match run.paint {
            Paint::Solid(ink) => {
                let ink = layer.inks()[usize::from(ink)];
                let [x, y, z] = ink.color.map(|color| color * ink.alpha);
                [ink.alpha, x, y, z]
            }
            Paint::Edges(first) => {
                let edge = layer.edges_from(first)[0];
                let [x, y, z] = edge.premultiplied();
                [edge.coverage(), x, y, z]
            }
        }
    }

    /// Eight at once are what one at a time are.
    #[test]
    fn lanes_equal_the_pixels_of_the_fields() {
        let inks = [
            ClassInk {
                color: [200.0, 20.0, 128.0],
                fill: 0.4,
                stroke: 0.9,
            },
            ClassInk {
                color: [16.0, 235.0, 90.0],
                fill: 0.7,
                stroke: 0.0,
            },
        ];
        let mut state = 20_261_126_u32;
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % below
        };
        let mut edges = 0;
        for case in 0..4000 {
            let classes = [[0, 1], [1, NOT_DRAWN], [NOT_DRAWN, 0]][next(3) as usize];
            let columns = [[0; 3]; 3].map(|column: [u8; 3]| column.map(|_| classes[next(2) as usize]));
            let scale = [1.0 + next(120) as f32 / 10.0, 1.0 + next(120) as f32 / 10.0];
            let drawing = Drawing {
                ink_of_id: &[NOT_DRAWN; 256],
                inks: &inks,
                half_stroke_px: [0.0, 0.4, 1.5, 20.0][next(4) as usize],
            };
            let pen = Pen::new(&drawing, scale, Detail::Smooth);
            let (cell, subsets) = (Cell::new(columns), Subsets::new(next(1000) as f32 / 1000.0));
            let Some(pair) = Pair::new(&cell, &subsets) else {
                continue;
            };
            let places: [f32; LANES] = std::array::from_fn(|_| next(1000) as f32 / 1000.0);
            let margins = pair.margins(&places);
            let distances = pair.distances(&places, &margins, pen.mask_per_frame);
            let found = PairInks::new(&pen, pair.classes).edges(&distances, pen.half_stroke_px);
            let fields = Fields::new(&cell, &subsets);
            for lane in 0..LANES {
                let layers = [Layer::default(), Layer::default()];
                let [mut one, mut eight] = layers;
                for layer in [&mut one, &mut eight] {
                    layer.start(
                        1,
                        pen.inks.iter().map(|&ink| super::super::Ink {
                            alpha: ink.fill,
                            color: ink.color,
                        }),
                    );
                }
                match fields.meeting(places[lane], pen.mask_per_frame, pen.margin_inside) {
                    Meeting::Inside(ink) => pen.solid(0, 1, ink, &mut one),
                    Meeting::Border {
                        winner,
                        other,
                        distance_px,
                    } => pen.border(0, winner, other, distance_px, &mut one),
                }
                let lanes = (
                    &[margins[lane]; LANES],
                    &[distances[lane]; LANES],
                    &[found[lane]; LANES],
                );
                pen.pair_pixels(0..1, pair.classes, lanes, &mut eight);
                one.end_row();
                eight.end_row();
                let (one, eight) = (pixel(&one), pixel(&eight));
                edges += usize::from(one[0] > 0.0);
                // Where the fields are nearly flat the direction hangs on the last bits.
                let close = one
                    .iter()
                    .zip(eight)
                    .all(|(one, eight)| (one - eight).abs() <= 0.02 * (1.0 + one.abs()));
                assert!(
                    close,
                    "case {case}: {one:?} is not {eight:?}; {columns:?} {:?} {} {}",
                    scale, places[lane], margins[lane]
                );
            }
        }
        assert!(edges > 5000, "{edges}");
    }
}
