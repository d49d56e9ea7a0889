//! The resize of the reference protocol: a cubic spline through the pixels, corners aligned.
//!
//! This is what `scipy.ndimage.zoom(order=3)` computes, which prepared the frames that published checkpoints were
//! trained on. Sample `j` of `side` lies at `x = j (length - 1) / (side - 1)`, so first and last samples coincide.
//! ```text
//! s(x) = sum over k of c[k] B(x - k)            B: the cubic B-spline         s(i) = pixel i
//! ```
//! The coefficients `c` follow from the pixels by a recursive filter with pole `z = sqrt(3) - 2`, once forward and
//! once backward (Unser, Aldroubi and Eden 1993), the line being continued by mirroring it about its end pixels.
//! All in `f64`; results are rounded half up and clamped, as scipy does for bytes.
//!
//! ```
//! use masam::kernels::picture::resize_reference::zoom_labels;
//! use masam::geometry::Size;
//! assert_eq!(zoom_labels(&[1, 2, 3], Size { width_px: 3, height_px: 1 }, 2), [1, 3, 1, 3]);
//! ```

use super::convert::{Picture, RgbRow};
use crate::error::{Error, Result};
use crate::geometry::{MAX_FRAME_SIDE_PX, Orientation, Rect, Size};

/// Where the samples of one axis come from: four coefficients and their weights each.
type Taps = Vec<([usize; 4], [f64; 4])>;

/// Writes `region` of `picture` to `square`, `[side, side, 3]` RGB, turned as `orientation` says.
///
/// # Errors
/// A region outside the picture, a side that is 0 or above [`MAX_FRAME_SIDE_PX`], or a square of another size.
pub fn resize_reference(
    picture: &Picture<'_>,
    region: Rect,
    side_px: u32,
    orientation: Orientation,
    square: &mut [u8],
) -> Result<()> {
    if !region.fits(picture.size()) {
        let (frame, value) = (picture.size(), format!("{region:?}"));
        let bound = format!(
            "it has to lie inside the picture of {}x{}",
            frame.width_px, frame.height_px
        );
        return Err(Error::config("region", value, bound));
    }
    let side = checked_side(side_px)?;
    if square.len() != side * side * 3 {
        let bound = format!("a square of side {side} takes {} bytes", side * side * 3);
        return Err(Error::config("square", square.len(), bound));
    }
    let (width, height) = (region.width_px as usize, region.height_px as usize);
    let (columns, rows) = (taps(width, side), taps(height, side));
    let mut row = RgbRow::default();
    // One channel after the other: a frame in f64 is large.
    for channel in 0..3 {
        let mut values = Vec::with_capacity(width * height);
        for y in 0..region.height_px {
            picture.read_row(region.y_px + y, region.x_px, region.width_px, &mut row);
            let bytes = [&row.red, &row.green, &row.blue][channel];
            values.extend(bytes.iter().map(|&byte| f64::from(byte)));
        }
        filter_columns(&mut values, width);
        for line in values.chunks_exact_mut(width) {
            filter_line(line);
        }
        let mut line = vec![0.0; width];
        for (y, (places, weights)) in rows.iter().enumerate() {
            line.fill(0.0);
            for (&place, &weight) in places.iter().zip(weights) {
                for (sum, value) in line.iter_mut().zip(&values[place * width..(place + 1) * width]) {
                    *sum += weight * value;
                }
            }
            for (x, (places, weights)) in columns.iter().enumerate() {
                let value: f64 = places
                    .iter()
                    .zip(weights)
                    .map(|(&place, weight)| weight * line[place])
                    .sum();
                let (column, line) = orientation.upright_from_model(x as u32, y as u32, side_px);
                square[(line as usize * side + column as usize) * 3 + channel] = (value + 0.5) as u8; // saturates
            }
        }
    }
    Ok(())
}

/// Nearest label at the same sample positions: how the reference brings class ids of a frame of `size` to the
/// square. `[height, width]` to `[side, side]`; a plane of another size gives an empty one.
pub fn zoom_labels(labels: &[u8], size: Size, side_px: u32) -> Vec<u8> {
    let (width, height, side) = (size.width_px as usize, size.height_px as usize, side_px as usize);
    if labels.len() != width * height || labels.is_empty() {
        return Vec::new();
    }
    let nearest = |length: usize| -> Vec<usize> {
        (0..side)
            .map(|j| ((position(j, length, side) + 0.5) as usize).min(length - 1))
            .collect()
    };
    let (columns, rows) = (nearest(width), nearest(height));
    rows.iter()
        .flat_map(|&y| columns.iter().map(move |&x| labels[y * width + x]))
        .collect()
}

fn checked_side(side_px: u32) -> Result<usize> {
    if side_px == 0 || side_px > MAX_FRAME_SIDE_PX {
        return Err(Error::config(
            "side_px",
            side_px,
            format!("it has to be 1 to {MAX_FRAME_SIDE_PX}"),
        ));
    }
    Ok(side_px as usize)
}

/// Where sample `j` of `side` lies on a line of `length` pixels.
fn position(j: usize, length: usize, side: usize) -> f64 {
    if side < 2 {
        return 0.0;
    }
    j as f64 * ((length - 1) as f64 / (side - 1) as f64)
}

fn taps(length: usize, side: usize) -> Taps {
    let last = length as i64 - 1;
    let mirrored = |i: i64| -> usize {
        if last == 0 {
            return 0;
        }
        let around = i.rem_euclid(2 * last);
        around.min(2 * last - around) as usize
    };
    (0..side)
        .map(|j| {
            let x = position(j, length, side).min(last as f64);
            let floor = x.floor();
            let t = x - floor;
            let far = 1.0 - t;
            let near = |d: f64| 2.0 / 3.0 - d * d * (2.0 - d) / 2.0;
            let weights = [far * far * far / 6.0, near(t), near(far), t * t * t / 6.0];
            let first = floor as i64 - 1;
            (std::array::from_fn(|k| mirrored(first + k as i64)), weights)
        })
        .collect()
}

/// Pole of the filter: sqrt(3) - 2.
const POLE: f64 = -0.267_949_192_431_122_7;

/// Gain of both passes: (1 - z)(1 - 1/z).
const GAIN: f64 = 6.0;

/// From samples to coefficients, in place, along one line.
fn filter_line(line: &mut [f64]) {
    let count = line.len();
    if count < 2 {
        return;
    }
    line.iter_mut().for_each(|value| *value *= GAIN);
    // The forward pass starts from its value on the mirrored line, which repeats after 2 (count - 1) samples.
    let period = 2 * (count - 1);
    let mut sum = 0.0;
    let mut power = 1.0;
    for step in 0..period {
        sum += power * line[step.min(period - step)];
        power *= POLE;
    }
    line[0] = sum / (1.0 - power);
    for i in 1..count {
        line[i] += POLE * line[i - 1];
    }
    line[count - 1] = POLE / (POLE * POLE - 1.0) * (line[count - 1] + POLE * line[count - 2]);
    for i in (0..count - 1).rev() {
        line[i] = POLE * (line[i + 1] - line[i]);
    }
}

/// [`filter_line`] down every column of `[height, width]`, whole rows at a time.
fn filter_columns(values: &mut [f64], width: usize) {
    let count = values.len() / width.max(1);
    if count < 2 {
        return;
    }
    values.iter_mut().for_each(|value| *value *= GAIN);
    let period = 2 * (count - 1);
    let mut sums = vec![0.0; width];
    let mut power = 1.0;
    for step in 0..period {
        let y = step.min(period - step);
        // Far powers are nothing beside the first; what they would add is far below a bit.
        if power != 0.0 {
            for (sum, value) in sums.iter_mut().zip(&values[y * width..(y + 1) * width]) {
                *sum += power * value;
            }
        }
        power *= POLE;
    }
    for (first, sum) in values.iter_mut().zip(&sums) {
        *first = sum / (1.0 - power);
    }
    for y in 1..count {
        let (before, line) = values[(y - 1) * width..(y + 1) * width].split_at_mut(width);
        for (value, before) in line.iter_mut().zip(before) {
            *value += POLE * *before;
        }
    }
    let (before, line) = values[(count - 2) * width..].split_at_mut(width);
    for (value, before) in line.iter_mut().zip(before) {
        *value = POLE / (POLE * POLE - 1.0) * (*value + POLE * *before);
    }
    for y in (0..count - 1).rev() {
        let (line, after) = values[y * width..(y + 2) * width].split_at_mut(width);
        for (value, after) in line.iter_mut().zip(after) {
            *value = POLE * (*after - *value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::convert::{ColorSpace, PixelFormat, PlaneRef};
    use super::*;

    fn noise(count: usize, mut seed: u64) -> Vec<u8> {
        (0..count)
            .map(|_| {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (seed >> 56) as u8
            })
            .collect()
    }

    /// Coefficients by solving `(c[i-1] + 4 c[i] + c[i+1]) / 6 = pixel[i]`, mirrored at the ends, by elimination.
    fn solved(line: &[f64]) -> Vec<f64> {
        let n = line.len();
        if n < 2 {
            return line.to_vec();
        }
        let mut matrix = vec![vec![0.0; n + 1]; n];
        for i in 0..n {
            matrix[i][i] += 4.0 / 6.0;
            for j in [i as i64 - 1, i as i64 + 1] {
                let mirrored = if j < 0 {
                    1
                } else if j as usize == n {
                    n - 2
                } else {
                    j as usize
                };
                matrix[i][mirrored] += 1.0 / 6.0;
            }
            matrix[i][n] = line[i];
        }
        for i in 0..n {
            let pivot = matrix[i].clone();
            for row in matrix.iter_mut().skip(i + 1) {
                let factor = row[i] / pivot[i];
                row.iter_mut().zip(&pivot).for_each(|(a, b)| *a -= factor * b);
            }
        }
        let mut c = vec![0.0; n];
        for i in (0..n).rev() {
            let rest: f64 = (i + 1..n).map(|j| matrix[i][j] * c[j]).sum();
            c[i] = (matrix[i][n] - rest) / matrix[i][i];
        }
        c
    }

    #[test]
    fn the_filter_solves_the_interpolation() {
        for n in 1..40 {
            let line: Vec<f64> = noise(n, n as u64).iter().map(|&b| f64::from(b)).collect();
            let mut filtered = line.clone();
            filter_line(&mut filtered);
            for (got, want) in filtered.iter().zip(solved(&line)) {
                assert!((got - want).abs() < 1e-9, "{n}: {got} {want}");
            }
            let mut columns: Vec<f64> = line.iter().flat_map(|&v| [v, 255.0 - v]).collect();
            filter_columns(&mut columns, 2);
            for (pair, want) in columns.chunks_exact(2).zip(&filtered) {
                assert!((pair[0] - want).abs() < 1e-9 && (pair[1] - (255.0 - want)).abs() < 1e-9);
            }
        }
    }

    fn zoomed(rgb: &[u8], size: Size, side: u32, orientation: Orientation) -> Vec<u8> {
        let plane = PlaneRef {
            data: rgb,
            stride_bytes: size.width_px as usize * 3,
        };
        let picture = Picture::new(PixelFormat::Rgb, size, &[plane], ColorSpace::RGB).unwrap();
        let mut square = vec![0; (side * side * 3) as usize];
        resize_reference(&picture, size.rect(), side, orientation, &mut square).unwrap();
        square
    }

    #[test]
    fn the_same_size_is_a_copy_and_corners_stay() {
        let size = Size::square(9);
        let rgb = noise(9 * 9 * 3, 5);
        assert_eq!(zoomed(&rgb, size, 9, Orientation::Upright), rgb);
        for (width_px, height_px, side) in [(9, 9, 4), (30, 7, 16), (2, 50, 33), (64, 48, 2)] {
            let size = Size { width_px, height_px };
            let rgb = noise(size.area() * 3, 6);
            let square = zoomed(&rgb, size, side, Orientation::Upright);
            let turned = zoomed(&rgb, size, side, Orientation::Transposed);
            let (w, h, s) = (width_px as usize, height_px as usize, side as usize);
            for (corner, at) in [
                (0, 0),
                (s - 1, w - 1),
                (s * (s - 1), w * (h - 1)),
                (s * s - 1, w * h - 1),
            ] {
                assert_eq!(square[corner * 3..corner * 3 + 3], rgb[at * 3..at * 3 + 3]);
            }
            for y in 0..s {
                for x in 0..s {
                    let there = (s - 1 - x) * s + s - 1 - y;
                    assert_eq!(square[(y * s + x) * 3..][..3], turned[there * 3..][..3]);
                }
            }
        }
    }

    #[test]
    fn lines_of_one_pixel_and_squares_of_one() {
        let rgb = [10, 20, 30];
        assert_eq!(
            zoomed(&rgb, Size::square(1), 3, Orientation::Upright),
            rgb.repeat(9)
        );
        let line = [0, 0, 0, 100, 100, 100, 200, 200, 200];
        let size = Size {
            width_px: 3,
            height_px: 1,
        };
        assert_eq!(zoomed(&line, size, 1, Orientation::Upright), [0, 0, 0]);
        assert_eq!(
            zoom_labels(
                &[],
                Size {
                    width_px: 0,
                    height_px: 0
                },
                3
            ),
            Vec::<u8>::new()
        );
    }
}
