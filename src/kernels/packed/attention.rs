//! Attention with decomposed relative positions over packed keys and values, a block of keys at a time.
//!
//! Keys and values of one head and span are packed once. A tile of queries then passes over blocks of keys: scores,
//! positions, `e^(score - largest so far)`, and the weighted values onto what earlier blocks gave, which is made
//! smaller where a later block has a larger score. No more scores exist than a tile has for one block.
//!
//! What is computed is that of [`attention`](crate::kernels::attention::attention), which is its reference.

use super::{Number, Panels, Rows, Start, product};
use crate::kernels::memory::Buffer;
use crate::kernels::softmax::{exp_minus, max_of};
use crate::kernels::{math, math::mul_add, simd};
use candle_core::Result;
use std::ops::Range;

/// Queries of a tile.
const TILE: usize = 48;
/// Keys of a block: with a tile's queries 200 kB of scores, which with the block's keys stay in a core's second-level
/// cache.
const BLOCK: usize = 1024;

/// The attention of one image: sizes, and the weights that do not depend on the image.
#[derive(Debug, Clone)]
pub struct SpanAttention<N> {
    grid: (usize, usize),
    heads: usize,
    head_width: usize,
    side: usize,
    /// Keys and values of a padded token, `[2, channels]`.
    padded: Vec<N>,
    /// For each query the entries of the rows' table from its last to its first, then those of the columns'.
    tables: Panels<N>,
}

/// One head of one span, of which `queries` are wanted: tokens of the span that exist, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadOfSpan {
    /// Grid row and column of the span's corner.
    pub corner: (usize, usize),
    /// Which head.
    pub head: usize,
    /// Which of the span's tokens.
    pub queries: Range<usize>,
}

/// Buffers of one task, used again from task to task.
#[derive(Debug)]
pub struct Room<N> {
    keys: Vec<Panels<N>>,
    values: Vec<Panels<N>>,
    queries: Buffer<N>,
    positions: Buffer<f32>,
    scores: Buffer<f32>,
    weights: Buffer<N>,
    mixed: Buffer<f32>,
    largest: Buffer<f32>,
    sums: Buffer<f32>,
}

impl<N> Default for Room<N> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            values: Vec::new(),
            queries: Buffer::default(),
            positions: Buffer::default(),
            scores: Buffer::default(),
            weights: Buffer::default(),
            mixed: Buffer::default(),
            largest: Buffer::default(),
            sums: Buffer::default(),
        }
    }
}

impl<N: Number> Room<N> {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let panels = self.keys.iter().chain(&self.values).map(Panels::bytes);
        let floats = [
            &self.positions,
            &self.scores,
            &self.mixed,
            &self.largest,
            &self.sums,
        ];
        let floats = floats.iter().map(|buffer| size_of_val(buffer.as_slice()));
        let numbers = [&self.queries, &self.weights];
        let numbers = numbers.iter().map(|buffer| size_of_val(buffer.as_slice()));
        panels.sum::<usize>() + floats.sum::<usize>() + numbers.sum::<usize>()
    }
}

impl<N: Number> SpanAttention<N> {
    /// * `grid`: rows and columns of tokens
    /// * `side`: of the square of tokens that see each other
    /// * `bias`: `[3 * heads * head_width]`, the qkv of a padded token
    /// * `relative`: `[2 * (2 * side - 1), head_width]`, the table of rows above that of columns
    ///
    /// # Errors
    /// A type that this processor does not multiply, or lengths that do not fit.
    pub fn new(
        grid: (usize, usize),
        heads: usize,
        side: usize,
        bias: &[f32],
        relative: &[f32],
    ) -> Result<Self> {
        let channels = bias.len() / 3;
        let head_width = channels / heads.max(1);
        let entries = (2 * side).saturating_sub(1);
        if side == 0
            || 3 * heads * head_width != bias.len()
            || relative.len() != 2 * entries * head_width
            || bias.is_empty()
        {
            candle_core::bail!(
                "attention: bias of {}, positions of {}, {heads} heads, side {side}",
                bias.len(),
                relative.len()
            );
        }
        let turned: Vec<f32> = relative
            .chunks_exact(entries * head_width)
            .flat_map(|table| table.chunks_exact(head_width).rev().flatten().copied())
            .collect();
        Ok(Self {
            grid,
            heads,
            head_width,
            side,
            padded: bias[channels..].iter().map(|value| N::of(*value)).collect(),
            tables: Panels::of_weight(&turned, 2 * entries, head_width)?,
        })
    }

    /// Channels of a token.
    pub fn channels(&self) -> usize {
        self.heads * self.head_width
    }

    /// Corners of the spans, row by row.
    pub fn spans(&self) -> (usize, usize) {
        (self.grid.0.div_ceil(self.side), self.grid.1.div_ceil(self.side))
    }

    /// Tokens of the span at `corner` that exist: rows and columns.
    pub fn extent(&self, corner: (usize, usize)) -> (usize, usize) {
        (
            self.side.min(self.grid.0 - corner.0),
            self.side.min(self.grid.1 - corner.1),
        )
    }

    /// Heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Channels of a head.
    pub fn head_width(&self) -> usize {
        self.head_width
    }

    /// Side of a span.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Attention of some queries of one head of one span. `write` gets each query's token and its `head_width` values.
    ///
    /// * `qkv`: one image's `[height, width, 3 * channels]`
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn run(
        &self,
        room: &mut Room<N>,
        qkv: &[N],
        part: &HeadOfSpan,
        mut write: impl FnMut(usize, &[f32]),
    ) -> Result<()> {
        let (side, width) = (self.side, self.head_width);
        let across = self.extent(part.corner).1;
        let blocks = self.pack(room, qkv, part)?;
        let entries = 2 * (2 * side - 1);
        let mut first = part.queries.start;
        while first < part.queries.end {
            let count = TILE.min(part.queries.end - first);
            self.gather_queries(room, qkv, part, first..first + count);
            let q = Rows::new(&room.queries, count, width);
            room.positions.resize(count * entries, 0.0);
            product(&mut room.positions, entries, Start::Zero, q, &self.tables.all())?;
            room.mixed.resize(count * width, 0.0);
            room.largest.clear();
            room.largest.resize(count, f32::NEG_INFINITY);
            room.sums.clear();
            room.sums.resize(count, 0.0);
            for block in 0..blocks {
                let (keys, values) = (&room.keys[block], &room.values[block]);
                let pitch = keys.outputs().next_multiple_of(N::DEPTH);
                room.scores.resize(count * pitch, 0.0);
                product(&mut room.scores, pitch, Start::Zero, q, &keys.all())?;
                simd::dispatch(Softmax {
                    scores: &mut room.scores,
                    pitch,
                    keys: keys.outputs(),
                    positions: &room.positions,
                    largest: &mut room.largest,
                    sums: &mut room.sums,
                    mixed: &mut room.mixed,
                    scale: 1.0 / (width as f32).sqrt(),
                    side,
                    across,
                    first_query: first,
                    first_row: block * self.block_rows(),
                });
                let weights = N::of_all(&room.scores[..count * pitch], &mut room.weights);
                let start = if block == 0 { Start::Zero } else { Start::Output };
                let weights = Rows::new(weights, count, pitch);
                product(&mut room.mixed, width, start, weights, &values.all())?;
            }
            for (i, (mixed, sum)) in room
                .mixed
                .chunks_exact_mut(width)
                .zip(room.sums.iter())
                .enumerate()
            {
                let factor = 1.0 / sum;
                mixed.iter_mut().for_each(|value| *value *= factor);
                let query = first + i;
                let (y, x) = (part.corner.0 + query / across, part.corner.1 + query % across);
                write(y * self.grid.1 + x, mixed);
            }
            first += count;
        }
        Ok(())
    }

    /// Rows of a span that a block of keys has.
    fn block_rows(&self) -> usize {
        (BLOCK / self.side).clamp(1, self.side)
    }

    /// Packs keys and values of the whole span, and says in how many blocks.
    fn pack(&self, room: &mut Room<N>, qkv: &[N], part: &HeadOfSpan) -> Result<usize> {
        let (side, width, channels) = (self.side, self.head_width, self.channels());
        let rows = self.block_rows();
        let blocks = side.div_ceil(rows);
        let (down, across) = self.extent(part.corner);
        while room.keys.len() < blocks {
            room.keys.push(Panels::zeros(0, 0)?);
            room.values.push(Panels::zeros(0, 0)?);
        }
        let head = part.head * width;
        let padded_key = &self.padded[head..head + width];
        let padded_value = &self.padded[channels + head..channels + head + width];
        for (block, (keys, values)) in room
            .keys
            .iter_mut()
            .zip(&mut room.values)
            .take(blocks)
            .enumerate()
        {
            let block_rows = block * rows..side.min((block + 1) * rows);
            keys.reshape(width, block_rows.len() * side);
            values.reshape(block_rows.len() * side, width);
            let mut at = 0;
            for y in block_rows {
                for x in 0..side {
                    let (key, value) = if y < down && x < across {
                        let token = (part.corner.0 + y) * self.grid.1 + part.corner.1 + x;
                        let key = token * 3 * channels + channels + head;
                        (
                            &qkv[key..key + width],
                            &qkv[key + channels..key + channels + width],
                        )
                    } else {
                        (padded_key, padded_value)
                    };
                    keys.set_column(at, key)?;
                    values.set_row(at, value)?;
                    at += 1;
                }
            }
        }
        Ok(blocks)
    }

    fn gather_queries(&self, room: &mut Room<N>, qkv: &[N], part: &HeadOfSpan, queries: Range<usize>) {
        let (width, channels) = (self.head_width, self.channels());
        let across = self.extent(part.corner).1;
        room.queries.clear();
        for query in queries {
            let (y, x) = (part.corner.0 + query / across, part.corner.1 + query % across);
            let at = (y * self.grid.1 + x) * 3 * channels + part.head * width;
            room.queries.extend_from_slice(&qkv[at..at + width]);
        }
    }
}

/// Adds positions to the scores of one block of keys, and turns them into weights against the largest so far.
struct Softmax<'a> {
    scores: &'a mut [f32],
    pitch: usize,
    keys: usize,
    positions: &'a [f32],
    largest: &'a mut [f32],
    sums: &'a mut [f32],
    mixed: &'a mut [f32],
    scale: f32,
    side: usize,
    across: usize,
    first_query: usize,
    first_row: usize,
}

impl simd::Body for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Self { side, across, .. } = self;
        let entries = 2 * (2 * side - 1);
        let count = self.largest.len();
        let width = self.mixed.len() / count.max(1);
        let rows = self
            .scores
            .chunks_exact_mut(self.pitch)
            .zip(self.positions.chunks_exact(entries));
        let kept = self
            .largest
            .iter_mut()
            .zip(self.sums)
            .zip(self.mixed.chunks_exact_mut(width));
        for (query, ((scores, positions), ((largest, sum), mixed))) in rows.zip(kept).enumerate() {
            let query = self.first_query + query;
            let (y, x) = (query / across, query % across);
            let (along_rows, along_columns) = positions.split_at(2 * side - 1);
            // In the turned tables the entry for key c of query a is at c - a + side - 1.
            let along_rows = &along_rows[side - 1 - y + self.first_row..];
            let along_columns = &along_columns[side - 1 - x..][..side];
            let (scores, rest) = scores.split_at_mut(self.keys);
            rest.fill(0.0);
            for (scores, row) in scores.chunks_exact_mut(side).zip(along_rows) {
                for (score, column) in scores.iter_mut().zip(along_columns) {
                    *score = mul_add::<FMA>(*score, self.scale, row + column);
                }
            }
            let before = *largest;
            *largest = before.max(max_of(scores));
            // A row of -inf or NaN has nothing to take away; NaN then spreads by itself.
            let taken = if largest.is_finite() { *largest } else { 0.0 };
            let shrink = math::exp::<FMA>(before - taken);
            *sum = mul_add::<FMA>(*sum, shrink, exp_minus::<FMA>(scores, taken));
            if *largest == f32::INFINITY {
                *sum = f32::NAN; // infinity over infinity
            }
            if self.first_row > 0 && shrink != 1.0 {
                mixed.iter_mut().for_each(|value| *value *= shrink);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::attention::{self, Span};
    use crate::model::weights::uniform;
    use candle_core::{Device, Tensor};
    use half::bf16;

    fn values(name: &str, count: usize) -> Vec<f32> {
        uniform(name, count).map(|u| u as f32).collect()
    }

    fn holds<N: Number>(grid: (usize, usize), heads: usize, head_width: usize, side: usize, tolerance: f32) {
        let what = format!("{} {grid:?}, {heads} heads of {head_width}, side {side}", N::NAME);
        let (tokens, channels) = (grid.0 * grid.1, heads * head_width);
        let rounded = |values: Vec<f32>| -> Vec<f32> { values.iter().map(|v| N::of(*v).float()).collect() };
        let qkv = rounded(values(&format!("{what} qkv"), tokens * 3 * channels));
        let bias = rounded(values(&format!("{what} bias"), 3 * channels));
        let relative = rounded(values(
            &format!("{what} relative"),
            2 * (2 * side - 1) * head_width,
        ));
        let tensor =
            |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        let wanted = attention::reference(
            &tensor(&qkv, &[1, grid.0, grid.1, 3 * channels]),
            &tensor(&bias, &[3 * channels]),
            &tensor(&relative, &[2 * (2 * side - 1), head_width]),
            Span { heads, side },
        );
        let wanted = wanted.unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let attention = SpanAttention::<N>::new(grid, heads, side, &bias, &relative).unwrap();
        let numbers: Vec<N> = qkv.iter().map(|v| N::of(*v)).collect();
        let mut got = vec![f32::NAN; tokens * channels];
        let mut room = Room::default();
        let (down, across) = attention.spans();
        for span in 0..down * across {
            let corner = (span / across * side, span % across * side);
            let (rows, columns) = attention.extent(corner);
            for head in 0..heads {
                // Two pieces, so that a tile also begins in the middle of a row.
                let middle = rows * columns / 3;
                for queries in [0..middle, middle..rows * columns] {
                    let part = HeadOfSpan {
                        corner,
                        head,
                        queries,
                    };
                    let write = |token: usize, values: &[f32]| {
                        let at = token * channels + head * head_width;
                        got[at..at + head_width].copy_from_slice(values);
                    };
                    attention.run(&mut room, &numbers, &part, write).unwrap();
                }
            }
        }
        for (i, (a, b)) in got.iter().zip(&wanted).enumerate() {
            assert!((a - b).abs() <= tolerance, "{what} at {i}: {a} for {b}");
        }
    }

    /// Grids that are no multiple of a partition, single tokens, and a span of more than one block of keys.
    #[test]
    fn it_equals_its_reference_at_odd_sizes() {
        for (grid, heads, head_width, side) in [
            ((1, 1), 1, 4, 1),
            ((7, 7), 2, 8, 3),
            ((5, 9), 3, 16, 14),
            ((16, 16), 3, 64, 8),
            ((14, 14), 2, 80, 14),
            ((8, 8), 1, 2, 5),
            ((35, 35), 1, 16, 35),
        ] {
            holds::<f32>(grid, heads, head_width, side, 2e-5);
            match bf16::lanes() {
                Ok(_) => holds::<bf16>(grid, heads, head_width, side, 2e-2),
                Err(error) => println!("SKIPPED: {error}"),
            }
        }
    }
}
