//! Attention on CPU: one task per band of grid rows, one tile of scores at a time, never the whole matrix.
//!
//! A task owns a band of output rows: a few rows of the grid for global attention, the height of a partition
//! otherwise. For each partition of its band and each head it gathers queries, keys and values, multiplies,
//! adds the positions while taking the softmax, multiplies again and writes the head's share of the output. The
//! relative positions cost one narrow product per tile: the tables are turned round once, so that the entries for
//! ascending keys lie side by side.

use super::Sizes;
use crate::kernels::product::{Start, Threads, View, product};
use crate::kernels::{simd, softmax::exp_shifted};
use candle_core::Result;
use rayon::prelude::*;

/// Scores of one tile: half a megabyte, so that they stay in a core's second-level cache.
const TILE_SCORES: usize = 1 << 17;

pub(in crate::kernels) fn attention(
    qkv: &[f32],
    bias: &[f32],
    relative: &[f32],
    sizes: &Sizes,
) -> Result<Vec<f32>> {
    let Sizes {
        images,
        height,
        width,
        side,
        head_width,
        ..
    } = *sizes;
    let mut output = vec![0f32; images * height * width * sizes.channels()];
    if output.is_empty() {
        return Ok(output);
    }
    let turned = turned(relative, side, head_width);
    let row = width * sizes.channels();
    // Queries of one tile: whole rows of a span.
    let tile_rows = (TILE_SCORES / (side * side) / side).clamp(1, side);
    // One span over the whole height can be cut into bands of tiles; partitions are bands of their own.
    let band_rows = if side >= height {
        tile_rows.min(height)
    } else {
        side
    };
    let image_row = height * row;
    output
        .par_chunks_mut(image_row)
        .enumerate()
        .try_for_each(|(image, output)| {
            let qkv = &qkv[image * 3 * image_row..(image + 1) * 3 * image_row];
            output
                .par_chunks_mut(band_rows * row)
                .enumerate()
                .try_for_each(|(band, output)| {
                    let first_row = band * band_rows;
                    let mut task = Task {
                        qkv,
                        bias,
                        turned: &turned,
                        sizes,
                        first_row,
                        tile_rows,
                        scratch: Scratch::default(),
                    };
                    task.run(output)
                })
        })?;
    Ok(output)
}

/// The two tables one after the other, each from its last entry to its first.
pub(super) fn turned(relative: &[f32], side: usize, head_width: usize) -> Vec<f32> {
    let table = (2 * side - 1) * head_width;
    relative
        .chunks_exact(table)
        .flat_map(|t| t.chunks_exact(head_width).rev().flatten().copied())
        .collect()
}

#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    positions: Vec<f32>,
    scores: Vec<f32>,
    mixed: Vec<f32>,
    factors: Vec<f32>,
}

struct Task<'a> {
    /// One image's `[height, width, 3 * channels]`.
    qkv: &'a [f32],
    bias: &'a [f32],
    turned: &'a [f32],
    sizes: &'a Sizes,
    /// Grid row of the band's first output row.
    first_row: usize,
    tile_rows: usize,
    scratch: Scratch,
}

impl Task<'_> {
    fn run(&mut self, output: &mut [f32]) -> Result<()> {
        let Sizes {
            width, side, heads, ..
        } = *self.sizes;
        let rows = output.len() / (width * self.sizes.channels());
        // Row of the span's top: the band lies inside one span.
        let top = self.first_row / side * side;
        for left in (0..width).step_by(side) {
            for head in 0..heads {
                self.gather_keys_and_values(top, left, head);
                for first in (0..rows).step_by(self.tile_rows) {
                    let tile = Tile {
                        top,
                        left,
                        head,
                        first,
                        rows: self.tile_rows.min(rows - first),
                    };
                    self.tile(&tile, output)?;
                }
            }
        }
        Ok(())
    }

    /// Keys and values of a whole span, `[side * side, head_width]` each, the bias where the grid has ended.
    fn gather_keys_and_values(&mut self, top: usize, left: usize, head: usize) {
        let Sizes {
            height,
            width,
            side,
            head_width,
            ..
        } = *self.sizes;
        let channels = self.sizes.channels();
        let (qkv, bias) = (self.qkv, self.bias);
        for (which, target) in [(1, &mut self.scratch.keys), (2, &mut self.scratch.values)] {
            let offset = which * channels + head * head_width;
            let padded = &bias[offset..offset + head_width];
            target.clear();
            for y in top..top + side {
                for x in left..left + side {
                    if y < height && x < width {
                        let at = (y * width + x) * 3 * channels + offset;
                        target.extend_from_slice(&qkv[at..at + head_width]);
                    } else {
                        target.extend_from_slice(padded);
                    }
                }
            }
        }
    }

    fn tile(&mut self, tile: &Tile, output: &mut [f32]) -> Result<()> {
        let Sizes {
            width,
            side,
            head_width,
            ..
        } = *self.sizes;
        let channels = self.sizes.channels();
        let scratch = &mut self.scratch;
        let across = side.min(width - tile.left);
        let (queries, keys, entries) = (tile.rows * across, side * side, 2 * (2 * side - 1));
        let first_row = self.first_row + tile.first;

        scratch.queries.clear();
        for y in first_row..first_row + tile.rows {
            for x in tile.left..tile.left + across {
                let at = (y * width + x) * 3 * channels + tile.head * head_width;
                scratch.queries.extend_from_slice(&self.qkv[at..at + head_width]);
            }
        }
        let q = View::rows(&scratch.queries, queries, head_width, head_width);
        let table = View::rows(self.turned, entries, head_width, head_width).transposed();
        scratch.positions.resize(queries * entries, 0.0);
        product(&mut scratch.positions, Start::Zero, 1.0, q, table, Threads::One)?;
        let k = View::rows(&scratch.keys, keys, head_width, head_width).transposed();
        scratch.scores.resize(queries * keys, 0.0);
        product(
            &mut scratch.scores,
            Start::Zero,
            self.sizes.scale() as f32,
            q,
            k,
            Threads::One,
        )?;

        scratch.factors.resize(queries, 0.0);
        simd::dispatch(Softmax {
            scores: &mut scratch.scores,
            positions: &scratch.positions,
            factors: &mut scratch.factors,
            side,
            across,
            row_in_span: first_row - tile.top,
        });

        let p = View::rows(&scratch.scores, queries, keys, keys);
        let v = View::rows(&scratch.values, keys, head_width, head_width);
        scratch.mixed.resize(queries * head_width, 0.0);
        product(&mut scratch.mixed, Start::Zero, 1.0, p, v, Threads::One)?;

        let mixed = scratch.mixed.chunks_exact(head_width).zip(&scratch.factors);
        for (query, (mixed, factor)) in mixed.enumerate() {
            let (y, x) = (tile.first + query / across, tile.left + query % across);
            let at = (y * width + x) * channels + tile.head * head_width;
            for (out, value) in output[at..at + head_width].iter_mut().zip(mixed) {
                *out = value * factor;
            }
        }
        Ok(())
    }
}

/// Some rows of queries of one head of one span.
struct Tile {
    /// Grid row and column of the span's corner.
    top: usize,
    left: usize,
    head: usize,
    /// First row within the band, and how many.
    first: usize,
    rows: usize,
}

/// Adds positions to scores and turns each row into e^(score - max); `factors` gets 1 / sum.
pub(super) struct Softmax<'a> {
    pub(super) scores: &'a mut [f32],
    pub(super) positions: &'a [f32],
    pub(super) factors: &'a mut [f32],
    pub(super) side: usize,
    pub(super) across: usize,
    pub(super) row_in_span: usize,
}

impl simd::Body for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Self { side, across, .. } = self;
        let entries = 2 * (2 * side - 1);
        let rows = self
            .scores
            .chunks_exact_mut(side * side)
            .zip(self.positions.chunks_exact(entries));
        for (query, ((scores, positions), factor)) in rows.zip(self.factors).enumerate() {
            let (y, x) = (self.row_in_span + query / across, query % across);
            let (along_rows, along_columns) = positions.split_at(2 * side - 1);
            // In the turned tables the entry for key c of query a is at c - a + side - 1.
            let along_rows = &along_rows[side - 1 - y..][..side];
            let along_columns = &along_columns[side - 1 - x..][..side];
            for (scores, row) in scores.chunks_exact_mut(side).zip(along_rows) {
                for (score, column) in scores.iter_mut().zip(along_columns) {
                    *score += row + column;
                }
            }
            *factor = 1.0 / exp_shifted::<FMA>(scores);
        }
    }
}
