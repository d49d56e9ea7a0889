//! The picture the overlay should draw, computed pixel by pixel in double precision from its definition.

use super::Frame;
use gstreamer_video::VideoFormat;
use masam::geometry::{Rect, Size};
use masam::labels::{ClassSet, NO_MASK};

/// Two fields closer than this cannot be told apart in single precision.
const TIE: f64 = 1e-5;

#[derive(Clone, Copy)]
pub struct Wishes {
    pub opacity: f64,
    pub fill: bool,
    pub contour: bool,
}

/// Coverage and colour (times coverage, in components) of one pixel, or `None` where two classes tie for a place so
/// that either is right.
pub type Pixel = Option<Painted>;

/// Coverage, and colour times coverage.
type Painted = (f64, [f64; 3]);

pub struct Reference<'a> {
    pub ids: &'a [u8],
    pub mask: Size,
    pub region: Rect,
    pub frame: Size,
    pub wishes: Wishes,
    pub classes: ClassSet,
    /// Luma weights of red and blue, or `None` for RGB.
    pub weights: Option<(f64, f64)>,
    pub full_range: bool,
}

/// The quadratic B-spline and its slope at distance `x`.
fn spline(x: f64) -> (f64, f64) {
    let a = x.abs();
    if a < 0.5 {
        (0.75 - x * x, -2.0 * x)
    } else if a < 1.5 {
        (0.5 * (1.5 - a) * (1.5 - a), -(1.5 - a) * x.signum())
    } else {
        (0.0, 0.0)
    }
}

impl Reference<'_> {
    fn color(&self, id: u8) -> [f64; 3] {
        let [r, g, b] = self.classes.get(id).unwrap().color.map(f64::from);
        match (self.weights, self.full_range) {
            (None, _) => [r, g, b],
            (Some((kr, kb)), full) => {
                let y = kr * r + (1.0 - kr - kb) * g + kb * b;
                let (pb, pr) = ((b - y) / (2.0 - 2.0 * kb), (r - y) / (2.0 - 2.0 * kr));
                if full {
                    [y, 128.0 + pb, 128.0 + pr].map(|c| c.clamp(0.0, 255.0))
                } else {
                    [
                        16.0 + y * 219.0 / 255.0,
                        128.0 + pb * 224.0 / 255.0,
                        128.0 + pr * 224.0 / 255.0,
                    ]
                }
            }
        }
    }

    /// The mask's class at a mask pixel, its outermost repeated for ever; not drawn is `NO_MASK`.
    fn id(&self, i: i64, j: i64) -> u8 {
        // A mask finer than its region is thinned to the frame's pixels.
        let pixel = |cell: i64, mask: u32, region: u32| {
            let cells = i64::from(mask.min(region));
            (2 * cell.clamp(0, cells - 1) + 1) * i64::from(mask) / (2 * cells)
        };
        let column = pixel(i, self.mask.width_px, self.region.width_px);
        let row = pixel(j, self.mask.height_px, self.region.height_px);
        let id = self.ids[(row * i64::from(self.mask.width_px) + column) as usize];
        if id == 0 || usize::from(id) >= self.classes.len() {
            NO_MASK
        } else {
            id
        }
    }

    pub fn pixel(&self, x: usize, y: usize) -> Pixel {
        let region = self.region;
        let (x, y) = (
            x as f64 + 0.5 - f64::from(region.x_px),
            y as f64 + 0.5 - f64::from(region.y_px),
        );
        let (width, height) = (f64::from(region.width_px), f64::from(region.height_px));
        if x < 0.0 || y < 0.0 || x > width || y > height {
            return Some((0.0, [0.0; 3]));
        }
        let scale = [
            width / f64::from(self.mask.width_px),
            height / f64::from(self.mask.height_px),
        ]
        .map(|s| s.max(1.0));
        let (u, v) = (x / scale[0], y / scale[1]);
        let mut fields: Vec<(u8, [f64; 3])> = Vec::new();
        for j in v.floor() as i64 - 1..=v.floor() as i64 + 1 {
            for i in u.floor() as i64 - 1..=u.floor() as i64 + 1 {
                let (bu, su) = spline(u - i as f64 - 0.5);
                let (bv, sv) = spline(v - j as f64 - 0.5);
                let id = self.id(i, j);
                let at = fields.iter().position(|field| field.0 == id).unwrap_or_else(|| {
                    fields.push((id, [0.0; 3]));
                    fields.len() - 1
                });
                for (sum, part) in fields[at].1.iter_mut().zip([bu * bv, su * bv, bu * sv]) {
                    *sum += part;
                }
            }
        }
        fields.sort_by(|a, b| b.1[0].total_cmp(&a.1[0]));
        let close = |a: usize, b: usize| fields.len() > b && fields[a].1[0] - fields[b].1[0] < TIE;
        // With two classes a tie for the first place is harmless: both cover a half.
        if close(1, 2) || (close(0, 1) && fields.len() > 2) {
            return None;
        }
        let first = fields[0];
        let Some(second) = fields.get(1) else {
            return Some(self.paint(first.0, first.0, f64::INFINITY, scale));
        };
        let margin = first.1[0] - second.1[0];
        if margin > 1.0 - 1e-9 {
            // One mask pixel away: the other class is out of sight.
            return Some(self.paint(first.0, first.0, f64::INFINITY, scale));
        }
        let (across, down) = (first.1[1] - second.1[1], first.1[2] - second.1[2]);
        let in_mask = (across * across + down * down).sqrt();
        let in_frame = ((across / scale[0]).powi(2) + (down / scale[1]).powi(2)).sqrt();
        if in_mask < 1e-4 {
            // Nearly flat: the direction of the border is a matter of rounding.
            return None;
        }
        let frame_per_mask = if in_mask < 1e-6 {
            scale[0].min(scale[1])
        } else {
            in_mask / in_frame
        };
        Some(self.paint(
            first.0,
            second.0,
            (1.0 - (1.0 - margin).max(0.0).sqrt()) * frame_per_mask,
            scale,
        ))
    }

    fn paint(&self, winner: u8, other: u8, distance: f64, scale: [f64; 2]) -> (f64, [f64; 3]) {
        let share = (distance + 0.5).min(1.0);
        let mask_px = scale[0].min(scale[1]);
        let half = (f64::from(self.frame.height_px) / 360.0).max(1.5) / 2.0;
        let half = half.min((mask_px - 0.5).max(0.5));
        let stroke = if self.wishes.contour {
            (half - distance + 0.5).clamp(0.0, 1.0)
        } else {
            0.0
        };
        let (fill, line) = (
            if self.wishes.fill {
                self.wishes.opacity
            } else {
                0.0
            },
            (2.0 * self.wishes.opacity).min(1.0),
        );
        let drawn = |id: u8| (id != NO_MASK).then_some(id);
        let mut alpha = 0.0;
        let mut color = [0.0; 3];
        let mut lay = |id: Option<u8>, coverage: f64| {
            if let Some(id) = id {
                alpha += coverage;
                for (sum, c) in color.iter_mut().zip(self.color(id)) {
                    *sum += coverage * c;
                }
            }
        };
        let (a, b) = (drawn(winner), drawn(other));
        lay(a, share * fill);
        lay(b, (1.0 - share) * fill);
        let below = (alpha, color);
        let (mut alpha, mut color) = (0.0, [0.0; 3]);
        for (id, share) in [(a.or(b), share), (b.or(a), 1.0 - share)] {
            if let Some(id) = id {
                let coverage = share * stroke * line;
                alpha += coverage;
                for (sum, c) in color.iter_mut().zip(self.color(id)) {
                    *sum += coverage * c;
                }
            }
        }
        let keep = 1.0 - alpha;
        for (sum, c) in color.iter_mut().zip(below.1) {
            *sum += keep * c;
        }
        (alpha + keep * below.0, color)
    }

    /// Holds the components of rows `rows` of `after` against what `before` should have become. Returns how many were
    /// compared and how many left out because either answer is right.
    pub fn check(
        &self,
        before: &Frame,
        after: &[u8],
        rows: impl Iterator<Item = usize>,
        what: &str,
    ) -> (usize, usize) {
        let (width, height) = (self.frame.width_px as usize, self.frame.height_px as usize);
        let format = before.info.format();
        let over_rows = match format {
            VideoFormat::Nv12 | VideoFormat::I420 => Some(2),
            VideoFormat::Yuy2 | VideoFormat::Uyvy => Some(1),
            _ => None,
        };
        let (mut compared, mut left_out) = (0, 0);
        let mut compare = |component: usize, x: usize, y: usize, pixel: Pixel| {
            let Some((alpha, color)) = pixel else {
                left_out += 1;
                return;
            };
            compared += 1;
            let at = before.index(component, x, y);
            let exact = f64::from(before.bytes[at]) * (1.0 - alpha) + color[component];
            let difference = (f64::from(after[at]) - exact.round()).abs();
            assert!(
                difference <= 1.0,
                "{what}: component {component} at {x},{y} was {} and is {}, but should be {exact:.2} (coverage {alpha:.3})",
                before.bytes[at],
                after[at],
            );
            assert!(
                alpha > 0.0 || after[at] == before.bytes[at],
                "{what}: {component} at {x},{y} was touched"
            );
        };
        for y in rows {
            for x in 0..width {
                let pixel = self.pixel(x, y);
                let components = if format == VideoFormat::Gray8 || over_rows.is_some() {
                    1
                } else {
                    3
                };
                for component in 0..components {
                    compare(component, x, y, pixel);
                }
            }
            let Some(over_rows) = over_rows.filter(|over_rows| y % over_rows == 0) else {
                continue;
            };
            for x in (0..width).step_by(2) {
                let mut covered = Vec::new();
                for y in y..(y + over_rows).min(height) {
                    for x in x..(x + 2).min(width) {
                        covered.push(self.pixel(x, y));
                    }
                }
                let count = covered.len() as f64;
                let mean = covered.into_iter().collect::<Option<Vec<_>>>().map(|covered| {
                    let sum = |of: &dyn Fn(&Painted) -> f64| covered.iter().map(of).sum::<f64>() / count;
                    (
                        sum(&|p| p.0),
                        [sum(&|p| p.1[0]), sum(&|p| p.1[1]), sum(&|p| p.1[2])],
                    )
                });
                for component in 1..3 {
                    compare(component, x / 2, y / over_rows, mean);
                }
            }
        }
        (compared, left_out)
    }
}
