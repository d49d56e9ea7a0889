//! The attention of a block in place: `x += proj(attention(qkv(norm(x))))`.

use super::layers::{Dense, Norm, floats};
use super::plan::Images;
use super::room::{Cut, Room, Rooms, Shared, span, take};
use crate::kernels::memory::Buffer;
use crate::kernels::packed::Number;
use crate::kernels::packed::attention::{HeadOfSpan, SpanAttention};
use crate::model::attention::Attention;
use crate::model::layers::LayerNorm;
use crate::runtime::thread_pool::current_threads;
use candle_core::{Result, Tensor};

/// Rows of tokens that are projected before attention looks at them: their queries, keys and values stay in the cache
/// that all cores share.
const GROUP_ROWS: usize = 2048;

/// Norm, projections and attention of one block.
#[derive(Debug)]
pub(super) struct BlockAttention<N> {
    norm: Norm,
    qkv: Dense<N>,
    inner: SpanAttention<N>,
    proj: Dense<N>,
}

/// Buffers that all tasks of a block's attention share.
#[derive(Debug)]
pub(super) struct Projected<N> {
    /// `[images of a group, tokens, 3 * width]`
    pub(super) qkv: Buffer<N>,
    /// `[images of a group, tokens, width]`
    pub(super) mixed: Buffer<N>,
}

impl<N> Default for Projected<N> {
    fn default() -> Self {
        Self {
            qkv: Buffer::default(),
            mixed: Buffer::default(),
        }
    }
}

impl<N> Projected<N> {
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.qkv.as_slice()) + size_of_val(self.mixed.as_slice())
    }
}

impl<N: Number> BlockAttention<N> {
    pub(super) fn new(attention: &Attention, norm: &LayerNorm, grid_side: usize) -> Result<Self> {
        let relative = Tensor::cat(&[&attention.rel_pos_h, &attention.rel_pos_w], 0)?;
        let qkv = Dense::new(&attention.qkv)?;
        Ok(Self {
            norm: Norm::new(norm)?,
            inner: SpanAttention::new(
                (grid_side, grid_side),
                attention.span.heads,
                attention.span.side,
                &qkv.bias,
                &floats(&relative)?,
            )?,
            qkv,
            proj: Dense::new(&attention.proj)?,
        })
    }

    /// Attention over each of `images`, in place.
    pub(super) fn run(
        &self,
        rooms: &Rooms<N>,
        projected: &mut Projected<N>,
        images: &Images,
        tokens: usize,
        stream: &mut [f32],
    ) -> Result<()> {
        let stream = Shared::new(stream);
        for group in images.chunks((GROUP_ROWS / tokens).max(1)) {
            self.group(rooms, projected, group, tokens, &stream)?;
        }
        Ok(())
    }

    fn group(
        &self,
        rooms: &Rooms<N>,
        projected: &mut Projected<N>,
        images: &[usize],
        tokens: usize,
        stream: &Shared<'_, f32>,
    ) -> Result<()> {
        let width = self.proj.outputs();
        let cut = Cut::new(tokens, images.len(), 1);
        let qkv = take(&mut projected.qkv, images.len() * tokens * 3 * width);
        let mixed = take(&mut projected.mixed, images.len() * tokens * width);
        let shared = Shared::new(qkv);
        rooms.run(cut.pieces() * images.len(), |index, room| {
            let (which, rows) = cut.piece(index);
            // SAFETY: each task has rows of its own, in both buffers.
            let (x, y) = unsafe {
                let x = stream.slice(span(images[which], tokens, &rows, width))?;
                (x, shared.slice(span(which, tokens, &rows, 3 * width))?)
            };
            self.ask_rows(x, y, room)
        })?;
        let qkv = &*qkv;
        self.mix(rooms, images.len(), tokens, qkv, mixed)?;
        let mixed = &*mixed;
        rooms.run(cut.pieces() * images.len(), |index, _| {
            let (which, rows) = cut.piece(index);
            // SAFETY: each task has rows of its own.
            let x = unsafe { stream.slice(span(images[which], tokens, &rows, width))? };
            self.answer_rows(&mixed[span(which, tokens, &rows, width)], x)
        })
    }

    /// Queries, keys and values of some tokens.
    pub(super) fn ask_rows(&self, x: &[f32], qkv: &mut [N], room: &mut Room<N>) -> Result<()> {
        let Room {
            floats: [normed, sums, ..],
            numbers: [narrow, ..],
            ..
        } = room;
        let normed = take(normed, x.len());
        self.norm.rows(x, normed);
        self.qkv.narrow(N::of_all(normed, narrow), qkv, sums)
    }

    /// Adds what attention gave for some tokens.
    pub(super) fn answer_rows(&self, mixed: &[N], x: &mut [f32]) -> Result<()> {
        self.proj.add(mixed, x)
    }

    /// Every head of every span, in bands of queries where there would be too few tasks.
    pub(super) fn mix(
        &self,
        rooms: &Rooms<N>,
        images: usize,
        tokens: usize,
        qkv: &[N],
        mixed: &mut [N],
    ) -> Result<()> {
        let (width, head_width, heads) = (self.proj.outputs(), self.inner.head_width(), self.inner.heads());
        let (down, across) = self.inner.spans();
        let units = images * down * across * heads;
        let bands = (2 * current_threads()).div_ceil(units);
        let mixed = Shared::new(mixed);
        rooms.run(units * bands, |index, room| {
            let (unit, band) = (index / bands, index % bands);
            let (image, unit) = (unit / (down * across * heads), unit % (down * across * heads));
            let (at, head) = (unit / heads, unit % heads);
            let side = self.inner.side();
            let corner = (at / across * side, at % across * side);
            let (rows, columns) = self.inner.extent(corner);
            let queries = rows * columns;
            let part = HeadOfSpan {
                corner,
                head,
                queries: queries * band / bands..queries * (band + 1) / bands,
            };
            let qkv = &qkv[image * tokens * 3 * width..(image + 1) * tokens * 3 * width];
            let mut result = Ok(());
            let write = |token: usize, values: &[f32]| {
                let at = (image * tokens + token) * width + head * head_width;
                // SAFETY: each task has a head's channels of queries of its own.
                match unsafe { mixed.slice(at..at + head_width) } {
                    Ok(to) => N::narrow(values, to),
                    Err(error) => result = Err(error),
                }
            };
            self.inner.run(&mut room.attention, qkv, &part, write)?;
            result
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.qkv.bytes() + self.proj.bytes()
    }
}
