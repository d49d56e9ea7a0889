//! [`AreaResizer`] against the way it is defined: every pixel of the region made RGB, then averaged, in 64 bits.
//!
//! A byte may differ from the exact average by half a level, which is its rounding, and by a thousandth, for sums in
//! 32 bits. For YUV that holds where no pixel leaves 0..=255. Where one does, the definition clamps it before the
//! average and the resizer only the average: there it is held, as closely, against averages of unclamped pixels.

use super::axis::Axis;
use super::convert::{ColorSpace, Matrix, Picture, PixelFormat, PlaneRef, Range, RgbRow};
use super::resize::AreaResizer;
use crate::geometry::{Orientation, Rect, Size};

const TOLERANCE: f64 = 0.501;

/// A small generator so that a failing case can be run again.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn next(&mut self, below: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(below)) as u32
    }
}

/// What `make` makes, in buffers beside which no byte may be touched: behind them, or in every third case before them.
#[cfg(target_arch = "x86_64")]
pub(super) fn fenced<R>(case: usize, make: impl FnOnce() -> R) -> R {
    #[cfg(target_os = "linux")]
    {
        use crate::fences::{Side, during};
        during([Side::End, Side::End, Side::Start][case % 3], make)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = case;
        make()
    }
}

/// One frame, a region of it and a square.
#[derive(Debug, Clone)]
struct Case {
    format: PixelFormat,
    size: Size,
    region: Rect,
    side: u32,
    colors: ColorSpace,
    planes: Vec<(Vec<u8>, usize)>,
}

impl Case {
    /// Bytes are `low` to below `low + span`.
    fn new(noise: &mut Noise, format: PixelFormat, low: u32, span: u32) -> Self {
        let widest = [300, 60, 60, 60][noise.next(4) as usize];
        let size = Size {
            width_px: 1 + noise.next(widest),
            height_px: 1 + noise.next(50),
        };
        let (x_px, y_px) = (noise.next(size.width_px), noise.next(size.height_px));
        let region = Rect {
            x_px,
            y_px,
            width_px: 1 + noise.next(size.width_px - x_px),
            height_px: 1 + noise.next(size.height_px - y_px),
        };
        let matrices = [Matrix::BT601, Matrix::BT709, Matrix::BT2020, Matrix::SMPTE240M];
        let colors = ColorSpace {
            matrix: matrices[noise.next(4) as usize],
            range: [Range::Full, Range::Limited][noise.next(2) as usize],
        };
        let plane = |plane: usize| {
            let (row, rows) = format.plane_bytes(plane, size);
            let stride = row + noise.next(9) as usize;
            let bytes = (0..stride * (rows - 1) + row).map(|_| (low + noise.next(span)) as u8);
            (bytes.collect(), stride)
        };
        let planes = (0..format.planes()).map(plane).collect();
        let side = 1 + noise.next(40);
        Self {
            format,
            size,
            region,
            side,
            colors,
            planes,
        }
    }

    fn picture(&self) -> Picture<'_> {
        let planes: Vec<PlaneRef<'_>> = self
            .planes
            .iter()
            .map(|(data, stride_bytes)| PlaneRef {
                data,
                stride_bytes: *stride_bytes,
            })
            .collect();
        Picture::new(self.format, self.size, &planes, self.colors).unwrap()
    }

    /// Red, green and blue of each pixel of the region, by `read_row`.
    fn converted(&self) -> Vec<[f64; 3]> {
        let mut row = RgbRow::default();
        let mut pixels = Vec::new();
        for y in 0..self.region.height_px {
            let (x, width) = (self.region.x_px, self.region.width_px);
            self.picture().read_row(self.region.y_px + y, x, width, &mut row);
            let rgb = row.red.iter().zip(&row.green).zip(&row.blue);
            pixels.extend(rgb.map(|((&r, &g), &b)| [r, g, b].map(f64::from)));
        }
        pixels
    }

    /// The same of a YUV picture, not clamped, sample by sample in 64 bits.
    fn unclamped(&self) -> Vec<[f64; 3]> {
        let byte = |plane: usize, y: u32, x: u32| {
            let (data, stride) = &self.planes[plane];
            data[y as usize * stride + x as usize]
        };
        let high = |sample: u8, factor: i16| {
            let about = i64::from(sample) - 128;
            let repeated = about * 257 + if about < 0 { 256 } else { 0 };
            (repeated * i64::from(factor)).div_euclid(65_536)
        };
        let factors = self.picture().factors();
        let mut pixels = Vec::new();
        for y in self.region.y_px..self.region.bottom_px() {
            for x in self.region.x_px..self.region.right_px() {
                let pair = x / 2;
                let (luma, u, v) = match self.format {
                    PixelFormat::Nv12 => (
                        byte(0, y, x),
                        byte(1, y / 2, pair * 2),
                        byte(1, y / 2, pair * 2 + 1),
                    ),
                    PixelFormat::I420 => (byte(0, y, x), byte(1, y / 2, pair), byte(2, y / 2, pair)),
                    PixelFormat::Yuy2 => (
                        byte(0, y, x * 2),
                        byte(0, y, pair * 4 + 1),
                        byte(0, y, pair * 4 + 3),
                    ),
                    PixelFormat::Uyvy => (
                        byte(0, y, x * 2 + 1),
                        byte(0, y, pair * 4),
                        byte(0, y, pair * 4 + 2),
                    ),
                    other => panic!("{other:?} has no chroma"),
                };
                let luma = 128 + high(luma, factors.luma);
                let rgb = [
                    luma + high(v, factors.red_from_v),
                    luma + high(u, factors.green_from_u) + high(v, factors.green_from_v),
                    luma + high(u, factors.blue_from_u),
                ];
                pixels.push(rgb.map(|value| value as f64));
            }
        }
        pixels
    }

    /// Compares both orientations with averages of `pixels`.
    fn check(&self, resizer: &mut AreaResizer, pixels: &[[f64; 3]]) {
        let Rect {
            width_px, height_px, ..
        } = self.region;
        let (columns, rows) = (Axis::new(width_px, self.side), Axis::new(height_px, self.side));
        for orientation in [Orientation::Upright, Orientation::Transposed] {
            let mut square = vec![0; Size::square(self.side).area() * 3];
            resizer
                .resize(&self.picture(), self.region, orientation, &mut square)
                .unwrap();
            for (at, got) in square.as_chunks::<3>().0.iter().enumerate() {
                let (x, y) = (at as u32 % self.side, at as u32 / self.side);
                let (x, y) = orientation.upright_from_model(x, y, self.side);
                let (left, across) = columns.output(x as usize);
                let (top, down) = rows.output(y as usize);
                let mut want = [0.0; 3];
                for (row, weight_y) in (top..).zip(down) {
                    for (column, weight_x) in (left..).zip(across) {
                        let pixel = pixels[row * width_px as usize + column];
                        let weight = f64::from(*weight_x) * f64::from(*weight_y);
                        want = std::array::from_fn(|i| want[i] + weight * pixel[i]);
                    }
                }
                for (got, want) in got.iter().zip(want) {
                    let far = (f64::from(*got) - want.clamp(0.0, 255.0)).abs();
                    assert!(
                        far < TOLERANCE,
                        "{got}, not {want} at {x},{y} {orientation:?} of {self:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn pictures_within_gamut_equal_the_average_of_their_converted_pixels() {
    let seed = 20_251_125;
    println!("seed {seed}");
    let mut noise = Noise(seed);
    for _ in 0..30 {
        for format in PixelFormat::ALL {
            // 32 levels of chroma are at most 70 of a colour, and as many of luma 38.
            let (low, span) = if format.shares_chroma() {
                (96, 64)
            } else {
                (0, 256)
            };
            let case = Case::new(&mut noise, format, low, span);
            let mut resizer = AreaResizer::new(case.region.size(), case.side).unwrap();
            case.check(&mut resizer, &case.converted());
        }
    }
}

#[test]
fn pictures_beyond_gamut_equal_the_average_of_unclamped_pixels() {
    let seed = 20_251_126;
    println!("seed {seed}");
    let mut noise = Noise(seed);
    for _ in 0..60 {
        for format in PixelFormat::ALL.into_iter().filter(|f| f.shares_chroma()) {
            let case = Case::new(&mut noise, format, 0, 256);
            let mut resizer = AreaResizer::new(case.region.size(), case.side).unwrap();
            case.check(&mut resizer, &case.unclamped());
        }
    }
}

#[test]
fn one_resizer_serves_all_formats_and_places() {
    let seed = 20_251_127;
    println!("seed {seed}");
    let mut noise = Noise(seed);
    let mut resizer = AreaResizer::new(Size::square(5), 3).unwrap();
    let mut served = 0;
    while served < 200 {
        let format = PixelFormat::ALL[noise.next(11) as usize];
        let (low, span) = if format.shares_chroma() {
            (96, 64)
        } else {
            (0, 256)
        };
        let mut case = Case::new(&mut noise, format, low, span);
        (case.region.width_px, case.region.height_px, case.side) = (5, 5, 3);
        if case.region.fits(case.size) {
            case.check(&mut resizer, &case.converted());
            served += 1;
        }
    }
}

/// Whatever the size, crop and stride, the last row being as short as it may be.
#[cfg(target_arch = "x86_64")]
#[test]
fn no_byte_beside_a_plane_or_a_square_is_touched() {
    let mut noise = Noise(20_251_128);
    for at in 0..60 {
        for format in PixelFormat::ALL {
            let case = Case::new(&mut noise, format, 96, 64);
            let pixels = case.converted();
            fenced(at, || {
                let case = case.clone();
                let mut resizer = AreaResizer::new(case.region.size(), case.side).unwrap();
                case.check(&mut resizer, &pixels);
                assert_eq!(case.converted(), pixels);
            });
        }
    }
}

/// A field is as a picture of its own rows. Where those of the chroma run out, as in the second field of 486 rows, the
/// last serves what is left.
#[test]
fn fields_are_pictures_of_every_second_row() {
    let mut noise = Noise(5);
    for (format, height_px) in [
        PixelFormat::Nv12,
        PixelFormat::I420,
        PixelFormat::Yuy2,
        PixelFormat::Rgb,
    ]
    .into_iter()
    .flat_map(|format| (2..=14).map(move |height| (format, height)))
    {
        let mut whole = Case::new(&mut noise, format, 60, 120);
        let size = Size {
            width_px: 9,
            height_px,
        };
        whole.size = size;
        whole.planes = (0..format.planes())
            .map(|plane| {
                let (row, rows) = format.plane_bytes(plane, size);
                (
                    (0..row * rows).map(|_| (60 + noise.next(120)) as u8).collect(),
                    row,
                )
            })
            .collect();
        for second in [false, true] {
            let field = whole.picture().field(second);
            let start = usize::from(second);
            let planes: Vec<(Vec<u8>, usize)> = (0..format.planes())
                .map(|plane| {
                    let (bytes, stride) = &whole.planes[plane];
                    let rows: Vec<&[u8]> = bytes.chunks(*stride).collect();
                    let own: Vec<&&[u8]> = match rows.len() {
                        1 => rows.iter().collect(),
                        _ => rows.iter().skip(start).step_by(2).collect(),
                    };
                    let (_, wanted) = format.plane_bytes(plane, field.size());
                    let taken = (0..wanted).flat_map(|row| own[row.min(own.len() - 1)].to_vec());
                    (taken.collect(), *stride)
                })
                .collect();
            let alone = Case {
                size: field.size(),
                region: field.size().rect(),
                planes,
                ..Case::new(&mut noise, format, 60, 120)
            };
            let alone = Case {
                colors: whole.colors,
                ..alone
            };
            let (mut row, mut wanted) = (RgbRow::default(), RgbRow::default());
            for y in 0..field.size().height_px {
                field.read_row(y, 0, 9, &mut row);
                alone.picture().read_row(y, 0, 9, &mut wanted);
                let (got, wanted) = (
                    [&row.red, &row.green, &row.blue],
                    [&wanted.red, &wanted.green, &wanted.blue],
                );
                assert_eq!(got, wanted, "{format:?} {height_px} {second} {y}");
            }
            let mut resizer = AreaResizer::new(field.size(), 5).unwrap();
            let mut squares = [vec![0; 75], vec![0; 75]];
            for (picture, square) in [field, alone.picture()].iter().zip(&mut squares) {
                resizer
                    .resize(picture, alone.region, Orientation::Upright, square)
                    .unwrap();
            }
            assert_eq!(squares[0], squares[1], "{format:?} {height_px} {second}");
        }
    }
}
