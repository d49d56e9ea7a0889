//! Objects of annotations, painted into masks.
//!
//! Coordinates are in pixels from the upper left corner of the picture, so that the center of its first pixel is at
//! (0.5, 0.5); a pixel belongs to a polygon that its center lies in.

use image::GrayImage;

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// Corners, x and y; several polygons are one object.
    Polygons(Vec<Vec<(f64, f64)>>),
    /// Numbers of pixels outside and inside by turns.
    Runs {
        /// Where it begins.
        left: u32,
        /// Where it begins.
        top: u32,
        /// Width and height.
        size: (u32, u32),
        /// Whether pixels follow each other down the columns, as in COCO, or along the rows.
        is_by_column: bool,
        /// The first one is outside.
        runs: Vec<u64>,
    },
}

impl Shape {
    /// Paints the object with `class`.
    pub fn paint(&self, mask: &mut GrayImage, class: u8) {
        match self {
            Self::Polygons(polygons) => polygons.iter().for_each(|corners| paint(mask, corners, class)),
            Self::Runs {
                left,
                top,
                size: (width, height),
                is_by_column,
                runs,
            } => {
                let mut at = 0_u64;
                let all = u64::from(*width) * u64::from(*height);
                for (index, run) in runs.iter().enumerate() {
                    let end = at.saturating_add(*run).min(all);
                    for place in at..end.max(at) {
                        let (x, y) = match is_by_column {
                            true => (place / u64::from(*height), place % u64::from(*height)),
                            false => (place % u64::from(*width), place / u64::from(*width)),
                        };
                        // Within a picture, whose sides are 32 bits.
                        let pixel = mask.get_pixel_mut_checked(
                            left.saturating_add(x as u32),
                            top.saturating_add(y as u32),
                        );
                        if let Some(pixel) = pixel.filter(|_| index % 2 == 1) {
                            pixel.0 = [class];
                        }
                    }
                    at = end;
                }
            }
        }
    }

    /// A box, turned about its center by `degrees`.
    pub fn rectangle([left, top, right, bottom]: [f64; 4], degrees: f64) -> Self {
        let corners = vec![(left, top), (right, top), (right, bottom), (left, bottom)];
        Self::turned(corners, ((left + right) / 2.0, (top + bottom) / 2.0), degrees)
    }

    /// An ellipse, turned about its center by `degrees`, as a polygon of 180 corners.
    pub fn ellipse(center: (f64, f64), radii: (f64, f64), degrees: f64) -> Self {
        let corner = |step: u32| {
            let (sin, cos) = f64::from(2 * step).to_radians().sin_cos();
            (center.0 + radii.0 * cos, center.1 + radii.1 * sin)
        };
        Self::turned((0..180).map(corner).collect(), center, degrees)
    }

    fn turned(mut corners: Vec<(f64, f64)>, (x, y): (f64, f64), degrees: f64) -> Self {
        let (sin, cos) = degrees.to_radians().sin_cos();
        for corner in corners.iter_mut().filter(|_| degrees != 0.0) {
            let (dx, dy) = (corner.0 - x, corner.1 - y);
            *corner = (x + dx * cos - dy * sin, y + dx * sin + dy * cos);
        }
        Self::Polygons(vec![corners])
    }
}

/// Fills a polygon by the even-odd rule, row by row.
fn paint(mask: &mut GrayImage, corners: &[(f64, f64)], class: u8) {
    let width = mask.width();
    for row in 0..mask.height() {
        let y = f64::from(row) + 0.5;
        let edges = corners.iter().zip(corners.iter().cycle().skip(1));
        let crossing = |(&(x0, y0), &(x1, y1)): (&(f64, f64), &(f64, f64))| {
            ((y0 <= y) != (y1 <= y)).then(|| x0 + (y - y0) / (y1 - y0) * (x1 - x0))
        };
        let mut crossings: Vec<f64> = edges.filter_map(crossing).collect();
        crossings.sort_by(f64::total_cmp);
        for pair in crossings.as_chunks::<2>().0 {
            let column = |x: f64| (x - 0.5).ceil().clamp(0.0, f64::from(width)) as u32;
            for x in column(pair[0])..column(pair[1]) {
                if let Some(pixel) = mask.get_pixel_mut_checked(x, row) {
                    pixel.0 = [class];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted(shape: &Shape) -> Vec<String> {
        let mut mask = GrayImage::new(6, 4);
        shape.paint(&mut mask, 7);
        let row = |row: image::buffer::Pixels<'_, image::Luma<u8>>| {
            row.map(|p| if p[0] == 7 { '#' } else { '.' }).collect()
        };
        mask.rows().map(row).collect()
    }

    #[test]
    fn a_pixel_belongs_to_the_polygon_that_its_center_lies_in() {
        let rows = painted(&Shape::rectangle([1.0, 1.0, 4.0, 3.0], 0.0));
        assert_eq!(rows, ["......", ".###..", ".###..", "......"]);
        let rows = painted(&Shape::rectangle([1.0, 1.0, 5.0, 3.0], 90.0));
        assert_eq!(rows, ["..##..", "..##..", "..##..", "..##.."]);
        // Beyond the picture nothing is painted.
        assert_eq!(
            painted(&Shape::rectangle([-9.0, 2.0, 99.0, 99.0], 0.0))[1..],
            ["......", "######", "######"]
        );
    }

    #[test]
    fn runs_go_along_rows_or_columns() {
        let runs = |is_by_column| Shape::Runs {
            left: 1,
            top: 1,
            size: (3, 2),
            is_by_column,
            runs: vec![1, 3, 9],
        };
        assert_eq!(painted(&runs(false)), ["......", "..##..", ".#....", "......"]);
        assert_eq!(painted(&runs(true)), ["......", "..#...", ".##...", "......"]);
    }
}
