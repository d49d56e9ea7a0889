//! The smooth fields of the classes around one mask pixel, and where two of them meet.
//!
//! See [`super`] for the formulas.

/// Values of the quadratic B-spline's three pieces at place `t` (0..1) of the middle pixel, and their slopes.
#[inline(always)]
pub(super) fn spline(t: f32) -> ([f32; 3], [f32; 3]) {
    let u = 1.0 - t;
    ([0.5 * u * u, 0.5 + t * u, 0.5 * t * t], [-u, u - t, t])
}

/// The margin `m = f_1 - f_2` at distance `t` mask pixels from a straight edge along an axis: `t (2 - t)`, and 1 from
/// one mask pixel on.
pub fn edge_margin(t: f32) -> f32 {
    let t = t.clamp(0.0, 1.0);
    t * (2.0 - t)
}

/// The distance, in mask pixels, at which [`edge_margin`] is `m` (0..=1); 1 where the edge is out of sight.
#[inline(always)]
pub fn edge_distance(m: f32) -> f32 {
    1.0 - (1.0 - m).max(0.0).sqrt()
}

/// Squared slopes below this one have no direction.
const FLAT: f32 = 1e-12;

/// From the fields' slopes to lengths in the frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Direction {
    /// Mask pixels per frame pixel, across and down, squared.
    squared: [f32; 2],
    /// Frame pixels per mask pixel where the fields are flat, as on the middle of a line: the nearer of the two.
    flat: f32,
}

impl Direction {
    #[inline(always)]
    pub fn new([across, down]: [f32; 2]) -> Self {
        Self {
            squared: [across * across, down * down],
            flat: 1.0 / across.max(down),
        }
    }

    /// Frame pixels to the border of two classes whose fields differ by `margin`, a difference with these slopes per
    /// mask pixel.
    #[inline(always)]
    pub fn frame_px(self, margin: f32, across: f32, down: f32) -> f32 {
        let (across, down) = (across * across, down * down);
        let in_frame = across * self.squared[0] + down * self.squared[1];
        let frame_per_mask = ((across + down) / in_frame).sqrt();
        let frame_per_mask = if in_frame > FLAT {
            frame_per_mask
        } else {
            self.flat
        };
        edge_distance(margin) * frame_per_mask
    }
}

/// The classes around one mask pixel and where they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    inks: [u8; 9],
    /// For each class its places: bit `3 column + row`.
    places: [u16; 9],
    count: usize,
}

impl Cell {
    /// Of the mask pixels `columns`, left to right, each from above.
    #[inline(always)]
    pub fn new(columns: [[u8; 3]; 3]) -> Self {
        let mut cell = Self {
            inks: [0; 9],
            places: [0; 9],
            count: 0,
        };
        let mut left = 0b1_1111_1111_u16;
        let [a, b, c] = columns;
        let inks = [a[0], a[1], a[2], b[0], b[1], b[2], c[0], c[1], c[2]];
        while left != 0 && cell.count < 9 {
            let ink = inks[(left.trailing_zeros() as usize).min(8)];
            let mut places = 0;
            for (bit, &other) in inks.iter().enumerate() {
                places |= u16::from(other == ink) << bit;
            }
            cell.inks[cell.count] = ink;
            cell.places[cell.count] = places;
            cell.count += 1;
            left &= !places;
        }
        cell
    }

    /// Where there are two classes: they, first the one at the upper left, and the places of that.
    #[inline(always)]
    pub fn two(&self) -> Option<((u8, u8), usize)> {
        (self.count == 2).then_some(((self.inks[0], self.inks[1]), usize::from(self.places[0])))
    }
}

/// Sums of a row's three weights over every subset of its rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subsets {
    pub value: [f32; 8],
    pub slope: [f32; 8],
}

impl Subsets {
    /// At `place` (0..1) of the middle row.
    #[inline(always)]
    pub fn new(place: f32) -> Self {
        let (weights, slopes) = spline(place);
        let sums = |of: [f32; 3]| {
            std::array::from_fn(|subset| {
                of.iter()
                    .enumerate()
                    .map(|(row, w)| if subset >> row & 1 == 1 { *w } else { 0.0 })
                    .sum()
            })
        };
        Self {
            value: sums(weights),
            slope: sums(slopes),
        }
    }
}

/// What is known of a frame pixel between classes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meeting {
    /// Far enough inside this class.
    Inside(u8),
    /// Near the border of two.
    Border {
        /// The pixel is on its side.
        winner: u8,
        /// It is on the other.
        other: u8,
        /// From the pixel's centre to where they meet.
        distance_px: f32,
    },
}

/// The fields over one mask pixel, for one row of the frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    cell: &'a Cell,
    /// For each class and column the sum over rows.
    value: [[f32; 3]; 9],
    slope: [[f32; 3]; 9],
}

impl<'a> Fields<'a> {
    #[inline(always)]
    pub fn new(cell: &'a Cell, rows: &Subsets) -> Self {
        let mut fields = Self {
            cell,
            value: [[0.0; 3]; 9],
            slope: [[0.0; 3]; 9],
        };
        for at in 0..cell.count.min(9) {
            let places = usize::from(cell.places[at]);
            let subset = [places & 7, places >> 3 & 7, places >> 6 & 7];
            fields.value[at] = subset.map(|subset| rows.value[subset]);
            fields.slope[at] = subset.map(|subset| rows.slope[subset]);
        }
        fields
    }

    /// The class of the pixel at `place` (0..1) of the middle column, and the border if the margin is below
    /// `margin_inside`. `mask_per_frame` is mask pixels per frame pixel, across and down.
    #[inline(always)]
    pub fn meeting(&self, place: f32, mask_per_frame: [f32; 2], margin_inside: f32) -> Meeting {
        let (weights, slopes) = spline(place);
        let dot = |a: [f32; 3], b: [f32; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
        let (mut a, mut b) = (0, 1);
        let (mut largest, mut second) = (dot(weights, self.value[0]), -1.0);
        for at in 1..self.cell.count.min(9) {
            let value = dot(weights, self.value[at]);
            if value > largest {
                (b, second) = (a, largest);
                (a, largest) = (at, value);
            } else if value > second {
                (b, second) = (at, value);
            }
        }
        let margin = largest - second;
        let winner = self.cell.inks[a];
        if margin >= margin_inside {
            return Meeting::Inside(winner);
        }
        let across = dot(slopes, self.value[a]) - dot(slopes, self.value[b]);
        let down = dot(weights, self.slope[a]) - dot(weights, self.slope[b]);
        Meeting::Border {
            winner,
            other: self.cell.inks[b],
            distance_px: Direction::new(mask_per_frame).frame_px(margin, across, down),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spline_sums_to_one_and_slopes_are_its_derivative() {
        for step in 0..=20 {
            let t = step as f32 / 20.0;
            let (values, slopes) = spline(t);
            assert!((values.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            assert!(slopes.iter().sum::<f32>().abs() < 1e-6);
            let (later, _) = spline(t + 1e-3);
            for ((value, slope), later) in values.iter().zip(slopes).zip(later) {
                assert!(((later - value) / 1e-3 - slope).abs() < 2e-3);
            }
        }
    }

    #[test]
    fn distance_inverts_margin() {
        for step in 0..=1000 {
            let t = step as f32 / 1000.0;
            // Towards one mask pixel the margin is flat: a rounding error there is a larger distance.
            let tolerance = if t < 0.9 { 1e-6 } else { 1e-3 };
            let back = edge_distance(edge_margin(t));
            assert!((back - t).abs() < tolerance, "{t} {back}");
        }
    }

    #[test]
    fn a_straight_edge_is_where_it_is() {
        // Columns 0 1 1, so the edge lies at the left border of the middle pixel; pixels are 4 x 2 frame pixels.
        let cell = Cell::new([[0; 3], [1; 3], [1; 3]]);
        let fields = Fields::new(&cell, &Subsets::new(0.3));
        for place in [0.125_f32, 0.375, 0.625, 0.875] {
            let Meeting::Border {
                winner,
                other,
                distance_px,
            } = fields.meeting(place, [0.25, 0.5], 2.0)
            else {
                panic!("no border at {place}");
            };
            assert_eq!((winner, other), (1, 0));
            assert!((distance_px - 4.0 * place).abs() < 1e-4, "{place}: {distance_px}");
        }
        assert!(matches!(
            fields.meeting(0.875, [0.25, 0.5], edge_margin(0.8)),
            Meeting::Inside(1)
        ));
    }
}
