//! The gradient of attention on CPU, tile by tile like the forward pass, whose scores it computes again.
//!
//! ```text
//! dV = P^T dO    dP = dO V^T    dS = P (dP - sum over keys of P dP)
//! dQ = scale dS K + dR T    dK = scale dS^T Q    dT = dR^T Q
//! ```
//! P are the probabilities, T the turned tables of relative positions, and dR the scores' gradients summed over the
//! keys that share a table's entry. A task owns the spans that lie side by side in a band of grid rows.

use super::Sizes;
use super::cpu::{Softmax, turned};
use crate::kernels::product::{Start, Threads, View, product};
use crate::kernels::simd;
use candle_core::Result;
use rayon::prelude::*;

/// Scores of one tile; two tiles of this size are at work at a time.
const TILE_SCORES: usize = 1 << 16;

/// Gradients of qkv, bias and relative, laid out like them.
pub(in crate::kernels) struct Gradients {
    pub(in crate::kernels) qkv: Vec<f32>,
    pub(in crate::kernels) bias: Vec<f32>,
    pub(in crate::kernels) relative: Vec<f32>,
}

/// `grad`: `[images, height, width, heads * head_width]`, the gradient of the output.
pub(in crate::kernels) fn gradients(
    qkv: &[f32],
    bias: &[f32],
    relative: &[f32],
    grad: &[f32],
    sizes: &Sizes,
) -> Result<Gradients> {
    let Sizes {
        height,
        width,
        side,
        head_width,
        ..
    } = *sizes;
    let mut found = Gradients {
        qkv: vec![0f32; qkv.len()],
        bias: vec![0f32; bias.len()],
        relative: vec![0f32; relative.len()],
    };
    if grad.is_empty() {
        return Ok(found);
    }
    let tables = turned(relative, side, head_width);
    let row = width * sizes.channels();
    let (image, band) = (height * row, side.min(height) * row);
    let parts: Vec<Task> = found
        .qkv
        .par_chunks_mut(3 * image)
        .zip(qkv.par_chunks(3 * image).zip(grad.par_chunks(image)))
        .flat_map(|(found, (qkv, grad))| {
            found
                .par_chunks_mut(3 * band)
                .zip(qkv.par_chunks(3 * band).zip(grad.par_chunks(band)))
        })
        .map(|(found, (qkv, grad))| {
            let mut task = Task::new(sizes, bias, &tables);
            task.run(qkv, grad, found)?;
            Ok(task)
        })
        .collect::<Result<_>>()?;
    let mut table_sums = vec![0f32; relative.len()];
    for part in parts {
        add(&mut found.bias, &part.bias_grad);
        add(&mut table_sums, &part.tables_grad);
    }
    found.relative = turned(&table_sums, side, head_width);
    Ok(found)
}

fn add(sums: &mut [f32], values: &[f32]) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

struct Task<'a> {
    sizes: &'a Sizes,
    bias: &'a [f32],
    tables: &'a [f32],
    bias_grad: Vec<f32>,
    tables_grad: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    keys_grad: Vec<f32>,
    values_grad: Vec<f32>,
    queries: Vec<f32>,
    queries_grad: Vec<f32>,
    outputs_grad: Vec<f32>,
    positions: Vec<f32>,
    scores: Vec<f32>,
    scores_grad: Vec<f32>,
    factors: Vec<f32>,
}

/// Where the channels of one head of queries, keys or values lie in a band's rows.
#[derive(Clone, Copy)]
struct Place {
    /// First grid row of the band, first column, and how many of each lie on the grid.
    top: usize,
    left: usize,
    rows: usize,
    across: usize,
    /// Channels of a token, and the first that counts.
    channels: usize,
    offset: usize,
}

impl Place {
    /// Index of the first channel of each token, row by row.
    fn tokens(self, width: usize) -> impl Iterator<Item = usize> {
        (self.top..self.top + self.rows).flat_map(move |y| {
            (self.left..self.left + self.across).map(move |x| (y * width + x) * self.channels + self.offset)
        })
    }
}

impl<'a> Task<'a> {
    fn new(sizes: &'a Sizes, bias: &'a [f32], tables: &'a [f32]) -> Self {
        Self {
            sizes,
            bias,
            tables,
            bias_grad: vec![0.0; bias.len()],
            tables_grad: vec![0.0; tables.len()],
            keys: Vec::new(),
            values: Vec::new(),
            keys_grad: Vec::new(),
            values_grad: Vec::new(),
            queries: Vec::new(),
            queries_grad: Vec::new(),
            outputs_grad: Vec::new(),
            positions: Vec::new(),
            scores: Vec::new(),
            scores_grad: Vec::new(),
            factors: Vec::new(),
        }
    }

    /// All spans of a band: `qkv` and `found` are `[rows, width, 3 * channels]`, `grad` is `[rows, width, channels]`.
    fn run(&mut self, qkv: &[f32], grad: &[f32], found: &mut [f32]) -> Result<()> {
        let Sizes {
            width,
            side,
            heads,
            head_width,
            ..
        } = *self.sizes;
        let channels = self.sizes.channels();
        let rows = grad.len() / (width * channels);
        for left in (0..width).step_by(side) {
            for head in 0..heads {
                let span = Place {
                    top: 0,
                    left,
                    rows,
                    across: side.min(width - left),
                    channels: 3 * channels,
                    offset: head * head_width,
                };
                self.gather_keys_and_values(qkv, span);
                let tile_rows = (TILE_SCORES / (side * side) / span.across).clamp(1, rows);
                for top in (0..rows).step_by(tile_rows) {
                    let tile = Place {
                        top,
                        rows: tile_rows.min(rows - top),
                        ..span
                    };
                    self.tile(qkv, grad, tile, found)?;
                }
                self.scatter_keys_and_values(span, found);
            }
        }
        Ok(())
    }

    fn gather_keys_and_values(&mut self, qkv: &[f32], span: Place) {
        let Sizes {
            width,
            side,
            head_width,
            ..
        } = *self.sizes;
        let channels = self.sizes.channels();
        for (which, target) in [(1, &mut self.keys), (2, &mut self.values)] {
            let offset = which * channels + span.offset;
            let padded = &self.bias[offset..offset + head_width];
            target.clear();
            for y in 0..side {
                for x in 0..side {
                    let token = match y < span.rows && x < span.across {
                        true => &qkv[(y * width + span.left + x) * 3 * channels + offset..][..head_width],
                        false => padded,
                    };
                    target.extend_from_slice(token);
                }
            }
        }
        for target in [&mut self.keys_grad, &mut self.values_grad] {
            target.clear();
            target.resize(side * side * head_width, 0.0);
        }
    }

    fn scatter_keys_and_values(&mut self, span: Place, found: &mut [f32]) {
        let Sizes {
            width,
            side,
            head_width,
            ..
        } = *self.sizes;
        let channels = self.sizes.channels();
        for (which, source) in [(1, &self.keys_grad), (2, &self.values_grad)] {
            let offset = which * channels + span.offset;
            for (token, grad) in source.chunks_exact(head_width).enumerate() {
                let (y, x) = (token / side, token % side);
                match y < span.rows && x < span.across {
                    true => found[(y * width + span.left + x) * 3 * channels + offset..][..head_width]
                        .copy_from_slice(grad),
                    false => add(&mut self.bias_grad[offset..offset + head_width], grad),
                }
            }
        }
    }

    fn tile(&mut self, qkv: &[f32], grad: &[f32], tile: Place, found: &mut [f32]) -> Result<()> {
        let Sizes {
            width,
            side,
            head_width,
            ..
        } = *self.sizes;
        let scale = self.sizes.scale() as f32;
        let (queries, keys, entries) = (tile.rows * tile.across, side * side, 2 * (2 * side - 1));
        self.queries.clear();
        for at in tile.tokens(width) {
            self.queries.extend_from_slice(&qkv[at..at + head_width]);
        }
        let place = Place {
            channels: self.sizes.channels(),
            ..tile
        };
        self.outputs_grad.clear();
        for at in place.tokens(width) {
            self.outputs_grad.extend_from_slice(&grad[at..at + head_width]);
        }

        let narrow = |data| View::rows(data, queries, head_width, head_width);
        let span = |data| View::rows(data, keys, head_width, head_width);
        let table = View::rows(self.tables, entries, head_width, head_width);
        let wide = |data| View::rows(data, queries, keys, keys);
        self.positions.resize(queries * entries, 0.0);
        self.scores.resize(queries * keys, 0.0);
        self.scores_grad.resize(queries * keys, 0.0);
        self.queries_grad.resize(queries * head_width, 0.0);
        self.factors.resize(queries, 0.0);
        let one = Threads::One;

        // The probabilities once more.
        product(
            &mut self.positions,
            Start::Zero,
            1.0,
            narrow(&self.queries),
            table.transposed(),
            one,
        )?;
        let keys_across = span(&self.keys).transposed();
        product(
            &mut self.scores,
            Start::Zero,
            scale,
            narrow(&self.queries),
            keys_across,
            one,
        )?;
        simd::dispatch(Softmax {
            scores: &mut self.scores,
            positions: &self.positions,
            factors: &mut self.factors,
            side,
            across: tile.across,
            row_in_span: tile.top,
        });
        for (row, factor) in self.scores.chunks_exact_mut(keys).zip(&self.factors) {
            row.iter_mut().for_each(|p| *p *= factor);
        }

        let probabilities = wide(&self.scores).transposed();
        product(
            &mut self.values_grad,
            Start::Output,
            1.0,
            probabilities,
            narrow(&self.outputs_grad),
            one,
        )?;
        let values_across = span(&self.values).transposed();
        product(
            &mut self.scores_grad,
            Start::Zero,
            1.0,
            narrow(&self.outputs_grad),
            values_across,
            one,
        )?;
        simd::dispatch(ScoreSlopes {
            probabilities: &self.scores,
            grad: &mut self.scores_grad,
            positions: &mut self.positions,
            side,
            across: tile.across,
            row_in_span: tile.top,
        });

        let slopes = wide(&self.scores_grad);
        product(
            &mut self.queries_grad,
            Start::Zero,
            scale,
            slopes,
            span(&self.keys),
            one,
        )?;
        let positions = View::rows(&self.positions, queries, entries, entries);
        product(&mut self.queries_grad, Start::Output, 1.0, positions, table, one)?;
        product(
            &mut self.keys_grad,
            Start::Output,
            scale,
            slopes.transposed(),
            narrow(&self.queries),
            one,
        )?;
        product(
            &mut self.tables_grad,
            Start::Output,
            1.0,
            positions.transposed(),
            narrow(&self.queries),
            one,
        )?;
        for (at, grad) in tile.tokens(width).zip(self.queries_grad.chunks_exact(head_width)) {
            found[at..at + head_width].copy_from_slice(grad);
        }
        Ok(())
    }
}

/// Turns the probabilities' gradients into the scores', and sums those up by the tables' entries.
struct ScoreSlopes<'a> {
    probabilities: &'a [f32],
    grad: &'a mut [f32],
    positions: &'a mut [f32],
    side: usize,
    across: usize,
    row_in_span: usize,
}

impl simd::Body for ScoreSlopes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Self { side, across, .. } = self;
        let (keys, entries) = (side * side, 2 * (2 * side - 1));
        self.positions.fill(0.0);
        let rows = self
            .probabilities
            .chunks_exact(keys)
            .zip(self.grad.chunks_exact_mut(keys))
            .zip(self.positions.chunks_exact_mut(entries));
        for (query, ((probabilities, grad), positions)) in rows.enumerate() {
            let mut strands = [0f32; 16];
            let (mut ps, mut gs) = (probabilities.chunks_exact(16), grad.chunks_exact(16));
            for (p, g) in (&mut ps).zip(&mut gs) {
                for ((strand, p), g) in strands.iter_mut().zip(p).zip(g) {
                    *strand += p * g;
                }
            }
            let rest = ps.remainder().iter().zip(gs.remainder());
            let mean = strands.iter().sum::<f32>() + rest.map(|(p, g)| p * g).sum::<f32>();
            for (g, p) in grad.iter_mut().zip(probabilities) {
                *g = p * (*g - mean);
            }
            // In the turned tables the entry for key c of query a is at c - a + side - 1.
            let (y, x) = (self.row_in_span + query / across, query % across);
            let (along_rows, along_columns) = positions.split_at_mut(2 * side - 1);
            let along_rows = &mut along_rows[side - 1 - y..][..side];
            let along_columns = &mut along_columns[side - 1 - x..][..side];
            for (grad, row) in grad.chunks_exact(side).zip(along_rows) {
                for (g, column) in grad.iter().zip(&mut *along_columns) {
                    *row += g;
                    *column += g;
                }
            }
        }
    }
}
