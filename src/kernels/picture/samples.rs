//! Rows of pictures as numbers that can be summed: what each sample adds to the colours of the pixels it serves.
//!
//! As in [`super::convert_rows`], but before the clamp, and without writing any sample twice:
//! ```text
//! luma     high(y ky)                                                  to red, green and blue
//! chroma   high(v kr)    high(u kgu) + high(v kgv)    high(u kb)       to each
//! RGB      the three bytes
//! ```

use super::convert::PlaneRef;
use super::convert_rows::{Factors, centred, high, wide};

/// Lines whose bytes are summed several rows at a time where the processor can: what most cameras and decoders give.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "summed one by one elsewhere")
)]
pub(super) enum Bytes<'a> {
    /// Samples of one byte and of one part, `high(wide(byte) factor)`, from sample `x` of a row on.
    Luma {
        plane: PlaneRef<'a>,
        x: usize,
        factor: i16,
    },
    /// Samples of two bytes, U and V, from pair `x` of a row on, and of three parts. Rows after the last are as this one.
    Pairs {
        plane: PlaneRef<'a>,
        last_row: usize,
        x: usize,
        factors: Factors,
    },
    /// Others.
    Other,
}

/// Rows of samples that have `PARTS` parts each.
pub(super) trait Lines<const PARTS: usize>: Copy {
    /// The samples of a row.
    type Row: Copy;

    /// `count` samples of row `y`.
    fn row(self, y: usize, count: usize) -> Self::Row;

    /// The parts of sample `x`, which is less than `count`.
    fn parts(self, row: Self::Row, x: usize) -> [i16; PARTS];

    /// What bytes these are.
    fn bytes(&self) -> Bytes<'_> {
        Bytes::Other
    }
}

/// Luma: byte `AT` of every `STEP`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Luma<'a, const STEP: usize, const AT: usize> {
    pub plane: PlaneRef<'a>,
    /// First sample.
    pub x: usize,
    pub factors: Factors,
}

impl<'a, const STEP: usize, const AT: usize> Lines<1> for Luma<'a, STEP, AT> {
    type Row = &'a [[u8; STEP]];

    #[inline(always)]
    fn row(self, y: usize, count: usize) -> Self::Row {
        samples(self.plane, y, self.x, count)
    }

    #[inline(always)]
    fn parts(self, row: Self::Row, x: usize) -> [i16; 1] {
        [high(wide(row[x][AT]), self.factors.luma)]
    }

    fn bytes(&self) -> Bytes<'_> {
        match STEP {
            1 => Bytes::Luma {
                plane: self.plane,
                x: self.x,
                factor: self.factors.luma,
            },
            _ => Bytes::Other,
        }
    }
}

/// Luma alone, which is clamped: it is the only part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gray<'a>(pub Luma<'a, 1, 0>);

impl<'a> Lines<1> for Gray<'a> {
    type Row = &'a [[u8; 1]];

    #[inline(always)]
    fn row(self, y: usize, count: usize) -> Self::Row {
        self.0.row(y, count)
    }

    #[inline(always)]
    fn parts(self, row: Self::Row, x: usize) -> [i16; 1] {
        self.0.parts(row, x).map(|luma| i16::from(centred(luma)))
    }
}

/// Chroma in one plane: U and V are bytes `U` and `V` of every `STEP`.
#[derive(Debug, Clone, Copy)]
pub(super) struct PairedChroma<'a, const STEP: usize, const U: usize, const V: usize> {
    pub plane: PlaneRef<'a>,
    /// Rows after it are as this one.
    pub last_row: usize,
    /// First pair.
    pub x: usize,
    pub factors: Factors,
}

impl<'a, const STEP: usize, const U: usize, const V: usize> Lines<3> for PairedChroma<'a, STEP, U, V> {
    type Row = &'a [[u8; STEP]];

    #[inline(always)]
    fn row(self, y: usize, count: usize) -> Self::Row {
        samples(self.plane, y.min(self.last_row), self.x, count)
    }

    #[inline(always)]
    fn parts(self, row: Self::Row, x: usize) -> [i16; 3] {
        chroma(self.factors, row[x][U], row[x][V])
    }

    fn bytes(&self) -> Bytes<'_> {
        match (STEP, U, V) {
            (2, 0, 1) => Bytes::Pairs {
                plane: self.plane,
                last_row: self.last_row,
                x: self.x,
                factors: self.factors,
            },
            _ => Bytes::Other,
        }
    }
}

/// Chroma in a plane of U and one of V.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlanarChroma<'a> {
    pub planes: [PlaneRef<'a>; 2],
    /// Rows after it are as this one.
    pub last_row: usize,
    /// First sample.
    pub x: usize,
    pub factors: Factors,
}

impl<'a> Lines<3> for PlanarChroma<'a> {
    type Row = [&'a [[u8; 1]]; 2];

    #[inline(always)]
    fn row(self, y: usize, count: usize) -> Self::Row {
        let y = y.min(self.last_row);
        self.planes.map(|plane| samples(plane, y, self.x, count))
    }

    #[inline(always)]
    fn parts(self, [u, v]: Self::Row, x: usize) -> [i16; 3] {
        chroma(self.factors, u[x][0], v[x][0])
    }
}

/// Pixels of `STEP` bytes, of which byte `RED` is red, the one at 1 green, and byte `BLUE` blue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pixels<'a, const STEP: usize, const RED: usize, const BLUE: usize> {
    pub plane: PlaneRef<'a>,
    /// First pixel.
    pub x: usize,
}

impl<'a, const STEP: usize, const RED: usize, const BLUE: usize> Lines<3> for Pixels<'a, STEP, RED, BLUE> {
    type Row = &'a [[u8; STEP]];

    #[inline(always)]
    fn row(self, y: usize, count: usize) -> Self::Row {
        samples(self.plane, y, self.x, count)
    }

    #[inline(always)]
    fn parts(self, row: Self::Row, x: usize) -> [i16; 3] {
        [row[x][RED], row[x][1], row[x][BLUE]].map(i16::from)
    }
}

/// `count` groups of bytes of row `y`, from group `x` on.
#[inline(always)]
pub(super) fn samples<const STEP: usize>(
    plane: PlaneRef<'_>,
    y: usize,
    x: usize,
    count: usize,
) -> &[[u8; STEP]] {
    let row = &plane.data[y * plane.stride_bytes + x * STEP..];
    let (groups, _) = row.as_chunks::<STEP>();
    &groups[..count]
}

/// What a U and a V add to red, green and blue.
#[inline(always)]
fn chroma(factors: Factors, u: u8, v: u8) -> [i16; 3] {
    let (u, v) = (wide(u), wide(v));
    [
        high(v, factors.red_from_v),
        high(u, factors.green_from_u) + high(v, factors.green_from_v),
        high(u, factors.blue_from_u),
    ]
}
