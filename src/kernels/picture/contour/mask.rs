//! The mask as the tracer wants it: indices of inks in cells, and where frame pixels lie among them.
//!
//! A cell is a mask pixel, or, where the mask is finer than the frame, a frame pixel.

use super::field::Cell;
use super::pair::LANES;
use super::{MaskPlane, NOT_DRAWN};

/// In a row of codes: classes meet here.
pub(super) const MIXED: u8 = u8::MAX - 1;

/// The mask as indices of inks.
#[derive(Debug, Default)]
pub(super) struct Inked {
    width: usize,
    height: usize,
    /// With a border of one pixel all around that repeats the outermost: `[height + 2, width + 2]`.
    padded: Vec<u8>,
    /// `[height, width]`: the ink where the eight neighbours have the same, [`MIXED`] elsewhere.
    codes: Vec<u8>,
    /// Scratch, `[width + 2]`: whether a pixel equals those above and below it, and the one to its right.
    same: Vec<u8>,
}

impl Inked {
    /// Takes a mask in the cells of the two axes; returns the share of them that is [`MIXED`].
    #[inline(always)]
    pub fn set(&mut self, mask: &MaskPlane<'_>, ink_of_id: &[u8; 256], columns: &Axis, rows: &Axis) -> f32 {
        (self.width, self.height) = (columns.sources.len(), rows.sources.len());
        if self.width == 0 || self.height == 0 {
            return 0.0;
        }
        let stride = self.width + 2;
        let mask_width = mask.mask.width_px as usize;
        let ink = |id: u8| {
            let ink = ink_of_id[usize::from(id)];
            if ink >= MIXED { NOT_DRAWN } else { ink }
        };
        self.padded.resize(stride * (self.height + 2), NOT_DRAWN);
        for (row, &source) in self.padded.chunks_exact_mut(stride).skip(1).zip(&rows.sources) {
            let start = source as usize * mask_width;
            let ids = mask.ids.get(start..start + mask_width).unwrap_or_default();
            let [left, inner @ .., right] = row else { continue };
            if self.width == mask_width {
                for (target, &id) in inner.iter_mut().zip(ids) {
                    *target = ink(id);
                }
            } else {
                for (target, &source) in inner.iter_mut().zip(&columns.sources) {
                    *target = ids.get(source as usize).map_or(NOT_DRAWN, |&id| ink(id));
                }
            }
            *left = inner.first().copied().unwrap_or(NOT_DRAWN);
            *right = inner.last().copied().unwrap_or(NOT_DRAWN);
        }
        self.padded.copy_within(stride..2 * stride, 0);
        self.padded.copy_within(
            self.height * stride..(self.height + 1) * stride,
            (self.height + 1) * stride,
        );
        self.codes.resize(self.width * self.height, MIXED);
        self.same.resize(stride, 0);
        let mut mixed = 0;
        for (row, codes) in self.codes.chunks_exact_mut(self.width).enumerate() {
            let at = |row: usize| {
                self.padded
                    .get(row * stride..(row + 1) * stride)
                    .unwrap_or_default()
            };
            let (above, here, below) = (at(row), at(row + 1), at(row + 2));
            let columns = self.same.iter_mut().zip(above).zip(here).zip(below);
            for (((same, &above), &here), &below) in columns {
                // Bit 0: the column is uniform.
                *same = u8::from((above == here) & (here == below));
            }
            for ((same, &here), &right) in self
                .same
                .iter_mut()
                .zip(here)
                .zip(here.get(1..).unwrap_or_default())
            {
                // Bit 1: the next pixel is the same. The last one is not asked for it.
                *same |= u8::from(here == right) << 1;
            }
            // Three uniform columns, the first two of which equal their right neighbours.
            let windows = self
                .same
                .iter()
                .zip(self.same.iter().skip(1))
                .zip(self.same.iter().skip(2));
            let mut count = 0_u32;
            for ((code, &ink), ((&left, &middle), &right)) in
                codes.iter_mut().zip(here.iter().skip(1)).zip(windows)
            {
                let uniform = (left & middle & 2 != 0) & (left & middle & right & 1 != 0);
                *code = if uniform { ink } else { MIXED };
                count += u32::from(!uniform);
            }
            mixed += u64::from(count);
        }
        mixed as f32 / (self.width * self.height) as f32
    }

    /// Makes the codes the inks of the mixed cells, and of no others.
    pub fn keep_outlines(&mut self) {
        for row in 0..self.height {
            let inks = self
                .padded
                .get((row + 1) * (self.width + 2) + 1..)
                .unwrap_or_default();
            let codes = self.codes.iter_mut().skip(row * self.width).take(self.width);
            for (code, &ink) in codes.zip(inks) {
                *code = if *code == MIXED { ink } else { NOT_DRAWN };
            }
        }
    }

    /// Rows of cells.
    pub fn height(&self) -> usize {
        self.height
    }

    /// A row's inks, [`MIXED`] where classes meet.
    pub fn codes(&self, row: usize) -> &[u8] {
        self.codes
            .get(row * self.width..(row + 1) * self.width)
            .unwrap_or_default()
    }

    fn padded_row(&self, row: usize) -> &[u8] {
        let stride = self.width + 2;
        self.padded
            .get(row * stride..(row + 1) * stride)
            .unwrap_or_default()
    }

    /// A row's inks.
    pub fn inks(&self, row: usize) -> &[u8] {
        self.padded_row(row + 1)
            .get(1..self.width + 1)
            .unwrap_or_default()
    }

    /// A cell and its neighbours.
    pub fn cell(&self, column: usize, row: usize) -> Cell {
        let rows = [
            self.padded_row(row),
            self.padded_row(row + 1),
            self.padded_row(row + 2),
        ];
        let at = |column: usize| rows.map(|row| row.get(column).copied().unwrap_or(NOT_DRAWN));
        Cell::new([at(column), at(column + 1), at(column + 2)])
    }
}

/// Along one axis: where each frame pixel lies in the mask.
#[derive(Debug, Default)]
pub(super) struct Axis {
    start_px: u32,
    length_px: u32,
    mask_px: u32,
    /// For each cell the mask pixel it is taken from.
    sources: Vec<u32>,
    /// For each cell, and one past the last, the first frame pixel whose centre lies in it.
    first: Vec<u32>,
    /// For each frame pixel of the region: its place in its cell, 0..1. Then as many more as make the last lanes full.
    place: Vec<f32>,
    /// Frame pixels per cell, at least 1.
    pub scale: f32,
}

impl Axis {
    /// `mask_px` pixels of the mask lie over `length_px` pixels of the frame from `start_px` on.
    pub fn set(&mut self, start_px: u32, length_px: u32, mask_px: u32) {
        if (start_px, length_px, mask_px) == (self.start_px, self.length_px, self.mask_px) {
            return;
        }
        (self.start_px, self.length_px, self.mask_px) = (start_px, length_px, mask_px);
        let cells = mask_px.min(length_px);
        self.sources.clear();
        self.sources.extend((0..cells).map(|cell| {
            // The mask pixel at the cell's centre.
            ((2 * u64::from(cell) + 1) * u64::from(mask_px) / (2 * u64::from(cells))) as u32
        }));
        self.first.clear();
        self.place.clear();
        self.scale = length_px as f32 / cells as f32;
        let (length, cells) = (u64::from(length_px), u64::from(cells));
        for x in 0..length {
            // The centre, x + 1/2, in mask pixels: a quotient and a remainder over 2 length.
            let position = (2 * x + 1) * cells;
            while self.first.len() as u64 <= position / (2 * length) {
                self.first.push(start_px + x as u32);
            }
            self.place
                .push((position % (2 * length)) as f32 / (2 * length) as f32);
        }
        self.place.extend([0.5; LANES]);
        while self.first.len() as u64 <= cells {
            self.first.push(start_px + length_px);
        }
    }

    /// Frame pixels whose centres lie in a cell.
    #[inline(always)]
    pub fn pixels(&self, cell: usize) -> std::ops::Range<u32> {
        let at = |cell: usize| self.first.get(cell).copied().unwrap_or(0);
        at(cell)..at(cell + 1)
    }

    /// Places of the pixels from `x_px` on; beyond their cell they mean nothing.
    #[inline(always)]
    pub fn places(&self, x_px: u32) -> &[f32; LANES] {
        let from = self.place.get((x_px - self.start_px) as usize..);
        from.and_then(<[f32]>::first_chunk).unwrap_or(&[0.5; LANES])
    }

    #[inline(always)]
    pub fn place(&self, x_px: u32) -> f32 {
        self.place
            .get((x_px - self.start_px) as usize)
            .copied()
            .unwrap_or(0.5)
    }
}
