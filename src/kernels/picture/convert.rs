//! Pictures as GStreamer lays them out, read row by row as RGB.
//!
//! For YUV with matrix constants `kr`, `kb` (`kg = 1 - kr - kb`) and, in limited range, luma in 16..=235 and chroma
//! in 16..=240:
//! ```text
//! y' = (y - 16) / 219      u' = (u - 128) / 224      v' = (v - 128) / 224       (full: y / 255, (u - 128) / 255, …)
//! r = y' + 2 (1 - kr) v'   b = y' + 2 (1 - kb) u'    g = y' - (2 kb (1 - kb) u' + 2 kr (1 - kr) v') / kg
//! ```
//! in the short integers that GStreamer's `videoconvert` computes with, so that one in front of an element changes
//! nothing: coefficients have 8 fractional bits, and luma is taken about 128 instead of its own black, which makes
//! limited range up to 4 levels darker than the formula. Chroma samples that pixels share are repeated, not
//! interpolated, as `videoconvert` does for I420, and with `chroma-mode=none` for every format: pictures are shrunk
//! afterwards. Transfer function and primaries are left as they are.
//!
//! ```
//! use masam::geometry::Size;
//! use masam::kernels::picture::convert::{ColorSpace, Picture, PixelFormat, PlaneRef, RgbRow};
//! let plane = PlaneRef { data: &[9, 8, 7, 0], stride_bytes: 4 };
//! let picture = Picture::new(PixelFormat::Bgr, Size::square(1), &[plane], ColorSpace::RGB).unwrap();
//! let mut row = RgbRow::default();
//! picture.read_row(0, 0, 1, &mut row);
//! assert_eq!((row.red[0], row.green[0], row.blue[0]), (7, 8, 9));
//! ```

use super::convert_rows::{Factors, matrix, spread, spread_groups, spread_pairs, stretch, take_apart};
use crate::error::{Error, Result};
use crate::geometry::Size;

/// The pixel layouts we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Luma plane, then a half-size plane of U, V pairs.
    Nv12,
    /// Luma plane, then half-size planes of U and V.
    I420,
    /// Y0 U Y1 V for two pixels.
    Yuy2,
    /// U Y0 V Y1 for two pixels.
    Uyvy,
    /// Three bytes, red first.
    Rgb,
    /// Three bytes, blue first.
    Bgr,
    /// Red, green, blue, alpha.
    Rgba,
    /// Blue, green, red, alpha.
    Bgra,
    /// Red, green, blue, unused.
    Rgbx,
    /// Blue, green, red, unused.
    Bgrx,
    /// Luma alone.
    Gray8,
}

impl PixelFormat {
    /// All of them.
    pub const ALL: [PixelFormat; 11] = [
        PixelFormat::Nv12,
        PixelFormat::I420,
        PixelFormat::Yuy2,
        PixelFormat::Uyvy,
        PixelFormat::Rgb,
        PixelFormat::Bgr,
        PixelFormat::Rgba,
        PixelFormat::Bgra,
        PixelFormat::Rgbx,
        PixelFormat::Bgrx,
        PixelFormat::Gray8,
    ];

    /// Number of planes.
    pub fn planes(self) -> usize {
        match self {
            PixelFormat::Nv12 => 2,
            PixelFormat::I420 => 3,
            _ => 1,
        }
    }

    /// Whether two pixels of a row share chroma.
    pub(super) fn shares_chroma(self) -> bool {
        use PixelFormat::{I420, Nv12, Uyvy, Yuy2};
        matches!(self, Nv12 | I420 | Yuy2 | Uyvy)
    }

    /// Bytes of one row and number of rows that `plane` needs for a picture of `size`.
    pub fn plane_bytes(self, plane: usize, size: Size) -> (usize, usize) {
        let (width, height) = (size.width_px as usize, size.height_px as usize);
        let half_up = |n: usize| n.div_ceil(2);
        match (self, plane) {
            (PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Gray8, 0) => (width, height),
            (PixelFormat::Nv12, _) => (half_up(width) * 2, half_up(height)),
            (PixelFormat::I420, _) => (half_up(width), half_up(height)),
            (PixelFormat::Yuy2 | PixelFormat::Uyvy, _) => (half_up(width) * 4, height),
            (PixelFormat::Rgb | PixelFormat::Bgr, _) => (width * 3, height),
            _ => (width * 4, height),
        }
    }
}

/// The matrix between RGB and YUV, by its constants `kr` and `kb`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matrix {
    /// Weight of red in luma.
    pub kr: f64,
    /// Weight of blue in luma.
    pub kb: f64,
}

impl Matrix {
    /// ITU-R BT.601: standard definition.
    pub const BT601: Matrix = Matrix { kr: 0.299, kb: 0.114 };
    /// ITU-R BT.709: high definition.
    pub const BT709: Matrix = Matrix {
        kr: 0.2126,
        kb: 0.0722,
    };
    /// ITU-R BT.2020: ultra high definition.
    pub const BT2020: Matrix = Matrix {
        kr: 0.2627,
        kb: 0.0593,
    };
    /// SMPTE 240M.
    pub const SMPTE240M: Matrix = Matrix { kr: 0.212, kb: 0.087 };
    /// FCC Title 47.
    pub const FCC: Matrix = Matrix { kr: 0.30, kb: 0.11 };
}

/// Which byte values mean black and white.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// 0 and 255.
    Full,
    /// 16 and 235 for luma, 16 to 240 for chroma.
    Limited,
}

/// How bytes mean colours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColorSpace {
    /// For YUV formats.
    pub matrix: Matrix,
    /// For YUV formats and luma alone; RGB bytes are taken as they are, as `videoconvert` does.
    pub range: Range,
}

impl ColorSpace {
    /// For RGB, where neither matters.
    pub const RGB: ColorSpace = ColorSpace {
        matrix: Matrix::BT601,
        range: Range::Full,
    };
}

/// One plane of a picture: rows of bytes, `stride_bytes` apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaneRef<'a> {
    /// The bytes, from the first row on.
    pub data: &'a [u8],
    /// Bytes from the start of a row to the start of the next.
    pub stride_bytes: usize,
}

impl<'a> PlaneRef<'a> {
    /// Every second row, from the first or the second.
    fn field(self, second: bool) -> Self {
        let start = if second {
            self.stride_bytes.min(self.data.len())
        } else {
            0
        };
        PlaneRef {
            data: &self.data[start..],
            stride_bytes: self.stride_bytes.saturating_mul(2),
        }
    }
}

/// A picture whose planes are known to be large enough.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    format: PixelFormat,
    size: Size,
    planes: [PlaneRef<'a>; 3],
    /// Rows of the planes of chroma alone: one less than half the rows, rounded up, in the second field of a picture
    /// of 486 rows.
    chroma_rows: usize,
    factors: Factors,
    range: Range,
}

/// One row as three planes of bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RgbRow {
    /// Red of each pixel, 0..=255.
    pub red: Vec<u8>,
    /// Green.
    pub green: Vec<u8>,
    /// Blue.
    pub blue: Vec<u8>,
    luma: Vec<u8>,
    u: Vec<u8>,
    v: Vec<u8>,
}

impl<'a> Picture<'a> {
    /// Takes the planes of a picture of `size` after checking that every row is inside them.
    ///
    /// # Errors
    /// A side outside the bounds of [`Size::checked`], too few planes, a stride shorter than a row, or a plane that
    /// ends early.
    pub fn new(format: PixelFormat, size: Size, planes: &[PlaneRef<'a>], colors: ColorSpace) -> Result<Self> {
        let size = Size::checked(size.width_px, size.height_px)?;
        let mut taken = [PlaneRef {
            data: &[],
            stride_bytes: 0,
        }; 3];
        for (index, slot) in taken.iter_mut().enumerate().take(format.planes()) {
            let plane = planes.get(index).copied().ok_or_else(|| {
                let bound = format!("{format:?} has {} planes", format.planes());
                Error::config("planes", planes.len(), bound)
            })?;
            let (row_bytes, rows) = format.plane_bytes(index, size);
            if plane.stride_bytes < row_bytes && rows > 1 {
                let bound = format!("a row of {format:?} takes {row_bytes} bytes");
                return Err(Error::config(
                    format!("stride of plane {index}"),
                    plane.stride_bytes,
                    bound,
                ));
            }
            let needed = (rows - 1)
                .checked_mul(plane.stride_bytes)
                .and_then(|n| n.checked_add(row_bytes));
            if needed.is_none_or(|needed| plane.data.len() < needed) {
                let (w, h) = (size.width_px, size.height_px);
                let needed = needed.map_or_else(|| "more than memory holds".into(), |n| n.to_string());
                let bound = format!(
                    "{format:?} of {w}x{h} with stride {} needs {needed} bytes",
                    plane.stride_bytes
                );
                return Err(Error::config(
                    format!("bytes of plane {index}"),
                    plane.data.len(),
                    bound,
                ));
            }
            *slot = plane;
        }
        Ok(Self {
            format,
            size,
            planes: taken,
            chroma_rows: format.plane_bytes(1, size).1,
            factors: factors(colors),
            range: colors.range,
        })
    }

    /// Its size.
    pub fn size(&self) -> Size {
        self.size
    }

    pub(super) fn format(&self) -> PixelFormat {
        self.format
    }

    /// Those that the format has not are empty.
    pub(super) fn planes(&self) -> [PlaneRef<'a>; 3] {
        self.planes
    }

    pub(super) fn factors(&self) -> Factors {
        self.factors
    }

    /// One field of an interleaved picture: every second row, from the first or the second. A picture of one row
    /// is its own only field.
    pub fn field(&self, second: bool) -> Self {
        if self.size.height_px < 2 {
            return *self;
        }
        let half = |rows: usize| if second { rows / 2 } else { rows.div_ceil(2) };
        let [first, others @ ..] = self.planes;
        // A single row of chroma serves both fields.
        let (others, chroma_rows) = match self.chroma_rows {
            1 => (others, 1),
            rows => (others.map(|plane| plane.field(second)), half(rows)),
        };
        let [u, v] = others;
        Self {
            size: Size {
                height_px: half(self.size.height_px as usize) as u32,
                ..self.size
            },
            planes: [first.field(second), u, v],
            chroma_rows,
            ..*self
        }
    }

    /// Reads `width_px` pixels of row `y_px` from `x_px` on. What lies outside the picture is cut off.
    pub fn read_row(&self, y_px: u32, x_px: u32, width_px: u32, row: &mut RgbRow) {
        let y = y_px.min(self.size.height_px - 1) as usize;
        let x = x_px.min(self.size.width_px) as usize;
        let width = (width_px as usize).min(self.size.width_px as usize - x);
        match self.format {
            PixelFormat::Rgb => self.read_packed::<3>(y, x, width, [0, 1, 2], row),
            PixelFormat::Bgr => self.read_packed::<3>(y, x, width, [2, 1, 0], row),
            PixelFormat::Rgba | PixelFormat::Rgbx => self.read_packed::<4>(y, x, width, [0, 1, 2], row),
            PixelFormat::Bgra | PixelFormat::Bgrx => self.read_packed::<4>(y, x, width, [2, 1, 0], row),
            PixelFormat::Gray8 => {
                let luma = &self.row(0, y)[x..x + width];
                for channel in row.planes(width) {
                    channel.copy_from_slice(luma);
                    if self.range == Range::Limited {
                        stretch(self.factors.luma, channel);
                    }
                }
            }
            _ => self.read_samples(y, x, width, row),
        }
    }

    /// Row `y` of a plane, to the end of the plane's bytes. In range after the checks of [`Picture::new`].
    fn row(&self, plane: usize, y: usize) -> &'a [u8] {
        let plane = self.planes[plane];
        &plane.data[y * plane.stride_bytes..]
    }

    /// The last row of the planes of chroma alone: it serves what is left.
    pub(super) fn last_chroma_row(&self) -> usize {
        self.chroma_rows - 1
    }

    /// Row of chroma that serves row `y`.
    fn chroma_row(&self, plane: usize, y: usize) -> &'a [u8] {
        self.row(plane, (y / 2).min(self.last_chroma_row()))
    }

    fn read_packed<const BYTES: usize>(
        &self,
        y: usize,
        x: usize,
        width: usize,
        order: [usize; 3],
        row: &mut RgbRow,
    ) {
        let pixels = &self.row(0, y)[x * BYTES..(x + width) * BYTES];
        take_apart::<BYTES>(pixels, order, row.planes(width));
    }

    /// Luma and chroma to red, green and blue, by whole pairs of pixels, since these share chroma.
    fn read_samples(&self, y: usize, x: usize, width: usize, row: &mut RgbRow) {
        let pairs = x / 2..(x + width).div_ceil(2);
        let (first, count) = (pairs.start * 2, pairs.len() * 2);
        for samples in [&mut row.luma, &mut row.u, &mut row.v] {
            samples.resize(count, 0);
        }
        let RgbRow { luma, u, v, .. } = row;
        match self.format {
            PixelFormat::Yuy2 | PixelFormat::Uyvy => {
                let groups = &self.row(0, y)[pairs.start * 4..pairs.end * 4];
                if self.format == PixelFormat::Yuy2 {
                    spread_groups::<0>(groups, luma, u, v);
                } else {
                    spread_groups::<1>(groups, luma, u, v);
                }
            }
            _ => {
                // A row of odd width ends within a pair.
                let there = count.min(self.size.width_px as usize - first);
                luma[..there].copy_from_slice(&self.row(0, y)[first..first + there]);
                if self.format == PixelFormat::Nv12 {
                    spread_pairs(&self.chroma_row(1, y)[pairs.start * 2..pairs.end * 2], u, v);
                } else {
                    spread(&self.chroma_row(1, y)[pairs.clone()], u);
                    spread(&self.chroma_row(2, y)[pairs], v);
                }
            }
        }
        let (luma, u, v) = (std::mem::take(luma), std::mem::take(u), std::mem::take(v));
        matrix(self.factors, &luma, &u, &v, row.planes(count));
        (row.luma, row.u, row.v) = (luma, u, v);
        for channel in [&mut row.red, &mut row.green, &mut row.blue] {
            if x > first {
                channel.remove(0); // the other half of the first pair
            }
            channel.truncate(width);
        }
    }
}

impl RgbRow {
    /// The three planes, `width` bytes each, of any content.
    fn planes(&mut self, width: usize) -> [&mut [u8]; 3] {
        [&mut self.red, &mut self.green, &mut self.blue].map(|plane| {
            plane.resize(width, 0);
            plane.as_mut_slice()
        })
    }
}

/// How much of a colour, in [0, 1], a step of luma is, and one of chroma: red from V, green from U and V, blue from U.
pub(in crate::kernels) fn shares(colors: ColorSpace) -> [f64; 5] {
    let Matrix { kr, kb } = colors.matrix;
    let kg = 1.0 - kr - kb;
    let (luma_span, chroma_span) = match colors.range {
        Range::Full => (255.0, 255.0),
        Range::Limited => (219.0, 224.0),
    };
    [
        1.0 / luma_span,
        2.0 * (1.0 - kr) / chroma_span,
        -2.0 * kb * (1.0 - kb) / kg / chroma_span,
        -2.0 * kr * (1.0 - kr) / kg / chroma_span,
        2.0 * (1.0 - kb) / chroma_span,
    ]
}

/// The factors of a matrix and range.
fn factors(colors: ColorSpace) -> Factors {
    let [luma, red_from_v, green_from_u, green_from_v, blue_from_u] =
        shares(colors).map(|share| (share * 255.0 * 256.0).round() as i16);
    Factors {
        luma,
        red_from_v,
        green_from_u,
        green_from_v,
        blue_from_u,
    }
}
