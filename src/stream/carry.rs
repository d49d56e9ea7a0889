//! Carrying a mask forward: where what it covers has moved to since, by motion estimation on shrunken frames.
//!
//! Both frames are shrunk to 64 x 64 grey pixels. For each of 8 x 8 points of the shown frame the window of 16 x 16
//! around it is looked for in the frame the mask was computed from, within 8 pixels each way, refined by a parabola;
//! then every pixel takes that one of its four neighbours' vectors, or none, that fits its surroundings best, so that
//! motion ends at the edge of an instrument. A label is fetched from where its pixel came from:
//!
//! ```text
//! shown(x) = computed(x + v(x))      v: least sum of |grey_shown(x + d) - grey_then(x + v + d)|, in favour of v = 0
//! ```
//! It shows what has moved, not what has changed: an instrument that has come in meanwhile has no mask yet.

use crate::geometry::Orientation;
use crate::segmenter::ModelFrame;
use std::collections::VecDeque;
use std::sync::Arc;

/// Side of the shrunken frames.
const THUMB_PX: usize = 64;
/// Distance between the points whose motion is looked for.
const GRID_PX: usize = 8;
const POINTS: usize = THUMB_PX / GRID_PX;
/// Side of the window around a point.
const WINDOW_PX: usize = 16;
/// Farthest motion looked for, each way.
const REACH_PX: usize = 8;
/// Border around a thumb, filled with its edge: windows and vectors stay inside.
const BORDER_PX: usize = WINDOW_PX / 2 + REACH_PX;
const STRIDE_PX: usize = THUMB_PX + 2 * BORDER_PX;
/// Motion has to make the window fit so much better than standing still, of 16.
const GAIN_OF_16: u32 = 14;
/// And by at least so much in sum: less is noise.
const NOISE: u32 = (WINDOW_PX * WINDOW_PX) as u32;
/// Surroundings of a pixel that decide between its neighbours' vectors, each way.
const NEAR_PX: usize = 2;
/// Samples of a model frame that go into one pixel of a thumb, each way.
const SAMPLES: usize = 4;
/// Thumbs kept: at 60 Hz two seconds.
const MOST_THUMBS: usize = 128;
/// Masks given out and remembered, to be written anew when nobody holds them.
const MOST_GIVEN: usize = 16;

/// Finds motion between the frames of one epoch and moves masks along.
pub struct Carrier {
    side_px: usize,
    orientation: Orientation,
    /// By index of the frame, oldest first.
    thumbs: VecDeque<(u64, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    given: Vec<Arc<[u8]>>,
}

/// From a pixel of the shown thumb to the same spot in the earlier one.
type Vector = [f32; 2];

impl Carrier {
    /// For masks and frames of `side_px`, frames turned by `orientation`.
    pub fn new(side_px: u32, orientation: Orientation) -> Self {
        Self {
            side_px: side_px as usize,
            orientation,
            thumbs: VecDeque::with_capacity(MOST_THUMBS),
            spare: Vec::new(),
            given: Vec::new(),
        }
    }

    /// Remembers frame `index`, later than all before.
    pub fn see(&mut self, index: u64, frame: &ModelFrame) {
        if self.thumbs.len() == MOST_THUMBS
            && let Some((_, oldest)) = self.thumbs.pop_front()
        {
            self.spare.push(oldest);
        }
        let mut thumb = self.spare.pop().unwrap_or_default();
        self.shrink(frame, &mut thumb);
        self.thumbs.push_back((index, thumb));
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        while let Some((_, thumb)) = self.thumbs.pop_front() {
            self.spare.push(thumb);
        }
    }

    /// The mask of frame `from`, `[side, side]` and upright, moved along to frame `to`; `None` where one of the two has
    /// not been seen or has been forgotten.
    pub fn carry(&mut self, labels: &[u8], from: u64, to: u64) -> Option<Arc<[u8]>> {
        let side = self.side_px;
        if labels.len() != side * side {
            return None;
        }
        let thumb = |index: u64| {
            let at = self
                .thumbs
                .binary_search_by_key(&index, |(index, _)| *index)
                .ok()?;
            self.thumbs.get(at).map(|(_, thumb)| thumb.as_slice())
        };
        let (then, now) = (thumb(from)?, thumb(to)?);
        let grid = motion(then, now);
        let mut field = [[0.0; 2]; THUMB_PX * THUMB_PX];
        spread(then, now, &grid, &mut field);
        let mut moved = match self
            .given
            .iter_mut()
            .position(|mask| Arc::get_mut(mask).is_some())
        {
            Some(free) => self.given.swap_remove(free),
            None => labels.into(),
        };
        if let Some(pixels) = Arc::get_mut(&mut moved) {
            fetch(labels, &field, side, pixels);
        }
        if self.given.len() < MOST_GIVEN {
            self.given.push(Arc::clone(&moved));
        }
        Some(moved)
    }

    /// `frame` as an upright thumb with its border.
    fn shrink(&self, frame: &ModelFrame, thumb: &mut Vec<u8>) {
        let side = self.side_px;
        thumb.clear();
        thumb.resize(STRIDE_PX * STRIDE_PX, 0);
        // Of a stretch of the side that belongs to one pixel, evenly spaced samples.
        let sample = |pixel: usize, sample: usize| {
            ((pixel * SAMPLES + sample) * side / (THUMB_PX * SAMPLES)).min(side - 1)
        };
        for y in 0..THUMB_PX {
            for x in 0..THUMB_PX {
                let mut sum = 0;
                for sy in 0..SAMPLES {
                    for sx in 0..SAMPLES {
                        let (column, row) = self.orientation.upright_from_model(
                            sample(x, sx) as u32,
                            sample(y, sy) as u32,
                            side as u32,
                        );
                        let at = (row as usize * side + column as usize) * 3;
                        if let Some(&[red, green, blue]) = frame.rgb.get(at..at + 3) {
                            sum += u32::from(red) + 2 * u32::from(green) + u32::from(blue);
                        }
                    }
                }
                let grey = sum / (4 * (SAMPLES * SAMPLES) as u32);
                if let Some(pixel) = thumb.get_mut((y + BORDER_PX) * STRIDE_PX + x + BORDER_PX) {
                    *pixel = grey as u8;
                }
            }
        }
        for y in 0..STRIDE_PX {
            let from = y.clamp(BORDER_PX, BORDER_PX + THUMB_PX - 1);
            for x in 0..STRIDE_PX {
                let at = from * STRIDE_PX + x.clamp(BORDER_PX, BORDER_PX + THUMB_PX - 1);
                let edge = thumb.get(at).copied().unwrap_or(0);
                if let Some(pixel) = thumb.get_mut(y * STRIDE_PX + x) {
                    *pixel = edge;
                }
            }
        }
    }
}

/// Sum of differences of two windows of `side` pixels, given by their top left corners in bordered thumbs.
#[inline]
fn difference(a: &[u8], b: &[u8], [ax, ay]: [usize; 2], [bx, by]: [usize; 2], side: usize) -> u32 {
    let mut sum = 0;
    for row in 0..side {
        let (at, bt) = ((ay + row) * STRIDE_PX + ax, (by + row) * STRIDE_PX + bx);
        let (Some(a), Some(b)) = (a.get(at..at + side), b.get(bt..bt + side)) else {
            return u32::MAX;
        };
        let line: u16 = a.iter().zip(b).map(|(&a, &b)| u16::from(a.abs_diff(b))).sum();
        sum += u32::from(line);
    }
    sum
}

/// The vector of each grid point, row by row.
fn motion(then: &[u8], now: &[u8]) -> [Vector; POINTS * POINTS] {
    let mut grid = [[0.0; 2]; POINTS * POINTS];
    for (point, vector) in grid.iter_mut().enumerate() {
        let centre = |index: usize| index * GRID_PX + GRID_PX / 2 + BORDER_PX - WINDOW_PX / 2;
        let corner = [centre(point % POINTS), centre(point / POINTS)];
        let at = |dx: usize, dy: usize| {
            let moved = [corner[0] + dx - REACH_PX, corner[1] + dy - REACH_PX];
            difference(now, then, corner, moved, WINDOW_PX)
        };
        let still = at(REACH_PX, REACH_PX);
        let (mut best, mut place) = (still, [REACH_PX; 2]);
        for dy in 0..=2 * REACH_PX {
            for dx in 0..=2 * REACH_PX {
                let sum = at(dx, dy);
                if sum < best {
                    (best, place) = (sum, [dx, dy]);
                }
            }
        }
        if place == [REACH_PX; 2] || best.saturating_add(NOISE) > still || best > still / 16 * GAIN_OF_16 {
            continue;
        }
        let [x, y] = place;
        let inside = |p: usize| (1..2 * REACH_PX).contains(&p);
        let finer = |before: u32, after: u32| {
            let (before, best, after) = (before as f32, best as f32, after as f32);
            let bend = before - 2.0 * best + after;
            if bend > 0.0 {
                (0.5 * (before - after) / bend).clamp(-0.5, 0.5)
            } else {
                0.0
            }
        };
        let fine_x = if inside(x) {
            finer(at(x - 1, y), at(x + 1, y))
        } else {
            0.0
        };
        let fine_y = if inside(y) {
            finer(at(x, y - 1), at(x, y + 1))
        } else {
            0.0
        };
        *vector = [
            x as f32 - REACH_PX as f32 + fine_x,
            y as f32 - REACH_PX as f32 + fine_y,
        ];
    }
    grid
}

/// The vector of each pixel: that of the four points around it, or none, whose surroundings fit best.
fn spread(
    then: &[u8],
    now: &[u8],
    grid: &[Vector; POINTS * POINTS],
    field: &mut [Vector; THUMB_PX * THUMB_PX],
) {
    if grid.iter().all(|vector| *vector == [0.0; 2]) {
        return;
    }
    let side = 2 * NEAR_PX + 1;
    for (pixel, slot) in field.iter_mut().enumerate() {
        let [x, y] = [pixel % THUMB_PX, pixel / THUMB_PX];
        let points = |p: usize| {
            let first = (p + GRID_PX / 2 / GRID_PX).saturating_sub(GRID_PX / 2) / GRID_PX;
            [first.min(POINTS - 1), (first + 1).min(POINTS - 1)]
        };
        let corner = [x + BORDER_PX - NEAR_PX, y + BORDER_PX - NEAR_PX];
        let mut best = difference(now, then, corner, corner, side);
        for row in points(y) {
            for column in points(x) {
                let Some(&vector) = grid.get(row * POINTS + column) else {
                    continue;
                };
                if vector == [0.0; 2] {
                    continue;
                }
                let moved = [0, 1].map(|axis| {
                    let place = corner[axis] as f32 + vector[axis].round();
                    place.max(0.0) as usize
                });
                let sum = difference(now, then, corner, moved, side);
                if sum < best {
                    (best, *slot) = (sum, vector);
                }
            }
        }
    }
}

/// Each label from where its pixel came from.
fn fetch(labels: &[u8], field: &[Vector; THUMB_PX * THUMB_PX], side: usize, moved: &mut [u8]) {
    let scale = side as f32 / THUMB_PX as f32;
    let last = side as f32 - 1.0;
    for (y, row) in moved.chunks_exact_mut(side).enumerate() {
        let thumb_row = y * THUMB_PX / side * THUMB_PX;
        for (x, label) in row.iter_mut().enumerate() {
            let vector = field
                .get(thumb_row + x * THUMB_PX / side)
                .copied()
                .unwrap_or_default();
            let column = (x as f32 + vector[0] * scale).round().clamp(0.0, last) as usize;
            let line = (y as f32 + vector[1] * scale).round().clamp(0.0, last) as usize;
            *label = labels.get(line * side + column).copied().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 256;

    /// A textured disc at `centre` over another texture; and its mask.
    fn scene(centre: [i32; 2]) -> (ModelFrame, Vec<u8>) {
        let texture = |x: i32, y: i32, seed: i32| {
            let bits = (x / 8).wrapping_mul(73_856_093) ^ (y / 8).wrapping_mul(19_349_663) ^ seed;
            (bits.wrapping_mul(83_492_791) >> 16 & 127) as u8
        };
        let (mut rgb, mut labels) = (Vec::new(), Vec::new());
        for y in 0..SIDE as i32 {
            for x in 0..SIDE as i32 {
                let [dx, dy] = [x - centre[0], y - centre[1]];
                let inside = dx * dx + dy * dy < 50 * 50;
                let grey = if inside {
                    120 + texture(dx + 999, dy + 999, 1)
                } else {
                    texture(x, y, 2)
                };
                rgb.extend([grey; 3]);
                labels.push(u8::from(inside));
            }
        }
        (ModelFrame { rgb: rgb.into() }, labels)
    }

    fn overlap(a: &[u8], b: &[u8]) -> f64 {
        let both = a.iter().zip(b).filter(|(a, b)| **a == 1 && **b == 1).count();
        let any = a.iter().zip(b).filter(|(a, b)| **a == 1 || **b == 1).count();
        both as f64 / any as f64
    }

    #[test]
    fn a_mask_follows_what_it_covers() {
        let (before, labels) = scene([100, 120]);
        for motion in [[0, 0], [8, -4], [16, 12], [-24, 0], [5, 3]] {
            let (after, truth) = scene([100 + motion[0], 120 + motion[1]]);
            let mut carrier = Carrier::new(SIDE as u32, Orientation::Upright);
            carrier.see(0, &before);
            carrier.see(1, &after);
            let moved = carrier.carry(&labels, 0, 1).unwrap();
            let (with, without) = (overlap(&moved, &truth), overlap(&labels, &truth));
            if motion == [0, 0] {
                assert_eq!(*moved, labels[..], "what stands still stays");
            } else {
                assert!(with > 0.9 && with > without, "{motion:?}: {with} {without}");
            }
        }
    }

    #[test]
    fn frames_may_be_turned() {
        let turn = |frame: &ModelFrame| {
            let mut rgb = vec![0; frame.rgb.len()];
            for at in 0..SIDE * SIDE {
                let (x, y) = Orientation::Transposed.upright_from_model(
                    (at % SIDE) as u32,
                    (at / SIDE) as u32,
                    SIDE as u32,
                );
                let from = (y as usize * SIDE + x as usize) * 3;
                rgb[at * 3..at * 3 + 3].copy_from_slice(&frame.rgb[from..from + 3]);
            }
            ModelFrame { rgb: rgb.into() }
        };
        let ((before, labels), (after, _)) = (scene([100, 120]), scene([116, 112]));
        let mut upright = Carrier::new(SIDE as u32, Orientation::Upright);
        let mut turned = Carrier::new(SIDE as u32, Orientation::Transposed);
        for (index, frame) in [before, after].iter().enumerate() {
            upright.see(index as u64, frame);
            turned.see(index as u64, &turn(frame));
        }
        let (a, b) = (
            upright.carry(&labels, 0, 1).unwrap(),
            turned.carry(&labels, 0, 1).unwrap(),
        );
        assert!(overlap(&a, &b) > 0.95, "{}", overlap(&a, &b));
    }

    #[test]
    fn only_frames_that_are_remembered_are_carried_between() {
        let (frame, labels) = scene([100, 100]);
        let mut carrier = Carrier::new(SIDE as u32, Orientation::Upright);
        for index in 0..MOST_THUMBS as u64 + 5 {
            carrier.see(index, &frame);
        }
        let newest = MOST_THUMBS as u64 + 4;
        assert!(carrier.carry(&labels, 4, newest).is_none(), "forgotten");
        assert!(carrier.carry(&labels, 5, newest).is_some());
        assert!(carrier.carry(&labels, newest, newest + 1).is_none());
        assert!(carrier.carry(&labels[1..], 5, newest).is_none());
        let held: Vec<_> = (0..2).filter_map(|_| carrier.carry(&labels, 5, newest)).collect();
        assert_ne!(held[0].as_ptr(), held[1].as_ptr(), "what is held stays");
        carrier.clear();
        assert!(carrier.carry(&labels, newest, newest).is_none());
    }
}
