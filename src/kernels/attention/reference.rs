//! Attention by Candle's own operations, step by step as the paper's software does it.

use super::{Sizes, Span};
use crate::kernels::softmax;
use candle_core::{Result, Tensor};

/// As [`attention`](super::attention), writing every intermediate to memory.
///
/// # Errors
/// Shapes that do not fit, or Candle's own.
pub fn reference(qkv: &Tensor, bias: &Tensor, relative: &Tensor, span: Span) -> Result<Tensor> {
    let sizes = Sizes::of(qkv.dims(), bias.dims(), relative.dims(), span)?;
    let Sizes {
        images,
        height,
        width,
        heads,
        head_width,
        side,
    } = sizes;
    let (rows, columns) = sizes.partitions();
    let channels = 3 * sizes.channels();

    let padded = pad(&pad(qkv, bias, 1, rows * side)?, bias, 2, columns * side)?;
    let spans = images * rows * columns;
    let tokens = side * side;
    let qkv = padded
        .reshape(&[images, rows, side, columns, side, channels])?
        .permute([0, 1, 3, 2, 4, 5])?
        .reshape((spans, tokens, 3, heads, head_width))?
        .permute((2, 0, 3, 1, 4))?
        .contiguous()? // [3, spans, heads, tokens, head_width]
        .reshape((3, spans * heads, tokens, head_width))?;
    let (q, k, v) = (qkv.get(0)?, qkv.get(1)?, qkv.get(2)?);

    // Tables [queries, keys, head_width] along one axis: entry q - k + side - 1.
    let apart: Vec<u32> = (0..side)
        .flat_map(|q| (0..side).map(move |k| (q + side - 1 - k) as u32))
        .collect();
    let apart = Tensor::new(apart, qkv.device())?;
    let table = |start| -> Result<Tensor> {
        let along = relative.narrow(0, start, 2 * side - 1)?.contiguous()?;
        along
            .index_select(&apart, 0)?
            .reshape((side, side, head_width))?
            .transpose(1, 2)?
            .contiguous()
    };
    let grid = q.reshape((spans * heads, side, side, head_width))?;
    // The axis in question first, so that each of its positions is one product with its own table.
    let along_rows = grid
        .permute((1, 0, 2, 3))?
        .contiguous()?
        .reshape((side, spans * heads * side, head_width))?
        .matmul(&table(0)?)?
        .reshape((side, spans * heads, side, side))?
        .permute((1, 0, 2, 3))?; // [spans * heads, query row, query column, key row]
    let along_columns = grid
        .permute((2, 0, 1, 3))?
        .contiguous()?
        .reshape((side, spans * heads * side, head_width))?
        .matmul(&table(2 * side - 1)?)?
        .reshape((side, spans * heads, side, side))?
        .permute((1, 2, 0, 3))?; // [spans * heads, query row, query column, key column]
    let positions = along_rows
        .unsqueeze(4)?
        .broadcast_add(&along_columns.unsqueeze(3)?)?
        .reshape((spans * heads, tokens, tokens))?;

    let scores = ((q * sizes.scale())?.matmul(&k.t()?)? + positions)?;
    softmax::reference(&scores)?
        .matmul(&v)?
        .reshape(&[images, rows, columns, heads, side, side, head_width])?
        .permute([0, 1, 4, 2, 5, 3, 6])?
        .reshape((images, rows * side, columns * side, heads * head_width))?
        .narrow(1, 0, height)?
        .narrow(2, 0, width)?
        .contiguous() // [images, height, width, channels]
}

/// Lengthens axis `axis` of `[images, height, width, channels]` to `length` with tokens that equal `bias`.
fn pad(x: &Tensor, bias: &Tensor, axis: usize, length: usize) -> Result<Tensor> {
    let missing = length - x.dim(axis)?;
    if missing == 0 {
        return Ok(x.clone());
    }
    let mut shape = x.dims().to_vec();
    shape[axis] = missing;
    Tensor::cat(&[x, &bias.broadcast_as(shape)?.contiguous()?], axis)
}
